package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// partRows is the number of rows of a part. A part has one row group: DuckDB
// sizes the row groups of a file by how rows reach it, so with more than one the
// bytes would depend on threads and on the layout of the sources.
const partRows int64 = 1 << 20

// rowsTable holds a result between its query and its parts.
const (
	rowsName  = "rows to store"
	rowsTable = `temp.main."` + rowsName + `"`
)

// partOptions of COPY: bytes depend on the rows and on DuckDB's version only.
const partOptions = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 1048576"

// resolveKey returns the key's columns as the result spells them.
func resolveKey(key []string, columns []protocol.Column) ([]string, error) {
	var resolved []string
	for _, k := range key {
		found := ""
		for _, c := range columns {
			if strings.EqualFold(c.Name, k) {
				found = c.Name
			}
		}
		if found == "" {
			return nil, dataError("key column %q is not in the result, which has %s", k, nameList(columnNames(columns)))
		}
		resolved = append(resolved, found)
	}
	return resolved, nil
}

// sendParts cuts rowsTable into parts in its order, sends them, and describes
// them. There is one part even without rows: it carries the schema to any reader.
func (e *execution) sendParts(ctx context.Context, key []string) (*protocol.Answer, error) {
	if err := e.checkKey(ctx, key); err != nil {
		return nil, err
	}
	c := &cutter{execution: e}
	if err := c.cut(ctx, rowsTable, "*", true); err != nil {
		return nil, err
	}
	return c.answer(key), nil
}

// cutter sends tables of the database as parts of one snapshot, one after the other.
type cutter struct {
	*execution
	sent     int // files so far
	snapshot protocol.Snapshot
	rows     int64
}

// cut sends the columns in list of a table, in the order of its rows. always
// asks for a part even if there are no rows.
func (c *cutter) cut(ctx context.Context, from, list string, always bool) error {
	var total int64
	if err := c.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+from).Scan(&total); err != nil {
		return err
	}
	parts := (total + c.partRows - 1) / c.partRows
	if always {
		parts = max(parts, 1)
	}
	for i := range parts {
		name := fmt.Sprintf("part-%06d.parquet", c.sent)
		path := filepath.Join(c.dir, name)
		slice := fmt.Sprintf("SELECT %s FROM %s WHERE rowid >= %d AND rowid < %d", list, from, i*c.partRows, (i+1)*c.partRows)
		rows, err := c.db.copyTo(ctx, slice, path, partOptions)
		if err != nil {
			return err
		}
		if want := min(c.partRows, total-i*c.partRows); rows != want {
			return fmt.Errorf("part %d has %d rows, want %d", i, rows, want)
		}
		if c.snapshot.Columns == nil {
			// What a reader of the file sees, whatever the query's types were.
			if c.snapshot.Columns, err = c.db.describeQuery(ctx, "SELECT * FROM "+parquet(path)); err != nil {
				return err
			}
		}
		// From the file too: a filter on bounds must hold for what readers read.
		stats, err := c.db.stats(ctx, parquet(path), c.snapshot.Columns)
		if err != nil {
			return err
		}
		if err := c.sendFile(name, path); err != nil {
			return err
		}
		c.sent++
		c.snapshot.Parts = append(c.snapshot.Parts, protocol.Part{File: name, Rows: rows, Stats: stats})
		if parts > 1 {
			if err := c.note("part %d of %d", i+1, parts); err != nil {
				return err
			}
		}
	}
	c.rows += total
	return nil
}

func (c *cutter) answer(key []string) *protocol.Answer {
	for i := range c.snapshot.Columns {
		if slices.Contains(key, c.snapshot.Columns[i].Name) {
			c.snapshot.Columns[i].Nullable = false
		}
	}
	return &protocol.Answer{Snapshot: &c.snapshot, Rows: c.rows}
}

func parquet(paths ...string) string {
	return "read_parquet(" + literalList(paths) + ", hive_partitioning = false)"
}

// checkKey refuses NULLs in the key and rows that share one, with examples.
func (e *execution) checkKey(ctx context.Context, key []string) error {
	if len(key) == 0 {
		return nil
	}
	for _, k := range key {
		var nulls int64
		if err := e.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+rowsTable+" WHERE "+identifier(k)+" IS NULL").Scan(&nulls); err != nil {
			return err
		}
		if nulls > 0 {
			return dataError("key column %q is NULL in %s", k, count(nulls, "row"))
		}
	}
	columns := identifiers(key)
	duplicates := fmt.Sprintf("SELECT %s, count(*) AS n FROM %s GROUP BY ALL HAVING count(*) > 1", columns, rowsTable)
	var groups int64
	if err := e.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM ("+duplicates+")").Scan(&groups); err != nil {
		return err
	}
	if groups == 0 {
		return nil
	}
	texts := make([]string, len(key))
	for i, k := range key {
		texts[i] = "CAST(" + identifier(k) + " AS VARCHAR)"
	}
	rows, err := e.db.conn.QueryContext(ctx, fmt.Sprintf("SELECT concat_ws(', ', %s), count(*) FROM %s GROUP BY %s HAVING count(*) > 1 ORDER BY count(*) DESC, %s LIMIT 3",
		strings.Join(texts, ", "), rowsTable, columns, columns))
	if err != nil {
		return err
	}
	defer rows.Close()
	var examples []string
	for rows.Next() {
		var values string
		var n int64
		if err := rows.Scan(&values, &n); err != nil {
			return err
		}
		examples = append(examples, fmt.Sprintf("(%s) %d times", shorten(values, 100), n))
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return dataError("key (%s) is not unique: %s more than once, such as %s", strings.Join(key, ", "), have(groups), strings.Join(examples, ", "))
}

func have(groups int64) string {
	if groups == 1 {
		return "1 value occurs"
	}
	return fmt.Sprintf("%d values occur", groups)
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
