package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/pack"
)

const (
	quarantinePrefix = "q-"
	// maxEntry bounds a small object's entry in a pack, so that its length fits
	// 32 bits with room to spare.
	maxEntry = 1 << 31
)

// errDiscarded is what a quarantine answers after Discard.
var errDiscarded = errors.New("quarantine is discarded")

// Quarantine holds new objects in front of a store until they are known to be
// good. It sees itself first, then the store; nobody else sees it. It is safe
// for concurrent use.
type Quarantine struct {
	s       *Store
	dir     string
	started time.Time
	began   uint64 // the store's epoch then, see hides

	mu      sync.RWMutex
	small   map[OID]staged
	raw     map[OID]int64
	pack    *os.File // header, then entries; nil until the first one
	packEnd int64
	links   links
	tips    map[OID]bool // that were found to be there
	err     error        // why it takes nothing any more
}

// staged is a small object in the quarantine's pack.
type staged struct {
	info   Info
	offset int64
	length uint32
	crc    uint32
}

// Quarantine returns an empty quarantine. Discard must be called in the end.
func (s *Store) Quarantine() (*Quarantine, error) {
	dir, err := os.MkdirTemp(s.staging, quarantinePrefix)
	if err != nil {
		return nil, err
	}
	q := &Quarantine{
		s:       s,
		dir:     dir,
		started: s.now(),
		small:   make(map[OID]staged),
		raw:     make(map[OID]int64),
		links:   newLinks(),
		tips:    make(map[OID]bool),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q.began = s.epoch
	s.quarantines[q] = true
	return q, nil
}

func (q *Quarantine) rawPath(oid OID) string { return filepath.Join(q.dir, oid.String()) }

// lookup returns what the quarantine itself has.
func (q *Quarantine) lookup(oid OID) (Info, bool) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return q.lookupLocked(oid)
}

func (q *Quarantine) lookupLocked(oid OID) (Info, bool) {
	if e, ok := q.small[oid]; ok {
		return e.info, true
	}
	if size, ok := q.raw[oid]; ok {
		return Info{Type: Blob, Size: size}, true
	}
	return Info{}, false
}

// Stat implements Reader.
func (q *Quarantine) Stat(ctx context.Context, oid OID) (Info, error) {
	if info, ok := q.lookup(oid); ok {
		return info, nil
	}
	return q.s.stat(ctx, oid, q.hides())
}

// Open implements Reader.
func (q *Quarantine) Open(ctx context.Context, oid OID) (Info, io.ReadCloser, error) {
	info, f, data, err := q.openOwn(oid)
	switch {
	case err != nil:
		return Info{}, nil, err
	case f != nil:
		return info, newVerifyingReader(f, oid, info), nil
	case data != nil:
		return info, io.NopCloser(bytes.NewReader(data)), nil
	}
	return q.s.openObject(ctx, oid, q.hides())
}

// openOwn returns an object of the quarantine itself: a raw blob's file or a
// small object's content, which is not nil even if empty. Both are nil if the
// quarantine does not have it.
func (q *Quarantine) openOwn(oid OID) (Info, *os.File, []byte, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if e, ok := q.small[oid]; ok {
		b := make([]byte, e.length)
		if _, err := q.pack.ReadAt(b, e.offset); err != nil {
			return Info{}, nil, nil, fmt.Errorf("read %s in quarantine: %w", oid, err)
		}
		_, data, err := decodeEntry(oid, b)
		return e.info, nil, data, err
	}
	if size, ok := q.raw[oid]; ok {
		f, err := os.Open(q.rawPath(oid))
		return Info{Type: Blob, Size: size}, f, nil, err
	}
	return Info{}, nil, nil, nil
}

// Link implements Linker.
func (q *Quarantine) Link(ctx context.Context, oid OID, path string) error {
	q.mu.RLock()
	_, raw := q.raw[oid]
	var err error
	if raw {
		err = os.Link(q.rawPath(oid), path)
	}
	q.mu.RUnlock()
	if raw {
		if !cannotLink(err) {
			return err
		}
		return copyOut(ctx, q, oid, path)
	}
	if _, own := q.lookup(oid); own {
		return copyOut(ctx, q, oid, path)
	}
	if q.hides() {
		// The store would link what is condemned as well.
		if _, err := q.Stat(ctx, oid); err != nil {
			return err
		}
	}
	return q.s.Link(ctx, oid, path)
}

// Put implements Writer. A commit, tree or tag that git fsck would refuse is
// refused with a *gitobj.CheckError.
func (q *Quarantine) Put(ctx context.Context, t Type, size int64, r io.Reader) (OID, error) {
	if size < 0 {
		return OID{}, fmt.Errorf("put %s: negative size %d", t, size)
	}
	if t == Blob && size >= q.s.threshold {
		return q.landRaw(ctx, size, func(w io.Writer) error {
			n, err := io.Copy(w, io.LimitReader(r, size))
			if err == nil && n < size {
				err = fmt.Errorf("content ends after %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
			}
			return err
		})
	}
	if size > gitobj.MaxBytes {
		return OID{}, fmt.Errorf("put %s: %d bytes, limit is %d", t, size, gitobj.MaxBytes)
	}
	data := make([]byte, size)
	if n, err := io.ReadFull(r, data); err != nil {
		return OID{}, fmt.Errorf("put %s: content ends after %d of %d bytes: %w", t, n, size, err)
	}
	return q.landSmall(ctx, t, data)
}

// landSmall checks and names an object and appends it to the quarantine's pack.
// data is not kept.
func (q *Quarantine) landSmall(ctx context.Context, t Type, data []byte) (OID, error) {
	if err := ctx.Err(); err != nil {
		return OID{}, err
	}
	n := newNamer(t, int64(len(data)))
	if _, err := n.Write(data); err != nil {
		return OID{}, err
	}
	oid, err := n.name()
	if err != nil {
		return OID{}, err
	}
	// What is known needs no check: it was checked when it came.
	if known, err := q.has(ctx, oid); err != nil || known {
		return oid, err
	}
	named, rules, err := namedBy(t, data)
	if err != nil {
		return OID{}, fmt.Errorf("%s %s: %w", t, oid, err)
	}
	entry, err := encodeEntry(t, data)
	if err != nil {
		return OID{}, err
	}
	// Asking the store may cost a system call each: do that without the lock.
	open, err := q.notInStore(ctx, oid, named)
	if err != nil {
		return OID{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return OID{}, q.err
	}
	if _, ok := q.lookupLocked(oid); ok {
		return oid, nil
	}
	if err := q.appendEntry(oid, Info{Type: t, Size: int64(len(data))}, entry); err != nil {
		return OID{}, err
	}
	q.links.add(oid, open, rules)
	return oid, nil
}

func (q *Quarantine) appendEntry(oid OID, info Info, entry []byte) error {
	if q.pack == nil {
		f, err := os.OpenFile(filepath.Join(q.dir, "pack"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
		if err != nil {
			return err
		}
		q.pack, q.packEnd = f, pack.HeaderSize
	}
	if _, err := q.pack.WriteAt(entry, q.packEnd); err != nil {
		return fmt.Errorf("write quarantine: %w", err)
	}
	q.small[oid] = staged{info, q.packEnd, uint32(len(entry)), crc32.ChecksumIEEE(entry)}
	q.packEnd += int64(len(entry))
	return nil
}

// has tells whether the object is in the quarantine or the store.
func (q *Quarantine) has(ctx context.Context, oid OID) (bool, error) {
	_, err := q.Stat(ctx, oid)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// landRaw streams a large blob into a file of its own. write must write exactly
// size bytes.
func (q *Quarantine) landRaw(ctx context.Context, size int64, write func(io.Writer) error) (oid OID, err error) {
	if err := ctx.Err(); err != nil {
		return OID{}, err
	}
	q.mu.RLock()
	err = q.err
	q.mu.RUnlock()
	if err != nil {
		return OID{}, err
	}
	f, err := os.CreateTemp(q.dir, "tmp-")
	if err != nil {
		return OID{}, err
	}
	tmp := f.Name()
	defer func() {
		if tmp != "" {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	w := &rawWriter{ctx: ctx, f: f, name: newNamer(Blob, size), left: size}
	err = write(w)
	if err == nil && w.left != 0 {
		err = fmt.Errorf("content is %d bytes short of %d", w.left, size)
	}
	if err == nil {
		// Small files too: fsync of many is then one commit of the file system's
		// journal instead of one for each.
		w.writeback()
	}
	if err == nil {
		err = f.Chmod(0o444)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return OID{}, err
	}
	if oid, err = w.name.name(); err != nil {
		return OID{}, err
	}
	if known, err := q.has(ctx, oid); err != nil || known {
		return oid, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return OID{}, q.err
	}
	if err := os.Rename(tmp, q.rawPath(oid)); err != nil {
		return OID{}, err
	}
	tmp = ""
	q.raw[oid] = size
	return oid, nil
}

// writebackEvery is how much of a file is written before the disk is told to
// begin with it.
const writebackEvery = 8 << 20

// rawWriter writes a blob's file and hashes it on the way. The disk begins while
// the client is still sending, so that a push does not end with seconds of fsync.
type rawWriter struct {
	ctx     context.Context
	f       *os.File
	name    *namer
	left    int64
	written int64
	begun   int64 // of written, what the disk was told of
}

func (w *rawWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	if int64(len(p)) > w.left {
		return 0, errors.New("content is longer than its size says")
	}
	w.left -= int64(len(p))
	if _, err := w.name.Write(p); err != nil {
		return 0, err
	}
	n, err := w.f.Write(p)
	w.written += int64(n)
	if w.written-w.begun >= writebackEvery {
		w.writeback()
	}
	return n, err
}

// writeback starts the writing of what has come and waits for none of it. It is a
// hint: whether the data is durable, and whether the disk failed, fsync says.
func (w *rawWriter) writeback() {
	const syncFileRangeWrite = 2 // SYNC_FILE_RANGE_WRITE, sync_file_range(2)
	_ = syscall.SyncFileRange(int(w.f.Fd()), w.begun, w.written-w.begun, syncFileRangeWrite)
	w.begun = w.written
}

// Discard removes the quarantine and what was not migrated. It may be called
// more than once, and after Migrate.
func (q *Quarantine) Discard() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if errors.Is(q.err, errDiscarded) {
		return nil
	}
	q.err = errDiscarded
	s := q.s
	s.mu.Lock()
	delete(s.quarantines, q)
	close(s.ended)
	s.ended = make(chan struct{})
	s.mu.Unlock()
	var err error
	if q.pack != nil {
		err = q.pack.Close()
		q.pack = nil
	}
	q.small, q.raw, q.links = nil, nil, links{}
	return errors.Join(err, os.RemoveAll(q.dir))
}

var (
	_ ReadWriter = (*Quarantine)(nil)
	_ Linker     = (*Quarantine)(nil)
	_ Reader     = (*Store)(nil)
	_ Linker     = (*Store)(nil)
)
