package reach

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"math/bits"
	"slices"
)

// encode writes the index.
func (b *builder) encode() []byte {
	oids := slices.Concat(b.commits.oids, b.tags.oids, b.contents.oids)
	n := len(oids)
	fan := min(16, bits.Len(uint(n/8)))
	shift := 32 - fan
	order := make([]uint32, n)
	fanout := make([]uint32, 1<<fan)
	prefix := func(oid *OID) int { return int(uint64(binary.BigEndian.Uint32(oid[:])) >> shift) }
	for i := range oids {
		fanout[prefix(&oids[i])]++
	}
	next := make([]uint32, 1<<fan)
	sum := uint32(0)
	for i, c := range fanout {
		next[i] = sum
		sum += c
		fanout[i] = sum
	}
	for i := range oids {
		at := &next[prefix(&oids[i])]
		order[*at] = uint32(i)
		*at++
	}
	start := uint32(0)
	for _, end := range fanout {
		slices.SortFunc(order[start:end], func(i, j uint32) int { return bytes.Compare(oids[i][:], oids[j][:]) })
		start = end
	}

	var edges []uint32
	for _, r := range b.records {
		if len(r.parents) > 2 {
			edges = append(edges, r.parents[1:]...)
			edges[len(edges)-1] |= moreEdges
		}
	}
	size := headerSize + n*24 + 4<<fan + len(b.sizes)*4 + len(b.records)*commitSize + len(edges)*4 +
		len(b.targets)*tagSize + len(b.marked)*bitmapSize + b.runs + trailerSize
	out := append(make([]byte, 0, size), magic...)
	for _, v := range []int{version, len(b.records), len(b.targets), len(b.sizes), len(edges), len(b.marked), fan} {
		out = binary.BigEndian.AppendUint32(out, uint32(v))
	}
	for i := range oids {
		out = append(out, oids[i][:]...)
	}
	for _, part := range [][]uint32{order, fanout, b.sizes} {
		for _, v := range part {
			out = binary.BigEndian.AppendUint32(out, v)
		}
	}
	at := uint32(0)
	for _, r := range b.records {
		p1, p2 := uint32(none), uint32(none)
		if len(r.parents) > 0 {
			p1 = r.parents[0]
		}
		switch {
		case len(r.parents) == 2:
			p2 = r.parents[1]
		case len(r.parents) > 2:
			p2 = at | moreEdges
			at += uint32(len(r.parents) - 1)
		}
		for _, v := range []uint32{r.tree, p1, p2, r.generation, r.upTo, 0} {
			out = binary.BigEndian.AppendUint32(out, v)
		}
		out = binary.BigEndian.AppendUint64(out, uint64(r.date))
	}
	for _, part := range [][]uint32{edges, b.targets} {
		for _, v := range part {
			out = binary.BigEndian.AppendUint32(out, v)
		}
	}
	off := uint32(0)
	for _, k := range b.marked {
		out = binary.BigEndian.AppendUint32(out, k)
		out = binary.BigEndian.AppendUint32(out, off)
		off += uint32(len(b.explicit[k]))
	}
	for _, k := range b.marked {
		out = append(out, b.explicit[k]...)
	}
	h := sha1.Sum(out)
	return append(out, h[:]...)
}
