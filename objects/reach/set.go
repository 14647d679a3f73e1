package reach

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Set is a set of positions, a bit each.
type Set struct{ words []uint64 }

// NewSet returns an empty set of the index's positions.
func (x *Index) NewSet() *Set { return newSet(x.Len()) }

func newSet(n int) *Set { return &Set{make([]uint64, (n+63)/64)} }

// Has tells whether a position is in the set.
func (s *Set) Has(pos uint32) bool { return s.words[pos/64]&(1<<(pos%64)) != 0 }

// Add adds a position.
func (s *Set) Add(pos uint32) { s.words[pos/64] |= 1 << (pos % 64) }

// Remove removes a position.
func (s *Set) Remove(pos uint32) { s.words[pos/64] &^= 1 << (pos % 64) }

// AddRange adds the positions from lo up to, and without, hi.
func (s *Set) AddRange(lo, hi uint32) {
	for lo < hi && lo%64 != 0 {
		s.Add(lo)
		lo++
	}
	for ; lo+64 <= hi; lo += 64 {
		s.words[lo/64] = ^uint64(0)
	}
	for ; lo < hi; lo++ {
		s.Add(lo)
	}
}

// Subtract removes what is in another set.
func (s *Set) Subtract(t *Set) {
	for i, w := range t.words {
		s.words[i] &^= w
	}
}

// Len counts the positions.
func (s *Set) Len() int {
	n := 0
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// Each calls fn for each position in ascending order until it returns an error.
func (s *Set) Each(fn func(pos uint32) error) error {
	for i, w := range s.words {
		for ; w != 0; w &= w - 1 {
			if err := fn(uint32(i*64 + bits.TrailingZeros64(w))); err != nil {
				return err
			}
		}
	}
	return nil
}

// Clone returns a copy of the set.
func (s *Set) Clone() *Set { return &Set{slices.Clone(s.words)} }

// appendRuns appends the runs of a set's members, their number first.
func (s *Set) appendRuns(b []byte) []byte {
	var runs []byte
	count, end := uint64(0), uint64(0)
	for at := uint64(0); ; {
		lo, ok := s.next(at, false)
		if !ok {
			break
		}
		hi, ok := s.next(lo, true)
		if !ok {
			hi = uint64(len(s.words)) * 64
		}
		runs = binary.AppendUvarint(binary.AppendUvarint(runs, lo-end), hi-lo)
		count++
		end, at = hi, hi
	}
	return append(binary.AppendUvarint(b, count), runs...)
}

// next returns the first position from at on that is a member, or is none if gap.
func (s *Set) next(at uint64, gap bool) (uint64, bool) {
	for i := at / 64; i < uint64(len(s.words)); i++ {
		w := s.words[i]
		if gap {
			w = ^w
		}
		if i == at/64 {
			w &= ^uint64(0) << (at % 64)
		}
		if w != 0 {
			return i*64 + uint64(bits.TrailingZeros64(w)), true
		}
	}
	return 0, false
}

// readRuns reads a bitmap: runs of commits, then of contents, each list with its
// number first. It reports whether they lie within the limits.
func readRuns(b []byte, limits [2]int, add func(part int, lo, hi uint32)) bool {
	var ok bool
	uvarint := func() uint64 {
		v, n := binary.Uvarint(b)
		if ok = n > 0 && v <= maxObjects; ok {
			b = b[n:]
		}
		return v
	}
	for part, limit := range limits {
		count := uvarint()
		if !ok {
			return false
		}
		end := uint64(0)
		for range count {
			gap := uvarint()
			if !ok {
				return false
			}
			n := uvarint()
			if !ok || end+gap+n > uint64(limit) {
				return false
			}
			add(part, uint32(end+gap), uint32(end+gap+n))
			end += gap + n
		}
	}
	return true
}
