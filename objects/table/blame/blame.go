// Package blame finds the commit that last set each cell of a row. It walks a
// history that others read for it, and knows neither git's objects nor the files of
// a table.
package blame

import (
	"context"
	"fmt"
	"strings"

	"github.com/headgate/headgate/objects"
)

// Cell is one value of a row, as text.
type Cell struct {
	Column string
	Value  string
	Null   bool
}

// Row is a row as it was in one commit; nil if the table had none.
type Row struct {
	Cells []Cell
	// Several: more than one row answers to the key, so none of them is the one.
	Several bool
}

func (r *Row) has(c Cell) bool {
	if r == nil || r.Several {
		return false
	}
	for _, other := range r.Cells {
		if strings.EqualFold(other.Column, c.Column) { // as SQL tells columns apart
			return other.Null == c.Null && other.Value == c.Value
		}
	}
	return false
}

// Change is a commit whose table is not its first parent's, or that has no parent.
type Change struct {
	Commit  objects.OID
	Parents []objects.OID
}

// Line gives the changes of one line of first parents, the newest first.
type Line interface {
	// Next returns false at the end of the history.
	Next() (Change, bool, error)
	Close() error
}

// History is what is walked.
type History interface {
	// Line starts at a commit, with that commit if it is a change.
	Line(ctx context.Context, tip objects.OID) (Line, error)
	// Rows returns the row as it was in each commit.
	Rows(ctx context.Context, commits []objects.OID) ([]*Row, error)
}

// Origin says where a cell is from.
type Origin struct {
	Cell   Cell
	Commit objects.OID // that set it
	// Merges are the commits through which the cell came from another parent than the
	// first, the newest first: the last one brought it first to a line that leads here.
	Merges []objects.OID
	// Several: before Commit several rows answer to the key, so that it is not known
	// whether the cell is older.
	Several bool
}

// Cells returns the origin of each cell of the row in tip, in the row's order; it
// is nil if there is no row. A commit set a cell if none of its parents has a row
// of that key with that value in that column; else the cell is from the first parent
// that has it. A row that was removed and came again is from where it came again.
func Cells(ctx context.Context, h History, tip objects.OID) ([]Origin, error) {
	rows, err := h.Rows(ctx, []objects.OID{tip})
	if err != nil {
		return nil, err
	}
	row := rows[0]
	if row == nil {
		return nil, nil
	}
	if row.Several {
		return nil, fmt.Errorf("several rows answer to the key in commit %s", tip)
	}
	w := &walk{h: h, origins: make([]Origin, len(row.Cells))}
	all := make([]int, len(row.Cells))
	for i, c := range row.Cells {
		w.origins[i].Cell, all[i] = c, i
	}
	w.lines = []stretch{{tip: tip, cells: all}}
	for len(w.lines) > 0 {
		next := w.lines[len(w.lines)-1]
		w.lines = w.lines[:len(w.lines)-1]
		if err := w.follow(ctx, next); err != nil {
			return nil, err
		}
	}
	return w.origins, nil
}

// stretch is a line that is to be followed for some cells, which its tip has.
type stretch struct {
	tip    objects.OID
	cells  []int
	merges []objects.OID
}

type walk struct {
	h       History
	origins []Origin
	lines   []stretch
}

// maxAhead bounds the changes whose rows are read at once. The first are read one
// by one, since most cells were set lately.
const maxAhead = 64

// follow goes down a line until every cell is settled or has left it.
func (w *walk) follow(ctx context.Context, s stretch) (err error) {
	line, err := w.h.Line(ctx, s.tip)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := line.Close(); err == nil {
			err = cerr
		}
	}()
	cells := s.cells
	for ahead := 1; len(cells) > 0; ahead = min(2*ahead, maxAhead) {
		changes, rows, err := w.read(ctx, line, ahead)
		if err != nil {
			return err
		}
		if len(changes) == 0 {
			return fmt.Errorf("commit %s has the row, but the history of the table does not say from where", s.tip)
		}
		for i := 0; i < len(changes) && len(cells) > 0; i++ {
			if cells, err = w.settle(ctx, changes[i], rows[i], cells, s.merges); err != nil {
				return err
			}
		}
	}
	return nil
}

// read returns the next n changes and the rows of their first parents.
func (w *walk) read(ctx context.Context, line Line, n int) (changes []Change, rows []*Row, err error) {
	var parents []objects.OID
	for len(changes) < n {
		c, ok, err := line.Next()
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			break
		}
		changes = append(changes, c)
		if len(c.Parents) > 0 {
			parents = append(parents, c.Parents[0])
		}
	}
	found, err := w.h.Rows(ctx, parents)
	if err != nil {
		return nil, nil, err
	}
	rows = make([]*Row, len(changes))
	for i, c := range changes {
		if len(c.Parents) > 0 {
			rows[i], found = found[0], found[1:]
		}
	}
	return changes, rows, nil
}

// settle finds out which cells a change set, sends those that are from further
// parents there, and returns those that the first parent has.
func (w *walk) settle(ctx context.Context, c Change, first *Row, cells []int, merges []objects.OID) (stay []int, err error) {
	several := false
	split := func(r *Row, of []int) (has, rest []int) {
		several = several || r != nil && r.Several
		for _, i := range of {
			if r.has(w.origins[i].Cell) {
				has = append(has, i)
			} else {
				rest = append(rest, i)
			}
		}
		return has, rest
	}
	stay, rest := split(first, cells)
	if len(rest) > 0 && len(c.Parents) > 1 {
		others, err := w.h.Rows(ctx, c.Parents[1:])
		if err != nil {
			return nil, err
		}
		for i, r := range others {
			var has []int
			if has, rest = split(r, rest); len(has) > 0 {
				through := append(merges[:len(merges):len(merges)], c.Commit)
				w.lines = append(w.lines, stretch{c.Parents[1+i], has, through})
			}
		}
	}
	for _, i := range rest {
		w.origins[i].Commit, w.origins[i].Merges, w.origins[i].Several = c.Commit, merges, several
	}
	return stay, nil
}
