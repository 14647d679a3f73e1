package objects

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/pack"
)

// putBlobs puts n blobs of 8 bytes into b, in packs of at most perPack, and
// returns their names and contents.
func putBlobs(tb testing.TB, b backend.Backend, n, perPack int) (oids []OID, contents [][]byte) {
	tb.Helper()
	for done := 0; done < n; done += perPack {
		count := min(perPack, n-done)
		data := pack.AppendHeader(nil, uint32(count))
		entries := make([]pack.IndexEntry, count)
		for i := range entries {
			content := binary.BigEndian.AppendUint64(nil, uint64(done+i))
			entry, err := encodeEntry(Blob, content)
			if err != nil {
				tb.Fatal(err)
			}
			oid := nameOf(Blob, content)
			oids = append(oids, oid)
			contents = append(contents, content)
			entries[i] = pack.IndexEntry{OID: oid, Offset: int64(len(data)), CRC: crc32.ChecksumIEEE(entry)}
			data = append(data, entry...)
		}
		sum := OID(sha1.Sum(data))
		key := packPrefix + sum.String()
		if err := b.Put(tb.Context(), key+packSuffix, bytes.NewReader(append(data, sum[:]...))); err != nil {
			tb.Fatal(err)
		}
		if err := b.Put(tb.Context(), key+idxSuffix, bytes.NewReader(pack.EncodeIndex(entries, sum))); err != nil {
			tb.Fatal(err)
		}
	}
	return oids, contents
}

// withoutMap hides a backend's ability to map.
type withoutMap struct{ backend.Backend }

// An index is mapped if it is large and the backend can, and is in memory
// otherwise; the answers are the same.
func TestLookupInLargeAndSmallPacks(t *testing.T) {
	const n = 20_000
	for name, wrap := range map[string]func(backend.Backend) backend.Backend{
		"mapped":    func(b backend.Backend) backend.Backend { return b },
		"in memory": func(b backend.Backend) backend.Backend { return withoutMap{b} },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := backend.NewLocal(filepath.Join(dir, "objects"))
			if err != nil {
				t.Fatal(err)
			}
			oids, contents := putBlobs(t, l, n, 12_000)
			s, err := OpenStore(wrap(l), filepath.Join(dir, "staging"), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if mapped := s.small.packs[0].mapped; mapped != (name == "mapped") {
				t.Errorf("is the index mapped? %v", mapped)
			}
			for range 1000 {
				i := rand.IntN(n)
				data, err := ReadAll(t.Context(), s, oids[i], Blob, 8)
				if err != nil || !bytes.Equal(data, contents[i]) {
					t.Fatalf("object %d: %x, %v", i, data, err)
				}
				absent := oids[i]
				absent[19] ^= 1
				if s.hasSmall(absent, false) {
					t.Fatalf("the store has %s, which nobody put", absent)
				}
			}
			// Every entry has its own length, the last ones of the packs too.
			for _, oid := range oids {
				loc, ok, err := s.find(oid, false)
				if err != nil || !ok || loc.length < 10 || loc.length > 30 {
					t.Fatalf("%s is at %+v, %v, %v", oid, loc, ok, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkIndex opens a store of a million small objects, in one pack and in
// 20, and looks up some that are there and some that are not; and does the same
// with a map in memory, which is what it has to be held against.
func BenchmarkIndex(b *testing.B) {
	const n = 1_000_000
	lookups := func(b *testing.B, oids []OID, perObject float64, find func(OID) bool) {
		for _, there := range []bool{true, false} {
			b.Run(map[bool]string{true: "found", false: "absent"}[there], func(b *testing.B) {
				for b.Loop() {
					oid := oids[rand.IntN(n)]
					if !there {
						oid[19] ^= 1
					}
					if find(oid) != there {
						b.Fatal("wrong answer")
					}
				}
				b.ReportMetric(perObject, "heap-B/object")
			})
		}
	}
	for name, perPack := range map[string]int{"packs=1": n, "packs=20": n / 20} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			l, err := backend.NewLocal(filepath.Join(dir, "objects"))
			if err != nil {
				b.Fatal(err)
			}
			oids, _ := putBlobs(b, l, n, perPack)
			var s *Store
			open := func(b *testing.B) {
				if s, err = OpenStore(l, filepath.Join(dir, "staging"), Options{}); err != nil {
					b.Fatal(err)
				}
			}
			shut := func(b *testing.B) {
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.Run("open", func(b *testing.B) {
				for b.Loop() {
					open(b)
					shut(b)
				}
			})
			before := heap()
			open(b)
			for _, pf := range s.small.packs {
				pf.byOffset()
			}
			perObject := float64(heap()-before) / n
			lookups(b, oids, perObject, func(oid OID) bool {
				_, ok, err := s.find(oid, false)
				return ok && err == nil
			})
			shut(b)
		})
	}
	b.Run("map", func(b *testing.B) {
		before := heap()
		m := make(map[OID]location)
		var oids []OID
		for i := range n {
			oid := nameOf(Blob, binary.BigEndian.AppendUint64(nil, uint64(i)))
			oids = append(oids, oid)
			m[oid] = location{offset: int64(i)}
		}
		lookups(b, oids, float64(heap()-before)/n-float64(len(OID{})), func(oid OID) bool {
			_, ok := m[oid]
			return ok
		})
	})
}
