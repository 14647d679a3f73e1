package arrowfile

/*
#include <stdint.h>
#include <stdlib.h>

// Arrow's C data interface; what is in them is of no concern here.
struct ArrowSchema { const char *format, *name, *metadata; int64_t flags, n_children; void **children, *dictionary; void (*release)(void *); void *private_data; };
struct ArrowArray { int64_t length, null_count, offset, n_buffers, n_children; void **buffers, **children, *dictionary; void (*release)(void *); void *private_data; };
struct ArrowArrayStream { void *get_schema, *get_next, *get_last_error, *release, *private_data; };

// Of DuckDB's C API, whose handles are pointers. The driver has these functions
// under a build tag only, which then every build and every test would need.
int duckdb_arrow_scan(void *connection, const char *name, void *stream);
void duckdb_connection_get_arrow_options(void *connection, void **options);
void duckdb_destroy_arrow_options(void **options);
void *duckdb_to_arrow_schema(void *options, void **types, const char **names, uint64_t n, void *schema);
void *duckdb_data_chunk_to_arrow(void *options, void *chunk, void *array);
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/cdata"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	bindings "github.com/duckdb/duckdb-go-bindings"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// batchBytes is about how much is in a record batch that is written.
const batchBytes = 4 << 20

// View makes the reader's rows a view of the database, which can be read once. The
// view must not be used after release, nor after the reader is closed.
func (r *Reader) View(conn mapping.Connection, name string) (release func(), err error) {
	stream := C.calloc(1, C.sizeof_struct_ArrowArrayStream)
	release = func() {
		cdata.ReleaseCArrowArrayStream((*cdata.CArrowArrayStream)(stream))
		C.free(stream)
	}
	cdata.ExportRecordReader(r, (*cdata.CArrowArrayStream)(stream))
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	if C.duckdb_arrow_scan(conn.Ptr, cName, stream) != 0 {
		release()
		return nil, errors.New("DuckDB does not take the columns of this Arrow file")
	}
	return release, nil
}

// rehearse hands a batch to C and takes it back, so that if arrow-go panics on what
// check let pass, it does so where the panic can be caught. It copies no values.
func rehearse(batch arrow.RecordBatch) {
	out := C.calloc(1, C.sizeof_struct_ArrowArray)
	defer C.free(out)
	cdata.ExportArrowRecordBatch(batch, (*cdata.CArrowArray)(out), nil)
	cdata.ReleaseCArrowArray((*cdata.CArrowArray)(out))
}

// Write runs a query and writes its rows as an IPC file, or as a stream, batch by
// batch as DuckDB has them. It returns their number.
func Write(ctx context.Context, conn mapping.Connection, query string, out io.Writer, stream bool) (rows int64, err error) {
	result, done, err := run(conn, query)
	if err != nil {
		return 0, err
	}
	defer done()
	var options unsafe.Pointer
	C.duckdb_connection_get_arrow_options(conn.Ptr, &options)
	defer C.duckdb_destroy_arrow_options(&options)
	schema, err := schemaOf(result, options)
	if err != nil {
		return 0, err
	}
	w := &writer{schema: schema}
	if stream {
		w.w = ipc.NewWriter(out, ipc.WithSchema(schema))
	} else if w.w, err = ipc.NewFileWriter(out, ipc.WithSchema(schema)); err != nil {
		return 0, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		chunk := mapping.FetchChunk(result)
		if chunk.Ptr == nil {
			if failed := mapping.ResultError(&result); failed != "" {
				return 0, errors.New(failed)
			}
			return rows, errors.Join(w.flush(), w.w.Close())
		}
		n := int64(mapping.DataChunkGetSize(chunk))
		err = w.add(options, chunk)
		mapping.DestroyDataChunk(&chunk)
		if err != nil {
			return 0, err
		}
		rows += n
	}
}

// run starts a query whose rows come as they are asked for.
func run(conn mapping.Connection, query string) (result mapping.Result, done func(), err error) {
	var statement mapping.PreparedStatement
	defer mapping.DestroyPrepare(&statement)
	if mapping.Prepare(conn, query, &statement) == mapping.StateError {
		return result, nil, errors.New(mapping.PrepareError(statement))
	}
	var pending mapping.PendingResult
	defer mapping.DestroyPending(&pending)
	if bindings.PendingPreparedStreaming(statement, &pending) == mapping.StateError {
		return result, nil, errors.New(mapping.PendingError(pending))
	}
	if mapping.ExecutePending(pending, &result) == mapping.StateError {
		err := errors.New(mapping.ResultError(&result))
		mapping.DestroyResult(&result)
		return result, nil, err
	}
	return result, func() { mapping.DestroyResult(&result) }, nil
}

func schemaOf(result mapping.Result, options unsafe.Pointer) (*arrow.Schema, error) {
	n := mapping.ColumnCount(&result)
	// In C's memory, since they hold pointers.
	types := unsafe.Slice((*unsafe.Pointer)(C.calloc(C.size_t(n), C.size_t(unsafe.Sizeof(uintptr(0))))), n)
	names := unsafe.Slice((**C.char)(C.calloc(C.size_t(n), C.size_t(unsafe.Sizeof(uintptr(0))))), n)
	defer C.free(unsafe.Pointer(&types[0]))
	defer C.free(unsafe.Pointer(&names[0]))
	for i := range n {
		t := mapping.ColumnLogicalType(&result, i)
		defer mapping.DestroyLogicalType(&t)
		types[i], names[i] = t.Ptr, C.CString(mapping.ColumnName(&result, i))
		defer C.free(unsafe.Pointer(names[i]))
	}
	out := C.calloc(1, C.sizeof_struct_ArrowSchema)
	defer func() {
		cdata.ReleaseCArrowSchema((*cdata.CArrowSchema)(out))
		C.free(out)
	}()
	if err := failure(C.duckdb_to_arrow_schema(options, &types[0], &names[0], C.uint64_t(n), out)); err != nil {
		return nil, err
	}
	return cdata.ImportCArrowSchema((*cdata.CArrowSchema)(out))
}

// failure takes DuckDB's error data apart, nil if it is of success.
func failure(p unsafe.Pointer) error {
	data := mapping.ErrorData{Ptr: p}
	defer mapping.DestroyErrorData(&data)
	if p == nil || !mapping.ErrorDataHasError(data) {
		return nil
	}
	return errors.New(mapping.ErrorDataMessage(data))
}

// writer joins DuckDB's chunks of 2,048 rows to batches.
type writer struct {
	schema *arrow.Schema
	w      interface {
		Write(arrow.RecordBatch) error
		Close() error
	}
	held  []arrow.RecordBatch
	bytes int64
}

func (w *writer) add(options unsafe.Pointer, chunk mapping.DataChunk) error {
	out := C.calloc(1, C.sizeof_struct_ArrowArray)
	defer func() {
		cdata.ReleaseCArrowArray((*cdata.CArrowArray)(out))
		C.free(out)
	}()
	if err := failure(C.duckdb_data_chunk_to_arrow(options, chunk.Ptr, out)); err != nil {
		return err
	}
	batch, err := cdata.ImportCRecordBatchWithSchema((*cdata.CArrowArray)(out), w.schema)
	if err != nil {
		return err
	}
	w.held = append(w.held, batch)
	for _, c := range batch.Columns() {
		w.bytes += int64(c.Data().SizeInBytes())
	}
	if w.bytes < batchBytes {
		return nil
	}
	return w.flush()
}

func (w *writer) flush() error {
	if len(w.held) == 0 {
		return nil
	}
	defer func() {
		for _, b := range w.held {
			b.Release()
		}
		w.held, w.bytes = nil, 0
	}()
	columns := make([]arrow.Array, w.schema.NumFields())
	rows := int64(0)
	for i := range columns {
		pieces := make([]arrow.Array, len(w.held))
		for j, b := range w.held {
			pieces[j] = b.Column(i)
		}
		joined, err := array.Concatenate(pieces, memory.DefaultAllocator)
		if err != nil {
			return fmt.Errorf("column %q: %w", w.schema.Field(i).Name, err)
		}
		defer joined.Release()
		columns[i], rows = joined, int64(joined.Len())
	}
	batch := array.NewRecordBatch(w.schema, columns, rows)
	defer batch.Release()
	return w.w.Write(batch)
}
