// Package readers is a reader of tables that was written from docs/formats.md
// alone, with parquet-go, and the test that it and other people's readers see the
// values that went into a table. It uses nothing of Headgate's own.
package readers

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// Column is a column's values in the spelling of zoo.py: nil, a string, a []any, or
// a map[string]any.
type Column struct {
	Name   string `json:"name"`
	Values []any  `json:"values"`
}

// description is what a reader needs of table.json.
type description struct {
	Columns []struct{ Name, Type string } `json:"columns"`
	Parts   []struct {
		File string `json:"file"`
		Rows int64  `json:"rows"`
	} `json:"parts"`
}

// Parts returns the paths of a table's parts in the order of their rows.
func Parts(dir string) ([]string, error) {
	d, err := describe(dir)
	if err != nil {
		return nil, err
	}
	paths := make([]string, len(d.Parts))
	for i, p := range d.Parts {
		paths[i] = filepath.Join(dir, p.File)
	}
	return paths, nil
}

func describe(dir string) (*description, error) {
	data, err := os.ReadFile(filepath.Join(dir, "table.json"))
	if err != nil {
		return nil, err
	}
	var d description
	return &d, json.Unmarshal(data, &d)
}

// Read reads the table in dir.
func Read(dir string) ([]Column, error) {
	d, err := describe(dir)
	if err != nil {
		return nil, err
	}
	columns := make([]Column, len(d.Columns))
	for i, c := range d.Columns {
		columns[i].Name = c.Name
	}
	for _, p := range d.Parts {
		n, err := readPart(filepath.Join(dir, p.File), columns)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.File, err)
		}
		if n != p.Rows {
			return nil, fmt.Errorf("%s has %d rows, table.json says %d", p.File, n, p.Rows)
		}
	}
	return columns, nil
}

// readPart appends the values of one Parquet file.
func readPart(path string, columns []Column) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	file, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		return 0, err
	}
	fields := file.Root().Columns()
	if len(fields) != len(columns) {
		return 0, fmt.Errorf("%d columns, table.json says %d", len(fields), len(columns))
	}
	for _, group := range file.RowGroups() {
		chunks := group.ColumnChunks()
		for i, field := range fields {
			if field.Name() != columns[i].Name {
				return 0, fmt.Errorf("column %d is %q, table.json says %q", i, field.Name(), columns[i].Name)
			}
			leaves := leavesOf(field)
			streams := make(map[int]*stream, len(leaves))
			for _, leaf := range leaves {
				if streams[leaf.Index()], err = open(chunks[leaf.Index()]); err != nil {
					return 0, fmt.Errorf("column %q: %w", field.Name(), err)
				}
			}
			for range group.NumRows() {
				columns[i].Values = append(columns[i].Values, value(field, streams, 0, 0))
			}
			for _, s := range streams {
				if s.at != len(s.values) {
					return 0, fmt.Errorf("column %q: %d values more than rows", field.Name(), len(s.values)-s.at)
				}
			}
		}
	}
	return file.NumRows(), nil
}

func leavesOf(c *parquet.Column) []*parquet.Column {
	if c.Leaf() {
		return []*parquet.Column{c}
	}
	var all []*parquet.Column
	for _, child := range c.Columns() {
		all = append(all, leavesOf(child)...)
	}
	return all
}

// stream is a leaf's values with their levels.
type stream struct {
	values []parquet.Value
	at     int
}

func open(chunk parquet.ColumnChunk) (*stream, error) {
	s := &stream{}
	pages := chunk.Pages()
	defer pages.Close()
	buffer := make([]parquet.Value, 1024)
	for {
		page, err := pages.ReadPage()
		if page == nil {
			return s, ignoreEOF(err)
		}
		values := page.Values()
		for {
			n, err := values.ReadValues(buffer)
			for _, v := range buffer[:n] {
				s.values = append(s.values, v.Clone())
			}
			if err != nil {
				if err := ignoreEOF(err); err != nil {
					return nil, err
				}
				break
			}
		}
		parquet.Release(page)
	}
}

// value assembles the next value of a node (Melnik and others, Dremel, VLDB 2010).
// repetition and definition are the levels above the node.
func value(c *parquet.Column, streams map[int]*stream, repetition, definition int) any {
	first := streams[leavesOf(c)[0].Index()]
	if c.Optional() {
		if first.values[first.at].DefinitionLevel() <= definition {
			skip(c, streams)
			return nil
		}
		definition++
	}
	if c.Leaf() {
		v := first.values[first.at]
		first.at++
		return spell(c, v)
	}
	children := c.Columns()
	switch logical := logicalOf(c).(type) {
	case *format.ListType, *format.MapType:
		_, isList := logical.(*format.ListType)
		repeated := children[0] // "list" with "element", or "key_value" with "key" and "value"
		first := streams[leavesOf(repeated)[0].Index()]
		list := []any{}
		if first.values[first.at].DefinitionLevel() <= definition {
			skip(c, streams)
			return list
		}
		for {
			var entry []any
			for _, child := range repeated.Columns() {
				entry = append(entry, value(child, streams, repetition+1, definition+1))
			}
			if isList {
				list = append(list, entry[0])
			} else {
				list = append(list, entry)
			}
			if first.at == len(first.values) || first.values[first.at].RepetitionLevel() != repetition+1 {
				return list
			}
		}
	default:
		fields := make(map[string]any, len(children))
		for _, child := range children {
			fields[child.Name()] = value(child, streams, repetition, definition)
		}
		return fields
	}
}

// skip passes over the one entry that each leaf has of a NULL or an empty list.
func skip(c *parquet.Column, streams map[int]*stream) {
	for _, leaf := range leavesOf(c) {
		streams[leaf.Index()].at++
	}
}

// spell writes a leaf's value as docs/formats.md says of the types of parts.
func spell(c *parquet.Column, v parquet.Value) string {
	logical := logicalOf(c)
	switch v.Kind() {
	case parquet.Boolean:
		return strconv.FormatBool(v.Boolean())
	case parquet.Int32, parquet.Int64:
		n, unsigned := v.Int64(), v.Uint64()
		if v.Kind() == parquet.Int32 {
			n, unsigned = int64(v.Int32()), uint64(v.Uint32())
		}
		switch t := logical.(type) {
		case *format.DecimalType:
			return decimal(big.NewInt(n), int(t.Scale))
		case *format.IntType:
			if !t.IsSigned {
				return strconv.FormatUint(unsigned, 10)
			}
		}
		return strconv.FormatInt(n, 10)
	case parquet.Float:
		return strconv.FormatFloat(float64(v.Float()), 'g', -1, 64)
	case parquet.Double:
		return strconv.FormatFloat(v.Double(), 'g', -1, 64)
	}
	b := v.ByteArray()
	switch t := logical.(type) {
	case *format.StringType, *format.JsonType:
		return string(b)
	case *format.DecimalType:
		n := new(big.Int).SetBytes(b)
		if b[0] >= 0x80 { // two's complement, big-endian
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
		}
		return decimal(n, int(t.Scale))
	}
	if v.Kind() == parquet.FixedLenByteArray && len(b) == 12 { // INTERVAL, the one type of this length
		return fmt.Sprintf("%d,%d,%d", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]))
	}
	return hex.EncodeToString(b)
}

// logicalOf returns the annotation of a node's type, nil if it has none.
func logicalOf(c *parquet.Column) format.LogicalTypeValue {
	if t := c.Type().LogicalType(); t != nil {
		return t.Value
	}
	return nil
}

// decimal writes an unscaled integer with its decimal point.
func decimal(n *big.Int, scale int) string {
	digits := new(big.Int).Abs(n).String()
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale+1-len(digits)) + digits
	}
	if scale > 0 {
		digits = digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
	}
	if n.Sign() < 0 {
		return "-" + digits
	}
	return digits
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
