package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/headgate/headgate/objects"
)

// repository is a git repository of two files, one of them large.
func repository(t *testing.T) (dir string, git func(args ...string) string) {
	t.Helper()
	dir = t.TempDir()
	git = func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=A", "-c", "user.email=a@example.org"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	for name, text := range map[string]string{"small": "a small file\n", "large": strings.Repeat("a large file\n", 10_000), "empty": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git("add", "-A")
	git("commit", "-q", "-m", "one")
	return dir, git
}

func TestGitObjects(t *testing.T) {
	dir, git := repository(t)
	oid := func(rev string) objects.OID {
		t.Helper()
		id, err := objects.ParseOID(git("rev-parse", rev))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := git("count-objects", "-v")
	// What somebody's replace refs show is not what the oid says.
	git("replace", oid("HEAD:small").String(), oid("HEAD:large").String())
	s, err := newScratch(t.Context(), &checkout{root: dir}, oid("HEAD"))
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 4 { // git has one pipe, and is asked from several sides
		for _, c := range []struct {
			rev  string
			kind objects.Type
		}{{"HEAD", objects.Commit}, {"HEAD^{tree}", objects.Tree}, {"HEAD:small", objects.Blob}, {"HEAD:large", objects.Blob}, {"HEAD:empty", objects.Blob}} {
			id := oid(c.rev)
			wait.Go(func() {
				data, err := objects.ReadAll(t.Context(), s.store, id, c.kind, 1<<20)
				want, werr := exec.Command("git", "-C", dir, "--no-replace-objects", "cat-file", c.kind.String(), id.String()).Output()
				if err = errors.Join(err, werr); err != nil || !bytes.Equal(data, want) {
					t.Errorf("%s: %d bytes of %d, %v", c.rev, len(data), len(want), err)
				}
			})
		}
	}
	wait.Wait()
	link := filepath.Join(s.dir, "linked")
	if err := s.store.Link(t.Context(), oid("HEAD:large"), link); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(link); err != nil || info.Size() != 130_000 || info.Mode().Perm() != 0o444 {
		t.Errorf("the linked file: %v, %v", info, err)
	}
	missing := objects.OID{1, 2, 3}
	for range 2 { // git goes on after it
		if _, err := s.store.Stat(t.Context(), missing); !errors.Is(err, objects.ErrNotFound) {
			t.Errorf("an object that is not there: %v", err)
		}
		if _, err := s.store.Stat(t.Context(), oid("HEAD")); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.store.Put(t.Context(), objects.Blob, 3, strings.NewReader("new")); err != nil {
		t.Error(err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the scratch directory is left: %v", err)
	}
	git("replace", "-d", oid("HEAD:small").String())
	if after := git("count-objects", "-v"); after != before {
		t.Errorf("the repository was changed:\n%s\n%s", before, after)
	}
}

func TestGitObjectsOfADamagedRepository(t *testing.T) {
	dir, git := repository(t)
	tip, err := objects.ParseOID(git("rev-parse", "HEAD"))
	if err != nil {
		t.Fatal(err)
	}
	text := git("rev-parse", "HEAD:small")
	large, err := objects.ParseOID(git("rev-parse", "HEAD:large"))
	if err != nil {
		t.Fatal(err)
	}
	// One object under another's name, as git keeps it.
	path := func(oid string) string { return filepath.Join(dir, ".git", "objects", oid[:2], oid[2:]) }
	data, err := os.ReadFile(path(text))
	if err == nil {
		err = os.Chmod(path(large.String()), 0o600)
	}
	if err == nil {
		err = os.WriteFile(path(large.String()), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := newScratch(t.Context(), &checkout{root: dir}, tip)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := objects.ReadAll(t.Context(), s.store, large, objects.Blob, 1<<20); err == nil {
		t.Error("content that is not what its name says was taken")
	}
	if _, err := objects.ReadAll(t.Context(), s.store, tip, objects.Commit, 1<<20); err != nil {
		t.Errorf("an object after it: %v", err)
	}
}
