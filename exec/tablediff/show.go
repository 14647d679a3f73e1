package tablediff

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

// Printer shows diffs of tables, one after the other: Begin, then Row for each row
// that is shown, then End with the counts of all; at last Close.
type Printer interface {
	Begin(*Table) error
	Row(*protocol.DiffRow) error
	End(protocol.DiffCounts) error
	Close() error
}

// maxRowBytes bounds one row as it comes from a worker.
const maxRowBytes = 64 << 20

// Rows reads the rows of one file frame of the worker and gives them to the printer.
// They are foreign: a row that the table cannot have is an error.
func (t *Table) Rows(r io.Reader, p Printer) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxRowBytes)
	was, is := len(t.OldColumns()), len(t.NewColumns())
	for lines.Scan() {
		var row protocol.DiffRow
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			return &protocol.FormatError{Reason: fmt.Sprintf("a row of the diff: %v", err)}
		}
		sides := map[string][2]int{protocol.RowRemoved: {was, 0}, protocol.RowAdded: {0, is}, protocol.RowChanged: {was, is}}
		want, ok := sides[row.Kind]
		if !ok || len(row.Old) != want[0] || len(row.New) != want[1] {
			return &protocol.FormatError{Reason: fmt.Sprintf("a row of kind %.20q with %d and %d values", row.Kind, len(row.Old), len(row.New))}
		}
		for _, i := range row.Changed {
			if i < 0 || i >= is {
				return &protocol.FormatError{Reason: fmt.Sprintf("column %d of %d changed", i, is)}
			}
		}
		if err := p.Row(&row); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the rows of a diff: %w", err)
	}
	return nil
}

// Dir returns the table's directory: "tables/ns/flights".
func (t *Table) Dir() string {
	return table.Root + "/" + strings.ReplaceAll(t.Name, ".", "/")
}

// summary writes counts for people: "1 row added, 2 removed, 3 changed".
func summary(c protocol.DiffCounts) string {
	var parts []string
	add := func(n int64, what string) {
		if n == 0 {
			return
		}
		noun := ""
		if len(parts) == 0 {
			noun = " rows"
			if n == 1 {
				noun = " row"
			}
		}
		parts = append(parts, thousands(n)+noun+" "+what)
	}
	add(c.Removed, protocol.RowRemoved)
	add(c.Added, protocol.RowAdded)
	add(c.Changed, protocol.RowChanged)
	if len(parts) == 0 {
		return "no row differs"
	}
	return strings.Join(parts, ", ")
}

// thousands writes n with its digits in groups of three.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// describe writes a schema change for people.
func describe(c table.SchemaChange) string {
	switch c.Kind {
	case table.ColumnAdded:
		return fmt.Sprintf("column %s %s added", safe(c.Column), safe(c.To))
	case table.ColumnDropped:
		return fmt.Sprintf("column %s %s dropped", safe(c.Column), safe(c.From))
	case table.ColumnRenamed:
		return fmt.Sprintf("column %s was %s", safe(c.To), safe(c.From))
	case table.ColumnRetyped:
		return fmt.Sprintf("column %s was %s, is %s", safe(c.Column), safe(c.From), safe(c.To))
	case table.ColumnNullable:
		if c.To == "true" {
			return fmt.Sprintf("column %s may be NULL now", safe(c.Column))
		}
		return fmt.Sprintf("column %s may not be NULL any more", safe(c.Column))
	case table.ColumnsMoved:
		return fmt.Sprintf("order of columns was %s; is %s", safe(c.From), safe(c.To))
	}
	return fmt.Sprintf("key was (%s), is (%s)", safe(c.From), safe(c.To))
}

// stat prints one line a table, without rows.
type stat struct {
	w     io.Writer
	table *Table
	names []string
	lines []string
	sum   protocol.DiffCounts
}

// NewStat returns a printer of counts, as git diff --stat has them.
func NewStat(w io.Writer) Printer { return &stat{w: w} }

func (s *stat) Begin(t *Table) error { s.table = t; return nil }

func (s *stat) Row(*protocol.DiffRow) error { return nil }

func (s *stat) End(c protocol.DiffCounts) error {
	var notes []string
	if status := s.table.Status(); status != Changed {
		notes = append(notes, map[string]string{Added: "new table", Deleted: "deleted table"}[status])
	}
	for _, change := range s.table.Schema {
		notes = append(notes, describe(change))
	}
	line := fmt.Sprintf("-%s +%s ~%s", thousands(c.Removed), thousands(c.Added), thousands(c.Changed))
	if len(notes) > 0 {
		line += "  (" + strings.Join(notes, "; ") + ")"
	}
	s.names, s.lines = append(s.names, s.table.Dir()), append(s.lines, line)
	s.sum.Removed, s.sum.Added, s.sum.Changed = s.sum.Removed+c.Removed, s.sum.Added+c.Added, s.sum.Changed+c.Changed
	return nil
}

func (s *stat) Close() error {
	width := 0
	for _, n := range s.names {
		width = max(width, len(n))
	}
	for i, n := range s.names {
		if _, err := fmt.Fprintf(s.w, " %-*s | %s\n", width, n, s.lines[i]); err != nil {
			return err
		}
	}
	if len(s.names) == 0 {
		return nil
	}
	tables := fmt.Sprintf("%d tables differ", len(s.names))
	if len(s.names) == 1 {
		tables = "1 table differs"
	}
	_, err := fmt.Fprintf(s.w, " %s: %s\n", tables, summary(s.sum))
	return err
}

// lines prints each row as a line of its own.
type lines struct {
	w       *bufio.Writer
	columns []protocol.Column
}

// NewLines returns a printer of added rows, one a line, for tools that compare lines:
// "name=value", without what is NULL, so that a new column changes no row that has
// nothing in it. Two rows are one line if and only if they have the same values.
func NewLines(w io.Writer) Printer { return &lines{w: bufio.NewWriter(w)} }

func (l *lines) Begin(t *Table) error { l.columns = t.NewColumns(); return nil }

func (l *lines) Row(r *protocol.DiffRow) error {
	first := true
	for i, v := range r.New {
		if v == nil {
			continue
		}
		if !first {
			l.w.WriteString("  ") // an error stays with the writer until it is flushed
		}
		first = false
		l.w.WriteString(quoted(l.columns[i].Name) + "=" + quoted(*v))
	}
	return l.w.WriteByte('\n')
}

func (l *lines) End(protocol.DiffCounts) error { return l.w.Flush() }

func (l *lines) Close() error { return l.w.Flush() }

// quoted returns a text as it is, unless something in it could be taken for something else.
func quoted(s string) string {
	if safe(s) == s && !strings.ContainsAny(s, "\"=") && !strings.Contains(s, "  ") && s != "" {
		return s
	}
	return strconv.Quote(s)
}
