package objects_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/pack"
)

// BenchmarkIngest takes one blob of 64 MiB that the client did not compress.
func BenchmarkIngest(b *testing.B) {
	g := newRepo(b)
	g.write("part.parquet", noise(1, 64<<20))
	g.commit("x")
	data := g.pack("", "--all", "--compression=0", "--window=0")
	s := newPlace(b).open(b, 0)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		q, err := s.Quarantine()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := q.Ingest(b.Context(), bytes.NewReader(data), objects.Limits{}); err != nil {
			b.Fatal(err)
		}
		if err := q.Discard(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIngestSmall takes a history of 2,000 small blobs in deflated form.
func BenchmarkIngestSmall(b *testing.B) {
	g := newRepo(b)
	for i := range 2000 {
		g.write(fmt.Sprintf("d%d/%d", i%50, i), noise(uint64(i), 500))
	}
	g.commit("x")
	data := g.pack("", "--all")
	n := len(g.objects())
	s := newPlace(b).open(b, 0)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		q, err := s.Quarantine()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := q.Ingest(b.Context(), bytes.NewReader(data), objects.Limits{}); err != nil {
			b.Fatal(err)
		}
		if err := q.Discard(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "objects/s")
}

// BenchmarkServe writes a pack of one raw blob of 64 MiB.
func BenchmarkServe(b *testing.B) {
	s := newPlace(b).open(b, 0)
	q := quarantine(b, s)
	oid := put(b, q, objects.Blob, noise(1, 64<<20))
	if err := q.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 << 20)
	b.ReportAllocs()
	for b.Loop() {
		w := pack.NewWriter(io.Discard, s, 1)
		if err := w.WriteObject(b.Context(), oid); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
