package server_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/server/pktline"
)

// archived returns what git archive writes to its standard output.
func (c *clone) archived(args ...string) []byte {
	c.t.Helper()
	cmd := c.command(append([]string{"archive"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("git archive %v: %v\n%s", args, err, stderr.String())
	}
	return out
}

// archiveLake has names, sizes, modes and attributes of every kind.
func archiveLake(s *site) *clone {
	c := s.repo("admin")
	history(c)
	deep := strings.Repeat("directory/", 12)
	files := map[string]string{
		"empty":                         "",
		"exact":                         strings.Repeat("x", 512),
		"ünïcode/a b":                   "1",
		deep + "file":                   "prefix and name",
		strings.Repeat("n", 101):        "too long for a name",
		"d/" + strings.Repeat("m", 97):  "one byte too long",
		"d/" + strings.Repeat("m", 98):  "two bytes too long",
		deep + strings.Repeat("l", 200): "in a pax header",
		"ignored/a/b":                   "ignored as a directory",
		"kept/ignored":                  "kept: no directory",
		"sub/x.tmp":                     "ignored", "sub/y.tmp": "kept by the deeper file", "sub/z.TMP": "kept",
		"docs/a/secret/s": "ignored", "docs/secret/s": "ignored", "docs/public": "kept",
		"odd/q?": "ignored", "odd/qx": "kept", "odd/[b]": "kept", "odd/b": "kept", "win.bat": "a\n",
		".gitattributes": "# comment\n[attr]hide export-ignore\n*.tmp export-ignore\nignored/ export-ignore\n/docs/**/secret hide\n" +
			"\"odd/q\\\\?\" export-ignore\n!odd/b export-ignore\n*.parquet -delta\n*.bat text -ident\nodd/[!a-z] hide\nodd/qx -hide\n",
		"sub/.gitattributes": "y.tmp !export-ignore\n",
	}
	c.commit("for an archive", files)
	check(c.t, os.Chmod(filepath.Join(c.dir, "models/x.sql"), 0o755))
	check(c.t, os.Symlink("../models/x.sql", filepath.Join(c.dir, "d/link")))
	check(c.t, os.Symlink(strings.Repeat("l", 150), filepath.Join(c.dir, "d/longlink")))
	check(c.t, os.MkdirAll(filepath.Join(c.dir, "vendor/module"), 0o755))
	c.git("update-index", "--add", "--cacheinfo", "160000,"+c.git("rev-parse", "HEAD")+",vendor/module")
	c.commit("modes", nil)
	c.git("remote", "add", "origin", s.url("flights"))
	c.git("push", "-q", "origin", "--all")
	c.git("push", "-q", "origin", "--tags")
	return c
}

// A tar is byte for byte that of git archive on the same repository.
func TestArchiveIsThatOfGit(t *testing.T) {
	s := newSite(t)
	c := archiveLake(s)
	for _, args := range [][]string{
		{"main"}, {"HEAD"}, {"refs/heads/main"}, {"heads/side"}, {"light"}, {"v1"}, {"vv1"}, {"tags/v1"},
		{"--prefix=flights/", "main"}, {"--prefix=a/b//", "main"}, {"--prefix=x-", "main"}, {"--prefix", "p/", "side"},
		{"main", "models"}, {"main", "models/"}, {"main", "tables/a/p1", "d/link"}, {"main", "./d/../models", "empty"}, {"main", "."},
		{"main", "*.sql"}, {"main", "m*"}, {"main", "tables/?/p[1-2]"}, {"main", "tables/*"}, {"main", "--", "odd/\\[b\\]"}, {"main", "odd/[[:alpha:]]"},
		{"main", "vendor"}, {"main", "sub"}, {"main", "docs"},
		{"--format=tar", "side"}, {"--worktree-attributes", "side"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			c := &clone{site: s.within(t), dir: c.dir, user: "user"}
			want := c.archived(args...)
			if got := c.archived(append([]string{"--remote=" + s.url("flights")}, args...)...); !bytes.Equal(got, want) {
				check(t, os.WriteFile(filepath.Join(t.TempDir(), "got.tar"), got, 0o644))
				t.Errorf("%d bytes, git archive gives %d; they differ at byte %d", len(got), len(want), differ(got, want))
			}
		})
	}
	// A part of a tree, and a tag on a tree, have the time of the request.
	for _, treeish := range []string{"main:models", "main:", "onatree", "main:models/deep"} {
		if got := untimed(c.archived("--remote="+s.url("flights"), treeish)); !bytes.Equal(got, untimed(c.archived(treeish))) {
			t.Errorf("%s differs", treeish)
		}
	}
	var gz bytes.Buffer
	zr, err := gzip.NewReader(bytes.NewReader(c.archived("--remote="+s.url("flights"), "--format=tar.gz", "-9", "main")))
	check(t, err)
	_, err = io.Copy(&gz, zr)
	check(t, err)
	if !bytes.Equal(gz.Bytes(), c.archived("main")) {
		t.Error("tar.gz differs")
	}
	path := filepath.Join(t.TempDir(), "x.tgz") // git asks for the format that the name has
	c.git("archive", "--remote="+s.url("flights"), "-o", path, "main")
	if f, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(f, []byte("\x1f\x8b")) {
		t.Errorf("x.tgz is no gzip: %v", err)
	}
	if got := string(c.archived("--remote="+s.url("flights"), "--list")); got != "tar\ntgz\ntar.gz\nzip\n" {
		t.Errorf("formats %q", got)
	}
	if out := c.git("archive", "--remote="+s.url("flights"), "-v", "-o", path, "main", "models"); !strings.Contains(out, "models/deep/er/y.sql") {
		t.Errorf("--verbose shows %q", out)
	}
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// untimed takes the times and checksums out of a tar.
func untimed(tar []byte) []byte {
	for b := tar; len(b) >= 512; b = b[512:] {
		if string(b[257:262]) == "ustar" {
			clear(b[136:156])
		}
	}
	return tar
}

func TestArchiveAsZip(t *testing.T) {
	s := newSite(t)
	c := archiveLake(s)
	list := func(data []byte) string {
		r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
		check(t, err)
		var b strings.Builder
		fmt.Fprintln(&b, r.Comment)
		for _, f := range r.File {
			rc, err := f.Open()
			check(t, err)
			content, err := io.ReadAll(rc)
			check(t, err)
			// Git writes the owner's bits of executables and links only.
			fmt.Fprintln(&b, f.Name, f.Mode().Type(), f.Mode()&0o100 != 0 && !f.Mode().IsDir(), f.Modified.Unix(), string(content))
		}
		return b.String()
	}
	for _, args := range [][]string{{"main"}, {"-0", "main"}, {"--prefix=p/", "side"}, {"v1", "models"}} {
		args = append([]string{"--format=zip"}, args...)
		diff(t, list(c.archived(append([]string{"--remote=" + s.url("flights")}, args...)...)), list(c.archived(args...)))
	}
}

func TestArchiveRefusals(t *testing.T) {
	s := newSite(t)
	c := archiveLake(s)
	remote := "--remote=" + s.url("flights")
	side := c.git("rev-parse", "side")
	c.commit("converts", map[string]string{".gitattributes": "*.bat text eol=crlf\n*.txt export-subst\nid ident\n", "s.txt": "$Format:%H$", "id": "$Id$"})
	c.git("push", "-q", "origin", "HEAD:conv")
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"no such ref: \"" + side + "\"", []string{side}}, // though it is a branch's tip: as git
		{"no such ref: \"main~1\"", []string{"main~1"}},
		{"no such ref: \"nothing\"", []string{"nothing"}},
		{"no such ref: \"refs/heads/../x\"", []string{"refs/heads/../x"}},
		{"there is no directory \"modelz\"", []string{"main:modelz"}},
		{"there is no directory \"models/x.sql\"", []string{"main:models/x.sql"}},
		{"not a tree object", []string{"onablob"}},
		{"pathspec \"modelz\" did not match any files", []string{"main", "models", "modelz"}},
		{"pathspec \"empty/\" did not match any files", []string{"main", "empty/"}},
		{"magic is not offered", []string{"main", ":!models"}},
		{"outside of the repository", []string{"main", "../x"}},
		{"nknown archive format \"rar\"", []string{"--format=rar", "main"}},
		{"rgument not supported for format \"tar\"", []string{"-9", "main"}},
		{"attribute eol=crlf", []string{"conv", "win.bat"}},
		{"the server does not: clone and run git archive there", []string{"conv"}},
		{"attribute export-subst", []string{"conv", "s.txt"}},
		{"attribute ident", []string{"conv", "id"}},
	} {
		out := c.refused(tt.want, append([]string{"archive", "-o", filepath.Join(t.TempDir(), "x.tar"), remote}, tt.args...)...)
		if strings.Contains(out, "its log says why") {
			t.Errorf("%v: %s", tt.args, out)
		}
	}
	c.archived(remote, "conv", "models") // what has no such file is served
	c.refused("lake \"nowhere\" does not exist", "archive", "--remote="+s.url("nowhere"), "main")
}

// The words of the protocol, packet by packet.
func TestArchiveOnTheWire(t *testing.T) {
	s := newSite(t)
	archiveLake(s)
	ask := func(lines ...string) string {
		var in bytes.Buffer
		w := pktline.NewWriter(&in)
		for _, l := range lines {
			check(t, w.Line("%s", l))
		}
		check(t, w.Flush())
		out, _, _ := s.sshWith("user", "git-upload-archive 'flights'", in.String())
		return out
	}
	if got := ask("argument --list"); got != "0008ACK\n0000"+"0018\x01tar\ntgz\ntar.gz\nzip\n"+"0000" {
		t.Errorf("list: %q", got)
	}
	if got := ask("argument main"); !strings.HasPrefix(got, "0008ACK\n0000fff0\x01pax_global_header\x00") || !strings.HasSuffix(got, "0000") {
		t.Errorf("main: %.60q", got)
	}
	for _, lines := range [][]string{
		nil, {"main"}, {"argument "}, {"argument --output=/tmp/x", "argument main"}, {"argument --remote=x", "argument main"}, {"argument --exec=touch", "argument main"},
		{"argument --add-file=/etc/passwd", "argument main"}, {"argument --add-virtual-file=a:b", "argument main"}, {"argument --prefix"}, {"argument -o", "argument main"},
		{"argument --list", "argument main"}, {"argument --mtime=never", "argument main"},
	} {
		if got := ask(lines...); len(got) < 12 || !strings.HasPrefix(got[4:], "NACK ") || !strings.HasSuffix(got, "\n0000") {
			t.Errorf("%q: %q", lines, got)
		}
	}
	many := make([]string, 65)
	for i := range many {
		many[i] = "argument main"
	}
	if got := ask(many...); !strings.Contains(got, "NACK more than 64 arguments") {
		t.Errorf("65 arguments: %q", got)
	}
	if got := ask("argument --mtime=@86400", "argument side"); !strings.Contains(got, "00000250600\x00") {
		t.Errorf("--mtime is not heard: %.700q", got)
	}
}
