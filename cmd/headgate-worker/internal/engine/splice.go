package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/headgate/headgate/exec/protocol"
)

// splice puts the merged rows between the parts that stay. Where a part ends
// depends on the rows since the one before it ended, so the rows of a segment are
// cut from where the part before them ends, and rows of the parts behind them are
// taken in until a cut falls where one was: from there on all is as it was. So the
// parts are those that a cut of the whole table would give, for the cost of the change.
func (e *execution) splice(ctx context.Context, key []string, merged *protocol.Merged) (*protocol.Answer, error) {
	m := e.order.Merge
	list := identifiers(columnNames(m.Columns))
	c := &cutter{execution: e}
	hashed := key
	if len(hashed) == 0 {
		hashed = columnNames(m.Columns)
	}
	segments := m.Segments
	used := 0 // of the next segment's files, those whose rows were taken in
	for i := 0; i < len(segments); i++ {
		if len(segments[i].Keep) > 0 {
			for _, f := range segments[i].Keep[used:] {
				c.snapshot.Parts = append(c.snapshot.Parts, protocol.Part{File: f})
			}
			used = 0
			continue
		}
		rows := func(i int) string {
			return fmt.Sprintf("SELECT %s FROM %s WHERE %s = %d ORDER BY rowid", list, mergedTable, groupColumn, i)
		}
		if err := e.db.exec(ctx, "CREATE OR REPLACE TABLE "+rowsTable+" AS "+rows(i)); err != nil {
			return nil, fileError(err)
		}
		used = 0
		for {
			chunks, total, err := e.chunksOfRows(ctx, hashed)
			if err != nil {
				return nil, err
			}
			if i+1 < len(segments) && used == len(segments[i+1].Keep) && used > 0 {
				i, used = i+1, 0 // taken in as a whole
			}
			if chunks.weight == 0 || i+1 == len(segments) {
				if err := c.send(ctx, rowsTable, list, m.Columns, chunks.finish(total)); err != nil {
					return nil, err
				}
				break
			}
			next := segments[i+1]
			source := rows(i + 1)
			switch {
			case len(next.Keep) == 0:
				i++
			case used >= min(next.Staged, len(next.Keep)):
				merged.Short = true
				return &protocol.Answer{Merged: merged}, nil
			default:
				source = "SELECT " + list + " FROM " + parquet(next.Keep[used])
				used++
			}
			if err := e.db.exec(ctx, "INSERT INTO "+rowsTable+" "+source); err != nil {
				return nil, fileError(err)
			}
		}
	}
	if len(c.snapshot.Parts) == 0 { // one without rows carries the schema
		if err := e.db.exec(ctx, "CREATE OR REPLACE TABLE "+rowsTable+" AS SELECT "+list+" FROM "+mergedTable+" LIMIT 0"); err != nil {
			return nil, err
		}
		if err := c.send(ctx, rowsTable, list, m.Columns, []int64{0}); err != nil {
			return nil, err
		}
	}
	answer := c.answer(nil)
	// Columns are those of the order: what stays decides them too.
	nullable := len(answer.Snapshot.Columns) > 0 // as it is of what is cut anew
	answer.Snapshot.Columns = nil
	for _, col := range m.Columns {
		col.Nullable = (col.Nullable || nullable) && !slices.Contains(key, col.Name)
		answer.Snapshot.Columns = append(answer.Snapshot.Columns, col)
	}
	answer.Merged = merged
	return answer, nil
}

// chunksOfRows returns a chunker that has seen all of rowsTable. Its weight is 0
// if the last row ends a part.
func (e *execution) chunksOfRows(ctx context.Context, hashed []string) (*chunker, int64, error) {
	var total int64
	if err := e.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+rowsTable).Scan(&total); err != nil {
		return nil, 0, err
	}
	c, err := e.chunks(ctx, rowsTable, "rowid", hashed, e.order.Merge.Columns)
	if err != nil {
		return nil, 0, err
	}
	c.skip(total)
	return c, total, nil
}
