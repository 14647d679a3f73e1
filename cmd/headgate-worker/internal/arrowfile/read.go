// Package arrowfile passes Arrow's IPC files and streams to DuckDB, and its results
// back. DuckDB believes every offset in Arrow data, so what is read is checked first:
// a malformed file is an error, never a read of other memory. It knows no tables.
package arrowfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
)

// fileMagic is what the IPC file format begins with; a stream begins with a message.
const fileMagic = "ARROW1"

// Reader gives the record batches of one file or stream, each checked. It is an
// array.RecordReader, used by one goroutine.
type Reader struct {
	f      *os.File
	next   func() (arrow.RecordBatch, error) // the batch is valid until the next call
	schema *arrow.Schema
	batch  arrow.RecordBatch
	err    error
}

// Open reads the schema of the file at path. The caller closes the reader.
func Open(path string) (_ *Reader, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r := &Reader{f: f}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("malformed Arrow data: %v", p)
		}
		if err != nil {
			f.Close()
		}
	}()
	messages, err := r.messages()
	if err != nil {
		return nil, err
	}
	budget := &bounded{left: maxBatch}
	stream, err := ipc.NewReader(messages, ipc.WithAllocator(budget))
	if err != nil {
		return nil, fmt.Errorf("not an Arrow IPC file or stream: %w", err)
	}
	r.schema, r.next = stream.Schema(), func() (arrow.RecordBatch, error) {
		budget.left = maxBatch
		if stream.Next() {
			return stream.RecordBatch(), nil
		}
		if err := stream.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	for _, field := range r.schema.Fields() {
		if err := checkType(field.Type); err != nil {
			return nil, fmt.Errorf("column %q %w", field.Name, err)
		}
	}
	return r, nil
}

// messages returns the stream that is in a file, or that the file is. A file is a
// stream between two magics, with an index that who reads it in order does not need
// (Arrow columnar format, "IPC File Format").
func (r *Reader) messages() (io.Reader, error) {
	info, err := r.f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	magic := make([]byte, len(fileMagic))
	if _, err := r.f.ReadAt(magic, 0); err != nil {
		return nil, errors.New("not an Arrow IPC file or stream: it is too short")
	}
	start := int64(0)
	if string(magic) == fileMagic {
		const padded = 8
		if _, err := r.f.ReadAt(magic, size-int64(len(magic))); err != nil || size < 2*padded || string(magic) != fileMagic {
			return nil, errors.New("not a whole Arrow IPC file: was it cut short?")
		}
		start = padded
	}
	return &frames{r: io.NewSectionReader(r.f, start, size-start), left: size - start}, nil
}

// Close ends the reader.
func (r *Reader) Close() error { return r.f.Close() }

// Schema returns the schema of all batches.
func (r *Reader) Schema() *arrow.Schema { return r.schema }

// Next moves on to the next batch; false at the end, or after an error.
func (r *Reader) Next() (more bool) {
	if r.err != nil {
		return false
	}
	// arrow-go panics on some of what is malformed, and this is called from C.
	defer func() {
		if p := recover(); p != nil {
			r.err, more = fmt.Errorf("malformed Arrow data: %v", p), false
		}
	}()
	batch, err := r.next()
	if errors.Is(err, io.EOF) {
		return false
	}
	if err != nil {
		r.err = fmt.Errorf("malformed Arrow data, or a file that was cut short: %w", err)
		return false
	}
	for i, column := range batch.Columns() {
		name := r.schema.Field(i).Name
		if int64(column.Len()) != batch.NumRows() {
			r.err = fmt.Errorf("malformed Arrow data: column %q has %d rows of %d", name, column.Len(), batch.NumRows())
			return false
		}
		if err := check(column.Data()); err != nil {
			r.err = fmt.Errorf("column %q %w", name, err)
			return false
		}
	}
	rehearse(batch)
	r.batch = batch
	return true
}

// RecordBatch returns the current batch.
func (r *Reader) RecordBatch() arrow.RecordBatch { return r.batch }

// Record returns the current batch.
//
// Deprecated: the interface has it still.
func (r *Reader) Record() arrow.RecordBatch { return r.batch }

// Err returns why Next returned false; nil at the end.
func (r *Reader) Err() error { return r.err }

// Retain does nothing: the reader lives until Close.
func (r *Reader) Retain() {}

// Release does nothing: the reader lives until Close.
func (r *Reader) Release() {}
