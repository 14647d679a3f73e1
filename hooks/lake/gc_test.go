package lake

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/refs"
)

// age makes all objects of the lakes below root older.
func age(t *testing.T, root string, by time.Duration) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || !strings.Contains(path, "/objects/") {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		when := info.ModTime().Add(-by)
		return os.Chtimes(path, when, when)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func there(t *testing.T, l *Lake, oid objects.OID) bool {
	t.Helper()
	_, err := l.Objects.Stat(t.Context(), oid)
	if err != nil && !errors.Is(err, objects.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// A deleted branch's objects stay for the time of the reflog, those that a run
// works on as long as it does, and the rest goes.
func TestGCRoots(t *testing.T) {
	root := t.TempDir()
	s, closeLake := newShop(t, root)
	with := func(text string) func(*table.Snapshot, map[string]objects.OID) {
		return func(_ *table.Snapshot, files map[string]objects.OID) {
			files["note"] = s.put(objects.Blob, []byte(text))
		}
	}
	deleted := s.table("deleted", with("deleted"))
	long := s.table("long", with("long"))
	running := s.table("running", with("running"))
	main, err := s.l.Refs.Get(t.Context(), "refs/heads/main")
	if err != nil {
		t.Fatal(err)
	}
	drop := func(name refs.Name, oid objects.OID, when time.Time) {
		t.Helper()
		cause := refs.Cause{Who: "test", When: when}
		if err := s.l.Refs.Apply(t.Context(), []refs.Update{{Name: name, Old: oid}}, cause); err != nil {
			t.Fatal(err)
		}
	}
	drop("refs/heads/deleted", deleted, time.Now())
	drop("refs/heads/running", running, time.Now())
	drop("refs/heads/long", long, time.Now())
	run := Run{ID: "01J9ZQ4T3N8Y6W2K5D7F0H1M9C", State: Verifying, Proposal: running.String(), Base: main.String()}
	if err := s.l.Runs.Put(run); err != nil {
		t.Fatal(err)
	}
	closeLake()
	age(t, root, 20*24*time.Hour)

	gc := func(opt GCOptions) *GCReport {
		t.Helper()
		r, err := GC(t.Context(), root, "x", slog.New(slog.DiscardHandler), opt)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := gc(GCOptions{Grace: DefaultGrace, Reflog: DefaultReflog}); r.Freed.Objects != 0 {
		t.Errorf("what the reflog names was removed: %+v", r)
	}
	if r := gc(GCOptions{Grace: 30 * 24 * time.Hour}); r.Freed.Objects != 0 {
		t.Errorf("what is young was removed: %+v", r)
	}
	dry := gc(GCOptions{Grace: DefaultGrace, DryRun: true})
	r := gc(GCOptions{Grace: DefaultGrace})
	// A commit, three trees and a note each.
	if r.Freed.Objects != 10 || r.Freed.RawBlobs != 0 || r.Freed.Bytes == 0 || dry.Garbage != r.Freed || dry.Freed.Objects != 0 || r.Packs == 0 {
		t.Errorf("removed %+v, a dry run before %+v", r, dry)
	}

	d, err := OpenDirectory(root, testKey(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Open(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if !there(t, l, main) || !there(t, l, running) || there(t, l, deleted) || there(t, l, long) {
		t.Error("the wrong objects were removed")
	}
	if f, err := l.Fsck(t.Context(), FsckOptions{}); err != nil || len(f.Faults) > 0 {
		t.Errorf("after gc: %+v, %v", f, err)
	}
	run.State = Rejected
	if err := l.Runs.Put(run); err != nil {
		t.Fatal(err)
	}
	// In use, and stopped by a caller who has gone.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.GC(gone, GCOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who has gone: %v", err)
	}
	if r, err := l.GC(t.Context(), GCOptions{Grace: DefaultGrace}); err != nil || r.Freed.Objects != 5 {
		t.Errorf("after the run: %+v, %v", r, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// Without refs everything would be garbage, so what is not whole is left alone.
func TestGCOfWhatIsNoLake(t *testing.T) {
	root := t.TempDir()
	_, closeLake := newShop(t, root)
	closeLake()
	log := slog.New(slog.DiscardHandler)
	if _, err := GC(t.Context(), root, "y", log, GCOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no lake: %v", err)
	}
	if err := os.Remove(filepath.Join(root, "x", "refs.db")); err != nil {
		t.Fatal(err)
	}
	if _, err := GC(t.Context(), root, "x", log, GCOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without refs: %v", err)
	}
	files := 0
	err := filepath.WalkDir(filepath.Join(root, "x", "objects", "raw"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files++
		}
		return err
	})
	if err != nil || files != 1 {
		t.Errorf("%d parts are left, %v", files, err)
	}
}
