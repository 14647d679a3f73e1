package history_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
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

func commit(t fataler, q *objects.Quarantine, message string, when int64, parents ...objects.OID) objects.OID {
	t.Helper()
	who := gitobj.Signature{Name: "a", Email: "b", When: time.Unix(when, 0).UTC()}
	data := (&gitobj.Commit{Tree: objects.OID{1}, Parents: parents, Author: who, Committer: who, Message: message}).Encode()
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

// TestPropertyGraph compares with answers from the whole ancestry, on random
// graphs whose dates may lie.
func TestPropertyGraph(t *testing.T) {
	q := quarantine(t)
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
			oid := commit(t, q, string(rune('a'+i)), rapid.Int64Range(1, 20).Draw(t, "when"), parents...)
			set := map[objects.OID]bool{oid: true}
			for _, p := range parents {
				for anc := range above[p] {
					set[anc] = true
				}
			}
			oids, above[oid] = append(oids, oid), set
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
