package objects

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/pack"
)

// maxOpenPacks bounds the file descriptors of one lake: every push and every
// run adds a pack.
const maxOpenPacks = 32

// packFile is one pack in the backend. Where the backend can, it is kept open.
type packFile struct {
	id   string // checksum, and name
	key  string
	size int64
	idx  *pack.Index
	// mapped tells that idx is a mapped file: it is unmapped when nobody has idx any more.
	mapped bool

	modified  atomic.Int64 // of its file, in seconds since 1970
	number    int          // by which packs of one second are in the order in which they came
	ages      []age        // if it was joined of others
	retired   atomic.Bool  // another pack has come in its place
	condemned bitmap       // never changed, only replaced, under the store's lock

	sorted sync.Once
	order  []uint32 // see byOffset

	used atomic.Int64 // tick of the last read

	mu sync.RWMutex // held for reading while f is in use
	f  backend.ReadAtCloser
}

// packReader reads packs at random through a bounded set of open files.
type packReader struct {
	b    backend.Backend
	tick atomic.Int64

	mu   sync.Mutex
	open map[*packFile]bool
}

// readAt fills p from the pack.
func (r *packReader) readAt(ctx context.Context, pf *packFile, p []byte, off int64) error {
	opener, ok := r.b.(backend.Opener)
	if !ok {
		rc, err := r.b.Get(ctx, pf.key, off, int64(len(p)))
		if err != nil {
			return err
		}
		defer rc.Close()
		if _, err := io.ReadFull(rc, p); err != nil {
			return fmt.Errorf("read %s at %d: %w", pf.key, off, err)
		}
		return nil
	}
	for {
		pf.used.Store(r.tick.Add(1))
		pf.mu.RLock()
		if pf.f != nil {
			_, err := pf.f.ReadAt(p, off)
			pf.mu.RUnlock()
			if err != nil {
				return fmt.Errorf("read %s at %d: %w", pf.key, off, err)
			}
			return nil
		}
		pf.mu.RUnlock()
		if err := r.openFile(ctx, opener, pf); err != nil {
			return err
		}
	}
}

func (r *packReader) openFile(ctx context.Context, opener backend.Opener, pf *packFile) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[pf] {
		return nil
	}
	if len(r.open) >= maxOpenPacks {
		var oldest *packFile
		for f := range r.open {
			if oldest == nil || f.used.Load() < oldest.used.Load() {
				oldest = f
			}
		}
		if err := r.closeFile(oldest); err != nil {
			return err
		}
	}
	f, err := opener.OpenAt(ctx, pf.key)
	if err != nil {
		return err
	}
	pf.mu.Lock()
	pf.f = f
	pf.mu.Unlock()
	r.open[pf] = true
	return nil
}

// closeFile waits for the file's readers. r.mu is held.
func (r *packReader) closeFile(pf *packFile) error {
	pf.mu.Lock()
	f := pf.f
	pf.f = nil
	pf.mu.Unlock()
	delete(r.open, pf)
	return f.Close()
}

// drop closes a pack that cannot be opened again.
func (r *packReader) drop(pf *packFile) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.open[pf] {
		return nil
	}
	return r.closeFile(pf)
}

func (r *packReader) closeAll() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first error
	for pf := range r.open {
		if err := r.closeFile(pf); err != nil && first == nil {
			first = err
		}
	}
	return first
}
