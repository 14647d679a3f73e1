package exec

import (
	"context"
	"fmt"
	"io"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
)

// Versions are those of a table that are to be merged. Base is nil if the table is
// new on both sides.
type Versions struct{ Base, Ours, Theirs *Table }

// Merge is what came of a merge of tables.
type Merge struct {
	// Table is the merged table, or the table of its conflicts if there are any.
	Table     *Table
	Conflicts int64
	Columns   []string         // of the conflicts
	Sample    []map[string]any // the first of them, for the eye
	Opened    int              // parts of the merged table that were written anew
}

// stagedParts is how many parts behind merged rows are given to a merge at first:
// the rows go on in them until a cut falls where one was, mostly in the first.
const stagedParts = 4

// Merge merges versions of a table in a sandbox (objects/table.PlanMerge says what
// of them has to be read). keep holds entries of the merged table's directory that are
// no parts. The same versions give the same table, so a merge that is done again is cached.
func (s *Session) Merge(ctx context.Context, v Versions, keep []gitobj.Entry) (*Merge, error) {
	act := action{Op: "merge", Env: s.rt.env.Worker.String()}
	for _, t := range []*Table{v.Base, v.Ours, v.Theirs} {
		in := actionInput{}
		if t != nil {
			in.Tree = t.Tree.String()
		}
		act.Inputs = append(act.Inputs, in)
	}
	for _, e := range keep {
		act.Code += fmt.Sprintf("%o %s %s\n", e.Mode, e.OID, e.Name)
	}
	var entry modelEntry
	if s.cached(act.key(), &entry) {
		if t, err := s.loadCached(ctx, entry.Tree); err == nil {
			return &Merge{Table: t}, nil
		}
	}
	var base *table.Snapshot
	if v.Base != nil {
		base = v.Base.Meta
	}
	plan := table.PlanMerge(base, v.Ours.Meta, v.Theirs.Meta)
	for staged := stagedParts; ; staged *= 4 {
		m, short, err := s.merge(ctx, v, plan, staged, keep)
		if err != nil {
			return nil, err
		}
		if short {
			continue
		}
		if m.Conflicts == 0 {
			s.remember(act.key(), modelEntry{Tree: m.Table.Tree.String()})
		}
		return m, nil
	}
}

// merge carries out a plan with so many parts staged behind each merge of rows;
// short tells that they were too few.
func (s *Session) merge(ctx context.Context, v Versions, plan *table.Merge, staged int, keep []gitobj.Entry) (_ *Merge, short bool, err error) {
	job := s.job(sandbox.KindWorker, "", s.opt.Limits, &protocol.Order{Op: protocol.OpMerge, Key: plan.Key})
	job.Order.Merge = &protocol.Merge{Ours: columnsOf(v.Ours), Theirs: columnsOf(v.Theirs)}
	for _, c := range plan.Columns {
		job.Order.Merge.Columns = append(job.Order.Merge.Columns, protocol.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable})
	}
	for _, c := range plan.Conflicts {
		job.Order.Merge.Conflicts = append(job.Order.Merge.Conflicts, protocol.MergeConflict(c))
	}
	parts := make(map[string]storedPart)
	st := stager{ctx: ctx, s: s, job: &job, parts: parts, oids: make(map[string]objects.OID), there: make(map[string]bool)}
	for _, t := range []*Table{v.Base, v.Ours, v.Theirs} {
		if t == nil {
			continue
		}
		for i, p := range t.Meta.Parts {
			// A part goes by its name here, so the name must be of its content: nobody
			// has verified that of a version that was just pushed.
			if want := table.PartName(t.Parts[i]); want != p.File {
				return nil, false, &Failure{Kind: "error", Text: fmt.Sprintf("%q holds other bytes than its name says (its content is %s); run headgate import again, or delete %s to have it written", p.File, want, table.FileName)}
			}
			st.oids[p.File] = t.Parts[i]
		}
	}
	if v.Base != nil {
		job.Order.Merge.Base = columnsOf(v.Base)
	}
	byRows := len(plan.Conflicts) > 0
	more := false // parts behind merged rows are left that are not staged
	for i, seg := range plan.Segments {
		byRows = byRows || seg.ByRows()
		out := protocol.MergeSegment{Base: st.list(seg.Base, len(seg.Base)), Ours: st.list(seg.Ours, len(seg.Ours)), Theirs: st.list(seg.Theirs, len(seg.Theirs))}
		if i > 0 && !seg.ByRows() && plan.Segments[i-1].ByRows() {
			out.Staged = min(staged, len(seg.Keep))
			more = more || out.Staged < len(seg.Keep)
		}
		out.Keep = st.list(seg.Keep, out.Staged)
		job.Order.Merge.Segments = append(job.Order.Merge.Segments, out)
	}
	if !byRows { // each part is one side's: nothing has to be read
		snap := &protocol.Snapshot{Columns: job.Order.Merge.Columns}
		for _, seg := range job.Order.Merge.Segments {
			for _, f := range seg.Keep {
				snap.Parts = append(snap.Parts, protocol.Part{File: f})
			}
		}
		t, err := s.writeSnapshot(ctx, snap, plan.Key, parts, keep)
		return &Merge{Table: t}, false, err
	}
	job.Files = func(name string, n int64, r io.Reader) error {
		oid, err := s.store.Put(ctx, objects.Blob, n, r)
		if err != nil {
			return fmt.Errorf("store part: %w", err)
		}
		parts[name] = storedPart{oid: oid, bytes: n}
		return nil
	}
	var u Usage
	answer, err := s.run(ctx, job, &u)
	if err != nil {
		return nil, false, err
	}
	m := answer.Merged
	if m == nil {
		return nil, false, fmt.Errorf("worker answered %s without saying how it went", job.Order.Op)
	}
	if m.Short {
		if more {
			return nil, true, nil
		}
		return nil, false, fmt.Errorf("worker wants more parts than there are")
	}
	if answer.Snapshot == nil {
		return nil, false, fmt.Errorf("worker answered %s without a snapshot", job.Order.Op)
	}
	key := plan.Key
	if m.Conflicts > 0 {
		key, keep = nil, nil
	}
	t, err := s.writeSnapshot(ctx, answer.Snapshot, key, parts, keep)
	if err != nil {
		return nil, false, err
	}
	opened := 0
	for _, p := range answer.Snapshot.Parts {
		if parts[p.File].known == nil {
			opened++
		}
	}
	return &Merge{Table: t, Conflicts: m.Conflicts, Columns: m.Columns, Sample: m.Sample, Opened: opened}, false, nil
}

// stager gives a job the parts of several versions; a part that several have is there once.
type stager struct {
	ctx   context.Context
	s     *Session
	job   *sandbox.Job
	parts map[string]storedPart
	oids  map[string]objects.OID // by part name
	there map[string]bool        // by path
}

// list returns the paths of parts, of which the first n will be there.
func (st *stager) list(parts []table.Part, n int) []string {
	paths := make([]string, len(parts))
	for i, p := range parts {
		path := "merge/" + p.File
		paths[i] = inputRoot + path
		oid := st.oids[p.File]
		if _, ok := st.parts[paths[i]]; !ok {
			st.parts[paths[i]] = storedPart{oid: oid, bytes: p.Bytes, known: &p}
		}
		if i >= n || st.there[path] {
			continue
		}
		st.there[path] = true
		st.job.Inputs = append(st.job.Inputs, sandbox.Input{Path: path, Link: func(host string) error {
			return st.s.store.Link(st.ctx, oid, host)
		}})
	}
	return paths
}
