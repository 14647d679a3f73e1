package hooks

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
)

// What differ finds is what differs: each path once, and for each the paths beside
// it that fold to the same, at any depth.
func TestDifferFindsWhatDiffers(t *testing.T) {
	r := newRig(t)
	q, err := r.lake.Objects.Quarantine()
	r.must(err)
	var blobs []objects.OID
	for _, text := range []string{"a", "b"} {
		oid, err := q.Put(t.Context(), objects.Blob, 1, strings.NewReader(text))
		r.must(err)
		blobs = append(blobs, oid)
	}
	part := rapid.SampledFrom([]string{"a", "A", "a", "A", "é", "e\u0301", "Models", "headgate.yaml"})
	state := rapid.Custom(func(t *rapid.T) map[string]tree.Edit {
		files := make(map[string]tree.Edit)
		for range rapid.IntRange(0, 6).Draw(t, "files") {
			path := strings.Join(rapid.SliceOfN(part, 1, 3).Draw(t, "path"), "/")
			clash := func(other string) bool {
				return strings.HasPrefix(other, path+"/") || strings.HasPrefix(path, other+"/")
			}
			if slices.ContainsFunc(slices.Collect(maps.Keys(files)), clash) {
				continue
			}
			files[path] = tree.Edit{Mode: rapid.SampledFrom([]gitobj.Mode{gitobj.ModeFile, gitobj.ModeExec, gitobj.ModeSymlink}).Draw(t, "mode"), OID: rapid.SampledFrom(blobs).Draw(t, "blob")}
		}
		return files
	})
	fold := func(path string) string {
		parts := strings.Split(path, "/")
		for i := range parts {
			parts[i] = policy.Fold(parts[i])
		}
		return strings.Join(parts, "/")
	}
	rapid.Check(t, func(rt *rapid.T) {
		was, is := state.Draw(rt, "was"), state.Draw(rt, "is")
		var roots [2]objects.OID
		for i, files := range []map[string]tree.Edit{was, is} {
			var err error
			if roots[i], err = tree.Apply(t.Context(), q, objects.OID{}, files); err != nil {
				rt.Fatal(err)
			}
		}
		d := &differ{r: q}
		if err := d.walk(t.Context(), roots, "", nil); err != nil {
			rt.Fatal(err)
		}
		want := make(map[string]bool)
		for path, e := range was {
			if is[path] != e {
				want[path] = true
			}
		}
		for path, e := range is {
			if was[path] != e {
				want[path] = true
			}
		}
		got := make(map[string]bool)
		for _, e := range d.found {
			if got[e.path] {
				rt.Fatalf("%s is found twice", e.path)
			}
			got[e.path] = true
			for _, twin := range e.twins {
				if twin == e.path || fold(twin) != fold(e.path) {
					rt.Fatalf("%q is no twin of %q", twin, e.path)
				}
			}
			// Each file that is there beside it and folds to the same is a twin.
			for other := range maps.Keys(is) {
				if other != e.path && fold(other) == fold(e.path) && !slices.Contains(e.twins, other) {
					rt.Fatalf("%q is not among the twins of %q: %q", other, e.path, e.twins)
				}
			}
		}
		if !maps.Equal(got, want) {
			rt.Fatalf("found %v, want %v", got, want)
		}
	})
}
