package rowhash

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/duckdb/duckdb-go/v2/mapping"
)

const (
	seed    = 0x9e3779b97f4a7c15
	null    = 0x6c6c756e6c6c756e // "nullnull"
	oneNaN  = 0x7ff8000000000000
	inlined = 12 // bytes of a string that DuckDB keeps in the vector itself
)

// mix is the finaliser of splitmix64: each bit of x changes half of the result's.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// add continues the hash h with one word.
func add(h, word uint64) uint64 { return mix(h ^ word) }

// addBytes continues h with a text: words of 8 bytes, little-endian, the last one
// filled up with zeros, then the length.
func addBytes(h uint64, b []byte) uint64 {
	n := uint64(len(b))
	if n > 0 && n < 8 { // codes and short words, which most texts are
		var w uint64
		for i := len(b) - 1; i >= 0; i-- {
			w = w<<8 | uint64(b[i])
		}
		return add(add(h, w), n)
	}
	for ; len(b) >= 8; b = b[8:] {
		h = add(h, binary.LittleEndian.Uint64(b))
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		h = add(h, binary.LittleEndian.Uint64(last[:]))
	}
	return add(h, n)
}

// add128 continues h with an integer of 128 bits. One that fits 64 bits is hashed
// as if it had them, so that a wider type of the same values cuts at the same rows.
func add128(h, low uint64, high int64) uint64 {
	if high == int64(low)>>63 {
		return add(h, low)
	}
	return add(add(h, low), uint64(high))
}

// addFloat continues h with a number, of which SQL calls some bit patterns equal.
func addFloat(h uint64, f float64, exact bool) uint64 {
	switch {
	case f != f:
		return add(h, oneNaN)
	case f == 0 && !exact:
		return add(h, 0)
	}
	return add(h, math.Float64bits(f))
}

// vector reads a flat DuckDB vector in place. It is valid as long as the chunk is.
type vector struct {
	data     unsafe.Pointer
	validity unsafe.Pointer // nil: no NULLs; else a bit for each row, set if there is a value
	kind     kind
	size     int      // of an array
	children []vector // of a struct, a list, a map, an array
}

type kind uint8

const (
	boolean kind = iota
	int8s
	int16s
	int32s
	int64s
	uint8s
	uint16s
	uint32s
	uint64s
	int128s
	float32s
	float64s
	intervals
	bytes
	lists
	structs
	arrays
	nulls
)

var kinds = map[mapping.Type]kind{
	mapping.TypeBoolean: boolean,
	mapping.TypeTinyInt: int8s, mapping.TypeSmallInt: int16s, mapping.TypeInteger: int32s, mapping.TypeBigInt: int64s,
	mapping.TypeUTinyInt: uint8s, mapping.TypeUSmallInt: uint16s, mapping.TypeUInteger: uint32s, mapping.TypeUBigInt: uint64s,
	mapping.TypeHugeInt: int128s, mapping.TypeUHugeInt: int128s, mapping.TypeUUID: int128s,
	mapping.TypeFloat: float32s, mapping.TypeDouble: float64s,
	mapping.TypeDate: int32s, mapping.TypeTime: int64s, mapping.TypeTimeNS: int64s, mapping.TypeTimeTZ: int64s,
	mapping.TypeTimestamp: int64s, mapping.TypeTimestampS: int64s, mapping.TypeTimestampMS: int64s,
	mapping.TypeTimestampNS: int64s, mapping.TypeTimestampTZ: int64s,
	mapping.TypeInterval: intervals,
	mapping.TypeVarchar:  bytes, mapping.TypeBlob: bytes, mapping.TypeBit: bytes, mapping.TypeBigNum: bytes,
	mapping.TypeList: lists, mapping.TypeMap: lists, mapping.TypeStruct: structs, mapping.TypeArray: arrays,
	mapping.TypeSQLNull: nulls,
}

// open describes a vector. Types that no table stores are errors.
func open(v mapping.Vector) (vector, error) {
	t := mapping.VectorGetColumnType(v)
	defer mapping.DestroyLogicalType(&t)
	return openAs(v, t)
}

func openAs(v mapping.Vector, t mapping.LogicalType) (vector, error) {
	out := vector{data: mapping.VectorGetData(v), validity: mapping.VectorGetValidity(v)}
	id := mapping.GetTypeId(t)
	if id == mapping.TypeDecimal {
		id = mapping.DecimalInternalType(t)
	}
	k, ok := kinds[id]
	if !ok {
		return vector{}, fmt.Errorf("row hash: a value of DuckDB's type %d cannot be hashed", id)
	}
	out.kind = k
	var children []mapping.Vector
	switch k {
	case lists:
		children = append(children, mapping.ListVectorGetChild(v))
	case arrays:
		out.size = int(mapping.ArrayTypeArraySize(t))
		children = append(children, mapping.ArrayVectorGetChild(v))
	case structs:
		for i := range mapping.StructTypeChildCount(t) {
			children = append(children, mapping.StructVectorGetChild(v, i))
		}
	}
	for _, child := range children {
		c, err := open(child)
		if err != nil {
			return vector{}, err
		}
		out.children = append(out.children, c)
	}
	return out, nil
}

func (v *vector) isNull(i int) bool {
	if v.validity == nil {
		return false
	}
	word := *(*uint64)(unsafe.Add(v.validity, i/64*8))
	return word>>(i%64)&1 == 0
}

func at[T any](v *vector, i int) T {
	var zero T
	return *(*T)(unsafe.Add(v.data, i*int(unsafe.Sizeof(zero))))
}

// addAll continues the hash of each row with its value in v. exact tells 0.0 and
// -0.0 apart.
func (v *vector) addAll(hashes []uint64, exact bool) {
	// The kinds that most columns are of, without a decision for each row.
	switch v.kind {
	case int16s:
		addIntegers[int16](v, hashes)
	case int32s:
		addIntegers[int32](v, hashes)
	case int64s:
		addIntegers[int64](v, hashes)
	case float64s:
		for i := range hashes {
			if v.isNull(i) {
				hashes[i] = add(hashes[i], null)
			} else {
				hashes[i] = addFloat(hashes[i], at[float64](v, i), exact)
			}
		}
	case bytes:
		for i := range hashes {
			if v.isNull(i) {
				hashes[i] = add(hashes[i], null)
			} else {
				hashes[i] = addBytes(hashes[i], v.bytes(i))
			}
		}
	default:
		for i := range hashes {
			hashes[i] = v.add(hashes[i], i, exact)
		}
	}
}

func addIntegers[T int16 | int32 | int64](v *vector, hashes []uint64) {
	if v.validity == nil {
		for i, x := range unsafe.Slice((*T)(v.data), len(hashes)) {
			hashes[i] = add(hashes[i], uint64(int64(x)))
		}
		return
	}
	for i := range hashes {
		if v.isNull(i) {
			hashes[i] = add(hashes[i], null)
		} else {
			hashes[i] = add(hashes[i], uint64(int64(at[T](v, i))))
		}
	}
}

// add continues h with the value in row i: signed integers with their sign,
// unsigned ones with zeros extended to 64 bits, so that a wider type changes nothing.
func (v *vector) add(h uint64, i int, exact bool) uint64 {
	if v.kind == nulls || v.isNull(i) {
		return add(h, null)
	}
	switch v.kind {
	case boolean, uint8s:
		return add(h, uint64(at[uint8](v, i)))
	case int8s:
		return add(h, uint64(int64(at[int8](v, i))))
	case int16s:
		return add(h, uint64(int64(at[int16](v, i))))
	case int32s:
		return add(h, uint64(int64(at[int32](v, i))))
	case int64s, uint64s:
		return add(h, at[uint64](v, i))
	case uint16s:
		return add(h, uint64(at[uint16](v, i)))
	case uint32s:
		return add(h, uint64(at[uint32](v, i)))
	case int128s:
		x := at[struct {
			low  uint64
			high int64
		}](v, i)
		return add128(h, x.low, x.high)
	case float32s:
		return addFloat(h, float64(at[float32](v, i)), exact)
	case float64s:
		return addFloat(h, at[float64](v, i), exact)
	case intervals:
		x := at[struct {
			months, days int32
			micros       int64
		}](v, i)
		return add(add(add(h, uint64(int64(x.months))), uint64(int64(x.days))), uint64(x.micros))
	case bytes:
		return addBytes(h, v.bytes(i))
	case lists:
		x := at[struct{ offset, length uint64 }](v, i)
		for j := range x.length {
			h = v.children[0].add(h, int(x.offset+j), exact)
		}
		return add(h, x.length)
	case arrays: // as a list: that is what it is in a file
		for j := range v.size {
			h = v.children[0].add(h, i*v.size+j, exact)
		}
		return add(h, uint64(v.size))
	default: // structs
		for c := range v.children {
			h = v.children[c].add(h, i, exact)
		}
		return h
	}
}

// encode appends the value in row i so that no two rows of the same types have the
// same bytes, but for NaNs, which are all one.
func (v *vector) encode(b []byte, i int) []byte {
	if v.kind == nulls || v.isNull(i) {
		return append(b, 0)
	}
	b = append(b, 1)
	le := binary.LittleEndian
	switch v.kind {
	case boolean, uint8s, int8s:
		return append(b, at[uint8](v, i))
	case int16s, uint16s:
		return le.AppendUint16(b, at[uint16](v, i))
	case int32s, uint32s:
		return le.AppendUint32(b, at[uint32](v, i))
	case int64s, uint64s:
		return le.AppendUint64(b, at[uint64](v, i))
	case int128s, intervals: // months, days, microseconds
		return append(b, unsafe.Slice((*byte)(unsafe.Add(v.data, i*16)), 16)...)
	case float32s:
		return appendFloat(b, float64(at[float32](v, i)))
	case float64s:
		return appendFloat(b, at[float64](v, i))
	case bytes:
		text := v.bytes(i)
		return append(le.AppendUint64(b, uint64(len(text))), text...)
	case lists:
		x := at[struct{ offset, length uint64 }](v, i)
		b = le.AppendUint64(b, x.length)
		for j := range x.length {
			b = v.children[0].encode(b, int(x.offset+j))
		}
	case arrays: // as a list: that is what it is in a file
		b = le.AppendUint64(b, uint64(v.size))
		for j := range v.size {
			b = v.children[0].encode(b, i*v.size+j)
		}
	default: // structs
		for c := range v.children {
			b = v.children[c].encode(b, i)
		}
	}
	return b
}

func appendFloat(b []byte, f float64) []byte {
	word := math.Float64bits(f)
	if f != f {
		word = oneNaN
	}
	return binary.LittleEndian.AppendUint64(b, word)
}

// bytes returns a string or blob in place.
func (v *vector) bytes(i int) []byte {
	p := unsafe.Add(v.data, i*16)
	n := *(*uint32)(p)
	if n <= inlined {
		return unsafe.Slice((*byte)(unsafe.Add(p, 4)), n)
	}
	return unsafe.Slice(*(**byte)(unsafe.Add(p, 8)), n)
}

// addBytesOf adds to each row what its value in v occupies.
func (v *vector) addBytesOf(rows []uint64) {
	if v.kind != bytes {
		for i := range rows {
			rows[i] += v.bytesOf(i)
		}
		return
	}
	for i := range rows {
		rows[i] += 8
		if !v.isNull(i) {
			rows[i] += uint64(*(*uint32)(unsafe.Add(v.data, i*16)))
		}
	}
}

// bytesOf estimates what the value in row i occupies.
func (v *vector) bytesOf(i int) uint64 {
	const number = 8
	if v.kind == nulls || v.isNull(i) {
		return number
	}
	n := uint64(number)
	switch v.kind {
	case int128s, intervals:
		n += number
	case bytes:
		n += uint64(len(v.bytes(i)))
	case lists:
		x := at[struct{ offset, length uint64 }](v, i)
		for j := range x.length {
			n += v.children[0].bytesOf(int(x.offset + j))
		}
	case arrays:
		for j := range v.size {
			n += v.children[0].bytesOf(i*v.size + j)
		}
	case structs:
		for c := range v.children {
			n += v.children[c].bytesOf(i)
		}
	}
	return n
}
