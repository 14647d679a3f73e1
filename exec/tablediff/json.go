package tablediff

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"strconv"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

// Format is the version of the JSON document, see docs/formats.md.
const Format = 1

// document prints one JSON document, a row a line, as rows come.
type document struct {
	w      *bufio.Writer
	table  *Table
	tables int
	rows   int
	closed bool
}

// NewJSON returns a printer for programs.
func NewJSON(w io.Writer) Printer {
	return &document{w: bufio.NewWriterSize(w, 64<<10)}
}

// head is what comes before a table's rows.
type head struct {
	Table   string               `json:"table"`
	Status  string               `json:"status"`
	OldRows int64                `json:"old_rows"`
	NewRows int64                `json:"new_rows"`
	Key     []string             `json:"key"`
	Schema  []table.SchemaChange `json:"schema"`
}

func (d *document) Begin(t *Table) error {
	d.table, d.rows = t, 0
	d.open()
	if d.tables > 0 {
		d.w.WriteByte(',') // an error stays with the writer until it is flushed
	}
	d.tables++
	h := head{Table: t.Name, Status: t.Status(), Key: t.Key, Schema: t.Schema}
	if t.Old.Snapshot != nil {
		h.OldRows = t.Old.Snapshot.Rows()
	}
	if t.New.Snapshot != nil {
		h.NewRows = t.New.Snapshot.Rows()
	}
	if h.Key == nil {
		h.Key = []string{}
	}
	if h.Schema == nil {
		h.Schema = []table.SchemaChange{}
	}
	text := compact(h)
	d.w.WriteByte('\n')
	d.w.Write(bytes.TrimSuffix(text, []byte("}")))
	d.w.WriteString(`,"rows":[`)
	return d.w.Flush()
}

func (d *document) open() {
	if d.tables == 0 {
		d.w.WriteString(`{"format":` + strconv.Itoa(Format) + `,"tables":[`)
	}
}

// jsonRow is one row of the document.
type jsonRow struct {
	Kind    string          `json:"kind"`
	OldRow  int64           `json:"old_row,omitempty"`
	NewRow  int64           `json:"new_row,omitempty"`
	Changed []string        `json:"changed,omitempty"`
	Old     json.RawMessage `json:"old,omitempty"`
	New     json.RawMessage `json:"new,omitempty"`
}

func (d *document) Row(r *protocol.DiffRow) error {
	if d.rows > 0 {
		d.w.WriteByte(',')
	}
	d.rows++
	row := jsonRow{Kind: r.Kind, OldRow: r.OldRow, NewRow: r.NewRow}
	columns := d.table.NewColumns()
	for _, i := range r.Changed {
		row.Changed = append(row.Changed, columns[i].Name)
	}
	if r.Old != nil {
		row.Old = object(d.table.OldColumns(), r.Old)
	}
	if r.New != nil {
		row.New = object(columns, r.New)
	}
	d.w.WriteByte('\n')
	_, err := d.w.Write(compact(row))
	return err
}

func (d *document) End(c protocol.DiffCounts) error {
	text := compact(c)
	d.w.WriteString("\n],")
	d.w.Write(bytes.TrimPrefix(text, []byte("{"))) // closes the table
	return d.w.Flush()
}

func (d *document) Close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	d.open()
	d.w.WriteString("]}\n")
	return d.w.Flush()
}

// object writes a row as an object, columns in the table's order.
func object(columns []protocol.Column, values []*string) json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, c := range columns {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(compact(c.Name))
		b.WriteByte(':')
		b.Write(jsonValue(c.Type, values[i]))
	}
	b.WriteByte('}')
	return b.Bytes()
}

// jsonValue writes DuckDB's text of a value: numbers and booleans as such, where JSON
// has them (not NaN), all else as a string.
func jsonValue(kind string, value *string) []byte {
	switch {
	case value == nil:
		return []byte("null")
	case (isNumber(kind) || kind == "BOOLEAN") && json.Valid([]byte(*value)):
		return []byte(*value)
	}
	return compact(*value)
}

// compact is json.Marshal without the escapes meant for HTML.
func compact(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return []byte("null") // nothing here has no JSON
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
