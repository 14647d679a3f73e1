package objects

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/headgate/headgate/objects/backend"
)

// What gc is about to remove is condemned: quarantines that begin from then on
// do not see it. See decision 018.

const (
	condemnedKey   = "gc/condemned"
	condemnedMagic = "HGCOND\x00\x01"
)

// bitmap is a set of positions of a pack's index. The nil bitmap is empty.
type bitmap []byte

func newBitmap(n int) bitmap { return make(bitmap, (n+7)/8) }

func (m bitmap) has(pos int) bool { return m != nil && m[pos/8]&(1<<(pos%8)) != 0 }
func (m bitmap) add(pos int)      { m[pos/8] |= 1 << (pos % 8) }
func (m bitmap) remove(pos int)   { m[pos/8] &^= 1 << (pos % 8) }

func (m bitmap) count() int {
	n := 0
	for _, b := range m {
		n += bits.OnesCount8(b)
	}
	return n
}

// condemned is the list as it is on disk and in memory.
type condemned struct {
	when  time.Time // to the second
	packs map[string]packMarks
	raws  []OID // sorted
}

// packMarks is what is condemned of a pack of n objects.
type packMarks struct {
	n    int
	bits bitmap
}

func (c *condemned) encode() []byte {
	b := append([]byte(nil), condemnedMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.when.Unix()))
	ids := make([]string, 0, len(c.packs))
	for id := range c.packs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	b = binary.BigEndian.AppendUint32(b, uint32(len(ids)))
	for _, id := range ids {
		oid, _ := ParseOID(id) // a pack's name is a checksum
		b = append(b, oid[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(c.packs[id].n))
		b = append(b, c.packs[id].bits...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(c.raws)))
	for _, oid := range c.raws {
		b = append(b, oid[:]...)
	}
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

func parseCondemned(b []byte) (*condemned, error) {
	bad := func(what string) (*condemned, error) { return nil, errors.New("list of condemned objects: " + what) }
	end := len(b) - sha1.Size
	if end < len(condemnedMagic)+16 || string(b[:len(condemnedMagic)]) != condemnedMagic {
		return bad("no such file")
	}
	if sum := sha1.Sum(b[:end]); !bytes.Equal(sum[:], b[end:]) {
		return bad("it does not match its checksum")
	}
	b = b[len(condemnedMagic):end]
	take := func(n int) []byte {
		if n > len(b) {
			return nil
		}
		head := b[:n]
		b = b[n:]
		return head
	}
	c := &condemned{packs: make(map[string]packMarks)}
	c.when = time.Unix(int64(binary.BigEndian.Uint64(take(8))), 0)
	last := ""
	for range binary.BigEndian.Uint32(take(4)) {
		head := take(24)
		if head == nil {
			return bad("it is cut off")
		}
		id := OID(head[:20]).String()
		n := int(binary.BigEndian.Uint32(head[20:]))
		marks := take((n + 7) / 8)
		switch {
		case marks == nil:
			return bad("it is cut off")
		case id <= last:
			return bad("its packs are not in order")
		case n%8 != 0 && marks[len(marks)-1]>>(n%8) != 0:
			return bad("it has marks beyond a pack's end")
		}
		last = id
		c.packs[id] = packMarks{n, bytes.Clone(marks)}
	}
	count := take(4)
	if count == nil {
		return bad("it is cut off")
	}
	n := int(binary.BigEndian.Uint32(count))
	if len(b) != n*20 {
		return bad("its length does not fit its number of blobs")
	}
	for ; len(b) > 0; b = b[20:] {
		oid := OID(b[:20])
		if k := len(c.raws); k > 0 && compareOIDs(c.raws[k-1], oid) >= 0 {
			return bad("its blobs are not in order")
		}
		c.raws = append(c.raws, oid)
	}
	return c, nil
}

func compareOIDs(a, b OID) int { return bytes.Compare(a[:], b[:]) }

func (c *condemned) hasRaw(oid OID) bool {
	if c == nil {
		return false
	}
	_, ok := slices.BinarySearchFunc(c.raws, oid, compareOIDs)
	return ok
}

// clone returns a copy that can be changed.
func (c *condemned) clone() *condemned {
	out := &condemned{when: c.when, packs: make(map[string]packMarks, len(c.packs)), raws: slices.Clone(c.raws)}
	for id, m := range c.packs {
		out.packs[id] = packMarks{m.n, slices.Clone(m.bits)}
	}
	return out
}

// loadCondemned hides what a gc had condemned when the store was closed.
func (s *Store) loadCondemned(ctx context.Context) error {
	data, err := s.readKey(ctx, condemnedKey)
	if errors.Is(err, backend.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := parseCondemned(data)
	if err == nil {
		for id, m := range c.packs {
			if pf := s.small.byID[id]; pf != nil && pf.idx.Len() != m.n {
				err = fmt.Errorf("list of condemned objects: pack %s has %d objects, not %d", id, pf.idx.Len(), m.n)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("object store: %s: %w; restore it from a backup, or remove it and see that fsck finds nothing missing", condemnedKey, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.condemn(c)
	return nil
}

// condemn hides objects from quarantines that begin later. s.mu is held.
func (s *Store) condemn(c *condemned) {
	s.condemned = c
	for id, pf := range s.small.byID {
		pf.condemned = c.packs[id].bits
	}
	s.epoch++
	s.hideFrom.Store(s.epoch)
}

// acquit ends the list: there is nothing on it any more. s.mu is held.
func (s *Store) acquit() {
	s.condemned = nil
	for _, pf := range s.small.byID {
		pf.condemned = nil
	}
	s.hideFrom.Store(0)
}

// hides tells whether the quarantine does not see what is condemned. The answer
// is the same as long as the same objects are condemned.
func (q *Quarantine) hides() bool {
	from := q.s.hideFrom.Load()
	return from != 0 && q.began >= from
}

// pardon takes objects off the list, with all that they name, and packs that are
// about to be written anew. s.gate is held, for reading at least.
func (s *Store) pardon(ctx context.Context, oids []OID, packs []string) error {
	s.pardoning.Lock()
	defer s.pardoning.Unlock()
	s.mu.RLock()
	list := s.condemned
	s.mu.RUnlock()
	if list == nil {
		return nil
	}
	list = list.clone()
	changed := false
	for _, id := range packs {
		if _, ok := list.packs[id]; ok {
			delete(list.packs, id)
			changed = true
		}
	}
	for todo := slices.Clone(oids); len(todo) > 0; {
		oid := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		named, ok, err := s.pardonOne(ctx, list, oid)
		if err != nil {
			return fmt.Errorf("pardon %s: %w", oid, err)
		}
		changed = changed || ok
		todo = append(todo, named...)
	}
	if !changed {
		return nil
	}
	if err := s.b.Put(ctx, condemnedKey, bytes.NewReader(list.encode())); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.condemned = list
	for id, pf := range s.small.byID {
		pf.condemned = list.packs[id].bits
	}
	s.pardons++
	return nil
}

// pardonOne takes one object off the list, and returns what it names, if it was
// on it and there is no other copy of it.
func (s *Store) pardonOne(ctx context.Context, list *condemned, oid OID) (named []OID, ok bool, err error) {
	if i, found := slices.BinarySearchFunc(list.raws, oid, compareOIDs); found {
		list.raws = slices.Delete(list.raws, i, i+1)
		return nil, true, nil
	}
	s.mu.RLock()
	var bits bitmap
	at := 0
	for id, pf := range s.small.byID {
		pos, found := pf.idx.Find(oid)
		if !found {
			continue
		}
		if m := list.packs[id].bits; m.has(pos) {
			bits, at = m, pos
			continue
		}
		bits = nil
		break
	}
	s.mu.RUnlock()
	if bits == nil {
		return nil, false, nil
	}
	t, data, ok, err := s.object(ctx, oid, false)
	if err == nil && !ok {
		err = notFound(oid)
	}
	if err != nil {
		return nil, false, err
	}
	bits.remove(at)
	err = linksOf(oid, t, data, func(_ Type, oid OID) { named = append(named, oid) })
	return named, true, err
}

// onlyCondemned tells whether an object is there, and all its copies are condemned.
func (s *Store) onlyCondemned(oid OID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.condemned == nil {
		return false
	}
	if s.condemned.hasRaw(oid) {
		return true
	}
	if _, _, ok := s.small.search(oid, true); ok {
		return false
	}
	_, _, ok := s.small.search(oid, false)
	return ok
}

// pardonNamed pardons what the quarantine relies on and could not know to be
// condemned, since it began before. q.mu and s.gate are held.
func (q *Quarantine) pardonNamed(ctx context.Context) error {
	s := q.s
	s.mu.RLock()
	list := s.condemned
	s.mu.RUnlock()
	if list == nil {
		return nil
	}
	var relied []OID
	// A blob that comes again is the same file. Whoever deletes it must not do so now.
	for oid := range q.raw {
		if list.hasRaw(oid) {
			relied = append(relied, oid)
		}
	}
	if !q.hides() {
		rely := func(_ Type, oid OID) {
			if s.onlyCondemned(oid) {
				relied = append(relied, oid)
			}
		}
		for oid := range q.tips {
			rely(0, oid)
		}
		for oid, e := range q.small {
			if err := ctx.Err(); err != nil {
				return err
			}
			if e.info.Type == Blob {
				continue
			}
			entry := make([]byte, e.length)
			if _, err := q.pack.ReadAt(entry, e.offset); err != nil {
				return fmt.Errorf("read %s in quarantine: %w", oid, err)
			}
			t, data, err := decodeEntry(oid, entry)
			if err == nil {
				err = linksOf(oid, t, data, rely)
			}
			if err != nil {
				return err
			}
		}
	}
	if len(relied) == 0 {
		return nil
	}
	return s.pardon(ctx, relied, nil)
}

func (s *Store) hiddenRaw(oid OID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.condemned.hasRaw(oid)
}

// isCondemned tells whether the copy at a position of a pack is condemned.
func (s *Store) isCondemned(pf *packFile, pos int) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return pf.condemned.has(pos)
}
