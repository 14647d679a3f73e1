package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// missing are the objects that a partial clone knows of and has not fetched.
func (c *clone) missing() []string {
	c.t.Helper()
	var list []string
	for line := range strings.Lines(c.git("rev-list", "--objects", "--branches", "--remotes", "--missing=print")) {
		if oid, ok := strings.CutPrefix(strings.TrimSpace(line), "?"); ok {
			list = append(list, oid)
		}
	}
	return list
}

// Days of ordinary use of a partial clone, beside a full one of the same lake
// that does the same: it never fails, and shows the same.
func TestDaysInAPartialClone(t *testing.T) {
	for _, how := range []struct {
		name string
		args []string
	}{
		{"blob:none", []string{"--filter=blob:none"}},
		{"blob:none, v0", []string{"--filter=blob:none", "-c", "protocol.version=0"}},
		{"blob:limit", []string{"--filter=blob:limit=50"}},
		{"tree:0", []string{"--filter=tree:0"}},
		{"blob:none, sparse", []string{"--filter=blob:none", "--sparse"}},
	} {
		t.Run(how.name, func(t *testing.T) {
			s := newSite(t)
			src := s.pushedLake("flights")
			src.git("checkout", "-q", "main")
			src.commit("a file with a history", map[string]string{"notes": strings.Repeat("line\n", 40)})
			for i := range 4 {
				src.commit(fmt.Sprint("edit ", i), map[string]string{"notes": strings.Repeat("line\n", 20+i) + fmt.Sprint("new ", i, "\n") + strings.Repeat("line\n", 20)})
			}
			src.git("checkout", "-q", "-b", "pick", "light")
			src.commit("to be picked", map[string]string{"picked": strings.Repeat("p", 60)})
			src.git("checkout", "-q", "main")
			src.git("push", "-q", "origin", "main", "pick")
			full := s.from(s.url("flights"))
			part := s.from(s.url("flights"), how.args...)
			same := func(args ...string) {
				t.Helper()
				if got, want := part.git(args...), full.git(args...); got != want {
					t.Errorf("git %v shows\n%.2000s\nin a full clone\n%.2000s", args, got, want)
				}
			}
			both := func(args ...string) {
				t.Helper()
				part.git(args...)
				full.git(args...)
			}

			// The first day: to look at things. Of one file, one blob is fetched.
			before := part.missing()
			if len(before) == 0 {
				t.Fatal("a partial clone has everything")
			}
			if strings.HasPrefix(how.name, "blob:none") {
				same("cat-file", "-p", "HEAD~3:notes")
				if after := part.missing(); len(after) != len(before)-1 {
					t.Errorf("one file fetched %d objects", len(before)-len(after))
				}
			}
			same("log", "-p", "--stat", "origin/main")
			same("blame", "notes")
			same("diff", "HEAD~3", "HEAD")
			same("show", "origin/side")
			same("grep", "-n", "select", "HEAD")
			both("checkout", "-q", "light")
			same("ls-tree", "-r", "HEAD")
			both("checkout", "-q", "main")

			// The second: to work, while others do.
			for i, c := range []*clone{part, full} {
				c.extra = []string{"GIT_AUTHOR_DATE=2024-03-01T12:00:00Z", "GIT_COMMITTER_DATE=2024-03-01T12:00:00Z"}
				c.git("config", "core.sparseCheckout", c.git("config", "--default=false", "core.sparseCheckout")) // as it was
				c.git("checkout", "-q", "-b", fmt.Sprint("work", i))
				c.commit("mine", map[string]string{"notes": "mine\n" + strings.Repeat("line\n", 20)})
			}
			src.commit("theirs", map[string]string{"models/x.sql": "select 5", "tables/a/p5": strings.Repeat("5", 3000)})
			src.git("push", "-q", "origin", "main")
			both("fetch", "-q", "origin")
			both("rebase", "-q", "origin/main")
			both("merge", "-q", "--no-edit", "-m", "merge", "origin/side")
			both("cherry-pick", "-x", "origin/pick")
			both("revert", "--no-edit", "HEAD")
			same("rev-parse", "HEAD^{tree}")
			part.git("push", "-q", "origin", "HEAD:refs/heads/from-the-partial-clone")
			if got := s.at("flights", "refs/heads/from-the-partial-clone"); got != part.git("rev-parse", "HEAD") {
				t.Errorf("pushed %s", got)
			}
			part.git("push", "-q", "origin", "--force", "HEAD~1:refs/heads/from-the-partial-clone")
			part.git("push", "-q", "origin", "--delete", "from-the-partial-clone")

			// The third: sparse checkouts, and what git does by itself.
			part.git("sparse-checkout", "set", "tables/a")
			part.git("sparse-checkout", "add", "models")
			if _, err := os.Stat(filepath.Join(part.dir, "models/x.sql")); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(part.dir, "side")); err == nil {
				t.Error("a directory outside of the sparse checkout is there")
			}
			part.git("sparse-checkout", "disable")
			part.git("gc", "-q", "--prune=now")
			part.git("repack", "-q", "-a", "-d", "-f")
			for _, task := range []string{"commit-graph", "prefetch", "loose-objects", "incremental-repack", "gc"} {
				part.git("maintenance", "run", "--quiet", "--task="+task)
			}
			part.git("fsck")
			same("log", "-p", "origin/main")

			// The fourth: to get the rest, in batches, as git backfill does.
			for batch := range slices.Chunk(part.missing(), 3) {
				cmd := part.command("-c", "fetch.negotiationAlgorithm=noop", "fetch", "-q", "origin", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none", "--stdin")
				cmd.Stdin = strings.NewReader(strings.Join(batch, "\n") + "\n")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("backfill: %v\n%s", err, out)
				}
			}
			if strings.HasPrefix(how.name, "blob") {
				if left := part.missing(); len(left) > 0 {
					t.Errorf("%d objects are still missing", len(left))
				}
			}
			part.git("fetch", "-q", "--refetch", "--filter=blob:limit=1g", "origin") // another filter, from the start
			if left := part.missing(); len(left) > 0 {
				t.Errorf("%d objects are missing after a refetch without a filter to speak of", len(left))
			}
			part.fsck()
			same("rev-list", "--objects", "origin/main", "origin/side")
		})
	}
}
