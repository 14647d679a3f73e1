package uploadpack

import (
	"github.com/headgate/headgate/objects"
)

// placement tells the pack's writer of each object whether it is sent, whether
// the client has it, and where it was written. It implements pack.Placement with
// four bytes for an object that the index knows.
type placement struct {
	g      *graph
	sent   *objectSet
	theirs *objectSet // nil: no object may be left out as a base
	known  []uint32   // offsets by position
	rest   map[objects.OID]uint32
	last   key // looked up last: the same object is often asked about twice
}

func (l *objectList) placement(thin bool) *placement {
	p := &placement{g: l.g, sent: l.sent, rest: make(map[objects.OID]uint32, len(l.rest))}
	if thin {
		p.theirs = l.theirs
	}
	if l.g.x != nil {
		p.known = make([]uint32, l.g.x.Len())
	}
	return p
}

func (p *placement) key(oid objects.OID) key {
	if p.last.oid != oid {
		p.last = p.g.key(oid)
	}
	return p.last
}

func (p *placement) Sent(oid objects.OID) bool { return p.sent.has(p.key(oid)) }

func (p *placement) Known(oid objects.OID) bool {
	return p.theirs != nil && p.theirs.has(p.key(oid))
}

func (p *placement) Offset(oid objects.OID) uint32 {
	if k := p.key(oid); k.known {
		return p.known[k.pos]
	}
	return p.rest[oid]
}

func (p *placement) SetOffset(oid objects.OID, off uint32) {
	if k := p.key(oid); k.known {
		p.known[k.pos] = off
	} else {
		p.rest[oid] = off
	}
}
