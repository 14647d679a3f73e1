package engine

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"strings"

	"github.com/headgate/headgate/cmd/headgate-worker/internal/rowhash"
	"github.com/headgate/headgate/exec/protocol"
)

// A table is cut where its rows say (content-defined chunking), so that an edit
// changes the parts around it and no other: a part ends after a row whose hash is
// small. Normalised chunking (Xia and others, FastCDC, 2016) keeps sizes together:
// hardly any hash is small enough before the target, many are after it. docs/formats.md
// has the rule for strangers, decision 024 the figures behind the numbers.
const (
	// targetWeight is the number of ordinary rows that parts are cut around.
	targetWeight = 12 << 10
	// rowWeight is how many bytes of a row count as one ordinary row: wide rows make
	// parts of fewer rows. Most tables have no row that counts twice.
	rowWeight = 2 << 10
)

// chunking cuts parts of at least half its target and at most twice as much.
type chunking struct{ target int64 }

// strict and loose are the hashes below which a row of weight 1 ends a part
// before and after the target: one row in 4 targets, one in a quarter of it.
func (k chunking) strict() uint64 { return math.MaxUint64 / uint64(4*k.target) }
func (k chunking) loose() uint64  { return math.MaxUint64 / uint64(max(k.target/4, 1)) }

// mark is a row that may end a part, or that weighs more than one.
type mark struct {
	row    int64
	hash   uint64
	weight int64
}

// chunker takes marks in the order of rows and says where parts end. Rows
// between marks weigh one and end nothing.
type chunker struct {
	chunking
	next   int64 // the row after the last one seen
	weight int64 // of the part so far
	ends   []int64
}

func (c *chunker) cut() {
	c.ends = append(c.ends, c.next)
	c.weight = 0
}

// skip passes over ordinary rows up to row.
func (c *chunker) skip(row int64) {
	for c.next < row {
		n := min(row-c.next, 2*c.target-c.weight)
		c.next, c.weight = c.next+n, c.weight+n
		if c.weight == 2*c.target {
			c.cut()
		}
	}
}

func (c *chunker) mark(m mark) {
	c.skip(m.row)
	if c.weight > 0 && c.weight+m.weight > 2*c.target {
		c.cut()
	}
	c.next, c.weight = c.next+1, c.weight+m.weight
	bound := c.loose()
	if c.weight < c.target {
		bound = c.strict()
	}
	if c.weight >= 2*c.target || c.weight >= c.target/2 && m.hash < scaled(bound, m.weight) {
		c.cut()
	}
}

// scaled gives a heavy row as many chances to end a part as the rows that it
// counts for.
func scaled(bound uint64, weight int64) uint64 {
	high, low := bits.Mul64(bound, uint64(weight))
	if high > 0 {
		return math.MaxUint64
	}
	return low
}

// finish returns where the parts of a table of so many rows end.
func (c *chunker) finish(rows int64) []int64 {
	c.skip(rows)
	if c.weight > 0 {
		c.cut()
	}
	return c.ends
}

// chunks returns a chunker that has seen the rows of a source of SQL, whose rows are numbered by the
// expression number. hashed are the columns that decide: those of the key, or all.
func (e *execution) chunks(ctx context.Context, source, number string, hashed []string, all []protocol.Column) (*chunker, error) {
	c := &chunker{chunking: chunking{e.partRows}}
	query := fmt.Sprintf("SELECT %s AS row, %s(%s) AS hash, %s AS weight FROM %s", number, rowhash.Hash, identifiers(hashed), weightOf(all), source)
	rows, err := e.db.conn.QueryContext(ctx, fmt.Sprintf("SELECT * FROM (%s) WHERE hash < %d OR weight > 1 ORDER BY row", query, c.loose()))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m mark
		if err := rows.Scan(&m.row, &m.hash, &m.weight); err != nil {
			return nil, err
		}
		c.mark(m)
	}
	return c, rows.Err()
}

// weightOf returns the SQL of a row's weight: 1, where no row of these columns
// can weigh more, so that nobody looks at them.
func weightOf(columns []protocol.Column) string {
	const most = 16 // bytes that rowhash.Bytes gives for a value of a fixed size
	fixed := most*len(columns) < rowWeight
	for _, c := range columns {
		fixed = fixed && isFixed(c.Type)
	}
	if fixed {
		return "CAST(1 AS BIGINT)"
	}
	return fmt.Sprintf("CAST(1 + %s(%s) // %d AS BIGINT)", rowhash.Bytes, identifiers(columnNames(columns)), rowWeight)
}

// isFixed tells types all of whose values occupy the same.
func isFixed(t string) bool {
	switch t {
	case "VARCHAR", "BLOB", "BIT", "JSON", "BIGNUM":
		return false
	}
	return !isNested(t)
}

// isFloat tells types that may hold a float, and so both zeros.
func isFloat(t string) bool {
	t = unquotedPart(t)
	return strings.Contains(t, "FLOAT") || strings.Contains(t, "DOUBLE")
}
