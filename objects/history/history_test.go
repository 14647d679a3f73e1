package history_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/objects/reach"
)

func quarantine(t *testing.T) *objects.Quarantine {
	t.Helper()
	s, err := objects.OpenStore(backend.NewMemory(), filepath.Join(t.TempDir(), "staging"), objects.Options{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := s.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(q.Discard(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	return q
}

type fataler interface {
	Helper()
	Fatal(...any)
}

// emptyTree is git's name of the tree without entries.
var emptyTree = plumbing.NewHash("4b825dc642cb6eb9a060e54bf8d69288fbee4904")

func commit(t fataler, q *objects.Quarantine, message string, when int64, parents ...objects.OID) objects.OID {
	t.Helper()
	who := gitobj.Signature{Name: "a", Email: "b", When: time.Unix(when, 0).UTC()}
	data := (&gitobj.Commit{Tree: emptyTree, Parents: parents, Author: who, Committer: who, Message: message}).Encode()
	oid, err := q.Put(context.Background(), objects.Commit, int64(len(data)), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return oid
}

func TestFirstParent(t *testing.T) {
	q := quarantine(t)
	a := commit(t, q, "a", 1)
	side := commit(t, q, "side", 2)
	b := commit(t, q, "b", 3, a, side)
	c := commit(t, q, "c", 4, b)
	var seen []objects.OID
	err := history.FirstParent(t.Context(), q, c, func(oid objects.OID, _ *gitobj.Commit) (bool, error) {
		seen = append(seen, oid)
		return true, nil
	})
	if err != nil || len(seen) != 3 || seen[0] != c || seen[1] != b || seen[2] != a {
		t.Errorf("saw %v, %v", seen, err)
	}
	n := 0
	if err := history.FirstParent(t.Context(), q, c, func(objects.OID, *gitobj.Commit) (bool, error) { n++; return n < 2, nil }); err != nil || n != 2 {
		t.Errorf("went on to %d, %v", n, err)
	}
	if err := history.FirstParent(t.Context(), q, objects.OID{9}, nil); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("missing tip: %v", err)
	}
}

// indexed is a quarantine with an index of some of its commits.
type indexed struct {
	*objects.Quarantine
	x     *reach.Index
	reads int
}

func (i *indexed) Reachability(context.Context) *reach.Index { return i.x }

func (i *indexed) Open(ctx context.Context, oid objects.OID) (objects.Info, io.ReadCloser, error) {
	i.reads++
	return i.Quarantine.Open(ctx, oid)
}

// TestPropertyGraph compares with answers from the whole ancestry, on random
// graphs whose dates may lie, with an index of all, some or none of it.
func TestPropertyGraph(t *testing.T) {
	base := quarantine(t)
	empty, err := base.Put(t.Context(), objects.Tree, 0, bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	if empty != emptyTree {
		t.Fatalf("the empty tree is %s", empty)
	}
	rapid.Check(t, func(t *rapid.T) {
		var oids []objects.OID
		above := make(map[objects.OID]map[objects.OID]bool) // ancestors, itself too
		n := rapid.IntRange(2, 14).Draw(t, "commits")
		for i := range n {
			var parents []objects.OID
			if i > 0 {
				for _, p := range rapid.SliceOfNDistinct(rapid.IntRange(0, i-1), 0, min(i, 3), rapid.ID).Draw(t, "parents") {
					parents = append(parents, oids[p])
				}
			}
			oid := commit(t, base, string(rune('a'+i)), rapid.Int64Range(1, 20).Draw(t, "when"), parents...)
			set := map[objects.OID]bool{oid: true}
			for _, p := range parents {
				for anc := range above[p] {
					set[anc] = true
				}
			}
			oids, above[oid] = append(oids, oid), set
		}
		q := &indexed{Quarantine: base}
		for range rapid.IntRange(0, 2).Draw(t, "indexes") {
			tips := rapid.SliceOfN(rapid.SampledFrom(oids), 1, 3).Draw(t, "indexed")
			var err error
			if q.x, err = reach.Build(context.Background(), q, q.x, tips); err != nil {
				t.Fatal(err)
			}
		}
		a, b := oids[n-1], oids[rapid.IntRange(0, n-1).Draw(t, "b")]
		for _, x := range oids {
			if got, err := history.IsAncestor(context.Background(), q, x, a); err != nil || got != above[a][x] {
				t.Fatalf("IsAncestor = %v, %v, want %v", got, err, above[a][x])
			}
		}
		common := 0
		best := make(map[objects.OID]bool)
		for x := range above[a] {
			if !above[b][x] {
				continue
			}
			common++
			best[x] = true
			for y := range above[a] {
				if y != x && above[b][y] && above[y][x] {
					best[x] = false
				}
			}
		}
		got, ok, err := history.MergeBase(context.Background(), q, a, b)
		if err != nil || ok != (common > 0) || ok && !best[got] {
			t.Fatalf("merge base %s, %v, %v is not one of the best of %d", got, ok, err, common)
		}
		again, _, err := history.MergeBase(context.Background(), q, b, a)
		if err != nil || again != got {
			t.Fatalf("merge base is %s one way and %s the other", got, again)
		}
	})
}

// With an index, questions about a long history read nothing, whatever the
// answer; about one commit more, they read that commit.
func TestIndexedHistoryIsNotRead(t *testing.T) {
	base := quarantine(t)
	if _, err := base.Put(t.Context(), objects.Tree, 0, bytes.NewReader(nil)); err != nil {
		t.Fatal(err)
	}
	var line []objects.OID
	for i := range 2000 {
		line = append(line, commit(t, base, fmt.Sprint(i), int64(i+1), line[max(0, i-1):i]...))
	}
	other := commit(t, base, "unrelated", 1)
	q := &indexed{Quarantine: base}
	tip := line[len(line)-1]
	var err error
	if q.x, err = reach.Build(t.Context(), q, nil, []objects.OID{tip, other}); err != nil {
		t.Fatal(err)
	}
	next := commit(t, base, "next", 1<<20, tip)
	for _, c := range []struct {
		anc, desc objects.OID
		yes       bool
		reads     int
	}{
		{line[0], tip, true, 0}, {tip, line[0], false, 0}, {line[700], line[699], false, 0},
		{other, tip, false, 0}, {tip, other, false, 0},
		{line[5], next, true, 1}, {other, next, false, 1}, {next, tip, false, 0},
	} {
		q.reads = 0
		got, err := history.IsAncestor(t.Context(), q, c.anc, c.desc)
		if err != nil || got != c.yes || q.reads != c.reads {
			t.Errorf("IsAncestor(%s, %s) = %v, %v after %d reads, want %v after %d", c.anc, c.desc, got, err, q.reads, c.yes, c.reads)
		}
		q.reads = 0
		base, ok, err := history.MergeBase(t.Context(), q, c.anc, c.desc)
		if err != nil || q.reads > 1 || c.yes && (!ok || base != c.anc) {
			t.Errorf("MergeBase(%s, %s) = %s, %v, %v after %d reads", c.anc, c.desc, base, ok, err, q.reads)
		}
	}
	// An index may know commits that are no longer there.
	gone := &indexed{Quarantine: quarantine(t), x: q.x}
	if _, err := history.IsAncestor(t.Context(), gone, line[0], tip); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("a commit that is gone: %v", err)
	}
}
