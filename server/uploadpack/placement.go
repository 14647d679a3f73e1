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

func (p *placement) Sent(oid objects.OID) bool { return p.sent.has(p.g.key(oid)) }

func (p *placement) Known(oid objects.OID) bool {
	return p.theirs != nil && p.theirs.has(p.g.key(oid))
}

func (p *placement) Offset(oid objects.OID) uint32 {
	if k := p.g.key(oid); k.known {
		return p.known[k.pos]
	}
	return p.rest[oid]
}

func (p *placement) SetOffset(oid objects.OID, off uint32) {
	if k := p.g.key(oid); k.known {
		p.known[k.pos] = off
	} else {
		p.rest[oid] = off
	}
}
