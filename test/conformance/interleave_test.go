package conformance

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// How much TestInterleaved does where it is not told otherwise: a few seconds.
const (
	rounds = 2  // each on a lake of its own, with another seed
	actors = 3  // at once on a lake
	steps  = 10 // of each actor
)

// TestInterleaved pushes random histories by several clients at once, with
// fetches, deletions, rewinds, clones of all kinds and collections between, and
// wants everything back bit by bit.
//
// HEADGATE_SEED=n plays one round again: each actor does what it did then, though
// not at the same instants. HEADGATE_SOAK=30m plays rounds with new seeds for so long.
func TestInterleaved(t *testing.T) {
	s := newSite(t)
	if text := os.Getenv("HEADGATE_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		interleave(t, s, seed)
		return
	}
	if text := os.Getenv("HEADGATE_SOAK"); text != "" {
		limit, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		n := 0
		for ; time.Since(begin) < limit && !t.Failed(); n++ {
			interleave(t, s, uint64(time.Now().UnixNano()))
		}
		t.Logf("%d rounds", n)
		return
	}
	for seed := range uint64(rounds) {
		interleave(t, s, seed+1)
	}
}

// actor is one client with a namespace of refs that only it writes, so that it
// knows what the lake must have there, whatever the others do.
type actor struct {
	*testing.T
	*world
	s    *site
	url  string
	lake string
	dir  string            // bare: all that it ever made
	copy string            // bare: what it fetches into
	temp string            // for clones
	refs map[string]string // what the lake must have
}

func interleave(t *testing.T, s *site, seed uint64) {
	t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
		lake := fmt.Sprint("seed-", seed)
		s.ask(t, "lake", "create", lake)
		url := routes[seed%uint64(len(routes))].to(s, lake).url()
		team := make([]*actor, actors)
		t.Run("actors", func(t *testing.T) {
			for i := range team {
				name := fmt.Sprint("n", i)
				a := &actor{world: newWorld(seed*100+uint64(i), name), s: s, url: url, lake: lake, refs: map[string]string{}}
				a.dir, a.copy, a.temp = filepath.Join(t.TempDir(), name), filepath.Join(t.TempDir(), name), t.TempDir()
				s.git(t, s.dir, "init", "--quiet", "--bare", a.dir)
				s.git(t, s.dir, "init", "--quiet", "--bare", a.copy)
				team[i] = a
			}
			// The repositories outlive this group, whose actors run side by side.
			t.Run("steps", func(t *testing.T) {
				for _, a := range team {
					t.Run(a.namespace, func(t *testing.T) {
						t.Parallel()
						a.T = t
						for range steps {
							a.step()
						}
					})
				}
			})
			if !t.Failed() {
				cloneIsUnion(t, s, lake, url, team)
			}
		})
	})
}

func (a *actor) step() {
	a.Helper()
	switch n := a.r.IntN(100); {
	case n < 40 || len(a.refs) == 0:
		a.grow(a.T, a.s, a.dir, 1+a.r.IntN(15))
		a.pushAll()
	case n < 50:
		a.rewind()
	case n < 60:
		a.remove()
	case n < 80:
		a.fetch()
	case n < 87:
		a.cloneShallow()
	case n < 94:
		a.cloneFiltered()
	default:
		a.collect()
	}
}

// mine are the refspecs of what the actor owns.
func (a *actor) mine() []string {
	heads, tags := "refs/heads/"+a.namespace+"/*", "refs/tags/"+a.namespace+"-*"
	return []string{"+" + heads + ":" + heads, "+" + tags + ":" + tags}
}

// owned returns the refs of a repository or URL that the actor owns.
func (a *actor) owned(where string) map[string]string {
	a.Helper()
	refs := a.s.refsOf(a.T, where)
	maps.DeleteFunc(refs, func(name, _ string) bool {
		return !strings.HasPrefix(name, "refs/heads/"+a.namespace+"/") && !strings.HasPrefix(name, "refs/tags/"+a.namespace+"-")
	})
	return refs
}

// expect compares the lake's refs with what they must be.
func (a *actor) expect(did string) {
	a.Helper()
	if have := a.owned(a.url); !equal(have, a.refs) {
		a.Fatalf("after %s the lake has\n%v\nwant\n%v", did, have, a.refs)
	}
}

func (a *actor) push(did string, args ...string) {
	a.Helper()
	a.s.git(a.T, a.dir, append([]string{"-c", fmt.Sprint("pack.window=", pick(a.world, []int{0, 10, 50})), "push", "--quiet"}, args...)...)
	a.expect(did)
}

func (a *actor) pushAll() {
	a.Helper()
	args := []string{a.url}
	if a.chance(50) {
		args = []string{"--atomic", a.url}
	}
	a.refs = a.owned(a.dir)
	a.push("a push of everything", append(args, a.mine()...)...)
}

// some returns one of the lake's refs that the actor owns.
func (a *actor) some() string { return pick(a.world, slices.Sorted(maps.Keys(a.refs))) }

func (a *actor) rewind() {
	a.Helper()
	name := a.some()
	history := strings.Fields(a.s.git(a.T, a.dir, "rev-list", a.refs[name]))
	a.refs[name] = pick(a.world, history)
	a.push("a rewind of "+name, "--force", a.url, a.refs[name]+":"+name)
}

func (a *actor) remove() {
	a.Helper()
	args := []string{a.url}
	for range 1 + a.r.IntN(3) {
		name := a.some()
		args = append(args, ":"+name)
		if delete(a.refs, name); len(a.refs) == 0 {
			break
		}
	}
	a.push("a deletion", args...)
}

// fetch brings the actor's copy to what the lake has, and compares every object.
func (a *actor) fetch() {
	a.Helper()
	version := fmt.Sprint("protocol.version=", a.r.IntN(3))
	a.s.git(a.T, a.copy, append([]string{"-c", version, "fetch", "--quiet", "--prune", "--no-tags", a.url}, a.mine()...)...)
	if have := a.owned(a.copy); !equal(have, a.refs) {
		a.Fatalf("a fetch brought\n%v\nwant\n%v", have, a.refs)
	}
	a.same(a.copy)
	// What the others have at this instant may be anything, but it is whole.
	a.s.git(a.T, a.copy, "fetch", "--quiet", "--no-tags", a.url, "+refs/heads/*:refs/others/*")
	a.s.git(a.T, a.copy, "fsck", "--connectivity-only")
}

// same compares all that the actor's refs lead to in a repository with what it made.
func (a *actor) same(dir string) {
	a.Helper()
	if len(a.refs) == 0 {
		return
	}
	tips := slices.Sorted(maps.Values(a.refs))
	have, want := a.s.objectsOf(a.T, dir, tips...), a.s.objectsOf(a.T, a.dir, tips...)
	if !slices.Equal(have, want) {
		a.Fatalf("%d objects came back, want %d", len(have), len(want))
	}
}

func (a *actor) cloneShallow() {
	a.Helper()
	i := slices.IndexFunc(slices.Sorted(maps.Keys(a.refs)), func(n string) bool { return strings.HasPrefix(n, "refs/heads/") })
	if i < 0 {
		return
	}
	name := slices.Sorted(maps.Keys(a.refs))[i]
	dir := filepath.Join(a.temp, fmt.Sprint("shallow", a.r.Uint32()))
	depth := fmt.Sprint(1 + a.r.IntN(5))
	a.s.git(a.T, a.s.dir, "clone", "--quiet", "--bare", "--no-tags", "--single-branch", "--depth", depth, "--branch", strings.TrimPrefix(name, "refs/heads/"), a.url, dir)
	a.s.git(a.T, dir, "fsck", "--strict")
	if a.s.git(a.T, dir, "rev-parse", "--is-shallow-repository") == "true" { // or it has no more commits than that
		a.s.git(a.T, dir, "fetch", "--quiet", "--unshallow", a.url, name)
	}
	have, want := a.s.objectsOf(a.T, dir, a.refs[name]), a.s.objectsOf(a.T, a.dir, a.refs[name])
	if !slices.Equal(have, want) {
		a.Fatalf("%d objects after depth %s and unshallow, want %d", len(have), depth, len(want))
	}
	if err := os.RemoveAll(dir); err != nil {
		a.Fatal(err)
	}
}

// cloneFiltered clones with a filter and then fetches what it lacks, one way or another.
func (a *actor) cloneFiltered() {
	a.Helper()
	dir := filepath.Join(a.temp, fmt.Sprint("filtered", a.r.Uint32()))
	filter := pick(a.world, []string{"blob:none", "blob:limit=100", "blob:limit=40k", "tree:0", "tree:2"})
	a.s.git(a.T, a.s.dir, "clone", "--quiet", "--bare", "--filter="+filter, a.url, dir)
	a.s.git(a.T, dir, "fsck")
	oid := a.refs[a.some()]
	list := a.s.git(a.T, dir, "ls-tree", "-r", oid+"^{tree}") // fetches trees
	if want := a.s.git(a.T, a.dir, "ls-tree", "-r", oid+"^{tree}"); list != want {
		a.Fatalf("%s: the tree of %s is\n%s\nwant\n%s", filter, oid, list, want)
	}
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); fields[1] == "blob" {
			size := a.s.git(a.T, dir, "cat-file", "-s", fields[2]) // fetches it
			if want := a.s.git(a.T, a.dir, "cat-file", "-s", fields[2]); size != want {
				a.Fatalf("%s: blob %s has %s bytes, want %s", filter, fields[2], size, want)
			}
			break
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		a.Fatal(err)
	}
}

// collect has the server remove garbage, and check the lake, while it is in use.
// The grace period is longer than any other actor takes from reading the refs to
// the end of what it does with them.
func (a *actor) collect() {
	a.Helper()
	a.s.ask(a.T, "lake", "gc", a.lake, "--grace", "10s", "--reflog", "10s", "--wait", "1s")
	a.s.ask(a.T, "lake", "fsck", a.lake)
}

// cloneIsUnion wants a mirror of the lake to be what all actors know, bit by bit.
func cloneIsUnion(t *testing.T, s *site, lake, url string, team []*actor) {
	s.sound(t, lake, url)
	mirror := filepath.Join(t.TempDir(), "mirror")
	s.git(t, s.dir, "clone", "--quiet", "--mirror", url, mirror)
	want := map[string]string{}
	for _, a := range team {
		maps.Copy(want, a.refs)
	}
	if have := s.refsOf(t, mirror); !equal(have, want) {
		t.Fatalf("a mirror has\n%v\nwant\n%v", have, want)
	}
	for _, a := range team {
		if len(a.refs) == 0 {
			continue
		}
		a.T = t
		a.same(mirror)
		tips := slices.Sorted(maps.Values(a.refs))
		list := strings.Join(s.objectsOf(t, a.dir, tips...), "\n") + "\n"
		if contents(t, s, mirror, list) != contents(t, s, a.dir, list) {
			t.Errorf("the contents of what %s pushed came back otherwise", a.namespace)
		}
	}
}

// contents returns a digest of the types, sizes and bytes of a list of objects.
func contents(t *testing.T, s *site, dir, list string) [sha256.Size]byte {
	t.Helper()
	cmd := exec.Command("git", "cat-file", "--batch")
	cmd.Dir, cmd.Env, cmd.Stdin = dir, s.env, strings.NewReader(list)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, out); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
