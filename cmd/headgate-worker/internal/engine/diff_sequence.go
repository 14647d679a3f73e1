package engine

import (
	"context"
	"fmt"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

// windowRows is how many rows of each side are aligned at a time: some 100 bytes of
// memory each. A range of parts that differ has one or two parts after most edits;
// larger ones are aligned from window to window, which is right for any rows, and
// finds the smallest difference as long as both sides do not drift apart by more.
const windowRows = 256 << 10

// digestOf is a row's digest as the driver gives it.
type digestOf [2]uint64

// pairBySequence finds out which rows were taken out and which were put in, range by
// range of parts. No row is changed: without a key nothing says which one it was.
func (d *rowDiff) pairBySequence(ctx context.Context) error {
	runs := &runWriter{db: d.db}
	if err := d.db.exec(ctx, "CREATE TEMP TABLE "+runsTable+" (seq BIGINT, old_from BIGINT, old_to BIGINT, new_from BIGINT, new_to BIGINT)"); err != nil {
		return err
	}
	var oldFile, newFile int
	for _, r := range d.order.Diff.Ranges {
		olds := &digests{rowDiff: d, side: &d.old, next: d.old.starts[oldFile], end: d.old.starts[oldFile+r.Old.Parts]}
		news := &digests{rowDiff: d, side: &d.new, next: d.new.starts[newFile], end: d.new.starts[newFile+r.New.Parts]}
		oldFile, newFile = oldFile+r.Old.Parts, newFile+r.New.Parts
		if err := alignWindows(ctx, olds, news, d.window(), runs.add); err != nil {
			return err
		}
	}
	if err := runs.flush(ctx); err != nil {
		return err
	}
	// Within a run what was taken out comes first, as in any diff.
	return d.db.exec(ctx, fmt.Sprintf(`CREATE TEMP TABLE %s AS
		SELECT seq, unnest(range(old_from, old_to)) AS old_pos, NULL::BIGINT AS new_pos FROM %s
		UNION ALL SELECT seq, NULL, unnest(range(new_from, new_to)) FROM %s`, pairsTable, runsTable, runsTable))
}

func (d *rowDiff) window() int {
	if d.windowRows > 0 {
		return d.windowRows
	}
	return windowRows
}

// digests reads the digests of a range of positions in order.
type digests struct {
	*rowDiff
	side      *diffSide
	next, end int64
	rows      []digestOf // that were read and not taken yet
}

// fill reads on until there are n rows, or all that there are.
func (g *digests) fill(ctx context.Context, n int) error {
	want := min(int64(n-len(g.rows)), g.end-g.next)
	if want <= 0 {
		return nil
	}
	found, err := g.db.conn.QueryContext(ctx, fmt.Sprintf("SELECT (d >> 64)::UBIGINT, (d & 18446744073709551615)::UBIGINT FROM %s WHERE rowid >= %d AND rowid < %d ORDER BY rowid", g.side.digests, g.next, g.next+want))
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		var x digestOf
		if err := found.Scan(&x[0], &x[1]); err != nil {
			return err
		}
		g.rows = append(g.rows, x)
	}
	g.next += want
	return found.Err()
}

// take drops the first n rows that were read, and returns the position behind them.
func (g *digests) take(n int) int64 {
	g.rows = g.rows[n:]
	return g.next - int64(len(g.rows))
}

// run is a stretch of positions of both sides with nothing in common.
type run struct{ oldFrom, oldTo, newFrom, newTo int64 }

// alignWindows calls emit for each stretch in which olds and news differ, in order.
func alignWindows(ctx context.Context, olds, news *digests, window int, emit func(context.Context, run) error) error {
	for {
		if err := olds.fill(ctx, window); err != nil {
			return err
		}
		if err := news.fill(ctx, window); err != nil {
			return err
		}
		if len(olds.rows) == 0 && len(news.rows) == 0 {
			return nil
		}
		ranges := table.Align(olds.rows, news.rows)
		if olds.next < olds.end || news.next < news.end {
			ranges = settled(ranges, window)
		}
		for _, r := range ranges {
			u := run{oldFrom: olds.take(0), newFrom: news.take(0)}
			u.oldTo, u.newTo = olds.take(r.A.Len()), news.take(r.B.Len())
			if !r.Equal {
				if err := emit(ctx, u); err != nil {
					return err
				}
			}
		}
	}
}

// settled returns the ranges of a window that rows after it do not change, or hardly:
// up to the last equal range that leaves half of the window to be looked at again. If
// there is none, it is all that there is in common, or else the window as it is.
func settled(ranges []table.Range, window int) []table.Range {
	last := -1
	for i, r := range ranges {
		if r.Equal && (last < 0 || max(r.A.From, r.B.From) < window/2) {
			last = i
		}
	}
	if last < 0 {
		return ranges
	}
	return ranges[:last+1]
}

const runsTable = `temp.main."runs"`

// runWriter inserts runs, many at a time.
type runWriter struct {
	db     *database
	seq    int64
	values []string
}

func (w *runWriter) add(ctx context.Context, u run) error {
	w.values = append(w.values, fmt.Sprintf("(%d, %d, %d, %d, %d)", w.seq, u.oldFrom, u.oldTo, u.newFrom, u.newTo))
	w.seq++
	if len(w.values) < 2000 {
		return nil
	}
	return w.flush(ctx)
}

func (w *runWriter) flush(ctx context.Context) error {
	if len(w.values) == 0 {
		return nil
	}
	err := w.db.exec(ctx, "INSERT INTO "+runsTable+" VALUES "+strings.Join(w.values, ", "))
	w.values = w.values[:0]
	return err
}

// diffOrder returns the ORDER BY terms of pairs: rows with a key in its order, and
// others in theirs.
func diffOrder(diff *protocol.Diff) string {
	if len(diff.Key) == 0 {
		return "seq, old_pos NULLS LAST, new_pos"
	}
	terms := make([]string, 0, len(diff.Key)+2)
	for i := range diff.Key {
		terms = append(terms, fmt.Sprintf("k%d ASC NULLS LAST", i))
	}
	return strings.Join(append(terms, "coalesce(new_pos, old_pos)", "old_pos NULLS LAST"), ", ")
}
