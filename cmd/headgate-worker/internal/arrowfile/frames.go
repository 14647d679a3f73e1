package arrowfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow/memory"
	flatbuffers "github.com/google/flatbuffers/go"
)

// Bounds of one message. arrow-go allocates what a message announces.
const (
	maxMetadata = 64 << 20
	maxFields   = 100_000
	maxBatch    = 1 << 30 // bytes of a batch, and of what it decompresses to
)

// frames passes on the encapsulated messages of a stream (Arrow columnar format,
// "Encapsulated message format") whose announcements are kept by what follows.
type frames struct {
	r    io.Reader
	left int64  // bytes of r
	head []byte // of the current message, not passed on yet
	body int64  // bytes of it that follow
	end  bool

	fields, views int // of the schema
}

// Read passes on checked bytes.
func (f *frames) Read(p []byte) (n int, err error) {
	if len(f.head) == 0 && f.body == 0 {
		if f.end {
			return 0, io.EOF
		}
		if err := f.message(); err != nil {
			return 0, err
		}
	}
	if len(f.head) > 0 {
		n = copy(p, f.head)
		f.head = f.head[n:]
		return n, nil
	}
	n, err = f.r.Read(p[:min(int64(len(p)), f.body)])
	f.body -= int64(n)
	f.left -= int64(n)
	if errors.Is(err, io.EOF) && f.body > 0 {
		err = io.ErrUnexpectedEOF
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *frames) take(n int64) ([]byte, error) {
	if n < 0 || n > f.left {
		return nil, io.ErrUnexpectedEOF
	}
	b := make([]byte, n)
	_, err := io.ReadFull(f.r, b)
	f.left -= n
	return b, err
}

// message reads what is in front of the next message's body, and checks it.
func (f *frames) message() (err error) {
	defer func() {
		if p := recover(); p != nil { // flatbuffers check no offsets
			err = fmt.Errorf("malformed message: %v", p)
		}
	}()
	if f.left == 0 { // a stream may end without saying so
		f.end = true
		return io.EOF
	}
	head, err := f.take(4)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(head) == 0xffffffff { // not in versions before 0.15
		length, err := f.take(4)
		if err != nil {
			return err
		}
		head = append(head, length...)
	}
	length := int64(binary.LittleEndian.Uint32(head[len(head)-4:]))
	if length == 0 {
		f.head, f.end = head, true
		return nil
	}
	if length > maxMetadata {
		return fmt.Errorf("malformed message: metadata of %d bytes", length)
	}
	meta, err := f.take(length)
	if err != nil {
		return err
	}
	if f.body, err = f.check(meta); err != nil {
		return err
	}
	f.head = append(head, meta...)
	return nil
}

// Places of fields in Message.fbs and Schema.fbs, as offsets in their vtables.
const (
	headerType, header, bodyLength             = 6, 8, 10 // of a Message
	buffers, variadic                          = 8, 12    // of a RecordBatch
	dictionaryData                             = 6        // of a DictionaryBatch
	schemaFields, schemaMetadata               = 6, 8
	fieldChildren, fieldMetadata               = 14, 16
	fieldType, fieldDictionary                 = 8, 12
	isBinaryView, isTextView                   = 23, 24
	isSchema, isDictionaryBatch, isRecordBatch = 1, 2, 3
	bufferStruct                               = 16
)

// check returns the length of the message's body.
func (f *frames) check(meta []byte) (int64, error) {
	m := flatbuffers.Table{Bytes: meta, Pos: flatbuffers.GetUOffsetT(meta)}
	body := m.GetInt64Slot(bodyLength, 0)
	if body < 0 || body > f.left {
		return 0, io.ErrUnexpectedEOF
	}
	if body > maxBatch {
		return 0, fmt.Errorf("a batch of %d bytes, the limit is %d: write smaller ones", body, maxBatch)
	}
	at := m.Offset(header)
	kind := m.GetByteSlot(headerType, 0)
	if at == 0 || kind != isSchema && kind != isRecordBatch && kind != isDictionaryBatch {
		return body, nil
	}
	var batch flatbuffers.Table
	m.Union(&batch, flatbuffers.UOffsetT(at))
	if kind == isSchema {
		f.fields, f.views = 0, 0
		return body, f.checkFields(batch, schemaFields, schemaMetadata, false, 0)
	}
	if kind == isDictionaryBatch {
		at := batch.Offset(dictionaryData)
		if at == 0 {
			return 0, errors.New("malformed message: a dictionary without data")
		}
		batch.Pos = batch.Indirect(batch.Pos + flatbuffers.UOffsetT(at))
	}
	count := 0
	if at := batch.Offset(buffers); at != 0 {
		count = batch.VectorLen(flatbuffers.UOffsetT(at))
		if count < 0 || count*bufferStruct > len(meta) {
			return 0, fmt.Errorf("malformed message: %d buffers", count)
		}
	}
	views := 0
	if at := batch.Offset(variadic); at != 0 {
		first := batch.Vector(flatbuffers.UOffsetT(at))
		views = batch.VectorLen(flatbuffers.UOffsetT(at))
		for i := range views {
			if c := batch.GetInt64(first + flatbuffers.UOffsetT(8*i)); c < 0 || c > int64(count) {
				return 0, fmt.Errorf("malformed message: %d buffers of a view", c)
			}
		}
	}
	// arrow-go looks beyond the vector's end for more.
	if kind == isRecordBatch && views < f.views {
		return 0, fmt.Errorf("malformed message: buffers of %d views, want %d", views, f.views)
	}
	return body, nil
}

// checkFields holds a Schema, or a Field, to the lengths of its vectors, and counts
// what is in it. inside says that it is of a dictionary's values.
func (f *frames) checkFields(t flatbuffers.Table, children, metadata flatbuffers.VOffsetT, inside bool, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("a column that is nested more than %d deep", maxDepth)
	}
	if at := t.Offset(metadata); at != 0 {
		if n := t.VectorLen(flatbuffers.UOffsetT(at)); n < 0 || 4*n > len(t.Bytes) {
			return fmt.Errorf("malformed message: %d entries of metadata", n)
		}
	}
	at := t.Offset(children)
	if at == 0 {
		return nil
	}
	first, n := t.Vector(flatbuffers.UOffsetT(at)), t.VectorLen(flatbuffers.UOffsetT(at))
	if f.fields += n; n < 0 || f.fields > maxFields {
		return fmt.Errorf("more than %d columns and fields", maxFields)
	}
	for i := range n {
		field := flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(first + flatbuffers.UOffsetT(4*i))}
		inside := inside || field.Offset(fieldDictionary) != 0
		if kind := field.GetByteSlot(fieldType, 0); kind == isBinaryView || kind == isTextView {
			if inside {
				return errors.New("a dictionary of views: write its values as texts")
			}
			f.views++
		}
		if err := f.checkFields(field, fieldChildren, fieldMetadata, inside, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// bounded is Go's allocator with a limit for each message; over it, it panics, which
// arrow-go's reader turns into its error.
type bounded struct {
	memory.GoAllocator
	left int
}

// Allocate returns a buffer of n bytes.
func (b *bounded) Allocate(n int) []byte {
	b.charge(n)
	return b.GoAllocator.Allocate(n)
}

// Reallocate returns a buffer of n bytes with the content of an older one.
func (b *bounded) Reallocate(n int, old []byte) []byte {
	b.charge(n - len(old))
	return b.GoAllocator.Reallocate(n, old)
}

func (b *bounded) charge(n int) {
	if n > b.left {
		panic(fmt.Sprintf("a batch of more than %d bytes: write smaller ones", maxBatch))
	}
	b.left -= max(n, 0)
}
