package arrowfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// maxDepth bounds how deep types may be nested.
const maxDepth = 100

// checkType refuses types that no table holds, or that DuckDB would round.
func checkType(t arrow.DataType) error { return checkTypeAt(t, 0) }

func checkTypeAt(t arrow.DataType, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("is nested more than %d deep", maxDepth)
	}
	switch t := t.(type) {
	case *arrow.Decimal256Type:
		if t.Precision > 38 {
			return fmt.Errorf("is DECIMAL(%d,%d), and a table holds at most 38 digits: write fewer digits, or text", t.Precision, t.Scale)
		}
		return errors.New("is a decimal of 256 bits: write it as decimal128")
	case *arrow.DictionaryType:
		return checkTypeAt(t.ValueType, depth+1)
	case arrow.ExtensionType:
		return checkTypeAt(t.StorageType(), depth+1)
	case arrow.NestedType:
		if id := t.ID(); id != arrow.LIST && id != arrow.LARGE_LIST && id != arrow.FIXED_SIZE_LIST && id != arrow.MAP && id != arrow.STRUCT {
			return fmt.Errorf("is of type %s, which no table holds: cast it to another type", t)
		}
		for _, f := range t.Fields() {
			if err := checkTypeAt(f.Type, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	switch t.ID() {
	case arrow.FLOAT16:
		return errors.New("is a float of 16 bits: write it as float32")
	case arrow.NULL, arrow.BOOL, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64,
		arrow.FLOAT32, arrow.FLOAT64, arrow.DECIMAL32, arrow.DECIMAL64, arrow.DECIMAL128,
		arrow.STRING, arrow.LARGE_STRING, arrow.STRING_VIEW, arrow.BINARY, arrow.LARGE_BINARY, arrow.BINARY_VIEW, arrow.FIXED_SIZE_BINARY,
		arrow.DATE32, arrow.DATE64, arrow.TIME32, arrow.TIME64, arrow.TIMESTAMP, arrow.DURATION, arrow.INTERVAL_MONTHS, arrow.INTERVAL_MONTH_DAY_NANO:
		return nil
	}
	return fmt.Errorf("is of type %s, which no table holds: cast it to another type", t)
}

// check holds an array to its buffers: every offset that somebody follows leads to
// bytes that are there, and text is UTF-8.
func check(d arrow.ArrayData) error {
	if d.Len() < 0 || d.Offset() < 0 || d.Len() > 1<<31-1 || d.Offset() > 1<<40 {
		return fmt.Errorf("holds malformed Arrow data: %d values from %d on", d.Len(), d.Offset())
	}
	end := d.Offset() + d.Len()
	if bits := d.Buffers(); len(bits) > 0 && bits[0] != nil && bits[0].Len()*8 < end && (bits[0].Len() > 0 || d.NullN() != 0) {
		return short("validity", bits[0].Len(), (end+7)/8)
	}
	t := d.DataType()
	if e, ok := t.(arrow.ExtensionType); ok {
		t = e.StorageType()
	}
	switch t := t.(type) {
	case *arrow.NullType:
		return nil
	case *arrow.StringType:
		return checkOffsets(d, 4, true)
	case *arrow.BinaryType:
		return checkOffsets(d, 4, false)
	case *arrow.LargeStringType:
		return checkOffsets(d, 8, true)
	case *arrow.LargeBinaryType:
		return checkOffsets(d, 8, false)
	case *arrow.StringViewType:
		return checkViews(d, true)
	case *arrow.BinaryViewType:
		return checkViews(d, false)
	case *arrow.ListType, *arrow.MapType:
		return checkOffsets(d, 4, false)
	case *arrow.LargeListType:
		return checkOffsets(d, 8, false)
	case *arrow.FixedSizeListType:
		return checkChildren(d, end*int(t.Len()))
	case *arrow.StructType:
		return checkChildren(d, end)
	case *arrow.DictionaryType:
		return checkDictionary(d, t)
	case arrow.FixedWidthDataType:
		if have, want := bytesOf(d, 1), (end*t.BitWidth()+7)/8; len(have) < want {
			return short("values", len(have), want)
		}
		return checkTime(d, t)
	}
	return fmt.Errorf("is of type %s", t)
}

func short(what string, have, want int) error {
	return fmt.Errorf("holds malformed Arrow data: %d bytes of %s, want %d", have, what, want)
}

// bytesOf returns a buffer's bytes, none if there is no such buffer.
func bytesOf(d arrow.ArrayData, i int) []byte {
	if b := d.Buffers(); i < len(b) && b[i] != nil {
		return b[i].Bytes()
	}
	return nil
}

// valid reports whether value i of the array is no NULL.
func valid(d arrow.ArrayData, i int) bool {
	bits := bytesOf(d, 0)
	at := d.Offset() + i
	return len(bits) == 0 || bits[at/8]>>(at%8)&1 == 1
}

func integer(b []byte, i, width int) int64 {
	switch width {
	case 1:
		return int64(int8(b[i]))
	case 2:
		return int64(int16(binary.LittleEndian.Uint16(b[2*i:])))
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(b[4*i:])))
	}
	return int64(binary.LittleEndian.Uint64(b[8*i:]))
}

// checkOffsets holds texts, bytes and lists to their offsets.
func checkOffsets(d arrow.ArrayData, width int, text bool) error {
	offsets := bytesOf(d, 1)
	if len(offsets) == 0 && d.Len() == 0 {
		return checkChildren(d, 0)
	}
	if want := (d.Offset() + d.Len() + 1) * width; len(offsets) < want {
		return short("offsets", len(offsets), want)
	}
	data, most := bytesOf(d, 2), 0
	if len(d.Children()) == 1 {
		most = d.Children()[0].Len()
	} else {
		most = len(data)
	}
	last := integer(offsets, d.Offset(), width)
	if last < 0 {
		return fmt.Errorf("holds malformed Arrow data: offset %d", last)
	}
	for i := range d.Len() {
		next := integer(offsets, d.Offset()+i+1, width)
		if next < last || next > int64(most) {
			return fmt.Errorf("holds malformed Arrow data: offset %d after %d, of %d", next, last, most)
		}
		if text && valid(d, i) && !utf8.Valid(data[last:next]) {
			return fmt.Errorf("has a text that is not UTF-8, value %d of a batch", i+1)
		}
		last = next
	}
	return checkChildren(d, 0)
}

// checkChildren holds children to the length that the parent needs.
func checkChildren(d arrow.ArrayData, want int) error {
	for _, c := range d.Children() {
		if c.Len() < want {
			return fmt.Errorf("holds malformed Arrow data: %d values inside, want %d", c.Len(), want)
		}
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

// checkViews holds texts and bytes to their views (Arrow columnar format, "Variable-size
// binary view layout").
func checkViews(d arrow.ArrayData, text bool) error {
	const size, inlined = 16, 12
	views := bytesOf(d, 1)
	if want := (d.Offset() + d.Len()) * size; len(views) < want {
		return short("views", len(views), want)
	}
	var buffers []*memory.Buffer
	if b := d.Buffers(); len(b) > 2 {
		buffers = b[2:]
	}
	for i := range d.Len() {
		if !valid(d, i) {
			continue
		}
		view := views[(d.Offset()+i)*size:][:size]
		n := int64(int32(binary.LittleEndian.Uint32(view)))
		if n < 0 {
			return fmt.Errorf("holds malformed Arrow data: a value of %d bytes", n)
		}
		value := view[4:]
		if n > inlined {
			buffer, at := int64(int32(binary.LittleEndian.Uint32(view[8:]))), int64(int32(binary.LittleEndian.Uint32(view[12:])))
			if buffer < 0 || buffer >= int64(len(buffers)) || at < 0 || buffers[buffer] == nil || at+n > int64(buffers[buffer].Len()) {
				return fmt.Errorf("holds malformed Arrow data: a view of %d bytes from %d of buffer %d", n, at, buffer)
			}
			value = buffers[buffer].Bytes()[at:]
		}
		if text && !utf8.Valid(value[:n]) {
			return fmt.Errorf("has a text that is not UTF-8, value %d of a batch", i+1)
		}
	}
	return nil
}

func checkDictionary(d arrow.ArrayData, t *arrow.DictionaryType) error {
	index, ok := t.IndexType.(arrow.FixedWidthDataType)
	if !ok || d.Dictionary() == nil {
		return errors.New("holds malformed Arrow data: a dictionary is missing")
	}
	width := index.BitWidth() / 8
	indices := bytesOf(d, 1)
	if want := (d.Offset() + d.Len()) * width; len(indices) < want {
		return short("indices", len(indices), want)
	}
	for i := range d.Len() {
		if n := integer(indices, d.Offset()+i, width); valid(d, i) && (n < 0 || n >= int64(d.Dictionary().Len())) {
			return fmt.Errorf("holds malformed Arrow data: index %d in a dictionary of %d", n, d.Dictionary().Len())
		}
	}
	return check(d.Dictionary())
}

// checkTime refuses what DuckDB would round without a word.
func checkTime(d arrow.ArrayData, t arrow.DataType) error {
	unit, what := int64(1), ""
	switch t := t.(type) {
	case *arrow.TimestampType:
		if t.Unit == arrow.Nanosecond && t.TimeZone != "" {
			unit, what = 1000, "nanoseconds in a timestamp with a zone, which a table holds without a zone only"
		}
	case *arrow.DurationType:
		if t.Unit == arrow.Nanosecond {
			unit, what = 1_000_000, "fractions of a millisecond, which an INTERVAL in a table does not hold"
		}
	case *arrow.Date64Type:
		unit, what = 86_400_000, "dates that are no whole days"
	}
	if unit == 1 {
		return nil
	}
	values := bytesOf(d, 1)
	for i := range d.Len() {
		if valid(d, i) && integer(values, d.Offset()+i, 8)%unit != 0 {
			return fmt.Errorf("has %s", what)
		}
	}
	return nil
}
