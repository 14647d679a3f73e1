package uploadpack

import (
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/reach"
)

// key is an object, and its position if the reachability index has it.
type key struct {
	oid   objects.OID
	pos   uint32
	known bool
}

func (g *graph) key(oid objects.OID) key {
	k := key{oid: oid}
	if g.x != nil {
		k.pos, k.known = g.x.Find(oid)
	}
	return k
}

// at is the object at a position of the index.
func (g *graph) at(pos uint32) key { return key{g.x.OID(pos), pos, true} }

// objectSet is a set of objects: a bit for each that the index knows, an oid for
// each other. A million objects that are known take 125 KB.
type objectSet struct {
	bits *reach.Set
	rest map[objects.OID]struct{}
}

func (g *graph) newSet() objectSet {
	s := objectSet{rest: map[objects.OID]struct{}{}}
	if g.x != nil {
		s.bits = g.x.NewSet()
	}
	return s
}

func (s *objectSet) has(k key) bool {
	if k.known {
		return s.bits.Has(k.pos)
	}
	_, ok := s.rest[k.oid]
	return ok
}

func (s *objectSet) add(k key) {
	if k.known {
		s.bits.Add(k.pos)
	} else {
		s.rest[k.oid] = struct{}{}
	}
}

func (s *objectSet) remove(k key) {
	if k.known {
		s.bits.Remove(k.pos)
	} else {
		delete(s.rest, k.oid)
	}
}

// objectList is objects in the order in which they are sent: a position for each
// that the index knows, an oid for each other.
type objectList struct {
	g      *graph
	order  []uint32 // a position, or unknown and an index into rest
	rest   []objects.OID
	sent   *objectSet // the same, and
	theirs *objectSet // some of what the client has
}

const unknown = 1 << 31

func (l *objectList) add(k key) {
	if k.known {
		l.order = append(l.order, k.pos)
		return
	}
	l.order = append(l.order, unknown|uint32(len(l.rest)))
	l.rest = append(l.rest, k.oid)
}

// Len returns the number of objects.
func (l *objectList) Len() int { return len(l.order) }

// OID returns the object at i.
func (l *objectList) OID(i int) objects.OID {
	at := l.order[i]
	if at&unknown != 0 {
		return l.rest[at&^unknown]
	}
	return l.g.x.OID(at)
}
