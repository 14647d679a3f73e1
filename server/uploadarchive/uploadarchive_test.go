package uploadarchive

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/server/pktline"
)

var (
	someDirs  = []string{"", "a/", "a/b/", "b/"}
	somePaths = []string{"a", "b", "x.c", "a/a", "a/b", "a/x.c", "a/b/c", "a/b/x.c", "a/b/c/d", "b/a/b/c", "b/x-y", "[a]", "a*", "a\\b", "é", "a/é/x", "a/b/", "b/", "a/"}
)

// What is said of a path is what git check-attr says.
func TestPropertyAttributesAreGits(t *testing.T) {
	dir := t.TempDir()
	git := func(stdin string, args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		return string(out)
	}
	git("", "init", "-q")
	rapid.Check(t, func(rt *rapid.T) {
		pattern := rapid.OneOf(
			rapid.SampledFrom([]string{"*", "a", "b/", "/a", "a/b", "**/b", "a/**", "a/**/c", "**", "*.c", "x*", "?", "[ab]", "[!a]", "[^b]*", "[a-c]", "\\a", "a\\*", "\"a/b\"", "\"\\303\\251\"", "é", "??",
				"[[:alpha:]].c", "[[:nope:]]", "[", "[]a]", "[a-", "x[-]y", "x[!/]y", "a**c", "/*/b", "*/", "!a", "[attr]m", "[attr]n", "\\", "a//b", "**/*.c", "/**/c"}),
			rapid.StringMatching(`[ab*?/\[\]!.\\-]{1,6}`))
		setting := rapid.SampledFrom([]string{"p", "-p", "!p", "p=v", "q", "-q", "m", "-m", "n", "binary", "!m", "p q", "q -p m", "-=x", "p=", "b@d"})
		files := map[string]string{}
		for _, d := range someDirs {
			var b strings.Builder
			for range rapid.IntRange(0, 4).Draw(rt, "lines") {
				fmt.Fprintf(&b, "%s %s\n", pattern.Draw(rt, "pattern"), setting.Draw(rt, "setting"))
			}
			files[d] = b.String()
			path := filepath.Join(dir, d, ".gitattributes")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		names := []string{"p", "q", "m", "n", "text"}
		out := strings.Split(git(strings.Join(somePaths, "\x00")+"\x00", append([]string{"check-attr", "-z", "--stdin"}, names...)...), "\x00")
		for i := 0; i+2 < len(out); i += 3 {
			path, name, want := out[i], out[i+1], out[i+2]
			m := builtinMacros()
			var stack []attrFile
			for _, d := range someDirs {
				if strings.HasPrefix(path, d) {
					var into macros
					if d == "" {
						into = m
					}
					stack = append(stack, parseAttributes(d, files[d], into))
				}
			}
			clean, isDir := strings.CutSuffix(path, "/")
			if isDir { // its own .gitattributes does not speak of it
				for len(stack) > 0 && stack[len(stack)-1].dir == path {
					stack = stack[:len(stack)-1]
				}
			}
			got := "unspecified"
			if a, ok := resolve(stack, m, clean, isDir)[name]; ok {
				switch a.state {
				case attrSet:
					got = "set"
				case attrUnset:
					got = "unset"
				case attrValue:
					got = a.value
				}
			}
			if got != want {
				rt.Errorf("%s of %q is %q, git says %q; files %q", name, path, got, want, files)
			}
		}
	})
}

func FuzzAttributes(f *testing.F) {
	f.Add("*.c export-ignore\n[attr]x y -z\n\"a\\\"b\" x=1\n", "a/b.c")
	f.Add("[[:alpha:]-z]** -x\n", "é")
	f.Fuzz(func(_ *testing.T, text, path string) {
		m := builtinMacros()
		converts(resolve([]attrFile{parseAttributes("", text, m)}, m, strings.TrimSuffix(path, "/"), strings.HasSuffix(path, "/")))
	})
}

func FuzzArguments(f *testing.F) {
	f.Add([]byte("0012argument main\n0000"))
	f.Add([]byte("0018argument --prefix=x/0014argument main:a0013argument **/[a]0000"))
	f.Fuzz(func(t *testing.T, data []byte) {
		args, err := readArguments(pktline.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		req, err := parseArguments(args)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Fatalf("%q would break the answer", err)
			}
			return
		}
		for _, p := range req.paths {
			if strings.HasPrefix(p.literal, "../") || strings.HasPrefix(p.literal, "/") {
				t.Fatalf("pathspec %q leads outside", p.literal)
			}
		}
	})
}
