package pack_test

import (
	"bytes"
	"errors"
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
