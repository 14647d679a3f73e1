package objects

import (
	"context"
	"hash/crc32"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/objects/pack"
)

// packed reads entries of packs one after another. A clone asks for nearly all of
// a pack, roughly in its order or against it, so entries come out of a window
// where the last ones were close together.
type packed struct {
	s      *Store
	pf     *packFile
	at     int64 // of the window in the pack
	window []byte
	missed int64 // where the last entry outside of it was
	buf    []byte
}

// readAhead is the size of the window.
const readAhead = 256 << 10

// OpenPacked implements pack.PackedOpener.
func (s *Store) OpenPacked() pack.PackedReader { return &packed{s: s} }

// Packed implements pack.PackedReader. The entry's checksum is verified.
func (p *packed) Packed(ctx context.Context, oid OID) (pack.Packed, bool, error) {
	for {
		loc, ok, err := p.s.find(oid, false)
		if err != nil || !ok {
			return pack.Packed{}, false, err
		}
		entry, err := p.read(ctx, loc)
		if err != nil {
			// Between the two, another pack may have come in this one's place.
			if loc.pack.retired.Load() && ctx.Err() == nil {
				continue
			}
			return pack.Packed{}, false, err
		}
		if crc32.ChecksumIEEE(entry) != loc.crc {
			return pack.Packed{}, false, &CorruptError{oid, "its pack entry does not match its checksum"}
		}
		h, err := parseHead(entry, loc.offset)
		if err != nil {
			return pack.Packed{}, false, &CorruptError{oid, err.Error()}
		}
		out := pack.Packed{Type: h.t, Size: h.size, Stream: entry[h.n:]}
		if h.t == plumbing.OFSDeltaObject {
			pos, _, err := loc.pack.at(h.base)
			if err != nil {
				return pack.Packed{}, false, &CorruptError{oid, err.Error()}
			}
			out.Base = loc.pack.idx.OID(pos)
		}
		return out, true, nil
	}
}

// read returns an entry's bytes, which are good until the next call.
func (p *packed) read(ctx context.Context, loc location) ([]byte, error) {
	end := loc.offset + int64(loc.length)
	if loc.pack == p.pf && loc.offset >= p.at && end <= p.at+int64(len(p.window)) {
		return p.window[loc.offset-p.at : end-p.at], nil
	}
	near := loc.pack == p.pf && (loc.offset > p.missed-readAhead && loc.offset < p.missed+readAhead ||
		end > p.at-readAhead && loc.offset < p.at+int64(len(p.window))+readAhead)
	back := loc.offset < p.missed
	if loc.pack != p.pf {
		p.pf, p.window, p.at = loc.pack, nil, 0
	}
	p.missed = loc.offset
	if !near || loc.length > readAhead {
		// Alone, it is read alone.
		if cap(p.buf) < int(loc.length) {
			p.buf = make([]byte, loc.length)
		}
		p.buf = p.buf[:loc.length]
		return p.buf, p.s.packs.readAt(ctx, loc.pack, p.buf, loc.offset)
	}
	from, to := loc.offset, min(loc.offset+readAhead, loc.pack.size)
	if back {
		from, to = max(0, end-readAhead), end
	}
	if cap(p.window) < readAhead {
		p.window = make([]byte, readAhead)
	}
	p.window, p.at = p.window[:to-from], from
	if err := p.s.packs.readAt(ctx, loc.pack, p.window, from); err != nil {
		p.window = p.window[:0]
		return nil, err
	}
	return p.window[loc.offset-p.at : end-p.at], nil
}

var _ pack.PackedOpener = (*Store)(nil)
