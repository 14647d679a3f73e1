package server_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// From every kind of incomplete clone, whatever can be connected is taken.
func TestPushFromIncompleteClones(t *testing.T) {
	s := newSite(t)
	s.pushedLake("flights")
	_, err := s.lakes.Create(t.Context(), "other")
	check(t, err)
	for i, args := range [][]string{
		{"--depth=1"}, {"--depth=3"}, {"--shallow-since=2024-01-07T00:00:00Z"}, {"--shallow-exclude=light"},
		{"--filter=blob:none"}, {"--filter=tree:0"}, {"--filter=blob:limit=1k"}, {"--filter=blob:none", "--sparse"}, {"--filter=blob:none", "--depth=1"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			at := s.within(t)
			c := at.from(at.url("flights"), args...)
			branch := fmt.Sprintf("refs/heads/push%d", i)
			pushed := func() {
				t.Helper()
				c.git("push", "-q", "origin", "HEAD:"+branch)
				if got, want := at.at("flights", branch), c.git("rev-parse", "HEAD"); got != want {
					t.Errorf("the branch is at %q, want %s", got, want)
				}
			}
			c.commit("one", map[string]string{"n": "n"})
			pushed()
			c.git("commit", "-q", "--amend", "-m", "rewritten")
			c.git("push", "-q", "--force", "origin", "HEAD:"+branch)
			c.git("tag", "-a", "-m", "from here", fmt.Sprint("t", i))
			c.git("push", "-q", "origin", "--tags")
			shallow := strings.Contains(strings.Join(args, " "), "depth") || strings.Contains(args[0], "shallow")
			if shallow {
				c.git("fetch", "-q", "--deepen=1")
				c.commit("deepened", map[string]string{"n": "n2"})
				pushed()
				c.git("fetch", "-q", "--depth=1", "origin", branch)
				c.git("reset", "-q", "--hard", "FETCH_HEAD")
				c.commit("cut again", map[string]string{"n": "n3"})
				pushed()
				// A lake that lacks the history would have to become shallow itself.
				out := c.refused("shallow update not allowed", "push", at.url("other"), "HEAD:refs/heads/cut")
				if !strings.Contains(out, "git fetch --unshallow") || at.at("other", "refs/heads/cut") != "" {
					t.Errorf("refused with %s", out)
				}
			}
			at.from(at.url("flights"), "--branch=push"+fmt.Sprint(i)).fsck()
		})
	}
	// Once it has the history, it passes.
	c := s.from(s.url("flights"), "--depth=1")
	c.user = "admin"
	c.git("fetch", "-q", "--unshallow")
	c.git("push", "-q", s.url("other"), "HEAD:main")
}

// What git refuses by default, in the same words.
func TestShallowRefusalIsThatOfGit(t *testing.T) {
	s := newSite(t)
	s.pushedLake("flights")
	_, err := s.lakes.Create(t.Context(), "other")
	check(t, err)
	c := s.from(s.url("flights"), "--depth=1")
	stock := filepath.Join(t.TempDir(), "stock.git")
	c.git("init", "-q", "--bare", stock)
	theirs := c.refused("[remote rejected]", "push", "file://"+stock, "HEAD:main")
	if !strings.Contains(theirs, "(shallow update not allowed)") {
		t.Fatalf("stock git says %s", theirs)
	}
	c.refused("(shallow update not allowed: ", "push", s.url("other"), "HEAD:main")
}

// What is not offered is refused before anything is sent, and by git itself.
func TestWhatIsNotOffered(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	c.commit("new", map[string]string{"n": "n"})
	c.refused("the receiving end does not support --signed push", "push", "--signed", "origin", "main")
	c.git("push", "-q", "--signed=if-asked", "origin", "main")

	other := filepath.Join(t.TempDir(), "sha256")
	cmd := exec.Command("git", "init", "-q", "--object-format=sha256", other)
	cmd.Env = s.env("user")
	check(t, cmd.Run())
	foreign := &clone{site: s, dir: other, user: "user"}
	foreign.commit("x", map[string]string{"x": "x"})
	foreign.refused("does not support this repository's hash algorithm", "push", s.url("flights"), "HEAD:x")
	for version, want := range []string{"does not support this repository's object format", "does not support this repository's object format", "mismatched algorithms: client sha256; server sha1"} {
		foreign.refused(want, "-c", fmt.Sprintf("protocol.version=%d", version), "fetch", s.url("flights"), "main")
	}
	for _, filter := range []string{"sparse:oid=main:headgate.yaml", "combine:blob:none+sparse:oid=main:x", "object:type=tag"} {
		c.refused("is not offered; use blob:none, blob:limit=<n> or tree:<depth>", "clone", "--filter="+filter, s.url("flights"), filepath.Join(t.TempDir(), "x"))
	}
}
