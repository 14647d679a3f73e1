package objects

import (
	"cmp"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strings"

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
	c := &check{s: s, report: report, kinds: make(map[OID]Type), missing: make(map[link]bool)}
	s.mu.RLock()
	ids := slices.Sorted(maps.Keys(s.ids))
	small := make([]stored, 0, len(s.small))
	for oid, loc := range s.small {
		small = append(small, stored{oid, loc})
	}
	s.mu.RUnlock()
	for _, id := range ids {
		if err := c.pack(ctx, id); err != nil {
			return c.stats, err
		}
	}
	if err := c.raws(ctx); err != nil {
		return c.stats, err
	}
	// In the order of the disk.
	slices.SortFunc(small, func(a, b stored) int {
		return cmp.Or(strings.Compare(a.loc.pack.key, b.loc.pack.key), cmp.Compare(a.loc.offset, b.loc.offset))
	})
	for _, o := range small {
		if err := c.small(ctx, o); err != nil {
			return c.stats, err
		}
	}
	return c.stats, nil
}

type stored struct {
	oid OID
	loc location
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

// raws reads every raw blob.
func (c *check) raws(ctx context.Context) error {
	return c.s.b.List(ctx, rawPrefix, func(info backend.Info) error {
		hex := info.Key[strings.LastIndexByte(info.Key, '/')+1:]
		oid, err := ParseOID(hex)
		if err != nil || rawKey(oid) != info.Key {
			c.report(Fault{Kind: Stray, Key: info.Key, Detail: "this is no name of a raw blob"})
			return nil
		}
		c.stats.Objects++
		c.stats.RawBlobs++
		c.kinds[oid] = Blob
		rc, err := c.s.b.Get(ctx, info.Key, 0, -1)
		if err == nil {
			var n int64
			v := newVerifyingReader(rc, oid, Info{Type: Blob, Size: info.Size})
			n, err = io.Copy(io.Discard, readerCtx{ctx, v})
			err = errors.Join(err, v.Close())
			c.stats.Bytes += n
		}
		if err == nil {
			return nil
		}
		if err := stopped(ctx, err); err != nil {
			return err
		}
		c.damaged(oid, info.Key, err)
		return nil
	})
}

func (c *check) damaged(oid OID, key string, err error) {
	detail := err.Error()
	var ce *CorruptError
	if errors.As(err, &ce) {
		detail = ce.Reason
	}
	c.report(Fault{Kind: Damaged, OID: oid, Key: key, Detail: detail})
}

// small reads a small object and looks up what it names.
func (c *check) small(ctx context.Context, o stored) error {
	c.stats.Objects++
	entry, err := c.s.entry(ctx, o.loc)
	if err == nil && crc32.ChecksumIEEE(entry) != o.loc.crc {
		err = &CorruptError{o.oid, "its pack entry does not match its checksum"}
	}
	var t Type
	var data []byte
	if err == nil {
		c.stats.Bytes += int64(len(entry))
		t, data, err = decodeEntry(o.oid, entry)
	}
	if err != nil {
		if err := stopped(ctx, err); err != nil {
			return err
		}
		c.damaged(o.oid, o.loc.pack.key, err)
		return nil
	}
	c.kinds[o.oid] = t
	named, _, err := namedBy(t, data)
	if err != nil {
		c.report(Fault{Kind: Invalid, OID: o.oid, Key: o.loc.pack.key, Detail: err.Error()})
		return nil
	}
	for _, k := range named {
		if err := c.link(ctx, o.oid, k); err != nil {
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
		info, err := c.s.Stat(ctx, k.oid)
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
