package reach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects/gitobj"
)

// lake is objects in memory, with what each of them names.
type lake struct {
	data  map[OID][]byte
	types map[OID]gitobj.Type
	names map[OID][]OID
	reads int
}

func newLake() *lake {
	return &lake{data: map[OID][]byte{}, types: map[OID]gitobj.Type{}, names: map[OID][]OID{}}
}

func (l *lake) put(t gitobj.Type, data []byte, names ...OID) OID {
	oid := plumbing.ComputeHash(t, data)
	l.data[oid], l.types[oid], l.names[oid] = data, t, names
	return oid
}

func (l *lake) Stat(_ context.Context, oid OID) (gitobj.Info, error) {
	data, ok := l.data[oid]
	if !ok {
		return gitobj.Info{}, fmt.Errorf("%s is missing", oid)
	}
	return gitobj.Info{Type: l.types[oid], Size: int64(len(data))}, nil
}

func (l *lake) Open(ctx context.Context, oid OID) (gitobj.Info, io.ReadCloser, error) {
	l.reads++
	info, err := l.Stat(ctx, oid)
	return info, io.NopCloser(bytes.NewReader(l.data[oid])), err
}

func (l *lake) blob(text string) OID { return l.put(plumbing.BlobObject, []byte(text)) }

func (l *lake) tree(entries ...gitobj.Entry) OID {
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		panic(err)
	}
	var names []OID
	for _, e := range entries {
		if e.Mode != gitobj.ModeGitlink {
			names = append(names, e.OID)
		}
	}
	return l.put(plumbing.TreeObject, data, names...)
}

func (l *lake) commit(date int64, tree OID, parents ...OID) OID {
	who := gitobj.Signature{Name: "a", Email: "a@b", When: time.Unix(date, 0).UTC()}
	c := gitobj.Commit{Tree: tree, Parents: parents, Author: who, Committer: who, Message: "m\n"}
	return l.put(plumbing.CommitObject, c.Encode(), append([]OID{tree}, parents...)...)
}

func (l *lake) tag(name string, t gitobj.Type, target OID) OID {
	return l.put(plumbing.TagObject, fmt.Appendf(nil, "object %s\ntype %s\ntag %s\ntagger a <a@b> 1 +0000\n\nm\n", target, t, name), target)
}

// reach is what an object leads to, by the definition.
func (l *lake) reach(from OID) map[OID]bool {
	seen := map[OID]bool{}
	for todo := []OID{from}; len(todo) > 0; {
		oid := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !seen[oid] {
			seen[oid] = true
			todo = append(todo, l.names[oid]...)
		}
	}
	return seen
}

// grow adds a random piece of history: few files and names, so that trees and
// blobs are shared across lines, come back, and move.
func (l *lake) grow(t *rapid.T, commits []OID) []OID {
	n := rapid.IntRange(1, 30).Draw(t, "commits")
	for range n {
		blob := func() OID { return l.blob(fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "blob"))) }
		dir := func() OID {
			return l.tree(gitobj.Entry{Name: "p", Mode: gitobj.ModeFile, OID: blob()}, gitobj.Entry{Name: "q", Mode: gitobj.ModeExec, OID: blob()})
		}
		root := []gitobj.Entry{{Name: "a", Mode: gitobj.ModeTree, OID: dir()}, {Name: "b", Mode: gitobj.ModeTree, OID: dir()}}
		if rapid.Bool().Draw(t, "link") {
			root = append(root, gitobj.Entry{Name: "m", Mode: gitobj.ModeGitlink, OID: OID{1, 2, 3}})
		}
		var parents []OID
		for range rapid.IntRange(0, 4).Draw(t, "parents") {
			if len(commits) == 0 {
				break
			}
			// Recent ones more often: long lines, which merge now and then.
			back := min(rapid.IntRange(1, 4).Draw(t, "back"), len(commits))
			if rapid.IntRange(0, 5).Draw(t, "far") == 0 {
				back = rapid.IntRange(1, len(commits)).Draw(t, "how far")
			}
			if p := commits[len(commits)-back]; !slices.Contains(parents, p) {
				parents = append(parents, p)
			}
		}
		c := l.commit(rapid.Int64Range(1, 1<<33).Draw(t, "date"), l.tree(root...), parents...)
		if !slices.Contains(commits, c) {
			commits = append(commits, c)
		}
	}
	return commits
}

// hold compares an index with the definition.
func hold(t *rapid.T, l *lake, x *Index, tips []OID) {
	want := map[OID]bool{}
	for _, tip := range tips {
		maps.Copy(want, l.reach(tip))
	}
	if x.Len() < len(want) {
		t.Fatalf("the index has %d objects, want %d", x.Len(), len(want))
	}
	for oid := range want {
		pos, ok := x.Find(oid)
		if !ok {
			t.Fatalf("%s is not in the index", oid)
		}
		if x.OID(pos) != oid || x.Type(pos) != l.types[oid] {
			t.Fatalf("%s: the index has %s, a %s", oid, x.OID(pos), x.Type(pos))
		}
		switch x.Type(pos) {
		case plumbing.BlobObject:
			if size, ok := x.BlobSize(pos); !ok || size != int64(len(l.data[oid])) {
				t.Fatalf("%s has size %d", oid, size)
			}
		case plumbing.TagObject:
			c, direct := x.Target(pos)
			if direct != (l.names[oid][0] == x.OID(c)) || !l.reach(oid)[x.OID(c)] || x.Type(c) != plumbing.CommitObject {
				t.Fatalf("tag %s leads to %d", oid, c)
			}
		case plumbing.CommitObject:
			c := x.Commit(pos)
			parsed, err := gitobj.ParseCommit(l.data[oid])
			if err != nil {
				t.Fatal(err)
			}
			parents := []OID(nil)
			for _, p := range c.Parents {
				parents = append(parents, x.OID(p))
				if x.Commit(p).Generation >= c.Generation {
					t.Fatalf("generation %d above %d", x.Commit(p).Generation, c.Generation)
				}
			}
			if x.OID(c.Tree) != parsed.Tree || c.Date != parsed.Committer.When.Unix() || !slices.Equal(parents, parsed.Parents) {
				t.Fatalf("commit %s: %+v, want %+v", oid, c, parsed)
			}
			set := x.NewSet()
			if !x.Reach(pos, set) {
				if set.Len() != 0 {
					t.Fatal("no bitmap, and yet a set")
				}
				if slices.Contains(tips, oid) {
					t.Fatalf("tip %s has no bitmap", oid)
				}
				continue
			}
			for range 10 {
				var some []uint32
				for range rapid.IntRange(0, 3).Draw(t, "some") {
					some = append(some, rapid.Uint32Range(0, uint32(x.Commits()-1)).Draw(t, "one"))
				}
				slices.Sort(some)
				want := slices.ContainsFunc(some, func(n uint32) bool { return l.reach(oid)[x.OID(n)] })
				if yes, known := x.ReachesAny(pos, some); !known || yes != want {
					t.Fatalf("commit %d reaches any of %v: %v, %v", pos, some, yes, known)
				}
			}
			got := map[OID]bool{}
			if err := set.Each(func(pos uint32) error { got[x.OID(pos)] = true; return nil }); err != nil {
				t.Fatal(err)
			}
			if set.Len() != len(got) || !maps.Equal(got, l.reach(oid)) {
				t.Fatalf("commit %s leads to %d objects, want %d", oid, len(got), len(l.reach(oid)))
			}
		}
	}
	for range 10 {
		if _, ok := x.Find(OID{byte(rand.IntN(256)), 7, 7}); ok {
			t.Fatal("found what is not there")
		}
	}
}

// Whatever the history, and in however many steps it came, the index says what
// the objects say.
func TestBuild(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLake()
		var commits, tips []OID
		var x *Index
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			commits = l.grow(t, commits)
			tip := rapid.SampledFrom(commits)
			for range rapid.IntRange(1, 3).Draw(t, "tips") {
				tips = append(tips, tip.Draw(t, "tip"))
			}
			if rapid.Bool().Draw(t, "tag") {
				inner := l.tag("in", plumbing.CommitObject, tip.Draw(t, "tagged"))
				tips = append(tips, l.tag("out", plumbing.TagObject, inner))
			}
			loose := l.tag("blob", plumbing.BlobObject, l.blob("loose"))
			before := l.reads
			var err error
			if x, err = Build(t.Context(), l, x, append([]OID{loose}, tips...)); err != nil {
				t.Fatal(err)
			}
			first := l.reads - before
			if _, ok := x.Find(loose); ok {
				t.Fatal("a tag of a blob is in the index")
			}
			hold(t, l, x, tips)
			if err := Verify(t.Context(), l, x); err != nil {
				t.Fatal(err)
			}
			// What is known is not read again, except for tags of no commit.
			before = l.reads
			again, err := Build(t.Context(), l, x, tips)
			if err != nil || !bytes.Equal(again.Bytes(), x.Bytes()) || l.reads != before {
				t.Fatalf("built again: %v, %d reads after %d", err, l.reads-before, first)
			}
		}
	})
}

func history(t *testing.T, n int) (*lake, []OID) {
	l := newLake()
	var commits []OID
	for i := range n {
		var parents []OID
		if i > 0 {
			parents = []OID{commits[i-1]}
		}
		root := l.tree(gitobj.Entry{Name: "a", Mode: gitobj.ModeFile, OID: l.blob(fmt.Sprint(i))})
		commits = append(commits, l.commit(int64(i+1), root, parents...))
	}
	return l, commits
}

// On a line of commits every one of them has a bitmap, and none takes room.
func TestLineNeedsNoBitmaps(t *testing.T) {
	l, commits := history(t, 500)
	x, err := Build(t.Context(), l, nil, commits[499:])
	if err != nil {
		t.Fatal(err)
	}
	if len(x.runs) != 0 {
		t.Errorf("%d bytes of bitmaps", len(x.runs))
	}
	for i, oid := range commits {
		pos, _ := x.Find(oid)
		set := x.NewSet()
		if !x.Reach(pos, set) || set.Len() != 3*(i+1) {
			t.Fatalf("commit %d leads to %d objects, want %d", i, set.Len(), 3*(i+1))
		}
	}
}

// Every damaged byte is noticed, and so is an index that its writer got wrong.
func TestDamage(t *testing.T) {
	l, commits := history(t, 20)
	side := l.commit(5, l.tree(gitobj.Entry{Name: "s", Mode: gitobj.ModeFile, OID: l.blob("s")}), commits[3])
	x, err := Build(t.Context(), l, nil, []OID{commits[19], side, l.tag("v1", plumbing.CommitObject, commits[4])})
	if err != nil {
		t.Fatal(err)
	}
	good := x.Bytes()
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, err := Parse(bad); err == nil {
			t.Fatalf("byte %d is damaged, and nobody noticed", i)
		}
		if _, err := Parse(bad[:i]); err == nil {
			t.Fatalf("cut off at %d, and nobody noticed", i)
		}
		if i >= len(good)-trailerSize {
			continue
		}
		sign(bad)
		if y, err := Parse(bad); err == nil {
			if err := Verify(t.Context(), l, y); err == nil {
				t.Fatalf("byte %d is wrong, and Verify does not see it", i)
			}
		}
	}
	if _, err := Parse(append(bytes.Clone(good), 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte too many: %v", err)
	}
}
