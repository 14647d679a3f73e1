package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/pack"
)

// packSet is the packs of a store. An object is looked up by searching the
// packs' indexes where they lie, so the memory that grows with the store is 4
// bytes a small object (see packFile.byOffset), and the rest is the kernel's to
// take away. The store's lock guards it.
type packSet struct {
	packs []*packFile // most objects first: that is where most are found
	byID  map[string]*packFile
	hot   atomic.Pointer[packFile] // where the last object was found; its neighbours are often asked for next
	added int                      // packs so far
}

// location is where a small object is. The length and the checksum let one read
// fetch it and tell whether it is whole.
type location struct {
	pack   *packFile
	offset int64
	length uint32 // of the entry: header and zlib stream
	crc    uint32
}

// search returns a pack that has the object, and its position there. hide passes
// over copies that are condemned.
func (ps *packSet) search(oid OID, hide bool) (pf *packFile, pos int, ok bool) {
	hot := ps.hot.Load()
	if hot != nil {
		if pos, ok := hot.idx.Find(oid); ok && !(hide && hot.condemned.has(pos)) {
			return hot, pos, true
		}
	}
	for _, pf := range ps.packs {
		if pf == hot {
			continue
		}
		if pos, ok := pf.idx.Find(oid); ok && !(hide && pf.condemned.has(pos)) {
			ps.hot.Store(pf)
			return pf, pos, true
		}
	}
	return nil, 0, false
}

func (ps *packSet) add(pf *packFile) {
	at := sort.Search(len(ps.packs), func(i int) bool { return ps.packs[i].idx.Len() <= pf.idx.Len() })
	ps.packs = slices.Insert(ps.packs, at, pf)
	ps.byID[pf.id] = pf
	ps.added++
	pf.number = ps.added
}

func (ps *packSet) remove(pf *packFile) {
	ps.packs = slices.DeleteFunc(ps.packs, func(other *packFile) bool { return other == pf })
	delete(ps.byID, pf.id)
	ps.hot.CompareAndSwap(pf, nil)
	pf.retired.Store(true)
}

func (ps *packSet) close() {
	ps.packs, ps.byID = nil, nil
	ps.hot.Store(nil)
}

// hasSmall tells whether the object is in a pack.
func (s *Store) hasSmall(oid OID, hide bool) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, _, ok := s.small.search(oid, hide)
	return ok
}

// find returns where a small object is. The error says that the index is wrong.
func (s *Store) find(oid OID, hide bool) (loc location, ok bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	pf, pos, ok := s.small.search(oid, hide)
	if !ok {
		return location{}, false, nil
	}
	loc, err = pf.locate(pos)
	return loc, true, err
}

// entry reads the first limit bytes of a small object's pack entry, or all of it.
func (s *Store) entry(ctx context.Context, oid OID, limit uint32, hide bool) (b []byte, loc location, ok bool, err error) {
	for {
		loc, ok, err = s.find(oid, hide)
		if err != nil || !ok {
			return nil, location{}, false, err
		}
		b = make([]byte, min(loc.length, limit))
		err = s.packs.readAt(ctx, loc.pack, b, loc.offset)
		if err == nil {
			return b, loc, true, nil
		}
		// Between the two, another pack may have come in this one's place.
		if !loc.pack.retired.Load() {
			return nil, location{}, false, err
		}
	}
}

// mapFrom is the size from which an index is mapped: a smaller one is cheaper
// read, and a process may have only some 65,000 mappings.
const mapFrom = 64 << 10

// addPack makes a pack's objects visible.
func (s *Store) addPack(ctx context.Context, id string) error {
	s.mu.RLock()
	known := s.small.byID[id]
	s.mu.RUnlock()
	if known != nil {
		known.modified.Store(s.now().Unix()) // somebody wants it again
		return nil
	}
	pf, err := s.openPack(ctx, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.small.byID[id] != nil {
		return nil
	}
	s.small.add(pf)
	return nil
}

// openPack opens and verifies a pack's index. Of the pack itself it looks at the
// length only.
func (s *Store) openPack(ctx context.Context, id string) (*packFile, error) {
	pf := &packFile{id: id, key: packPrefix + id + packSuffix}
	info, err := s.b.Stat(ctx, pf.key)
	if err != nil {
		return nil, err
	}
	pf.size = info.Size
	pf.modified.Store(info.Modified.Unix())
	ages, err := s.readKey(ctx, packPrefix+id+agesSuffix)
	switch {
	case err == nil:
		if pf.ages, err = parseAges(ages); err != nil {
			return nil, &PackError{id, err}
		}
	case !errors.Is(err, backend.ErrNotFound):
		return nil, err
	}
	data, unmap, err := s.openIndex(ctx, id)
	if err != nil {
		return nil, err
	}
	idx, err := verifyIndex(data, id)
	if err == nil && unmap != nil {
		// Verifying has made every page resident. A new mapping begins with none.
		if err = unmap(); err != nil {
			return nil, err
		}
		if data, unmap, err = s.openIndex(ctx, id); err != nil {
			return nil, err
		}
		idx, err = pack.OpenIndex(data)
	}
	if err != nil {
		err = &PackError{id, err}
		if unmap != nil {
			err = errors.Join(err, unmap())
		}
		return nil, err
	}
	pf.idx = idx
	if unmap != nil {
		// Who has looked something up in a pack may still be at it when that is
		// replaced, or the store is closed.
		pf.mapped = true
		runtime.AddCleanup(idx, func(unmap func() error) {
			if err := unmap(); err != nil {
				s.log.Warn("cannot unmap an index", "err", err)
			}
		}, unmap)
	}
	return pf, nil
}

// openIndex returns the bytes of a pack's index. unmap is nil if they are in memory.
func (s *Store) openIndex(ctx context.Context, id string) (data []byte, unmap func() error, err error) {
	key := packPrefix + id + idxSuffix
	if m, ok := s.b.(backend.Mapper); ok {
		info, err := s.b.Stat(ctx, key)
		if err != nil {
			return nil, nil, err
		}
		if info.Size >= mapFrom {
			return m.Map(ctx, key)
		}
	}
	data, err = s.readKey(ctx, key)
	return data, nil, err
}

func verifyIndex(data []byte, id string) (*pack.Index, error) {
	idx, err := pack.OpenIndex(data)
	if err != nil {
		return nil, err
	}
	if sum := idx.PackSum(); sum.String() != id {
		return nil, fmt.Errorf("it has the index of pack %s", sum)
	}
	return idx, idx.Verify(bytes.NewReader(data))
}

// errIndexDoesNotFit is what becomes of a pack that was cut or mixed up.
var errIndexDoesNotFit = errors.New("its length does not fit its index")

// byOffset returns the index's positions in the order of the pack. It is made
// when it is first needed: an entry ends where the next one begins, and the
// index does not say where that is.
func (pf *packFile) byOffset() []uint32 {
	pf.sorted.Do(func() { pf.order = pf.idx.ByOffset() })
	return pf.order
}

// locate returns what is known of the entry at a position of the index.
func (pf *packFile) locate(pos int) (location, error) {
	order := pf.byOffset()
	off := pf.idx.Offset(pos)
	next := sort.Search(len(order), func(i int) bool { return pf.idx.Offset(int(order[i])) > off })
	return pf.locateAt(pos, next)
}

// locateAt is locate, for who knows the place of the next entry in byOffset.
func (pf *packFile) locateAt(pos, next int) (location, error) {
	off := pf.idx.Offset(pos)
	end := pf.size - pack.TrailerSize
	if order := pf.byOffset(); next < len(order) {
		end = pf.idx.Offset(int(order[next]))
	}
	length := end - off
	if length <= 0 || length > maxEntry {
		return location{}, &PackError{pf.id, errIndexDoesNotFit}
	}
	return location{pf, off, uint32(length), pf.idx.CRC(pos)}, nil
}

// readKey returns all of a small file.
func (s *Store) readKey(ctx context.Context, key string) ([]byte, error) {
	rc, err := s.b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(rc)
	return data, errors.Join(err, rc.Close())
}
