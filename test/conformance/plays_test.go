package conformance

import (
	"fmt"
	"strings"
)

func playEmpty(b *bench) {
	if refs := b.do(request{Op: "refs"}).Refs; len(refs) > 0 {
		b.Fatalf("an empty lake has %v", refs)
	}
	dir, oid := b.repo("first")
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{"refs/heads/main:refs/heads/empty/first"}})
	b.at(map[string]string{"refs/heads/empty/first": oid})
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{":refs/heads/empty/first"}})
}

func playListing(b *bench) {
	have := b.do(request{Op: "refs"}).Refs
	for name := range have {
		if strings.HasSuffix(name, "^{}") || name == "HEAD" {
			delete(have, name)
		}
	}
	want := b.refsOf(b, b.fixture)
	for _, name := range []string{"refs/heads/main", "refs/notes/headgate"} { // the gate commit and its proof, which are the server's
		if want[name] = have[name]; want[name] == "" {
			b.Errorf("%s is not listed", name)
		}
	}
	if !equal(have, want) {
		b.Fatalf("listed %v, want %v", have, want)
	}
}

func playClone(b *bench) {
	dir := b.path("clone")
	b.do(request{Op: "clone", Dir: dir, Branch: "base/0"})
	want := b.refsOf(b, b.fixture)
	for name, oid := range want {
		local := name
		if branch, ok := strings.CutPrefix(name, "refs/heads/"); ok {
			local = "refs/remotes/origin/" + branch
		}
		if have, err := b.try(dir, "git", "rev-parse", local); err != nil || have != oid {
			b.Errorf("%s is %q (%v), want %s", local, have, err, oid)
		}
	}
	if head := b.git(b, dir, "rev-parse", "HEAD"); head != want["refs/heads/base/0"] {
		b.Errorf("HEAD is %s, want %s", head, want["refs/heads/base/0"])
	}
	b.holds(dir, []string{"--exclude=refs/remotes/origin/main", "--exclude=refs/remotes/origin/HEAD", "--all"}, b.fixture, []string{"--all"})
	// The index is the client's own; the files are what counts.
	if diff := b.git(b, dir, "diff", "--stat", "HEAD"); diff != "" {
		b.Errorf("what was checked out differs:\n%s", diff)
	}
	bare := b.path("bare")
	b.do(request{Op: "clone", Dir: bare, Branch: "base/0", Bare: true})
	b.git(b, bare, "fsck", "--strict", "--full")
}

// tracking fetches a namespace of branches as a clone does.
func tracking(namespace string) []string {
	return []string{"+refs/heads/" + namespace + "/*:refs/remotes/origin/" + namespace + "/*"}
}

func playFetch(b *bench) {
	author, first := b.repo("author")
	b.git(b, author, "push", "--quiet", b.url, "HEAD:refs/heads/fetch/a")
	dir := b.path("clone")
	b.do(request{Op: "clone", Dir: dir, Branch: "fetch/a"})

	var last string
	for i := range 3 {
		last = b.commit(author, fmt.Sprintf("dir/file%d", i), strings.Repeat("line\n", 100*i))
	}
	b.git(b, author, "tag", "-a", "-m", "Follows", "fetch-followed")
	b.git(b, author, "push", "--quiet", b.url, "HEAD:refs/heads/fetch/a", first+":refs/heads/fetch/b", "fetch-followed")
	for range 2 { // the second time there is nothing
		b.do(request{Op: "fetch", Dir: dir, Refspecs: tracking("fetch"), Tags: true})
		for ref, want := range map[string]string{
			"refs/remotes/origin/fetch/a": last, "refs/remotes/origin/fetch/b": first,
			"refs/tags/fetch-followed": b.git(b, author, "rev-parse", "fetch-followed"),
		} {
			if have := b.git(b, dir, "rev-parse", ref); have != want {
				b.Fatalf("%s is %s, want %s", ref, have, want)
			}
		}
		b.holds(dir, []string{"refs/remotes/origin/fetch/a", "fetch-followed"}, author, []string{"--all"})
	}

	// A rewound branch.
	b.git(b, author, "reset", "--quiet", "--hard", "HEAD~2")
	rewound := b.commit(author, "other", "way\n")
	b.git(b, author, "push", "--quiet", "--force", b.url, "HEAD:refs/heads/fetch/a")
	b.do(request{Op: "fetch", Dir: dir, Refspecs: tracking("fetch")})
	if have := b.git(b, dir, "rev-parse", "refs/remotes/origin/fetch/a"); have != rewound {
		b.Fatalf("the rewound branch is %s, want %s", have, rewound)
	}
	b.git(b, dir, "fsck", "--strict")
}

func playPush(b *bench) {
	dir := b.path("clone")
	b.do(request{Op: "clone", Dir: dir, Branch: "base/0"})
	b.git(b, dir, "checkout", "--quiet", "-b", "work")
	one := b.commit(dir, "a/b/c", "one\n")
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{"refs/heads/work:refs/heads/push/work"}})
	b.at(map[string]string{"refs/heads/push/work": one})

	// Similar content, so that a client that makes deltas makes some.
	text := strings.Repeat("SELECT day, count(*) FROM flights GROUP BY day;\n", 2000)
	b.commit(dir, "a/text", text)
	two := b.commit(dir, "a/text", strings.Replace(text, "day", "week", 1))
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{"refs/heads/work:refs/heads/push/work"}})
	b.at(map[string]string{"refs/heads/push/work": two})
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{"refs/heads/work:refs/heads/push/work"}}) // is there already

	b.git(b, dir, "branch", "side", one)
	three := b.commit(dir, "d", "three\n")
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{
		"refs/heads/work:refs/heads/push/work", "refs/heads/side:refs/heads/push/side", "refs/heads/work:refs/heads/push/third",
	}})
	b.at(map[string]string{"refs/heads/push/work": three, "refs/heads/push/side": one, "refs/heads/push/third": three})
	back := b.path("back")
	b.git(b, b.dir, "clone", "--quiet", "--bare", "--branch", "push/work", b.url, back)
	b.holds(back, []string{"push/work"}, dir, []string{"work"})
}

func playForce(b *bench) {
	dir, first := b.repo("author")
	second := b.commit(dir, "a", "second\n")
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{"refs/heads/main:refs/heads/force/x"}})
	b.git(b, dir, "reset", "--quiet", "--hard", first)
	other := b.commit(dir, "a", "other\n")
	b.refused(request{Op: "push", Dir: dir, Refspecs: []string{"refs/heads/main:refs/heads/force/x"}})
	b.at(map[string]string{"refs/heads/force/x": second})
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{"+refs/heads/main:refs/heads/force/x"}})
	b.at(map[string]string{"refs/heads/force/x": other})
}

func playDeletion(b *bench) {
	dir, oid := b.repo("author")
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{"refs/heads/main:refs/heads/delete/x", "refs/heads/main:refs/heads/delete/y"}})
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{":refs/heads/delete/x"}})
	b.at(map[string]string{"refs/heads/delete/x": "", "refs/heads/delete/y": oid})
	// One goes and one comes.
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{":refs/heads/delete/y", "refs/heads/main:refs/heads/delete/z"}})
	b.at(map[string]string{"refs/heads/delete/y": "", "refs/heads/delete/z": oid})
}

func playRefusal(b *bench) {
	dir, oid := b.repo("author")
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{"refs/heads/main:refs/heads/refuse/x"}})
	why := b.refused(request{Op: "push", Dir: dir, Refspecs: []string{
		"refs/heads/main:refs/heads/refuse/x/below", "refs/heads/main:refs/heads/refuse/fine",
	}})
	if !strings.Contains(why, "refs/heads/refuse/x") {
		b.Errorf("the client says %q, and not what is in the way", why)
	}
	b.at(map[string]string{"refs/heads/refuse/x": oid, "refs/heads/refuse/x/below": "", "refs/heads/refuse/fine": oid})
}

func playAtomic(b *bench) {
	dir, oid := b.repo("author")
	b.do(request{Op: "push", Dir: dir, Atomic: true, Refspecs: []string{"refs/heads/main:refs/heads/atomic/x", "refs/heads/main:refs/heads/atomic/y"}})
	b.at(map[string]string{"refs/heads/atomic/x": oid, "refs/heads/atomic/y": oid})
	b.commit(dir, "a", "b\n")
	b.refused(request{Op: "push", Dir: dir, Atomic: true, Refspecs: []string{
		"refs/heads/main:refs/heads/atomic/x", "refs/heads/main:refs/heads/atomic/y/below", "refs/heads/main:refs/heads/atomic/z",
	}})
	b.at(map[string]string{"refs/heads/atomic/x": oid, "refs/heads/atomic/y": oid, "refs/heads/atomic/y/below": "", "refs/heads/atomic/z": ""})
}

func playTags(b *bench) {
	dir, oid := b.repo("author")
	b.git(b, dir, "tag", "tags-light")
	b.git(b, dir, "tag", "-a", "-m", "An annotated tag\n\nof two paragraphs", "tags-annotated")
	b.git(b, dir, "tag", "-a", "-m", "A tag of a tag", "tags-nested", "tags-annotated")
	var specs []string
	want := map[string]string{}
	for _, name := range []string{"refs/tags/tags-light", "refs/tags/tags-annotated", "refs/tags/tags-nested"} {
		specs = append(specs, name+":"+name)
		want[name] = b.git(b, dir, "rev-parse", name)
	}
	b.do(request{Op: "push", Dir: dir, Refspecs: specs})
	b.at(want)
	for name, peeled := range want {
		if name != "refs/tags/tags-light" {
			peeled = oid
		}
		if out := b.git(b, b.dir, "ls-remote", b.url, name, name+"^{}"); !strings.Contains(out, peeled) {
			b.Errorf("%s is listed as\n%s\nand not peeled to %s", name, out, peeled)
		}
	}
	b.git(b, dir, "push", "--quiet", b.url, "HEAD:refs/heads/tags/x")
	clone := b.path("clone")
	b.do(request{Op: "clone", Dir: clone, Branch: "tags/x"})
	b.do(request{Op: "fetch", Dir: clone, Refspecs: tracking("tags"), Tags: true})
	for name, oid := range want {
		if have := b.git(b, clone, "rev-parse", name); have != oid {
			b.Errorf("%s is %s in the clone, want %s", name, have, oid)
		}
	}
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{":refs/tags/tags-nested"}})
	b.at(map[string]string{"refs/tags/tags-nested": "", "refs/tags/tags-annotated": want["refs/tags/tags-annotated"]})
}

// thereAndBack pushes a repository's main and clones it again.
func (b *bench) thereAndBack(dir, branch string) {
	b.Helper()
	oid := b.git(b, dir, "rev-parse", "main")
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{"refs/heads/main:refs/heads/" + branch}})
	b.at(map[string]string{"refs/heads/" + branch: oid})
	clone := b.path("clone")
	b.do(request{Op: "clone", Dir: clone, Branch: branch, Bare: true})
	b.holds(clone, []string{oid}, dir, []string{"main"})
	b.do(request{Op: "push", Dir: dir, Refspecs: []string{":refs/heads/" + branch}}) // or every later clone would have it
}

func playPublished(b *bench) {
	gate := b.refsOf(b, b.url)["refs/heads/main"]
	clone := b.path("clone")
	b.do(request{Op: "clone", Dir: clone})
	if head := b.git(b, clone, "rev-parse", "HEAD"); head != gate {
		b.Fatalf("a clone is at %s, want main's %s", head, gate)
	}
	proposal := b.commit(clone, "again", "x\n")
	b.do(request{Op: "push", Dir: clone, Refspecs: []string{"refs/heads/main:refs/heads/main"}})
	b.do(request{Op: "fetch", Dir: clone, Refspecs: []string{"+refs/heads/main:refs/remotes/origin/main"}})
	parents := b.git(b, clone, "log", "-1", "--format=%P", "refs/remotes/origin/main")
	if want := gate + " " + proposal; parents != want {
		b.Fatalf("the gate commit has the parents %q, want %q", parents, want)
	}
}
