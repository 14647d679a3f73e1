package engine

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// maxNesting is how deep a Parquet schema may be. DuckDB walks schemas by recursion, and
// one of some ten thousand levels ends its process.
const maxNesting = 100

// checkNesting refuses a Parquet file whose schema is too deep, before DuckDB opens it. What
// is malformed in another way is DuckDB's to refuse.
func checkNesting(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return nil // DuckDB says so in its way
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	const tail, most = 8, 256 << 20
	var end [tail]byte
	if _, err := f.ReadAt(end[:], info.Size()-tail); err != nil {
		return nil
	}
	length := int64(binary.LittleEndian.Uint32(end[:]))
	if length > most || length > info.Size()-tail {
		return nil
	}
	foot := make([]byte, length)
	if _, err := f.ReadAt(foot, info.Size()-tail-length); err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	if schemaDepth(foot) > maxNesting {
		return dataError("columns are nested more than %d deep", maxNesting)
	}
	return nil
}

// schemaDepth returns how deep the schema in a FileMetaData is (parquet.thrift, in Thrift's
// compact protocol), as far as it can be read; it stops over maxNesting.
func schemaDepth(foot []byte) int {
	const schemaField, childrenField, list, structure, i32 = 2, 5, 9, 12, 5
	r := &compact{b: foot}
	deepest := 0
	var open []int64 // children that are still to come, of each level
	r.structure(0, func(field int16, kind byte) bool {
		if field != schemaField || kind != list {
			return false
		}
		n, element := r.list()
		if element != structure {
			r.bad = true
			return true
		}
		for ; n > 0 && !r.bad && deepest <= maxNesting; n-- {
			for len(open) > 0 && open[len(open)-1] == 0 {
				open = open[:len(open)-1]
			}
			if len(open) > 0 {
				open[len(open)-1]--
			}
			children := int64(0)
			r.structure(0, func(field int16, kind byte) bool {
				if field != childrenField || kind != i32 {
					return false
				}
				u := r.varint()
				children = int64(u>>1) ^ -int64(u&1)
				return true
			})
			if children > 0 {
				open = append(open, children)
			}
			deepest = max(deepest, len(open))
		}
		r.bad = true // the rest is of no interest
		return true
	})
	return deepest
}

// compact reads Thrift's compact protocol without making anything of it.
type compact struct {
	b   []byte
	bad bool // its end, or something that cannot be
}

func (r *compact) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *compact) varint() uint64 {
	u, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return u
}

func (r *compact) list() (n uint64, element byte) {
	h := r.take(1)
	if h == nil {
		return 0, 0
	}
	if n = uint64(h[0] >> 4); n == 15 {
		n = r.varint()
	}
	return n, h[0] & 0x0f
}

// maxThrift is deeper than anything in parquet.thrift.
const maxThrift = 32

// structure reads a struct's fields; those that field does not read are skipped.
func (r *compact) structure(depth int, field func(id int16, kind byte) bool) {
	id := int16(0)
	for !r.bad {
		h := r.take(1)
		if h == nil || h[0] == 0 {
			return
		}
		if delta := int16(h[0] >> 4); delta != 0 {
			id += delta
		} else {
			u := r.varint()
			id = int16(u>>1) ^ -int16(u&1)
		}
		if kind := h[0] & 0x0f; !field(id, kind) {
			r.skip(kind, depth+1, true)
		}
	}
}

// skip passes over a value. A boolean that is a field has no byte of its own.
func (r *compact) skip(kind byte, depth int, isField bool) {
	if depth > maxThrift {
		r.bad = true
	}
	if r.bad {
		return
	}
	switch kind {
	case 1, 2: // booleans
		if !isField {
			r.take(1)
		}
	case 3:
		r.take(1)
	case 4, 5, 6:
		r.varint()
	case 7:
		r.take(8)
	case 8:
		r.take(r.varint())
	case 9, 10: // lists and sets
		n, element := r.list()
		for ; n > 0 && !r.bad; n-- {
			r.skip(element, depth+1, false)
		}
	case 12:
		r.structure(depth, func(int16, byte) bool { return false })
	default: // maps are not in parquet.thrift
		r.bad = true
	}
}
