package engine

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// maxBound is the longest minimum or maximum that is kept, in bytes: statistics
// are read with every look at a table, and a cut maximum would be no bound.
const maxBound = 256

// statColumns is the number of columns whose statistics one query computes; it
// keeps the query of a very wide table within DuckDB's limits.
const statColumns = 200

// stats returns the statistics of a source's columns.
func (db *database) stats(ctx context.Context, source string, columns []protocol.Column) ([]protocol.ColumnStats, error) {
	all, err := db.groupedStats(ctx, "(SELECT 0 AS "+groupColumn+", * FROM "+source+")", columns, 1)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// groupColumn numbers the groups of groupedStats. No table's column is called so:
// its name would have no more than 255 bytes.
var groupColumn = identifier("group" + strings.Repeat("_", 255))

// groupedStats returns the statistics of each of n groups of a source's rows, which
// groupColumn numbers. A group without rows has columns without bounds.
func (db *database) groupedStats(ctx context.Context, source string, columns []protocol.Column, n int) ([][]protocol.ColumnStats, error) {
	groups := make([][]protocol.ColumnStats, n)
	for i := range groups {
		groups[i] = make([]protocol.ColumnStats, len(columns))
	}
	for first := 0; first < len(columns); first += statColumns {
		some := columns[first:min(first+statColumns, len(columns))]
		if err := db.someStats(ctx, source, some, groups, first); err != nil {
			return nil, err
		}
	}
	return groups, nil
}

// someStats fills in the statistics of columns, which begin at first.
func (db *database) someStats(ctx context.Context, source string, columns []protocol.Column, groups [][]protocol.ColumnStats, first int) error {
	terms, texts := make([]string, 0, 1+3*len(columns)), make([]string, 0, 1+3*len(columns))
	terms, texts = append(terms, groupColumn), append(texts, groupColumn)
	nulls := make([]int64, len(columns))
	bounds := make([][2]sql.NullString, len(columns))
	var group int
	targets := []any{&group}
	for i, c := range columns {
		id := identifier(c.Name)
		minimum, maximum := "NULL", "NULL"
		if hasBounds(c.Type) {
			minimum, maximum = "min("+id+")", "max("+id+")"
		}
		terms = append(terms, fmt.Sprintf("count(*) - count(%[1]s) AS n%[2]d, %[3]s AS l%[2]d, %[4]s AS h%[2]d", id, i, minimum, maximum))
		// TRY: DuckDB has no text for a TIMESTAMP_NS on its first day.
		texts = append(texts, fmt.Sprintf("n%[1]d, TRY(CAST(l%[1]d AS VARCHAR)), TRY(CAST(h%[1]d AS VARCHAR))", i))
		targets = append(targets, &nulls[i], &bounds[i][0], &bounds[i][1])
	}
	rows, err := db.conn.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM (SELECT %s FROM %s GROUP BY %s)",
		strings.Join(texts, ", "), strings.Join(terms, ", "), source, groupColumn))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		if group < 0 || group >= len(groups) {
			return fmt.Errorf("statistics of group %d of %d", group, len(groups))
		}
		for i, c := range columns {
			groups[group][first+i] = statsOf(c.Type, nulls[i], bounds[i])
		}
	}
	return rows.Err()
}

func statsOf(t string, nulls int64, bounds [2]sql.NullString) protocol.ColumnStats {
	stats := protocol.ColumnStats{Nulls: nulls}
	if !bounds[0].Valid || !bounds[1].Valid {
		return stats
	}
	minimum, maximum := jsonBound(t, bounds[0].String), jsonBound(t, bounds[1].String)
	if len(minimum) <= maxBound && len(maximum) <= maxBound {
		stats.Min, stats.Max = minimum, maximum
	}
	return stats
}

// hasBounds reports whether a minimum of the type says something to a reader.
func hasBounds(t string) bool {
	switch t {
	case "BLOB", "BIT", "INTERVAL", "JSON", "VARIANT":
		return false
	}
	return !isNested(t) && !strings.HasPrefix(t, "GEOMETRY")
}

// jsonBound turns DuckDB's text of a value into a JSON scalar in one spelling:
// plain digits, the shortest form of a float, or a string.
func jsonBound(t, text string) json.RawMessage {
	switch t {
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "BOOLEAN":
		return json.RawMessage(text)
	case "FLOAT", "DOUBLE":
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			break
		}
		if f == 0 {
			f = math.Abs(f) // which of 0 and -0 comes first is chance
		}
		if b, err := json.Marshal(f); err == nil {
			return b
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text); err != nil {
		return json.RawMessage(fmt.Sprintf("%q", text))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
