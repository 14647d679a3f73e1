package pack

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// IndexEntry says where an object is in its pack.
type IndexEntry struct {
	OID    OID
	Offset int64
	CRC    uint32 // CRC-32 (IEEE) of the entry's bytes, header and data
}

const (
	indexHeader  = "\xfftOc\x00\x00\x00\x02"
	indexFanout  = len(indexHeader)
	indexOIDs    = indexFanout + 256*4
	indexTrailer = 2 * TrailerSize
	bigOffset    = 1 << 31
)

// EncodeIndex returns the idx file, version 2, of the pack with the given
// checksum. It sorts entries by oid in place.
func EncodeIndex(entries []IndexEntry, packSum OID) []byte {
	slices.SortFunc(entries, func(a, b IndexEntry) int { return bytes.Compare(a.OID[:], b.OID[:]) })
	b := make([]byte, 0, indexOIDs+len(entries)*28+indexTrailer)
	b = append(b, indexHeader...)
	n := 0
	for first := range 256 {
		for n < len(entries) && int(entries[n].OID[0]) == first {
			n++
		}
		b = binary.BigEndian.AppendUint32(b, uint32(n))
	}
	for _, e := range entries {
		b = append(b, e.OID[:]...)
	}
	for _, e := range entries {
		b = binary.BigEndian.AppendUint32(b, e.CRC)
	}
	var big []byte
	for _, e := range entries {
		if e.Offset < bigOffset {
			b = binary.BigEndian.AppendUint32(b, uint32(e.Offset))
			continue
		}
		b = binary.BigEndian.AppendUint32(b, bigOffset|uint32(len(big)/8))
		big = binary.BigEndian.AppendUint64(big, uint64(e.Offset))
	}
	b = append(b, big...)
	b = append(b, packSum[:]...)
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

// ParseIndex returns the entries of an idx file, sorted by oid, and its pack's
// checksum.
func ParseIndex(b []byte) ([]IndexEntry, OID, error) {
	fail := func(what string) ([]IndexEntry, OID, error) {
		return nil, OID{}, errors.New("pack index: " + what)
	}
	if len(b) < indexOIDs+indexTrailer || string(b[:len(indexHeader)]) != indexHeader {
		return fail("not an idx file of version 2")
	}
	if sum := sha1.Sum(b[:len(b)-TrailerSize]); !bytes.Equal(sum[:], b[len(b)-TrailerSize:]) {
		return fail("it does not match its checksum")
	}
	n := int64(binary.BigEndian.Uint32(b[indexOIDs-4:]))
	bigs := int64(len(b)) - int64(indexOIDs) - n*28 - indexTrailer
	if bigs < 0 || bigs%8 != 0 {
		return fail("its length does not fit its number of entries")
	}
	oids := b[indexOIDs:]
	crcs := oids[n*20:]
	offsets := crcs[n*4:]
	big := offsets[n*4:][:bigs]
	entries := make([]IndexEntry, n)
	for i := range entries {
		e := &entries[i]
		copy(e.OID[:], oids[i*20:])
		if i > 0 && bytes.Compare(entries[i-1].OID[:], e.OID[:]) >= 0 {
			return fail(fmt.Sprintf("entry %d is out of order", i))
		}
		e.CRC = binary.BigEndian.Uint32(crcs[i*4:])
		off := binary.BigEndian.Uint32(offsets[i*4:])
		e.Offset = int64(off)
		if off&bigOffset != 0 {
			at := int64(off&^bigOffset) * 8
			if at+8 > int64(len(big)) {
				return fail(fmt.Sprintf("entry %d has a bad offset", i))
			}
			e.Offset = int64(binary.BigEndian.Uint64(big[at:]))
		}
		if e.Offset < HeaderSize {
			return fail(fmt.Sprintf("entry %d has a bad offset", i))
		}
	}
	var packSum OID
	copy(packSum[:], b[len(b)-indexTrailer:])
	return entries, packSum, nil
}
