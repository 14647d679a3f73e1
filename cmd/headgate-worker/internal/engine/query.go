package engine

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/headgate/headgate/exec/protocol"
)

// Bounds of the "table" format, which is for the eye and held in memory.
const (
	tableRows = 10_000
	cellWidth = 80
)

// resultFile is the name of a query's file frame.
const resultFile = "rows"

// query runs the order's SQL and sends the rows.
func (e *execution) query(ctx context.Context) (*protocol.Answer, error) {
	st, err := e.db.parseQuestion(ctx, e.order.SQL)
	if err != nil {
		return nil, err
	}
	answer, err := e.answerQuestion(ctx, st)
	return answer, unshift(err, st.sql, st.inserted)
}

func (e *execution) answerQuestion(ctx context.Context, st *statement) (*protocol.Answer, error) {
	columns, err := e.db.userColumns(ctx, st)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(e.dir, resultFile)
	answer := &protocol.Answer{Columns: columns}
	if e.order.Format == "" || e.order.Format == "table" {
		answer.Rows, err = e.queryTable(ctx, st, columns, path)
	} else {
		answer.Rows, err = e.queryCopy(ctx, st, columns, path)
	}
	if err != nil {
		return nil, err
	}
	return answer, e.sendFile(resultFile, path)
}

func (e *execution) queryCopy(ctx context.Context, st *statement, columns []protocol.Column, path string) (int64, error) {
	list, options := "*", ""
	switch e.order.Format {
	case "csv":
		options = "FORMAT csv, HEADER true"
	case "json":
		options = "FORMAT json"
	case "parquet":
		options = "FORMAT parquet, COMPRESSION zstd"
		if err := checkNames(columns); err != nil {
			return 0, err
		}
		var err error
		if list, err = projection(columns, false); err != nil {
			return 0, err
		}
	default:
		return 0, dataError("format %q: want table, csv, json or parquet", e.order.Format)
	}
	limit := ""
	if e.order.MaxRows > 0 {
		limit = fmt.Sprintf(" LIMIT %d", e.order.MaxRows)
	}
	before := "SELECT " + list + " FROM (\n"
	rows, err := e.db.copyTo(ctx, before+st.sql+"\n)"+limit, path, options)
	if err != nil {
		return 0, queryError(err, st.sql, len("COPY (\n")+len(before))
	}
	return rows, nil
}

// queryTable writes aligned text: numbers to the right, NULL as NULL, and a
// footer with the number of rows.
func (e *execution) queryTable(ctx context.Context, st *statement, columns []protocol.Column, path string) (int64, error) {
	most := int64(tableRows)
	if e.order.MaxRows > 0 {
		most = min(most, e.order.MaxRows)
	}
	before := "SELECT CAST(COLUMNS(*) AS VARCHAR) FROM (\n"
	rows, err := e.db.conn.QueryContext(ctx, fmt.Sprintf("%s%s\n) LIMIT %d", before, st.sql, most+1))
	if err != nil {
		return 0, queryError(err, st.sql, len(before))
	}
	defer rows.Close()
	t := &textTable{}
	header := make([]string, len(columns))
	for i, c := range columns {
		header[i] = cell(c.Name)
		t.right = append(t.right, isNumber(c.Type) || strings.HasSuffix(c.Type, "HUGEINT"))
	}
	t.add(header)
	values := make([]sql.NullString, len(columns))
	targets := make([]any, len(columns))
	for i := range values {
		targets[i] = &values[i]
	}
	var n int64
	more := false
	for rows.Next() {
		if n == most {
			more = true
			break
		}
		if err := rows.Scan(targets...); err != nil {
			return 0, err
		}
		cells := make([]string, len(columns))
		for i, v := range values {
			cells[i] = "NULL"
			if v.Valid {
				cells[i] = cell(v.String)
			}
		}
		t.add(cells)
		n++
	}
	if err := rows.Err(); err != nil {
		return 0, queryError(err, st.sql, len(before))
	}
	footer := "(" + count(n, "row") + ")"
	if more {
		footer = "(first " + count(n, "row") + ", there are more)"
	}
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := t.write(f, footer); err != nil {
		return 0, err
	}
	return n, f.Close()
}

// cell makes a value safe and short for a terminal: a control character in data
// must not move the reader's cursor.
func cell(s string) string {
	if strings.IndexFunc(s, notPrintable) >= 0 || !utf8.ValidString(s) {
		var b strings.Builder
		for _, r := range s {
			switch {
			case r == '\n':
				b.WriteString(`\n`)
			case r == '\t':
				b.WriteString(`\t`)
			case notPrintable(r):
				fmt.Fprintf(&b, `\u%04x`, r)
			default:
				b.WriteRune(r)
			}
		}
		s = b.String()
	}
	return shorten(s, cellWidth)
}

func notPrintable(r rune) bool { return r != ' ' && !unicode.IsGraphic(r) }

type textTable struct {
	right []bool
	width []int
	rows  [][]string // the first is the header
}

func (t *textTable) add(cells []string) {
	if t.width == nil {
		t.width = make([]int, len(cells))
	}
	for i, c := range cells {
		t.width[i] = max(t.width[i], utf8.RuneCountInString(c))
	}
	t.rows = append(t.rows, cells)
}

func (t *textTable) write(w io.Writer, footer string) error {
	b := bufio.NewWriter(w)
	for n, cells := range t.rows {
		var line strings.Builder
		for i, c := range cells {
			if i > 0 {
				line.WriteString("  ")
			}
			pad := strings.Repeat(" ", t.width[i]-utf8.RuneCountInString(c))
			if t.right[i] {
				line.WriteString(pad + c)
			} else {
				line.WriteString(c + pad)
			}
		}
		fmt.Fprintln(b, strings.TrimRight(line.String(), " "))
		if n == 0 {
			for i, width := range t.width {
				if i > 0 {
					b.WriteString("  ")
				}
				b.WriteString(strings.Repeat("-", width))
			}
			b.WriteByte('\n')
		}
	}
	fmt.Fprintln(b, footer)
	return b.Flush()
}
