package tablediff

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/headgate/headgate/exec/protocol"
)

// Colors are the escape sequences around parts of a text, all empty for none.
type Colors struct {
	Meta, Frag, Old, New, Reset string
}

// GitColors are those that git diff has if nothing else is configured.
var GitColors = Colors{Meta: "\x1b[1m", Frag: "\x1b[36m", Old: "\x1b[31m", New: "\x1b[32m", Reset: "\x1b[m"}

const (
	// batchRows is how many rows are laid out together: columns are as wide as they
	// need, and a diff of any size is printed as it comes.
	batchRows = 100
	// cellWidth is the most characters of a value that are shown.
	cellWidth = 40
)

// text prints rows as a grid, with a sign in front of each: "-" and "+" for rows
// that were removed and added, "~" for changed ones, whose changed cells hold both
// values, "5 -> 9".
type text struct {
	w    *bufio.Writer
	c    Colors
	hint string

	table *Table
	batch []*protocol.DiffRow
	shown int64
	some  bool // something was printed
}

// NewText returns a printer for people. hint says how to see the rows beyond a limit.
func NewText(w io.Writer, c Colors, hint string) Printer {
	return &text{w: bufio.NewWriterSize(w, 64<<10), c: c, hint: hint}
}

func (p *text) line(color, format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if color != "" {
		s = color + s + p.c.Reset
	}
	p.w.WriteString(s) // an error stays with the writer until it is flushed
	p.w.WriteByte('\n')
}

func (p *text) Begin(t *Table) error {
	p.table, p.shown = t, 0
	if p.some {
		p.w.WriteByte('\n')
	}
	p.some = true
	p.line(p.c.Meta, "diff --table %s", t.Dir())
	switch t.Status() {
	case Added:
		p.line(p.c.Meta, "new table of %s rows", thousands(t.New.Snapshot.Rows()))
	case Deleted:
		p.line(p.c.Meta, "deleted table of %s rows", thousands(t.Old.Snapshot.Rows()))
	default:
		if a, b := t.Old.Snapshot.Rows(), t.New.Snapshot.Rows(); a != b {
			p.line(p.c.Meta, "rows were %s, are %s", thousands(a), thousands(b))
		}
	}
	for _, c := range t.Schema {
		p.line(p.c.Meta, "%s", describe(c))
	}
	return p.w.Flush()
}

func (p *text) Row(r *protocol.DiffRow) error {
	row := *r
	p.batch = append(p.batch, &row)
	p.shown++
	if len(p.batch) < batchRows {
		return nil
	}
	return p.flush()
}

func (p *text) End(c protocol.DiffCounts) error {
	if err := p.flush(); err != nil {
		return err
	}
	total := c.Removed + c.Added + c.Changed
	end := summary(c)
	if p.shown < total {
		end += fmt.Sprintf("; %s of them shown%s", thousands(p.shown), p.hint)
	}
	p.line(p.c.Meta, "%s", end)
	return p.w.Flush()
}

func (p *text) Close() error { return p.w.Flush() }

// gridCell is a cell: what was there, what is, or both.
type gridCell struct {
	was, is string
	both    bool
}

func (c gridCell) width() int {
	n := utf8.RuneCountInString(c.was) + utf8.RuneCountInString(c.is)
	if c.both {
		n += utf8.RuneCountInString(arrow)
	}
	return n
}

const arrow = " -> "

// flush prints the batch. Where all its rows are changed ones, columns that are
// neither of the key nor changed in any of them are left out.
func (p *text) flush() error {
	if len(p.batch) == 0 {
		return p.w.Flush()
	}
	columns, olds := p.layout()
	show := make([]bool, len(columns))
	onlyChanged := !slices.ContainsFunc(p.batch, func(r *protocol.DiffRow) bool { return r.Kind != protocol.RowChanged })
	for i, c := range columns {
		show[i] = !onlyChanged || slices.ContainsFunc(p.table.Key, func(k string) bool { return strings.EqualFold(k, c.Name) })
	}
	if onlyChanged {
		for _, r := range p.batch {
			for _, i := range r.Changed {
				show[i] = true
			}
		}
	}
	numbered := len(p.table.Key) == 0 // where nothing else says which row it is
	var header []string
	var right []bool
	var width []int
	if numbered {
		header, right, width = append(header, "row"), append(right, true), append(width, 3)
	}
	for i, c := range columns {
		if show[i] {
			name := clip(safe(c.Name), 0)
			header, right, width = append(header, name), append(right, isNumber(c.Type)), append(width, utf8.RuneCountInString(name))
		}
	}
	grid := make([][]gridCell, len(p.batch))
	for n, r := range p.batch {
		var cells []gridCell
		if numbered {
			cells = append(cells, gridCell{is: fmt.Sprint(max(r.OldRow, r.NewRow))})
		}
		for i := range columns {
			if show[i] {
				cells = append(cells, cellOf(r, i, olds[i], len(p.table.NewColumns())))
			}
		}
		for i, c := range cells {
			width[i] = max(width[i], c.width())
		}
		grid[n] = cells
	}
	var b strings.Builder
	for i, name := range header {
		pad(&b, name, utf8.RuneCountInString(name), width[i], right[i])
	}
	p.line(p.c.Frag, "  %s", strings.TrimRight(b.String(), " "))
	for n, r := range p.batch {
		p.row(r.Kind, grid[n], width, right)
	}
	p.batch = p.batch[:0]
	return p.w.Flush()
}

// layout returns the columns of the grid: those of the new table, then those that
// were dropped; and where each is in an old row, -1 if it is not.
func (p *text) layout() (columns []protocol.Column, olds []int) {
	columns = slices.Clone(p.table.NewColumns())
	old := p.table.OldColumns()
	for _, c := range columns {
		olds = append(olds, slices.IndexFunc(old, func(o protocol.Column) bool { return strings.EqualFold(o.Name, c.Name) }))
	}
	for i, o := range old {
		if !slices.Contains(olds, i) {
			columns, olds = append(columns, o), append(olds, i)
		}
	}
	return columns, olds
}

func cellOf(r *protocol.DiffRow, column, old, news int) gridCell {
	value := func(values []*string, i int) string {
		switch {
		case i < 0 || i >= len(values):
			return ""
		case values[i] == nil:
			return "NULL"
		}
		return safe(*values[i])
	}
	switch {
	case r.Kind == protocol.RowRemoved:
		return gridCell{was: clip(value(r.Old, old), 0)}
	case r.Kind == protocol.RowAdded:
		return gridCell{is: clip(value(r.New, column), 0)}
	case slices.Contains(r.Changed, column):
		before, after := value(r.Old, old), value(r.New, column)
		if old < 0 {
			before = "NULL" // in a column that was not there
		}
		from := firstDifference(before, after)
		return gridCell{was: clip(before, from), is: clip(after, from), both: true}
	case column >= news: // dropped
		return gridCell{was: clip(value(r.Old, old), 0)}
	}
	return gridCell{is: clip(value(r.New, column), 0)}
}

// row prints one row of the grid.
func (p *text) row(kind string, cells []gridCell, width []int, right []bool) {
	sign, color := "~", ""
	switch kind {
	case protocol.RowRemoved:
		sign, color = "-", p.c.Old
	case protocol.RowAdded:
		sign, color = "+", p.c.New
	}
	var b strings.Builder
	for i, c := range cells {
		s := c.was + c.is
		if c.both {
			s = p.c.Old + c.was + p.resetOf(p.c.Old) + arrow + p.c.New + c.is + p.resetOf(p.c.New)
		}
		pad(&b, s, c.width(), width[i], right[i])
	}
	p.line(color, "%s %s", sign, strings.TrimRight(b.String(), " "))
}

func (p *text) resetOf(color string) string {
	if color == "" {
		return ""
	}
	return p.c.Reset
}

// pad appends s, which is n characters wide, and blanks up to the width, and two more.
func pad(b *strings.Builder, s string, n, width int, right bool) {
	blanks := strings.Repeat(" ", width-n)
	if right {
		b.WriteString(blanks + s)
	} else {
		b.WriteString(s + blanks)
	}
	b.WriteString("  ")
}

// safe makes a text fit for a line of a terminal: a control character in data must
// not move the reader's cursor, nor one in a name.
func safe(s string) string {
	strange := func(r rune) bool { return r != ' ' && !unicode.IsGraphic(r) }
	if strings.IndexFunc(s, strange) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case strange(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// clip shortens a long text so that the character at position from is in what is left.
func clip(s string, from int) string {
	const dots = "…"
	r := []rune(s)
	if len(r) <= cellWidth {
		return s
	}
	const before = 8 // characters of context
	start := 0
	if from > cellWidth-before {
		start = from - before
	}
	end := min(len(r), start+cellWidth)
	out := string(r[start:end])
	if start > 0 {
		out = dots + out
	}
	if end < len(r) {
		out += dots
	}
	return out
}

// firstDifference returns the number of characters that two texts begin with alike.
func firstDifference(a, b string) int {
	x, y := []rune(a), []rune(b)
	n := 0
	for n < min(len(x), len(y)) && x[n] == y[n] {
		n++
	}
	return n
}

// isNumber tells types whose values stand to the right of a column.
func isNumber(t string) bool {
	switch t {
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE":
		return true
	}
	return strings.HasPrefix(t, "DECIMAL(") && !strings.HasSuffix(t, "]")
}
