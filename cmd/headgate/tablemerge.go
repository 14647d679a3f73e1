package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

// tableMerge is a three-way merge of one table of the user's repository. base is nil
// if the table is new on both sides.
type tableMerge struct {
	lake               *checkout
	name               string // SQL name
	dir                string // "tables/x"
	base, ours, theirs *table.Snapshot
	rules              []protocol.MergeRule
	derived            bool // a model makes it: ours stays until the gate makes it anew
}

// tableMerged is what came of it: a snapshot, or conflicts.
type tableMerged struct {
	snap  *table.Snapshot
	fresh map[string]string // parts that no version has: name to path
	*protocol.Merged
	conflicts protocol.Table // if there are any
}

// run merges. New files are made below stage, which must outlive the result.
func (m *tableMerge) run(ctx context.Context, w workerFlag, stage string) (*tableMerged, error) {
	if m.derived {
		return &tableMerged{snap: m.ours, Merged: &protocol.Merged{}}, nil
	}
	plan := table.PlanMerge(m.base, m.ours, m.theirs)
	if len(plan.Conflicts) == 0 && !slices.ContainsFunc(plan.Segments, func(s table.Segment) bool { return s.ByRows() }) {
		snap := &table.Snapshot{Format: table.Format, Columns: plan.Columns, Key: plan.Key}
		for _, s := range plan.Segments {
			snap.Parts = append(snap.Parts, s.Keep...)
		}
		return &tableMerged{snap: snap, Merged: &protocol.Merged{}}, nil
	}
	parts, err := m.lake.partFiles(ctx, m.dir, stage)
	if err != nil {
		return nil, err
	}
	defer parts.close()
	for staged := 4; ; staged *= 4 {
		out, err := m.tryRun(ctx, w, plan, parts, staged, stage)
		if err != nil || !out.Short {
			return out, err
		}
		if staged > len(m.ours.Parts)+len(m.theirs.Parts) {
			return nil, errors.New("the worker wants more parts than there are")
		}
	}
}

// tryRun merges with so many parts at hand behind each merge of rows.
func (m *tableMerge) tryRun(ctx context.Context, w workerFlag, plan *table.Merge, parts *partFiles, staged int, stage string) (*tableMerged, error) {
	dir, err := os.MkdirTemp(stage, "merge-")
	if err != nil {
		return nil, err
	}
	order := &protocol.Order{Op: protocol.OpMerge, Key: plan.Key, Merge: &protocol.Merge{
		Ours: columnsIn(m.ours), Theirs: columnsIn(m.theirs), Columns: columnsIn(&table.Snapshot{Columns: plan.Columns}), Rules: m.rules,
	}}
	if m.base != nil {
		order.Merge.Base = columnsIn(m.base)
	}
	for _, c := range plan.Conflicts {
		order.Merge.Conflicts = append(order.Merge.Conflicts, protocol.MergeConflict(c))
	}
	known := make(map[string]table.Part)
	list := func(of []table.Part, n int) ([]string, error) {
		paths := make([]string, len(of))
		for i, p := range of {
			paths[i] = parts.path(p.File)
			known[paths[i]] = p
			if i < n {
				if err := parts.bring(ctx, p.File); err != nil {
					return nil, err
				}
			}
		}
		return paths, nil
	}
	for i, s := range plan.Segments {
		var seg protocol.MergeSegment
		if i > 0 && plan.Segments[i-1].ByRows() {
			seg.Staged = min(staged, len(s.Keep))
		}
		for _, l := range []struct {
			to   *[]string
			from []table.Part
			n    int
		}{{&seg.Keep, s.Keep, seg.Staged}, {&seg.Base, s.Base, len(s.Base)}, {&seg.Ours, s.Ours, len(s.Ours)}, {&seg.Theirs, s.Theirs, len(s.Theirs)}} {
			if *l.to, err = list(l.from, l.n); err != nil {
				return nil, err
			}
		}
		order.Merge.Segments = append(order.Merge.Segments, seg)
	}
	answer, err := w.runWorker(ctx, order, func(name string, _ int64, r io.Reader) error {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}, nil)
	if err != nil {
		return nil, err
	}
	out := &tableMerged{Merged: answer.Merged}
	switch {
	case out.Merged == nil:
		return nil, errors.New("the worker did not say how the merge went")
	case out.Short:
		return out, nil
	case answer.Snapshot == nil:
		return nil, errors.New("the worker gave no snapshot")
	}
	snap, fresh, err := nameParts(answer.Snapshot, cutting{key: plan.Key, known: known}, dir)
	if err != nil {
		return nil, err
	}
	if out.Conflicts == 0 {
		out.snap, out.fresh = snap, fresh
		return out, nil
	}
	out.conflicts = protocol.Table{Name: "conflicts", Columns: answer.Snapshot.Columns}
	for _, p := range answer.Snapshot.Parts {
		out.conflicts.Files = append(out.conflicts.Files, filepath.Join(dir, filepath.Base(p.File)))
	}
	return out, nil
}

func columnsIn(s *table.Snapshot) []protocol.Column {
	out := make([]protocol.Column, len(s.Columns))
	for i, c := range s.Columns {
		out[i] = protocol.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable}
	}
	return out
}

// partFiles brings parts of a table to disk, from wherever the repository has them: a
// part's name is the beginning of its oid, by which git finds it without a commit.
type partFiles struct {
	lake  *checkout
	dir   string // of the table
	stage string
	batch *gitBatch
	oids  map[string]string // of names that git does not find so: a partial clone's; nil until asked for
}

func (c *checkout) partFiles(ctx context.Context, dir, stage string) (*partFiles, error) {
	b, err := c.contents(ctx)
	if err != nil {
		return nil, err
	}
	return &partFiles{lake: c, dir: dir, stage: stage, batch: b}, nil
}

func (p *partFiles) close() { p.batch.close() }

func (p *partFiles) path(name string) string { return filepath.Join(p.stage, name) }

// bring makes the part's file, unless it is there.
func (p *partFiles) bring(ctx context.Context, name string) error {
	path := p.path(name)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	hex := strings.TrimSuffix(name, ".parquet")
	err := p.fetch(hex, path)
	if errors.Is(err, errNoObject) {
		if p.oids == nil {
			p.oids = p.lake.partOIDs(ctx, p.dir)
		}
		if oid := p.oids[name]; oid != "" {
			err = p.fetch(oid, path)
		}
	}
	if errors.Is(err, errNoObject) { // written, and not added yet
		at := filepath.Join(p.lake.root, filepath.FromSlash(p.dir), name)
		if oid, _, herr := blobOID(at); herr == nil && table.PartName(oid) == name {
			err = linkOrCopy(at, path)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: part %s: %w", p.dir, name, err)
	}
	return nil
}

func (p *partFiles) fetch(name, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(p.batch.copy(f, name), f.Close()); err != nil {
		_ = os.Remove(path)
		return err
	}
	return nil
}

func linkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// partOIDs finds parts' oids in the commits that a merge, a rebase, a cherry-pick, a
// revert or a stash may be about. What is not there is not listed.
func (c *checkout) partOIDs(ctx context.Context, dir string) map[string]string {
	found := make(map[string]string)
	revs := []string{"HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "ORIG_HEAD", "stash@{0}"}
	for _, e := range os.Environ() { // git merge tells its heads to what it starts
		if head, ok := strings.CutPrefix(e, "GITHEAD_"); ok {
			head, _, _ = strings.Cut(head, "=")
			revs = append(revs, head)
		}
	}
	for _, rev := range revs {
		commits := []string{rev, rev + "^"}
		if base, err := c.gitOutput(ctx, "merge-base", "HEAD", rev); err == nil {
			commits = append(commits, strings.TrimSpace(base))
		}
		for _, commit := range commits {
			list, err := c.gitOutput(ctx, "ls-tree", "-z", "--full-tree", commit, "--", dir+"/")
			if err != nil {
				continue // there is none of that name
			}
			for entry := range strings.SplitSeq(list, "\x00") {
				meta, path, _ := strings.Cut(entry, "\t")
				if fields := strings.Fields(meta); len(fields) == 3 {
					found[path[strings.LastIndexByte(path, '/')+1:]] = fields[2]
				}
			}
		}
	}
	return found
}

// isDerived reports whether the newest gate commit that HEAD leads to says that a
// model made the table.
func (c *checkout) isDerived(ctx context.Context, name string) bool {
	text, err := c.gitOutput(ctx, "log", "-1", "--first-parent", "--extended-regexp", "--grep=^Run-Id: [0-9A-Z]{26}$", "--format=%B", "HEAD", "--")
	if err != nil {
		return false
	}
	for line := range strings.SplitSeq(text, "\n") {
		if model, ok := strings.CutPrefix(line, "Model: "); ok {
			if model, _, _ = strings.Cut(model, " "); strings.EqualFold(model, name) {
				return true
			}
		}
	}
	return false
}

// readSnapshot reads a table.json that may be empty, which stands for none.
func readSnapshot(path string) (*table.Snapshot, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return table.Parse(data)
}
