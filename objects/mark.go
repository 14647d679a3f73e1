package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/pack"
)

// linksOf calls fn for what an object names but gitlinks. It asks less of an
// object than namedBy: rules that are stricter today must not stop gc.
func linksOf(oid OID, t Type, data []byte, fn func(Type, OID)) error {
	switch t {
	case Blob:
		return nil
	case Tree:
		return gitobj.TreeLinks(data, func(m gitobj.Mode, oid OID) error {
			switch {
			case m == gitobj.ModeTree:
				fn(Tree, oid)
			case m.IsBlob():
				fn(Blob, oid)
			}
			return nil
		})
	}
	for i := 0; ; i++ {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		key, value, _ := bytes.Cut(line, []byte(" "))
		kind := Type(0)
		switch {
		case i == 0 && t == Commit && string(key) == "tree":
			kind = Tree
		case i == 0 && t == Tag && string(key) == "object": // of whatever type
		case i > 0 && t == Commit && string(key) == "parent":
			kind = Commit
		case i > 0:
			return nil
		default:
			return &CorruptError{oid, fmt.Sprintf("a %s cannot begin like that", t)}
		}
		named, err := ParseOID(string(value))
		if err != nil {
			return &CorruptError{oid, err.Error()}
		}
		fn(kind, named)
	}
}

// marker finds what can be reached. What there is to find is what the store had
// when it began; the memory is a bit for each small object and 40 bytes for each
// raw blob.
type marker struct {
	s     *Store
	packs []*packFile
	marks []bitmap
	raws  []rawBlob // sorted by oid
	todo  []packPos

	seen     int
	progress func(int)
}

type packPos struct{ pack, pos uint32 }

type rawBlob struct {
	oid    OID
	marked bool
	size   int64
	landed int64 // seconds since 1970
}

// newMarker lists what there is. Upkeep is locked.
func (s *Store) newMarker(ctx context.Context, progress func(int)) (*marker, error) {
	m := &marker{s: s, progress: progress}
	s.mu.RLock()
	m.packs = slices.Clone(s.small.packs)
	s.mu.RUnlock()
	for _, pf := range m.packs {
		m.marks = append(m.marks, newBitmap(pf.idx.Len()))
	}
	err := s.b.List(ctx, rawPrefix, func(info backend.Info) error {
		oid, err := ParseOID(info.Key[max(0, len(info.Key)-40):])
		if err == nil && rawKey(oid) == info.Key {
			m.raws = append(m.raws, rawBlob{oid: oid, size: info.Size, landed: info.Modified.Unix()})
		}
		return nil // what the store did not write is fsck's to report
	})
	slices.SortFunc(m.raws, func(a, b rawBlob) int { return compareOIDs(a.oid, b.oid) })
	return m, err
}

// mark marks an object, and reports whether it is there. What landed after the
// marker began is there and is not marked: it cannot be lost.
func (m *marker) mark(ctx context.Context, t Type, oid OID) (bool, error) {
	for i, pf := range m.packs {
		pos, ok := pf.idx.Find(oid)
		if !ok {
			continue
		}
		m.markAt(t, i, pos)
		return true, nil
	}
	if i, ok := m.findRaw(oid); ok {
		if !m.raws[i].marked {
			m.raws[i].marked = true
			m.step()
		}
		return true, nil
	}
	_, err := m.s.Stat(ctx, oid)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (m *marker) markAt(t Type, i, pos int) {
	if m.marks[i].has(pos) {
		return
	}
	m.marks[i].add(pos)
	m.step()
	if t != Blob {
		m.todo = append(m.todo, packPos{uint32(i), uint32(pos)})
	}
}

func (m *marker) step() {
	if m.seen++; m.seen%10_000 == 0 && m.progress != nil {
		m.progress(m.seen)
	}
}

func (m *marker) findRaw(oid OID) (int, bool) {
	return sort.Find(len(m.raws), func(i int) int { return compareOIDs(oid, m.raws[i].oid) })
}

// walk marks all that the marked ones name.
func (m *marker) walk(ctx context.Context) error {
	for len(m.todo) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := m.todo[len(m.todo)-1]
		m.todo = m.todo[:len(m.todo)-1]
		if err := m.follow(ctx, m.packs[at.pack], int(at.pos)); err != nil {
			return err
		}
	}
	return nil
}

// follow marks what the object at a position names.
func (m *marker) follow(ctx context.Context, pf *packFile, pos int) error {
	oid := pf.idx.OID(pos)
	loc, err := pf.locate(pos)
	if err != nil {
		return err
	}
	entry := make([]byte, loc.length)
	if err := m.s.packs.readAt(ctx, pf, entry, loc.offset); err != nil {
		return err
	}
	if len(entry) > 0 && Type(entry[0]>>4&7) == Blob {
		return nil
	}
	t, data, err := m.s.verified(ctx, oid, loc, entry)
	if err != nil {
		return err
	}
	var failed error
	err = linksOf(oid, t, data, func(t Type, named OID) {
		ok, err := m.mark(ctx, t, named)
		if err == nil && !ok {
			err = &MissingError{OID: named, Type: t, From: oid}
		}
		if failed == nil {
			failed = err
		}
	})
	return errors.Join(err, failed)
}

// roots marks what refs and their past name, and follows it.
func (m *marker) roots(ctx context.Context, r Roots) error {
	for _, oid := range r.Refs {
		ok, err := m.mark(ctx, 0, oid)
		if err == nil && !ok {
			err = &MissingError{OID: oid}
		}
		if err != nil {
			return err
		}
	}
	for _, oid := range r.Past {
		if _, err := m.mark(ctx, 0, oid); err != nil {
			return err
		}
	}
	return m.walk(ctx)
}

// young marks what came after an instant, and follows it.
func (m *marker) young(ctx context.Context, after time.Time) error {
	for i, pf := range m.packs {
		if len(pf.ages) == 0 && !pf.landed(pack.HeaderSize).After(after) {
			continue
		}
		for pos := range pf.idx.Len() {
			if pf.landed(pf.idx.Offset(pos)).After(after) {
				m.markAt(0, i, pos)
			}
		}
	}
	for i := range m.raws {
		if r := &m.raws[i]; !r.marked && r.landed > after.Unix() {
			r.marked = true
			m.step()
		}
	}
	return m.walk(ctx)
}

// newcomers follows what landed after the marker began. s.gate is held, so that
// nothing else lands.
func (m *marker) newcomers(ctx context.Context) error {
	m.s.mu.RLock()
	packs := slices.Clone(m.s.small.packs)
	m.s.mu.RUnlock()
	for _, pf := range packs {
		if slices.Contains(m.packs, pf) {
			continue
		}
		for pos := range pf.idx.Len() {
			if err := m.follow(ctx, pf, pos); err != nil {
				return err
			}
		}
	}
	return m.walk(ctx)
}

// rest returns what is not marked, and how much that is.
func (m *marker) rest(when time.Time) (*condemned, GCCounts, error) {
	c := &condemned{when: when, packs: make(map[string]packMarks)}
	var n GCCounts
	for i, pf := range m.packs {
		marks := newBitmap(pf.idx.Len())
		any := false
		for next, p := range pf.byOffset() {
			pos := int(p)
			if m.marks[i].has(pos) {
				continue
			}
			loc, err := pf.locateAt(pos, next+1)
			if err != nil {
				return nil, GCCounts{}, err
			}
			n.Objects++
			n.Bytes += int64(loc.length)
			marks.add(pos)
			any = true
		}
		if any {
			c.packs[pf.id] = packMarks{pf.idx.Len(), marks}
		}
	}
	for _, r := range m.raws {
		if !r.marked {
			c.raws = append(c.raws, r.oid)
			n.Objects++
			n.RawBlobs++
			n.Bytes += r.size
		}
	}
	return c, n, nil
}
