package objects_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/pack"
)

// slowPack reads a whole pack into memory with the standard library and resolves
// its deltas one by one until nothing is left to resolve. ok is false if it is
// not a good pack, or too large for such a reader.
func slowPack(data []byte) (found map[objects.OID]string, ok bool) {
	const limit = 4 << 20
	type unresolved struct {
		at, baseAt int64
		baseOID    objects.OID
		delta      []byte
	}
	byOffset := map[int64]string{} // type and content
	found = map[objects.OID]string{}
	add := func(at int64, object string) {
		typ, content, _ := bytes.Cut([]byte(object), []byte(" "))
		h := sha1.New()
		fmt.Fprintf(h, "%s %d\x00%s", typ, len(content), content)
		byOffset[at] = object
		found[objects.OID(h.Sum(nil))] = object
	}
	var open []unresolved
	total := 0
	rest := data[12:]
	for range binary.BigEndian.Uint32(data[8:]) {
		at := int64(len(data) - len(rest))
		typ, size, n, err := pack.ParseEntryHeader(rest)
		if err != nil {
			return nil, false
		}
		rest = rest[n:]
		u := unresolved{at: at}
		switch typ {
		case 6:
			var distance int64
			for i := 0; ; i++ {
				if i == len(rest) || i > 8 {
					return nil, false
				}
				distance = distance<<7 | int64(rest[i]&0x7f)
				if rest[i]&0x80 == 0 {
					rest = rest[i+1:]
					break
				}
				distance++
			}
			u.baseAt = at - distance
		case 7:
			if len(rest) < 20 {
				return nil, false
			}
			u.baseOID = objects.OID(rest[:20])
			rest = rest[20:]
		}
		r := bytes.NewReader(rest)
		z, err := zlib.NewReader(r)
		if err != nil {
			return nil, false
		}
		content, err := io.ReadAll(io.LimitReader(z, limit))
		if err != nil || int64(len(content)) != size {
			return nil, false
		}
		if total += len(content); total > limit {
			return nil, false
		}
		rest = rest[len(rest)-r.Len():]
		if name := map[pack.Type]string{1: "commit", 2: "tree", 3: "blob", 4: "tag"}[typ]; name != "" {
			add(at, name+" "+string(content))
			continue
		}
		u.delta = content
		open = append(open, u)
	}
	for progress := true; progress && len(open) > 0; {
		progress = false
		left := open[:0]
		for _, u := range open {
			base, ok := byOffset[u.baseAt]
			if u.baseAt == 0 {
				base, ok = found[u.baseOID]
			}
			if !ok {
				left = append(left, u)
				continue
			}
			typ, content, _ := bytes.Cut([]byte(base), []byte(" "))
			d, err := pack.NewDelta(bytes.NewReader(u.delta))
			if err != nil || d.BaseSize != int64(len(content)) || d.Size > limit {
				return nil, false
			}
			var out bytes.Buffer
			if err := d.Apply(bytes.NewReader(content), &out); err != nil {
				return nil, false
			}
			add(u.at, string(typ)+" "+out.String())
			progress = true
		}
		open = left
	}
	return found, len(open) == 0
}

// FuzzIngest holds the streaming ingestion, for two sizes from which blobs are
// kept raw, to a slow reader that has everything in memory: what it takes it must
// give back, each object under its oid; and both sizes must judge alike.
func FuzzIngest(f *testing.F) {
	f.Add(smallPack(f))
	f.Add(makePack(f, entry{objects.Blob, nil, -1, []byte("hello")}))
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01"))
	hello := oidOf(f, "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0") // "hello"
	f.Add(makePack(f, entry{7, hello[:], -1, []byte("\x05\x06\x90\x05\x01!")}, entry{objects.Blob, nil, -1, []byte("hello")}))
	f.Add(makePack(f, entry{objects.Blob, nil, -1, bytes.Repeat([]byte("x"), 200)}, entry{objects.Blob, nil, -1, nil}))
	var stores []*objects.Store
	for _, threshold := range []int64{100, 1 << 20} {
		stores = append(stores, openOn(f, backend.NewMemory(), f.TempDir(), threshold))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 20 {
			data = seal(data[:len(data)-20]) // or the fuzzer would never get past the checksum
		}
		var verdicts []error
		for _, s := range stores {
			q, err := s.Quarantine()
			if err != nil {
				t.Fatal(err)
			}
			stats, err := q.Ingest(t.Context(), bytes.NewReader(data), objects.Limits{InflateFree: 1 << 20, InflateRatio: 100})
			var ie *objects.IngestError
			if err != nil && !errors.As(err, &ie) {
				t.Fatalf("not the pack's fault? %v", err)
			}
			if verdicts = append(verdicts, err); err == nil {
				takenAsIs(t, q, data, stats)
			}
			if err := q.Discard(); err != nil {
				t.Fatal(err)
			}
		}
		if (verdicts[0] == nil) != (verdicts[1] == nil) {
			t.Errorf("raw from 100 bytes: %v; from 1 MiB: %v", verdicts[0], verdicts[1])
		}
	})
}

func takenAsIs(t *testing.T, q *objects.Quarantine, data []byte, stats objects.IngestStats) {
	want, ok := slowPack(data)
	if !ok {
		if stats.ObjectBytes < 4<<20 {
			t.Fatalf("took what the slow reader does not: %+v", stats)
		}
		return
	}
	for oid, object := range want {
		info, r, err := q.Open(t.Context(), oid)
		if err != nil {
			t.Fatalf("%s: %v", oid, err)
		}
		content, err := io.ReadAll(r)
		_ = r.Close()
		if have := info.Type.String() + " " + string(content); err != nil || have != object || info.Size != int64(len(content)) {
			t.Fatalf("%s: %q, %v; want %q", oid, have, err, object)
		}
	}
}
