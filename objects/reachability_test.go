package objects_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// grow puts n more commits, each with a file of its own, on top of a tip.
func grow(t testing.TB, s *objects.Store, tip objects.OID, n int) objects.OID {
	t.Helper()
	q, err := s.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	put := func(kind objects.Type, data []byte) objects.OID {
		oid, err := q.Put(t.Context(), kind, int64(len(data)), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return oid
	}
	for i := range n {
		blob := put(objects.Blob, fmt.Appendf(nil, "%s %d", tip, i))
		tree := put(objects.Tree, treeWith(t, gitobj.Entry{Name: "f", Mode: gitobj.ModeFile, OID: blob}))
		text := fmt.Sprintf("tree %s\n", tree)
		if !tip.IsZero() {
			text += fmt.Sprintf("parent %s\n", tip)
		}
		tip = put(objects.Commit, []byte(text+"author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nm\n"))
	}
	if err := q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.Discard(); err != nil {
		t.Fatal(err)
	}
	return tip
}

// The index is built when enough is new, kept across restarts, and built again
// only when enough is new again.
func TestReachabilityFollowsTheStore(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, 0)
	update := func(want bool, tips ...objects.OID) {
		t.Helper()
		if built, err := s.UpdateReachability(t.Context(), tips); err != nil || built != want {
			t.Errorf("built: %v, %v; want %v", built, err, want)
		}
	}
	commits := func() int {
		if x := s.Reachability(t.Context()); x != nil {
			return x.Commits()
		}
		return 0
	}
	tip := grow(t, s, objects.OID{}, 255)
	update(false, tip)
	if s.ReachabilityWanted() {
		t.Error("it is wanted again, and nothing has come")
	}
	tip = grow(t, s, tip, 300)
	if !s.ReachabilityWanted() {
		t.Error("300 commits have come, and it is not wanted")
	}
	update(true, tip)
	update(false, tip)
	tip = grow(t, s, tip, 200)
	update(false, tip)
	if n := commits(); n != 555 {
		t.Errorf("the index has %d commits, want 555", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = p.open(t, 0)
	if n := commits(); n != 555 {
		t.Errorf("after a restart the index has %d commits, want 555", n)
	}
	tip = grow(t, s, tip, 100)
	update(true, tip)
	if n := commits(); n != 855 {
		t.Errorf("the index has %d commits, want 855", n)
	}
	q := quarantine(t, s)
	if objects.Reachability(t.Context(), q) != s.Reachability(t.Context()) {
		t.Error("a quarantine does not know what its store knows")
	}
	if faults, _ := faultsOf(t, s); len(faults) > 0 {
		t.Errorf("faults: %+v", faults)
	}
	if err := s.DropReachability(t.Context()); err != nil {
		t.Fatal(err)
	}
	if commits() != 0 || !s.ReachabilityWanted() {
		t.Error("it was dropped, and is still there or not wanted again")
	}
	update(true, tip)
}

// A damaged index is no answer: it is found by a check, removed by its first
// reader, and built again.
func TestDamagedReachabilityIsRemoved(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, 0)
	tip := grow(t, s, objects.OID{}, 300)
	if built, err := s.UpdateReachability(t.Context(), []objects.OID{tip}); err != nil || !built {
		t.Fatal(built, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.data, "reach", "index")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, len(good) / 2, len(good) - 1} {
		bad := slices.Clone(good)
		bad[at] ^= 1
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		s := p.open(t, 0)
		faults, _ := faultsOf(t, s)
		if len(faults) != 1 || faults[0].Key != "reach/index" || faults[0].Kind != objects.Damaged || !strings.Contains(faults[0].Detail, "may be deleted") {
			t.Errorf("byte %d: %+v", at, faults)
		}
		if x := s.Reachability(t.Context()); x != nil {
			t.Errorf("byte %d is damaged, and the index is used", at)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("byte %d: the damaged index is still there: %v", at, err)
		}
		if built, err := s.UpdateReachability(t.Context(), []objects.OID{tip}); err != nil || !built {
			t.Errorf("byte %d: built again: %v, %v", at, built, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, good) {
			t.Errorf("byte %d: the index that was built again is another (%v)", at, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
