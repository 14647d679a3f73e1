package server

import (
	"strings"
	"testing"
)

func TestParseGitPath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]gitPath{
		"/flights.git/info/refs":             {"flights.git", endRefs},
		"/flights/info/refs":                 {"flights", endRefs},
		"/team/flights.git/git-upload-pack":  {"team/flights.git", endUpload},
		"/a/b/c/git-receive-pack":            {"a/b/c", endReceive},
		"/info/info/refs":                    {"info", endRefs},
		"/x/git-upload-pack/git-upload-pack": {"x/git-upload-pack", endUpload},
		"/healthz/info/refs":                 {"healthz", endRefs},
		"/flights.git/HEAD":                  {"flights.git", ""},
		"/flights.git/objects/info/packs":    {"flights.git", ""},
		"/flights.git/info/lfs/locks":        {"flights.git", ""},
	} {
		if got, ok := parseGitPath(path); !ok || got != want {
			t.Errorf("%s: %+v, %v", path, got, ok)
		}
	}
	for _, path := range []string{
		"", "/", "/healthz", "/flights", "/flights/", "/info/refs", "//info/refs", "flights/info/refs",
		"//flights/info/refs", "///flights/info/refs", "/flights%2Finfo/refs", "/fl%69ghts/info/refs", "/..%2f/info/refs", "/flights\\info/refs",
		"/flights/info/refs/", "/flights/INFO/refs", "/flights/HEAD", "/flights.git", "/flights.git/config", "/flights.git/hooks/x",
		"/" + strings.Repeat("x", 300) + "/info/refs", "*",
	} {
		if got, ok := parseGitPath(path); ok {
			t.Errorf("%s is %+v", path, got)
		}
	}
	// What has the form of a path and no lake's name in it.
	for _, path := range []string{
		"/.git/info/refs", "/../info/refs", "/../../etc/passwd/info/refs", "/a/../b/info/refs", "/./info/refs", "/a//b/info/refs", "/a/b/c/d/info/refs",
		"/A/info/refs", "/a.git.git/info/refs", "/a.lock/info/refs", "/-a/info/refs", "/a\x00b/info/refs", "/ä/info/refs", "/a b/info/refs",
	} {
		got, ok := parseGitPath(path)
		if !ok {
			continue
		}
		if name, err := got.name(); err == nil {
			t.Errorf("%s is lake %q", path, name)
		}
	}
}

// Every lake has two spellings of each of its paths, and no path is two lakes'.
func FuzzParseGitPath(f *testing.F) {
	for _, s := range []string{"/flights.git/info/refs", "/team/flights/git-upload-pack", "//a/info/refs", "/a/../b.git/git-receive-pack", "/a%2fb/info/refs", "/x.git/objects/aa/bb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p, ok := parseGitPath(path)
		if !ok || p.end == "" {
			return
		}
		name, err := p.name()
		if err != nil {
			return
		}
		if path != "/"+string(name)+"/"+p.end && path != "/"+string(name)+".git/"+p.end {
			t.Fatalf("%q is %s of lake %q", path, p.end, name)
		}
	})
}
