// Package rowhash gives DuckDB functions that look at whole rows, so that a table
// can be cut where its content says. DuckDB's own hash() may change with any
// version; this one is written down in docs/formats.md and never changes.
package rowhash

/*
void headgate_row_hash(void *info, void *chunk, void *out);
void headgate_row_bytes(void *info, void *chunk, void *out);
void headgate_row_exact(void *info, void *chunk, void *out);
void headgate_row_digest(void *info, void *chunk, void *out);
*/
import "C"

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"github.com/duckdb/duckdb-go/v2/mapping"
)

// The functions' names in SQL. Each takes any number of values of any types and
// returns a UBIGINT (Digest: a UHUGEINT), never NULL.
const (
	// Hash is the hash of the values by which tables are cut. Values that are equal
	// as keys have equal hashes: a 1 of any integer type, 0.0 and -0.0, any NaN.
	Hash = "headgate_row_hash"
	// Bytes is roughly what the values occupy: 8 for each number, a text's length.
	Bytes = "headgate_row_bytes"
	// Exact is a hash that tells any two values apart, -0.0 from 0.0 too.
	Exact = "headgate_row_exact"
	// Digest tells any two rows apart as Exact does values, and cannot be fooled: 128 bits
	// of SHA-256. Rows of one schema are compared by it in the place of all their values.
	Digest = "headgate_row_digest"
)

// Register makes the functions known to the connection's database.
func Register(ctx context.Context, conn *sql.Conn) error {
	return conn.Raw(func(driver any) error {
		handle, err := Handle(driver)
		if err != nil {
			return err
		}
		for name, f := range map[string]unsafe.Pointer{
			Hash:   unsafe.Pointer(C.headgate_row_hash),
			Bytes:  unsafe.Pointer(C.headgate_row_bytes),
			Exact:  unsafe.Pointer(C.headgate_row_exact),
			Digest: unsafe.Pointer(C.headgate_row_digest),
		} {
			result := mapping.TypeUBigInt
			if name == Digest {
				result = mapping.TypeUHugeInt
			}
			if err := register(handle, name, f, result); err != nil {
				return err
			}
		}
		return nil
	})
}

func register(handle mapping.Connection, name string, callback unsafe.Pointer, returns mapping.Type) error {
	f := mapping.CreateScalarFunction()
	defer mapping.DestroyScalarFunction(&f)
	mapping.ScalarFunctionSetName(f, name)
	argument := mapping.CreateLogicalType(mapping.TypeAny)
	defer mapping.DestroyLogicalType(&argument)
	mapping.ScalarFunctionSetVarargs(f, argument)
	result := mapping.CreateLogicalType(returns)
	defer mapping.DestroyLogicalType(&result)
	mapping.ScalarFunctionSetReturnType(f, result)
	mapping.ScalarFunctionSetSpecialHandling(f) // NULL is a value like any other
	mapping.ScalarFunctionSetFunction(f, callback)
	if mapping.RegisterScalarFunction(handle, f) == mapping.StateError {
		return fmt.Errorf("DuckDB does not take the function %s", name)
	}
	return nil
}

// Handle takes the C connection out of the driver's. The driver offers
// functions that are called for each value, with each value boxed: fifty times
// what hashing costs. It keeps the handle to itself, so it is read here.
func Handle(driver any) (mapping.Connection, error) {
	v := reflect.ValueOf(driver)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return mapping.Connection{}, fmt.Errorf("driver connection is a %T", driver)
	}
	field := v.Elem().FieldByName("conn")
	if !field.IsValid() || field.Type() != reflect.TypeFor[mapping.Connection]() {
		return mapping.Connection{}, errors.New("the DuckDB driver has no connection handle where this version of it should")
	}
	return mapping.Connection{Ptr: field.FieldByName("Ptr").UnsafePointer()}, nil
}

//export headgate_row_hash
func headgate_row_hash(info, chunk, out unsafe.Pointer) { // a C name, as in the preamble
	fold(info, chunk, out, seed, func(v *vector, rows []uint64) { v.addAll(rows, false) })
}

//export headgate_row_exact
func headgate_row_exact(info, chunk, out unsafe.Pointer) { // a C name, as in the preamble
	fold(info, chunk, out, seed, func(v *vector, rows []uint64) { v.addAll(rows, true) })
}

//export headgate_row_bytes
func headgate_row_bytes(info, chunk, out unsafe.Pointer) { // a C name, as in the preamble
	fold(info, chunk, out, 0, func(v *vector, rows []uint64) { v.addBytesOf(rows) })
}

//export headgate_row_digest
func headgate_row_digest(info, chunk, out unsafe.Pointer) { // a C name, as in the preamble
	defer guard(info)
	vectors, err := columns(chunk)
	if err != nil {
		fail(info, err)
		return
	}
	rows := results[[2]uint64](chunk, out) // a UHUGEINT's lower half is first
	var b []byte
	for i := range rows {
		b = b[:0]
		for j := range vectors {
			b = vectors[j].encode(b, i)
		}
		sum := sha256.Sum256(b)
		rows[i] = [2]uint64{binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:16])}
	}
}

// fold fills out with start and has step go on with each column of the chunk.
func fold(info, chunk, out unsafe.Pointer, start uint64, step func(*vector, []uint64)) {
	defer guard(info)
	vectors, err := columns(chunk)
	if err != nil {
		fail(info, err)
		return
	}
	rows := results[uint64](chunk, out)
	for i := range rows {
		rows[i] = start
	}
	for i := range vectors {
		step(&vectors[i], rows)
	}
}

func columns(chunk unsafe.Pointer) ([]vector, error) {
	c := mapping.DataChunk{Ptr: chunk}
	vectors := make([]vector, mapping.DataChunkGetColumnCount(c))
	for i := range vectors {
		var err error
		if vectors[i], err = open(mapping.DataChunkGetVector(c, mapping.IdxT(i))); err != nil {
			return nil, err
		}
	}
	return vectors, nil
}

// results is where the results of a chunk's rows go.
func results[T any](chunk, out unsafe.Pointer) []T {
	return unsafe.Slice((*T)(mapping.VectorGetData(mapping.Vector{Ptr: out})), int(mapping.DataChunkGetSize(mapping.DataChunk{Ptr: chunk})))
}

func fail(info unsafe.Pointer, reason any) {
	mapping.ScalarFunctionSetError(mapping.FunctionInfo{Ptr: info}, fmt.Sprint("look at rows: ", reason))
}

// guard is deferred: a panic must not unwind into C++.
func guard(info unsafe.Pointer) {
	if p := recover(); p != nil {
		fail(info, p)
	}
}
