// Package backend keeps named byte strings: in memory, or in a directory. It
// knows nothing of git; the store above it decides on names and contents.
package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// ErrNotFound is what Get, Stat, OpenAt and Link wrap when the key is not
// there. Any other error means that the backend could not tell.
var ErrNotFound = errors.New("key not found")

// Info is what is known of a key without reading its content.
type Info struct {
	Key  string
	Size int64
	// Modified is when the content was written, to the second at least. A key that
	// is put again, or copied with the rest of a store, may be younger than that.
	Modified time.Time
}

// Backend is safe for concurrent use. It does not retry; a caller may, every
// method can be repeated.
type Backend interface {
	// Put stores all of r under key, replacing what was there. When it returns
	// nil the content is durable; until then, and if r or ctx fails, readers see
	// what was there before.
	Put(ctx context.Context, key string, r io.Reader) error
	// Get streams n bytes from off; a negative n means up to the end. A range
	// that reaches beyond the end is cut, one that starts there is empty.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
	Stat(ctx context.Context, key string) (Info, error)
	// Delete removes the key. It is no error if the key is not there.
	Delete(ctx context.Context, key string) error
	// List calls fn for each key that starts with prefix, in no promised order,
	// and stops at fn's first error, which it returns. fn may call the backend.
	List(ctx context.Context, prefix string, fn func(Info) error) error
}

// Adoption names a finished, fsynced file and the key that it becomes.
type Adoption struct {
	Key, Path string
}

// Adopter is the optional ability to take over files of the same file system by
// renaming them. The files become visible in the given order, each at once, and
// all are durable when Adopt returns nil. After an error some may have been taken.
type Adopter interface {
	Adopt(ctx context.Context, files []Adoption) error
}

// Linker is the optional ability to make a hard link to a key's file at path,
// which must not exist.
type Linker interface {
	Link(ctx context.Context, key, path string) error
}

// ReadAtCloser reads an open key at any offset, concurrently.
type ReadAtCloser interface {
	io.ReaderAt
	io.Closer
}

// Opener is the optional ability to keep a key open for many small reads.
type Opener interface {
	OpenAt(ctx context.Context, key string) (ReadAtCloser, error)
}

// Mapper is the optional ability to give a key's content as memory that the
// kernel fills when it is read and may take away again. It must not be written
// to. Replacing or deleting the key does not change it; unmap ends its use.
type Mapper interface {
	Map(ctx context.Context, key string) (data []byte, unmap func() error, err error)
}

// BatchDeleter is the optional ability to remove many keys at the price of a
// few. It is no error if one of them is not there.
type BatchDeleter interface {
	DeleteAll(ctx context.Context, keys []string) error
}

// DeleteAll removes keys, in one go if the backend can. After an error some may
// be gone.
func DeleteAll(ctx context.Context, b Backend, keys []string) error {
	if d, ok := b.(BatchDeleter); ok {
		return d.DeleteAll(ctx, keys)
	}
	for _, key := range keys {
		if err := b.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// CheckKey refuses keys that some backend could not hold: a key is one or more
// segments of [a-z0-9._-] joined by "/", none of them starting with a dot.
func CheckKey(key string) error {
	if len(key) > 512 {
		return fmt.Errorf("key of %d bytes is too long", len(key))
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment[0] == '.' {
			return fmt.Errorf("bad key %q", key)
		}
		for _, c := range []byte(segment) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
				return fmt.Errorf("bad key %q", key)
			}
		}
	}
	return nil
}
