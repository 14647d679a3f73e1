package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

// unmergedTable is a table whose table.json git has not merged: the index has up to
// three versions of it.
type unmergedTable struct {
	name, dir string
	oids      [3]string // of base, ours and theirs; "" if a version has none
}

// unmergedTables lists them by name.
func (c *checkout) unmergedTables(ctx context.Context) ([]*unmergedTable, error) {
	list, err := c.gitOutput(ctx, "ls-files", "-u", "-z", "--full-name", "--", ":(top)"+table.Root)
	if err != nil {
		return nil, err
	}
	var out []*unmergedTable
	for entry := range strings.SplitSeq(list, "\x00") {
		meta, file, _ := strings.Cut(entry, "\t")
		fields := strings.Fields(meta) // mode, oid, stage
		name, ok := table.NameOf(file)
		if len(fields) != 3 || !ok || path.Base(file) != table.FileName {
			continue
		}
		if len(out) == 0 || out[len(out)-1].name != name {
			out = append(out, &unmergedTable{name: name, dir: path.Dir(file)})
		}
		if stage := fields[2]; len(stage) == 1 && stage >= "1" && stage <= "3" {
			out[len(out)-1].oids[stage[0]-'1'] = fields[1]
		}
	}
	return out, nil
}

// mergeOfUnmerged reads the versions of an unmerged table, and the rules that were given for it.
func (c *checkout) mergeOfUnmerged(ctx context.Context, u *unmergedTable) (*tableMerge, error) {
	if u.oids[1] == "" || u.oids[2] == "" {
		return nil, fmt.Errorf("%s: one side deleted the table, the other one changed it; keep it with git add, or remove it with git rm", u.dir)
	}
	m := &tableMerge{lake: c, name: u.name, dir: u.dir, derived: c.isDerived(ctx, u.name)}
	for i, to := range []**table.Snapshot{&m.base, &m.ours, &m.theirs} {
		if u.oids[i] == "" {
			continue
		}
		text, err := c.gitOutput(ctx, "cat-file", "blob", u.oids[i])
		if err != nil {
			return nil, err
		}
		if *to, err = table.Parse([]byte(text)); err != nil {
			return nil, fmt.Errorf("%s, %s: %w", u.dir, []string{"base", "ours", "theirs"}[i], err)
		}
	}
	rules, err := c.readRules(ctx, u)
	m.rules = rules
	return m, err
}

// resolution is how the conflicts of one merge of a table are to be resolved, in a
// file of the git directory. It is of one merge only, which the versions tell.
type resolution struct {
	Versions [3]string            `json:"versions"`
	Rules    []protocol.MergeRule `json:"rules"`
}

func (c *checkout) rulesPath(ctx context.Context, u *unmergedTable) (string, error) {
	return c.gitPath(ctx, "headgate/resolutions/"+u.name+".json")
}

// readRules returns what was said of this very merge.
func (c *checkout) readRules(ctx context.Context, u *unmergedTable) ([]protocol.MergeRule, error) {
	at, err := c.rulesPath(ctx, u)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r resolution
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it and resolve again", at, err)
	}
	if r.Versions != u.oids {
		return nil, nil
	}
	return r.Rules, nil
}

func (c *checkout) writeRules(ctx context.Context, u *unmergedTable, rules []protocol.MergeRule) error {
	at, err := c.rulesPath(ctx, u)
	if err != nil {
		return err
	}
	if len(rules) == 0 {
		if err := os.Remove(at); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.MarshalIndent(resolution{u.oids, rules}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	next := at + ".new"
	if err := os.WriteFile(next, append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(next, at)
}

// settle puts the merged table into the work tree and the index: table.json and its
// parts, and no other. The table is then merged for git.
func (c *checkout) settle(ctx context.Context, u *unmergedTable, m *tableMerge, out *tableMerged, stage string) error {
	dir := filepath.Join(c.root, filepath.FromSlash(m.dir))
	parts, err := c.partFiles(ctx, m.dir, stage)
	if err != nil {
		return err
	}
	defer parts.close()
	// Parts of either side, which git left in the work tree or took out of it.
	have := make(map[string]string)
	for _, p := range out.snap.Parts {
		if from, ok := out.fresh[p.File]; ok {
			have[p.File] = from
			continue
		}
		at := filepath.Join(dir, p.File)
		if oid, _, err := blobOID(at); err == nil && table.PartName(oid) == p.File {
			continue
		}
		if err := parts.bring(ctx, p.File); err != nil {
			return err
		}
		if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		have[p.File] = parts.path(p.File)
	}
	if err := addParts(dir, have); err != nil {
		return err
	}
	next := filepath.Join(dir, "."+table.FileName+".new")
	err = os.WriteFile(next, out.snap.Encode(), 0o644)
	if err == nil {
		err = syncFiles([]string{next})
	}
	if err == nil {
		err = os.Rename(next, filepath.Join(dir, table.FileName))
	}
	if err != nil {
		_ = os.Remove(next)
		return err
	}
	if err := m.removeSurplus(dir, out.snap); err != nil {
		return err
	}
	// The table's own files and no others: what else is changed there is its user's.
	if err := c.git(ctx, nil, "add", "--all", "--force", "--", ":(top,literal)"+m.dir+"/"+table.FileName, ":(top,glob)"+m.dir+"/*.parquet"); err != nil {
		return err
	}
	return c.writeRules(ctx, u, nil)
}

// removeSurplus removes from the work tree those parts of the three versions that the
// merged table does not have.
func (m *tableMerge) removeSurplus(dir string, merged *table.Snapshot) error {
	wanted := make(map[string]bool, len(merged.Parts))
	for _, p := range merged.Parts {
		wanted[p.File] = true
	}
	for _, s := range []*table.Snapshot{m.base, m.ours, m.theirs} {
		if s == nil {
			continue
		}
		for _, p := range s.Parts {
			if wanted[p.File] {
				continue
			}
			if err := os.Remove(filepath.Join(dir, p.File)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// finished is a table that was finished, or what is left of it.
type finished struct {
	Table     string           `json:"table"`
	Rows      int64            `json:"rows"`
	Derived   bool             `json:"derived,omitempty"`
	Conflicts int64            `json:"conflicts"`
	Resolved  int64            `json:"resolved"`
	Columns   []string         `json:"columns,omitempty"`
	Sample    []map[string]any `json:"sample,omitempty"`
	Problem   string           `json:"problem,omitempty"`
}

// finishTables merges every unmerged table again and settles those that have no
// conflicts left.
func (c *checkout) finishTables(ctx context.Context, w workerFlag) ([]finished, error) {
	list, err := c.unmergedTables(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]finished, 0, len(list))
	for _, u := range list {
		f, err := c.finishTable(ctx, w, u)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if err != nil {
			f.Problem = err.Error()
		}
		out = append(out, f)
	}
	return out, nil
}

func (c *checkout) finishTable(ctx context.Context, w workerFlag, u *unmergedTable) (finished, error) {
	f := finished{Table: u.name}
	m, err := c.mergeOfUnmerged(ctx, u)
	if err != nil {
		return f, err
	}
	stage, err := os.MkdirTemp(c.root, ".headgate-merge-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(stage)
	out, err := m.run(ctx, w, stage)
	if err != nil {
		return f, err
	}
	f.Conflicts, f.Resolved, f.Columns, f.Sample, f.Derived = out.Conflicts, out.Resolved, out.Columns, out.Sample, m.derived
	if out.Conflicts > 0 {
		return f, nil
	}
	f.Rows = out.snap.Rows()
	return f, c.settle(ctx, u, m, out, stage)
}

// tidy completes the tables that the index holds: parts that a table.json names and
// the index lacks are added, and parts that it does not name are removed, if they are
// what a merge leaves: called by their content. It touches no table that is in order.
func (c *checkout) tidy(ctx context.Context) ([]string, error) {
	changed, err := c.gitOutput(ctx, "diff", "--cached", "--name-only", "-z", "--no-renames", "--", ":(top)"+table.Root)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for file := range strings.SplitSeq(changed, "\x00") {
		if _, ok := table.NameOf(file); ok {
			dirs = append(dirs, path.Dir(file))
		}
	}
	slices.Sort(dirs)
	var tidied []string
	for _, dir := range slices.Compact(dirs) {
		did, err := c.tidyTable(ctx, dir)
		if err != nil {
			return tidied, fmt.Errorf("%s: %w", dir, err)
		}
		if did {
			tidied = append(tidied, dir)
		}
	}
	return tidied, nil
}

func (c *checkout) tidyTable(ctx context.Context, dir string) (bool, error) {
	list, err := c.gitOutput(ctx, "ls-files", "-s", "-z", "--full-name", "--", ":(top,literal)"+dir)
	if err != nil {
		return false, err
	}
	index := make(map[string]string) // name to oid
	for entry := range strings.SplitSeq(list, "\x00") {
		meta, file, _ := strings.Cut(entry, "\t")
		if fields := strings.Fields(meta); len(fields) == 3 && fields[2] == "0" && path.Dir(file) == dir {
			index[path.Base(file)] = fields[1]
		}
	}
	if index[table.FileName] == "" {
		return false, nil
	}
	text, err := c.gitOutput(ctx, "cat-file", "blob", index[table.FileName])
	if err != nil {
		return false, err
	}
	snap, err := table.Parse([]byte(text))
	if err != nil {
		return false, nil // the gate says what is wrong with it
	}
	wanted := make(map[string]bool, len(snap.Parts))
	var lacks, surplus []string
	for _, p := range snap.Parts {
		if wanted[p.File] = true; index[p.File] == "" {
			lacks = append(lacks, p.File)
		}
	}
	for name, oid := range index {
		if strings.HasSuffix(name, ".parquet") && !wanted[name] && strings.HasPrefix(oid+".parquet", strings.TrimSuffix(name, ".parquet")) {
			surplus = append(surplus, dir+"/"+name)
		}
	}
	if len(lacks)+len(surplus) == 0 {
		return false, nil
	}
	stage, err := os.MkdirTemp(c.root, ".headgate-merge-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(stage)
	parts, err := c.partFiles(ctx, dir, stage)
	if err != nil {
		return false, err
	}
	defer parts.close()
	for _, name := range lacks {
		if err := parts.bring(ctx, name); err != nil {
			return false, err
		}
		at := filepath.Join(c.root, filepath.FromSlash(dir), name)
		if _, err := os.Stat(at); errors.Is(err, fs.ErrNotExist) {
			if err := os.Rename(parts.path(name), at); err != nil {
				return false, err
			}
		}
		if err := c.git(ctx, nil, "add", "--force", "--", ":(top,literal)"+dir+"/"+name); err != nil {
			return false, err
		}
	}
	for _, file := range surplus {
		if err := c.git(ctx, nil, "rm", "--quiet", "--force", "--", ":(top,literal)"+file); err != nil {
			return false, err
		}
	}
	return true, nil
}
