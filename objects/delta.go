package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"

	"github.com/headgate/headgate/objects/pack"
)

const (
	// maxDepth bounds how many deltas lead to a stored object, and so what one
	// lookup may cost.
	maxDepth = 12
	// basesBytes bounds the memory of recent bases: versions of one tree are
	// often read one after another.
	basesBytes = 16 << 20
)

// bases keeps recent bases of deltas. Its contents are those of the packs, which
// are verified when something was made of them.
type bases struct {
	mu    sync.Mutex
	cache *baseCache
}

func newBases() bases { return bases{cache: newBaseCache(basesBytes)} }

func (b *bases) get(oid OID) (*cachedBase, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cache.get(oid)
}

func (b *bases) add(oid OID, t Type, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cache.add(oid, t, data)
}

// entryHead is what is in front of an entry's zlib stream.
type entryHead struct {
	t    Type
	size int64 // inflated
	n    int   // length of the head
	base int64 // of a delta: where its base's entry is
}

// parseHead reads the head of an entry at an offset of one of our packs, in which
// a base is named by its distance.
func parseHead(b []byte, at int64) (entryHead, error) {
	t, size, n, err := pack.ParseEntryHeader(b)
	if err != nil {
		return entryHead{}, err
	}
	h := entryHead{t: t, size: size, n: n}
	switch t {
	case Commit, Tree, Blob, Tag:
	case plumbing.OFSDeltaObject:
		back, m, err := pack.ParseDistance(b[n:])
		if err != nil {
			return entryHead{}, err
		}
		if h.n, h.base = n+m, at-back; back <= 0 || h.base < pack.HeaderSize {
			return entryHead{}, errors.New("a delta's base is not in front of it")
		}
	default:
		return entryHead{}, fmt.Errorf("its pack entry has the type %d", t)
	}
	return h, nil
}

// maxHead is more than any head takes.
const maxHead = 32

// at returns the position of the entry at an offset, and of the next one in byOffset.
func (pf *packFile) at(off int64) (pos, next int, err error) {
	order := pf.byOffset()
	next = sort.Search(len(order), func(i int) bool { return pf.idx.Offset(int(order[i])) > off })
	if next > 0 {
		if pos := int(order[next-1]); pf.idx.Offset(pos) == off {
			return pos, next, nil
		}
	}
	return 0, 0, fmt.Errorf("a delta's base is at byte %d, where no object begins", off)
}

// unpack returns the content of an entry, which entry is the bytes of. Its name
// is not verified: a chain of deltas is verified by what it makes.
func (s *Store) unpack(ctx context.Context, loc location, entry []byte) (t Type, data []byte, err error) {
	var deltas [][]byte
	var names []OID // of their bases
	for {
		h, err := parseHead(entry, loc.offset)
		if err != nil {
			return 0, nil, err
		}
		if data, err = inflated(entry[h.n:], h.size); err != nil {
			return 0, nil, err
		}
		if t = h.t; t != plumbing.OFSDeltaObject {
			break
		}
		if len(deltas) == maxDepth {
			return 0, nil, fmt.Errorf("a chain of more than %d deltas", maxDepth)
		}
		pos, next, err := loc.pack.at(h.base)
		if err != nil {
			return 0, nil, err
		}
		oid := loc.pack.idx.OID(pos)
		deltas, names = append(deltas, data), append(names, oid)
		if base, ok := s.bases.get(oid); ok {
			t, data = base.t, base.data
			break
		}
		if loc, err = loc.pack.locateAt(pos, next); err != nil {
			return 0, nil, err
		}
		entry = make([]byte, loc.length)
		if err := s.packs.readAt(ctx, loc.pack, entry, loc.offset); err != nil {
			return 0, nil, err
		}
	}
	for i := len(deltas) - 1; i >= 0; i-- {
		s.bases.add(names[i], t, data) // the next version is likely to ask for it
		if data, err = applyDelta(data, deltas[i]); err != nil {
			return 0, nil, err
		}
	}
	return t, data, nil
}

// maxSmall bounds what is made of a damaged delta. No small object is larger.
const maxSmall = 1 << 30

func applyDelta(base, delta []byte) ([]byte, error) {
	d, err := pack.NewDelta(bytes.NewReader(delta))
	if err != nil {
		return nil, err
	}
	if d.BaseSize != int64(len(base)) || d.Size > maxSmall {
		return nil, fmt.Errorf("a delta of %d to %d bytes does not fit its base of %d", d.BaseSize, d.Size, len(base))
	}
	var out appender
	if d.Size <= int64(len(base)+len(delta)) { // else grow with what is really there
		out = make([]byte, 0, d.Size)
	}
	err = d.Apply(bytes.NewReader(base), &out)
	return out, err
}

// verified is unpack for an object that must have a name.
func (s *Store) verified(ctx context.Context, oid OID, loc location, entry []byte) (Type, []byte, error) {
	t, data, err := s.unpack(ctx, loc, entry)
	if err != nil {
		if ctx.Err() != nil {
			return 0, nil, ctx.Err()
		}
		return 0, nil, &CorruptError{oid, err.Error()}
	}
	if got := nameOf(t, data); got != oid {
		return 0, nil, &CorruptError{oid, fmt.Sprintf("its content hashes to %s", got)}
	}
	return t, data, nil
}

// object returns a small object's content; ok is false if no pack has it.
func (s *Store) object(ctx context.Context, oid OID, hide bool) (t Type, data []byte, ok bool, err error) {
	for {
		entry, loc, ok, err := s.entry(ctx, oid, maxEntry, hide)
		if err != nil || !ok {
			return 0, nil, false, err
		}
		t, data, err := s.verified(ctx, oid, loc, entry)
		// Between two reads, another pack may have come in this one's place.
		if err == nil || !loc.pack.retired.Load() || ctx.Err() != nil {
			return t, data, err == nil, err
		}
	}
}

// statDelta is Stat for an entry that is a delta.
func (s *Store) statDelta(ctx context.Context, loc location) (Info, error) {
	entry := make([]byte, loc.length)
	if err := s.packs.readAt(ctx, loc.pack, entry, loc.offset); err != nil {
		return Info{}, err
	}
	h, err := parseHead(entry, loc.offset)
	if err != nil {
		return Info{}, err
	}
	zr, err := zlib.NewReader(bytes.NewReader(entry[h.n:]))
	if err != nil {
		return Info{}, err
	}
	d, err := pack.NewDelta(zr) // reads its two sizes
	if err != nil {
		return Info{}, err
	}
	info := Info{Size: d.Size}
	for range maxDepth {
		head := make([]byte, min(maxHead, loc.pack.size-h.base))
		if err := s.packs.readAt(ctx, loc.pack, head, h.base); err != nil {
			return Info{}, err
		}
		if h, err = parseHead(head, h.base); err != nil {
			return Info{}, err
		}
		if h.t != plumbing.OFSDeltaObject {
			info.Type = h.t
			return info, nil
		}
	}
	return Info{}, fmt.Errorf("a chain of more than %d deltas", maxDepth)
}

// inflated returns what a zlib stream holds, which must be size bytes.
func inflated(stream []byte, size int64) ([]byte, error) {
	// Deflate shrinks by at most 1032 to 1: a damaged size must not allocate more.
	if size > int64(len(stream))*1032+64 {
		return nil, fmt.Errorf("%d bytes cannot hold %d", len(stream), size)
	}
	data := make([]byte, size)
	return data, inflate(stream, data)
}
