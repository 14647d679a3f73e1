package engine

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/cmd/headgate-worker/internal/rowhash"
	"github.com/headgate/headgate/exec/protocol"
)

// diffFrame is how many bytes of rows are sent at a time.
const diffFrame = 1 << 20

// diffFile is the name of a diff's file in Parquet.
const diffFile = "diff.parquet"

// send reads the rows of the pairs in full, as many as are asked for, and sends them.
func (d *rowDiff) send(ctx context.Context) error {
	limit := ""
	if d.order.MaxRows > 0 {
		limit = fmt.Sprintf(" LIMIT %d", d.order.MaxRows)
	}
	err := d.db.exec(ctx, fmt.Sprintf("CREATE TEMP TABLE %s AS SELECT row_number() OVER () AS seq, old_pos, new_pos FROM (SELECT old_pos, new_pos FROM %s ORDER BY %s%s)",
		shownTable, pairsTable, diffOrder(d.order.Diff), limit))
	if err != nil {
		return err
	}
	for _, s := range []struct {
		side   *diffSide
		letter string
	}{{&d.old, "o"}, {&d.new, "n"}} {
		terms := make([]string, len(s.side.table.Columns))
		for i, c := range s.side.table.Columns {
			terms[i] = fmt.Sprintf("%s AS %s%d", identifier(c.Name), s.letter, i)
		}
		// number is that of the row in its table.
		err := d.db.exec(ctx, fmt.Sprintf(`CREATE TEMP TABLE %s AS SELECT r.pos + s.shift + 1 AS number, r.*
			FROM (SELECT * FROM %s SEMI JOIN (SELECT %s AS pos FROM %s) USING (pos)) r ASOF JOIN %s s ON r.pos >= s.first`,
			s.side.rowsTable, s.side.numbered(strings.Join(terms, ", ")), s.side.position, shownTable, s.side.show))
		if err != nil {
			return err
		}
	}
	if d.order.Format == "parquet" {
		return d.sendParquet(ctx)
	}
	return d.sendJSON(ctx)
}

// joined is the FROM clause of the rows that are sent: o and n, and the pair in p.
func joined() string {
	return fmt.Sprintf("%s p LEFT JOIN %s o ON p.old_pos = o.pos LEFT JOIN %s n ON p.new_pos = n.pos", shownTable, oldRows, newRows)
}

const kindOf = "CASE WHEN p.old_pos IS NULL THEN '" + protocol.RowAdded + "' WHEN p.new_pos IS NULL THEN '" + protocol.RowRemoved + "' ELSE '" + protocol.RowChanged + "' END"

// changes returns, for each new column, whether it has another value.
func (d *rowDiff) changes() []string {
	terms := make([]string, len(d.compared))
	for i, c := range d.compared {
		terms[i] = fmt.Sprintf("(p.old_pos IS NOT NULL AND p.new_pos IS NOT NULL AND %[1]s(%[2]s) <> %[1]s(%[3]s))", rowhash.Digest, c[0], c[1])
	}
	return terms
}

// sendJSON sends a DiffRow a line.
func (d *rowDiff) sendJSON(ctx context.Context) error {
	oldColumns, newColumns := len(d.old.table.Columns), len(d.new.table.Columns)
	terms := []string{kindOf, "coalesce(o.number, 0)", "coalesce(n.number, 0)"}
	for i := range oldColumns {
		terms = append(terms, fmt.Sprintf("CAST(o.o%d AS VARCHAR)", i))
	}
	for i := range newColumns {
		terms = append(terms, fmt.Sprintf("CAST(n.n%d AS VARCHAR)", i))
	}
	terms = append(terms, d.changes()...)
	rows, err := d.db.conn.QueryContext(ctx, "SELECT "+strings.Join(terms, ", ")+" FROM "+joined()+" ORDER BY p.seq")
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
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	files := 0
	flush := func() error {
		if b.Len() == 0 {
			return nil
		}
		name := fmt.Sprintf("rows-%06d.json", files)
		files++
		if err := protocol.WriteFile(d.out, name, int64(b.Len()), &b); err != nil {
			return &outputError{err}
		}
		return nil
	}
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
		if b.Len() >= diffFrame {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return flush()
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

// sendParquet sends one file with the values as they are.
func (d *rowDiff) sendParquet(ctx context.Context) error {
	names := make([]string, len(d.compared))
	for i, is := range d.changes() {
		names[i] = fmt.Sprintf("CASE WHEN %s THEN %s END", is, literal(d.new.table.Columns[i].Name))
	}
	pack := func(letter string, columns []protocol.Column) string {
		fields := make([]string, len(columns))
		for i, c := range columns {
			fields[i] = fmt.Sprintf("%s := %s.%s%d", identifier(c.Name), letter, letter, i)
		}
		return "struct_pack(" + strings.Join(fields, ", ") + ")"
	}
	query := fmt.Sprintf(`SELECT %s AS kind, o.number AS old_row, n.number AS new_row, list_filter([%s], lambda x: x IS NOT NULL) AS changed,
		CASE WHEN p.old_pos IS NOT NULL THEN %s END AS old, CASE WHEN p.new_pos IS NOT NULL THEN %s END AS new FROM %s ORDER BY p.seq`,
		kindOf, strings.Join(names, ", "), pack("o", d.old.table.Columns), pack("n", d.new.table.Columns), joined())
	path := filepath.Join(d.dir, diffFile)
	// No dictionaries: one would hold 0.0 or -0.0, whichever comes first.
	if _, err := d.db.copyTo(ctx, query, path, "FORMAT parquet, COMPRESSION zstd, DICTIONARY_SIZE_LIMIT 0"); err != nil {
		return err
	}
	return d.sendFile(diffFile, path)
}
