package engine

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// maxColumnName is the limit of table.json, in bytes.
const maxColumnName = 255

// checkNames refuses columns that no table can have.
func checkNames(columns []protocol.Column) error {
	if len(columns) == 0 {
		return dataError("the query returns no columns")
	}
	seen := make(map[string]string, len(columns))
	for i, c := range columns {
		if c.Name == "" {
			return dataError("column %d has no name: give it one with AS", i+1)
		}
		if len(c.Name) > maxColumnName || strings.ContainsRune(c.Name, 0) {
			return dataError("column %d is named %q: a name has at most %d bytes and no NUL", i+1, shorten(c.Name, 40), maxColumnName)
		}
		if other, ok := seen[strings.ToLower(c.Name)]; ok {
			if other == c.Name {
				return dataError("two columns are named %q: rename one with AS", c.Name)
			}
			return dataError("columns %q and %q differ in case only: rename one with AS", other, c.Name)
		}
		seen[strings.ToLower(c.Name)] = c.Name
	}
	return nil
}

// stored returns the SQL expression by which a column goes into a Parquet file
// and comes back with the type and value that it went in with. DuckDB alone would
// write a HUGEINT as a rounded DOUBLE. With text set, what has no exact Parquet
// type becomes text; else it is an error.
func stored(c protocol.Column, text bool) (string, error) {
	id := identifier(c.Name)
	as := func(t string) (string, error) { return "CAST(" + id + " AS " + t + ")", nil }
	switch {
	case c.Type == "FLOAT" || c.Type == "DOUBLE":
		// A NaN has many bit patterns, and which one comes out depends on the machine.
		return fmt.Sprintf("CASE WHEN isnan(%s) THEN CAST('nan' AS %s) ELSE %s END", id, c.Type, id), nil
	case c.Type == "HUGEINT":
		if text {
			return as("VARCHAR")
		}
		return integer(c, "BIGINT", "-9223372036854775808", "9223372036854775807"), nil
	case c.Type == "UHUGEINT":
		if text {
			return as("VARCHAR")
		}
		return integer(c, "UBIGINT", "0", "18446744073709551615"), nil
	case c.Type == `"NULL"`:
		return as("INTEGER")
	case c.Type == "BIT" || c.Type == "BIGNUM" || strings.HasPrefix(c.Type, "ENUM(") && strings.HasSuffix(c.Type, ")"):
		return as("VARCHAR")
	case c.Type == "TIMESTAMP_S" || c.Type == "TIMESTAMP_MS":
		return as("TIMESTAMP")
	}
	for _, t := range []string{"HUGEINT", "UNION(", "VARIANT", "GEOMETRY", "BIGNUM"} {
		if strings.Contains(unquotedPart(c.Type), t) {
			if text {
				return as("VARCHAR")
			}
			return "", dataError("column %q is of type %s, which Parquet cannot hold without loss: CAST it to another type", c.Name, shorten(c.Type, 200))
		}
	}
	// Of an array that is NULL, DuckDB writes a Parquet list which others cannot read.
	if list := withoutSizes(c.Type); list != c.Type {
		return as(list)
	}
	return id, nil
}

var arraySize = regexp.MustCompile(`\[[0-9]+\]`)

// withoutSizes turns arrays into lists, wherever they are in a type.
func withoutSizes(t string) string {
	parts := strings.Split(t, `"`)
	for i := 0; i < len(parts); i += 2 { // what is between double quotes is a name
		parts[i] = arraySize.ReplaceAllString(parts[i], "[]")
	}
	return strings.Join(parts, `"`)
}

// integer narrows a 128-bit integer, which is what sum() of integers gives, to
// what Parquet has. A value that does not fit is an error, never rounded.
func integer(c protocol.Column, to, low, high string) string {
	id := identifier(c.Name)
	complaint := literal(fmt.Sprintf("column %q: a value does not fit in %s, CAST the column to DECIMAL(38,0), DOUBLE or VARCHAR: ", c.Name, to))
	return fmt.Sprintf("CASE WHEN %s IS NULL OR %s BETWEEN %s AND %s THEN CAST(%s AS %s) ELSE error(%s || CAST(%s AS VARCHAR)) END", id, id, low, high, id, to, complaint, id)
}

// unquotedPart drops what is between double quotes: a field may be named HUGEINT.
func unquotedPart(t string) string {
	parts := strings.Split(t, `"`)
	var b strings.Builder
	for i := 0; i < len(parts); i += 2 {
		b.WriteString(parts[i])
	}
	return b.String()
}

// projection returns the SELECT list that stores columns.
func projection(columns []protocol.Column, text bool) (string, error) {
	terms := make([]string, len(columns))
	for i, c := range columns {
		expr, err := stored(c, text)
		if err != nil {
			return "", err
		}
		terms[i] = expr + " AS " + identifier(c.Name)
	}
	return strings.Join(terms, ", "), nil
}

// canonicalOrder returns ORDER BY terms under which rows that tie are the same
// bytes: all columns, and where SQL calls different values equal (30 days and a
// month), their text, which differs.
func canonicalOrder(columns []protocol.Column) string {
	var terms, ties []string
	for _, c := range columns {
		id := identifier(c.Name)
		terms = append(terms, id+" ASC NULLS LAST")
		if c.Type == "INTERVAL" || c.Type == "TIME WITH TIME ZONE" || isNested(c.Type) {
			ties = append(ties, "TRY(CAST("+id+" AS VARCHAR))")
		}
	}
	return strings.Join(append(terms, ties...), ", ")
}

func isNested(t string) bool {
	return strings.HasSuffix(t, "]") || strings.HasPrefix(t, "STRUCT(") || strings.HasPrefix(t, "MAP(") || strings.HasPrefix(t, "UNION(")
}

// types answers with the type that a table has for each type that somebody wrote:
// INT is INTEGER, and a HUGEINT is stored as a BIGINT.
func (e *execution) types(ctx context.Context) (*protocol.Answer, error) {
	answer := &protocol.Answer{}
	for _, written := range e.order.Types {
		// On a line of its own, so that a comment in it ends before the parenthesis.
		cast := "SELECT CAST(NULL AS " + written + "\n) AS c"
		if _, err := e.db.parse(ctx, cast); err != nil {
			return nil, noType(written)
		}
		columns, err := e.db.describeQuery(ctx, cast)
		if err != nil || len(columns) != 1 {
			return nil, noType(written)
		}
		list, err := projection(columns, false)
		if err != nil {
			return nil, err
		}
		if columns, err = e.db.describeQuery(ctx, "SELECT "+list+" FROM ("+cast+")"); err != nil {
			return nil, err
		}
		answer.Types = append(answer.Types, columns[0].Type)
	}
	return answer, nil
}

func noType(written string) error {
	return dataError("there is no type %q; types are written as in DuckDB: BIGINT, VARCHAR, TIMESTAMP, DECIMAL(18,2), INTEGER[]", shorten(written, 100))
}

// shorten cuts a text for a message or a sample.
func shorten(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most]) + "..."
}
