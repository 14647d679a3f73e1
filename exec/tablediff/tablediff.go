// Package tablediff compares two states of a table: it plans what the worker has to
// look at, and shows what it answers as text, counts or JSON. It does not know where
// states and parts come from, a checkout or a server, nor who runs the worker.
package tablediff

import (
	"errors"
	"fmt"
	"slices"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

// What became of a table.
const (
	Added   = "added"
	Deleted = "deleted"
	Changed = "changed"
)

// State is a table at one time; the zero State is that there is no such table.
type State struct {
	Snapshot *table.Snapshot // statistics are not needed
	// Parts identifies the content of each part, oids for example: two are equal
	// if and only if their content is.
	Parts []string
}

// Table is a table of which two states are compared.
type Table struct {
	Name     string // "flights", "ns.flights"
	Old, New State
	Schema   []table.SchemaChange
	Key      []string // by which rows are paired, see table.RowKey

	ranges []table.Range
}

// Compare aligns two states, one of which may be none.
func Compare(name string, was, is State) (*Table, error) {
	t := &Table{Name: name, Old: was, New: is}
	for _, s := range []State{was, is} {
		if s.Snapshot != nil && len(s.Snapshot.Parts) != len(s.Parts) {
			return nil, fmt.Errorf("table %s: %d parts are described, %d are there", name, len(s.Snapshot.Parts), len(s.Parts))
		}
	}
	if was.Snapshot == nil && is.Snapshot == nil {
		return nil, errors.New("no table on either side")
	}
	if was.Snapshot != nil && is.Snapshot != nil {
		t.Schema = table.SchemaChanges(was.Snapshot, is.Snapshot)
		t.Key = table.RowKey(was.Snapshot, is.Snapshot)
	}
	t.ranges = table.Align(was.Parts, is.Parts)
	return t, nil
}

// Status says whether the table was Added, Deleted or Changed.
func (t *Table) Status() string {
	switch {
	case t.Old.Snapshot == nil:
		return Added
	case t.New.Snapshot == nil:
		return Deleted
	}
	return Changed
}

// Same tells that neither rows nor schema differ, as far as parts say.
func (t *Table) Same() bool {
	return t.Status() == Changed && len(t.Schema) == 0 && !slices.ContainsFunc(t.ranges, func(r table.Range) bool { return !r.Equal })
}

// columns of a side; of a table that is not there, those of the other.
func (t *Table) columns(mine, other State) []protocol.Column {
	s := mine.Snapshot
	if s == nil {
		s = other.Snapshot
	}
	columns := make([]protocol.Column, len(s.Columns))
	for i, c := range s.Columns {
		columns[i] = protocol.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable}
	}
	return columns
}

// OldColumns are the columns of the old side's rows.
func (t *Table) OldColumns() []protocol.Column { return t.columns(t.Old, t.New) }

// NewColumns are the columns of the new side's rows.
func (t *Table) NewColumns() []protocol.Column { return t.columns(t.New, t.Old) }

// Work is what a worker has to do for a table.
type Work struct {
	Order *protocol.Order // but for the paths of files
	// OldParts and NewParts are the indices of the parts behind the files of the order's two inputs.
	OldParts, NewParts []int
	// Known are the counts, where they follow from what tables say of themselves.
	Known *protocol.DiffCounts
}

// Work plans a diff in a format of protocol.OpDiff, "" for counts alone, of at most
// limit rows, 0 for all. Order is nil if nothing has to be looked at.
func (t *Table) Work(format string, limit int64) Work {
	var w Work
	ranges := t.ranges
	if status := t.Status(); status != Changed {
		// All rows differ: the first parts hold as many as are wanted.
		w.Known = &protocol.DiffCounts{}
		side, count := t.New, &w.Known.Added
		if status == Deleted {
			side, count = t.Old, &w.Known.Removed
		}
		*count = side.Snapshot.Rows()
		if format == "" || *count == 0 {
			return w
		}
		n := len(side.Parts)
		if limit > 0 {
			var rows int64
			for n = 0; n < len(side.Parts) && rows < limit; n++ {
				rows += side.Snapshot.Parts[n].Rows
			}
		}
		r := table.Range{B: table.Span{To: n}}
		if status == Deleted {
			r.A, r.B = r.B, r.A
		}
		ranges = []table.Range{r}
	}
	diff := &protocol.Diff{Key: t.Key}
	var oldRow, newRow int64 // number of the next range's first row
	rows := func(s State, span table.Span) (n int64) {
		for i := span.From; i < span.To; i++ {
			n += s.Snapshot.Parts[i].Rows
		}
		return n
	}
	for _, r := range ranges {
		if !r.Equal {
			diff.Ranges = append(diff.Ranges, protocol.DiffRange{
				Old: protocol.DiffParts{Parts: r.A.Len(), First: oldRow},
				New: protocol.DiffParts{Parts: r.B.Len(), First: newRow},
			})
			for i := r.A.From; i < r.A.To; i++ {
				w.OldParts = append(w.OldParts, i)
			}
			for i := r.B.From; i < r.B.To; i++ {
				w.NewParts = append(w.NewParts, i)
			}
		}
		oldRow, newRow = oldRow+rows(t.Old, r.A), newRow+rows(t.New, r.B)
	}
	if len(diff.Ranges) == 0 {
		w.Known = &protocol.DiffCounts{}
		return w
	}
	w.Order = &protocol.Order{
		Op: protocol.OpDiff, Diff: diff, Format: format, MaxRows: limit,
		Inputs: []protocol.Table{{Name: protocol.DiffOld, Columns: t.OldColumns()}, {Name: protocol.DiffNew, Columns: t.NewColumns()}},
	}
	return w
}

// Counts returns the counts of a worker's answer to the order.
func (w *Work) Counts(a *protocol.Answer) (protocol.DiffCounts, error) {
	switch {
	case w.Known != nil:
		return *w.Known, nil
	case a == nil || a.Diff == nil:
		return protocol.DiffCounts{}, errors.New("the worker did not count the rows that differ")
	}
	return *a.Diff, nil
}
