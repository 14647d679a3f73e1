package objects_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
)

// TestFindAbbreviated holds every prefix against a search of all oids, over packs
// with objects of two types.
func TestFindAbbreviated(t *testing.T) {
	s, err := objects.OpenStore(backend.NewMemory(), filepath.Join(t.TempDir(), "staging"), objects.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var blobs []objects.OID
	commits := make(map[string]objects.OID)
	tree := objects.OID{}
	for p := range 3 {
		q, err := s.Quarantine()
		if err != nil {
			t.Fatal(err)
		}
		if tree, err = q.Put(t.Context(), objects.Tree, 0, bytes.NewReader(nil)); err != nil {
			t.Fatal(err)
		}
		for i := range 700 {
			b, err := q.Put(t.Context(), objects.Blob, 8, strings.NewReader(fmt.Sprintf("%d-%06d", p, i)))
			if err != nil {
				t.Fatal(err)
			}
			blobs = append(blobs, b)
			text := fmt.Sprintf("tree %s\nauthor a <b> 1 +0000\ncommitter a <b> 1 +0000\n\n%d-%d\n", tree, p, i)
			c, err := q.Put(t.Context(), objects.Commit, int64(len(text)), strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			commits[c.String()] = c
		}
		if err := q.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := q.Discard(); err != nil {
			t.Fatal(err)
		}
	}
	ambiguous := 0
	for name, oid := range commits {
		for _, n := range []int{4, 5, 7, 40} {
			prefix := name[:n]
			same := 0
			for other := range commits {
				if strings.HasPrefix(other, prefix) {
					same++
				}
			}
			got, err := s.FindAbbreviated(t.Context(), strings.ToUpper(prefix), objects.Commit)
			var several *objects.AmbiguousError
			switch {
			case same == 1 && (err != nil || got != oid):
				t.Fatalf("%s is %s, %v", prefix, got, err)
			case same > 1 && (!errors.As(err, &several) || len(several.OIDs) != min(same, 5)):
				t.Fatalf("%s, of %d commits: %v", prefix, same, err)
			case same > 1:
				ambiguous++
			}
		}
	}
	if ambiguous == 0 {
		t.Error("no prefix was ambiguous: nothing was tried")
	}
	for _, prefix := range []string{"", "abc", blobs[0].String(), "zzzz", tree.String()[:7], strings.Repeat("0", 41), "ffffffff"} {
		if got, err := s.FindAbbreviated(t.Context(), prefix, objects.Commit); !errors.Is(err, objects.ErrNotFound) {
			t.Errorf("%q is %s, %v", prefix, got, err)
		}
	}
}
