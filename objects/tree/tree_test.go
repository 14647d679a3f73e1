package tree_test

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
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

func file(n byte) tree.Edit { return tree.Edit{Mode: gitobj.ModeFile, OID: objects.OID{n}} }

// blobs returns the files below root.
func blobs(t interface {
	Helper()
	Fatal(...any)
}, q *objects.Quarantine, root objects.OID) map[string]byte {
	t.Helper()
	all := make(map[string]byte)
	var last string
	err := tree.Walk(context.Background(), q, root, func(path string, e gitobj.Entry) error {
		last = path
		if e.Mode != gitobj.ModeTree {
			all[path] = e.OID[0]
		} else if entries, err := tree.List(context.Background(), q, e.OID); err != nil || len(entries) == 0 {
			t.Fatal("empty directory", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(last, err)
	}
	return all
}

func TestApply(t *testing.T) {
	q := quarantine(t)
	root, err := tree.Apply(t.Context(), q, objects.OID{}, map[string]tree.Edit{"a": file(1), "d/b": file(2), "d/e/c": file(3), "d/e/f": file(4)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		edits map[string]tree.Edit
		want  map[string]byte
	}{
		{"nothing", nil, map[string]byte{"a": 1, "d/b": 2, "d/e/c": 3, "d/e/f": 4}},
		{"replace", map[string]tree.Edit{"d/e/c": file(9)}, map[string]byte{"a": 1, "d/b": 2, "d/e/c": 9, "d/e/f": 4}},
		{"remove", map[string]tree.Edit{"a": {Remove: true}, "none/x": {Remove: true}}, map[string]byte{"d/b": 2, "d/e/c": 3, "d/e/f": 4}},
		{"remove below a file", map[string]tree.Edit{"a/x": {Remove: true}}, map[string]byte{"a": 1, "d/b": 2, "d/e/c": 3, "d/e/f": 4}},
		{"prune", map[string]tree.Edit{"d/e/c": {Remove: true}, "d/e/f": {Remove: true}, "d/b": {Remove: true}}, map[string]byte{"a": 1}},
		{"remove a directory", map[string]tree.Edit{"d": {Remove: true}}, map[string]byte{"a": 1}},
		{"file over directory", map[string]tree.Edit{"d": file(7)}, map[string]byte{"a": 1, "d": 7}},
		{"directory over file", map[string]tree.Edit{"a/x": file(7)}, map[string]byte{"a/x": 7, "d/b": 2, "d/e/c": 3, "d/e/f": 4}},
	} {
		got, err := tree.Apply(t.Context(), q, root, c.edits)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if have := blobs(t, q, got); !maps.Equal(have, c.want) {
			t.Errorf("%s: %v, want %v", c.name, have, c.want)
		}
	}
	empty, err := tree.Apply(t.Context(), q, root, map[string]tree.Edit{"a": {Remove: true}, "d": {Remove: true}})
	if err != nil || empty.String() != "4b825dc642cb6eb9a060e54bf8d69288fbee4904" {
		t.Errorf("empty root is %s, %v", empty, err)
	}
	for _, edits := range []map[string]tree.Edit{
		{"a": file(1), "a/b": file(2)}, {"": file(1)}, {"a//b": file(1)}, {"/a": file(1)}, {"a/": file(1)},
		{"../x": file(1)}, {".git/config": file(1)}, {"x": {Mode: gitobj.ModeFile}}, {strings.Repeat("a/", 5000) + "a": file(1)},
	} {
		if _, err := tree.Apply(t.Context(), q, root, edits); err == nil {
			t.Errorf("edits %v were taken", slices.Collect(maps.Keys(edits)))
		}
	}
}

func TestLookupAndWalk(t *testing.T) {
	q := quarantine(t)
	root, err := tree.Apply(t.Context(), q, objects.OID{}, map[string]tree.Edit{"a.b": file(1), "a/x": file(2), "a/y/z": file(3), "b": file(4)})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]byte{"a.b": 1, "a/x": 2, "a/y/z": 3, "b": 4} {
		if e, err := tree.Lookup(t.Context(), q, root, path); err != nil || e.OID[0] != want || e.Mode != gitobj.ModeFile {
			t.Errorf("%s: %+v, %v", path, e, err)
		}
	}
	if e, err := tree.Lookup(t.Context(), q, root, ""); err != nil || e.OID != root {
		t.Errorf("root: %+v, %v", e, err)
	}
	for _, path := range []string{"c", "a/c", "b/c", "a/", "/a", "a/y/z/q"} {
		if _, err := tree.Lookup(t.Context(), q, root, path); !errors.Is(err, objects.ErrNotFound) {
			t.Errorf("%q: %v", path, err)
		}
	}
	var seen []string
	err = tree.Walk(t.Context(), q, root, func(path string, e gitobj.Entry) error {
		seen = append(seen, path)
		if path == "a/y" {
			return tree.ErrSkipDir
		}
		return nil
	})
	if want := []string{"a.b", "a", "a/x", "a/y", "b"}; err != nil || !slices.Equal(seen, want) {
		t.Errorf("walked %v, %v, want %v", seen, err, want)
	}
	stop := errors.New("stop")
	if err := tree.Walk(t.Context(), q, root, func(string, gitobj.Entry) error { return stop }); err != stop {
		t.Errorf("walk went on: %v", err)
	}
}

// TestPropertyApply compares with a map of paths.
func TestPropertyApply(t *testing.T) {
	q := quarantine(t)
	rapid.Check(t, func(t *rapid.T) {
		model := make(map[string]byte)
		var root objects.OID
		for range rapid.IntRange(1, 5).Draw(t, "rounds") {
			edits := make(map[string]tree.Edit)
			for _, path := range rapid.SliceOfN(rapid.StringMatching(`[ab](/[ab]){0,3}`), 1, 4).Draw(t, "paths") {
				clash := false
				for other := range edits {
					clash = clash || strings.HasPrefix(other+"/", path+"/") || strings.HasPrefix(path+"/", other+"/")
				}
				if clash {
					continue
				}
				edits[path] = file(rapid.ByteRange(1, 200).Draw(t, "content"))
				if rapid.Bool().Draw(t, "remove") {
					edits[path] = tree.Edit{Remove: true}
				}
			}
			for path, e := range edits {
				for have := range model {
					if strings.HasPrefix(have+"/", path+"/") || !e.Remove && strings.HasPrefix(path, have+"/") {
						delete(model, have)
					}
				}
				if !e.Remove {
					model[path] = e.OID[0]
				}
			}
			var err error
			if root, err = tree.Apply(context.Background(), q, root, edits); err != nil {
				t.Fatal(err)
			}
			if have := blobs(t, q, root); !maps.Equal(have, model) {
				t.Fatalf("%v, want %v", have, model)
			}
		}
	})
}
