// Package table is what makes a git tree a table: table.json, the names of parts
// and tables, and where tables are in a commit. It reads objects and checks
// bytes; it does not know DuckDB, and opens no Parquet file beyond its ends.
package table

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"unicode/utf8"

	"github.com/headgate/headgate/objects"
)

// FileName is the file of a table's tree that describes it.
const FileName = "table.json"

// Format is the format version that Encode writes and Parse takes.
const Format = 1

// Bounds of a table.json. They are far above what a sound table has, and keep a
// hostile one from costing memory out of proportion to its bytes.
const (
	MaxBytes   = 64 << 20
	maxColumns = 10_000
	maxName    = 255
	maxType    = 64 << 10
	maxBound   = 1 << 10 // bytes of a minimum or maximum as JSON
	maxRows    = 1 << 48 // so that no sum of rows or bytes overflows
)

// Snapshot is the content of table.json. Fields are in the order of their JSON
// keys, which is alphabetical.
type Snapshot struct {
	Columns []Column `json:"columns"`
	Format  int      `json:"format"`
	Key     []string `json:"key"`
	Parts   []Part   `json:"parts"`
}

// Column is a column's name, and its type in DuckDB's spelling.
type Column struct {
	Name     string `json:"name"`
	Nullable bool   `json:"nullable"`
	Type     string `json:"type"`
}

// Part is one Parquet file. The table's rows are those of its parts in order;
// a part that is listed twice counts twice.
type Part struct {
	Bytes   int64   `json:"bytes"`
	Columns []Stats `json:"columns"` // one per column of the table, in order
	File    string  `json:"file"`    // see PartName
	Rows    int64   `json:"rows"`
}

// Stats are a part's bounds of one column: JSON scalars, both there or both
// absent (all NULL, a type without useful order, or too long a value).
type Stats struct {
	Max   json.RawMessage `json:"max,omitempty"`
	Min   json.RawMessage `json:"min,omitempty"`
	Nulls int64           `json:"nulls"`
}

// PartName returns the name of the part whose blob is oid. It depends on the
// content only, so an insertion before it renames nothing.
func PartName(oid objects.OID) string {
	return oid.String()[:partDigits] + partSuffix
}

const (
	partDigits = 20
	partSuffix = ".parquet"
)

func isPartName(s string) bool {
	hex, ok := strings.CutSuffix(s, partSuffix)
	if !ok || len(hex) != partDigits {
		return false
	}
	return strings.Trim(hex, "0123456789abcdef") == ""
}

// Rows returns the number of rows in all parts.
func (s *Snapshot) Rows() int64 {
	var n int64
	for _, p := range s.Parts {
		n += p.Rows
	}
	return n
}

// Encode returns the canonical bytes: keys sorted, one line for each column and
// part so that git's own diff shows what changed, UTF-8 unescaped where JSON allows
// it. Parse takes them back if the snapshot is sound.
func (s *Snapshot) Encode() []byte {
	var b bytes.Buffer
	b.WriteString("{\n")
	encodeList(&b, "columns", s.Columns)
	fmt.Fprintf(&b, "\"format\": %d,\n", s.Format)
	b.WriteString("\"key\": ")
	if key := s.Key; key != nil {
		b.Write(encodeJSON(key))
	} else {
		b.WriteString("[]")
	}
	b.WriteString(",\n")
	encodeList(&b, "parts", s.Parts)
	b.Truncate(b.Len() - len(",\n"))
	b.WriteString("\n}\n")
	return b.Bytes()
}

func encodeList[T any](b *bytes.Buffer, name string, list []T) {
	fmt.Fprintf(b, "%q: [", name)
	for i, v := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n  ")
		b.Write(encodeJSON(v))
	}
	if len(list) > 0 {
		b.WriteByte('\n')
	}
	b.WriteString("],\n")
}

// encodeJSON is json.Marshal without the escapes meant for HTML. A value that
// has no JSON (a RawMessage that is none) becomes null, which Parse refuses.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return []byte("null")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Parse reads a table.json. It takes only the canonical bytes of a sound
// snapshot, so that equal tables have equal oids; the error says what is wrong.
func Parse(data []byte) (*Snapshot, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%s has %d bytes, limit is %d", FileName, len(data), MaxBytes)
	}
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%s is not UTF-8", FileName)
	}
	if line := conflictMarker(data); line > 0 {
		return nil, fmt.Errorf("%s: line %d is a conflict marker of git: two sides changed the table. Take your side's with: git rm -rf DIRECTORY && git checkout HEAD -- DIRECTORY, or import the rows anew", FileName, line)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var s Snapshot
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("%s: %w", FileName, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("%s: bytes after the end of the document", FileName)
	}
	if len(s.Key) == 0 {
		s.Key = nil
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", FileName, err)
	}
	if want := s.Encode(); !bytes.Equal(want, data) {
		return nil, fmt.Errorf("%s: not in canonical form: %s", FileName, firstDifference(data, want))
	}
	return &s, nil
}

// conflictMarker returns the line at which git left a conflict, 0 if there is none.
// No line of JSON begins so.
func conflictMarker(data []byte) int {
	mark := []byte("<<<<<<< ")
	at := bytes.Index(data, append([]byte{'\n'}, mark...))
	if bytes.HasPrefix(data, mark) {
		at = -1
	} else if at < 0 {
		return 0
	}
	return bytes.Count(data[:at+1], []byte{'\n'}) + 1
}

func firstDifference(have, want []byte) string {
	haveLines, wantLines := bytes.Split(have, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i, w := range wantLines {
		if i >= len(haveLines) {
			return fmt.Sprintf("line %d is missing", i+1)
		}
		if !bytes.Equal(haveLines[i], w) {
			return fmt.Sprintf("line %d is %s, want %s", i+1, excerpt(haveLines[i]), excerpt(w))
		}
	}
	return fmt.Sprintf("there are lines after line %d", len(wantLines))
}

func excerpt(line []byte) string {
	const most = 120
	if len(line) > most {
		return fmt.Sprintf("%q...", line[:most])
	}
	return fmt.Sprintf("%q", line)
}

func (s *Snapshot) check() error {
	if err := s.checkOutline(); err != nil {
		return err
	}
	for i, p := range s.Parts {
		if err := s.checkStatistics(p); err != nil {
			return fmt.Errorf("part %d: %w", i+1, err)
		}
	}
	return nil
}

// checkOutline checks all but statistics.
func (s *Snapshot) checkOutline() error {
	if s.Format != Format {
		return fmt.Errorf("format %d, this server knows format %d", s.Format, Format)
	}
	if n := len(s.Columns); n == 0 || n > maxColumns {
		return fmt.Errorf("%d columns, want 1 to %d", n, maxColumns)
	}
	// SQL compares names without regard to case.
	seen := make(map[string]string, len(s.Columns))
	exact := make(map[string]bool, len(s.Columns))
	for i, c := range s.Columns {
		if err := checkColumn(c); err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
		if before, ok := seen[strings.ToLower(c.Name)]; ok {
			return fmt.Errorf("column %d: name %q is taken by column %q", i+1, c.Name, before)
		}
		seen[strings.ToLower(c.Name)] = c.Name
		exact[c.Name] = true
	}
	for _, k := range s.Key {
		if !exact[k] {
			return fmt.Errorf("key: no column %q, or named twice", k)
		}
		delete(exact, k)
	}
	var rows, size int64
	for i, p := range s.Parts {
		if err := checkPart(p); err != nil {
			return fmt.Errorf("part %d: %w", i+1, err)
		}
		if rows, size = rows+p.Rows, size+p.Bytes; rows > maxRows || size > maxRows {
			return fmt.Errorf("part %d: too many rows or bytes in all", i+1)
		}
	}
	return nil
}

func checkColumn(c Column) error {
	switch {
	case c.Name == "" || len(c.Name) > maxName:
		return fmt.Errorf("name of %d bytes, want 1 to %d", len(c.Name), maxName)
	case strings.ContainsRune(c.Name, 0):
		return fmt.Errorf("name %q has a NUL", c.Name)
	case c.Type == "" || len(c.Type) > maxType:
		return fmt.Errorf("type of %d bytes, want 1 to %d", len(c.Type), maxType)
	}
	if !isType(c.Type) {
		return fmt.Errorf("type %s is none", excerpt([]byte(c.Type)))
	}
	return nil
}

// isType tells texts that can stand where SQL wants a type, whatever they mean there,
// and cannot end what they stand in: words, numbers, quoted texts, and brackets that
// match. A type becomes part of statements, and a table.json is foreign.
func isType(s string) bool {
	var open []byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\'' || c == '"':
			end := strings.IndexByte(s[i+1:], c) // a doubled quote reads as two texts
			if end < 0 {
				return false
			}
			i += end + 1
		case c == '(':
			open = append(open, ')')
		case c == '[':
			open = append(open, ']')
		case c == ')' || c == ']':
			if len(open) == 0 || open[len(open)-1] != c {
				return false
			}
			open = open[:len(open)-1]
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= 0x80, c == '_', c == ' ', c == ',':
		default:
			return false
		}
	}
	return len(open) == 0
}

func checkPart(p Part) error {
	switch {
	case !isPartName(p.File):
		return fmt.Errorf("file %q, want %d lower-case hex digits and %q", p.File, partDigits, partSuffix)
	case p.Rows < 0 || p.Rows > maxRows:
		return fmt.Errorf("%d rows", p.Rows)
	case p.Bytes < minParquet || p.Bytes > maxRows:
		return fmt.Errorf("%d bytes, which no Parquet file has", p.Bytes)
	}
	return nil
}

func (s *Snapshot) checkStatistics(p Part) error {
	if len(p.Columns) != len(s.Columns) {
		return fmt.Errorf("statistics of %d columns, want %d", len(p.Columns), len(s.Columns))
	}
	for i, st := range p.Columns {
		if err := checkStats(st, p.Rows); err != nil {
			return fmt.Errorf("column %q: %w", s.Columns[i].Name, err)
		}
	}
	return nil
}

func checkStats(st Stats, rows int64) error {
	switch {
	case st.Nulls < 0 || st.Nulls > rows:
		return fmt.Errorf("%d nulls in %d rows", st.Nulls, rows)
	case (st.Min == nil) != (st.Max == nil):
		return errors.New("one of min and max without the other")
	case st.Min == nil:
		return nil
	case st.Nulls == rows:
		return errors.New("min and max of no values")
	}
	if err := checkBound(st.Min); err != nil {
		return fmt.Errorf("min: %w", err)
	}
	if err := checkBound(st.Max); err != nil {
		return fmt.Errorf("max: %w", err)
	}
	return nil
}

// checkBound takes one JSON scalar in the one spelling it has here: strings as
// encodeJSON writes them, integers in plain digits, other numbers in the
// shortest form that reads back as the same float64.
func checkBound(raw json.RawMessage) error {
	if len(raw) > maxBound {
		return fmt.Errorf("%d bytes, limit is %d", len(raw), maxBound)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return err
	}
	var want []byte
	switch v := v.(type) {
	case bool, string:
		want = encodeJSON(v)
	case json.Number:
		if n, ok := new(big.Int).SetString(v.String(), 10); ok {
			want = []byte(n.String())
			break
		}
		f, err := v.Float64()
		if err != nil {
			return err
		}
		want = encodeJSON(f)
	default:
		return fmt.Errorf("%s is not a number, a string or a boolean", raw)
	}
	if !bytes.Equal(raw, want) {
		return fmt.Errorf("%s is not in canonical form, want %s", raw, want)
	}
	return nil
}
