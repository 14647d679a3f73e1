package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// winding is a history of merges, for which a depth is no number of commits.
func (b *bench) winding(branch string) (author string) {
	author, _ = b.repo("author")
	for i := range 6 {
		b.commit(author, "counter", fmt.Sprint(i))
		if i%3 == 1 {
			b.git(b, author, "checkout", "--quiet", "-b", fmt.Sprint("side", i), "HEAD~1")
			b.commit(author, fmt.Sprint("side", i), "x")
			b.git(b, author, "checkout", "--quiet", "main")
			b.git(b, author, "merge", "--quiet", "--no-edit", fmt.Sprint("side", i))
		}
	}
	b.git(b, author, "push", "--quiet", b.url, "main:refs/heads/"+branch)
	return author
}

// asShallow compares a shallow clone with one of the same depth that stock git's
// own server gave: the boundary, and every object. Clients differ in what they
// keep in .git/shallow beyond the boundary.
func (b *bench) asShallow(dir, revision, reference string) {
	b.Helper()
	boundary := func(dir string) []string {
		data, err := os.ReadFile(filepath.Join(dir, ".git", "shallow"))
		if err != nil && !os.IsNotExist(err) {
			b.Fatal(err)
		}
		return strings.Fields(string(data))
	}
	have, want := boundary(dir), boundary(reference)
	for _, oid := range want {
		if !slices.Contains(have, oid) {
			b.Fatalf("the boundary is %q, want %q", have, want)
		}
	}
	b.holds(dir, []string{revision}, reference, []string{"origin/main"})
}

func playShallow(b *bench) {
	author := b.winding("shallow/x")
	for _, depth := range []int{1, 3} {
		dir, reference := b.path(fmt.Sprint("clone", depth)), b.path(fmt.Sprint("reference", depth))
		b.git(b, b.dir, "clone", "--quiet", "--depth", fmt.Sprint(depth), "--branch=main", "file://"+author, reference)
		b.do(request{Op: "clone", Dir: dir, Branch: "shallow/x", Depth: depth})
		b.asShallow(dir, "refs/remotes/origin/shallow/x", reference)
		b.git(b, dir, "checkout", "--quiet", "-B", "work", "refs/remotes/origin/shallow/x")
		oid := b.commit(dir, "from a shallow clone", fmt.Sprint(depth))
		name := fmt.Sprint("refs/heads/shallow/pushed", depth)
		b.do(request{Op: "push", Dir: dir, Refspecs: []string{"refs/heads/work:" + name}})
		b.at(map[string]string{name: oid})
	}
}

func playDeepen(b *bench) {
	author := b.winding("deepen/x")
	dir, reference := b.path("clone"), b.path("reference")
	b.git(b, b.dir, "clone", "--quiet", "--depth=1", "--branch=main", "file://"+author, reference)
	b.do(request{Op: "clone", Dir: dir, Branch: "deepen/x", Depth: 1})
	for _, depth := range []int{2, 4, unshallow} {
		b.git(b, reference, "fetch", "--quiet", "--depth", fmt.Sprint(depth), "origin", "main")
		b.do(request{Op: "fetch", Dir: dir, Depth: depth, Refspecs: []string{"+refs/heads/deepen/x:refs/remotes/origin/deepen/x"}})
		b.asShallow(dir, "refs/remotes/origin/deepen/x", reference)
	}
}

// filtered clones with each filter, and compares what is left out with what stock
// git's own server leaves out.
func (b *bench) filtered(branch string, filters ...string) {
	author := b.layered(branch)
	b.git(b, author, "config", "uploadpack.allowFilter", "true")
	missing := func(dir, revision string) string {
		lines := strings.Fields(b.git(b, dir, "rev-list", "--objects", "--no-object-names", "--missing=print", revision))
		lines = slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "?") })
		slices.Sort(lines)
		return strings.Join(lines, " ")
	}
	for i, filter := range filters {
		dir, reference := b.path(fmt.Sprint("clone", i)), b.path(fmt.Sprint("reference", i))
		b.git(b, b.dir, "clone", "--quiet", "--no-checkout", "--filter="+filter, "file://"+author, reference)
		b.do(request{Op: "clone", Dir: dir, Branch: branch, Filter: filter})
		have, want := missing(dir, "refs/remotes/origin/"+branch), missing(reference, "origin/main")
		if have != want || want == "" {
			b.Fatalf("%s leaves out %q, want %q", filter, have, want)
		}
	}
}

// layered is a history with small and large blobs, near the root and below.
func (b *bench) layered(branch string) (author string) {
	author, _ = b.repo("author")
	b.commit(author, "small", "tiny\n")
	b.commit(author, "deep/down/large", strings.Repeat("0123456789abcdef", 5000))
	b.git(b, author, "push", "--quiet", b.url, "main:refs/heads/"+branch)
	return author
}

func playLazy(b *bench) {
	b.layered("lazy/x")
	for i, filter := range []string{"blob:none", "tree:0"} {
		dir := b.path(fmt.Sprint("clone", i))
		b.do(request{Op: "clone", Dir: dir, Branch: "lazy/x", Filter: filter})
		b.do(request{Op: "checkout", Dir: dir, Branch: "lazy/x"})
		if diff := b.git(b, dir, "diff", "--stat", "HEAD"); diff != "" {
			b.Fatalf("what was checked out differs:\n%s", diff)
		}
		b.git(b, dir, "fsck")
		oid := b.commit(dir, "from a partial clone", filter)
		name := fmt.Sprint("refs/heads/lazy/pushed", i)
		b.do(request{Op: "push", Dir: dir, Refspecs: []string{"HEAD:" + name}})
		b.at(map[string]string{name: oid})
	}
}
