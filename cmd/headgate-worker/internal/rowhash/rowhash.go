// Package rowhash gives DuckDB functions that look at whole rows, so that a table
// can be cut where its content says. DuckDB's own hash() may change with any
// version; this one is written down in docs/formats.md and never changes.
package rowhash

/*
void headgate_row_hash(void *info, void *chunk, void *out);
void headgate_row_bytes(void *info, void *chunk, void *out);
void headgate_row_exact(void *info, void *chunk, void *out);
*/
import "C"

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"github.com/duckdb/duckdb-go/v2/mapping"
)

// The functions' names in SQL. Each takes any number of values of any types and
// returns a UBIGINT, never NULL.
const (
	// Hash is the hash of the values by which tables are cut. Values that are equal
	// as keys have equal hashes: a 1 of any integer type, 0.0 and -0.0, any NaN.
	Hash = "headgate_row_hash"
	// Bytes is roughly what the values occupy: 8 for each number, a text's length.
	Bytes = "headgate_row_bytes"
	// Exact is a hash that tells any two values apart, -0.0 from 0.0 too.
	Exact = "headgate_row_exact"
)

// Register makes the functions known to the connection's database.
func Register(ctx context.Context, conn *sql.Conn) error {
	return conn.Raw(func(driver any) error {
		handle, err := handleOf(driver)
		if err != nil {
			return err
		}
		for name, f := range map[string]unsafe.Pointer{
			Hash:  unsafe.Pointer(C.headgate_row_hash),
			Bytes: unsafe.Pointer(C.headgate_row_bytes),
			Exact: unsafe.Pointer(C.headgate_row_exact),
		} {
			if err := register(handle, name, f); err != nil {
				return err
			}
		}
		return nil
	})
}

func register(handle mapping.Connection, name string, callback unsafe.Pointer) error {
	f := mapping.CreateScalarFunction()
	defer mapping.DestroyScalarFunction(&f)
	mapping.ScalarFunctionSetName(f, name)
	argument := mapping.CreateLogicalType(mapping.TypeAny)
	defer mapping.DestroyLogicalType(&argument)
	mapping.ScalarFunctionSetVarargs(f, argument)
	result := mapping.CreateLogicalType(mapping.TypeUBigInt)
	defer mapping.DestroyLogicalType(&result)
	mapping.ScalarFunctionSetReturnType(f, result)
	mapping.ScalarFunctionSetSpecialHandling(f) // NULL is a value like any other
	mapping.ScalarFunctionSetFunction(f, callback)
	if mapping.RegisterScalarFunction(handle, f) == mapping.StateError {
		return fmt.Errorf("DuckDB does not take the function %s", name)
	}
	return nil
}

// handleOf takes the C connection out of the driver's. The driver offers
// functions that are called for each value, with each value boxed: fifty times
// what hashing costs. It keeps the handle to itself, so it is read here.
func handleOf(driver any) (mapping.Connection, error) {
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

// fold fills out with start and has step go on with each column of the chunk.
func fold(info, chunk, out unsafe.Pointer, start uint64, step func(*vector, []uint64)) {
	fail := func(reason any) {
		mapping.ScalarFunctionSetError(mapping.FunctionInfo{Ptr: info}, fmt.Sprint("look at rows: ", reason))
	}
	// A panic must not unwind into C++.
	defer func() {
		if p := recover(); p != nil {
			fail(p)
		}
	}()
	c := mapping.DataChunk{Ptr: chunk}
	rows := unsafe.Slice((*uint64)(mapping.VectorGetData(mapping.Vector{Ptr: out})), int(mapping.DataChunkGetSize(c)))
	for i := range rows {
		rows[i] = start
	}
	for i := range mapping.DataChunkGetColumnCount(c) {
		v, err := open(mapping.DataChunkGetVector(c, i))
		if err != nil {
			fail(err)
			return
		}
		step(&v, rows)
	}
}
