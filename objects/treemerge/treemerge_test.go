package treemerge_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/objects/treemerge"
)

// fataler is what testing.T and rapid.T have in common.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// memory is a few objects.
type memory struct{ objects map[objects.OID]object }

type object struct {
	kind objects.Type
	data []byte
}

func (m *memory) Stat(_ context.Context, oid objects.OID) (objects.Info, error) {
	o, ok := m.objects[oid]
	if !ok {
		return objects.Info{}, fmt.Errorf("%s: %w", oid, objects.ErrNotFound)
	}
	return objects.Info{Type: o.kind, Size: int64(len(o.data))}, nil
}

func (m *memory) Open(ctx context.Context, oid objects.OID) (objects.Info, io.ReadCloser, error) {
	info, err := m.Stat(ctx, oid)
	return info, io.NopCloser(bytes.NewReader(m.objects[oid].data)), err
}

func (m *memory) Put(_ context.Context, kind objects.Type, _ int64, r io.Reader) (objects.OID, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return objects.OID{}, err
	}
	oid := plumbing.ComputeHash(kind, data)
	m.objects[oid] = object{kind, data}
	return oid, nil
}

// none has no units.
type none struct{}

func (none) IsUnit(string, []string) bool { return false }
func (none) IsOwn(string) bool            { return false }

// tree makes trees of files by path; "->x" is a symbolic link, "+x" a program.
func (m *memory) tree(t fataler, files map[string]string) objects.OID {
	t.Helper()
	edits := make(map[string]tree.Edit)
	for path, content := range files {
		mode := gitobj.Mode(gitobj.ModeFile)
		if strings.HasPrefix(content, "->") {
			mode = gitobj.ModeSymlink
		} else if strings.HasPrefix(content, "+") {
			mode = gitobj.ModeExec
		}
		oid, err := m.Put(context.Background(), objects.Blob, 0, strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		edits[path] = tree.Edit{Mode: mode, OID: oid}
	}
	oid, err := tree.Apply(context.Background(), m, objects.OID{}, edits)
	if err != nil {
		t.Fatal(err)
	}
	return oid
}

func (m *memory) files(t fataler, root objects.OID) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := tree.Walk(context.Background(), m, root, func(path string, e gitobj.Entry) error {
		if e.Mode != gitobj.ModeTree {
			out[path] = string(m.objects[e.OID].data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMerge(t *testing.T) {
	const lines = "1\n2\n3\n4\n5\n"
	for _, tc := range []struct {
		name               string
		base, ours, theirs map[string]string
		want               map[string]string
		conflicts          []string
	}{
		{name: "each side another file", base: map[string]string{"a": "1", "d/b": "1", "d/c": "1"}, ours: map[string]string{"a": "2", "d/b": "1", "d/c": "1"}, theirs: map[string]string{"a": "1", "d/b": "2", "d/e": "1"},
			want: map[string]string{"a": "2", "d/b": "2", "d/e": "1"}},
		{name: "lines of both", base: map[string]string{"a": lines}, ours: map[string]string{"a": "one\n2\n3\n4\n5\n"}, theirs: map[string]string{"a": "1\n2\n3\n4\nfive"},
			want: map[string]string{"a": "one\n2\n3\n4\nfive"}},
		{name: "lines side by side", base: map[string]string{"a": lines}, ours: map[string]string{"a": "1\nTWO\n3\n4\n5\n"}, theirs: map[string]string{"a": "1\n2\nTHREE\n4\n5\n"}, conflicts: []string{"a"}},
		{name: "the same change", base: map[string]string{"a": lines}, ours: map[string]string{"a": "x"}, theirs: map[string]string{"a": "x"}, want: map[string]string{"a": "x"}},
		{name: "new on both sides", ours: map[string]string{"a": "x\n"}, theirs: map[string]string{"a": "y\n"}, conflicts: []string{"a"}},
		{name: "deleted and changed", base: map[string]string{"a": "x", "b": "x"}, ours: map[string]string{"b": "y"}, theirs: map[string]string{"a": "y"}, conflicts: []string{"a", "b"}},
		{name: "a directory that went, of which one file changed", base: map[string]string{"d/a": "x", "d/b": "x"}, ours: map[string]string{"z": "1"}, theirs: map[string]string{"d/a": "x", "d/b": "y"}, conflicts: []string{"d/b"}},
		{name: "a file where a directory was", base: map[string]string{"d": "x"}, ours: map[string]string{"d/a": "x"}, theirs: map[string]string{"d": "y"}, conflicts: []string{"d"}},
		{name: "links", base: map[string]string{"l": "->a"}, ours: map[string]string{"l": "->b"}, theirs: map[string]string{"l": "->c"}, conflicts: []string{"l"}},
		{name: "all is gone", base: map[string]string{"a": "x", "b": "x"}, ours: map[string]string{"a": "x"}, theirs: map[string]string{"b": "x"}, want: map[string]string{}},
		{name: "a large file", base: map[string]string{"a": strings.Repeat("x\n", 5<<20)}, ours: map[string]string{"a": "1\n" + strings.Repeat("x\n", 5<<20)}, theirs: map[string]string{"a": strings.Repeat("x\n", 5<<20) + "2\n"}, conflicts: []string{"a"}},
		{name: "a program on one side, other lines on the other", base: map[string]string{"a": "+1\n2\n3\n"}, ours: map[string]string{"a": "+1\n2\n3\n4\n"}, theirs: map[string]string{"a": "+0\n2\n3\n"}, want: map[string]string{"a": "+0\n2\n3\n4\n"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &memory{objects: make(map[objects.OID]object)}
			res, err := treemerge.Merge(t.Context(), m, m.tree(t, tc.base), m.tree(t, tc.ours), m.tree(t, tc.theirs), none{})
			if err != nil {
				t.Fatal(err)
			}
			var conflicts []string
			for _, c := range res.Conflicts {
				conflicts = append(conflicts, c.Path)
			}
			if !slices.Equal(conflicts, tc.conflicts) {
				t.Fatalf("conflicts %+v, want %q", res.Conflicts, tc.conflicts)
			}
			if got := fmt.Sprint(m.files(t, res.Tree)); tc.conflicts == nil && got != fmt.Sprint(tc.want) {
				t.Errorf("merged into %s, want %v", got, tc.want)
			}
		})
	}
}

// directories of parts are units; a README in one is merged like any file.
type parts struct{}

func (parts) IsUnit(path string, names []string) bool {
	return strings.HasPrefix(path, "tables/") && slices.ContainsFunc(names, parts{}.IsOwn)
}
func (parts) IsOwn(name string) bool { return strings.HasSuffix(name, ".part") }

func TestUnitsAreLeftToTheCaller(t *testing.T) {
	m := &memory{objects: make(map[objects.OID]object)}
	base := m.tree(t, map[string]string{"tables/a/1.part": "1", "tables/a/README": "1\n2\n3\n", "tables/b/1.part": "1", "tables/c/1.part": "1"})
	ours := m.tree(t, map[string]string{"tables/a/2.part": "2", "tables/a/README": "one\n2\n3\n", "tables/b/1.part": "1", "tables/d/1.part": "1"})
	theirs := m.tree(t, map[string]string{"tables/a/3.part": "3", "tables/a/README": "1\n2\nthree\n", "tables/b/2.part": "1", "tables/c/2.part": "1", "tables/d/2.part": "1"})
	res, err := treemerge.Merge(t.Context(), m, base, ours, theirs, parts{})
	if err != nil || len(res.Conflicts) > 0 {
		t.Fatalf("%+v, error %v", res, err)
	}
	want := map[string]string{"tables/a/2.part": "2", "tables/a/README": "one\n2\nthree\n", "tables/b/2.part": "1", "tables/d/1.part": "1"}
	if got := m.files(t, res.Tree); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("merged into %v, want %v", got, want)
	}
	var units []string
	for _, u := range res.Units {
		units = append(units, fmt.Sprint(u.Path, " ", !u.Base.IsZero(), " ", !u.Ours.IsZero(), " ", !u.Theirs.IsZero()))
	}
	if want := []string{"tables/a true true true", "tables/c true false true", "tables/d false true true"}; !slices.Equal(units, want) {
		t.Errorf("units %q, want %q", units, want)
	}
}

// TestMergeIsGits holds merges to what git merge-tree makes of the same trees,
// without renames: the same result, and conflicts in the same files.
func TestMergeIsGits(t *testing.T) {
	dir := t.TempDir()
	git := func(t fataler, stdin string, args ...string) (string, int) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@b", "-c", "merge.renames=false", "-C", dir}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
	}
	git(t, "", "init", "-q")
	clean, conflicts := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		base := make(map[string]string)
		for _, path := range []string{"a", "d/b", "d/c"} {
			var text strings.Builder
			for i := range rapid.IntRange(1, 12).Draw(t, "lines of "+path) {
				fmt.Fprintf(&text, "%s line %d\n", path, i)
			}
			base[path] = text.String()
		}
		edit := func(side string) map[string]string {
			out := make(map[string]string)
			for _, path := range []string{"a", "d/b", "d/c", "new"} {
				text, there := base[path]
				switch rapid.SampledFrom([]string{"keep", "keep", "edit", "edit", "delete"}).Draw(t, side+" "+path) {
				case "delete":
					continue
				case "edit":
					lines := strings.SplitAfter(text, "\n")
					at := rapid.IntRange(0, len(lines)-1).Draw(t, "at")
					to := min(len(lines)-1, at+rapid.IntRange(0, 2).Draw(t, "gone"))
					var added []string
					for i := range rapid.IntRange(0, 2).Draw(t, "added") {
						added = append(added, fmt.Sprintf("%s %d\n", rapid.SampledFrom([]string{side, "both"}).Draw(t, "whose"), i))
					}
					text = strings.Join(slices.Replace(lines, at, max(at, to), added...), "")
				case "keep":
					if !there {
						continue
					}
				}
				out[path] = text
			}
			return out
		}
		ours, theirs := edit("ours"), edit("theirs")
		m := &memory{objects: make(map[objects.OID]object)}
		trees := [3]objects.OID{m.tree(t, base), m.tree(t, ours), m.tree(t, theirs)}
		res, err := treemerge.Merge(t.Context(), m, trees[0], trees[1], trees[2], none{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range m.objects {
			if o.kind == objects.Blob {
				git(t, string(o.data), "hash-object", "-w", "--stdin")
			} else {
				git(t, string(o.data), "hash-object", "-w", "-t", "tree", "--literally", "--stdin")
			}
		}
		first, _ := git(t, "", "commit-tree", trees[0].String(), "-m", "base")
		left, _ := git(t, "", "commit-tree", trees[1].String(), "-p", first, "-m", "ours")
		right, _ := git(t, "", "commit-tree", trees[2].String(), "-p", first, "-m", "theirs")
		out, code := git(t, "", "merge-tree", "--write-tree", "--name-only", "--no-messages", left, right)
		names := strings.Split(out, "\n")
		var mine []string
		for _, c := range res.Conflicts {
			mine = append(mine, c.Path)
		}
		if !slices.Equal(mine, names[1:]) && len(mine)+len(names) > 1 {
			t.Fatalf("base %q\nours %q\ntheirs %q\nconflicts in %q, git has them in %q (exit code %d)", base, ours, theirs, mine, names[1:], code)
		}
		if code == 0 {
			clean++
			if res.Tree.String() != names[0] {
				t.Fatalf("base %q\nours %q\ntheirs %q\nmerged into %q, and by git into %s", base, ours, theirs, m.files(t, res.Tree), names[0])
			}
		} else {
			conflicts++
		}
	})
	if clean == 0 || conflicts == 0 {
		t.Errorf("%d merges, %d conflicts: the test shows nothing", clean, conflicts)
	}
}

// FuzzText: whatever the texts are, a merge with an unchanged side is the other
// side, and the sides may change places.
func FuzzText(f *testing.F) {
	f.Add([]byte("a\nb\nc\n"), []byte("a\nB\nc\n"), []byte("a\nb\nc\nd"))
	f.Add([]byte(""), []byte("\n"), []byte("\n\n"))
	f.Fuzz(func(t *testing.T, base, ours, theirs []byte) {
		for _, side := range [][]byte{ours, theirs} {
			if got, ok := treemerge.Text(base, side, base); !ok || !bytes.Equal(got, side) {
				t.Errorf("with an unchanged side: %q, %v", got, ok)
			}
			if got, ok := treemerge.Text(base, side, side); !ok || !bytes.Equal(got, side) {
				t.Errorf("with itself: %q, %v", got, ok)
			}
		}
		one, ok1 := treemerge.Text(base, ours, theirs)
		two, ok2 := treemerge.Text(base, theirs, ours)
		if ok1 != ok2 || ok1 && !bytes.Equal(one, two) {
			t.Errorf("%q, %v; with the sides changed %q, %v", one, ok1, two, ok2)
		}
	})
}
