package hooks

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

// scripted answers orders as a sandbox would, without one: these tests are about
// what the gate makes of answers. A model's output is a digest of its query and
// its inputs; a query that holds "BAD" fails, a verifier's rows are the number
// after "VIOLATIONS". What really runs is tested end to end.
type scripted struct {
	mu     sync.Mutex
	ops    []protocol.Op
	broken error  // every job could not run
	during func() // called in the middle of each model
	draws  int    // how many times a query that holds "RANDOM" was answered, each differently
	// violates is the order during which the sandbox stops something, though the
	// program goes on and answers as if nothing were.
	violates protocol.Op
	params   map[string]any        // of the last model that had some
	jobs     func(job sandbox.Job) // sees each job
	// python answers the orders of Python functions; nil: there is no interpreter.
	python func(ctx context.Context, job sandbox.Job) (*protocol.Answer, error)
	column string // the name of each table's one column; "" is n
	// fails says how a query of a verifier cannot be evaluated; "" is that it can.
	fails     func(sql string) string
	conflicts int64 // of each merge of a table
	// finds says how many rows a query of a verifier has, beside what it says itself.
	finds func(sql string) int64
}

var (
	from     = regexp.MustCompile(`FROM ([a-z_.]+)`)
	clock    = regexp.MustCompile(`\b(now\(\)|current_date)`)
	variable = regexp.MustCompile(`getvariable\('(\w+)'\)`)
)

func (s *scripted) Run(ctx context.Context, job sandbox.Job) (*sandbox.Report, error) {
	s.mu.Lock()
	s.ops = append(s.ops, job.Order.Op)
	broken, during := s.broken, s.during
	if s.jobs != nil {
		s.jobs(job)
	}
	s.mu.Unlock()
	if broken != nil {
		return nil, broken
	}
	a := &protocol.Answer{}
	o := job.Order
	switch o.Op {
	case protocol.OpTables:
		for _, q := range o.Queries {
			t := protocol.QueryTables{Name: q.Name, Tables: []string{}}
			for _, m := range variable.FindAllStringSubmatch(q.SQL, -1) {
				t.Variables = append(t.Variables, m[1])
			}
			for i, line := range strings.Split(q.SQL, "\n") {
				for _, m := range clock.FindAllString(line, -1) {
					t.Clock = append(t.Clock, protocol.ClockRead{Name: m, Line: i + 1, Word: !strings.HasSuffix(m, "()")})
				}
			}
			for _, m := range from.FindAllStringSubmatch(q.SQL, -1) {
				t.Tables = append(t.Tables, m[1])
			}
			a.Tables = append(a.Tables, t)
		}
	case protocol.OpModel:
		s.mu.Lock()
		if len(o.Params) > 0 {
			s.params = o.Params
		}
		s.mu.Unlock()
		if during != nil {
			during()
		}
		if strings.Contains(o.SQL, "BAD") {
			a.Error = &protocol.UserError{Kind: "sql", Message: "Binder Error: BAD", Line: 2}
			break
		}
		h := sha1.New()
		fmt.Fprint(h, o.SQL)
		if strings.Contains(o.SQL, "RANDOM") {
			s.mu.Lock()
			s.draws++
			fmt.Fprint(h, s.draws)
			s.mu.Unlock()
		}
		for _, in := range o.Inputs {
			fmt.Fprint(h, in.Name)
		}
		dir, err := os.MkdirTemp("", "scripted-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		for i, in := range job.Inputs {
			if strings.HasPrefix(in.Path, "prior/") {
				continue // what a result is added to is no part of the result
			}
			path := filepath.Join(dir, fmt.Sprint(i))
			if err := in.Link(path); err != nil {
				return nil, err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			h.Write(data)
		}
		part := fmt.Appendf(nil, "PAR1%xPAR1", h.Sum(nil))
		if err := job.Files("part-0", int64(len(part)), bytes.NewReader(part)); err != nil {
			return nil, err
		}
		// Rows that are added follow the prior's, whose parts stay as they are.
		var parts []string
		if o.Prior != nil && o.Strategy == "APPEND" {
			parts = append(parts, o.Prior.Files...)
		}
		a.Snapshot = s.oneColumn(append(parts, "part-0")...)
	case protocol.OpDescribe:
		a.Snapshot = s.oneColumn(o.Inputs[0].Files...)
	case protocol.OpMerge:
		// Rows of versions that both changed: conflicts of the number that the test says,
		// or a part that tells what it was made of.
		part := "PAR1 merged PAR1"
		if s.conflicts > 0 {
			part = "PAR1 conflicts PAR1"
		}
		if err := job.Files("part-0", int64(len(part)), strings.NewReader(part)); err != nil {
			return nil, err
		}
		a.Snapshot = s.oneColumn("part-0")
		a.Merged = &protocol.Merged{Conflicts: s.conflicts, Columns: []string{"kind"}, Sample: []map[string]any{{"kind": "range"}}}
	case protocol.OpVerify:
		for _, q := range o.Queries {
			c := protocol.Check{Name: q.Name}
			if s.fails != nil && s.fails(q.SQL) != "" {
				c.Error = &protocol.UserError{Kind: "sql", Message: s.fails(q.SQL)}
			}
			if s.finds != nil {
				c.Violations = s.finds(q.SQL)
			}
			if _, n, ok := strings.Cut(q.SQL, "VIOLATIONS "); ok {
				if _, err := fmt.Sscan(n, &c.Violations); err != nil {
					return nil, err
				}
			}
			if c.Violations > 0 {
				c.File, c.Columns, c.Sample = q.Name+".parquet", []string{"n"}, []map[string]any{{"n": 7}}
				if err := job.Files(c.File, 8, strings.NewReader("PAR1PAR1")); err != nil {
					return nil, err
				}
			}
			a.Checks = append(a.Checks, c)
		}
	default:
		if s.python == nil {
			return nil, fmt.Errorf("unscripted order %q", o.Op)
		}
		var err error
		if a, err = s.python(ctx, job); err != nil {
			return nil, err
		}
	}
	report := &sandbox.Report{Answer: a}
	if s.violates == o.Op {
		report.Violations = []sandbox.Violation{{Kind: "connect", Detail: "203.0.113.1:80", Count: 1}}
	}
	return report, nil
}

func (s *scripted) oneColumn(files ...string) *protocol.Snapshot {
	snap := &protocol.Snapshot{Columns: []protocol.Column{{Name: cmp.Or(s.column, "n"), Type: "BIGINT", Nullable: true}}}
	for _, f := range files {
		snap.Parts = append(snap.Parts, protocol.Part{File: f, Rows: 1, Stats: []protocol.ColumnStats{{Min: json.RawMessage("7"), Max: json.RawMessage("7")}}})
	}
	return snap
}

// count returns how many orders of op there were, and forgets them.
func (s *scripted) took(op protocol.Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, o := range s.ops {
		if o == op {
			n++
		}
	}
	s.ops = nil
	return n
}

type rig struct {
	*testing.T
	dir   string
	boxes *scripted
	who   Identity   // of the pushes
	known []Identity // whom the server knows; nil: it does not say
	gate  *Gate
	lakes *lake.Directory
	lake  *lake.Lake
	out   bytes.Buffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, dir: t.TempDir(), boxes: &scripted{}, who: Identity{Name: "ada"}}
	signer, err := LoadSigner(filepath.Join(r.dir, "gate"))
	if err != nil {
		t.Fatal(err)
	}
	temp := filepath.Join(r.dir, "tmp")
	if err := os.MkdirAll(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	rt := exec.New(r.boxes, exec.Environments{Python: []exec.Python{{Version: "3.11", Own: objects.OID{1}, Tables: true}}}, exec.Budget{CPUs: 2, Memory: 4 << 30}, log)
	r.gate = New(Config{Runtime: rt, Signer: signer, TempDir: temp, Logger: log, People: func() []Identity { return r.known },
		Ceiling: sandbox.Limits{Memory: 1 << 30, Output: 1 << 30, Timeout: time.Minute, CPUs: 1}})
	key, err := lake.LoadSecretsKey(filepath.Join(r.dir, "secrets_key"))
	if err != nil {
		t.Fatal(err)
	}
	if r.lakes, err = lake.OpenDirectory(filepath.Join(r.dir, "lakes"), key, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.lakes.Close(); err != nil {
			t.Error(err)
		}
	})
	if r.lake, err = r.lakes.Create(t.Context(), "flights"); err != nil {
		t.Fatal(err)
	}
	return r
}

// base is a lake with one source, two models in a row and a verifier.
func base() map[string]string {
	return map[string]string{
		"tables/src/a.parquet": "PAR1 source PAR1",
		"models/one.sql":       "SELECT n FROM src",
		"models/two.sql":       "SELECT n FROM one",
		"verifiers/fine.sql":   "SELECT n FROM two",
	}
}

func with(files map[string]string, change ...string) map[string]string {
	out := maps.Clone(files)
	for i := 0; i < len(change); i += 2 {
		if change[i+1] == "" {
			delete(out, change[i])
		} else {
			out[change[i]] = change[i+1]
		}
	}
	return out
}

// commit makes a commit of files on top of parents, in a quarantine of its own.
func (r *rig) commit(files map[string]string, parents ...objects.OID) (objects.OID, *objects.Quarantine) {
	r.Helper()
	ctx := r.Context()
	q, err := r.lake.Objects.Quarantine()
	if err != nil {
		r.Fatal(err)
	}
	edits := make(map[string]tree.Edit)
	for path, text := range files {
		oid, err := q.Put(ctx, objects.Blob, int64(len(text)), strings.NewReader(text))
		if err != nil {
			r.Fatal(err)
		}
		edits[path] = tree.Edit{Mode: gitobj.ModeFile, OID: oid}
	}
	root, err := tree.Apply(ctx, q, objects.OID{}, edits)
	if err != nil {
		r.Fatal(err)
	}
	who := gitobj.Signature{Name: "Ada", Email: "ada@example.org", When: time.Unix(1700000000, 0).UTC()}
	data := (&gitobj.Commit{Tree: root, Parents: parents, Author: who, Committer: who, Message: "Change it\n"}).Encode()
	oid, err := q.Put(ctx, objects.Commit, int64(len(data)), bytes.NewReader(data))
	if err != nil {
		r.Fatal(err)
	}
	return oid, q
}

// pushed is a push of new at name, by an ordinary user.
func (r *rig) push(q *objects.Quarantine, options []string, atomic bool, updates ...refs.Update) []Outcome {
	r.Helper()
	r.out.Reset()
	out := r.gate.Receive(r.Context(), &Push{
		Lake: r.lake, Who: r.who, Updates: updates, Options: options, Atomic: atomic, Objects: q, Progress: &r.out,
	})
	if err := q.Discard(); err != nil {
		r.Fatal(err)
	}
	return out
}

func (r *rig) toMain(files map[string]string, options ...string) error {
	r.Helper()
	old := r.tip(mainRef)
	var parents []objects.OID
	if !old.IsZero() {
		parents = append(parents, old)
	}
	oid, q := r.commit(files, parents...)
	return r.push(q, options, false, refs.Update{Name: mainRef, Old: old, New: oid})[0].Err
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatalf("%v\n%s", err, r.out.String())
	}
}

func (r *rig) tip(name refs.Name) objects.OID {
	r.Helper()
	oid, err := r.lake.Refs.Get(r.Context(), name)
	if err != nil && !errors.Is(err, refs.ErrNotFound) {
		r.Fatal(err)
	}
	return oid
}

func (r *rig) names(prefix string) []refs.Ref {
	r.Helper()
	list, err := r.lake.Refs.List(r.Context(), prefix)
	if err != nil {
		r.Fatal(err)
	}
	return list
}

func (r *rig) read(commit objects.OID, path string) string {
	r.Helper()
	c, err := readCommit(r.Context(), r.lake.Objects, commit)
	if err != nil {
		r.Fatal(err)
	}
	data, err := readFile(r.Context(), r.lake.Objects, c.Tree, path, 1<<20)
	if err != nil {
		r.Fatalf("%s in %s: %v", path, commit, err)
	}
	return string(data)
}

// runJSON returns the newest run's record as it is stored.
func (r *rig) runJSON() string {
	r.Helper()
	runs, err := r.lake.Runs.List(1)
	if err != nil || len(runs) != 1 {
		r.Fatalf("journal: %v, %v", runs, err)
	}
	doc, err := RunJSON(r.Context(), r.lake, runs[0].ID)
	if err != nil {
		r.Fatal(err)
	}
	return string(doc)
}

// record returns the only new run's record, and checks that it is the run's last word.
func (r *rig) record(state lake.State) Record {
	r.Helper()
	runs, err := r.lake.Runs.List(1)
	if err != nil || len(runs) != 1 {
		r.Fatalf("journal: %v, %v", runs, err)
	}
	doc := r.runJSON()
	var rec Record
	if err := json.Unmarshal([]byte(doc), &rec); err != nil {
		r.Fatal(err)
	}
	if rec.State != state || runs[0].State != state {
		r.Fatalf("run is %s in its record and %s in the journal, want %s\n%s", rec.State, runs[0].State, state, doc)
	}
	return rec
}
