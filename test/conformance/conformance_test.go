// Package conformance holds the built server against the git clients that people
// use: stock git with each version of its protocol, go-git, dulwich, libgit2 and
// JGit. Every client plays the same scenarios on a lake of its own, by ssh; what
// it has brought and taken is compared by stock git and checked by the server.
//
// A client that is not installed fails the test: nothing here is skipped. What
// a client's library cannot do is said in the list of subjects, with the reason,
// and docs/conformance.md shows that list.
package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ability is one line of the table in docs/conformance.md, and the scenario that shows it.
type ability string

// The abilities of a client, in the order in which they are played.
const (
	empty     ability = "An empty lake: list, first push"
	listing   ability = "List refs"
	clone     ability = "Clone"
	fetch     ability = "Fetch what is new; nothing when nothing is"
	push      ability = "Push: create, update, several at once"
	force     ability = "Push: no rewind without force, rewind with it"
	deletion  ability = "Push: delete"
	refusal   ability = "A refused ref is told, and the others move"
	atomic    ability = "Push: atomic"
	tags      ability = "Tags: light, annotated, of a tag"
	shallow   ability = "Shallow clone, push from one"
	deepen    ability = "Deepen and unshallow"
	partial   ability = "Clone with a filter of blobs"
	treeless  ability = "Clone with a filter of trees"
	lazy      ability = "Fetch what a filter left out when it is needed"
	large     ability = "A blob of 64 MiB there and back"
	many      ability = "5,000 small objects there and back"
	published ability = "Push to a gated branch, then fetch the gate commit"
)

// route is a way to reach a lake.
type route struct {
	name  string
	base  func(s *site) string // what a lake's name follows
	token bool                 // a token stands for the user's key
}

var routes = []route{
	{"ssh", func(s *site) string { return "ssh://" + s.SSHAddr + "/" }, false},
	{"http", func(s *site) string { return strings.TrimSuffix(s.HTTPURL, "/") + "/" }, true},
}

// address is where a lake is, for a client.
type address struct {
	plain          string
	user, password string // "" if the way itself knows who comes
}

func (r route) to(s *site, lake string) address {
	a := address{plain: r.base(s) + lake}
	if r.token {
		a.user, a.password = "admin", s.token
	}
	return a
}

// url is the address for stock git when it is not under test.
func (a address) url() string {
	if a.password == "" {
		return a.plain
	}
	return strings.Replace(a.plain, "://", "://"+a.user+":"+a.password+"@", 1)
}

// repositories are made once, by stock git.
type repositories struct {
	fixture  string // with what every lake starts with
	proposal string // a commit there that a gate has nothing against
	large    string // one large blob
	many     string // many small ones
}

// bench is one client at work on one lake.
type bench struct {
	*testing.T
	*site
	subject
	client  client
	lake    string
	address address
	url     string // with what it takes to be let in
	repositories
	dir string // for the scenario's own files
}

var scenarios = []struct {
	ability ability
	play    func(b *bench)
}{
	{empty, playEmpty},
	{listing, playListing},
	{clone, playClone},
	{fetch, playFetch},
	{push, playPush},
	{force, playForce},
	{deletion, playDeletion},
	{refusal, playRefusal},
	{atomic, playAtomic},
	{tags, playTags},
	{shallow, playShallow},
	{deepen, playDeepen},
	{partial, func(b *bench) { b.filtered("partial/x", "blob:none", "blob:limit=1000") }},
	{treeless, func(b *bench) { b.filtered("treeless/x", "tree:0", "tree:2") }},
	{lazy, playLazy},
	{large, func(b *bench) { b.thereAndBack(b.large, "large/x") }},
	{many, func(b *bench) { b.thereAndBack(b.many, "many/x") }},
	{published, playPublished},
}

func TestClients(t *testing.T) {
	s := newSite(t)
	var made repositories
	made.fixture = filepath.Join(t.TempDir(), "fixture")
	s.git(t, s.dir, "init", "--quiet", "--bare", made.fixture)
	newWorld(1, "base").grow(t, s, made.fixture, 30)
	readme := s.feed(t, made.fixture, []byte("A lake\n"), "hash-object", "-w", "--stdin")
	tree := s.feed(t, made.fixture, []byte("100644 blob "+readme+"\tREADME.md\n"), "mktree")
	made.proposal = s.git(t, made.fixture, "commit-tree", "-m", "A lake", tree)
	made.large, made.many = heavy(t, s)
	// The group returns when its parallel clients have ended: then the server does.
	t.Run("over", func(t *testing.T) {
		for _, via := range routes {
			for _, sub := range subjects {
				t.Run(via.name+"/"+sub.name, func(t *testing.T) {
					t.Parallel()
					playAll(t, s, via, sub, made)
				})
			}
		}
	})
}

func playAll(t *testing.T, s *site, via route, sub subject, made repositories) {
	c := sub.open(t, s)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("the client's end: %v", err)
		}
	})
	b := &bench{T: t, site: s, subject: sub, client: c, lake: sub.name + "-" + via.name, repositories: made}
	b.address = via.to(s, b.lake)
	b.url = b.address.url()
	s.ask(t, "lake", "create", b.lake)
	for _, sc := range scenarios {
		if sub.lacks[sc.ability] != "" {
			continue
		}
		ok := t.Run(strings.ReplaceAll(string(sc.ability), " ", "-"), func(t *testing.T) {
			own := *b
			own.T, own.dir = t, t.TempDir()
			sc.play(&own)
		})
		if sc.ability == empty {
			// The first scenario needs an empty lake, the others what the fixture has, and a
			// HEAD: libgit2 does not clone without one.
			s.git(t, made.fixture, "push", "--quiet", b.url, "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*", made.proposal+":refs/heads/main")
		}
		if ok {
			s.sound(t, b.lake, b.url)
		}
	}
}

// do is a request that must succeed, down to each ref.
func (b *bench) do(r request) reply {
	b.Helper()
	out := b.ask(r)
	if why := out.failure(); why != "" {
		b.Fatalf("%s %s %v: %s", r.Op, r.Dir, r.Refspecs, why)
	}
	return out
}

// refused is a push of which something must be refused. It returns what the user is told.
func (b *bench) refused(r request) string {
	b.Helper()
	why := b.ask(r).failure()
	if why == "" {
		b.Fatalf("%s %v worked", r.Op, r.Refspecs)
	}
	return why
}

func (b *bench) ask(r request) reply {
	b.Helper()
	r.URL, r.User, r.Password = b.address.plain, b.address.user, b.address.password
	out, err := b.client.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// at asserts what the lake's refs are, as stock git lists them; "" is not there.
func (b *bench) at(want map[string]string) {
	b.Helper()
	have := b.refsOf(b, b.url)
	for name, oid := range want {
		if have[name] != oid {
			b.Fatalf("%s is %q on the server, want %q", name, have[name], oid)
		}
	}
}

// commit makes a commit with stock git in a work tree and returns it.
func (b *bench) commit(dir, file, content string) string {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
		b.Fatal(err)
	}
	b.site.git(b, dir, "add", "-A")
	b.site.git(b, dir, "commit", "--quiet", "-m", "Change "+file)
	return b.git(b, dir, "rev-parse", "HEAD")
}

// repo is a new repository of stock git with one commit, which is returned too.
func (b *bench) repo(name string) (dir, oid string) {
	b.Helper()
	dir = b.path(name)
	b.git(b, b.dir, "init", "--quiet", dir)
	return dir, b.commit(dir, "README.md", "of "+name+"\n")
}

// holds asserts that a repository has exactly the same objects behind its
// revisions as another one, byte for byte, and is sound.
func (b *bench) holds(dir string, revisions []string, as string, theirs []string) {
	b.Helper()
	b.git(b, dir, "fsck", "--strict", "--full")
	have, want := b.objectsOf(b, dir, revisions...), b.objectsOf(b, as, theirs...)
	if !slices.Equal(have, want) {
		b.Fatalf("%s has %d objects behind %v, want the %d behind %v", dir, len(have), revisions, len(want), theirs)
	}
}

// heavy makes the repositories of the scenarios that are about amounts, once.
// Their branches are in the way of no scenario.
func heavy(t *testing.T, s *site) (large, many string) {
	large, many = filepath.Join(t.TempDir(), "large"), filepath.Join(t.TempDir(), "many")
	noise := newRand(64)
	part := make([]byte, 0, largeSize)
	for len(part) < largeSize {
		part = binary.LittleEndian.AppendUint64(part, noise.Uint64())
	}
	var rows bytes.Buffer
	rows.WriteString("commit refs/heads/main\ncommitter Test <test@example.com> 1700000000 +0000\n")
	data(&rows, []byte("Many\n"))
	for i := range manyFiles {
		fmt.Fprintf(&rows, "M 100644 inline d%02d/f%d\n", i%100, i)
		data(&rows, fmt.Appendf(nil, "row %d\n", i))
	}
	var one bytes.Buffer
	one.WriteString("commit refs/heads/main\ncommitter Test <test@example.com> 1700000000 +0000\n")
	data(&one, []byte("Large\n"))
	one.WriteString("M 100644 inline tables/t/part.parquet\n")
	data(&one, part)
	for dir, stream := range map[string]*bytes.Buffer{large: &one, many: &rows} {
		s.git(t, s.dir, "init", "--quiet", dir)
		s.fastImport(t, dir, stream)
	}
	return large, many
}

const (
	largeSize = 64 << 20
	manyFiles = 4900 // and a commit, and 101 trees
)
