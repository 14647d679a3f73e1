// Package abuse attacks the real sandbox with everything that docs/threat-model.md
// lists, and holds that the host and a neighbour notice nothing.
package abuse

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// try is one thing that a function tries, among others in the same sandbox.
type try struct {
	name     string   // its row in docs/threat-model.md
	code     string   // the body of a Python function: what it returns or raises is what the attacker sees
	sees     string   // a regular expression for that
	recorded []string // violations: "kind detail"
}

// TestNetwork and the others give all tries of a group to one sandbox.
func TestNetwork(t *testing.T)    { lab.tries(t, networkTries) }
func TestFiles(t *testing.T)      { lab.tries(t, fileTries) }
func TestPrivileges(t *testing.T) { lab.tries(t, privilegeTries) }
func TestProcesses(t *testing.T)  { lab.tries(t, processTries) }

//go:embed testdata/attack.py
var prelude string

// module is the source of a model that makes all tries, whatever each does.
func (l *laboratory) module(t *testing.T, tries []try) string {
	t.Helper()
	host, err := json.Marshal(l.host)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nHOST = json.loads(%q)\n", prelude, host)
	for i, c := range tries {
		fmt.Fprintf(&b, "\n\ndef try_%d():\n    %s\n", i, strings.ReplaceAll(strings.TrimSpace(c.code), "\n", "\n    "))
	}
	b.WriteString("\n\n@headgate.model(name=\"attack\")\ndef attack(t=headgate.Model(\"t\")):\n    say(\"begin\")\n")
	for i := range tries {
		fmt.Fprintf(&b, "    say(\"try %d \" + json.dumps(outcome(try_%d)))\n", i, i)
	}
	b.WriteString("    return [{\"n\": 1}]\n")
	return b.String()
}

// tries runs all of them in one sandbox and holds each to what it must see, and
// the report to exactly what must be recorded of all.
func (l *laboratory) tries(t *testing.T, tries []try) {
	r := l.attack(t, l.module(t, tries), sandbox.Limits{})
	if r.Answer == nil || r.Answer.Error != nil {
		t.Fatalf("the attacks did not come to their end: %+v, %v\n%s", r.Report, r.userError(), r.log)
	}
	var want []string
	for i, c := range tries {
		prefix := fmt.Sprintf("try %d ", i)
		var seen string
		for line := range strings.Lines(r.log) {
			if text, ok := strings.CutPrefix(line, prefix); ok {
				if err := json.Unmarshal([]byte(text), &seen); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
			}
		}
		if !regexp.MustCompile(`^(?:` + c.sees + `)$`).MatchString(seen) {
			t.Errorf("%s: the attacker saw %q, want %q", c.name, seen, c.sees)
		}
		want = append(want, c.recorded...)
	}
	r.recorded(t, want...)
}

// report is what became of an attack.
type report struct {
	*sandbox.Report
	files map[string][]byte
	notes []string
	log   string
}

func (r *report) userError() string {
	if r.Answer == nil || r.Answer.Error == nil {
		return ""
	}
	return r.Answer.Error.Message
}

// recorded holds the report to these violations ("kind detail") and no others.
func (r *report) recorded(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, v := range r.Violations {
		got = append(got, v.Kind+" "+v.Detail)
		if v.Count < 1 {
			t.Errorf("violation %+v without a count", v)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	want = slices.Compact(want)
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("not recorded: %q", w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("recorded, but nobody knows why: %q", g)
		}
	}
}

// attack runs a module's model "attack" in a sandbox. A neighbour runs at the
// same time, and the host is looked at before and after.
func (l *laboratory) attack(t *testing.T, module string, lim sandbox.Limits) *report {
	t.Helper()
	return l.run(t, sandbox.Job{
		Kind:   sandbox.KindPython,
		Order:  l.order("attack"),
		Inputs: append(l.inputs(), content("code/models/attack.py", module)),
		Limits: lim,
	})
}

// order asks for a model of code/models/attack.py with the one input.
func (l *laboratory) order(function string) *protocol.Order {
	return &protocol.Order{
		Op: protocol.OpPyModel, Path: "/in/code", Module: "models/attack.py", Function: function,
		Inputs: []protocol.Table{{Name: "t", Param: "t", Files: []string{"/in/0/000000.parquet"}, Columns: inputColumns}},
	}
}

var inputColumns = []protocol.Column{{Name: "n", Type: "BIGINT", Nullable: true}}

func (l *laboratory) inputs() []sandbox.Input {
	return []sandbox.Input{link("0/000000.parquet", l.host["object"])}
}

func content(path, text string) sandbox.Input {
	return sandbox.Input{Path: path, Link: func(host string) error { return os.WriteFile(host, []byte(text), 0o444) }}
}

func link(path, from string) sandbox.Input {
	return sandbox.Input{Path: path, Link: func(host string) error { return os.Link(from, host) }}
}

// run runs a hostile job beside a neighbour and looks at the host before and after.
func (l *laboratory) run(t *testing.T, job sandbox.Job) *report {
	t.Helper()
	before := l.look(t)
	r := &report{files: make(map[string][]byte)}
	log := &logBuffer{begun: make(chan struct{})}
	job.Log = log
	if job.Limits.Timeout == 0 {
		job.Limits.Timeout = time.Minute
	}
	if job.Files == nil {
		job.Files = func(name string, size int64, body io.Reader) error {
			b, err := io.ReadAll(body)
			r.files[name] = b
			return err
		}
	}
	job.Note = func(s string) { r.notes = append(r.notes, s) }
	neighbour := make(chan error, 1)
	go func() {
		<-log.begun
		neighbour <- l.neighbour()
	}()
	if job.Kind == sandbox.KindWorker {
		log.begin() // SQL has no word of its own for it
	}
	var err error
	r.Report, err = l.boxes.Run(context.Background(), job)
	log.begin()
	r.log = log.String()
	if nerr := <-neighbour; nerr != nil {
		t.Errorf("the neighbour suffers: %v", nerr)
	}
	if err != nil {
		t.Fatalf("the sandbox could not run it: %v\n%s", err, r.log)
	}
	l.settled(t)
	if after := l.look(t); after != before {
		t.Errorf("the host changed:\nbefore\n%s\nafter\n%s", before, after)
	}
	return r
}

// logBuffer is a log, and tells when its first line comes.
type logBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	once  sync.Once
	begun chan struct{}
}

func (l *logBuffer) begin() { l.once.Do(func() { close(l.begun) }) }

func (l *logBuffer) Write(p []byte) (int, error) {
	l.begin()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
