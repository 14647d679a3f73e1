package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	pq "github.com/parquet-go/parquet-go"
)

// DuckDB reads some Parquet types as ones that hold less, and says nothing: decimals
// of more than 38 digits as DOUBLE, and timestamps of nanoseconds as ones of
// microseconds where they have a zone or are the INT96 of old writers. A table
// must hold what its source held, and a part must say the same to every reader.

// maxDigits is the precision of DuckDB's widest DECIMAL.
const maxDigits = 38

// element is one node of a Parquet schema, as DuckDB's parquet_schema lists it.
type element struct {
	name, repetition, physical, logical string
	children, precision, scale          int64
	column                              int // of the file, that it belongs to; -1 for the root
}

// nanoseconds reports whether the element's values are counted in nanoseconds
// that DuckDB drops.
func (el *element) nanoseconds() bool {
	return el.physical == "INT96" || strings.HasPrefix(el.logical, "TimestampType(") &&
		strings.Contains(el.logical, "isAdjustedToUTC=1") && strings.Contains(el.logical, "NANOS=NanoSeconds")
}

// lossless refuses columns that DuckDB would change, by their types or by a look
// at their values.
func lossless(schema []element, names []string, path string) error {
	var suspects []int // places of leaves, in their order
	columns := make(map[int]string)
	leaf := 0
	for _, el := range schema {
		if el.children > 0 || el.column < 0 {
			continue
		}
		if el.precision > maxDigits {
			return dataError("column %q is DECIMAL(%d,%d), and a table holds at most %d digits: write fewer digits, or text", names[el.column], el.precision, el.scale, maxDigits)
		}
		if el.nanoseconds() {
			suspects = append(suspects, leaf)
			columns[leaf] = names[el.column]
		}
		leaf++
	}
	if len(suspects) == 0 {
		return nil
	}
	found, err := wholeMicroseconds(path, suspects)
	if err != nil {
		return dataError("cannot look for nanoseconds: %v", err)
	}
	if found >= 0 {
		return dataError("column %q has nanoseconds, which a table holds in timestamps without a zone only (TIMESTAMP_NS): write it as such, or in microseconds", columns[found])
	}
	return nil
}

// wholeMicroseconds returns the first of the leaves that has a value which is no
// whole number of microseconds; -1 if there is none.
func wholeMicroseconds(path string, leaves []int) (found int, err error) {
	// The file is foreign, and parquet-go panics on some that are malformed.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("malformed file: %v", p)
		}
	}()
	f, err := os.Open(path)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return -1, err
	}
	file, err := pq.OpenFile(f, info.Size(), pq.SkipPageIndex(true), pq.SkipBloomFilters(true))
	if err != nil {
		return -1, err
	}
	for _, group := range file.RowGroups() {
		for i, chunk := range group.ColumnChunks() {
			if !slices.Contains(leaves, i) {
				continue
			}
			whole, err := wholeChunk(chunk)
			if err != nil {
				return -1, err
			}
			if !whole {
				return i, nil
			}
		}
	}
	return -1, nil
}

func wholeChunk(chunk pq.ColumnChunk) (bool, error) {
	pages := chunk.Pages()
	defer pages.Close()
	buffer := make([]pq.Value, 1024)
	for {
		page, err := pages.ReadPage()
		if page == nil {
			if errors.Is(err, io.EOF) {
				return true, nil
			}
			return false, err
		}
		whole, err := wholePage(page.Values(), buffer)
		pq.Release(page)
		if err != nil || !whole {
			return false, err
		}
	}
}

func wholePage(values pq.ValueReader, buffer []pq.Value) (bool, error) {
	for {
		n, err := values.ReadValues(buffer)
		for _, v := range buffer[:n] {
			if v.IsNull() {
				continue
			}
			nanos := int64(0)
			if v.Kind() == pq.Int96 { // nanoseconds of the day, in the first 64 bits, and the day
				x := v.Int96()
				nanos = int64(x[0]) | int64(x[1])<<32
			} else {
				nanos = v.Int64()
			}
			if nanos%1000 != 0 {
				return false, nil
			}
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}
