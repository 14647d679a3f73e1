// Package objects is a lake's content-addressed store: git objects, large blobs
// raw under their oid and small ones in packs, with a quarantine in front. It
// knows nothing of refs, and nothing of what a table is.
package objects

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/objects/gitobj"
)

// OID is the SHA-1 name of a git object. It is go-git's type, so that go-git's
// codecs and ours speak of the same thing.
type OID = plumbing.Hash

// Type is the kind of a git object.
type Type = plumbing.ObjectType

// The four kinds of object that a store holds; deltas never leave a pack.
const (
	Commit = plumbing.CommitObject
	Tree   = plumbing.TreeObject
	Blob   = plumbing.BlobObject
	Tag    = plumbing.TagObject
)

// ErrNotFound is what every lookup wraps when the object is not there. Any
// other error means that the store could not tell.
var ErrNotFound = errors.New("object not found")

// Info is what is known of an object without reading its content.
type Info = gitobj.Info

// Reader looks objects up. It is safe for concurrent use.
type Reader interface {
	// Stat returns the object's type and size, or an error wrapping ErrNotFound.
	Stat(ctx context.Context, oid OID) (Info, error)
	// Open streams the object's content. The reader fails with an error at its
	// end if the content does not hash to oid.
	Open(ctx context.Context, oid OID) (Info, io.ReadCloser, error)
}

// Writer takes new objects. They are visible to the writer's own Reader at
// once, and to others when the writer says so (see Quarantine).
type Writer interface {
	// Put stores exactly size bytes of r and returns the object's name.
	// Putting an object that is already there is cheap and is no error.
	Put(ctx context.Context, t Type, size int64, r io.Reader) (OID, error)
}

// Linker is the optional ability to place a blob in the file system as a
// read-only file (a hard link where the store has it raw on the same file
// system, else a copy). path must not exist.
type Linker interface {
	Link(ctx context.Context, oid OID, path string) error
}

// ReadWriter is a Reader that takes objects too.
type ReadWriter interface {
	Reader
	Writer
}

// ParseOID reads the 40 lower-case hex digits of an oid.
func ParseOID(s string) (OID, error) {
	if len(s) != 40 {
		return OID{}, fmt.Errorf("oid %q: want 40 hex digits, have %d characters", s, len(s))
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return OID{}, fmt.Errorf("oid %q: %q is not a lower-case hex digit", s, c)
		}
	}
	return plumbing.NewHash(s), nil
}

// ReadAll returns the whole content of a small object. It fails if the object
// is not of type want or is larger than limit bytes: nothing foreign is read
// into memory without a bound.
func ReadAll(ctx context.Context, r Reader, oid OID, want Type, limit int64) ([]byte, error) {
	info, rc, err := r.Open(ctx, oid)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	if info.Type != want {
		return nil, fmt.Errorf("object %s is a %s, want a %s", oid, info.Type, want)
	}
	if info.Size > limit {
		return nil, fmt.Errorf("%s %s has %d bytes, limit is %d", info.Type, oid, info.Size, limit)
	}
	buf := make([]byte, info.Size)
	if _, err := io.ReadFull(rc, buf); err != nil {
		return nil, fmt.Errorf("read %s %s: %w", info.Type, oid, err)
	}
	// One more read lets the stream report a content that does not hash to its name.
	if n, err := rc.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		if err == nil || err == io.EOF {
			err = errors.New("more bytes than its header says")
		}
		return nil, fmt.Errorf("read %s %s: %w", info.Type, oid, err)
	}
	return buf, nil
}
