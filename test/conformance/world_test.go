package conformance

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)) }

// world makes random histories: merges, also of many parents, renames, modes,
// symbolic links, submodule entries, deep directories, blobs on both sides of the
// size from which the server keeps them raw, blobs that are much alike (git makes
// deltas of them), empty commits, empty trees, tags of all kinds and tags of tags.
// All refs are below its namespace. The same seed and the same calls give the same objects.
type world struct {
	r         *rand.Rand
	namespace string
	clock     int64
	branches  []string            // short names within the namespace
	files     map[string][]string // of a branch: its paths
	blobs     map[string][]byte   // of a path: what it held last, in any branch
	tags      int
}

func newWorld(seed uint64, namespace string) *world {
	return &world{r: newRand(seed), namespace: namespace, clock: 1_700_000_000, files: map[string][]string{}, blobs: map[string][]byte{}}
}

// ref returns the full name of a branch.
func (w *world) ref(branch string) string { return "refs/heads/" + w.namespace + "/" + branch }

func (w *world) chance(percent int) bool { return w.r.IntN(100) < percent }

func pick[T any](w *world, list []T) T { return list[w.r.IntN(len(list))] }

// grow adds commits to a repository, and now and then a branch or a tag.
func (w *world) grow(t testing.TB, s *site, dir string, commits int) {
	t.Helper()
	var out bytes.Buffer
	out.WriteString("feature done\n")
	marks := map[string]int{} // of branches that this stream has touched
	for mark := 1; mark <= commits; mark++ {
		w.commit(&out, marks, mark)
		if w.chance(15) {
			w.tag(&out, marks)
		}
	}
	out.WriteString("done\n")
	s.fastImport(t, dir, &out)
	if w.chance(30) {
		w.hollow(t, s, dir)
	}
}

// hollow adds a commit whose tree has an empty tree in it, which fast-import does not make.
func (w *world) hollow(t testing.TB, s *site, dir string) {
	t.Helper()
	none := s.feed(t, dir, nil, "mktree")
	deep := s.feed(t, dir, fmt.Appendf(nil, "040000 tree %s\tempty\n", none), "mktree")
	root := s.feed(t, dir, fmt.Appendf(nil, "040000 tree %s\talso\n040000 tree %s\tdeep\n", none, deep), "mktree")
	w.clock++
	commit := fmt.Sprintf("tree %s\nparent %s\nauthor A <a@example.com> %d +0000\ncommitter A <a@example.com> %[3]d +0000\n\nHollow\n",
		root, s.git(t, dir, "rev-parse", w.ref(w.branches[0])), w.clock)
	oid := s.feed(t, dir, []byte(commit), "hash-object", "-t", "commit", "-w", "--stdin")
	s.git(t, dir, "update-ref", w.ref("hollow"), oid)
}

func (s *site) fastImport(t testing.TB, dir string, stream *bytes.Buffer) {
	t.Helper()
	s.feed(t, dir, stream.Bytes(), "fast-import", "--quiet", "--force")
}

// feed is git with bytes on its standard input.
func (s *site) feed(t testing.TB, dir string, in []byte, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, s.env, bytes.NewReader(in)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(text))
}

// at is a branch's commit in a stream.
func (w *world) at(marks map[string]int, branch string) string {
	if m := marks[branch]; m > 0 {
		return fmt.Sprint(":", m)
	}
	return w.ref(branch) + "^0"
}

func (w *world) commit(out *bytes.Buffer, marks map[string]int, mark int) {
	var branch, from string
	switch {
	case len(w.branches) == 0 || len(w.branches) < 12 && w.chance(8):
		branch = fmt.Sprint(len(w.branches))
		if len(w.branches) > 0 && w.chance(85) { // or it is a root of its own
			parent := pick(w, w.branches)
			from = w.at(marks, parent)
			w.files[branch] = slices.Clone(w.files[parent])
		}
		w.branches = append(w.branches, branch)
	default:
		branch = pick(w, w.branches)
		from = w.at(marks, branch)
	}
	w.clock += int64(w.r.IntN(10_000)) - 500 // clocks go wrong
	who := pick(w, []string{"Ada Lovelace <ada@example.com>", "Bob <bob@example.com>", "Zoë Çelik <zoe@example.com>"})
	zone := pick(w, []string{"+0000", "-0730", "+1345"})
	fmt.Fprintf(out, "commit %s\nmark :%d\nauthor %s %d %s\ncommitter %s %d +0000\n", w.ref(branch), mark, who, w.clock, zone, who, w.clock)
	data(out, []byte(pick(w, []string{"Change\n", "", "Subject\n\nBody of\nseveral lines\n", "no newline", "Ünïcode ✓\n"})))
	if from != "" {
		fmt.Fprintf(out, "from %s\n", from)
		if w.chance(20) {
			merged := map[string]bool{branch: true}
			for range 1 + w.r.IntN(5) {
				if other := pick(w, w.branches); !merged[other] {
					fmt.Fprintf(out, "merge %s\n", w.at(marks, other))
					merged[other] = true
				}
			}
		}
	}
	marks[branch] = mark
	if from != "" && w.chance(5) {
		return // an empty commit
	}
	for range 1 + w.r.IntN(6) {
		w.change(out, branch)
	}
	out.WriteByte('\n')
}

func (w *world) change(out *bytes.Buffer, branch string) {
	files := w.files[branch]
	switch n := w.r.IntN(100); {
	case n < 10 && len(files) > 0:
		i := w.r.IntN(len(files))
		fmt.Fprintf(out, "D %s\n", files[i])
		w.files[branch] = slices.Delete(files, i, i+1)
	case n < 20 && len(files) > 0:
		i := w.r.IntN(len(files))
		to := w.path()
		if w.blocked(branch, to) || strings.HasPrefix(files[i], "sub/") || files[i] == to {
			return
		}
		fmt.Fprintf(out, "R %s %s\n", files[i], to)
		w.blobs[to] = w.blobs[files[i]]
		files[i] = to
	case n < 23 && len(files) > 0:
		out.WriteString("deleteall\n") // down to the empty tree
		w.files[branch] = nil
	case n < 28:
		path := "sub/" + w.name()
		if !w.blocked(branch, path) {
			var oid [20]byte
			for i := range oid {
				oid[i] = byte(w.r.IntN(255) + 1)
			}
			fmt.Fprintf(out, "M 160000 %x %s\n", oid, path)
			w.add(branch, path)
		}
	default:
		path := w.path()
		if len(files) > 0 && w.chance(40) {
			path = pick(w, files)
		}
		if w.blocked(branch, path) || strings.HasPrefix(path, "sub/") {
			return
		}
		mode := pick(w, []string{"100644", "100644", "100644", "100755", "120000"})
		content := w.content(path)
		if mode == "120000" {
			content = []byte(pick(w, []string{"../x", "/etc/passwd", "a", "loop"}))
		} else {
			w.blobs[path] = content
		}
		fmt.Fprintf(out, "M %s inline %s\n", mode, path)
		data(out, content)
		w.add(branch, path)
	}
}

func (w *world) add(branch, path string) {
	if !slices.Contains(w.files[branch], path) {
		w.files[branch] = append(w.files[branch], path)
	}
}

// blocked reports whether a path is below a file of the branch, or a directory of it.
func (w *world) blocked(branch, path string) bool {
	return slices.ContainsFunc(w.files[branch], func(f string) bool {
		return strings.HasPrefix(path, f+"/") || strings.HasPrefix(f, path+"/")
	})
}

func (w *world) name() string {
	return pick(w, []string{"a", "b", "c.d", "é", "Makefile", "x-y", "tables", "t.sql", "zz0"})
}

func (w *world) path() string {
	depth := 1 + w.r.IntN(3)
	if w.chance(5) {
		depth = 30 + w.r.IntN(40)
	}
	parts := make([]string, depth)
	for i := range parts {
		parts[i] = w.name()
	}
	return strings.Join(parts, "/")
}

// content is an edit of what the path held, or something new: tiny, text, or
// noise of up to 300 KiB.
func (w *world) content(path string) []byte {
	if old := w.blobs[path]; len(old) > 0 && w.chance(70) {
		b := slices.Clone(old)
		at := w.r.IntN(len(b))
		return slices.Insert(b, at, []byte(fmt.Sprintf("edit %d\n", w.r.IntN(1000)))...)
	}
	switch n := w.r.IntN(100); {
	case n < 5:
		return nil
	case n < 60:
		return fmt.Appendf(nil, "value %d\n", w.r.IntN(100))
	case n < 85:
		return bytes.Repeat([]byte(fmt.Sprintf("row %d of many\n", w.r.IntN(1000))), 1+w.r.IntN(8000))
	}
	b := make([]byte, w.r.IntN(300<<10))
	for i := range b {
		b[i] = byte(w.r.Uint32())
	}
	return b
}

// tag makes a light tag, an annotated one, or a chain of them.
func (w *world) tag(out *bytes.Buffer, marks map[string]int) {
	branch := pick(w, slices.Sorted(maps.Keys(marks)))
	w.tags++
	name := fmt.Sprintf("%s-%d", w.namespace, w.tags)
	if w.chance(30) {
		fmt.Fprintf(out, "reset refs/tags/%s\nfrom %s\n\n", name, w.at(marks, branch))
		return
	}
	from := w.at(marks, branch)
	for i := range 1 + w.r.IntN(3) {
		mark := 1_000_000*w.tags + i
		if i > 0 {
			name += "t"
		}
		fmt.Fprintf(out, "tag %s\nmark :%d\nfrom %s\ntagger Ada <ada@example.com> %d +0000\n", name, mark, from, w.clock)
		data(out, []byte("A tag\n"))
		from = fmt.Sprint(":", mark)
	}
}

// data writes a counted string of a fast-import stream.
func data(out *bytes.Buffer, b []byte) {
	fmt.Fprintf(out, "data %d\n", len(b))
	out.Write(b)
	out.WriteByte('\n')
}
