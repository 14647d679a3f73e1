package uploadpack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/pack"
	"github.com/headgate/headgate/objects/reach"
	"github.com/headgate/headgate/refs"
)

// counted is a store that counts what is read of it, with an index of its own.
type counted struct {
	*objects.Store
	x     *reach.Index
	opens int // contents
	stats int
}

func (c *counted) Reachability(context.Context) *reach.Index { return c.x }

func (c *counted) Open(ctx context.Context, oid objects.OID) (objects.Info, io.ReadCloser, error) {
	c.opens++
	return c.Store.Open(ctx, oid)
}

func (c *counted) Stat(ctx context.Context, oid objects.OID) (objects.Info, error) {
	c.stats++
	return c.Store.Stat(ctx, oid)
}

type failer interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func newStore(t *testing.T) *objects.Store {
	t.Helper()
	store, err := objects.OpenStore(backend.NewMemory(), t.TempDir(), objects.Options{RawThreshold: 600})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// writer puts objects into a store.
type writer struct {
	failer
	q   *objects.Quarantine
	all map[objects.OID]bool
}

func write(t failer, s *objects.Store, fn func(*writer)) *writer {
	t.Helper()
	q, err := s.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{t, q, map[objects.OID]bool{}}
	fn(w)
	if err := q.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := q.Discard(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *writer) put(t objects.Type, data []byte) objects.OID {
	w.Helper()
	oid, err := w.q.Put(context.Background(), t, int64(len(data)), bytes.NewReader(data))
	if err != nil {
		w.Fatal(err)
	}
	w.all[oid] = true
	return oid
}

func (w *writer) tree(entries ...gitobj.Entry) objects.OID {
	w.Helper()
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		w.Fatal(err)
	}
	return w.put(objects.Tree, data)
}

func (w *writer) commit(date int64, tree objects.OID, parents ...objects.OID) objects.OID {
	w.Helper()
	who := gitobj.Signature{Name: "a", Email: "a@b", When: time.Unix(date, 0).UTC()}
	c := gitobj.Commit{Tree: tree, Parents: parents, Author: who, Committer: who, Message: "m\n"}
	return w.put(objects.Commit, c.Encode())
}

func (w *writer) tag(name string, t objects.Type, target objects.OID) objects.OID {
	w.Helper()
	return w.put(objects.Tag, fmt.Appendf(nil, "object %s\ntype %s\ntag %s\ntagger a <a@b> 1 +0000\n\nm\n", target, t, name))
}

// history is a random one: lines that fork and merge, files that change, move
// between directories and come back, small and raw ones.
func (w *writer) history(t *rapid.T) (commits, tags []objects.OID) {
	date := int64(1000)
	for range rapid.IntRange(1, 20).Draw(t, "commits") {
		blob := func() objects.OID {
			n := rapid.IntRange(0, 9).Draw(t, "blob")
			return w.put(objects.Blob, bytes.Repeat([]byte{byte('0' + n)}, n*100))
		}
		file := func(name string) gitobj.Entry {
			return gitobj.Entry{Name: name, Mode: gitobj.ModeFile, OID: blob()}
		}
		dir := func(name string, entries ...gitobj.Entry) gitobj.Entry {
			return gitobj.Entry{Name: name, Mode: gitobj.ModeTree, OID: w.tree(entries...)}
		}
		tree := w.tree(file("f"), dir("a", file("p"), dir("deep", file("r"))), dir("b", file("p"), file("q")))
		var parents []objects.OID
		for range rapid.IntRange(0, 3).Draw(t, "parents") {
			if len(commits) > 0 {
				// Recent ones more often: long lines, which merge now and then.
				back := rapid.IntRange(1, min(len(commits), rapid.SampledFrom([]int{2, 3, 20}).Draw(t, "far"))).Draw(t, "back")
				if p := commits[len(commits)-back]; !slices.Contains(parents, p) {
					parents = append(parents, p)
				}
			}
		}
		// As most clocks do, these go forward. With skewed ones git's own walk
		// may send more than it has to.
		date += rapid.Int64Range(1, 3).Draw(t, "later")
		commits = append(commits, w.commit(date, tree, parents...))
		if rapid.IntRange(0, 4).Draw(t, "tag") == 0 {
			tag := w.tag(fmt.Sprintf("t%d", date), objects.Commit, commits[len(commits)-1])
			if rapid.Bool().Draw(t, "nested") {
				tag = w.tag(fmt.Sprintf("n%d", date), objects.Tag, tag)
			}
			tags = append(tags, tag)
		}
	}
	return commits, tags
}

// stockGit makes a git repository of all that was put.
func (w *writer) stockGit(t failer, s *objects.Store, dir string) func(stdin string, args ...string) string {
	git := func(stdin string, args ...string) string {
		cmd := exec.Command("git", append([]string{"--git-dir=" + dir}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, stderr.String())
		}
		return string(out)
	}
	git("", "init", "-q", "--bare")
	var b bytes.Buffer
	pw := pack.NewWriter(&b, s, len(w.all))
	for oid := range w.all {
		if err := pw.WriteObject(context.Background(), oid); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pw.Close(); err != nil {
		t.Fatal(err)
	}
	git(b.String(), "index-pack", "--stdin")
	return git
}

// What is sent is exactly what stock git's rev-list --objects gives, whatever the
// history, the filter and the boundary, and however much of it the index knows;
// where bitmaps answer, it is what rev-list gives with bitmaps.
func TestEnumerateEqualsRevList(t *testing.T) {
	store := newStore(t)
	root := t.TempDir()
	var bitmaps, walks int
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		var commits, tags []objects.OID
		w := write(t, store, func(w *writer) { commits, tags = w.history(t) })
		git := w.stockGit(t, store, dir)
		gitHasBitmaps := false

		r := &counted{Store: store}
		for range rapid.IntRange(0, 2).Draw(t, "indexes") {
			tips := rapid.SliceOfN(rapid.SampledFrom(append(slices.Clone(commits), tags...)), 1, 3).Draw(t, "indexed")
			if r.x, err = reach.Build(context.Background(), store, r.x, tips); err != nil {
				t.Fatal(err)
			}
		}
		filters := []string{"", "", "blob:none", "blob:limit=350", "blob:limit=700", "tree:0", "tree:1", "tree:2", "combine:tree:2+blob:limit=500"}
		for range 3 {
			sel := selection{filter: noFilter(), walkAtMost: rapid.SampledFrom([]int{0, 1000}).Draw(t, "walk")}
			some := rapid.SampledFrom(append(slices.Clone(commits), tags...))
			sel.wants = rapid.SliceOfN(some, 1, 3).Draw(t, "wants")
			spec := rapid.SampledFrom(filters).Draw(t, "filter")
			if spec != "" {
				if sel.filter, err = ParseFilter(spec); err != nil {
					t.Fatal(err)
				}
			}
			g := newGraph(context.Background(), r)
			shallow := filepath.Join(dir, "shallow")
			if rapid.IntRange(0, 3).Draw(t, "shallow") == 0 {
				var lines string
				for _, oid := range rapid.SliceOfN(rapid.SampledFrom(commits), 1, 2).Draw(t, "grafts") {
					g.grafts[oid] = struct{}{}
					lines += oid.String() + "\n"
				}
				if err := os.WriteFile(shallow, []byte(lines), 0o644); err != nil {
					t.Fatal(err)
				}
				sel.haveTrees = true
			} else {
				sel.haves = rapid.SliceOfN(some, 0, 3).Draw(t, "haves")
			}
			var stdin strings.Builder
			for _, oid := range sel.wants {
				fmt.Fprintln(&stdin, oid)
			}
			for _, oid := range sel.haves {
				fmt.Fprintf(&stdin, "^%s\n", oid)
			}
			list, err := enumerate(context.Background(), g, sel, func(int) {})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]bool{}
			for i := range list.Len() {
				got[list.OID(i).String()] = true
			}
			if len(got) != list.Len() {
				t.Fatalf("%d of %d objects are listed twice", list.Len()-len(got), list.Len())
			}
			revList := func(extra ...string) map[string]bool {
				// Git's combine: loses objects that one filter met first at a depth
				// where the other leaves them out; what passes both is meant.
				count := map[string]int{}
				parts := strings.Split(strings.TrimPrefix(spec, "combine:"), "+")
				for _, part := range parts {
					args := append([]string{"rev-list", "--objects", "--no-object-names", "--stdin"}, extra...)
					if part != "" {
						args = append(args, "--filter="+part)
					}
					for _, line := range strings.Fields(git(stdin.String(), args...)) {
						count[line]++
					}
				}
				set := map[string]bool{}
				for oid, n := range count {
					if n == len(parts) {
						set[oid] = true
					}
				}
				return set
			}
			want := revList()
			walks++
			if !maps.Equal(got, want) && len(sel.haves) > 0 && r.x != nil {
				// Then bitmaps have answered, and git's may.
				if !gitHasBitmaps {
					gitHasBitmaps = true
					var refs strings.Builder
					for i, oid := range append(slices.Clone(commits), tags...) {
						fmt.Fprintf(&refs, "create refs/tags/%d %s\n", i, oid)
					}
					git(refs.String(), "update-ref", "--stdin")
					git("", "repack", "-qadb")
				}
				want = revList("--use-bitmap-index")
				bitmaps++
			}
			if !maps.Equal(got, want) {
				t.Fatalf("%d objects, git lists %d\nwants %v\nhaves %v\nfilter %+v", len(got), len(want), sel.wants, sel.haves, sel.filter)
			}
			if err := os.RemoveAll(shallow); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Logf("%d answers, %d of them fewer objects by bitmaps", walks, bitmaps)
}

// line puts a history of n commits, each with a file of its own in one of ten
// directories, and returns it.
func line(t *testing.T, s *objects.Store, n int) []objects.OID {
	var commits []objects.OID
	write(t, s, func(w *writer) {
		dirs := make([]gitobj.Entry, 10)
		for i := range dirs {
			dirs[i] = gitobj.Entry{Name: fmt.Sprint(i), Mode: gitobj.ModeTree, OID: w.tree()}
		}
		for i := range n {
			blob := w.put(objects.Blob, fmt.Append(nil, "content ", i))
			dirs[i%10].OID = w.tree(gitobj.Entry{Name: "f", Mode: gitobj.ModeFile, OID: blob})
			commits = append(commits, w.commit(int64(1000+i), w.tree(dirs...), commits[max(0, i-1):i]...))
		}
	})
	return commits
}

// With an index, what is read follows what is new.
func TestIndexSavesReads(t *testing.T) {
	store := newStore(t)
	commits := line(t, store, 1000)
	tip := commits[999]
	r := &counted{Store: store}
	var err error
	if r.x, err = reach.Build(t.Context(), store, nil, []objects.OID{tip}); err != nil {
		t.Fatal(err)
	}
	var unrelated objects.OID
	write(t, store, func(w *writer) { unrelated = w.commit(1, w.tree()) })
	for _, c := range []struct {
		name         string
		wants, haves []objects.OID
		filter       string
		objects      int
		opens        int
	}{
		{"clone", []objects.OID{tip}, nil, "", 4001, 0},
		{"clone without blobs", []objects.OID{tip}, nil, "blob:none", 3001, 0},
		{"clone without large blobs", []objects.OID{tip}, nil, "blob:limit=10", 3011, 0},
		{"clone of commits", []objects.OID{tip}, nil, "tree:0", 1000, 0},
		{"clone from the middle", []objects.OID{commits[499]}, nil, "", 2001, 0},
		// The new trees and the ten directories next to them, and the root.
		{"one new commit", []objects.OID{tip}, []objects.OID{commits[998]}, "", 4, 11 + 2},
		{"nine hundred new commits", []objects.OID{tip}, []objects.OID{commits[99]}, "", 3600, 0},
		{"nothing new", []objects.OID{tip}, []objects.OID{tip}, "", 0, 0},
		{"an old want", []objects.OID{commits[5]}, []objects.OID{tip}, "", 0, 0},
		{"an unrelated have", []objects.OID{tip}, []objects.OID{unrelated}, "", 4000, 2},
	} {
		filter := noFilter()
		if c.filter != "" {
			if filter, err = ParseFilter(c.filter); err != nil {
				t.Fatal(err)
			}
		}
		r.opens = 0
		sel := selection{wants: c.wants, haves: c.haves, filter: filter, walkAtMost: walkAtMost}
		list, err := enumerate(t.Context(), newGraph(t.Context(), r), sel, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		if list.Len() != c.objects || r.opens != c.opens {
			t.Errorf("%s: %d objects after %d reads, want %d after %d", c.name, list.Len(), r.opens, c.objects, c.opens)
		}
	}

	// So do the answers to haves.
	for _, c := range []struct {
		name  string
		haves []objects.OID
		ready bool
	}{
		{"an unrelated have", []objects.OID{unrelated}, false},
		{"an old have", []objects.OID{commits[3]}, true},
		{"every have", commits, true},
	} {
		n := newNegotiation(newGraph(t.Context(), r), []objects.OID{tip})
		r.opens = 0
		for _, oid := range c.haves {
			if ok, err := n.have(t.Context(), oid); err != nil || !ok {
				t.Fatal(ok, err)
			}
		}
		ready, err := n.ready(t.Context())
		if err != nil || ready != c.ready || r.opens > 1 {
			t.Errorf("%s: ready is %v, %v after %d reads", c.name, ready, err, r.opens)
		}
	}
}

// A client that is up to date asks for refs and no more. No object is read for
// that, and none is looked up, however many tags there are to peel.
func TestNothingIsReadForWhoIsUpToDate(t *testing.T) {
	store := newStore(t)
	commits := line(t, store, 300)
	var updates []refs.Update
	var tips []objects.OID
	write(t, store, func(w *writer) {
		for i, oid := range commits {
			tag := w.tag(fmt.Sprint("v", i), objects.Commit, oid)
			tips = append(tips, tag)
			updates = append(updates, refs.Update{Name: refs.Name(fmt.Sprint("refs/tags/v", i)), New: tag})
		}
	})
	tip := commits[299]
	updates = append(updates, refs.Update{Name: "refs/heads/main", New: tip})
	names := refs.NewMemory()
	if err := names.Apply(t.Context(), updates, refs.Cause{}); err != nil {
		t.Fatal(err)
	}
	r := &counted{Store: store}
	s := &Server{Objects: r, Refs: names, Head: "refs/heads/main", Agent: "headgate/test"}
	want, err := ask(t, s, "ls-refs", "peel", "symrefs")
	if err != nil || r.opens == 0 {
		t.Fatalf("without an index: %d reads, %v", r.opens, err)
	}
	if r.x, err = reach.Build(t.Context(), store, nil, append(tips, tip)); err != nil {
		t.Fatal(err)
	}
	r.opens, r.stats = 0, 0
	got, err := ask(t, s, "ls-refs", "peel", "symrefs")
	if err != nil || !slices.Equal(got, want) || len(got) != 302 {
		t.Errorf("%d lines, without an index %d; %v", len(got), len(want), err)
	}
	if r.opens+r.stats != 0 {
		t.Errorf("%d objects were read and %d looked up", r.opens, r.stats)
	}
	// include-tag peels them too; what is there must be looked up once.
	if _, err := ask(t, s, "fetch", "want "+tip.String(), "have "+tip.String(), "include-tag", "done"); err != nil {
		t.Fatal(err)
	}
	if r.opens != 0 || r.stats > 2 {
		t.Errorf("a fetch of nothing: %d objects were read and %d looked up", r.opens, r.stats)
	}
}
