package objects

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"

	"github.com/headgate/headgate/objects/pack"
)

// Small objects come whole and deflated: a quarantine resolves the deltas of a
// push. When packs are joined, versions of a tree or a text become deltas (see
// deltify.go), a few deep and each within its own pack.

var deflaters = sync.Pool{New: func() any { return zlib.NewWriter(nil) }}

// encodeEntry returns an object as a pack entry.
func encodeEntry(t Type, data []byte) ([]byte, error) {
	return deflated(pack.AppendEntryHeader(nil, t, int64(len(data))), data)
}

// deflated returns head and the zlib stream of data.
func deflated(head, data []byte) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(len(data)/2 + 64)
	b.Write(head)
	zw := deflaters.Get().(*zlib.Writer)
	defer deflaters.Put(zw)
	zw.Reset(&b)
	if _, err := zw.Write(data); err != nil {
		return nil, err
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

var inflaters sync.Pool

// decodeEntry returns the object of a quarantine's pack entry, which is no delta,
// after checking that it hashes to its name.
func decodeEntry(oid OID, entry []byte) (Type, []byte, error) {
	t, size, n, err := pack.ParseEntryHeader(entry)
	if err != nil {
		return 0, nil, &CorruptError{oid, err.Error()}
	}
	data, err := inflated(entry[n:], size)
	if err != nil {
		return 0, nil, &CorruptError{oid, err.Error()}
	}
	if got := nameOf(t, data); got != oid {
		return 0, nil, &CorruptError{oid, fmt.Sprintf("its content hashes to %s", got)}
	}
	return t, data, nil
}

// inflate fills data from a zlib stream that must hold exactly that much.
func inflate(stream, data []byte) error {
	r := bytes.NewReader(stream)
	zr, ok := inflaters.Get().(io.ReadCloser)
	var err error
	if ok {
		err = zr.(zlib.Resetter).Reset(r, nil)
	} else {
		zr, err = zlib.NewReader(r)
	}
	if err != nil {
		return err
	}
	defer inflaters.Put(zr)
	if _, err := io.ReadFull(zr, data); err != nil {
		return err
	}
	if n, err := zr.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("more than %d bytes, %w", len(data), err)
	}
	return nil
}
