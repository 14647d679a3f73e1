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
	var all []protocol.ColumnStats
	for len(columns) > 0 {
		some := columns[:min(len(columns), statColumns)]
		columns = columns[len(some):]
		stats, err := db.someStats(ctx, source, some)
		if err != nil {
			return nil, err
		}
		all = append(all, stats...)
	}
	return all, nil
}

func (db *database) someStats(ctx context.Context, source string, columns []protocol.Column) ([]protocol.ColumnStats, error) {
	terms := make([]string, 0, 3*len(columns))
	nulls := make([]int64, len(columns))
	bounds := make([][2]sql.NullString, len(columns))
	var targets []any
	for i, c := range columns {
		id := identifier(c.Name)
		terms = append(terms, "count(*) - count("+id+")")
		if hasBounds(c.Type) {
			terms = append(terms, "CAST(min("+id+") AS VARCHAR)", "CAST(max("+id+") AS VARCHAR)")
		} else {
			terms = append(terms, "NULL", "NULL")
		}
		targets = append(targets, &nulls[i], &bounds[i][0], &bounds[i][1])
	}
	if err := db.conn.QueryRowContext(ctx, "SELECT "+strings.Join(terms, ", ")+" FROM "+source).Scan(targets...); err != nil {
		return nil, err
	}
	stats := make([]protocol.ColumnStats, len(columns))
	for i, c := range columns {
		stats[i].Nulls = nulls[i]
		low, high := bounds[i][0], bounds[i][1]
		if !low.Valid || !high.Valid {
			continue
		}
		minimum, maximum := jsonBound(c.Type, low.String), jsonBound(c.Type, high.String)
		if len(minimum) > maxBound || len(maximum) > maxBound {
			continue
		}
		stats[i].Min, stats[i].Max = minimum, maximum
	}
	return stats, nil
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
