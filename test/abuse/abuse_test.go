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
	"runtime"
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

// deed is an attack that ends its sandbox, or needs one to itself.
type deed struct {
	name     string
	code     string // the body of a model: it may return a table
	limits   sandbox.Limits
	ends     func(r *report) error // how it must end
	recorded []string
}

func TestExhaustion(t *testing.T) { lab.deeds(t, exhaustionDeeds) }
func TestEnds(t *testing.T)       { lab.deeds(t, endDeeds) }
func TestOutput(t *testing.T)     { lab.deeds(t, outputDeeds) }
func TestValues(t *testing.T)     { lab.deeds(t, valueDeeds) }

// deeds runs each in a sandbox of its own.
func (l *laboratory) deeds(t *testing.T, deeds []deed) {
	for _, d := range deeds {
		t.Run(d.name, func(t *testing.T) {
			source := l.source(t) + "\n\n@headgate.model(name=\"attack\")\ndef attack(t=headgate.Model(\"t\")):\n    say(\"begin\")" + indented(d.code)
			r := l.attack(t, source, d.limits)
			if err := d.ends(r); err != nil {
				t.Errorf("%v: %+v, error %q\n%.2000s", err, r.Report, r.userError(), r.log)
			}
			r.recorded(t, d.recorded...)
		})
	}
}

func indented(code string) string {
	return "\n    " + strings.ReplaceAll(strings.TrimSpace(code), "\n", "\n    ") + "\n"
}

//go:embed testdata/attack.py
var prelude string

// source is what every attack starts from.
func (l *laboratory) source(t *testing.T) string {
	t.Helper()
	host, err := json.Marshal(l.host)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s\nHOST = json.loads(%q)\n", prelude, host)
}

// module is the source of a model that makes all tries, whatever each does.
func (l *laboratory) module(t *testing.T, tries []try) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(l.source(t))
	for i, c := range tries {
		fmt.Fprintf(&b, "\n\ndef try_%d():%s", i, indented(c.code))
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
	l.hold(t, tries, l.attack(t, l.module(t, tries), sandbox.Limits{}))
}

// hold compares what the tries saw and what is recorded of them.
func (l *laboratory) hold(t *testing.T, tries []try, r *report) {
	t.Helper()
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
	if t.Failed() {
		t.Logf("the log:\n%s", r.log)
	}
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
// "..." stands for what differs from machine to machine.
func (r *report) recorded(t *testing.T, want ...string) {
	t.Helper()
	met := make(map[string]bool)
	for _, v := range r.Violations {
		got, known := v.Kind+" "+v.Detail, false
		for _, w := range want {
			before, after, any := strings.Cut(w, "...")
			if got == w || any && strings.HasPrefix(got, before) && strings.HasSuffix(got, after) {
				met[w], known = true, true
			}
		}
		if !known || v.Count < 1 {
			t.Errorf("recorded, but nobody knows why: %q, %d times", got, v.Count)
		}
	}
	for _, w := range want {
		if !met[w] {
			t.Errorf("not recorded: %q", w)
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
	l.settled(t)
	before, heap := l.look(t), heapSize()
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
	if grown := heapSize() - heap; grown > maxGrowth {
		t.Errorf("the server's heap grew by %d bytes", grown)
	}
	return r
}

// maxGrowth is what a function may cost the server's heap: what the tests keep of
// its output, and far less than what the attacks announce.
const maxGrowth = 128 << 20

// heapSize is the size that the heap has had at most.
func heapSize() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapSys)
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
