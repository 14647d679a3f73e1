package engine

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strings"

	"github.com/duckdb/duckdb-go/v2"

	"github.com/headgate/headgate/cmd/headgate-worker/internal/rowhash"
	"github.com/headgate/headgate/exec/protocol"
)

const (
	// diffFrame is how many bytes of rows are sent at a time.
	diffFrame = 1 << 20
	// batchRows is the most rows that are in memory in full, of each side. Where parts
	// have fewer, because rows are large, it is as many as two parts have.
	batchRows = 20_000
)

// diffFile is the name of a diff's file in Parquet.
const diffFile = "diff.parquet"

// send reads the rows of the pairs in full, as many as are asked for, and sends them:
// batch by batch, each from the parts that hold its rows.
func (d *rowDiff) send(ctx context.Context) error {
	limit := ""
	if d.order.MaxRows > 0 {
		limit = fmt.Sprintf(" LIMIT %d", d.order.MaxRows)
	}
	// In order, so that rowids are.
	err := d.db.exec(ctx, fmt.Sprintf("CREATE TEMP TABLE %s AS SELECT old_pos, new_pos FROM %s ORDER BY %s%s", shownTable, pairsTable, diffOrder(d.order.Diff), limit))
	if err != nil {
		return err
	}
	var total int64
	if err := d.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+shownTable).Scan(&total); err != nil {
		return err
	}
	sink := rowSink(&jsonSink{rowDiff: d})
	if d.order.Format == "parquet" {
		sink = &parquetSink{rowDiff: d}
	}
	size := d.batchSize()
	for from := int64(0); from < total; from += size {
		if err := d.fetch(ctx, from, min(from+size, total)); err != nil {
			return err
		}
		if err := sink.batch(ctx); err != nil {
			return err
		}
	}
	return sink.end(ctx)
}

// rowSink takes batches: what is in oldRows and newRows, by seq.
type rowSink interface {
	batch(context.Context) error
	end(context.Context) error
}

func (d *rowDiff) batchSize() int64 {
	size := int64(batchRows)
	for _, side := range []*diffSide{&d.old, &d.new} {
		if files := int64(len(side.table.Files)); files > 0 {
			size = min(size, max(2*side.starts[files]/files, 1))
		}
	}
	return size
}

// fetch reads the rows of the pairs from one place of shownTable up to another.
func (d *rowDiff) fetch(ctx context.Context, from, to int64) error {
	rows, err := d.db.conn.QueryContext(ctx, fmt.Sprintf("SELECT rowid, old_pos, new_pos FROM %s WHERE rowid >= %d AND rowid < %d", shownTable, from, to))
	if err != nil {
		return err
	}
	defer rows.Close()
	var old, fresh []place // that are wanted
	for rows.Next() {
		var seq int64
		var was, is sql.NullInt64
		if err := rows.Scan(&seq, &was, &is); err != nil {
			return err
		}
		if was.Valid {
			old = append(old, place{seq, was.Int64})
		}
		if is.Valid {
			fresh = append(fresh, place{seq, is.Int64})
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := d.old.fetch(ctx, d.db, old, "o"); err != nil {
		return err
	}
	return d.new.fetch(ctx, d.db, fresh, "n")
}

// place is a row that is wanted: its place among those that are sent, and its position.
type place struct{ seq, pos int64 }

const wantedTable = "wanted rows" // seq, pos, number: pos among the rows of the files that are read

// fetch makes the side's table of rows: seq, number (of the row in its table, from 1)
// and the columns, named by letter and number.
func (s *diffSide) fetch(ctx context.Context, db *database, wanted []place, letter string) error {
	terms := make([]string, len(s.table.Columns))
	for i, c := range s.table.Columns {
		terms[i] = fmt.Sprintf("%s AS %s%d", identifier(c.Name), letter, i)
	}
	list := strings.Join(terms, ", ")
	if len(wanted) == 0 {
		return db.exec(ctx, fmt.Sprintf("CREATE OR REPLACE TEMP TABLE %s AS SELECT 0::BIGINT AS seq, 0::BIGINT AS number, %s FROM %s LIMIT 0", s.rowsTable, list, s.view))
	}
	file := func(pos int64) int { // that holds the row
		return sort.Search(len(s.table.Files)-1, func(i int) bool { return s.starts[i+1] > pos })
	}
	opened := make(map[int]bool)
	for _, w := range wanted {
		opened[file(w.pos)] = true
	}
	at := make(map[int]int64, len(opened)) // where a file's rows begin among those that are read
	var files []string
	var next int64
	for i := range s.table.Files {
		if opened[i] {
			files, at[i] = append(files, s.table.Files[i]), next
			next += s.starts[i+1] - s.starts[i]
		}
	}
	if err := db.exec(ctx, "CREATE OR REPLACE TEMP TABLE "+identifier(wantedTable)+" (seq BIGINT, pos BIGINT, number BIGINT)"); err != nil {
		return err
	}
	err := db.conn.Raw(func(conn any) error {
		c, ok := conn.(driver.Conn)
		if !ok {
			return fmt.Errorf("driver connection is a %T", conn)
		}
		a, err := duckdb.NewAppender(c, "temp", "main", wantedTable)
		if err != nil {
			return err
		}
		for _, w := range wanted {
			f := file(w.pos)
			in := w.pos - s.starts[f]
			if err := a.AppendRow(w.seq, at[f]+in, s.firsts[f]+in+1); err != nil {
				return errors.Join(err, a.Close())
			}
		}
		return a.Close()
	})
	if err != nil {
		return err
	}
	return db.exec(ctx, fmt.Sprintf("CREATE OR REPLACE TEMP TABLE %s AS SELECT w.seq, w.number, r.* EXCLUDE (pos) FROM (SELECT row_number() OVER () - 1 AS pos, %s FROM %s) r JOIN %s w ON r.pos = w.pos",
		s.rowsTable, list, parquet(files...), identifier(wantedTable)))
}

// joined is the FROM clause of a batch: o and n, in order.
const joined = oldRows + " o FULL JOIN " + newRows + " n ON o.seq = n.seq ORDER BY coalesce(o.seq, n.seq)"

const kindOf = "CASE WHEN o.seq IS NULL THEN '" + protocol.RowAdded + "' WHEN n.seq IS NULL THEN '" + protocol.RowRemoved + "' ELSE '" + protocol.RowChanged + "' END"

// changes returns, for each new column, whether it has another value.
func (d *rowDiff) changes() []string {
	terms := make([]string, len(d.compared))
	for i, c := range d.compared {
		terms[i] = fmt.Sprintf("(o.seq IS NOT NULL AND n.seq IS NOT NULL AND %[1]s(%[2]s) <> %[1]s(%[3]s))", rowhash.Digest, c[0], c[1])
	}
	return terms
}

// jsonSink sends a DiffRow a line.
type jsonSink struct {
	*rowDiff
	b     bytes.Buffer
	files int
}

func (s *jsonSink) batch(ctx context.Context) error {
	oldColumns, newColumns := len(s.old.table.Columns), len(s.new.table.Columns)
	terms := []string{kindOf, "coalesce(o.number, 0)", "coalesce(n.number, 0)"}
	for i := range oldColumns {
		terms = append(terms, fmt.Sprintf("CAST(o.o%d AS VARCHAR)", i))
	}
	for i := range newColumns {
		terms = append(terms, fmt.Sprintf("CAST(n.n%d AS VARCHAR)", i))
	}
	terms = append(terms, s.changes()...)
	rows, err := s.db.conn.QueryContext(ctx, "SELECT "+strings.Join(terms, ", ")+" FROM "+joined)
	if err != nil {
		return err
	}
	defer rows.Close()
	var row protocol.DiffRow
	texts := make([]sql.NullString, oldColumns+newColumns)
	changed := make([]bool, newColumns)
	targets := []any{&row.Kind, &row.OldRow, &row.NewRow}
	for i := range texts {
		targets = append(targets, &texts[i])
	}
	for i := range changed {
		targets = append(targets, &changed[i])
	}
	enc := json.NewEncoder(&s.b)
	enc.SetEscapeHTML(false)
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		row.Old, row.New, row.Changed = nil, nil, nil
		if row.Kind != protocol.RowAdded {
			row.Old = textsOf(texts[:oldColumns])
		}
		if row.Kind != protocol.RowRemoved {
			row.New = textsOf(texts[oldColumns:])
		}
		for i, is := range changed {
			if is {
				row.Changed = append(row.Changed, i)
			}
		}
		if err := enc.Encode(row); err != nil {
			return err
		}
		if s.b.Len() >= diffFrame {
			if err := s.end(ctx); err != nil {
				return err
			}
		}
	}
	return rows.Err()
}

// end sends what is not sent yet.
func (s *jsonSink) end(context.Context) error {
	if s.b.Len() == 0 {
		return nil
	}
	name := fmt.Sprintf("rows-%06d.json", s.files)
	s.files++
	if err := protocol.WriteFile(s.out, name, int64(s.b.Len()), &s.b); err != nil {
		return &outputError{err}
	}
	return nil
}

func textsOf(values []sql.NullString) []*string {
	out := make([]*string, len(values))
	for i, v := range values {
		if v.Valid {
			text := v.String
			out[i] = &text
		}
	}
	return out
}

// parquetSink sends one file with the values as they are.
type parquetSink struct {
	*rowDiff
	files []string // a batch each
}

// No dictionaries: one would hold 0.0 or -0.0, whichever comes first.
const diffOptions = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, DICTIONARY_SIZE_LIMIT 0"

func (s *parquetSink) batch(ctx context.Context) error {
	names := make([]string, len(s.compared))
	for i, is := range s.changes() {
		names[i] = fmt.Sprintf("CASE WHEN %s THEN %s END", is, literal(s.new.table.Columns[i].Name))
	}
	pack := func(letter string, columns []protocol.Column) string {
		fields := make([]string, len(columns))
		for i, c := range columns {
			fields[i] = fmt.Sprintf("%s := %s.%s%d", identifier(c.Name), letter, letter, i)
		}
		return "struct_pack(" + strings.Join(fields, ", ") + ")"
	}
	query := fmt.Sprintf(`SELECT %s AS kind, o.number AS old_row, n.number AS new_row, list_filter([%s], lambda x: x IS NOT NULL) AS changed,
		CASE WHEN o.seq IS NOT NULL THEN %s END AS old, CASE WHEN n.seq IS NOT NULL THEN %s END AS new FROM %s`,
		kindOf, strings.Join(names, ", "), pack("o", s.old.table.Columns), pack("n", s.new.table.Columns), joined)
	path := filepath.Join(s.dir, fmt.Sprintf("batch-%06d.parquet", len(s.files)))
	s.files = append(s.files, path)
	_, err := s.db.copyTo(ctx, query, path, diffOptions)
	return err
}

func (s *parquetSink) end(ctx context.Context) error {
	if len(s.files) == 0 {
		return nil
	}
	path := s.files[0]
	if len(s.files) > 1 {
		path = filepath.Join(s.dir, diffFile)
		if _, err := s.db.copyTo(ctx, "SELECT * FROM "+parquet(s.files...), path, diffOptions); err != nil {
			return err
		}
	}
	return s.sendFile(diffFile, path)
}
