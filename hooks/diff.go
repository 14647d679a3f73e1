package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/exec/tablediff"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
)

// DiffQuestion asks how two states of a lake's tables differ.
type DiffQuestion struct {
	Old, New string   // any revisions that resolveCommit takes; "" is main
	Fork     bool     // compare New with where it forked from Old: Old...New
	Tables   []string // only these, by name or directory; all that differ if empty
	Format   string   // "text", "stat" or "json"
	Limit    int64    // rows shown of each table; 0 is no bound
	Color    bool
}

// diffMemory bounds the sandbox of a diff, in bytes: DuckDB spills what does not fit.
const diffMemory = 1 << 30

// Diff writes how two states differ, by rows. Each table is compared in a sandbox that
// holds only the parts which differ. Errors for the asker are *QueryError.
func (g *Gate) Diff(ctx context.Context, l *lake.Lake, q DiffQuestion, w io.Writer) error {
	was, is, err := diffed(ctx, l, q)
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
	lim := g.cfg.Ceiling
	lim.CPUs, lim.Memory = min(lim.CPUs, sandbox.DefaultLimits.CPUs), min(lim.Memory, diffMemory)
	sess := g.cfg.Runtime.Session(quarantine, l.Actions, exec.Options{Limits: lim, Ceiling: g.cfg.Ceiling, TempDir: g.cfg.TempDir})
	pairs, err := changedTables(ctx, l.Objects, was, is)
	if err != nil {
		return err
	}
	if pairs, err = only(ctx, l, pairs, q, was, is); err != nil {
		return err
	}
	var printer tablediff.Printer
	format := "json"
	switch q.Format {
	case "stat":
		printer, format = tablediff.NewStat(w), ""
	case "json":
		printer = tablediff.NewJSON(w)
	default:
		colors := tablediff.Colors{}
		if q.Color {
			colors = tablediff.GitColors
		}
		printer = tablediff.NewText(w, colors, " (--limit 0 shows all)")
	}
	for _, p := range pairs {
		if err := diffTable(ctx, sess, p, printer, format, q.Limit); err != nil {
			var f *exec.Failure
			if errors.As(err, &f) {
				return &QueryError{fmt.Sprintf("%s/%s: %s", table.Root, strings.ReplaceAll(p.name, ".", "/"), f.Text)}
			}
			return err
		}
	}
	return printer.Close()
}

// diffed resolves the two commits of a question to their trees.
func diffed(ctx context.Context, l *lake.Lake, q DiffQuestion) (was, is objects.OID, err error) {
	var commits [2]objects.OID
	for i, text := range []string{q.Old, q.New} {
		if commits[i], err = resolveCommit(ctx, l, text); err != nil {
			return was, is, err
		}
	}
	if q.Fork {
		base, found, err := history.MergeBase(ctx, l.Objects, commits[0], commits[1])
		if err != nil {
			return was, is, err
		}
		if !found {
			return was, is, &QueryError{fmt.Sprintf("%s and %s have no commit in common", short(commits[0]), short(commits[1]))}
		}
		commits[0] = base
	}
	var trees [2]objects.OID
	for i, oid := range commits {
		c, err := readCommit(ctx, l.Objects, oid)
		if err != nil {
			return was, is, err
		}
		trees[i] = c.Tree
	}
	return trees[0], trees[1], nil
}

// tablePair is a directory of tables in two states; the zero oid is that there is none.
type tablePair struct {
	name    string
	was, is objects.OID
}

// changedTables lists the tables whose trees differ, by name. Trees that are equal are
// not looked into.
func changedTables(ctx context.Context, r objects.Reader, was, is objects.OID) ([]tablePair, error) {
	var roots [2]objects.OID
	for i, root := range []objects.OID{was, is} {
		e, err := tree.Lookup(ctx, r, root, table.Root)
		if err != nil && !errors.Is(err, objects.ErrNotFound) {
			return nil, err
		}
		if err == nil && e.Mode == gitobj.ModeTree {
			roots[i] = e.OID
		}
	}
	return pairsBelow(ctx, r, table.Root, roots[0], roots[1], nil)
}

// pairsBelow appends the tables below a directory: it may be one itself, and hold others.
func pairsBelow(ctx context.Context, r objects.Reader, dir string, was, is objects.OID, pairs []tablePair) ([]tablePair, error) {
	if was == is {
		return pairs, nil
	}
	below := make(map[string]*[2]objects.OID)
	files := false
	for i, oid := range []objects.OID{was, is} {
		entries, err := tree.List(ctx, r, oid)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			switch {
			case e.Mode == gitobj.ModeTree:
				if below[e.Name] == nil {
					below[e.Name] = new([2]objects.OID)
				}
				below[e.Name][i] = e.OID
			case e.Name == table.FileName, strings.HasSuffix(e.Name, ".parquet"):
				files = true
			}
		}
	}
	name, ok := table.NameOf(dir + "/" + table.FileName)
	if ok && files {
		pairs = append(pairs, tablePair{name, was, is})
	}
	if dir != table.Root && (!ok || strings.Contains(name, ".")) {
		return pairs, nil // no table is deeper, nor below a name that is none
	}
	names := make([]string, 0, len(below))
	for n := range below {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		var err error
		if pairs, err = pairsBelow(ctx, r, dir+"/"+n, below[n][0], below[n][1], pairs); err != nil {
			return nil, err
		}
	}
	return pairs, nil
}

// only leaves the tables that were asked for. A name that is in neither state is an error.
func only(ctx context.Context, l *lake.Lake, pairs []tablePair, q DiffQuestion, was, is objects.OID) ([]tablePair, error) {
	if len(q.Tables) == 0 {
		return pairs, nil
	}
	wanted := make(map[string]bool)
	for _, text := range q.Tables {
		name := strings.ReplaceAll(strings.Trim(strings.TrimPrefix(text, table.Root+"/"), "/"), "/", ".")
		dir, err := table.Dir(name)
		if err != nil {
			return nil, &QueryError{err.Error()}
		}
		there := false
		for _, root := range []objects.OID{was, is} {
			if _, err := tree.Lookup(ctx, l.Objects, root, dir); err == nil {
				there = true
			} else if !errors.Is(err, objects.ErrNotFound) {
				return nil, err
			}
		}
		if !there {
			return nil, &QueryError{fmt.Sprintf("there is no table %q in either state", name)}
		}
		wanted[name] = true
	}
	var out []tablePair
	for _, p := range pairs {
		namespace, _, _ := strings.Cut(p.name, ".")
		if wanted[p.name] || wanted[namespace] {
			out = append(out, p)
		}
	}
	return out, nil
}

func diffTable(ctx context.Context, sess *exec.Session, p tablePair, printer tablediff.Printer, format string, limit int64) error {
	var states [2]tablediff.State
	var parts [2][]objects.OID
	for i, oid := range []objects.OID{p.was, p.is} {
		if oid.IsZero() {
			continue
		}
		var err error
		if states[i].Snapshot, parts[i], err = sess.Outline(ctx, oid); err != nil {
			return err
		}
		for _, part := range parts[i] {
			states[i].Parts = append(states[i].Parts, part.String())
		}
	}
	if states[0].Snapshot == nil && states[1].Snapshot == nil {
		return nil
	}
	t, err := tablediff.Compare(p.name, states[0], states[1])
	if err != nil {
		return err
	}
	if t.Same() {
		return nil
	}
	if err := printer.Begin(t); err != nil {
		return err
	}
	counts, err := sess.Diff(ctx, t.Work(format, limit), parts[0], parts[1], func(_ string, _ int64, r io.Reader) error {
		return t.Rows(r, printer)
	})
	if err != nil {
		return err
	}
	return printer.End(counts)
}
