package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/tablediff"
	"github.com/headgate/headgate/objects/table"
)

type diffCmd struct {
	Args     []string `arg:"" optional:"" help:"Revisions and paths, as git diff takes them." name:"revisions and paths"`
	Cached   bool     `help:"Compare the index, with HEAD or the revision that is given." aliases:"staged"`
	Stat     bool     `help:"Count rows instead of showing them."`
	JSON     bool     `help:"Print one JSON document, all rows unless --limit is given." name:"json"`
	Parquet  string   `help:"Write all rows that differ of one table to FILE, values as they are." placeholder:"FILE"`
	Limit    *int64   `help:"Show at most N rows of each table; 0 shows all (default: ${diff_limit})." short:"n" placeholder:"N"`
	ExitCode bool     `help:"Exit with 1 if there are differences, 0 if there are none, 2 if that cannot be told."`
	Color    string   `help:"Colour the output: auto as git diff does, always, never." enum:"auto,always,never" default:"auto"`
	NoPager  bool     `help:"Do not pipe a terminal's output into git's pager."`
	Lake     string   `help:"The checkout's directory." default:"." type:"existingdir" placeholder:"DIR"`
	Path     []string `hidden:"" sep:"none"`
	Dashes   bool     `hidden:""` // a -- was given, and what follows it is in Path
	workerFlag
}

// asGitTakesThem rearranges a command line of diff for kong, which takes arguments in
// one piece only and drops the "--": without it git could not tell a path that is gone
// from a revision that never was.
func asGitTakesThem(parser *kong.Kong, args []string) []string {
	valued := make(map[string]bool)
	for _, command := range parser.Model.Children {
		if command.Name != args[0] {
			continue
		}
		for _, f := range command.Flags {
			if !f.IsBool() {
				valued["--"+f.Name], valued["-"+string(f.Short)] = true, true
			}
		}
	}
	flags, rest := []string{args[0]}, []string{}
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--":
			flags = append(flags, "--dashes")
			for _, path := range args[i+1:] {
				flags = append(flags, "--path="+path)
			}
			return append(flags, rest...)
		case valued[a] && i+1 < len(args):
			i++
			flags = append(flags, a, args[i])
		case len(a) > 1 && a[0] == '-':
			flags = append(flags, a)
		default:
			rest = append(rest, a)
		}
	}
	return append(flags, rest...)
}

// diffLimit is how many rows of a table are shown for the eye.
const diffLimit = 1000

// Memory of DuckDB in a local diff; it spills what does not fit.
const diffMemory = 512 << 20

// Help is shown below the command's flags.
func (diffCmd) Help() string {
	return `Examples:
  headgate diff                                 what was changed since git add
  headgate diff HEAD~3 -- tables/flights        since then
  headgate diff main..agent/x --stat
  headgate diff v1 v2 --json -- tables/flights | jq '.tables[].rows[].changed'
  headgate diff v1 v2 --parquet changes.parquet -- tables/flights

Revisions and paths mean what they mean to git diff: nothing compares the index with
the files on disk, --cached HEAD with the index, A..B, A B and A...B two revisions.
Rows of tables with a key are compared by key, others in their order. Only parts that
differ are read; a partial clone fetches just those. Schema changes come first, and
rows are compared as if they had been applied: a new column was NULL.

In front of a row stands "-" if it was removed, "+" if it was added, and "~" if it was
changed: then a changed cell shows both values, 5 -> 9, and columns in which nothing changed may be left out.

After headgate init, git diff, git show and git log -p show rows too.`
}

// differError has an exit code of its own, and perhaps nothing to say.
type differError struct {
	code int
	err  error // nil: tables differ, which is no failure
}

func (e *differError) Error() string {
	if e.err == nil {
		return "tables differ"
	}
	return e.err.Error()
}

func (e *differError) Unwrap() error { return e.err }

// Run prints the differences.
func (c *diffCmd) Run(ctx context.Context, std streams) error {
	// Who reads no more has seen enough. Without this, the signal would end the
	// process and leave its files behind.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)
	differ, err := c.run(ctx, std)
	switch {
	case errors.Is(err, syscall.EPIPE):
		return nil
	case err != nil && c.ExitCode:
		return &differError{2, err}
	case err == nil && differ && c.ExitCode:
		return &differError{1, nil}
	}
	return err
}

func (c *diffCmd) run(ctx context.Context, std streams) (differ bool, err error) {
	if c.Stat && c.JSON || c.Parquet != "" && (c.JSON || c.Stat) {
		return false, usagef("--stat, --json and --parquet exclude each other")
	}
	limit := int64(diffLimit)
	if c.JSON || c.Parquet != "" {
		limit = 0
	}
	if c.Limit != nil {
		limit = max(*c.Limit, 0)
	}
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return false, err
	}
	args := c.Args
	if c.Dashes {
		args = append(append(args, "--"), c.Path...)
	}
	cmp, err := lake.compare(ctx, c.Lake, c.Cached, args)
	if err != nil {
		return false, err
	}
	d := &tableDiffer{lake: lake, worker: c.workerFlag, limit: limit, format: "json"}
	if d.dir, err = os.MkdirTemp("", "headgate-diff-"); err != nil {
		return false, err
	}
	defer os.RemoveAll(d.dir)
	if c.Parquet != "" {
		return c.parquet(ctx, std, d, cmp)
	}
	out := std.out
	done := func() error { return nil }
	colors := tablediff.Colors{}
	if !c.JSON && !c.Stat {
		var pager *pager
		if !c.NoPager && isTerminal(std.out) {
			if pager, err = lake.page(ctx, std, "diff"); err != nil {
				return false, err
			}
		}
		colors = lake.colors(ctx, c.Color, isTerminal(std.out))
		if pager != nil {
			out, done = pager, pager.close
		}
	}
	var printer tablediff.Printer
	switch {
	case c.JSON:
		printer = tablediff.NewJSON(out)
	case c.Stat:
		printer, d.format = tablediff.NewStat(out), ""
	default:
		printer = tablediff.NewText(out, colors, " (--limit 0 shows all)")
	}
	differ, err = d.all(ctx, cmp, printer)
	if err == nil && !c.JSON && !c.Stat && cmp.others > 0 {
		_, err = fmt.Fprintf(out, "%s%s not of tables: git diff shows %s\n", blankIf(differ), plural(int64(cmp.others), "changed file"), map[bool]string{true: "it", false: "them"}[cmp.others == 1])
	}
	if derr := done(); err == nil || errors.Is(err, errPagerLeft) {
		err = derr
	}
	return differ, err
}

func blankIf(yes bool) string {
	if yes {
		return "\n"
	}
	return ""
}

// parquet writes the rows of the one table that differs to a file, whole or not at all.
func (c *diffCmd) parquet(ctx context.Context, std streams, d *tableDiffer, cmp *comparison) (bool, error) {
	tables, err := d.tables(ctx, cmp)
	if err != nil {
		return false, err
	}
	if len(tables) > 1 {
		var dirs []string
		for _, t := range tables {
			dirs = append(dirs, t.diff.Dir())
		}
		return true, usagef("--parquet writes one table, but %d differ: name one of them after --: %s", len(tables), strings.Join(dirs, ", "))
	}
	if len(tables) == 0 {
		return false, errors.New("no table differs: nothing was written")
	}
	d.format = "parquet"
	f, err := os.CreateTemp(filepath.Dir(c.Parquet), ".headgate-diff-*")
	if err != nil {
		return true, err
	}
	defer os.Remove(f.Name()) // unless it was renamed
	d.file = f
	counts, err := d.one(ctx, tables[0], nil)
	if err == nil && counts == (protocol.DiffCounts{}) {
		err = errors.New("no row differs: nothing was written")
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return true, err
	}
	if err := os.Chmod(f.Name(), 0o644); err != nil {
		return true, err
	}
	if err := os.Rename(f.Name(), c.Parquet); err != nil {
		return true, err
	}
	_, err = fmt.Fprintf(std.out, "%s in %s\n", plural(counts.Removed+counts.Added+counts.Changed, "row"), c.Parquet)
	return true, err
}

// tableDiffer compares the tables of a comparison with the help of the worker.
type tableDiffer struct {
	lake   *checkout
	worker workerFlag
	dir    string // for parts that are in the repository only
	format string // of protocol.OpDiff
	limit  int64
	file   io.Writer // of the format parquet
}

// comparedTable is a table with its parts on both sides.
type comparedTable struct {
	diff    *tablediff.Table
	was, is *tableState
}

// tables are those that differ, by name.
func (d *tableDiffer) tables(ctx context.Context, cmp *comparison) ([]*comparedTable, error) {
	var out []*comparedTable
	for _, dir := range cmp.dirs {
		t, err := d.table(ctx, cmp, dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		if t != nil {
			out = append(out, t)
		}
	}
	return out, nil
}

// table compares the two states of a table; nil if there is no difference.
func (d *tableDiffer) table(ctx context.Context, cmp *comparison, dir string) (*comparedTable, error) {
	name, _ := table.NameOf(dir + "/" + table.FileName)
	var t comparedTable
	var err error
	if t.was, err = d.state(ctx, cmp.old, dir); err != nil {
		return nil, fmt.Errorf("%s: %w", cmp.old.name, err)
	}
	if t.is, err = d.state(ctx, cmp.new, dir); err != nil {
		return nil, fmt.Errorf("%s: %w", cmp.new.name, err)
	}
	if err := identify(t.was, t.is); err != nil {
		return nil, err
	}
	if t.was.snapshot == nil && t.is.snapshot == nil {
		return nil, nil // files that are no table on either side
	}
	if t.diff, err = tablediff.Compare(name, t.was.compared(), t.is.compared()); err != nil {
		return nil, err
	}
	if t.diff.Same() {
		return nil, nil
	}
	return &t, nil
}

// all compares all tables and prints them.
func (d *tableDiffer) all(ctx context.Context, cmp *comparison, p tablediff.Printer) (differ bool, err error) {
	for _, dir := range cmp.dirs {
		t, err := d.table(ctx, cmp, dir)
		if err != nil {
			return differ, fmt.Errorf("%s: %w", dir, err)
		}
		if t == nil {
			continue
		}
		differ = true
		if _, err := d.one(ctx, t, p); err != nil {
			return differ, fmt.Errorf("%s: %w", dir, err)
		}
	}
	return differ, p.Close()
}

// one has the worker compare a table, and prints it.
func (d *tableDiffer) one(ctx context.Context, t *comparedTable, p tablediff.Printer) (counts protocol.DiffCounts, err error) {
	work := t.diff.Work(d.format, d.limit)
	if p != nil {
		if err := p.Begin(t.diff); err != nil {
			return counts, err
		}
	}
	var answer *protocol.Answer
	if work.Order != nil {
		for i, side := range []struct {
			state *tableState
			parts []int
		}{{t.was, work.OldParts}, {t.is, work.NewParts}} {
			if work.Order.Inputs[i].Files, err = d.bring(ctx, side.state, side.parts); err != nil {
				return counts, err
			}
		}
		work.Order.MemoryLimit = diffMemory
		answer, err = d.worker.runWorker(ctx, work.Order, func(_ string, _ int64, r io.Reader) error {
			if d.file != nil {
				_, err := io.Copy(d.file, r)
				return err
			}
			return t.diff.Rows(r, p)
		}, nil)
		if err != nil {
			return counts, err
		}
	}
	if counts, err = work.Counts(answer); err != nil || p == nil {
		return counts, err
	}
	return counts, p.End(counts)
}

// bring puts parts on disk, and returns their paths.
func (d *tableDiffer) bring(ctx context.Context, s *tableState, parts []int) ([]string, error) {
	want := make(map[string]string)
	files := make([]string, len(parts))
	for i, n := range parts {
		at := s.parts[n]
		files[i] = at.path
		if at.path == "" {
			files[i] = filepath.Join(d.dir, at.oid+".parquet")
			want[at.oid] = files[i]
		}
	}
	if err := d.lake.bring(ctx, &localTable{tree: s.tree}, want); err != nil {
		return nil, err
	}
	return files, nil
}

// state reads a table's state at a side: all that there is but the parts.
func (d *tableDiffer) state(ctx context.Context, s diffSide, dir string) (*tableState, error) {
	t, err := s.list(ctx, d.lake, dir)
	if err != nil {
		return nil, err
	}
	if at, ok := t.files[table.FileName]; ok {
		data, err := d.lake.content(ctx, at)
		if err != nil {
			return nil, err
		}
		if t.snapshot, err = table.ParseOutline(data); err != nil {
			return nil, err
		}
		for _, p := range t.snapshot.Parts {
			at, ok := t.files[p.File]
			if !ok {
				return nil, fmt.Errorf("%s names the part %q, which is not there", table.FileName, p.File)
			}
			t.parts = append(t.parts, at)
			t.names = append(t.names, p.File)
		}
		return t, nil
	}
	return t, d.plain(ctx, t)
}

// plain makes a state of Parquet files without a table.json: the worker says what
// they hold.
func (d *tableDiffer) plain(ctx context.Context, t *tableState) error {
	for _, name := range sortedKeys(t.files) {
		t.parts, t.names = append(t.parts, t.files[name]), append(t.names, name)
	}
	if len(t.parts) == 0 {
		return nil
	}
	all := make([]int, len(t.parts))
	for i := range all {
		all[i] = i
	}
	files, err := d.bring(ctx, t, all)
	if err != nil {
		return err
	}
	answer, err := d.worker.runWorker(ctx, &protocol.Order{Op: protocol.OpDescribe, Inputs: []protocol.Table{{Name: "t", Files: files}}}, nil, nil)
	if err != nil {
		return err
	}
	if answer.Snapshot == nil || len(answer.Snapshot.Parts) != len(files) {
		return errors.New("the worker did not describe the table")
	}
	t.snapshot = &table.Snapshot{Format: table.Format}
	for _, c := range answer.Snapshot.Columns {
		t.snapshot.Columns = append(t.snapshot.Columns, table.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable})
	}
	for i, p := range answer.Snapshot.Parts {
		t.snapshot.Parts = append(t.snapshot.Parts, table.Part{File: t.names[i], Rows: p.Rows})
	}
	return nil
}

// content reads a small file of a side.
func (c *checkout) content(ctx context.Context, at place) ([]byte, error) {
	if at.path != "" {
		return os.ReadFile(at.path)
	}
	var out bytes.Buffer
	err := c.git(ctx, &bounded{w: &out, left: table.MaxBytes}, "cat-file", "blob", at.oid)
	return out.Bytes(), err
}
