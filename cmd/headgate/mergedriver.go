package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/objects/table"
)

// mergeDriverOff in the environment makes the driver leave every table.json to
// somebody else, as a conflict.
const mergeDriverOff = "HEADGATE_MERGE_DRIVER_OFF"

// mergeDriverCmd is merge.headgate.driver, see gitattributes(5), "Defining a custom
// merge driver": what git calls for a table.json that both sides changed. Git merges the
// parts beside it on its own, as files that came and went. Where that gives exactly the
// parts of the merged table, the merge is done. Where rows were merged there are parts
// that no side has, and git lets nobody add a file to a merge under way (a hook's are
// not taken in). Then the merged table is left in the work tree, and the path unmerged, so
// that git stops before it commits; mergeCmd and the pre-commit hook finish it.
type mergeDriverCmd struct {
	Base   string `arg:"" help:"%O"`
	Ours   string `arg:"" help:"%A"`
	Theirs string `arg:"" help:"%B"`
	Path   string `arg:"" help:"%P"`
	workerFlag
}

// errUnmerged makes the driver's exit code say so, with nothing more to be said.
var errUnmerged = errors.New("not merged")

// Run merges Theirs into Ours.
func (c *mergeDriverCmd) Run(ctx context.Context, std streams) error {
	if os.Getenv(mergeDriverOff) != "" {
		return errUnmerged
	}
	lake, err := findCheckout(".")
	if err != nil {
		return err
	}
	m, err := lake.mergeOf(ctx, c.Path, [3]string{c.Base, c.Ours, c.Theirs})
	if err != nil {
		return fmt.Errorf("%s: %w", c.Path, err)
	}
	stage, err := os.MkdirTemp(lake.root, ".headgate-merge-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	out, err := m.run(ctx, c.workerFlag, stage)
	if err != nil {
		return fmt.Errorf("%s: %w", m.dir, err)
	}
	if out.Conflicts > 0 {
		printConflicts(std.err, m, out)
		return errUnmerged
	}
	if err := os.WriteFile(c.Ours, out.snap.Encode(), 0o644); err != nil {
		return err
	}
	if m.partsFollow(out.snap) {
		return nil
	}
	// Parts first: until its table.json is there nobody looks for them.
	if err := addParts(filepath.Join(lake.root, filepath.FromSlash(m.dir)), out.fresh); err != nil {
		return err
	}
	how := "merged by rows, without conflicts"
	if m.derived {
		how = "made by a model, so the gate makes it anew; until then ours stays"
	}
	fmt.Fprintf(std.err, "%s: %s. Git cannot add its parts by itself; finish with: headgate merge --finish\n", m.dir, how)
	return errUnmerged
}

// mergeOf reads the three versions of a table.json at a path of the lake.
func (c *checkout) mergeOf(ctx context.Context, file string, versions [3]string) (*tableMerge, error) {
	name, ok := table.NameOf(file)
	if !ok || path.Base(file) != table.FileName {
		return nil, fmt.Errorf("no table's %s", table.FileName)
	}
	m := &tableMerge{lake: c, name: name, dir: path.Dir(file), derived: c.isDerived(ctx, name)}
	for i, to := range []**table.Snapshot{&m.base, &m.ours, &m.theirs} {
		snap, err := readSnapshot(versions[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", []string{"base", "ours", "theirs"}[i], err)
		}
		*to = snap
	}
	if m.ours == nil || m.theirs == nil {
		return nil, errors.New("one side deleted it, the other one changed it; keep it with git add, or remove it with git rm")
	}
	return m, nil
}

// partsFollow reports whether git's own merge of the parts, as files, leaves exactly
// those of the merged table.
func (m *tableMerge) partsFollow(merged *table.Snapshot) bool {
	names := func(s *table.Snapshot) map[string]bool {
		set := make(map[string]bool)
		if s != nil {
			for _, p := range s.Parts {
				set[p.File] = true
			}
		}
		return set
	}
	base, ours, theirs, want := names(m.base), names(m.ours), names(m.theirs), names(merged)
	for _, set := range []map[string]bool{ours, theirs, want} {
		for name := range set {
			there := ours[name] && theirs[name] || !base[name] && (ours[name] || theirs[name])
			if there != want[name] {
				return false
			}
		}
	}
	return true
}

// addParts puts new parts into a table's directory.
func addParts(dir string, fresh map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var added []string
	for name, from := range fresh {
		to := filepath.Join(dir, name)
		if _, err := os.Stat(to); err == nil {
			continue // the same content by name
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
		added = append(added, to)
	}
	return syncFiles(added)
}

// printConflicts tells of a table's conflicts, in a few lines.
func printConflicts(w io.Writer, m *tableMerge, out *tableMerged) {
	fmt.Fprintf(w, "%s: %s, such as\n", m.dir, plural(out.Conflicts, "conflict"))
	for _, row := range out.Sample {
		var cells []string
		for _, c := range out.Columns {
			text := "NULL"
			if row[c] != nil {
				text = fmt.Sprint(row[c])
			}
			cells = append(cells, c+"="+text)
		}
		fmt.Fprintf(w, "    %s\n", visible(strings.Join(cells, " ")))
	}
	fmt.Fprintf(w, "List and resolve them with: headgate conflicts %s\n", m.name)
}
