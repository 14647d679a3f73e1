package blame_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table/blame"
)

// commit is one of a made-up history.
type commit struct {
	parents []objects.OID
	table   string // two commits of the same text have the same snapshot
	row     *blame.Row
}

type made struct {
	commits map[objects.OID]*commit
	rows    int // that were asked for
}

func id(n int) (oid objects.OID) {
	binary.BigEndian.PutUint32(oid[:], uint32(n)+1)
	return oid
}

type line struct {
	h  *made
	at objects.OID
}

// Next leaves commits out that have their first parent's table, as git does.
func (l *line) Next() (blame.Change, bool, error) {
	for !l.at.IsZero() {
		oid, c := l.at, l.h.commits[l.at]
		l.at = objects.OID{}
		if len(c.parents) > 0 {
			l.at = c.parents[0]
			if l.h.commits[l.at].table == c.table {
				continue
			}
		} else if c.table == "" {
			continue
		}
		return blame.Change{Commit: oid, Parents: c.parents}, true, nil
	}
	return blame.Change{}, false, nil
}

func (l *line) Close() error { return nil }

func (h *made) Line(_ context.Context, tip objects.OID) (blame.Line, error) {
	return &line{h, tip}, nil
}

func (h *made) Rows(_ context.Context, commits []objects.OID) ([]*blame.Row, error) {
	h.rows += len(commits)
	rows := make([]*blame.Row, len(commits))
	for i, oid := range commits {
		rows[i] = h.commits[oid].row
	}
	return rows, nil
}

// origin is the definition, cell by cell and commit by commit.
func (h *made) origin(at objects.OID, c blame.Cell, merges []objects.OID) (objects.OID, []objects.OID) {
	for i, p := range h.commits[at].parents {
		row := h.commits[p].row
		if row == nil || row.Several || !slices.Contains(row.Cells, c) {
			continue
		}
		if i > 0 {
			merges = append(slices.Clone(merges), at)
		}
		return h.origin(p, c, merges)
	}
	return at, merges
}

// TestCellsAgainstTheDefinition walks random histories with merges, in which rows
// come, go and change, and tables change without the row.
func TestCellsAgainstTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &made{commits: make(map[objects.OID]*commit)}
		n := rapid.IntRange(1, 40).Draw(t, "commits")
		for i := range n {
			c := &commit{}
			if i > 0 {
				count := rapid.SampledFrom([]int{1, 1, 1, 2, 2, 3, 0}).Draw(t, "parents")
				for _, p := range rapid.SliceOfNDistinct(rapid.IntRange(max(0, i-5), i-1), min(count, i), min(count, i), rapid.ID).Draw(t, "of") {
					c.parents = append(c.parents, id(p))
				}
			}
			// Most commits have a parent's table; some change it, some beside the row.
			if len(c.parents) > 0 {
				like := h.commits[rapid.SampledFrom(c.parents).Draw(t, "like")]
				c.table, c.row = like.table, like.row
			}
			switch what := rapid.IntRange(0, 9).Draw(t, "what"); {
			case what < 4 && len(c.parents) > 0: // left as it is
			case what == 4:
				c.table, c.row = fmt.Sprintf("without %d", i), nil
			case what == 5:
				c.table, c.row = fmt.Sprintf("several %d", i), &blame.Row{Several: true}
			case what == 6:
				c.table = fmt.Sprintf("beside the row %d", i)
			default:
				row := &blame.Row{}
				for col := range rapid.IntRange(1, 4).Draw(t, "columns") {
					v := rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "value")
					row.Cells = append(row.Cells, blame.Cell{Column: fmt.Sprint(col), Value: v, Null: v == ""})
				}
				c.table, c.row = fmt.Sprintf("%d", i), row
			}
			h.commits[id(i)] = c
		}
		tip := id(n - 1)
		got, err := blame.Cells(context.Background(), h, tip)
		row := h.commits[tip].row
		switch {
		case row == nil:
			if err != nil || got != nil {
				t.Fatalf("a row that is not there: %v, %v", got, err)
			}
			return
		case row.Several:
			if err == nil {
				t.Fatal("several rows at the tip, and no error")
			}
			return
		case err != nil:
			t.Fatal(err)
		}
		for i, c := range row.Cells {
			commit, merges := h.origin(tip, c, nil)
			if got[i].Cell != c || got[i].Commit != commit || !slices.Equal(got[i].Merges, merges) {
				t.Fatalf("cell %+v is of %s through %v, want %s through %v", got[i].Cell, got[i].Commit, got[i].Merges, commit, merges)
			}
			several := false
			for _, p := range h.commits[commit].parents {
				r := h.commits[p].row
				several = several || r != nil && r.Several
			}
			if got[i].Several != several {
				t.Fatalf("cell %+v: several is %t, want %t", got[i].Cell, got[i].Several, several)
			}
		}
	})
}

// Who asks for a cell that was set lately does not wait for the whole history.
func TestRowsAreReadAsFarAsNeeded(t *testing.T) {
	h := &made{commits: make(map[objects.OID]*commit)}
	const n = 10_000
	for i := range n {
		c := &commit{table: fmt.Sprint(i), row: &blame.Row{Cells: []blame.Cell{{Column: "x", Value: "old"}}}}
		if i > 0 {
			c.parents = []objects.OID{id(i - 1)}
		}
		if i >= n-3 {
			c.row = &blame.Row{Cells: []blame.Cell{{Column: "X", Value: "new"}}}
		}
		h.commits[id(i)] = c
	}
	got, err := blame.Cells(t.Context(), h, id(n-1))
	if err != nil || got[0].Commit != id(n-3) {
		t.Fatalf("%+v, %v", got, err)
	}
	if h.rows > 10 {
		t.Errorf("%d rows were read", h.rows)
	}
}
