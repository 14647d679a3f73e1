// Package exec runs a plan's functions: it stages their inputs, gives each its
// own sandbox, turns what comes out into snapshots, and remembers results by
// content. It does not decide what must run or what a failure means for a ref;
// that is the gate's.
package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table"
)

// Sandboxes runs one job in a new sandbox. sandbox.Manager is the only
// implementation outside of tests: there is no unsandboxed one.
type Sandboxes interface {
	// Run returns an error only when the job could not run; the failure of the
	// program inside is in the report.
	Run(ctx context.Context, job sandbox.Job) (*sandbox.Report, error)
}

// Store is where functions' inputs come from and their outputs go: a quarantine.
type Store interface {
	objects.ReadWriter
	objects.Linker
}

// Runtime runs functions. It is safe for concurrent use and shared by all runs.
type Runtime struct {
	boxes  Sandboxes
	env    Environments
	log    *slog.Logger
	budget Budget
	sched  *scheduler
}

// New returns a runtime whose functions keep to the budget together.
func New(boxes Sandboxes, env Environments, budget Budget, log *slog.Logger) *Runtime {
	return &Runtime{boxes: boxes, env: env, log: log, budget: budget, sched: newScheduler(budget)}
}

// Options of one session.
type Options struct {
	Limits  sandbox.Limits // of a function that declares none of its own
	Ceiling sandbox.Limits // what a function may declare at most
	NoCache bool           // run everything, and refresh the entries
	TempDir string         // for what passes between two sandboxes of one function
}

// Table is a snapshot that a function can read.
type Table struct {
	Tree  objects.OID // snapshot id
	Meta  *table.Snapshot
	Parts []objects.OID // one per Meta.Parts
}

// Rows is the number of rows of the table.
func (t *Table) Rows() int64 {
	var n int64
	for _, p := range t.Meta.Parts {
		n += p.Rows
	}
	return n
}

// Bound is a declared input together with the table it was resolved to.
type Bound struct {
	plan.Input
	Table *Table

	variables variables
}

// Usage is what a function cost and did, summed over its sandboxes.
type Usage struct {
	Sandboxes  int           `json:"sandboxes"`
	Warm       int           `json:"warm"` // of them taken from the pool
	Wait       time.Duration `json:"-"`    // until the budget had room for them
	Start      time.Duration `json:"-"`    // from then until they had their orders
	Total      time.Duration `json:"-"`
	PeakMemory int64         `json:"peak_memory_bytes,omitempty"`
	Violations []sandbox.Violation
}

func (u *Usage) add(r *sandbox.Report) {
	u.Sandboxes++
	if r.Warm {
		u.Warm++
	}
	u.Start += r.Start
	u.Total += r.Total
	u.PeakMemory = max(u.PeakMemory, r.PeakMemory)
	u.Violations = append(u.Violations, r.Violations...)
}

// Failure says that a function ran and did not succeed: the user's code, data or
// limits are at fault, and a run that needs it is rejected. Anything else that
// Session returns means "could not run".
type Failure struct {
	Kind   string              // "error", "memory", "timeout", "output", "crash", "limits", "columns", "violation"
	Detail *protocol.UserError // set for "error"
	Text   string              // one sentence for the user
	Usage  Usage
}

func (f *Failure) Error() string { return f.Text }

// failureOf turns a report that is not a success into a *Failure, or nil.
func failureOf(r *sandbox.Report, lim sandbox.Limits) *Failure {
	var format *protocol.FormatError
	switch {
	case r.OOM:
		return &Failure{Kind: "memory", Text: fmt.Sprintf("used more than its memory limit of %s; raise sandbox.memory in headgate.yaml or read less", size(lim.Memory))}
	case r.Unready && r.TimedOut:
		return &Failure{Kind: "timeout", Text: "was not called: its packages held up the interpreter's start until the server ended it; look for a sitecustomize.py among them"}
	case r.TimedOut:
		return &Failure{Kind: "timeout", Text: fmt.Sprintf("ran longer than its limit of %s; raise sandbox.timeout in headgate.yaml or do less", lim.Timeout)}
	case r.OutputExceeded:
		return &Failure{Kind: "output", Text: fmt.Sprintf("wrote more than its output quota of %s", size(lim.Output))}
	case errors.As(r.Malformed, &format):
		return &Failure{Kind: "output", Text: "wrote to the server behind the harness's back: " + format.Reason}
	case r.Unready:
		return &Failure{Kind: "crash", Text: fmt.Sprintf("was not called: its packages ended the interpreter while it started (exit code %d); look for a sitecustomize.py among them", r.ExitCode)}
	case r.Answer == nil:
		return &Failure{Kind: "crash", Text: fmt.Sprintf("ended without an answer (exit code %d)", r.ExitCode)}
	case r.Answer.Error != nil:
		e := r.Answer.Error
		kind := "error"
		if e.Kind == "memory" {
			kind = "memory"
		}
		return &Failure{Kind: kind, Detail: e, Text: Describe(e)}
	}
	return nil
}

// Describe renders a user's error as "file:line:column: message".
func Describe(e *protocol.UserError) string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
			if e.Column > 0 {
				fmt.Fprintf(&b, ":%d", e.Column)
			}
		}
		b.WriteString(": ")
	} else if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	b.WriteString(e.Message)
	return b.String()
}

func size(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d bytes", n)
}

// run waits until the job fits in the budget and runs it, adding to usage. A
// failure of the program is a *Failure.
func (s *Session) run(ctx context.Context, job sandbox.Job, usage *Usage) (*protocol.Answer, error) {
	asked := time.Now()
	release, err := s.rt.sched.acquire(ctx, s, amountOf(job.Limits))
	usage.Wait += time.Since(asked)
	if errors.Is(err, errTooLarge) {
		return nil, s.rt.budget.tooLarge(job.Limits)
	}
	if err != nil {
		return nil, err
	}
	defer release()
	report, err := s.rt.boxes.Run(ctx, job)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	usage.add(report)
	if f := failureOf(report, job.Limits); f != nil {
		return nil, f
	}
	return report.Answer, nil
}

// LoadTable reads the snapshot of a table's tree. The tree must hold a table.json.
func LoadTable(ctx context.Context, r objects.Reader, tree objects.OID) (*Table, error) {
	t, err := table.Load(ctx, r, tree)
	if err != nil {
		return nil, err
	}
	if t.Snapshot == nil {
		return nil, fmt.Errorf("tree %s has no %s", tree, table.FileName)
	}
	byName := make(map[string]objects.OID, len(t.Parquet))
	for _, e := range t.Parquet {
		byName[e.Name] = e.OID
	}
	parts := make([]objects.OID, len(t.Snapshot.Parts))
	for i, p := range t.Snapshot.Parts {
		oid, ok := byName[p.File]
		if !ok {
			return nil, fmt.Errorf("%s names part %q, which is not there", table.FileName, p.File)
		}
		parts[i] = oid
	}
	return &Table{Tree: tree, Meta: t.Snapshot, Parts: parts}, nil
}

// limited returns a writer for a function's log that is never nil.
func limited(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
