package pack_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"errors"
	"hash/adler32"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects/pack"
)

func TestPropertyEntryHeader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := pack.Type(rapid.IntRange(1, 7).Draw(t, "type"))
		size := rapid.Int64Range(0, 1<<59).Draw(t, "size")
		b := pack.AppendEntryHeader(nil, typ, size)
		gotType, gotSize, n, err := pack.ParseEntryHeader(append(b, 0xff))
		if err != nil || gotType != typ || gotSize != size || n != len(b) {
			t.Fatalf("%d, %d, %d, %v from %x", gotType, gotSize, n, err, b)
		}
		if _, _, _, err := pack.ParseEntryHeader(b[:len(b)-1]); err == nil {
			t.Fatal("a header that is cut off was taken")
		}
	})
	if _, _, _, err := pack.ParseEntryHeader(bytes.Repeat([]byte{0xff}, 20)); err == nil {
		t.Error("a size beyond all bounds was taken")
	}
}

func TestPropertyIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		oid := rapid.Custom(func(t *rapid.T) (o pack.OID) {
			copy(o[:], rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "oid"))
			return o
		})
		var entries []pack.IndexEntry
		for _, o := range rapid.SliceOfNDistinct(oid, 0, 50, rapid.ID).Draw(t, "oids") {
			entries = append(entries, pack.IndexEntry{OID: o, Offset: rapid.Int64Range(12, 1<<40).Draw(t, "offset"), CRC: rapid.Uint32().Draw(t, "crc")})
		}
		sum := pack.OID{1}
		data := pack.EncodeIndex(slices.Clone(entries), sum)
		got, gotSum, err := pack.ParseIndex(data)
		if err != nil || gotSum != sum {
			t.Fatal(err)
		}
		slices.SortFunc(entries, func(a, b pack.IndexEntry) int { return bytes.Compare(a.OID[:], b.OID[:]) })
		if !slices.Equal(got, entries) {
			t.Fatalf("%v became %v", entries, got)
		}
		i := rapid.IntRange(0, len(data)-1).Draw(t, "byte")
		data[i] ^= 1
		if _, _, err := pack.ParseIndex(data); err == nil {
			t.Fatalf("a changed byte %d was not noticed", i)
		}
	})
}

func apply(delta, base []byte) ([]byte, error) {
	d, err := pack.NewDelta(bytes.NewReader(delta))
	if err != nil {
		return nil, err
	}
	if d.BaseSize != int64(len(base)) || d.Size > 1<<20 {
		return nil, errors.New("not for this base")
	}
	var out bytes.Buffer
	if err := d.Apply(bytes.NewReader(base), &out); err != nil {
		return nil, err
	}
	if int64(out.Len()) != d.Size {
		return nil, io.ErrShortWrite
	}
	return out.Bytes(), nil
}

func TestDelta(t *testing.T) {
	base := []byte("0123456789")
	for _, c := range []struct{ delta, want string }{
		{"\x0a\x0a\x90\x0a", "0123456789"},
		{"\x0a\x05\x91\x03\x02\x03abc", "34abc"},
		{"\x0a\x00", ""},
		{"\x0a\x0c\x90\x0a\x91\x08\x02", "012345678989"},
	} {
		got, err := apply([]byte(c.delta), base)
		if err != nil || string(got) != c.want {
			t.Errorf("%x: %q, %v, want %q", c.delta, got, err, c.want)
		}
	}
}

// TestPropertyAdler32: the scanner finds the sum at the end of each zlib stream,
// however the stream is cut into reads.
func TestPropertyAdler32(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blobs := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 1, 20).Draw(t, "blobs")
		data := pack.AppendHeader(nil, uint32(len(blobs)))
		for _, blob := range blobs {
			data = pack.AppendEntryHeader(data, 3, int64(len(blob)))
			var b bytes.Buffer
			zw := zlib.NewWriter(&b)
			_, err := zw.Write(blob)
			if err := errors.Join(err, zw.Close()); err != nil {
				t.Fatal(err)
			}
			data = append(data, b.Bytes()...)
		}
		sum := sha1.Sum(data)
		data = append(data, sum[:]...)
		sizes := rapid.SliceOfN(rapid.IntRange(1, 40), 1, 8).Draw(t, "reads")
		s := pack.NewScanner(&pieces{data, sizes, 0}, 0)
		defer s.Close()
		if _, err := s.Count(); err != nil {
			t.Fatal(err)
		}
		for _, blob := range blobs {
			if _, err := s.Next(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, s.Data()); err != nil {
				t.Fatal(err)
			}
			if got, want := s.Adler32(), adler32.Checksum(blob); got != want {
				t.Fatalf("sum %08x, want %08x", got, want)
			}
		}
		if _, err := s.Next(); err != io.EOF {
			t.Fatal(err)
		}
	})
}

// pieces reads data in pieces of the given sizes, round and round.
type pieces struct {
	data  []byte
	sizes []int
	n     int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.sizes[p.n%len(p.sizes)])], p.data)
	p.data, p.n = p.data[n:], p.n+1
	return n, nil
}
