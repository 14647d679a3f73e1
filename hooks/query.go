package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

// Question is a user's SELECT on one state of a lake.
type Question struct {
	SQL     string
	Ref     string // any revision that resolveCommit takes; "" is main
	Format  string // "table", "csv", "json"; "" is table
	MaxRows int64  // 0 is no bound
}

// QueryError says what is wrong with a question, for its asker.
type QueryError struct{ Text string }

func (e *QueryError) Error() string { return e.Text }

// Query answers a question in a sandbox, with only the tables that the query
// names, and writes the rows to w. Errors for the asker are *QueryError.
func (g *Gate) Query(ctx context.Context, l *lake.Lake, q Question, w io.Writer) error {
	commit, err := resolveCommit(ctx, l, q.Ref)
	if err != nil {
		return err
	}
	quarantine, err := l.Objects.Quarantine()
	if err != nil {
		return err
	}
	defer func() {
		if err := quarantine.Discard(); err != nil {
			g.cfg.Logger.Warn("discard quarantine", "err", err)
		}
	}()
	// A question takes one processor's share of the machine, not all of it: runs go on.
	lim := g.cfg.Ceiling
	lim.CPUs, lim.Memory = min(lim.CPUs, sandbox.DefaultLimits.CPUs), min(lim.Memory, sandbox.DefaultLimits.Memory)
	sess := g.cfg.Runtime.Session(quarantine, l.Actions, exec.Options{Limits: lim, Ceiling: g.cfg.Ceiling, TempDir: g.cfg.TempDir})
	read, err := sess.Tables(ctx, []protocol.Query{{Name: "query", SQL: q.SQL}})
	if err != nil {
		return err
	}
	if read[0].Error != nil {
		return &QueryError{exec.Describe(read[0].Error)}
	}
	states := &states{lake: l, asked: commit, found: make(map[objects.OID][]table.Table)}
	var bound []exec.Bound
	folded := make(map[string]string)
	for _, name := range read[0].Tables {
		if other, ok := folded[strings.ToLower(name)]; ok {
			return &QueryError{fmt.Sprintf("%q and %q differ in case only, which SQL does not tell: name one of the revisions in another way, by its oid", other, name)}
		}
		folded[strings.ToLower(name)] = name
		t, err := states.table(ctx, name)
		if err != nil {
			return err
		}
		loaded, err := exec.LoadTable(ctx, l.Objects, t)
		if err != nil {
			return &QueryError{fmt.Sprintf("table %q cannot be read at this state: %v", name, err)}
		}
		bound = append(bound, exec.Bound{Input: plan.Input{Table: name}, Table: loaded})
	}
	format := q.Format
	if format == "" {
		format = "table"
	}
	err = sess.Query(ctx, q.SQL, bound, format, q.MaxRows, w)
	var f *exec.Failure
	if errors.As(err, &f) {
		return &QueryError{f.Text}
	}
	return err
}

// states is the tables of the commits that a query names.
type states struct {
	lake  *lake.Lake
	asked objects.OID // the commit whose tables need no revision
	found map[objects.OID][]table.Table
}

// table resolves a table as a query writes it: "flights", "flights@v1", or
// "base.flights", which as in verifiers is the table at the old tip: at the first
// parent of the commit that is asked.
func (s *states) table(ctx context.Context, written string) (objects.OID, error) {
	name, rev, at := strings.Cut(written, "@")
	base := len(name) > len(plan.BasePrefix) && strings.EqualFold(name[:len(plan.BasePrefix)], plan.BasePrefix)
	commit := s.asked
	var err error
	switch {
	case at && (rev == "" || base):
		return objects.OID{}, &QueryError{fmt.Sprintf("%q: one revision belongs behind the @, and base is one already", written)}
	case at:
		commit, err = resolveCommit(ctx, s.lake, rev)
	case base:
		name = name[len(plan.BasePrefix):]
		if commit, err = takeStep(ctx, s.lake, plan.BasePrefix+name, "^1", commit, new(int)); err != nil {
			return objects.OID{}, err
		}
	}
	if err != nil {
		return objects.OID{}, err
	}
	c, err := readCommit(ctx, s.lake.Objects, commit)
	if err != nil {
		return objects.OID{}, err
	}
	// Most names are written as the directory is, and then no other table is looked at.
	if dir, err := table.Dir(name); err == nil {
		e, err := tree.Lookup(ctx, s.lake.Objects, c.Tree, dir)
		if err == nil && e.Mode == gitobj.ModeTree {
			return e.OID, nil
		}
		if err != nil && !errors.Is(err, objects.ErrNotFound) {
			return objects.OID{}, err
		}
	}
	found, ok := s.found[commit]
	if !ok {
		found, err = table.Discover(ctx, s.lake.Objects, c.Tree)
		var bad *table.Error
		if errors.As(err, &bad) {
			return objects.OID{}, &QueryError{fmt.Sprintf("there is no table %q in commit %s, whose tables cannot be listed: %v", name, short(commit), bad)}
		}
		if err != nil {
			return objects.OID{}, err
		}
		s.found[commit] = found
	}
	return pick(found, name, commit)
}

// pick finds a table by SQL name, which does not tell upper case from lower.
func pick(found []table.Table, name string, commit objects.OID) (objects.OID, error) {
	var have []string
	for _, t := range found {
		if strings.EqualFold(t.Name, name) {
			return t.OID, nil
		}
		have = append(have, t.Name)
	}
	if len(have) == 0 {
		return objects.OID{}, &QueryError{fmt.Sprintf("there is no table %q: commit %s has no tables", name, short(commit))}
	}
	return objects.OID{}, &QueryError{fmt.Sprintf("there is no table %q in commit %s; there are: %s", name, short(commit), strings.Join(have, ", "))}
}

// maxRunJSON bounds a run record's run.json, in bytes.
const maxRunJSON = 64 << 20

// RunJSON returns a run's record, run.json. For a run that is still under way,
// or whose record was removed, it returns an error wrapping objects.ErrNotFound.
func RunJSON(ctx context.Context, l *lake.Lake, id string) ([]byte, error) {
	name, err := refs.Parse(runsPrefix + id)
	if err != nil {
		return nil, fmt.Errorf("run %q: %w", id, objects.ErrNotFound)
	}
	commit, err := l.Refs.Get(ctx, name)
	if errors.Is(err, refs.ErrNotFound) {
		return nil, fmt.Errorf("run %q: %w", id, objects.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	c, err := readCommit(ctx, l.Objects, commit)
	if err != nil {
		return nil, err
	}
	return readFile(ctx, l.Objects, c.Tree, "run.json", maxRunJSON)
}
