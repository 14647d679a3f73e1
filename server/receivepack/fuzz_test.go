package receivepack

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/headgate/headgate/server/pktline"
)

// encode writes a request as a client would that has these capabilities.
func (r *request) encode() []byte {
	var buf bytes.Buffer
	w := pktline.NewWriter(&buf)
	for _, oid := range r.shallow {
		_ = w.Line("shallow %s", oid)
	}
	caps := ""
	for name, has := range map[string]bool{
		"report-status": r.status, "report-status-v2": r.statusV2, "side-band-64k": r.sideBand, "atomic": r.atomic, "push-options": r.pushOptions,
	} {
		if has {
			caps += " " + name
		}
	}
	for i, c := range r.commands {
		line := fmt.Sprintf("%s %s %s", c.old, c.new, c.name)
		if i == 0 {
			line += "\x00" + caps
		}
		_ = w.Line("%s", line)
	}
	_ = w.Flush()
	if r.pushOptions && len(r.commands) > 0 {
		for _, o := range r.options {
			_ = w.Line("%s", o)
		}
		_ = w.Flush()
	}
	return buf.Bytes()
}

// FuzzReadRequest wants what was understood to survive being said again, and
// nothing that would break the report.
func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("0000"))
	f.Add([]byte("008f" + zeros + " " + oidA + " refs/heads/main\x00report-status side-band-64k push-options atomic0000000crun\n0000"))
	f.Add([]byte("0035shallow " + oidA + "\n0000"))
	two := &request{status: true, statusV2: true, sideBand: true, pushOptions: true, options: []string{"run", "param.day=1"}}
	for _, line := range []string{zeros + " " + oidA + " refs/heads/a", oidA + " " + zeros + " refs/tags/b", oidA + " " + oidB + " refs/heads/a..b"} {
		c, err := parseCommand(line)
		if err != nil {
			f.Fatal(err)
		}
		two.commands = append(two.commands, c)
	}
	f.Add(two.encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		req, err := readRequest(pktline.NewReader(bytes.NewReader(in)))
		if err != nil {
			return
		}
		if len(req.commands) > maxCommands || len(req.shallow) > maxShallow || len(req.options) > maxOptions {
			t.Fatalf("%d commands, %d shallow lines, %d options", len(req.commands), len(req.shallow), len(req.options))
		}
		names := map[string]int{}
		for _, c := range req.commands {
			names[c.name]++
			if c.err == nil && string(c.ref) != c.name {
				t.Fatalf("took %q as ref %q", c.name, c.ref)
			}
			if strings.ContainsAny(c.name, "\n\x00") {
				t.Fatalf("name %q would break the report", c.name)
			}
		}
		for _, c := range req.commands {
			if names[c.name] > 1 && c.err == nil {
				t.Fatalf("%q is named %d times and taken", c.name, names[c.name])
			}
		}
		if len(req.commands) == 0 {
			return // capabilities come with the first command
		}
		again, err := readRequest(pktline.NewReader(bytes.NewReader(req.encode())))
		if err != nil {
			t.Fatalf("said again: %v", err)
		}
		for i, c := range again.commands {
			// Errors are compared by being there.
			if (c.err == nil) != (req.commands[i].err == nil) {
				t.Fatalf("%q: %v, then %v", c.name, req.commands[i].err, c.err)
			}
			c.err = req.commands[i].err
		}
		if !reflect.DeepEqual(again, req) {
			t.Fatalf("%+v became %+v", req, again)
		}
	})
}
