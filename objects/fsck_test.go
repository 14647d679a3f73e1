package objects_test

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// crafted is a push that is made by hand, byte for byte.
type crafted struct {
	t       testing.TB
	entries []entry
	have    map[objects.OID]bool
}

func (c *crafted) add(typ objects.Type, data string) objects.OID {
	h := sha1.New()
	fmt.Fprintf(h, "%s %d\x00%s", typ, len(data), data)
	oid := objects.OID(h.Sum(nil))
	if !c.have[oid] {
		c.have[oid] = true
		c.entries = append(c.entries, entry{typ, nil, -1, []byte(data)})
	}
	return oid
}

const person = "A U Thor <a@example.com> 1700000000 +0100"

// blob, tree and commit are good ones, for others to name.
func (c *crafted) blob() objects.OID { return c.add(objects.Blob, "hello") }

func (c *crafted) tree() objects.OID { return c.add(objects.Tree, c.file("100644", "f", c.blob())) }

func (c *crafted) commit() objects.OID { return c.commitOf(c.tree()) }

func (c *crafted) commitOf(tree objects.OID) objects.OID {
	return c.add(objects.Commit, fmt.Sprintf("tree %s\nauthor %s\ncommitter %s\n\nx\n", tree, person, person))
}

func (c *crafted) file(mode, name string, oid objects.OID) string {
	return mode + " " + name + "\x00" + string(oid[:])
}

// fsckCase is a push that git refuses with the message id, or takes if it is "".
type fsckCase struct {
	id   string // git's, of the newest git; "" if git takes it
	name string
	make func(c *crafted) (tip objects.OID)
	ref  string // refs/heads/x if empty

	ours  string // what we call it, if it is another fault to us or none to git
	newer bool   // this git does not look for it yet
}

// commitLine is a commit whose author line is the given one.
func commitLine(author string) func(*crafted) objects.OID {
	return commitText("tree TREE\nauthor " + author + "\ncommitter " + person + "\n\nx\n")
}

func expand(c *crafted, text string) string {
	return strings.NewReplacer("TREE", c.tree().String(), "COMMIT", c.commit().String(), "BLOB", c.blob().String()).Replace(text)
}

func commitText(text string) func(*crafted) objects.OID {
	return func(c *crafted) objects.OID { return c.add(objects.Commit, expand(c, text)) }
}

func tagText(text string) func(*crafted) objects.OID {
	return func(c *crafted) objects.OID { return c.add(objects.Tag, expand(c, text)) }
}

// treeText is a commit of a tree with the given entries, "mode name" each, of
// the blob, or of a tree or of nothing as the mode has it.
func treeText(lines ...string) func(*crafted) objects.OID {
	return func(c *crafted) objects.OID {
		var b strings.Builder
		for _, l := range lines {
			mode, name, _ := strings.Cut(l, " ")
			oid := c.blob()
			switch strings.TrimLeft(mode, "0") {
			case "40000":
				oid = c.tree()
			case "160000":
				oid = objects.OID{1, 2, 3}
			}
			b.WriteString(c.file(mode, name, oid))
		}
		return c.commitOf(c.add(objects.Tree, b.String()))
	}
}

// rawTree is a commit of a tree with exactly these bytes.
func rawTree(data func(c *crafted) string) func(*crafted) objects.OID {
	return func(c *crafted) objects.OID { return c.commitOf(c.add(objects.Tree, data(c))) }
}

// special is a commit of a file of the given name and content.
func special(name, content string) func(*crafted) objects.OID {
	return rawTree(func(c *crafted) string { return c.file("100644", name, c.add(objects.Blob, content)) })
}

func modules(settings string) func(*crafted) objects.OID {
	return special(".gitmodules", "[submodule \"x\"]\n"+settings+"\n")
}

func fsckCases() []fsckCase {
	const committer = "\ncommitter " + person + "\n\nx\n"
	const tags = "refs/tags/x"
	long := strings.Repeat("n", 4097)
	cases := []fsckCase{
		{"", "a good one", (*crafted).commit, "", "", false},

		// Commits and tags: the header.
		{"nulInHeader", "commit", commitText("tree TREE\nauthor \x00" + person + committer), "", "", false},
		{"nulInHeader", "tag", tagText("object COMMIT\ntype commit\ntag x\x00\ntagger " + person + "\n\nx\n"), tags, "", false},
		{"unterminatedHeader", "commit", commitText("tree TREE\nauthor " + person + "\ncommitter " + person), "", "", false},
		{"unterminatedHeader", "tag", tagText("object COMMIT\ntype commit\ntag x"), tags, "", false},
		{"", "no message", commitText("tree TREE\nauthor " + person + "\ncommitter " + person + "\n"), "", "", false},
		{"nulInCommit", "message", commitText("tree TREE\nauthor " + person + "\ncommitter " + person + "\n\nx\x00y\n"), "", "", false},
		{"missingTree", "first line", commitText("author " + person + committer), "", "", false},
		{"missingTree", "empty", commitText("\n\nx"), "", "", false},
		{"badTreeSha1", "short", commitText("tree 123\nauthor " + person + committer), "", "", false},
		{"badTreeSha1", "blank behind", commitText("tree TREE \nauthor " + person + committer), "", "", false},
		{"badParentSha1", "short", commitText("tree TREE\nparent COMMI\nauthor " + person + committer), "", "", false},
		{"missingAuthor", "commit", commitText("tree TREE\ncommitter " + person + "\n\nx\n"), "", "", false},
		{"multipleAuthors", "commit", commitText("tree TREE\nauthor " + person + "\nauthor " + person + committer), "", "", false},
		{"missingCommitter", "commit", commitText("tree TREE\nauthor " + person + "\n\nx\n"), "", "", false},
		{"missingCommitter", "at the end", commitText("tree TREE\nauthor " + person + "\n"), "", "", false},

		// Who and when.
		{"missingNameBeforeEmail", "", commitLine("<a@b> 1 +0000"), "", "", false},
		{"missingEmail", "", commitLine("A 1 +0000"), "", "", false},
		{"badName", "", commitLine("A> <a@b> 1 +0000"), "", "", false},
		{"missingSpaceBeforeEmail", "", commitLine("A<a@b> 1 +0000"), "", "", false},
		{"badEmail", "open", commitLine("A <a@b 1 +0000"), "", "", false},
		{"badEmail", "twice", commitLine("A <a<b> 1 +0000"), "", "", false},
		{"missingSpaceBeforeDate", "", commitLine("A <a@b>1 +0000"), "", "", false},
		{"missingSpaceBeforeDate", "no date", commitLine("A <a@b>"), "", "", false},
		{"badDate", "letters", commitLine("A <a@b> x +0000"), "", "", false},
		{"badDate", "nothing", commitLine("A <a@b> "), "", "", false},
		{"badDate", "no zone", commitLine("A <a@b> 1"), "", "", false},
		{"badDateOverflow", "negative", commitLine("A <a@b> -1 +0000"), "", "badDate", false},
		{"badDate", "letter behind", commitLine("A <a@b> 1x +0000"), "", "", false},
		{"zeroPaddedDate", "", commitLine("A <a@b> 01 +0000"), "", "", false},
		{"badDateOverflow", "64 bits", commitLine("A <a@b> 18446744073709551617 +0000"), "", "", false},
		{"badDateOverflow", "63 bits", commitLine("A <a@b> 9223372036854775808 +0000"), "", "", false},
		{"badTimezone", "sign", commitLine("A <a@b> 1 0000"), "", "", false},
		{"badTimezone", "short", commitLine("A <a@b> 1 +000"), "", "", false},
		{"badTimezone", "long", commitLine("A <a@b> 1 +00000"), "", "", false},
		{"badTimezone", "blank behind", commitLine("A <a@b> 1 +0000 "), "", "", false},
		{"", "no name", commitLine(" <a@b> 1 +0000"), "", "", false},
		{"", "year 0", commitLine("A <a@b> 0 -0000"), "", "", false},
		{"missingEmail", "committer", commitText("tree TREE\nauthor " + person + "\ncommitter C\n\nx\n"), "", "", false},
		{"missingEmail", "tagger", tagText("object COMMIT\ntype commit\ntag x\ntagger T\n\nx\n"), tags, "", false},

		// Tags.
		{"", "tag", tagText("object COMMIT\ntype commit\ntag x\ntagger " + person + "\n\nx\n"), tags, "", false},
		{"", "tag of a tree", tagText("object TREE\ntype tree\ntag x\ntagger " + person + "\n\nx\n"), tags, "", false},
		{"missingObject", "", tagText("type commit\ntag x\ntagger " + person + "\n\nx\n"), tags, "", false},
		{"badObjectSha1", "", tagText("object COMMI\ntype commit\ntag x\ntagger " + person + "\n\nx\n"), tags, "", false},
		{"missingTypeEntry", "", tagText("object COMMIT\ntag x\ntagger " + person + "\n\nx\n"), tags, "", false},
		{"badType", "", tagText("object COMMIT\ntype comet\ntag x\ntagger " + person + "\n\nx\n"), tags, "", false},
		{"missingTagEntry", "", tagText("object COMMIT\ntype commit\ntagger " + person + "\n\nx\n"), tags, "", false},
		{"missingTagEntry", "end", tagText("object COMMIT\ntype commit\n"), tags, "", false},
		// Git reports these and takes them: old tags are like that.
		{"", "badTagName", tagText("object COMMIT\ntype commit\ntag a..b\ntagger " + person + "\n\nx\n"), tags, "", false},
		{"", "missingTaggerEntry", tagText("object COMMIT\ntype commit\ntag x\n\nx\n"), tags, "", false},
		{"", "extraHeaderEntry", tagText("object COMMIT\ntype commit\ntag x\ntagger " + person + "\nfoo bar\n\nx\n"), tags, "", false},

		// Trees: the format.
		{"badTree", "no mode", rawTree(func(c *crafted) string { return "f\x00" + c.file("", "", c.blob()) }), "", "", false},
		{"badTree", "mode of letters", treeText("10x644 f"), "", "", false},
		{"badTree", "mode of eights", treeText("100648 f"), "", "", false},
		{"badTree", "cut off", rawTree(func(c *crafted) string { s := c.file("100644", "f", c.blob()); return s[:len(s)-1] }), "", "", false},
		{"zeroPaddedFilemode", "", treeText("0100644 f"), "", "", false},
		{"zeroPaddedFilemode", "tree", treeText("040000 d"), "", "", false},
		{"nullSha1", "", rawTree(func(c *crafted) string { return c.file("160000", "f", objects.OID{}) }), "", "", false},
		{"treeNotSorted", "", treeText("100644 b", "100644 a"), "", "", false},
		{"treeNotSorted", "directory", treeText("40000 a", "100644 a.b"), "", "", false},
		{"duplicateEntries", "", treeText("100644 a", "100644 a"), "", "", false},
		{"duplicateEntries", "file and directory", treeText("100644 a", "100644 a.b", "40000 a"), "", "", false},
		{"duplicateEntries", "far apart", treeText("100644 a", "100644 a-b", "100644 a.b", "100644 a.b.c", "40000 a.b", "40000 a"), "", "", false},
		{"", "badFilemode", treeText("100664 f"), "", "badFilemode", false},
		{"", "odd file mode", treeText("100666 f"), "", "badFilemode", false},

		// Trees: names.
		{"emptyName", "", rawTree(func(c *crafted) string { return c.file("100644", "", c.blob()) }), "", "", false},
		{"fullPathname", "", treeText("100644 a/b"), "", "", false},
		{"fullPathname", "root", treeText("100644 /etc"), "", "", false},
		{"hasDot", "", treeText("40000 ."), "", "", false},
		{"hasDotdot", "", treeText("40000 .."), "", "", false},
		{"largePathname", "", treeText("100644 " + long), "", "", true},
		{"", "4,096 bytes of name", treeText("100644 " + long[1:]), "", "", false},
	}
	for _, name := range []string{".git", ".GIT", ".Git", "git~1", "GIT~1", ".git ", ".git.", ".git. . .", ".git::$INDEX_ALLOCATION", ".git:x",
		"git~1.", "git~1:x", ".g\u200cit", ".gi\u200dt", "\u202e.git", ".git\ufeff", "a\\.git", "a\\b\\git~1", ".git\\x", "\\.git\\x"} {
		cases = append(cases, fsckCase{"hasDotgit", fmt.Sprintf("%q", name), treeText("40000 " + name), "", "", false},
			fsckCase{"hasDotgit", fmt.Sprintf("file %q", name), treeText("100644 " + name), "", "", false})
	}
	for _, name := range []string{".gitx", "git~2", ".git~1", ".gi", "xgit", ".gitignore", ".mailmap", "a\\b", "...", "gi", "git"} {
		cases = append(cases, fsckCase{"", fmt.Sprintf("name %q", name), treeText("100644 " + name), "", "", false})
	}

	// The files that git itself reads.
	for _, name := range []string{".gitmodules", ".GitModules", ".gitmodules ", ".gitmodules. .", ".gitmodules:x", ".gitmodules::$DATA", "gitmod~1", "GITMOD~4",
		"gi7eba~1", "GI7EBA~9", "gi7eb~12", "gi7e~123", ".gitm\u200codules", "a\\.gitmodules", "a\\gitmod~1"} {
		cases = append(cases,
			fsckCase{"gitmodulesSymlink", fmt.Sprintf("%q", name), treeText("120000 " + name), "", "", false},
			fsckCase{"gitmodulesName", fmt.Sprintf("in %q", name), special(name, "[submodule \"..\"]\n\turl = x\n"), "", "", false},
			fsckCase{"gitmodulesBlob", fmt.Sprintf("%q", name), treeText("40000 " + name), "", "", false})
	}
	for _, name := range []string{".gitmodulesx", "gitmod~5", "gi7eba", "gi7ebb~1", "gitmodules", "gi7eba~0"} {
		cases = append(cases, fsckCase{"", fmt.Sprintf("bad submodule name in %q", name), special(name, "[submodule \"..\"]\n\turl = x\n"), "", "", false})
	}
	for _, name := range []string{".gitattributes", ".GITATTRIBUTES. ", "gitatt~1", "gi7d29~1", ".gitattr\u200dibutes"} {
		cases = append(cases,
			fsckCase{"gitattributesLineLength", fmt.Sprintf("in %q", name), special(name, "* text\n"+strings.Repeat("a", 2048)+" text\n"), "", "", false},
			fsckCase{"gitattributesBlob", fmt.Sprintf("%q", name), treeText("40000 " + name), "", "", false})
	}
	cases = append(cases,
		fsckCase{"gitmodulesMissing", "gitlink", treeText("160000 .gitmodules"), "", "gitmodulesBlob", false},
		fsckCase{"gitattributesMissing", "gitlink", treeText("160000 .gitattributes"), "", "gitattributesBlob", false},
		fsckCase{"", "gitattributesSymlink", treeText("120000 .gitattributes"), "", "", false},
		fsckCase{"", "gitignoreSymlink", treeText("120000 .gitignore"), "", "", false},
		fsckCase{"", "mailmapSymlink", treeText("120000 .mailmap"), "", "", false},
		fsckCase{"", "attributes of 2,047 bytes", special(".gitattributes", strings.Repeat("a", 2047)+"\nb text"), "", "", false},
		fsckCase{"gitattributesLineLength", "last line", special(".gitattributes", "b text\n"+strings.Repeat("a", 2048)), "", "", false},
		fsckCase{"", "attributes behind a zero byte", special(".gitattributes", "a text\n\x00"+strings.Repeat("a", 4000)), "", "", false},
		fsckCase{"gitattributesLarge", "", special(".gitattributes", strings.Repeat("* text\n", 100<<20/7+1)), "", "", false},
		fsckCase{"gitmodulesLarge", "", special(".gitmodules", strings.Repeat("# comment\n", 200_000)), "", "gitmodulesLarge", false},
		fsckCase{"", "gitmodulesParse", special(".gitmodules", "[submodule\n"), "", "gitmodulesParse", false},
	)
	cases[len(cases)-2].id = "" // to git, only from core.bigFileThreshold on
	for _, s := range []string{"[submodule \"..\"]", "[submodule \"\"]", "[submodule \"a/..\"]", "[submodule \"../a\"]", "[submodule \"a/../b\"]", "[submodule \"a\\\\..\\\\b\"]",
		"[submodule \"..\\\\a\"]", "[SUBMODULE \"..\"]", "[submodule.]", "[submodule.a \"/../b\"]", "[submodule.. \"/x\"]"} {
		cases = append(cases, fsckCase{"gitmodulesName", s, special(".gitmodules", s+"\nurl = x\n"), "", "", false})
	}
	for _, s := range []string{"-u./x", "\"-u./x\"", "\\\n-u./x", "\"\" -x", "\\\n \t-x", "-", "../%0ahost=evil", "./x%0a", "git://h/%0a", "../../:x", "..//x", "..\\\\..\\\\:x",
		"https:///x", "http://", "https://h/%0ax", "https://h/x%0A", "https://u%0a@h/x", "https://h/?a=%0a", "\"https://h/#%0a\"", "https://h\\n/x",
		"http::https:///x", "ftp::x", "https::://x", "https::https://h/%0a", "http::-x",
		"ftp:///x", "ftps://?x"} {
		cases = append(cases, fsckCase{"gitmodulesUrl", fmt.Sprintf("%q", s), modules("url = " + s), "", "", false})
	}
	// Git looks for these since it holds URLs against url_normalize.
	for _, s := range []string{"https://:80/x", "https://h/../x", "https://h/a/../../x", "https://h/%2e%2e/x", "https://h/%zz",
		"https://h/%2", "https://h:99999/x", "https://h:x/", "https://h:0/", "https://a b/x", "https://h%20/x", "https://u%@h/", "https://[::1]:0x/", "https://h/./../x"} {
		cases = append(cases, fsckCase{"gitmodulesUrl", fmt.Sprintf("%q", s), modules("url = " + s), "", "", true})
	}
	for _, s := range []string{"https://example.com/x.git", "http://h", "https://h:443/x", "https://h:/x", "https://[::1]/x", "https://[::1]:80/x", "https://u:p@h/x", "https://h/a/../b", "https://h//../x",
		"https://h/./x/.", "../sibling", "./x", "../../x", "git@example.com:x.git", "ssh://h/x%0a", "file:///x", "/abs", "x", "git://h/x", "https://h/?a=b#c", "https://h/a%20b", "http::ssh://h/x",
		"HTTPS:///x", "https://h/%2f%2e%2e%2fx", "https://h/x ; c", "https://@h/x"} {
		cases = append(cases, fsckCase{"", fmt.Sprintf("url %q", s), modules("url = " + s), "", "", false})
	}
	for _, s := range []string{"-x", "--upload-pack=x", "\"-x\"", "\"\" -x", "\"\"\r-x", "\r-x", "\\\n\t-x"} {
		cases = append(cases, fsckCase{"gitmodulesPath", fmt.Sprintf("%q", s), modules("path = " + s), "", "", false})
	}
	for _, s := range []string{"!x", "\"!x\"", "\"\" !x", "\r!x", "!"} {
		cases = append(cases, fsckCase{"gitmodulesUpdate", fmt.Sprintf("%q", s), modules("UPDATE = " + s), "", "", false})
	}
	for _, s := range []string{"path = x", "path = \" -x\"", "path = x\r", "update = rebase", "update = x!", "path", "ignore = -x", "path = \\t-x"} {
		cases = append(cases, fsckCase{"", fmt.Sprintf("setting %q", s), modules(s), "", "", false})
	}
	return cases
}

// stock is git's own receive-pack with transfer.fsckObjects.
type stock struct{ *repo }

func newStock(t testing.TB) stock {
	g := &repo{t, t.TempDir()}
	g.git(nil, "init", "-q", "--bare", "-b", "main")
	g.git(nil, "config", "transfer.fsckObjects", "true")
	return stock{g}
}

// push sends one command and a pack, and returns what git says of it.
func (s stock) push(ref string, tip objects.OID, pack []byte) (report, log string) {
	s.t.Helper()
	line := fmt.Sprintf("%s %s %s\x00report-status", objects.OID{}, tip, ref)
	in := append(fmt.Appendf(nil, "%04x%s0000", len(line)+4, line), pack...)
	cmd := exec.Command("git", "receive-pack", s.dir)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(in)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // the report says more
	_, report, ok := strings.Cut(stdout.String(), "unpack ")
	if !ok {
		s.t.Fatalf("git receive-pack gives no report: %q, %s", stdout.String(), stderr.String())
	}
	return report, stderr.String()
}

// unparsed is what git says when it cannot read an object so far that fsck would name the fault.
var unparsed = regexp.MustCompile(`fatal: invalid (commit|tag)|empty filename in tree entry`)

// Whatever git receive-pack with transfer.fsckObjects refuses is refused here,
// by the same name, and what it takes is taken but for a list of exceptions.
func TestIngestIsAsStrictAsStock(t *testing.T) {
	g := newStock(t)
	s := newPlace(t).open(t, 0)
	seen := make(map[string]bool)
	for i, tt := range fsckCases() {
		c := &crafted{t: t, have: make(map[objects.OID]bool)}
		tip := tt.make(c)
		pack := makePack(t, c.entries...)
		ref := "refs/heads/x"
		if tt.ref != "" {
			ref = tt.ref
		}
		name := tt.id + " " + tt.name
		seen[tt.id] = true
		report, log := g.push(fmt.Sprintf("%s%d", ref, i), tip, pack)
		switch taken := strings.HasPrefix(report, "ok\n"); {
		case tt.newer:
			if strings.Contains(log, tt.id) {
				t.Errorf("%s: this git looks for it", name)
			}
		case taken != (tt.id == ""):
			t.Errorf("%s: git took it: %v: %s%s", name, taken, report, log)
		case !taken && !strings.Contains(log, tt.id+":") && !unparsed.MatchString(log):
			t.Errorf("%s: git says %q", name, log)
		}

		want := tt.id
		if tt.ours != "" {
			want = tt.ours
		}
		q, err := s.Quarantine()
		if err != nil {
			t.Fatal(err)
		}
		if _, err = q.Ingest(t.Context(), bytes.NewReader(pack), objects.Limits{}); err == nil {
			err = q.CheckConnected(t.Context(), []objects.OID{tip})
		}
		if err := q.Discard(); err != nil {
			t.Error(err)
		}
		var ce *gitobj.CheckError
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case want != "" && (!errors.As(err, &ce) || ce.ID != want):
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	for _, id := range refusing {
		if !seen[id] {
			t.Errorf("no case for %s", id)
		}
	}
}

// refusing are the message ids of fsck-msgids that are FATAL, ERROR or WARN, so
// that transfer.fsckObjects refuses what has them. Left out are those of refs
// and of loose files, which no pack has, and those that git never gives:
// missingType, missingTag, badGpgsig and badHeaderContinuation (a header that
// does not end is unterminatedHeader already), unknownType (a pack has four).
var refusing = []string{
	"nulInHeader", "unterminatedHeader",
	"badDate", "badDateOverflow", "badEmail", "badName", "badObjectSha1", "badParentSha1", "badTimezone", "badTree", "badTreeSha1", "badType",
	"duplicateEntries", "gitattributesBlob", "gitattributesLarge", "gitattributesLineLength", "gitattributesMissing", "gitmodulesBlob", "gitmodulesMissing",
	"gitmodulesName", "gitmodulesPath", "gitmodulesSymlink", "gitmodulesUpdate", "gitmodulesUrl",
	"missingAuthor", "missingCommitter", "missingEmail", "missingNameBeforeEmail", "missingObject", "missingSpaceBeforeDate", "missingSpaceBeforeEmail",
	"missingTagEntry", "missingTree", "missingTypeEntry", "multipleAuthors", "treeNotSorted", "zeroPaddedDate",
	"emptyName", "fullPathname", "hasDot", "hasDotdot", "hasDotgit", "largePathname", "nullSha1", "nulInCommit", "zeroPaddedFilemode",
}
