package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
)

func TestOrderOnStandardInput(t *testing.T) {
	var out, log bytes.Buffer
	order := `{"op": "query", "sql": "SELECT 42 AS answer", "format": "csv"}`
	if code := run(nil, strings.NewReader(order), &out, &log); code != 0 {
		t.Fatalf("exit code %d: %s", code, &log)
	}
	var got []byte
	a, err := protocol.Read(&out, protocol.DefaultReadLimits, func(_ string, _ int64, r io.Reader) (err error) {
		got, err = io.ReadAll(r)
		return err
	}, nil)
	if err != nil || a.Error != nil || string(got) != "answer\n42\n" {
		t.Errorf("rows %q, answer %+v, error %v", got, a, err)
	}
}

// What is no order gets no answer, so that nobody takes it for the user's fault.
func TestBadOrders(t *testing.T) {
	for order, want := range map[string]string{
		"":                       "read order: EOF",
		"{":                      "read order: unexpected EOF",
		`{"op": "query"}{}`:      "bytes after its end",
		`{"op": "query", "x":1}`: `unknown field "x"`,
	} {
		var out, log bytes.Buffer
		if code := run(nil, strings.NewReader(order), &out, &log); code != exitBroken || out.Len() != 0 || !strings.Contains(log.String(), want) {
			t.Errorf("order %q: exit code %d, output %q, log %q", order, code, &out, &log)
		}
	}
}

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	if code := run([]string{"--version"}, nil, &out, io.Discard); code != 0 || !strings.Contains(out.String(), "DuckDB v1.") {
		t.Errorf("exit code %d, output %q", code, &out)
	}
	if code := run([]string{"--nope"}, nil, io.Discard, io.Discard); code != exitUsage {
		t.Errorf("unknown flag: exit code %d", code)
	}
}
