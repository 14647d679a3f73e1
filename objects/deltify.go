package objects

import (
	"bytes"
	"container/list"
	"encoding/binary"
	"math/bits"

	"github.com/headgate/headgate/objects/pack"
)

// When packs are joined, versions of the same tree or text become deltas of older
// ones. Parts never do: they are raw, or compressed already. What is a version of
// what is told by what they have in common, not by paths, which a pack does not
// know: the least hashes of their lines, or of a tree's names (min-hashing, Broder
// 1997), of which most outlast a change.
//
// The n-th version is a delta of the one whose number is n without its lowest
// bit, as in Subversion's skip-deltas: so few deltas lead to each, and most are
// against the version before.

const (
	// versionsOf is how many versions follow from one that is whole: at most six
	// deltas lead to one of them.
	versionsOf = 64
	levels     = 7
	// windowBytes bounds the memory of versions that others can be deltas of.
	windowBytes = 48 << 20
	// deltaFrom and deltaUpTo bound the size of what may become a delta.
	deltaFrom = 100
	deltaUpTo = 1 << 20

	sketches = 4
)

type sketch [sketches]uint64

// sketchOf returns the least hashes of a tree's names or a text's lines. ok is
// false for what is no text.
func sketchOf(t Type, data []byte) (s sketch, ok bool) {
	for i := range s {
		s[i] = ^uint64(0)
	}
	add := func(token []byte) {
		h := uint64(t) * 0x9e3779b97f4a7c15
		for ; len(token) >= 8; token = token[8:] {
			h = (h ^ binary.LittleEndian.Uint64(token)) * 0xc2b2ae3d27d4eb4f
			h ^= h >> 29
		}
		for _, c := range token {
			h = (h ^ uint64(c)) * 0x100000001b3
		}
		for i := range s {
			h = (h + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
			h ^= h >> 31
			s[i] = min(s[i], h)
		}
	}
	if t == Tree {
		for len(data) > 0 {
			end := bytes.IndexByte(data, 0)
			if end < 0 || len(data) < end+1+len(OID{}) {
				return s, false
			}
			add(data[:end])
			data = data[end+1+len(OID{}):]
		}
		return s, true
	}
	if bytes.IndexByte(data[:min(len(data), 8000)], 0) >= 0 {
		return s, false // git's own test of what is binary
	}
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte{'\n'})
		add(line)
		data = rest
	}
	return s, true
}

// version is an object in the new pack that others can be deltas of.
type version struct {
	data   []byte
	offset int64
	depth  uint8
}

// family is versions of one thing.
type family struct {
	t     Type
	keys  sketch // of the last version
	n     int    // versions since one that is whole
	last  [levels]*version
	bytes int
}

// window finds bases among the versions that were written last.
type window struct {
	byKey map[uint64]*list.Element
	order *list.List // of *family, the most recent in front
	bytes int
}

func newWindow() *window {
	return &window{byKey: make(map[uint64]*list.Element), order: list.New()}
}

// find returns the family that shares most with an object; a new one if none does.
func (w *window) find(t Type, keys sketch) *list.Element {
	var best *list.Element
	most := 0
	for i, k := range keys {
		e := w.byKey[k]
		if e == nil || e.Value.(*family).t != t {
			continue
		}
		votes := 1
		for _, other := range keys[i+1:] {
			if w.byKey[other] == e {
				votes++
			}
		}
		if votes > most {
			best, most = e, votes
		}
	}
	if best == nil {
		return w.order.PushFront(&family{t: t})
	}
	w.order.MoveToFront(best)
	return best
}

// base returns what the next version is to be a delta of; nil if it is to be whole.
func (f *family) base() *version {
	if level := bits.OnesCount(uint(f.n % versionsOf)); level > 0 {
		if v := f.last[level-1]; v != nil && v.depth < maxDepth {
			return v
		}
	}
	return nil
}

// add makes an object the family's next version.
func (w *window) add(e *list.Element, keys sketch, v *version) {
	f := e.Value.(*family)
	before := f.bytes
	if v.depth == 0 {
		f.n, f.last, f.bytes = 0, [levels]*version{}, 0
	}
	level := bits.OnesCount(uint(f.n % versionsOf))
	for i := level; i < levels; i++ {
		if old := f.last[i]; old != nil {
			f.bytes -= len(old.data)
		}
		f.last[i] = nil
	}
	f.last[level] = v
	f.bytes += len(v.data)
	f.n++
	w.bytes += f.bytes - before

	w.forget(e, f.keys)
	f.keys = keys
	for _, k := range keys {
		w.byKey[k] = e
	}
	for w.bytes > windowBytes && w.order.Len() > 1 {
		back := w.order.Back()
		old := w.order.Remove(back).(*family)
		w.forget(back, old.keys)
		w.bytes -= old.bytes
	}
}

func (w *window) forget(e *list.Element, keys sketch) {
	for _, k := range keys {
		if w.byKey[k] == e {
			delete(w.byKey, k)
		}
	}
}

// deltaOf returns the deflated delta that makes data of a base, and the delta's
// size; nil if it would not save at least a quarter of what the object takes whole.
func deltaOf(base *version, data []byte, whole int) (stream []byte, size int64, err error) {
	delta := pack.NewDeltaBase(base.data).Diff(data, len(data)/2)
	if delta == nil {
		return nil, 0, nil
	}
	stream, err = deflated(nil, delta)
	if err != nil || len(stream) > whole-whole/4 {
		return nil, 0, err
	}
	return stream, int64(len(delta)), nil
}
