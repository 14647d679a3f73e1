package pack

import (
	"encoding/binary"
	"math/bits"
)

const (
	// diffBlock is the shortest piece of a base that is found again. An entry of a
	// tree is 28 bytes and its name.
	diffBlock = 16
	// diffChain bounds how many equal blocks are tried: constant data has many.
	diffChain = 16

	maxInsert = 127
	maxCopy   = 0x10000 // what git itself writes; longer ones are several copies
)

// DeltaBase is content that deltas are made against, with an index of its
// blocks. It keeps the content, which must not change.
type DeltaBase struct {
	data  []byte
	heads []uint32 // by hash: 1 and the number of the last block that has it
	prev  []uint32 // by block: the block before it with the same hash, in the same way
	shift uint
}

// NewDeltaBase indexes data. It takes some 6 bytes of memory for 16 of data.
func NewDeltaBase(data []byte) *DeltaBase {
	n := len(data) / diffBlock
	size := bits.Len(uint(n))
	b := &DeltaBase{data: data, heads: make([]uint32, 1<<size), prev: make([]uint32, n), shift: uint(64 - size)}
	for i := range n {
		h := &b.heads[b.hash(data[i*diffBlock:])]
		b.prev[i] = *h
		*h = uint32(i + 1)
	}
	return b
}

func (b *DeltaBase) hash(p []byte) uint64 {
	const k1, k2 = 0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f
	v := binary.LittleEndian.Uint64(p)*k1 ^ bits.RotateLeft64(binary.LittleEndian.Uint64(p[8:])*k2, 29)
	return v * k1 >> b.shift
}

// Diff returns a delta that makes target of the base, or nil if it would have
// more than max bytes. See gitformat-pack(5), "Deltified representation".
func (b *DeltaBase) Diff(target []byte, max int) []byte {
	out := make([]byte, 0, min(max, len(target)/2+32)+maxInsert)
	out = binary.AppendUvarint(out, uint64(len(b.data)))
	out = binary.AppendUvarint(out, uint64(len(target)))
	done := 0 // of target
	for i := 0; i+diffBlock <= len(target); {
		at, n := b.longest(target[i:])
		if n < diffBlock {
			i++
			// What is not copied is inserted, at a byte each or more.
			if len(out)+i-done > max {
				return nil
			}
			continue
		}
		for at > 0 && i > done && b.data[at-1] == target[i-1] {
			at, i, n = at-1, i-1, n+1
		}
		out = appendCopy(appendInsert(out, target[done:i]), at, n)
		i += n
		done = i
	}
	if out = appendInsert(out, target[done:]); len(out) > max {
		return nil
	}
	return out
}

// longest returns the longest piece of the base that p begins with.
func (b *DeltaBase) longest(p []byte) (at, n int) {
	tries := 0
	for block := b.heads[b.hash(p)]; block > 0 && tries < diffChain; block = b.prev[block-1] {
		tries++
		from := int(block-1) * diffBlock
		if m := common(b.data[from:], p); m > n {
			at, n = from, m
		}
	}
	return at, n
}

// common returns the length of the common start.
func common(a, b []byte) int {
	n := 0
	for len(a)-n >= 8 && len(b)-n >= 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
		n += 8
	}
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func appendInsert(out, p []byte) []byte {
	for len(p) > 0 {
		n := min(len(p), maxInsert)
		out = append(append(out, byte(n)), p[:n]...)
		p = p[n:]
	}
	return out
}

func appendCopy(out []byte, at, n int) []byte {
	for n > 0 {
		size := min(n, maxCopy)
		op := len(out)
		out = append(out, 0x80)
		for i, v := range [7]int{at, at >> 8, at >> 16, at >> 24, size, size >> 8, size >> 16} {
			// A size of 0x10000 is written as none.
			if c := byte(v); c != 0 && (i < 4 || size != maxCopy) {
				out[op] |= 1 << i
				out = append(out, c)
			}
		}
		at += size
		n -= size
	}
	return out
}
