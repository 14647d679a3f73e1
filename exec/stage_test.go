package exec

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/table"
)

// stored puts a table of parts, each of so many bytes, into a new store.
func stored(t testing.TB, parts int, each int64) (Store, *Table) {
	dir := t.TempDir()
	b, err := backend.NewLocal(filepath.Join(dir, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := objects.OpenStore(b, filepath.Join(dir, "quarantine"), objects.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	q, err := store.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	tab := &Table{Meta: &table.Snapshot{Format: table.Format, Columns: []table.Column{{Name: "a", Type: "BIGINT"}}}}
	data := make([]byte, each)
	for range parts {
		if _, err := rand.Read(data[:64]); err != nil {
			t.Fatal(err)
		}
		oid, err := q.Put(t.Context(), objects.Blob, each, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		tab.Parts = append(tab.Parts, oid)
		tab.Meta.Parts = append(tab.Meta.Parts, table.Part{File: table.PartName(oid), Bytes: each})
	}
	if err := q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if q, err = store.Quarantine(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Discard(); err != nil {
			t.Error(err)
		}
	})
	return q, tab
}

// link stages a table's parts into a directory, as a sandbox does.
func link(t testing.TB, store Store, tab *Table, dir string) []string {
	s := New(nil, Environments{}, Budget{CPUs: 1, Memory: 1 << 30}, slog.New(slog.DiscardHandler)).Session(store, nil, Options{})
	job := sandbox.Job{Order: &protocol.Order{}}
	s.stage(context.Background(), &job, []Bound{{Input: plan.Input{Table: "t"}, Table: tab}})
	var paths []string
	for _, in := range job.Inputs {
		path := filepath.Join(dir, in.Path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), in.Link(path)); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// However large a table is, a function is given its files, not copies of them.
func TestWholeInputsAreNotCopied(t *testing.T) {
	store, tab := stored(t, 5, 1<<20)
	first, second := link(t, store, tab, t.TempDir()), link(t, store, tab, t.TempDir())
	if len(first) != 5 {
		t.Fatalf("%d files are staged, want 5", len(first))
	}
	for i := range first {
		a, err := os.Stat(first[i])
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.Stat(second[i])
		if err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(a, b) {
			t.Errorf("part %d is another file for each function", i)
		}
	}
}

// BenchmarkStageGigabyte gives a function a table of 1 GiB in 64 parts.
func BenchmarkStageGigabyte(b *testing.B) {
	store, tab := stored(b, 64, 16<<20)
	for b.Loop() {
		dir, err := os.MkdirTemp(b.TempDir(), "in")
		if err != nil {
			b.Fatal(err)
		}
		link(b, store, tab, dir)
	}
}
