package pack

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
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
	var b bytes.Buffer
	b.Grow(indexOIDs + len(entries)*28 + indexTrailer)
	// A buffer takes everything.
	_ = WriteIndex(&b, len(entries), func(i int) IndexEntry { return entries[i] }, packSum)
	return b.Bytes()
}

// WriteIndex writes an idx file of n entries, which are asked for in the order
// of oids, several times over: they need not be in memory.
func WriteIndex(w io.Writer, n int, entry func(int) IndexEntry, packSum OID) error {
	h := sha1.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, h), chunkSize)
	var buf []byte // a bufio.Writer keeps its first error, which Flush returns
	u32 := func(v uint32) {
		buf = binary.BigEndian.AppendUint32(buf[:0], v)
		_, _ = out.Write(buf)
	}
	_, _ = out.WriteString(indexHeader)
	i := 0
	for first := range 256 {
		for i < n && int(entry(i).OID[0]) == first {
			i++
		}
		u32(uint32(i))
	}
	for i := range n {
		oid := entry(i).OID
		_, _ = out.Write(oid[:])
	}
	for i := range n {
		u32(entry(i).CRC)
	}
	var big []int64
	for i := range n {
		off := entry(i).Offset
		if off < bigOffset {
			u32(uint32(off))
			continue
		}
		u32(bigOffset | uint32(len(big)))
		big = append(big, off)
	}
	for _, off := range big {
		buf = binary.BigEndian.AppendUint64(buf[:0], uint64(off))
		_, _ = out.Write(buf)
	}
	_, _ = out.Write(packSum[:])
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := w.Write(h.Sum(nil))
	return err
}

// Index is an idx file, version 2, that is searched where it lies: in memory or
// in a mapped file, which may be unmapped when the Index is garbage. It is safe for
// concurrent use.
type Index struct {
	n       int
	fanout  []byte
	oids    []byte
	crcs    []byte
	offsets []byte
	big     []byte
	packSum OID
}

// OpenIndex checks the file's form, in time that does not grow with it: what it
// says of each object is up to Verify. b must not change as long as the Index
// is used.
func OpenIndex(b []byte) (*Index, error) {
	if len(b) < indexOIDs+indexTrailer || string(b[:len(indexHeader)]) != indexHeader {
		return nil, errIndex("not an idx file of version 2")
	}
	x := &Index{fanout: b[indexFanout:indexOIDs]}
	for first := range 255 {
		if x.begins(first+1) > x.begins(first+2) {
			return nil, errIndex("its fan-out table falls")
		}
	}
	n := int64(x.begins(256))
	bigs := int64(len(b)) - int64(indexOIDs) - n*28 - indexTrailer
	if bigs < 0 || bigs%8 != 0 {
		return nil, errIndex("its length does not fit its number of entries")
	}
	x.n = int(n)
	x.oids = b[indexOIDs:][:n*20]
	x.crcs = b[indexOIDs:][n*20:][:n*4]
	x.offsets = b[indexOIDs:][n*24:][:n*4]
	x.big = b[indexOIDs:][n*28:][:bigs]
	x.packSum = OID(b[len(b)-indexTrailer:][:len(OID{})])
	return x, nil
}

func errIndex(what string) error { return errors.New("pack index: " + what) }

// begins returns the position of the first oid whose first byte is at least first.
func (x *Index) begins(first int) int {
	if first == 0 {
		return 0
	}
	return int(binary.BigEndian.Uint32(x.fanout[(first-1)*4:]))
}

// Len returns the number of objects.
func (x *Index) Len() int { return x.n }

// PackSum returns the checksum of the pack that the index is of.
func (x *Index) PackSum() OID { return x.packSum }

// OID returns the object at a position; the order is that of oids.
func (x *Index) OID(pos int) OID {
	oid := OID(x.oids[pos*20:][:20])
	runtime.KeepAlive(x)
	return oid
}

// CRC returns the CRC-32 of the entry at a position.
func (x *Index) CRC(pos int) uint32 {
	crc := binary.BigEndian.Uint32(x.crcs[pos*4:])
	runtime.KeepAlive(x)
	return crc
}

// Offset returns where in the pack the object at a position begins. It is 0,
// where no object can begin, if the index is damaged there.
func (x *Index) Offset(pos int) int64 {
	defer runtime.KeepAlive(x)
	off := binary.BigEndian.Uint32(x.offsets[pos*4:])
	if off&bigOffset == 0 {
		return int64(off)
	}
	at := int64(off&^bigOffset) * 8
	if at+8 > int64(len(x.big)) {
		return 0
	}
	return int64(binary.BigEndian.Uint64(x.big[at:]))
}

// Seek returns the position of the first oid that is not before the given one,
// Len if all are.
func (x *Index) Seek(oid OID) int {
	defer runtime.KeepAlive(x)
	lo, hi := x.begins(int(oid[0])), x.begins(int(oid[0])+1)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if bytes.Compare(x.oids[mid*20:][:20], oid[:]) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// Find returns the object's position.
func (x *Index) Find(oid OID) (pos int, ok bool) {
	defer runtime.KeepAlive(x)
	lo, hi := x.begins(int(oid[0])), x.begins(int(oid[0])+1)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		switch c := bytes.Compare(x.oids[mid*20:][:20], oid[:]); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return 0, false
}

// Verify reads all of the file, whose bytes r repeats, and checks its checksum,
// the order of its oids and its offsets.
func (x *Index) Verify(r io.Reader) error {
	defer runtime.KeepAlive(x)
	size := int64(indexOIDs) + int64(x.n)*28 + int64(len(x.big)) + indexTrailer
	h := sha1.New()
	if _, err := io.CopyN(h, r, size-TrailerSize); err != nil {
		return fmt.Errorf("pack index: %w", err)
	}
	var sum, want OID
	if _, err := io.ReadFull(r, want[:]); err != nil {
		return fmt.Errorf("pack index: %w", err)
	}
	if h.Sum(sum[:0]); sum != want {
		return errIndex("it does not match its checksum")
	}
	for pos := range x.n {
		switch {
		case pos > 0 && bytes.Compare(x.oids[(pos-1)*20:][:20], x.oids[pos*20:][:20]) >= 0:
			return errIndex(fmt.Sprintf("entry %d is out of order", pos))
		case pos < x.begins(int(x.oids[pos*20])) || pos >= x.begins(int(x.oids[pos*20])+1):
			return errIndex(fmt.Sprintf("entry %d is not where the fan-out table has it", pos))
		case x.Offset(pos) < HeaderSize:
			return errIndex(fmt.Sprintf("entry %d has a bad offset", pos))
		}
	}
	return nil
}

// ByOffset returns all positions in the order of the pack, in which an entry
// ends where the next one begins. The memory is 4 bytes an object, and twice that
// meanwhile.
func (x *Index) ByOffset() []uint32 {
	var last int64
	from := make([]uint32, x.n)
	for pos := range from {
		from[pos] = uint32(pos)
		last = max(last, x.Offset(pos))
	}
	const bits = 16
	if x.n < 1<<(bits-3) {
		slices.SortFunc(from, func(a, b uint32) int { return cmp.Compare(x.Offset(int(a)), x.Offset(int(b))) })
		return from
	}
	// A radix sort, as git's own reverse index has it: many times faster than
	// comparing, and nearly all packs take two rounds.
	to := make([]uint32, x.n)
	count := make([]uint32, 1<<bits+1)
	for shift := 0; last>>shift > 0; shift += bits {
		digit := func(pos uint32) int64 { return x.Offset(int(pos)) >> shift & (1<<bits - 1) }
		clear(count)
		for _, pos := range from {
			count[digit(pos)+1]++
		}
		for i := 1; i < len(count); i++ {
			count[i] += count[i-1]
		}
		for _, pos := range from {
			d := digit(pos)
			to[count[d]] = pos
			count[d]++
		}
		from, to = to, from
	}
	return from
}

// ParseIndex returns the entries of an idx file, sorted by oid, and its pack's
// checksum.
func ParseIndex(b []byte) ([]IndexEntry, OID, error) {
	x, err := OpenIndex(b)
	if err == nil {
		err = x.Verify(bytes.NewReader(b))
	}
	if err != nil {
		return nil, OID{}, err
	}
	entries := make([]IndexEntry, x.n)
	for pos := range entries {
		entries[pos] = IndexEntry{x.OID(pos), x.Offset(pos), x.CRC(pos)}
	}
	return entries, x.packSum, nil
}
