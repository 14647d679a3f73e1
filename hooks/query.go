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
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/refs"
)

// Question is a user's SELECT on one state of a lake.
type Question struct {
	SQL     string
	Ref     string // branch, full ref name, or oid of a commit; "" is main
	Format  string // "table", "csv", "json"; "" is table
	MaxRows int64  // 0 is no bound
}

// QueryError says what is wrong with a question, for its asker.
type QueryError struct{ Text string }

func (e *QueryError) Error() string { return e.Text }

// Query answers a question in a sandbox, with only the tables that the query
// names, and writes the rows to w. Errors for the asker are *QueryError.
func (g *Gate) Query(ctx context.Context, l *lake.Lake, q Question, w io.Writer) error {
	root, err := resolve(ctx, l, q.Ref)
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
	found, err := table.Discover(ctx, l.Objects, root)
	if err != nil {
		return err
	}
	var bound []exec.Bound
	for _, name := range read[0].Tables {
		t, err := pick(found, name)
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

// pick finds a table by SQL name, which does not tell upper case from lower.
func pick(found []table.Table, name string) (objects.OID, error) {
	var have []string
	for _, t := range found {
		if strings.EqualFold(t.Name, name) {
			return t.OID, nil
		}
		have = append(have, t.Name)
	}
	if len(have) == 0 {
		return objects.OID{}, &QueryError{fmt.Sprintf("there is no table %q: this state has no tables", name)}
	}
	return objects.OID{}, &QueryError{fmt.Sprintf("there is no table %q; there are: %s", name, strings.Join(have, ", "))}
}

// resolve returns the tree of the commit that a user names.
func resolve(ctx context.Context, l *lake.Lake, text string) (objects.OID, error) {
	commit, err := resolveCommit(ctx, l, text)
	if err != nil {
		return objects.OID{}, err
	}
	c, err := readCommit(ctx, l.Objects, commit)
	if err != nil {
		return objects.OID{}, err
	}
	return c.Tree, nil
}

// resolveCommit returns the commit that a user names: by oid or by ref; "" is main.
func resolveCommit(ctx context.Context, l *lake.Lake, text string) (objects.OID, error) {
	if text == "" {
		text = "main"
	}
	commit, err := objects.ParseOID(text)
	if err != nil {
		if commit, err = resolveRef(ctx, l, text); err != nil {
			return objects.OID{}, err
		}
	}
	_, err = readCommit(ctx, l.Objects, commit)
	if errors.Is(err, objects.ErrNotFound) {
		return objects.OID{}, &QueryError{fmt.Sprintf("there is no commit %s", commit)}
	}
	if err != nil {
		return objects.OID{}, &QueryError{fmt.Sprintf("%q is not a commit", text)}
	}
	return commit, nil
}

// resolveRef tries a name as git's rev-parse does: as it is, as a branch, as a tag.
func resolveRef(ctx context.Context, l *lake.Lake, text string) (objects.OID, error) {
	for _, prefix := range []string{"", headsPrefix, tagsPrefix, "refs/"} {
		name, err := refs.Parse(prefix + text)
		if err != nil {
			continue
		}
		oid, err := l.Refs.Get(ctx, name)
		if err == nil {
			return oid, nil
		}
		if !errors.Is(err, refs.ErrNotFound) {
			return objects.OID{}, err
		}
	}
	return objects.OID{}, &QueryError{fmt.Sprintf("there is no branch, tag or ref %q in lake %s", text, l.Name)}
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
