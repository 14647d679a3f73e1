package exec

import (
	"context"
	"fmt"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/exec/tablediff"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table"
)

// Diff carries out what has to be looked at of two states of a table, in a sandbox with
// only the parts that differ. was and is are the oids of all parts of the two states; each
// file of rows goes to rows.
func (s *Session) Diff(ctx context.Context, work tablediff.Work, was, is []objects.OID, rows protocol.FileSink) (protocol.DiffCounts, error) {
	if work.Order == nil {
		return work.Counts(nil)
	}
	job := s.job(sandbox.KindWorker, "", s.opt.Limits, work.Order)
	job.Files = rows
	for i, side := range []struct {
		oids  []objects.OID
		parts []int
	}{{was, work.OldParts}, {is, work.NewParts}} {
		for _, n := range side.parts {
			path := fmt.Sprintf("%d/%06d.parquet", i, n)
			job.Order.Inputs[i].Files = append(job.Order.Inputs[i].Files, inputRoot+path)
			job.Inputs = append(job.Inputs, sandbox.Input{Path: path, Link: func(host string) error {
				return s.store.Link(ctx, side.oids[n], host)
			}})
		}
	}
	var u Usage
	answer, err := s.run(ctx, job, &u)
	if err != nil {
		return protocol.DiffCounts{}, err
	}
	return work.Counts(answer)
}

// Outline returns a table as far as a diff has to know it: all but the statistics of
// parts, with the oids of those. Parquet without a table.json is looked at in a sandbox.
// Errors of the table's making are *Failure.
func (s *Session) Outline(ctx context.Context, tree objects.OID) (*table.Snapshot, []objects.OID, error) {
	entries, err := s.treeEntries(ctx, tree)
	if err != nil {
		return nil, nil, err
	}
	byName := make(map[string]objects.OID, len(entries))
	for _, e := range entries {
		byName[e.Name] = e.OID
	}
	described, ok := byName[table.FileName]
	if !ok {
		return s.outlineOfPlain(ctx, tree)
	}
	data, err := objects.ReadAll(ctx, s.store, described, objects.Blob, table.MaxBytes)
	if err != nil {
		return nil, nil, err
	}
	snap, err := table.ParseOutline(data)
	if err != nil {
		return nil, nil, &Failure{Kind: "error", Text: err.Error()}
	}
	oids := make([]objects.OID, len(snap.Parts))
	for i, p := range snap.Parts {
		if oids[i], ok = byName[p.File]; !ok {
			return nil, nil, &Failure{Kind: "error", Text: fmt.Sprintf("%s names the part %q, which is not there", table.FileName, p.File)}
		}
	}
	return snap, oids, nil
}

func (s *Session) outlineOfPlain(ctx context.Context, tree objects.OID) (*table.Snapshot, []objects.OID, error) {
	loaded, err := table.Load(ctx, s.store, tree)
	if err != nil {
		return nil, nil, err
	}
	if len(loaded.Parquet) == 0 {
		return nil, nil, nil
	}
	parts, err := s.partsOf(ctx, loaded)
	if err != nil {
		return nil, nil, err
	}
	found, err := s.describe(ctx, parts)
	if err != nil {
		return nil, nil, err
	}
	snap := &table.Snapshot{Format: table.Format}
	for _, c := range found.Columns {
		snap.Columns = append(snap.Columns, table.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable})
	}
	oids := make([]objects.OID, len(parts))
	for i, p := range parts {
		oids[i] = p.entry.OID
		snap.Parts = append(snap.Parts, table.Part{File: p.entry.Name, Rows: found.Parts[i].Rows, Bytes: p.bytes})
	}
	return snap, oids, nil
}
