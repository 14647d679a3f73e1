package lake

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/refs"
)

// shop writes commits into a lake as a push would.
type shop struct {
	t *testing.T
	l *Lake
	q *objects.Quarantine
}

func (s *shop) put(kind objects.Type, data []byte) objects.OID {
	s.t.Helper()
	oid, err := s.q.Put(s.t.Context(), kind, int64(len(data)), bytes.NewReader(data))
	if err != nil {
		s.t.Fatal(err)
	}
	return oid
}

func (s *shop) dir(entries ...gitobj.Entry) objects.OID {
	s.t.Helper()
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.put(objects.Tree, data)
}

// table commits the table tables/x, changed by change, and sets a branch to it.
func (s *shop) table(branch string, change func(snap *table.Snapshot, files map[string]objects.OID)) objects.OID {
	s.t.Helper()
	part := s.put(objects.Blob, []byte(strings.Repeat("PAR1", 20_000)))
	snap := &table.Snapshot{
		Format:  table.Format,
		Columns: []table.Column{{Name: "n", Type: "BIGINT"}},
		Parts:   []table.Part{{Bytes: 80_000, Columns: []table.Stats{{Min: json.RawMessage("1"), Max: json.RawMessage("2")}}, File: table.PartName(part), Rows: 2}},
	}
	files := map[string]objects.OID{table.PartName(part): part}
	change(snap, files)
	files[table.FileName] = s.put(objects.Blob, snap.Encode())
	var entries []gitobj.Entry
	for name, oid := range files {
		entries = append(entries, gitobj.Entry{Name: name, Mode: gitobj.ModeFile, OID: oid})
	}
	x := s.dir(gitobj.Entry{Name: "x", Mode: gitobj.ModeTree, OID: s.dir(entries...)})
	root := s.dir(gitobj.Entry{Name: "tables", Mode: gitobj.ModeTree, OID: x})
	commit := s.put(objects.Commit, []byte("tree "+root.String()+"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\n"+branch+"\n"))
	s.set("refs/heads/"+branch, commit)
	return commit
}

func (s *shop) set(ref string, oid objects.OID) {
	s.t.Helper()
	if err := s.q.Migrate(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	if err := s.l.Refs.Apply(s.t.Context(), []refs.Update{{Name: refs.Name(ref), New: oid}}, refs.Cause{Who: "test"}); err != nil {
		s.t.Fatal(err)
	}
}

func asIs(*table.Snapshot, map[string]objects.OID) {}

// newShop makes the lake "x" with one sound table on main. The function that is
// returned closes it.
func newShop(t *testing.T, root string) (*shop, func()) {
	t.Helper()
	d, err := OpenDirectory(root, testKey(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Create(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	q, err := l.Objects.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{t, l, q}
	s.table("main", asIs)
	return s, func() {
		if err := errors.Join(q.Discard(), d.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestFsckOfALakeInUse(t *testing.T) {
	s, closeLake := newShop(t, t.TempDir())
	defer closeLake()
	r, err := s.l.Fsck(t.Context(), FsckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// A part, table.json, three trees and a commit.
	if len(r.Faults)+len(r.Warnings) > 0 || r.Objects != 6 || r.RawBlobs != 1 || r.Refs != 1 || r.Tables != 1 {
		t.Errorf("a sound lake gives %+v", r)
	}

	s.set("refs/heads/gone", objects.OID{1})
	s.set("refs/heads/tree", s.dir())
	s.set("refs/tags/tree", s.dir()) // a tag may name anything
	s.table("bytes", func(snap *table.Snapshot, _ map[string]objects.OID) { snap.Parts[0].Bytes-- })
	s.table("absent", func(snap *table.Snapshot, _ map[string]objects.OID) {
		more := snap.Parts[0]
		more.File = strings.Repeat("0", 20) + ".parquet"
		snap.Parts = append(snap.Parts, more)
	})
	s.table("unlisted", func(snap *table.Snapshot, _ map[string]objects.OID) { snap.Parts = nil })
	s.table("renamed", func(snap *table.Snapshot, files map[string]objects.OID) {
		other := strings.Repeat("0", 20) + ".parquet"
		files[other] = files[snap.Parts[0].File]
		delete(files, snap.Parts[0].File)
		snap.Parts[0].File = other
	})
	s.table("format", func(snap *table.Snapshot, _ map[string]objects.OID) { snap.Format = 2 })
	if r, err = s.l.Fsck(t.Context(), FsckOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, "fault", r.Faults, map[string]string{"refs/heads/gone": "missing", "refs/heads/tree": "names a tree"})
	expect(t, "warning", r.Warnings, map[string]string{
		"refs/heads/bytes": "79999 are listed", "refs/heads/absent": "is listed, and is not there", "refs/heads/unlisted": "is not listed",
		"refs/heads/renamed": "has the content of", "refs/heads/format": "format 2",
	})
}

// A false table that a gate must have passed is a fault, also where an old commit
// has it; elsewhere it is a warning.
func TestFsckKnowsGates(t *testing.T) {
	s, closeLake := newShop(t, t.TempDir())
	defer closeLake()
	lie := func(snap *table.Snapshot, _ map[string]objects.OID) { snap.Parts[0].Bytes-- }
	s.table("agent", lie) // the same table as on main, and first by name
	bad := s.table("old", lie)
	update := func(name string, from, to objects.OID) {
		t.Helper()
		if err := s.l.Refs.Apply(t.Context(), []refs.Update{{Name: refs.Name(name), Old: from, New: to}}, refs.Cause{Who: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	main, err := s.l.Refs.Get(t.Context(), "refs/heads/main")
	if err != nil {
		t.Fatal(err)
	}
	update("refs/heads/main", main, bad)
	r, err := s.l.Fsck(t.Context(), FsckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "fault", r.Faults, map[string]string{"refs/heads/main": "79999 are listed"})
	expect(t, "warning", r.Warnings, map[string]string{})

	sound, err := history.Commit(t.Context(), s.l.Objects, main)
	if err != nil {
		t.Fatal(err)
	}
	next := s.put(objects.Commit, []byte("tree "+sound.Tree.String()+"\nparent "+bad.String()+"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nsound again\n"))
	if err := s.q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	update("refs/heads/main", bad, next)
	if r, err = s.l.Fsck(t.Context(), FsckOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, "fault", r.Faults, map[string]string{})
	expect(t, "warning", r.Warnings, map[string]string{"refs/heads/agent": "79999 are listed"})
	if r, err = s.l.Fsck(t.Context(), FsckOptions{AllCommits: true}); err != nil {
		t.Fatal(err)
	}
	expect(t, "fault", r.Faults, map[string]string{"refs/heads/main": "79999 are listed"})
	if len(r.Faults) == 1 && r.Faults[0].OID != bad.String() {
		t.Errorf("the fault is of commit %q, want %s", r.Faults[0].OID, bad)
	}
}

func expect(t *testing.T, what string, got []Fault, want map[string]string) {
	t.Helper()
	for _, f := range got {
		if text, ok := want[f.Ref]; !ok || !strings.Contains(f.Detail, text) {
			t.Errorf("%s of %s: %q; want %q", what, f.Ref, f.Detail, text)
		}
		delete(want, f.Ref)
	}
	for ref, text := range want {
		t.Errorf("no %s of %s, which should say %q", what, ref, text)
	}
}

func TestFsckOfDamagedFiles(t *testing.T) {
	for _, kind := range []string{".pack", ".idx", "raw"} {
		t.Run(kind, func(t *testing.T) {
			root := t.TempDir()
			log := slog.New(slog.DiscardHandler)
			_, closeLake := newShop(t, root)
			if _, err := Fsck(t.Context(), root, "x", FsckOptions{}, log); err == nil {
				t.Error("a lake that a server has open was opened a second time")
			}
			closeLake()
			r, err := Fsck(t.Context(), root, "x", FsckOptions{}, log)
			if err != nil || len(r.Faults) > 0 || r.Tables != 1 {
				t.Fatalf("a sound lake gives %+v, %v", r, err)
			}
			damage(t, filepath.Join(root, "x", "objects"), kind)
			r, err = Fsck(t.Context(), root, "x", FsckOptions{}, log)
			if err != nil || len(r.Faults) == 0 || r.Faults[0].Kind != string(objects.Damaged) || !strings.Contains(r.Faults[0].Key, strings.TrimPrefix(kind, ".")) {
				t.Errorf("damage in a %s file gives %+v, %v", kind, r, err)
			}
		})
	}
}

// damage flips a bit in the middle of the first file of a kind.
func damage(t *testing.T, dir, kind string) {
	t.Helper()
	done := errors.New("done")
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(strings.TrimPrefix(path, dir), kind) {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data[len(data)/2] ^= 1
		if err := errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, data, 0o444)); err != nil {
			return err
		}
		return done
	})
	if !errors.Is(err, done) {
		t.Fatalf("no file of kind %s was damaged: %v", kind, err)
	}
}

func TestFsckMakesNothing(t *testing.T) {
	root := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	if _, err := Fsck(t.Context(), root, "x", FsckOptions{}, log); !errors.Is(err, ErrNotFound) {
		t.Errorf("a lake that is not there: %v", err)
	}
	_, closeLake := newShop(t, root)
	closeLake()
	if err := os.Remove(filepath.Join(root, "x", "refs.db")); err != nil {
		t.Fatal(err)
	}
	if _, err := Fsck(t.Context(), root, "x", FsckOptions{}, log); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a lake without refs: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "x", "refs.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("fsck made refs: %v", err)
	}
}
