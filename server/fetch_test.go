package server_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
)

// stock makes a bare copy that git's own upload-pack serves.
func (c *clone) stock() string {
	c.t.Helper()
	dir := filepath.Join(c.t.TempDir(), "stock.git")
	c.git("init", "-q", "--bare", dir)
	c.git("push", "-q", "file://"+dir, "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")
	for _, key := range []string{"uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"} {
		c.git("--git-dir="+dir, "config", key, "true")
	}
	return "file://" + dir
}

// snapshot is what a user can tell of a clone.
func (c *clone) snapshot() string {
	c.t.Helper()
	shallow, _ := os.ReadFile(filepath.Join(c.git("rev-parse", "--absolute-git-dir"), "shallow"))
	lines := strings.Split(strings.TrimSpace(string(shallow)), "\n")
	slices.Sort(lines)
	return fmt.Sprintf("refs:\n%s\nshallow:\n%s\nobjects:\n%s\n",
		c.git("for-each-ref"), strings.Join(lines, "\n"), strings.Join(c.objects(), "\n"))
}

var total = regexp.MustCompile(`remote: Total (\d+) `)

// sent is how many objects a server says it has sent.
func sent(out string) string {
	if m := total.FindStringSubmatch(out); m != nil {
		return m[1]
	}
	return "none"
}

// cloneCounting clones with progress shown, and returns the number of objects sent.
func (s *site) cloneCounting(url string, args ...string) (*clone, string) {
	s.t.Helper()
	c := &clone{site: s, dir: filepath.Join(s.t.TempDir(), "c"), user: "user"}
	cmd := exec.Command("git", slices.Concat([]string{"clone", "--progress"}, args, []string{url, c.dir})...)
	cmd.Env = s.env(c.user)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("git clone %v %s: %v\n%s", args, url, err, out)
	}
	return c, sent(string(out))
}

// Every way to clone and fetch gives exactly what stock git gives: the same
// refs, the same shallow boundary, the same objects, and no object more on the
// wire; to shallow clients it can be fewer.
func TestFetchEqualsStock(t *testing.T) {
	s := newSite(t)
	src := s.pushedLake("flights")
	stock := src.stock()

	clones := [][]string{
		{},
		{"--bare"},
		{"--mirror"},
		{"--no-tags"},
		{"--single-branch", "--branch=side"},
		{"--branch=v1"},
		{"--depth=1"},
		{"--depth=2", "--no-single-branch"},
		{"--depth=4"},
		{"--shallow-since=2024-01-04T00:00:00Z"},
		{"--shallow-exclude=light"},
		{"--shallow-exclude=refs/heads/side"},
		{"--filter=blob:none", "--no-checkout"},
		{"--filter=blob:limit=1k", "--no-checkout"},
		{"--filter=blob:limit=70000", "--no-checkout"},
		{"--filter=tree:0", "--no-checkout"},
		{"--filter=tree:1", "--no-checkout"},
		{"--filter=tree:3", "--no-checkout"},
		{"--filter=tree:3", "--filter=blob:limit=1k", "--no-checkout"},
		{"--filter=blob:none", "--no-checkout", "--depth=2"},
	}
	versions := []int{0, 2} // version 1 is 0 with one line more; see the tests below
	for _, args := range clones {
		t.Run("clone "+strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			at := s.within(t)
			theirs, want := at.cloneCounting(stock, args...)
			for _, version := range versions {
				ours, n := at.cloneCounting(s.url("flights"), slices.Concat([]string{"-c", fmt.Sprintf("protocol.version=%d", version)}, args)...)
				if n != want {
					t.Errorf("v%d: sent %s objects, stock git sends %s", version, n, want)
				}
				diff(t, ours.snapshot(), theirs.snapshot())
				ours.fsck()
			}
		})
	}

	later := [][]string{
		{"--deepen=1"}, {"--depth=3"}, {"--depth=1"}, {"--unshallow"},
		{"--shallow-since=2024-01-02T00:00:00Z"}, {"--shallow-exclude=light"}, {},
	}
	for _, args := range later {
		t.Run("depth 2, then fetch "+strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			at := s.within(t)
			first := []string{"--depth=2", "--no-single-branch"}
			fetch := slices.Concat([]string{"fetch", "--progress"}, args, []string{"origin"})
			theirs, _ := at.cloneCounting(stock, first...)
			want := sent(theirs.git(fetch...))
			for _, version := range versions {
				ours, _ := at.cloneCounting(s.url("flights"), slices.Concat([]string{"-c", fmt.Sprintf("protocol.version=%d", version)}, first)...)
				n := sent(ours.git(fetch...))
				if len(n) > len(want) || len(n) == len(want) && n > want {
					t.Errorf("v%d: sent %s objects, stock git sends %s", version, n, want)
				}
				diff(t, ours.snapshot(), theirs.snapshot())
				ours.fsck()
			}
		})
	}
}

// within is the same site for a subtest.
func (s *site) within(t *testing.T) *site {
	sub := *s
	sub.t = t
	return &sub
}

func diff(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	have := map[string]bool{}
	for _, line := range strings.Split(want, "\n") {
		have[line] = true
	}
	for _, line := range strings.Split(got, "\n") {
		if !have[line] {
			t.Errorf("only ours: %s", line)
		}
		delete(have, line)
	}
	for line := range have {
		t.Errorf("only stock: %s", line)
	}
}

// A client that is behind, and has commits of its own, gets what it lacks and no more.
func TestIncrementalFetchEqualsStock(t *testing.T) {
	for version := range 3 {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			s := newSite(t)
			src := s.pushedLake("flights")
			stock := src.stock()
			first := []string{"-c", fmt.Sprintf("protocol.version=%d", version)}
			clients := []*clone{s.from(s.url("flights"), first...), s.from(stock, first...)}
			for _, c := range clients {
				c.localHistory(40) // more than one round of haves
			}
			src.git("checkout", "-q", "side")
			src.commit("more on side", map[string]string{"tables/a/p9": strings.Repeat("9", 50_000)})
			src.git("checkout", "-q", "main")
			src.git("merge", "-q", "--no-ff", "-m", "merge again", "side")
			src.commit("bring back old content", map[string]string{"models/x.sql": "select 4"})
			src.git("tag", "-a", "-m", "followed", "v2")
			src.git("tag", "-a", "-m", "of the past", "v0", "light~1")
			src.git("push", "-q", "--all", "origin")
			src.git("push", "-q", "--tags", "origin")
			src.git("push", "-q", stock, "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")
			for i, args := range [][]string{{"origin", "side"}, {"origin"}, {"origin"}, {"origin", "--tags"}} {
				var counts, states []string
				for _, c := range clients {
					out := c.git(append([]string{"fetch", "--progress"}, args...)...)
					counts = append(counts, sent(out))
					states = append(states, c.snapshot())
				}
				if counts[0] != counts[1] {
					t.Errorf("fetch %d: sent %s objects, stock git sends %s", i, counts[0], counts[1])
				}
				diff(t, states[0], states[1])
			}
			clients[0].fsck()
		})
	}
}

// localHistory puts n commits that no server has on top of main.
func (c *clone) localHistory(n int) {
	c.t.Helper()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "commit refs/heads/main\ncommitter C <c@x> %d +0000\ndata 5\nlocal\n", 1_710_000_000+i)
		if i == 0 {
			b.WriteString("from refs/heads/main^0\n")
		}
		fmt.Fprintf(&b, "M 100644 inline local\ndata <<.\n%d\n.\n\n", i)
	}
	cmd := c.command("fast-import", "--quiet")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("fast-import: %v\n%s", err, out)
	}
}

func TestPartialCloneFetchesLazily(t *testing.T) {
	s := newSite(t)
	src := s.pushedLake("flights")
	for _, filter := range []string{"blob:none", "tree:0"} {
		t.Run(filter, func(t *testing.T) {
			c := s.within(t).from(s.url("flights"), "--filter="+filter, "--sparse")
			if n := len(c.objects()); n >= len(src.objects()) {
				t.Fatalf("a partial clone has all %d objects", n)
			}
			c.git("sparse-checkout", "set", "tables/a")
			if _, err := os.Stat(filepath.Join(c.dir, "tables/a/p2")); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(c.dir, "tables/b")); err == nil {
				t.Fatal("tables/b is there")
			}
			c.git("sparse-checkout", "disable")
			c.git("checkout", "-q", "light")
			if got := c.git("log", "--oneline", "-p", "origin/main"); !strings.Contains(got, "select 4") {
				t.Fatal("history cannot be read through the lazy fetch")
			}
			c.git("fsck")
		})
	}
}

func TestEmptyLake(t *testing.T) {
	s := newSite(t)
	_, err := s.lakes.Create(t.Context(), "empty")
	check(t, err)
	for version := range 3 {
		c := s.from(s.url("empty"), "-c", fmt.Sprintf("protocol.version=%d", version))
		if got := c.git("symbolic-ref", "HEAD"); got != "refs/heads/main" {
			t.Errorf("v%d: HEAD is %s", version, got)
		}
		if got := c.git("ls-remote", "origin"); got != "" {
			t.Errorf("v%d: ls-remote %q", version, got)
		}
	}
}

// Refs of runs are not advertised, and served to whoever names them.
func TestHiddenRefs(t *testing.T) {
	s := newSite(t)
	src := s.pushedLake("flights")
	l, err := s.lakes.Open(t.Context(), lake.Name("flights"))
	check(t, err)
	side, err := objects.ParseOID(src.git("rev-parse", "side~1"))
	check(t, err)
	var updates []refs.Update
	for _, name := range []refs.Name{"refs/runs/01ABC", "refs/runs/01ABD", "refs/scratch/01ABC"} {
		updates = append(updates, refs.Update{Name: name, New: side})
	}
	check(t, l.Refs.Apply(t.Context(), updates, refs.Cause{Who: "headgate", Why: "test"}))

	c := s.from(s.url("flights"), "--mirror")
	if got := c.git("for-each-ref"); strings.Contains(got, "refs/runs") || strings.Contains(got, "refs/scratch") {
		t.Errorf("a mirror shows hidden refs:\n%s", got)
	}
	for version := range 3 {
		p := fmt.Sprintf("protocol.version=%d", version)
		if got := src.git("-c", p, "ls-remote", "origin"); strings.Contains(got, "01ABC") {
			t.Errorf("v%d: ls-remote shows hidden refs:\n%s", version, got)
		}
	}
	if got := src.git("ls-remote", "origin", "refs/runs/*"); got != "" {
		t.Errorf("the namespace is listed: %s", got)
	}
	fresh := s.repo("user")
	fresh.git("fetch", "-q", s.url("flights"), "refs/runs/01ABC", "refs/scratch/01ABC:refs/heads/look")
	if got := fresh.git("rev-parse", "look"); got != side.String() {
		t.Errorf("fetched %s, want %s", got, side)
	}
	// By oid, any version.
	for version := range 3 {
		fresh := s.repo("user")
		fresh.git("-c", fmt.Sprintf("protocol.version=%d", version), "fetch", "-q", s.url("flights"), side.String())
		fresh.git("cat-file", "-e", side.String()+"^{tree}")
	}
	src.refused("only the server writes this ref", "push", "origin", "HEAD:refs/runs/mine")
}

func TestFetchRefusals(t *testing.T) {
	s := newSite(t)
	src := s.pushedLake("flights")
	absent := strings.Repeat("12", 20)
	for version := range 3 {
		p := fmt.Sprintf("protocol.version=%d", version)
		src.refused("not our ref "+absent, "-c", p, "fetch", "origin", absent)
	}
	src.refused("lake \"nowhere\" does not exist", "fetch", s.url("nowhere"))
	src.refused("is not a lake name", "fetch", s.url("../etc"))
	src.refused("is not a lake name", "fetch", s.url("a/../../b"))
	src.refused("is not offered; use blob:none", "clone", "--filter=object:type=blob", s.url("flights"), filepath.Join(t.TempDir(), "x"))
}

func TestUpToDateFetchSendsNothing(t *testing.T) {
	s := newSite(t)
	s.pushedLake("flights")
	c := s.from(s.url("flights"))
	if out := c.git("fetch", "--progress", "origin"); strings.Contains(out, "Enumerating") {
		t.Errorf("an up-to-date fetch walked: %s", out)
	}
	// A fresh fetch of what is there anyhow: negotiation ends in an empty pack.
	if out := c.git("fetch", "--progress", "--refetch", "origin"); sent(out) == "0" {
		t.Errorf("refetch sent nothing: %s", out)
	}
}
