package objects

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"sync"

	"github.com/pjbgf/sha1cd"
)

// errCollision says that the content was made to share its SHA-1 with another.
var errCollision = errors.New("its SHA-1 has been tampered with: a collision attack was detected")

// namer computes the name of new content, and notices collision attacks.
type namer struct {
	h hash.Hash
}

var namers = sync.Pool{New: func() any { return &namer{h: sha1cd.New()} }}

func newNamer(t Type, size int64) *namer {
	n := namers.Get().(*namer)
	n.h.Reset()
	n.h.Write(objectHeader(t, size))
	return n
}

func (n *namer) Write(p []byte) (int, error) { return n.h.Write(p) }

// name returns the oid, and ends the namer's use.
func (n *namer) name() (OID, error) {
	sum, collision := n.h.(sha1cd.CollisionResistantHash).CollisionResistantSum(nil)
	if collision {
		return OID{}, errCollision
	}
	namers.Put(n)
	return OID(sum), nil
}

func objectHeader(t Type, size int64) []byte {
	b := append(make([]byte, 0, 32), t.String()...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, size, 10)
	return append(b, 0)
}

// nameOf returns the name of content that is already in the store: plain SHA-1
// is enough, content with a collision never got in.
func nameOf(t Type, data []byte) OID {
	h := sha1.New()
	h.Write(objectHeader(t, int64(len(data))))
	h.Write(data)
	var oid OID
	h.Sum(oid[:0])
	return oid
}

// verifyingReader streams an object and fails at its end if the content is not
// what its name says.
type verifyingReader struct {
	rc   io.ReadCloser
	h    hash.Hash
	oid  OID
	left int64
}

func newVerifyingReader(rc io.ReadCloser, oid OID, info Info) io.ReadCloser {
	h := sha1.New()
	h.Write(objectHeader(info.Type, info.Size))
	return &verifyingReader{rc, h, oid, info.Size}
}

func (v *verifyingReader) Read(p []byte) (int, error) {
	n, err := v.rc.Read(p)
	v.h.Write(p[:n])
	v.left -= int64(n)
	if v.left < 0 || err == io.EOF && v.left > 0 {
		return n, &CorruptError{OID: v.oid, Reason: "its size has changed"}
	}
	if err == io.EOF {
		var got OID
		v.h.Sum(got[:0])
		if got != v.oid {
			return n, &CorruptError{OID: v.oid, Reason: fmt.Sprintf("its content hashes to %s", got)}
		}
	}
	return n, err
}

func (v *verifyingReader) Close() error { return v.rc.Close() }

// CorruptError says that a stored object is not what it was when it was put.
type CorruptError struct {
	OID    OID
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("stored object %s is damaged: %s", e.OID, e.Reason)
}
