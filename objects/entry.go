package objects

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"

	"github.com/headgate/headgate/objects/pack"
)

// Small objects are kept whole and deflated in packs, never as deltas: one
// ranged read finds one object, an entry's bytes go out to a client as they
// are, and no chain can be broken or be made expensive. Deltas would save
// space on trees and commits, of which a lake has few next to its parts.

var deflaters = sync.Pool{New: func() any { return zlib.NewWriter(nil) }}

// encodeEntry returns an object as a pack entry.
func encodeEntry(t Type, data []byte) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(len(data)/2 + 64)
	b.Write(pack.AppendEntryHeader(nil, t, int64(len(data))))
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

// decodeEntry returns the object of a pack entry of our own, after checking
// that it hashes to its name.
func decodeEntry(oid OID, entry []byte) (Type, []byte, error) {
	t, size, n, err := pack.ParseEntryHeader(entry)
	if err != nil {
		return 0, nil, &CorruptError{oid, err.Error()}
	}
	// Deflate shrinks by at most 1032 to 1: a damaged size must not allocate more.
	if size > int64(len(entry))*1032+64 {
		return 0, nil, &CorruptError{oid, fmt.Sprintf("%d bytes cannot hold %d", len(entry), size)}
	}
	data := make([]byte, size)
	if err := inflate(entry[n:], data); err != nil {
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
