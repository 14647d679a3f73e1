package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/exec/tablediff"
	"github.com/headgate/headgate/objects/table"
)

// What git calls for the table.json of a table, if headgate init has set it up
// (decision 025): gitDiffCmd for git diff, gitTextCmd for git show and git log -p,
// which call no other program to compare. Neither ever fails, since git would then
// show nothing of anything: what cannot be shown is said in a line.

// gitDiffCmd is diff.headgate.command, see gitattributes(5) and git(1), GIT_EXTERNAL_DIFF.
type gitDiffCmd struct {
	Args []string `arg:"" passthrough:"all" help:"path old-file old-hex old-mode new-file new-hex new-mode"`
}

// noLazyFetch keeps git from fetching what a partial clone lacks, one object at a
// time, for a text. It fetched what differs before. Git before 2.45 does not know it.
func noLazyFetch() error { return os.Setenv("GIT_NO_LAZY_FETCH", "1") }

// Run prints the rows that differ.
func (c *gitDiffCmd) Run(ctx context.Context, std streams) error {
	if err := noLazyFetch(); err != nil {
		return err
	}
	file := c.Args[0]
	dir := path.Dir(filepath.ToSlash(file))
	if len(c.Args) < 7 {
		_, err := fmt.Fprintf(std.out, "diff --table %s\nnot merged yet: resolve the conflict, then git add it\n", visible(dir))
		return err
	}
	if err := c.show(ctx, std, dir); err != nil && ctx.Err() == nil {
		_, _ = fmt.Fprintf(std.out, "diff --table %s\nits rows cannot be shown: %s\n", visible(dir), visible(firstLine(err.Error())))
	}
	return nil
}

func (c *gitDiffCmd) show(ctx context.Context, std streams, dir string) error {
	lake, err := findCheckout(".")
	if err != nil {
		return err
	}
	d := &tableDiffer{lake: lake, format: "json", limit: diffLimit}
	if d.dir, err = os.MkdirTemp("", "headgate-diff-"); err != nil {
		return err
	}
	defer os.RemoveAll(d.dir)
	name, ok := table.NameOf(dir + "/" + table.FileName)
	if !ok {
		return fmt.Errorf("no table is called so")
	}
	was, err := lake.named(c.Args[1], dir)
	if err != nil {
		return err
	}
	is, err := lake.named(c.Args[4], dir)
	if err != nil {
		return err
	}
	if was.snapshot == nil && is.snapshot == nil {
		return errors.New("no table on either side")
	}
	t, err := tablediff.Compare(name, was.compared(), is.compared())
	if err != nil {
		return err
	}
	work := t.Work(d.format, d.limit)
	for _, s := range []struct {
		state *tableState
		parts []int
	}{{was, work.OldParts}, {is, work.NewParts}} {
		if err := lake.resolve(ctx, s.state, s.parts); err != nil {
			return err
		}
	}
	// All of it or nothing, so that a line that says why does not follow half a table.
	out := &strings.Builder{}
	printer := tablediff.NewText(out, lake.colors(ctx, "auto", isTerminal(std.out)), " (headgate diff --limit 0 shows all)")
	if _, err := d.one(ctx, &comparedTable{diff: t, was: was, is: is}, printer); err != nil {
		return err
	}
	if err := printer.Close(); err != nil {
		return err
	}
	_, err = io.WriteString(std.out, out.String())
	return err
}

// named reads a table.json that git has put into a file. Its parts are known by
// their names, which follow from what they hold.
func (c *checkout) named(file, dir string) (*tableState, error) {
	t := &tableState{}
	if file == os.DevNull {
		return t, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if t.snapshot, err = table.ParseOutline(data); err != nil {
		return nil, err
	}
	for _, p := range t.snapshot.Parts {
		t.names, t.ids = append(t.names, p.File), append(t.ids, p.File)
		t.parts = append(t.parts, place{path: filepath.Join(c.root, filepath.FromSlash(dir), p.File)})
	}
	return t, nil
}

// resolve finds parts by their names: as blobs whose oids begin so, else as files
// of the work tree, where those are that were not added yet. It fetches nothing:
// git has fetched what differs before it asks for a diff.
func (c *checkout) resolve(ctx context.Context, t *tableState, parts []int) error {
	if len(parts) == 0 {
		return nil
	}
	b, err := c.lookups(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	missing := 0
	for _, n := range parts {
		oid, kind, _, err := b.find(strings.TrimSuffix(t.names[n], ".parquet"))
		switch {
		case err == nil && kind == "blob":
			t.parts[n] = place{oid: oid}
			continue
		case err != nil && !errors.Is(err, errNoObject):
			return err
		}
		if _, err := os.Stat(t.parts[n].path); err != nil {
			missing++
		}
	}
	if missing > 0 {
		return &missingParts{missing}
	}
	return nil
}

// missingParts says that parts are not here.
type missingParts struct{ n int }

func (e *missingParts) Error() string {
	return fmt.Sprintf("%s not in this clone; headgate diff fetches what a partial clone lacks", map[bool]string{true: "a part is", false: plural(int64(e.n), "part") + " are"}[e.n == 1])
}

// gitTextCmd is diff.headgate.textconv, see gitattributes(5).
type gitTextCmd struct {
	File string `arg:"" help:"A table.json."`
}

// Bounds of the text of a table. Git compares two of them line by line.
const (
	// textRows is the most rows of a table all of which are in its text.
	textRows = 100_000
	// textParts is how many parts are, of a larger table: those that the newest
	// commits changed.
	textParts = 64
	// textVersions is how many versions of it are looked at for that, among those of
	// the newest textCommits commits that changed a table.
	textVersions = 32
	textCommits  = 1000
)

// Run prints the table as text.
func (c *gitTextCmd) Run(ctx context.Context, std streams) error {
	if err := noLazyFetch(); err != nil {
		return err
	}
	data, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	if err := c.text(ctx, std.out, data); err != nil {
		_, err = std.out.Write(data) // as git would have shown it
		return err
	}
	return nil
}

// text prints the schema, a line for each part whose rows are not listed, and the rows
// of the others. Whether a part's rows are listed does not depend on the table.json in
// which it is: so git, which compares two such texts, finds the rows that differ and
// never one that was left out on one side only.
func (c *gitTextCmd) text(ctx context.Context, out io.Writer, data []byte) error {
	lake, err := findCheckout(".")
	if err != nil {
		return err
	}
	t, err := lake.named(c.File, "")
	if err != nil {
		return err
	}
	for i, name := range t.names {
		t.parts[i] = place{path: filepath.Join(filepath.Dir(c.File), name)}
	}
	list, err := lake.listed(ctx, t, data)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "table of %s\n", plural(t.snapshot.Rows(), "row"))
	if len(t.snapshot.Key) > 0 {
		fmt.Fprintf(&b, "key %s\n", visible(strings.Join(t.snapshot.Key, ", ")))
	}
	for _, col := range t.snapshot.Columns {
		null := ""
		if !col.Nullable {
			null = " NOT NULL"
		}
		fmt.Fprintf(&b, "column %s %s%s\n", visible(col.Name), visible(col.Type), null)
	}
	here := &tableState{snapshot: &table.Snapshot{Format: table.Format, Columns: t.snapshot.Columns}}
	for i, name := range t.names {
		if p := t.snapshot.Parts[i]; list[name] && lake.resolve(ctx, t, []int{i}) == nil {
			here.parts, here.ids = append(here.parts, t.parts[i]), append(here.ids, name)
			here.snapshot.Parts = append(here.snapshot.Parts, p)
		} else {
			fmt.Fprintf(&b, "part %s, %s that headgate diff shows\n", name, plural(p.Rows, "row"))
		}
	}
	if len(here.parts) > 0 {
		d := &tableDiffer{lake: lake, format: "json"}
		if d.dir, err = os.MkdirTemp("", "headgate-text-"); err != nil {
			return err
		}
		defer os.RemoveAll(d.dir)
		// The rows of a table that was not there are all that it has.
		rows, err := tablediff.Compare("t", tablediff.State{}, here.compared())
		if err != nil {
			return err
		}
		if _, err := d.one(ctx, &comparedTable{diff: rows, was: &tableState{}, is: here}, tablediff.NewLines(&b)); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, b.String())
	return err
}

// listed says which of a table's parts have their rows in its text: all of a small
// table, and of one that is or was larger those that the newest versions took out or
// put in. data is its table.json.
func (c *checkout) listed(ctx context.Context, t *tableState, data []byte) (map[string]bool, error) {
	changes, err := c.versions(ctx)
	if err != nil {
		return nil, err
	}
	b, err := c.contents(ctx)
	if err != nil {
		return nil, err
	}
	defer b.close()
	seen := make(map[string]map[string]bool)
	rows := make(map[string]int64)              // of each version in seen
	parts := func(oid string) map[string]bool { // of a version; nil of one that cannot be read
		names, ok := seen[oid]
		if !ok {
			if text, err := b.read(oid, table.MaxBytes); err == nil {
				if s, err := table.ParseOutline(text); err == nil {
					names, rows[oid] = make(map[string]bool, len(s.Parts)), s.Rows()
					for _, p := range s.Parts {
						names[p.File] = true
					}
				}
			}
			seen[oid] = names
		}
		return names
	}
	dir := dirOf(changes, plumbing.ComputeHash(plumbing.BlobObject, data).String())
	for _, v := range changes {
		if dir != "" || len(t.names) == 0 {
			break
		}
		// It was not committed: it is the table that has its first part.
		if parts(v.was)[t.names[0]] || parts(v.is)[t.names[0]] {
			dir = v.dir
		}
	}
	changes = slices.DeleteFunc(changes, func(v versionChange) bool { return v.dir != dir })
	changes = changes[:min(len(changes), textVersions)]
	changes = slices.DeleteFunc(changes, func(v versionChange) bool { return parts(v.was) == nil || parts(v.is) == nil })
	large := t.snapshot.Rows() > textRows
	if len(changes) > 0 { // as for every other version of it, unless that would be far too much
		large = t.snapshot.Rows() > 10*textRows || slices.ContainsFunc(changes, func(v versionChange) bool { return max(rows[v.was], rows[v.is]) > textRows })
	}
	list := make(map[string]bool, len(t.names))
	for _, name := range t.names {
		if !large {
			list[name] = true
		}
	}
	if !large {
		return list, nil
	}
	for _, v := range changes {
		var fresh []string
		was, is := parts(v.was), parts(v.is)
		for _, pair := range [][2]map[string]bool{{was, is}, {is, was}} {
			for name := range pair[0] {
				if !pair[1][name] && !list[name] {
					fresh = append(fresh, name)
				}
			}
		}
		if len(list)+len(fresh) <= textParts {
			for _, name := range fresh {
				list[name] = true
			}
		}
	}
	return list, nil
}

// versionChange is a commit's change of the table.json of a directory: two blobs.
type versionChange struct{ dir, was, is string }

func dirOf(changes []versionChange, oid string) string {
	for _, v := range changes {
		if v.was == oid || v.is == oid {
			return v.dir
		}
	}
	return ""
}

// versions lists what the newest commits of all refs did to tables that were there, the
// newest first.
func (c *checkout) versions(ctx context.Context) ([]versionChange, error) {
	log, err := c.gitOutput(ctx, "log", "--all", "-m", "--raw", "-z", "--no-abbrev", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-show-signature",
		"--diff-filter=M", "--format=tformat:", fmt.Sprintf("--max-count=%d", textCommits), "--", ":(glob)"+table.Root+"/**/"+table.FileName)
	if err != nil {
		return nil, err
	}
	var changes []versionChange
	fields := strings.Split(log, "\x00")
	for i := 0; i+1 < len(fields); i++ {
		meta, ok := strings.CutPrefix(strings.TrimLeft(fields[i], "\n"), ":")
		raw := strings.Fields(meta) // modes, oids, status
		if !ok || len(raw) != 5 {
			continue
		}
		i++
		changes = append(changes, versionChange{path.Dir(fields[i]), raw[2], raw[3]})
	}
	return changes, nil
}
