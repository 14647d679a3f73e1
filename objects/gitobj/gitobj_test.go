package gitobj_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects/gitobj"
)

const (
	a40 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	who = "A U Thor <a@example.com> 1700000000 +0100"
)

var (
	oidA = strings.Repeat("\xaa", 20)
	null = strings.Repeat("\x00", 20)
)

// cases are objects and the fsck message that git 2.39 has for them with
// --strict; "" is a good object. ours marks what only we refuse.
var cases = []struct {
	name string
	typ  gitobj.Type
	data string
	id   string
	ours bool
}{
	{"empty tree", plumbing.TreeObject, "", "", false},
	{"tree", plumbing.TreeObject, "100644 a\x00" + oidA + "40000 b\x00" + oidA + "120000 c\x00" + oidA + "160000 d\x00" + oidA + "100755 e\x00" + oidA, "", false},
	{"dir order", plumbing.TreeObject, "100644 a.b\x00" + oidA + "40000 a\x00" + oidA + "100644 a0\x00" + oidA, "", false},
	{"unsorted", plumbing.TreeObject, "100644 b\x00" + oidA + "100644 a\x00" + oidA, "treeNotSorted", false},
	{"dir order wrong", plumbing.TreeObject, "40000 a\x00" + oidA + "100644 a.b\x00" + oidA, "treeNotSorted", false},
	{"duplicate", plumbing.TreeObject, "100644 a\x00" + oidA + "100644 a\x00" + oidA, "duplicateEntries", false},
	{"file and dir", plumbing.TreeObject, "100644 a\x00" + oidA + "100644 a.b\x00" + oidA + "100644 a.c\x00" + oidA + "40000 a\x00" + oidA, "duplicateEntries", false},
	{"no mode", plumbing.TreeObject, "a\x00" + oidA, "badTree", false},
	{"bad mode digits", plumbing.TreeObject, "10x644 a\x00" + oidA, "badTree", false},
	{"cut oid", plumbing.TreeObject, "100644 a\x00" + oidA[1:], "badTree", false},
	{"no nul", plumbing.TreeObject, "100644 a", "badTree", false},
	{"padded mode", plumbing.TreeObject, "040000 a\x00" + oidA, "zeroPaddedFilemode", false},
	{"group-writable", plumbing.TreeObject, "100664 a\x00" + oidA, "badFilemode", true},
	{"odd mode", plumbing.TreeObject, "100666 a\x00" + oidA, "badFilemode", true},
	{"null oid", plumbing.TreeObject, "100644 a\x00" + null, "nullSha1", false},
	{"slash", plumbing.TreeObject, "100644 a/b\x00" + oidA, "fullPathname", false},
	{"dot", plumbing.TreeObject, "100644 .\x00" + oidA, "hasDot", false},
	{"dot dot", plumbing.TreeObject, "40000 ..\x00" + oidA, "hasDotdot", false},
	{"dot git", plumbing.TreeObject, "40000 .git\x00" + oidA, "hasDotgit", false},
	{"dot git case", plumbing.TreeObject, "40000 .GIT\x00" + oidA, "hasDotgit", false},
	{"dot git ntfs", plumbing.TreeObject, "40000 git~1\x00" + oidA, "hasDotgit", false},
	{"dot git stream", plumbing.TreeObject, "40000 .git::$INDEX_ALLOCATION\x00" + oidA, "hasDotgit", false},
	{"dot git blanks", plumbing.TreeObject, "40000 .git. . \x00" + oidA, "hasDotgit", false},
	{"dot git hfs", plumbing.TreeObject, "40000 .g\u200cit\x00" + oidA, "hasDotgit", false},
	{"dot git backslash", plumbing.TreeObject, "40000 a\\.git\\b\x00" + oidA, "hasDotgit", false},
	{"not dot git", plumbing.TreeObject, "40000 .gita\x00" + oidA + "40000 .gitignore2\x00" + oidA + "40000 git~2\x00" + oidA, "", false},
	{"gitmodules link", plumbing.TreeObject, "120000 .gitmodules\x00" + oidA, "gitmodulesSymlink", false},
	{"gitmodules link ntfs", plumbing.TreeObject, "120000 GI7EBA~1\x00" + oidA, "gitmodulesSymlink", false},

	{"commit", plumbing.CommitObject, "tree " + a40 + "\nparent " + a40 + "\nauthor " + who + "\ncommitter " + who + "\n\nx\n", "", false},
	{"no message", plumbing.CommitObject, "tree " + a40 + "\nauthor " + who + "\ncommitter " + who + "\n", "", false},
	{"no name", plumbing.CommitObject, "tree " + a40 + "\nauthor  <a@b> 0 +0000\ncommitter " + who + "\n\n", "", false},
	{"latin1 name", plumbing.CommitObject, "tree " + a40 + "\nauthor J\xf6rg <j@b> 0 -0000\ncommitter " + who + "\n\nx\n", "", false},
	{"extra headers", plumbing.CommitObject, "tree " + a40 + "\nauthor " + who + "\ncommitter " + who + "\nencoding latin1\ngpgsig a\n b\n \n c\nmergetag x\n y\nodd\n\nx", "", false},
	{"no tree", plumbing.CommitObject, "author " + who + "\n\n", "missingTree", false},
	{"bad tree", plumbing.CommitObject, "tree " + a40[1:] + "\n\n", "badTreeSha1", false},
	{"bad parent", plumbing.CommitObject, "tree " + a40 + "\nparent x\nauthor " + who + "\ncommitter " + who + "\n\n", "badParentSha1", false},
	{"no author", plumbing.CommitObject, "tree " + a40 + "\ncommitter " + who + "\n\n", "missingAuthor", false},
	{"two authors", plumbing.CommitObject, "tree " + a40 + "\nauthor " + who + "\nauthor " + who + "\ncommitter " + who + "\n\n", "multipleAuthors", false},
	{"no committer", plumbing.CommitObject, "tree " + a40 + "\nauthor " + who + "\n\n", "missingCommitter", false},
	{"nul in header", plumbing.CommitObject, "tree " + a40 + "\nauthor \x00" + who + "\ncommitter " + who + "\n\n", "nulInHeader", false},
	{"nul in message", plumbing.CommitObject, "tree " + a40 + "\nauthor " + who + "\ncommitter " + who + "\n\nx\x00", "nulInCommit", false},
	{"unterminated", plumbing.CommitObject, "tree " + a40, "unterminatedHeader", false},
	{"no name before email", plumbing.CommitObject, "tree " + a40 + "\nauthor <a@b> 0 +0000\ncommitter " + who + "\n\n", "missingNameBeforeEmail", false},
	{"no email", plumbing.CommitObject, "tree " + a40 + "\nauthor a 0 +0000\ncommitter " + who + "\n\n", "missingEmail", false},
	{"bad name", plumbing.CommitObject, "tree " + a40 + "\nauthor a> <b> 0 +0000\ncommitter " + who + "\n\n", "badName", false},
	{"bad email", plumbing.CommitObject, "tree " + a40 + "\nauthor a <b<c> 0 +0000\ncommitter " + who + "\n\n", "badEmail", false},
	{"no space before email", plumbing.CommitObject, "tree " + a40 + "\nauthor a<b> 0 +0000\ncommitter " + who + "\n\n", "missingSpaceBeforeEmail", false},
	{"no space before date", plumbing.CommitObject, "tree " + a40 + "\nauthor a <b>0 +0000\ncommitter " + who + "\n\n", "missingSpaceBeforeDate", false},
	{"bad date", plumbing.CommitObject, "tree " + a40 + "\nauthor a <b> x +0000\ncommitter " + who + "\n\n", "badDate", false},
	{"padded date", plumbing.CommitObject, "tree " + a40 + "\nauthor a <b> 01 +0000\ncommitter " + who + "\n\n", "zeroPaddedDate", false},
	{"late date", plumbing.CommitObject, "tree " + a40 + "\nauthor a <b> 99999999999999999999 +0000\ncommitter " + who + "\n\n", "badDateOverflow", false},
	{"bad zone", plumbing.CommitObject, "tree " + a40 + "\nauthor a <b> 0 +00:0\ncommitter " + who + "\n\n", "badTimezone", false},

	{"tag", plumbing.TagObject, "object " + a40 + "\ntype commit\ntag v1\ntagger " + who + "\n\nx\n", "", false},
	{"tag without object", plumbing.TagObject, "type commit\ntag v1\ntagger " + who + "\n\n", "missingObject", false},
	{"tag bad object", plumbing.TagObject, "object x\ntype commit\ntag v1\ntagger " + who + "\n\n", "badObjectSha1", false},
	{"tag bad type", plumbing.TagObject, "object " + a40 + "\ntype x\ntag v1\ntagger " + who + "\n\n", "badType", false},
	{"tag without type", plumbing.TagObject, "object " + a40 + "\ntag v1\ntagger " + who + "\n\n", "missingTypeEntry", false},
	{"tag without name", plumbing.TagObject, "object " + a40 + "\ntype commit\ntagger " + who + "\n\n", "missingTagEntry", false},
	{"tag bad tagger", plumbing.TagObject, "object " + a40 + "\ntype commit\ntag v1\ntagger x\n\n", "missingEmail", false},
}

func TestCheck(t *testing.T) {
	for _, c := range cases {
		err := gitobj.Check(c.typ, []byte(c.data))
		var ce *gitobj.CheckError
		switch {
		case c.id == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.id != "" && (!errors.As(err, &ce) || ce.ID != c.id):
			t.Errorf("%s: %v, want %s", c.name, err, c.id)
		}
	}
}

// TestCheckAgreesWithGit feeds the cases to the real git fsck.
func TestCheckAgreesWithGit(t *testing.T) {
	dir := t.TempDir()
	git := func(stdin string, args ...string) (string, error) {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := git("", "init", "-q"); err != nil {
		t.Fatal(out, err)
	}
	names := make(map[string]int)
	for i, c := range cases {
		out, err := git(c.data, "hash-object", "--literally", "-w", "-t", c.typ.String(), "--stdin")
		if err != nil {
			t.Fatal(out, err)
		}
		names[strings.TrimSpace(out)] = i
	}
	out, _ := git("", "fsck", "--strict", "--no-dangling") // it fails: objects are missing
	found := make(map[int]string)
	for line := range strings.Lines(out) {
		for name, i := range names {
			// The null and made-up oids give "broken links", and since one oid is
			// named as several kinds, good objects "could not be parsed"; the
			// verdicts of fsck itself begin with "error in".
			if strings.HasPrefix(line, "error") && strings.Contains(line, name) && !strings.Contains(line, "broken links") {
				found[i] += line
			}
		}
	}
	for i, c := range cases {
		switch {
		case c.ours:
			if found[i] != "" {
				t.Errorf("%s: git refuses it too: %s", c.name, found[i])
			}
		case c.id == "" && strings.Contains(found[i], "error in "):
			t.Errorf("%s: git says %s", c.name, found[i])
		case c.id != "" && !c.ours && !strings.Contains(found[i], c.id+":") && !strings.Contains(found[i], "could not be parsed"):
			t.Errorf("%s: git says %q, we say %s", c.name, found[i], c.id)
		}
	}
}

func TestEncodeTreeRefuses(t *testing.T) {
	a := plumbing.NewHash(a40)
	for _, entries := range [][]gitobj.Entry{
		{{Name: "a/b", Mode: gitobj.ModeFile, OID: a}},
		{{Name: "", Mode: gitobj.ModeFile, OID: a}},
		{{Name: "a\x00b", Mode: gitobj.ModeFile, OID: a}},
		{{Name: ".git", Mode: gitobj.ModeTree, OID: a}},
		{{Name: "a", Mode: 0o644, OID: a}},
		{{Name: "a", Mode: gitobj.ModeFile}},
		{{Name: "a", Mode: gitobj.ModeFile, OID: a}, {Name: "a", Mode: gitobj.ModeTree, OID: a}, {Name: "a.b", Mode: gitobj.ModeFile, OID: a}},
	} {
		if _, err := gitobj.EncodeTree(entries); err == nil {
			t.Errorf("encoded %v", entries)
		}
	}
}

func TestPropertyTreeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		modes := []gitobj.Mode{gitobj.ModeFile, gitobj.ModeExec, gitobj.ModeSymlink, gitobj.ModeTree, gitobj.ModeGitlink}
		var entries []gitobj.Entry
		for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching(`[ab.0 -]{1,5}x`), 0, 30, rapid.ID).Draw(t, "names") {
			entries = append(entries, gitobj.Entry{Name: name, Mode: rapid.SampledFrom(modes).Draw(t, "mode"), OID: plumbing.NewHash(a40)})
		}
		data, err := gitobj.EncodeTree(entries)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := gitobj.ParseTree(data)
		if err != nil || len(parsed) != len(entries) {
			t.Fatalf("%d entries of %d, %v", len(parsed), len(entries), err)
		}
		again, err := gitobj.EncodeTree(parsed)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("encoded again: %q, %v; was %q", again, err, data)
		}
	})
}

func TestCommitSignature(t *testing.T) {
	c := &gitobj.Commit{
		Tree:      plumbing.NewHash(a40),
		Author:    gitobj.Signature{Name: "A <evil>\n", Email: "a@b", When: time.Unix(5, 0).UTC()},
		Committer: gitobj.Signature{Name: "C", Email: "c@d", When: time.Unix(6, 0).In(time.FixedZone("x", -5400))},
		Message:   "subject\n",
	}
	want := "tree " + a40 + "\nauthor A evil <a@b> 5 +0000\ncommitter C <c@d> 6 -0130\n\nsubject\n"
	if got := string(c.Encode()); got != want {
		t.Errorf("encoded %q, want %q", got, want)
	}
	c.GPGSig = "-----BEGIN SSH SIGNATURE-----\nabc\n\n-----END SSH SIGNATURE-----"
	if string(c.Payload()) != want {
		t.Errorf("payload %q, want what was signed", c.Payload())
	}
	signed := strings.Replace(want, "-0130\n", "-0130\ngpgsig -----BEGIN SSH SIGNATURE-----\n abc\n \n -----END SSH SIGNATURE-----\n", 1)
	if got := string(c.Encode()); got != signed {
		t.Errorf("signed %q, want %q", got, signed)
	}
	parsed, err := gitobj.ParseCommit([]byte(signed))
	if err != nil || parsed.GPGSig != c.GPGSig || string(parsed.Payload()) != want {
		t.Errorf("parsed %+v, %v", parsed, err)
	}
}

func TestCheckGitmodules(t *testing.T) {
	sub := func(settings string) string { return "[submodule \"x\"]\n\tpath = x\n\t" + settings + "\n" }
	for _, c := range []struct{ data, id string }{
		{"", ""},
		{"# nothing\n[core]\n\tx = y\n", ""},
		{sub("url = https://example.com/x.git"), ""},
		{sub("url = ../sibling.git"), ""},
		{sub("url = git@example.com:x.git ; comment"), ""},
		{sub("update = rebase"), ""},
		{"[submodule \"..\"]\n\turl = x\n", "gitmodulesName"},
		{"[submodule \"a/../b\"]\n\turl = x\n", "gitmodulesName"},
		{"[submodule \"a\\\\..\\\\b\"]\n\turl = x\n", "gitmodulesName"},
		{"[submodule \"\"]\n\turl = x\n", "gitmodulesName"},
		{sub("url = -u./payload"), "gitmodulesUrl"},
		{sub("url = \"-u./payload\""), "gitmodulesUrl"},
		{sub("URL = -u./payload"), "gitmodulesUrl"},
		{sub("url = \\\n-u./payload"), "gitmodulesUrl"},
		{sub("url = ../../%0ahost=example.com"), "gitmodulesUrl"},
		{sub("url = ../../../:x"), "gitmodulesUrl"},
		{sub("url = https:///x.git"), "gitmodulesUrl"},
		{sub("url = https://example.com/%0ax"), "gitmodulesUrl"},
		{sub("path = --upload-pack=x"), "gitmodulesPath"},
		{sub("update = !touch x"), "gitmodulesUpdate"},
		{"[submodule \"x\"] update = !touch x", "gitmodulesUpdate"},
		{"[submodule \"x]\n", "gitmodulesParse"},
		{"[submodule \"x\"]\n\turl = \"open\n", "gitmodulesParse"},
		{"%\n", "gitmodulesParse"},
		{"[submodule\"x\"]\n", "gitmodulesParse"}, // git does not read these either
		{sub("0 = x"), "gitmodulesParse"},
		{sub("shallow # x"), "gitmodulesParse"},
		{"\f[submodule \"x\"]\n", "gitmodulesParse"},
	} {
		err := gitobj.CheckGitmodules([]byte(c.data))
		var ce *gitobj.CheckError
		if c.id == "" && err != nil || c.id != "" && (!errors.As(err, &ce) || ce.ID != c.id) {
			t.Errorf("%q: %v, want %q", c.data, err, c.id)
		}
	}
}

func seed(f *testing.F, typ gitobj.Type) {
	for _, c := range cases {
		if c.typ == typ {
			f.Add([]byte(c.data))
		}
	}
}

func FuzzTree(f *testing.F) {
	seed(f, plumbing.TreeObject)
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := gitobj.ParseTree(data)
		if err != nil {
			return
		}
		if again, err := gitobj.EncodeTree(entries); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q became %q, %v", data, again, err)
		}
	})
}

func FuzzCommit(f *testing.F) {
	seed(f, plumbing.CommitObject)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := gitobj.ParseCommit(data)
		if err != nil {
			return
		}
		if again := c.Encode(); !bytes.Equal(again, data) {
			t.Errorf("%q became %q", data, again)
		}
		if p := c.Payload(); bytes.Contains(p[:len(p)-len(c.Message)], []byte("\ngpgsig ")) {
			t.Errorf("payload has a signature: %q", p)
		}
	})
}

func FuzzTag(f *testing.F) {
	seed(f, plumbing.TagObject)
	f.Fuzz(func(t *testing.T, data []byte) {
		tag, err := gitobj.ParseTag(data)
		if err != nil {
			return
		}
		if again := tag.Encode(); !bytes.Equal(again, data) {
			t.Errorf("%q became %q", data, again)
		}
	})
}
