package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// sampleRows is how many violating rows are shown; all kept ones are in the file.
const sampleRows = 5

// sampleText is the length in characters to which a sample's texts are cut.
const sampleText = 200

// violationsTable holds the rows of the query that is being checked.
const violationsTable = `temp.main."violating rows"`

// verify runs each query on its own: what one does wrong is its check's error.
func (e *execution) verify(ctx context.Context) (*protocol.Answer, error) {
	answer := &protocol.Answer{Checks: make([]protocol.Check, 0, len(e.order.Queries))}
	taken := make(map[string]bool)
	for _, q := range e.order.Queries {
		check, err := e.check(ctx, q, taken)
		var broken *outputError
		if errors.As(err, &broken) {
			return nil, err
		}
		if err != nil {
			u := userError(err)
			u.Query = q.Name
			check = protocol.Check{Name: q.Name, Error: u}
		}
		if err := e.db.exec(ctx, "DROP TABLE IF EXISTS "+violationsTable); err != nil {
			return nil, err
		}
		answer.Checks = append(answer.Checks, check)
	}
	return answer, nil
}

func (e *execution) check(ctx context.Context, q protocol.Query, taken map[string]bool) (protocol.Check, error) {
	check := protocol.Check{Name: q.Name}
	st, err := e.db.parse(ctx, q.SQL)
	if err != nil {
		return check, err
	}
	if _, err := e.db.userColumns(ctx, st); err != nil {
		return check, err
	}
	// SELECT * of a join has columns of one name; DuckDB numbers them in a table.
	before := "CREATE TEMP TABLE " + violationsTable + " AS SELECT * FROM (\n"
	if err := e.db.exec(ctx, before+st.sql+"\n)"); err != nil {
		return check, queryError(err, st.sql, len(before))
	}
	if err := e.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+violationsTable).Scan(&check.Violations); err != nil {
		return check, err
	}
	if check.Violations == 0 {
		return check, nil
	}
	if q.Evidence != "" {
		if err := e.gather(ctx, q, &check); err != nil {
			return check, err
		}
	}
	columns, err := e.db.describeQuery(ctx, "SELECT * FROM "+violationsTable)
	if err != nil {
		return check, err
	}
	check.Columns = columnNames(columns)
	if check.Sample, err = e.db.sample(ctx, violationsTable, columns); err != nil {
		return check, err
	}
	list, err := projection(columns, true)
	if err != nil {
		return check, err
	}
	limit := ""
	if e.order.MaxRows > 0 {
		limit = fmt.Sprintf(" LIMIT %d", e.order.MaxRows)
	}
	check.File = fileName(q.Name, taken)
	path := filepath.Join(e.dir, check.File)
	if _, err := e.db.copyTo(ctx, "SELECT "+list+" FROM "+violationsTable+limit, path, "FORMAT parquet, COMPRESSION zstd"); err != nil {
		return check, err
	}
	return check, e.sendFile(check.File, path)
}

// gather takes what a rule has found as the check's message, and the rows that show
// it, if there are some, as the violating ones.
func (e *execution) gather(ctx context.Context, q protocol.Query, check *protocol.Check) error {
	var finding sql.NullString
	if err := e.db.conn.QueryRowContext(ctx, "SELECT CAST(finding AS VARCHAR) FROM "+violationsTable+" LIMIT 1").Scan(&finding); err != nil {
		return err
	}
	check.Message = finding.String
	st, err := e.db.parse(ctx, q.Evidence)
	if err != nil {
		return err
	}
	const evidence = `temp.main."evidence of it"`
	if err := e.db.exec(ctx, "CREATE OR REPLACE TEMP TABLE "+evidence+" AS SELECT * FROM (\n"+st.sql+"\n)"); err != nil {
		return err
	}
	var rows int64
	if err := e.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+evidence).Scan(&rows); err != nil || rows == 0 {
		return err
	}
	check.Violations = rows
	if err := e.db.exec(ctx, "DROP TABLE "+violationsTable); err != nil {
		return err
	}
	return e.db.exec(ctx, `ALTER TABLE `+evidence+` RENAME TO "violating rows"`)
}

// fileName makes a file frame's name of a query's, not yet taken.
func fileName(query string, taken map[string]bool) string {
	const most = 120
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(query))
	clean = strings.TrimLeft(clean, ".")
	clean = clean[:min(len(clean), most)]
	if clean == "" {
		clean = "query"
	}
	name := clean + ".parquet"
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d.parquet", clean, n)
	}
	taken[name] = true
	return name
}

// sample returns the first rows with values that JSON has: booleans, integers
// and finite floats as they are, all others as DuckDB's text.
func (db *database) sample(ctx context.Context, source string, columns []protocol.Column) ([]map[string]any, error) {
	terms := make([]string, len(columns))
	for i, c := range columns {
		id := identifier(c.Name)
		switch c.Type {
		case "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT":
			terms[i] = id
		case "FLOAT", "DOUBLE":
			// A column has one type, so a non-finite value is marked by its text in one more column.
			terms[i] = "CASE WHEN isfinite(" + id + ") THEN " + id + " END"
		default:
			terms[i] = "TRY(CAST(" + id + " AS VARCHAR))"
		}
		terms[i] += ", CAST(" + id + " AS VARCHAR)"
	}
	rows, err := db.conn.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM %s LIMIT %d", strings.Join(terms, ", "), source, sampleRows))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var sample []map[string]any
	for rows.Next() {
		values := make([]any, 2*len(columns))
		targets := make([]any, len(values))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		row := make(map[string]any, len(columns))
		for i, c := range columns {
			v := values[2*i]
			if v == nil {
				v = values[2*i+1] // NULL stays NULL, NaN is "nan"
			}
			if text, ok := v.(string); ok {
				v = shorten(text, sampleText)
			}
			row[c.Name] = v
		}
		sample = append(sample, row)
	}
	return sample, rows.Err()
}
