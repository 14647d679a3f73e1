package objects

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/pack"
)

// FaultKind says what is wrong with a stored object.
type FaultKind string

// The kinds of fault that Check finds.
const (
	Damaged FaultKind = "damaged" // its bytes are not what they were, or cannot be read
	Invalid FaultKind = "invalid" // its bytes are what they were, and should never have been taken
	Missing FaultKind = "missing" // something names it, and it is not there or is of another kind
	Stray   FaultKind = "stray"   // a key that the store did not write
)

// Fault is one thing that is wrong with a store.
type Fault struct {
	Kind   FaultKind
	OID    OID    // the object at fault; zero if the fault is a whole pack's or a key's
	Key    string // where it is kept, if that is known
	Detail string // one sentence
}

// CheckStats is how much Check looked at.
type CheckStats struct {
	Objects  int   // all of them
	RawBlobs int   // of these
	Packs    int   // files
	Bytes    int64 // read
}

// Check reads everything that the store holds: every pack and index against its
// checksum, every object against its name and git's rules, and everything that
// an object names is there and of the right kind. It calls report for each fault
// and goes on. It may run while others read and write; what comes meanwhile is
// not checked. The error says that it could not look, not that it found faults.
func (s *Store) Check(ctx context.Context, report func(Fault)) (CheckStats, error) {
	// Packs must stay where they are meanwhile.
	if err := s.lockUpkeep(ctx); err != nil {
		return CheckStats{}, err
	}
	defer s.unlockUpkeep()
	sound := true
	c := &check{s: s, report: func(f Fault) { sound = false; report(f) }, kinds: make(map[OID]Type), missing: make(map[link]bool)}
	s.mu.RLock()
	packs := slices.SortedFunc(maps.Values(s.small.byID), func(a, b *packFile) int { return strings.Compare(a.id, b.id) })
	s.mu.RUnlock()
	for _, pf := range packs {
		if err := c.pack(ctx, pf.id); err != nil {
			return c.stats, err
		}
	}
	if err := c.raws(ctx); err != nil {
		return c.stats, err
	}
	for n, pf := range packs {
		before := packs[:n]
		for i, pos := range pf.byOffset() {
			if !slices.ContainsFunc(before, func(pf2 *packFile) bool {
				_, ok := pf2.idx.Find(pf.idx.OID(int(pos)))
				return ok
			}) {
				c.stats.Objects++ // else it is a second copy
			}
			if err := c.small(ctx, pf, int(pos), i+1); err != nil {
				return c.stats, err
			}
		}
	}
	return c.stats, c.reachability(ctx, sound)
}

// check is one run of Check.
type check struct {
	s       *Store
	report  func(Fault)
	stats   CheckStats
	kinds   map[OID]Type // of objects that were looked up or read
	missing map[link]bool
}

// stopped tells a check that was cancelled from a disk that does not answer.
func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return nil
}

// pack compares a pack and its index with the checksum that they are named by.
// So copies of an object that are never read, in a second pack, are checked too.
func (c *check) pack(ctx context.Context, id string) error {
	c.stats.Packs++
	fault := func(key, format string, args ...any) {
		c.report(Fault{Kind: Damaged, Key: key, Detail: fmt.Sprintf(format, args...)})
	}
	key := packPrefix + id + packSuffix
	sum, err := c.trailer(ctx, key)
	switch {
	case err != nil:
		if err := stopped(ctx, err); err != nil {
			return err
		}
		fault(key, "the pack cannot be read: %v", err)
	case sum.String() != id:
		fault(key, "the pack's bytes do not match its checksum")
	}
	key = packPrefix + id + idxSuffix
	data, err := c.s.readKey(ctx, key)
	if err == nil {
		c.stats.Bytes += int64(len(data))
		var of OID
		if _, of, err = pack.ParseIndex(data); err == nil && of.String() != id {
			err = fmt.Errorf("it is the index of pack %s", of)
		}
	}
	if err != nil {
		if err := stopped(ctx, err); err != nil {
			return err
		}
		fault(key, "the index cannot be read: %v", err)
	}
	key = packPrefix + id + agesSuffix
	data, err = c.s.readKey(ctx, key)
	if err == nil {
		c.stats.Bytes += int64(len(data))
		_, err = parseAges(data)
	}
	if err != nil && !errors.Is(err, backend.ErrNotFound) {
		if err := stopped(ctx, err); err != nil {
			return err
		}
		fault(key, "the ages cannot be read: %v", err)
	}
	return nil
}

// trailer returns the checksum of a pack's bytes, if the pack ends with it.
func (c *check) trailer(ctx context.Context, key string) (sum OID, err error) {
	info, err := c.s.b.Stat(ctx, key)
	if err != nil {
		return OID{}, err
	}
	if info.Size < pack.HeaderSize+pack.TrailerSize {
		return OID{}, fmt.Errorf("it has %d bytes, fewer than any pack", info.Size)
	}
	rc, err := c.s.b.Get(ctx, key, 0, info.Size)
	if err != nil {
		return OID{}, err
	}
	defer rc.Close()
	h := sha1.New()
	n, err := io.Copy(h, readerCtx{ctx, io.LimitReader(rc, info.Size-pack.TrailerSize)})
	c.stats.Bytes += n
	if err != nil {
		return OID{}, err
	}
	var end OID
	if _, err := io.ReadFull(rc, end[:]); err != nil {
		return OID{}, err
	}
	if h.Sum(sum[:0]); sum != end {
		return OID{}, errors.New("its bytes do not match its checksum")
	}
	return sum, nil
}

// readerCtx ends a long read when its context does.
type readerCtx struct {
	ctx context.Context
	r   io.Reader
}

func (r readerCtx) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// raws reads every raw blob, on all processors.
func (c *check) raws(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	var mu sync.Mutex // of what is found meanwhile
	err := c.s.b.List(ctx, rawPrefix, func(info backend.Info) error {
		hex := info.Key[strings.LastIndexByte(info.Key, '/')+1:]
		oid, err := ParseOID(hex)
		if err != nil || rawKey(oid) != info.Key {
			mu.Lock()
			defer mu.Unlock()
			c.report(Fault{Kind: Stray, Key: info.Key, Detail: "this is no name of a raw blob"})
			return nil
		}
		c.stats.Objects++
		c.stats.RawBlobs++
		if !c.s.hiddenRaw(oid) {
			c.kinds[oid] = Blob
		}
		g.Go(func() error {
			n, err := c.raw(ctx, oid, info)
			mu.Lock()
			defer mu.Unlock()
			c.stats.Bytes += n
			if err == nil {
				return nil
			}
			if err := stopped(ctx, err); err != nil {
				return err
			}
			c.damaged(oid, info.Key, err)
			return nil
		})
		return nil
	})
	return errors.Join(err, g.Wait())
}

// raw reads one raw blob, and returns how many bytes it read.
func (c *check) raw(ctx context.Context, oid OID, info backend.Info) (int64, error) {
	rc, err := c.s.b.Get(ctx, info.Key, 0, -1)
	if err != nil {
		return 0, err
	}
	v := newVerifyingReader(rc, oid, Info{Type: Blob, Size: info.Size})
	n, err := io.Copy(io.Discard, readerCtx{ctx, v})
	return n, errors.Join(err, v.Close())
}

func (c *check) damaged(oid OID, key string, err error) {
	detail := err.Error()
	var ce *CorruptError
	if errors.As(err, &ce) {
		detail = ce.Reason
	}
	c.report(Fault{Kind: Damaged, OID: oid, Key: key, Detail: detail})
}

// small reads a small object and looks up what it names. next is the place of
// the entry behind it, see locateAt.
func (c *check) small(ctx context.Context, pf *packFile, pos, next int) error {
	oid := pf.idx.OID(pos)
	var entry []byte
	loc, err := pf.locateAt(pos, next)
	if err == nil {
		entry = make([]byte, loc.length)
		err = c.s.packs.readAt(ctx, pf, entry, loc.offset)
	}
	if err == nil && crc32.ChecksumIEEE(entry) != loc.crc {
		err = &CorruptError{oid, "its pack entry does not match its checksum"}
	}
	var t Type
	var data []byte
	if err == nil {
		c.stats.Bytes += int64(len(entry))
		t, data, err = c.s.verified(ctx, oid, loc, entry)
	}
	if err != nil {
		if err := stopped(ctx, err); err != nil {
			return err
		}
		c.damaged(oid, pf.key, err)
		return nil
	}
	if c.s.isCondemned(pf, pos) {
		return nil // what it names may be gone already
	}
	c.kinds[oid] = t
	named, _, err := namedBy(t, data)
	if err != nil {
		c.report(Fault{Kind: Invalid, OID: oid, Key: pf.key, Detail: err.Error()})
		return nil
	}
	for _, k := range named {
		if err := c.link(ctx, oid, k); err != nil {
			return err
		}
	}
	return nil
}

// link checks that an object that another one names is there. Each missing one
// is reported once, with the first object that names it.
func (c *check) link(ctx context.Context, from OID, k link) error {
	actual, ok := c.kinds[k.oid]
	if !ok {
		info, err := c.s.stat(ctx, k.oid, true)
		switch {
		case err == nil:
			actual = info.Type
			c.kinds[k.oid] = actual
		case errors.Is(err, ErrNotFound):
		default:
			// Its own turn tells what is wrong with it.
			return stopped(ctx, err)
		}
	}
	if actual == k.t || c.missing[k] {
		return nil
	}
	c.missing[k] = true
	e := &MissingError{OID: k.oid, Type: k.t, From: from, Actual: actual}
	c.report(Fault{Kind: Missing, OID: k.oid, Detail: e.Error()})
	return nil
}
