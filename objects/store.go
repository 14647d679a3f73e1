package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/pack"
)

// DefaultRawThreshold is the size from which a blob is stored raw. Below it, a
// file of its own costs more than the hard link saves.
const DefaultRawThreshold = 32 << 10

// Options of a store. The zero value is good.
type Options struct {
	RawThreshold int64        // blobs of at least this many bytes are stored raw; 0 is DefaultRawThreshold
	Logger       *slog.Logger // nil discards

	// AutoRepack joins small packs in the background when there are many: once
	// the store is open, and after pushes.
	AutoRepack bool
}

// Store is a lake's objects: what has been checked, is connected and durable.
// Only GC removes any. It is safe for concurrent use.
//
// Keys in the backend: raw/ab/<oid> holds a large blob's content as it is,
// pack/<checksum>.pack small objects, pack/<checksum>.idx where they are. The
// idx is written last and makes its pack visible. A pack that was joined of
// others has pack/<checksum>.ages, which says when its objects came.
type Store struct {
	b         backend.Backend
	staging   string
	lock      *os.File
	threshold int64
	log       *slog.Logger
	packs     packReader
	reach     reachability
	bases     bases

	now        func() time.Time
	slack      time.Duration // see clockSlack
	upkeep     chan struct{} // full while packs are rewritten, or must stay
	auto       bool
	stuck      atomic.Bool // joining packs by itself has failed
	closing    context.Context
	close      context.CancelFunc
	background sync.WaitGroup

	// gate is held for reading while a quarantine migrates, and for writing while
	// files are removed or objects are condemned. It comes before mu.
	gate      sync.RWMutex
	pardoning sync.Mutex    // held while the list of the condemned changes; before mu
	hideFrom  atomic.Uint64 // epoch from which on quarantines do not see what is condemned; 0 if nothing is

	mu    sync.RWMutex
	small packSet
	raw   map[OID]int64 // sizes of raw blobs that were seen; bounded, see rawSize
	sums  blobSums

	removals    int // how often raw blobs were removed
	condemned   *condemned
	pardons     int    // how often the list has shrunk
	epoch       uint64 // how often something was condemned
	quarantines map[*Quarantine]bool
	ended       chan struct{} // closed when a quarantine ends, and replaced
}

const (
	rawPrefix  = "raw/"
	packPrefix = "pack/"
	packSuffix = ".pack"
	idxSuffix  = ".idx"
	agesSuffix = ".ages"

	// maxSeenRaw bounds the memory of known raw blobs to some 50 MB.
	maxSeenRaw = 1 << 20
)

func rawKey(oid OID) string {
	s := oid.String()
	return rawPrefix + s[:2] + "/" + s
}

// OpenStore opens the store in b, which may be empty. stagingDir is where
// quarantines are built; it belongs to this store alone (a second open store on
// it is an error), and what a killed process left there is removed. If b keeps
// files, it should be on the same file system.
func OpenStore(b backend.Backend, stagingDir string, opt Options) (*Store, error) {
	if opt.RawThreshold <= 0 {
		opt.RawThreshold = DefaultRawThreshold
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(stagingDir, 0o755); err != nil {
		return nil, err
	}
	lock, err := lockDir(stagingDir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		b:         b,
		staging:   stagingDir,
		lock:      lock,
		threshold: opt.RawThreshold,
		log:       opt.Logger,
		packs:     packReader{b: b, open: make(map[*packFile]bool)},
		small:     packSet{byID: make(map[string]*packFile)},
		raw:       make(map[OID]int64),
		bases:     newBases(),
		now:       time.Now,
		slack:     clockSlack,
		upkeep:    make(chan struct{}, 1),

		quarantines: make(map[*Quarantine]bool),
		ended:       make(chan struct{}),

		auto: opt.AutoRepack,
	}
	s.closing, s.close = context.WithCancel(context.Background())
	if err := s.sweep(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := s.loadPacks(context.Background()); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := s.loadCondemned(context.Background()); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.autoRepack()
	return s, nil
}

// lockDir keeps a second process from sweeping live quarantines away.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("object store at %s is in use by another process: %w", dir, err), f.Close())
	}
	return f, nil
}

func (s *Store) sweep() error {
	left, err := os.ReadDir(s.staging)
	if err != nil {
		return err
	}
	for _, e := range left {
		if !strings.HasPrefix(e.Name(), quarantinePrefix) {
			continue
		}
		s.log.Info("removing the quarantine of a killed process", "name", e.Name())
		if err := os.RemoveAll(filepath.Join(s.staging, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) loadPacks(ctx context.Context) error {
	files := make(map[string]bool)
	var ids []string
	err := s.b.List(ctx, packPrefix, func(info backend.Info) error {
		files[info.Key] = true
		if id, ok := strings.CutSuffix(info.Key, idxSuffix); ok {
			ids = append(ids, strings.TrimPrefix(id, packPrefix))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !files[packPrefix+id+packSuffix] {
			return &PackError{id, errors.New("it has an index but no data")}
		}
		if err := s.addPack(ctx, id); err != nil {
			return err
		}
	}
	for key := range files {
		id, isPack := strings.CutSuffix(key, packSuffix)
		if !isPack {
			var isAges bool
			if id, isAges = strings.CutSuffix(key, agesSuffix); !isAges {
				continue
			}
		}
		if s.small.byID[strings.TrimPrefix(id, packPrefix)] != nil {
			continue
		}
		// A crash came between the pack and its index: nobody has seen it, or
		// nobody needs it any more.
		s.log.Info("removing a pack without an index", "key", key)
		if err := s.b.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// PackError says that a store cannot be opened because of a damaged pack.
type PackError struct {
	ID  string // the pack's checksum, which is its name
	Err error
}

func (e *PackError) Error() string {
	return fmt.Sprintf("object store: pack %s is damaged: %v", e.ID, e.Err)
}

// Unwrap returns what is wrong with the pack.
func (e *PackError) Unwrap() error { return e.Err }

// Close closes the store's files. Quarantines must be discarded before.
func (s *Store) Close() error {
	s.mu.Lock()
	s.close() // from here on nothing begins in the background
	s.mu.Unlock()
	s.background.Wait()
	// Closing alone leaves the lock with a child that was forked a moment ago and
	// has not executed its program yet.
	s.mu.Lock()
	defer s.mu.Unlock()
	s.small.close()
	return errors.Join(s.packs.closeAll(), syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN), s.lock.Close())
}

func notFound(oid OID) error { return fmt.Errorf("%w: %s", ErrNotFound, oid) }

// Stat implements Reader.
func (s *Store) Stat(ctx context.Context, oid OID) (Info, error) { return s.stat(ctx, oid, false) }

// stat is Stat; hide passes over what is condemned, as in all that follows.
func (s *Store) stat(ctx context.Context, oid OID, hide bool) (Info, error) {
	for {
		head, loc, ok, err := s.entry(ctx, oid, maxHead, hide)
		if err != nil {
			return Info{}, err
		}
		if !ok {
			break
		}
		h, err := parseHead(head, loc.offset)
		if err != nil {
			return Info{}, &CorruptError{oid, err.Error()}
		}
		if h.t != plumbing.OFSDeltaObject {
			return Info{Type: h.t, Size: h.size}, nil
		}
		info, err := s.statDelta(ctx, loc)
		switch {
		case err == nil:
			return info, nil
		case ctx.Err() != nil:
			return Info{}, ctx.Err()
		case !loc.pack.retired.Load():
			return Info{}, &CorruptError{oid, err.Error()}
		}
	}
	size, err := s.rawSize(ctx, oid, hide)
	if err != nil {
		return Info{}, err
	}
	return Info{Type: Blob, Size: size}, nil
}

// rawSize asks the backend, and remembers blobs that exist: connectivity checks
// ask for the same parts again and again. GC makes it forget.
func (s *Store) rawSize(ctx context.Context, oid OID, hide bool) (int64, error) {
	s.mu.RLock()
	size, ok := s.raw[oid]
	hidden := hide && s.condemned.hasRaw(oid)
	removals := s.removals
	s.mu.RUnlock()
	if hidden {
		return 0, notFound(oid)
	}
	if ok {
		return size, nil
	}
	info, err := s.b.Stat(ctx, rawKey(oid))
	if errors.Is(err, backend.ErrNotFound) {
		return 0, notFound(oid)
	}
	if err != nil {
		return 0, fmt.Errorf("stat %s: %w", oid, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removals != removals {
		return info.Size, nil // it may be gone already
	}
	if len(s.raw) >= maxSeenRaw {
		clear(s.raw)
	}
	s.raw[oid] = info.Size
	return info.Size, nil
}

// Open implements Reader.
func (s *Store) Open(ctx context.Context, oid OID) (Info, io.ReadCloser, error) {
	return s.openObject(ctx, oid, false)
}

func (s *Store) openObject(ctx context.Context, oid OID, hide bool) (Info, io.ReadCloser, error) {
	t, data, ok, err := s.object(ctx, oid, hide)
	if err != nil {
		return Info{}, nil, err
	}
	if ok {
		return Info{Type: t, Size: int64(len(data))}, io.NopCloser(bytes.NewReader(data)), nil
	}
	size, rc, ok, err := s.openRaw(ctx, oid, hide)
	if err != nil {
		return Info{}, nil, err
	}
	if !ok {
		return Info{}, nil, notFound(oid)
	}
	info := Info{Type: Blob, Size: size}
	return info, newVerifyingReader(rc, oid, info), nil
}

// OpenRaw implements pack.RawOpener: the content is not verified.
func (s *Store) OpenRaw(ctx context.Context, oid OID) (size int64, rc io.ReadCloser, ok bool, err error) {
	return s.openRaw(ctx, oid, false)
}

func (s *Store) openRaw(ctx context.Context, oid OID, hide bool) (size int64, rc io.ReadCloser, ok bool, err error) {
	size, err = s.rawSize(ctx, oid, hide)
	if errors.Is(err, ErrNotFound) {
		return 0, nil, false, nil
	}
	if err != nil {
		return 0, nil, false, err
	}
	rc, err = s.b.Get(ctx, rawKey(oid), 0, -1)
	if err != nil {
		return 0, nil, false, fmt.Errorf("open %s: %w", oid, err)
	}
	return size, rc, true, nil
}

// Deflated implements pack.Deflater. The stream's checksum is verified. What is
// stored as a delta is deflated anew: whoever takes deltas asks for that.
func (s *Store) Deflated(ctx context.Context, oid OID) (info Info, stream []byte, ok bool, err error) {
	b, loc, ok, err := s.entry(ctx, oid, maxEntry, false)
	if err != nil || !ok {
		return Info{}, nil, false, err
	}
	t, size, n, err := pack.ParseEntryHeader(b)
	if err != nil {
		return Info{}, nil, false, &CorruptError{oid, err.Error()}
	}
	if t == plumbing.OFSDeltaObject {
		t, data, ok, err := s.object(ctx, oid, false)
		if err != nil || !ok {
			return Info{}, nil, false, err
		}
		stream, err = deflated(nil, data)
		return Info{Type: t, Size: int64(len(data))}, stream, err == nil, err
	}
	if crc32.ChecksumIEEE(b) != loc.crc {
		return Info{}, nil, false, &CorruptError{oid, "its pack entry does not match its checksum"}
	}
	return Info{Type: t, Size: size}, b[n:], true, nil
}

// Link implements Linker. A raw blob of a backend on the same file system is
// linked as it is; its content is verified when it is streamed, not here.
func (s *Store) Link(ctx context.Context, oid OID, path string) error {
	if l, ok := s.b.(backend.Linker); ok {
		if !s.hasSmall(oid, false) {
			err := l.Link(ctx, rawKey(oid), path)
			if errors.Is(err, backend.ErrNotFound) {
				return notFound(oid)
			}
			if !cannotLink(err) {
				return err
			}
		}
	}
	return copyOut(ctx, s, oid, path)
}

// cannotLink tells the failures of a hard link that a copy does not share:
// another file system, too many links, or links forbidden.
func cannotLink(err error) bool {
	return errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EMLINK) || errors.Is(err, syscall.EPERM)
}

// copyOut writes a blob to a new read-only file.
func copyOut(ctx context.Context, r Reader, oid OID, path string) (err error) {
	info, rc, err := r.Open(ctx, oid)
	if err != nil {
		return err
	}
	defer rc.Close()
	if info.Type != Blob {
		return fmt.Errorf("link %s: it is a %s, not a blob", oid, info.Type)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, rc)
	if err = errors.Join(err, f.Close()); err != nil {
		if rmErr := os.Remove(path); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}
	return err
}
