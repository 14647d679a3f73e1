package pack_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/headgate/headgate/objects/pack"
)

// slowDelta is gitformat-pack(5), "Deltified representation", word by word. The
// bounds are those of Delta: sizes of 57 bits and no more in one number.
func slowDelta(delta, base []byte) (result []byte, ok bool) {
	number := func() (uint64, bool) {
		var v uint64
		for shift := 0; shift < 63 && len(delta) > 0; shift += 7 {
			c := delta[0]
			delta = delta[1:]
			v += uint64(c&0x7f) << shift
			if c < 0x80 {
				return v, true
			}
		}
		return 0, false
	}
	baseSize, ok1 := number()
	size, ok2 := number()
	if !ok1 || !ok2 || baseSize != uint64(len(base)) || size > 1<<20 {
		return nil, false
	}
	for len(delta) > 0 {
		op := delta[0]
		delta = delta[1:]
		switch {
		case op == 0:
			return nil, false
		case op < 0x80:
			if int(op) > len(delta) {
				return nil, false
			}
			result = append(result, delta[:op]...)
			delta = delta[op:]
		default:
			var field [7]uint64
			for i := range field {
				if op&(1<<i) == 0 {
					continue
				}
				if len(delta) == 0 {
					return nil, false
				}
				field[i] = uint64(delta[0])
				delta = delta[1:]
			}
			offset := field[0] | field[1]<<8 | field[2]<<16 | field[3]<<24
			n := field[4] | field[5]<<8 | field[6]<<16
			if n == 0 {
				n = 0x10000
			}
			if offset+n > uint64(len(base)) {
				return nil, false
			}
			result = append(result, base[offset:offset+n]...)
		}
		if uint64(len(result)) > size {
			return nil, false
		}
	}
	return result, uint64(len(result)) == size
}

func FuzzDelta(f *testing.F) {
	f.Add([]byte("\x0a\x05\x91\x03\x02\x03abc"), []byte("0123456789"))
	f.Add([]byte("\x0a\x0a\x90\x0a"), []byte("0123456789"))
	f.Add([]byte("\x0a\x0b\x90\x0a\x01!"), []byte("0123456789"))
	f.Add([]byte("\x0a\x0a\x80"), []byte("0123456789"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff"), []byte(""))
	f.Add([]byte("\x00\x00"), []byte(""))
	f.Add([]byte("\x00\x01\x00"), []byte(""))
	f.Fuzz(func(t *testing.T, delta, base []byte) {
		got, err := apply(delta, base)
		if errors.Is(err, io.ErrShortWrite) {
			t.Error("Apply returned without an error and without all bytes")
		}
		want, ok := slowDelta(delta, base)
		if ok != (err == nil) || ok && !bytes.Equal(got, want) {
			t.Errorf("%x on %x: %x, %v; want %x, %v", delta, base, got, err, want, ok)
		}
	})
}

// seal gives a pack the checksum that it needs to be taken.
func seal(data []byte) []byte {
	if len(data) < sha1.Size {
		return data
	}
	body := data[: len(data)-sha1.Size : len(data)-sha1.Size]
	sum := sha1.Sum(body)
	return append(body, sum[:]...)
}

func deflate(b []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// entriesOf makes a pack of entries that are written out.
func entriesOf(n uint32, parts ...[]byte) []byte {
	data := pack.AppendHeader(nil, n)
	for _, p := range parts {
		data = append(data, p...)
	}
	return seal(append(data, make([]byte, sha1.Size)...))
}

func FuzzScanner(f *testing.F) {
	blob := append([]byte{0x35}, deflate([]byte("hello"))...)
	f.Add(pack.AppendHeader(nil, 0))
	f.Add(append(pack.AppendHeader(nil, 1), 0x30, 0x78, 0x9c, 3, 0, 0, 0, 0, 1))
	f.Add(entriesOf(0))
	f.Add(entriesOf(1, blob))
	f.Add(entriesOf(2, blob, []byte{0x64, byte(len(blob))}, deflate([]byte("\x05\x05\x90\x05"))))
	f.Add(entriesOf(1, []byte{0x74}, make([]byte, 20), deflate([]byte("\x05\x05\x90\x05"))))
	f.Add(entriesOf(1, []byte{0x95, 0x0a}, deflate(bytes.Repeat([]byte("tree "), 33))))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = seal(data)
		s := pack.NewScanner(bytes.NewReader(data), 0)
		defer s.Close()
		count, err := s.Count()
		var seen uint32
		for err == nil {
			var e pack.Entry
			if e, err = s.Next(); err != nil {
				break
			}
			seen++
			var content []byte
			if content, err = io.ReadAll(io.LimitReader(s.Data(), 1<<24)); err != nil {
				break
			}
			if len(content) == 1<<24 {
				return // long enough
			}
			if int64(len(content)) != e.Size {
				t.Errorf("entry at %d has %d bytes, its header says %d", e.Offset, len(content), e.Size)
			}
			// The same from the bytes where it is said to be, with the standard library.
			typ, size, n, err := pack.ParseEntryHeader(data[e.Offset:])
			if err != nil || size != e.Size {
				t.Fatalf("the header at %d: type %d, %d bytes, %v; scanned %+v", e.Offset, typ, size, err, e)
			}
			at := e.Offset + int64(n)
			switch typ {
			case 6:
				for ; data[at]&0x80 != 0; at++ {
				}
				at++
			case 7:
				at += 20
			}
			z, err := zlib.NewReader(bytes.NewReader(data[at:]))
			if err != nil {
				t.Fatalf("entry at %d: the standard library says %v", e.Offset, err)
			}
			if again, err := io.ReadAll(z); err != nil || !bytes.Equal(again, content) {
				t.Errorf("entry at %d: %d bytes, the standard library has %d, %v", e.Offset, len(content), len(again), err)
			}
		}
		var fe *pack.FormatError
		switch {
		case err == io.EOF && (seen != count || seen != binary.BigEndian.Uint32(data[8:])):
			t.Errorf("it ended after %d of %d entries", seen, count)
		case err != io.EOF && !errors.As(err, &fe):
			t.Errorf("%v is no *FormatError", err)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add(pack.EncodeIndex(nil, pack.OID{}))
	f.Add(pack.EncodeIndex([]pack.IndexEntry{{Offset: 12}}, pack.OID{}))
	f.Add(pack.EncodeIndex([]pack.IndexEntry{{OID: pack.OID{1}, Offset: 12, CRC: 7}, {OID: pack.OID{0xff}, Offset: 1 << 40}}, pack.OID{9}))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = seal(data)
		if x, err := pack.OpenIndex(data); err == nil {
			// What is searched before anybody has verified it must not fail, whatever it finds.
			for pos := range x.Len() {
				x.Offset(pos)
				x.CRC(pos)
				x.Find(x.OID(pos))
			}
			x.ByOffset()
		}
		entries, sum, err := pack.ParseIndex(data)
		if err != nil {
			return
		}
		x, err := pack.OpenIndex(data)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range entries {
			if pos, ok := x.Find(e.OID); !ok || pos != i {
				t.Fatalf("%s is found at %d, %v; it is at %d", e.OID, pos, ok, i)
			}
		}
		// A file may keep offsets in its second table that would fit into the first, or
		// keep some that nothing names: then only the meaning survives.
		again, sumAgain, err := pack.ParseIndex(pack.EncodeIndex(entries, sum))
		if err != nil || sumAgain != sum || len(again) != len(entries) {
			t.Fatalf("written again: %d entries, %v", len(again), err)
		}
		for i := range again {
			if again[i] != entries[i] {
				t.Fatalf("entry %d was %v and is %v", i, entries[i], again[i])
			}
		}
	})
}
