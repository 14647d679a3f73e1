package objects

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/pack"
)

// rewriteBuffer is how much is read and written at once. Larger entries are
// streamed.
const rewriteBuffer = 1 << 20

// rewriting makes one pack of the entries of others. Entries are copied as they
// are, each against its checksum, or become deltas of others in the new pack; the
// memory is some 25 bytes an object, and the window of bases.
type rewriting struct {
	s    *Store
	from []*packFile // the oldest first
	keep func(pf *packFile, pos int) bool

	// offsets has, for each pack, where each position's entry is in the new one;
	// 0 if it is left out.
	offsets [][]int64
	crcs    [][]uint32 // of its entry there
	depths  [][]uint8  // how many deltas lead to it
	order   []entryRef // what is kept, by oid
	window  *window

	dir  string
	file *os.File
	out  *bufio.Writer
	sum  hash.Hash
	end  int64
	ages []age
}

type entryRef struct{ pack, pos uint32 }

// left marks an entry that is to be copied.
const left = -1

// rewrite writes one pack of the entries of others that keep wants, each object
// once, and makes it durable. It is in the store when that is opened again, but not
// seen yet: swap does that. It returns nil if nothing is kept.
func (s *Store) rewrite(ctx context.Context, from []*packFile, keep func(pf *packFile, pos int) bool) (_ *packFile, err error) {
	from = slices.Clone(from)
	slices.SortFunc(from, func(a, b *packFile) int {
		return cmp.Or(a.landed(pack.HeaderSize).Compare(b.landed(pack.HeaderSize)), cmp.Compare(a.number, b.number))
	})
	r := &rewriting{s: s, from: from, keep: keep, sum: sha1.New(), window: newWindow()}
	if err := r.choose(ctx); err != nil || len(r.order) == 0 {
		return nil, err
	}
	if int64(len(r.order)) > 0xffffffff {
		return nil, fmt.Errorf("%d objects do not fit into a pack", len(r.order))
	}
	if r.dir, err = os.MkdirTemp(s.staging, quarantinePrefix); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	if err := errors.Join(r.write(ctx), r.close()); err != nil {
		return nil, fmt.Errorf("rewrite packs: %w", err)
	}
	return r.store(ctx)
}

// choose fills order.
func (r *rewriting) choose(ctx context.Context) error {
	total := 0
	for _, pf := range r.from {
		r.offsets = append(r.offsets, make([]int64, pf.idx.Len()))
		r.crcs = append(r.crcs, make([]uint32, pf.idx.Len()))
		r.depths = append(r.depths, make([]uint8, pf.idx.Len()))
		total += pf.idx.Len()
	}
	r.order = make([]entryRef, 0, total)
	for i, pf := range r.from {
		for pos := range pf.idx.Len() {
			if r.keep(pf, pos) {
				r.order = append(r.order, entryRef{uint32(i), uint32(pos)})
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	oid := func(e entryRef) OID { return r.from[e.pack].idx.OID(int(e.pos)) }
	slices.SortFunc(r.order, func(a, b entryRef) int {
		x, y := oid(a), oid(b)
		if c := bytes.Compare(x[:], y[:]); c != 0 {
			return c
		}
		// Of two copies the younger one is kept: somebody wants it.
		return cmp.Or(r.landed(b).Compare(r.landed(a)), cmp.Compare(a.pack, b.pack))
	})
	r.order = slices.CompactFunc(r.order, func(a, b entryRef) bool { return oid(a) == oid(b) })
	for _, e := range r.order {
		r.offsets[e.pack][e.pos] = left
	}
	return ctx.Err()
}

func (r *rewriting) landed(e entryRef) time.Time {
	pf := r.from[e.pack]
	return pf.landed(pf.idx.Offset(int(e.pos)))
}

func (r *rewriting) write(ctx context.Context) (err error) {
	if r.file, err = os.OpenFile(filepath.Join(r.dir, "pack"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444); err != nil {
		return err
	}
	r.out = bufio.NewWriterSize(io.MultiWriter(r.file, r.sum), rewriteBuffer)
	if _, err := r.out.Write(pack.AppendHeader(nil, uint32(len(r.order)))); err != nil {
		return err
	}
	r.end = pack.HeaderSize
	for i, pf := range r.from {
		if err := r.copyPack(ctx, i, pf); err != nil {
			return fmt.Errorf("pack %s: %w", pf.id, err)
		}
	}
	if err := r.out.Flush(); err != nil {
		return err
	}
	if _, err := r.file.Write(r.sum.Sum(nil)); err != nil {
		return err
	}
	return r.file.Sync()
}

func (r *rewriting) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// copyPack reads a pack front to back and copies what is kept of it.
func (r *rewriting) copyPack(ctx context.Context, i int, pf *packFile) error {
	if !slices.Contains(r.offsets[i], left) {
		return nil
	}
	rc, err := r.s.b.Get(ctx, pf.key, 0, pf.size-pack.TrailerSize)
	if err != nil {
		return err
	}
	defer rc.Close()
	in := bufio.NewReaderSize(rc, int(min(rewriteBuffer, pf.size)))
	at := int64(0)
	for n, p := range pf.byOffset() {
		pos := int(p)
		if r.offsets[i][pos] != left {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		loc, err := pf.locateAt(pos, n+1)
		if err != nil {
			return err
		}
		for at < loc.offset {
			n, err := in.Discard(int(min(loc.offset-at, 1<<30)))
			if at += int64(n); err != nil {
				return err
			}
		}
		r.ages = addAge(r.ages, r.end, pf.landed(loc.offset).Unix())
		near := len(pf.ages) == 0 || n < nearEnds || n >= pf.idx.Len()-nearEnds
		if err := r.entry(ctx, in, entryRef{uint32(i), p}, loc, near); err != nil {
			return err
		}
		at += int64(loc.length)
	}
	return nil
}

// nearEnds is how many entries at either end of a pack that was joined before are
// looked at again: what lies between has found its bases, and these are versions of
// what the packs beside it hold.
const nearEnds = 4096

// entry writes one entry of a pack: as it is, as the delta that it was, or as a
// delta of something else. near tells that its neighbours may be new to it.
func (r *rewriting) entry(ctx context.Context, in *bufio.Reader, e entryRef, loc location, near bool) error {
	oid := loc.pack.idx.OID(int(e.pos))
	head, err := in.Peek(int(min(maxHead, loc.length)))
	if err != nil {
		return err
	}
	h, err := parseHead(head, loc.offset)
	if err != nil {
		return &CorruptError{oid, err.Error()}
	}
	var old *version // the base that it has, as far as that can stay
	isDelta := h.t == plumbing.OFSDeltaObject
	if isDelta {
		pos, _, err := loc.pack.at(h.base)
		if err != nil {
			return &CorruptError{oid, err.Error()}
		}
		if off, depth := r.offsets[e.pack][pos], r.depths[e.pack][pos]; off > 0 && depth < maxDepth {
			old = &version{offset: off, depth: depth}
		}
	}
	wanted := near && (isDelta || h.t == Tree || h.t == Blob) && h.size < deltaUpTo
	if !isDelta && (!wanted || loc.length > deltaUpTo) {
		return r.copyEntry(in, e, oid, loc)
	}
	data := make([]byte, loc.length)
	if _, err := io.ReadFull(in, data); err != nil {
		return err
	}
	if crc32.ChecksumIEEE(data) != loc.crc {
		return &CorruptError{oid, "its pack entry does not match its checksum"}
	}
	if old != nil && !near {
		return r.writeDelta(e, old, h.size, data[h.n:])
	}
	return r.deltify(ctx, e, oid, loc, data, h, old)
}

// deltify writes an entry that is looked at: a delta stays one if its base does,
// anything else is tried against what the window has.
func (r *rewriting) deltify(ctx context.Context, e entryRef, oid OID, loc location, entry []byte, h entryHead, old *version) error {
	t, data, err := r.s.verified(ctx, oid, loc, entry)
	if err != nil {
		return err
	}
	keys, ok := sketch{}, false
	if len(data) >= deltaFrom && len(data) <= deltaUpTo {
		keys, ok = sketchOf(t, data)
	}
	at := r.end
	if !ok {
		if old != nil {
			return r.writeDelta(e, old, h.size, entry[h.n:])
		}
		return r.writeWhole(e, t, data, entry, h)
	}
	kin := r.window.find(t, keys)
	stream, size, base := entry[h.n:], h.size, old
	if base == nil {
		if base = kin.Value.(*family).base(); base != nil {
			whole := len(entry)
			if h.t == plumbing.OFSDeltaObject {
				whole = len(data) / 2 // it is not known; that is what texts and trees take
			}
			if stream, size, err = deltaOf(base, data, whole); err != nil {
				return err
			}
		}
	}
	if base == nil || stream == nil {
		err = r.writeWhole(e, t, data, entry, h)
	} else {
		err = r.writeDelta(e, base, size, stream)
	}
	r.window.add(kin, keys, &version{data: data, offset: at, depth: r.depths[e.pack][e.pos]})
	return err
}

// writeWhole writes an entry as a whole object: as it was, unless it was a delta.
func (r *rewriting) writeWhole(e entryRef, t Type, data, entry []byte, h entryHead) error {
	if h.t == plumbing.OFSDeltaObject {
		var err error
		if entry, err = encodeEntry(t, data); err != nil {
			return err
		}
	}
	return r.put(e, entry, 0)
}

func (r *rewriting) writeDelta(e entryRef, base *version, size int64, stream []byte) error {
	head := pack.AppendDistance(pack.AppendEntryHeader(nil, plumbing.OFSDeltaObject, size), r.end-base.offset)
	return r.put(e, append(head, stream...), base.depth+1)
}

// put writes an entry's bytes.
func (r *rewriting) put(e entryRef, entry []byte, depth uint8) error {
	if _, err := r.out.Write(entry); err != nil {
		return err
	}
	r.placed(e, int64(len(entry)), crc32.ChecksumIEEE(entry), depth)
	return nil
}

func (r *rewriting) placed(e entryRef, length int64, crc uint32, depth uint8) {
	r.offsets[e.pack][e.pos] = r.end
	r.crcs[e.pack][e.pos] = crc
	r.depths[e.pack][e.pos] = depth
	r.end += length
}

// copyEntry copies an entry of any length that is no delta.
func (r *rewriting) copyEntry(in *bufio.Reader, e entryRef, oid OID, loc location) error {
	crc := crc32.NewIEEE()
	if _, err := io.CopyN(io.MultiWriter(r.out, crc), in, int64(loc.length)); err != nil {
		return err
	}
	if crc.Sum32() != loc.crc {
		return &CorruptError{oid, "its pack entry does not match its checksum"}
	}
	r.placed(e, int64(loc.length), loc.crc, 0)
	return nil
}

// store moves the pack into the backend, its index last.
func (r *rewriting) store(ctx context.Context) (*packFile, error) {
	var sum OID
	r.sum.Sum(sum[:0])
	id := sum.String()
	index := filepath.Join(r.dir, "idx")
	err := writeFile(index, func(w io.Writer) error {
		return pack.WriteIndex(w, len(r.order), func(i int) pack.IndexEntry {
			e := r.order[i]
			idx := r.from[e.pack].idx
			return pack.IndexEntry{OID: idx.OID(int(e.pos)), Offset: r.offsets[e.pack][e.pos], CRC: r.crcs[e.pack][e.pos]}
		}, sum)
	})
	if err != nil {
		return nil, err
	}
	ages := filepath.Join(r.dir, "ages")
	if err := writeFile(ages, func(w io.Writer) error { _, err := w.Write(encodeAges(r.ages)); return err }); err != nil {
		return nil, err
	}
	for _, step := range [][]backend.Adoption{
		{{Key: packPrefix + id + packSuffix, Path: r.file.Name()}, {Key: packPrefix + id + agesSuffix, Path: ages}},
		{{Key: packPrefix + id + idxSuffix, Path: index}},
	} {
		if err := r.s.take(ctx, step); err != nil {
			return nil, err
		}
	}
	return r.s.openPack(ctx, id)
}

// swap lets lookups find a new pack, which may be nil, in place of old ones, and
// then removes those. A lookup that found an object in an old pack a moment ago
// looks it up again. No quarantine migrates meanwhile: it may bring the very bytes
// of a pack that goes.
func (s *Store) swap(ctx context.Context, to *packFile, old []*packFile) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	return s.swapLocked(ctx, to, old)
}

// swapUnless is swap, unless something was pardoned since there were so many
// pardons: then the new pack goes, and the result is false.
func (s *Store) swapUnless(ctx context.Context, to *packFile, old []*packFile, pardons int) (bool, error) {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.mu.RLock()
	same := s.pardons == pardons
	known := to != nil && s.small.byID[to.id] != nil
	s.mu.RUnlock()
	switch {
	case same:
		return true, s.swapLocked(ctx, to, old)
	case to == nil:
		return false, nil
	case known:
		return false, nil
	}
	return false, s.removePacks(ctx, []*packFile{to})
}

func (s *Store) swapLocked(ctx context.Context, to *packFile, old []*packFile) error {
	if to != nil {
		// One of the same bytes may be condemned, of which each object had another
		// copy. That has just become the last one.
		if err := s.pardon(ctx, nil, []string{to.id}); err != nil {
			return err
		}
	}
	var errs []error
	s.mu.Lock()
	if to != nil {
		if same := s.small.byID[to.id]; same != nil {
			old = slices.DeleteFunc(slices.Clone(old), func(pf *packFile) bool { return pf == same })
			same.ages = to.ages
		} else {
			s.small.add(to)
		}
	}
	for _, pf := range old {
		s.small.remove(pf)
	}
	s.mu.Unlock()
	errs = append(errs, s.removePacks(ctx, old))
	// Whoever still comes with an old pack finds no file any more.
	for _, pf := range old {
		errs = append(errs, s.packs.drop(pf))
	}
	return errors.Join(errs...)
}

// removePacks removes the files of packs that nothing looks up any more.
func (s *Store) removePacks(ctx context.Context, packs []*packFile) error {
	var indexes, rest []string
	for _, pf := range packs {
		indexes = append(indexes, packPrefix+pf.id+idxSuffix)
		rest = append(rest, pf.key, packPrefix+pf.id+agesSuffix)
	}
	// A pack without an index is nothing, an index without a pack is damage.
	if err := backend.DeleteAll(ctx, s.b, indexes); err != nil {
		return err
	}
	return backend.DeleteAll(ctx, s.b, rest)
}
