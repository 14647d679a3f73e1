package uploadpack

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/reach"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/server/pktline"
)

var total = regexp.MustCompile(`Total (\d+) \(delta (\d+)\)`)

// unband returns the pack of an answer, and what was said beside it.
func unband(t *testing.T, answer []byte) (data []byte, progress string) {
	t.Helper()
	r := pktline.NewReader(bytes.NewReader(answer))
	bands := false
	for {
		kind, line, err := r.Next() // not Line: a newline at the end of a packet may be the pack's
		if err != nil || kind == pktline.Flush {
			return data, progress
		}
		switch {
		case !bands:
			bands = string(line) == "packfile\n"
		case line[0] == 1:
			data = append(data, line[1:]...)
		case line[0] == 2:
			progress += string(line[1:])
		default:
			t.Fatalf("band %d: %q", line[0], line[1:])
		}
	}
}

// A lake whose packs were joined sends the deltas that it has, and stock git makes
// the same objects of them: named by distance or by name, with bases that are sent
// or that the client has.
func TestGitTakesStoredDeltas(t *testing.T) {
	ctx := t.Context()
	store := newStore(t)
	var commits []objects.OID
	dirs := make([]gitobj.Entry, 40)
	all := &writer{all: map[objects.OID]bool{}}
	for i := range 200 {
		w := write(t, store, func(w *writer) {
			if i == 0 {
				for d := range dirs {
					dirs[d] = gitobj.Entry{Name: fmt.Sprintf("dir%02d", d), Mode: gitobj.ModeTree, OID: w.tree()}
				}
			}
			blob := w.put(objects.Blob, fmt.Append(nil, strings.Repeat("the same line\n", 20), "content ", i))
			dirs[i%40].OID = w.tree(gitobj.Entry{Name: "f", Mode: gitobj.ModeFile, OID: blob})
			commits = append(commits, w.commit(int64(1000+i), w.tree(dirs...), commits[max(0, i-1):i]...))
		})
		for oid := range w.all {
			all.all[oid] = true
		}
	}
	if stats, err := store.Repack(ctx); err != nil || stats.Joined == 0 {
		t.Fatal(stats, err)
	}
	tip := commits[199]
	names := refs.NewMemory()
	if err := names.Apply(ctx, []refs.Update{{Name: "refs/heads/main", New: tip}}, refs.Cause{}); err != nil {
		t.Fatal(err)
	}
	r := &counted{Store: store}
	s := &Server{Objects: r, Refs: names, Head: "refs/heads/main", Agent: "headgate/test"}
	for _, index := range []bool{false, true} {
		if index {
			var err error
			if r.x, err = reach.Build(ctx, store, nil, []objects.OID{tip}); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			name   string
			args   []string
			have   int // the client's tip; -1: none
			deltas bool
		}{
			{"clone", []string{"ofs-delta"}, -1, true},
			{"clone, bases by name", nil, -1, true},
			{"clone without blobs", []string{"ofs-delta", "thin-pack", "filter blob:none"}, -1, true},
			{"fetch", []string{"ofs-delta", "thin-pack"}, 150, true},
			{"fetch of one commit", []string{"ofs-delta", "thin-pack"}, 198, true},
			{"fetch of one commit, no thin pack", []string{"ofs-delta"}, 198, false},
			{"shallow", []string{"ofs-delta", "thin-pack", "deepen 30"}, -1, true},
		} {
			t.Run(fmt.Sprintf("%s, index %v", c.name, index), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "git")
				git := (&writer{failer: t, all: map[objects.OID]bool{}}).stockGit(t, store, dir)
				fetch := func(args ...string) (deltas int) {
					var in, out bytes.Buffer
					w := pktline.NewWriter(&in)
					_ = w.Line("command=fetch")
					_ = w.Delim()
					for _, arg := range args {
						_ = w.Line("%s", arg)
					}
					_ = w.Flush()
					if err := s.Respond(ctx, 2, &in, &out); err != nil {
						t.Fatal(err)
					}
					pack, progress := unband(t, out.Bytes())
					m := total.FindStringSubmatch(progress)
					if m == nil {
						t.Fatalf("no total in %q", progress)
					}
					deltas, _ = strconv.Atoi(m[2])
					cmd := exec.Command("git", "--git-dir="+dir, "index-pack", "--stdin", "--fix-thin")
					cmd.Stdin = bytes.NewReader(pack)
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Fatalf("git index-pack: %v\n%s", err, out)
					}
					return deltas
				}
				args := append([]string{"want " + tip.String(), "done"}, c.args...)
				if c.have >= 0 {
					fetch("want "+commits[c.have].String(), "done")
					args = append(args, "have "+commits[c.have].String())
				}
				if deltas := fetch(args...); deltas > 0 != c.deltas {
					t.Errorf("%d deltas, want some: %v", deltas, c.deltas)
				}
				if strings.Contains(c.name, "shallow") || strings.Contains(c.name, "without") {
					return
				}
				got := strings.Count(git("", "rev-list", "--objects", tip.String()), "\n")
				if got != len(all.all) {
					t.Errorf("the client has %d objects of %d", got, len(all.all))
				}
				git("", "fsck", "--strict")
			})
		}
	}
}
