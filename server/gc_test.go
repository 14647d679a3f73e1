package server_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLakeGC deletes a branch of a lake in use, collects, and pushes it again.
func TestLakeGC(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	c.git("checkout", "-q", "-b", "old")
	part := strings.Repeat("old part ", 8_000)
	c.commit("a branch that goes", map[string]string{"old.bin": part, "old.txt": "old"})
	c.git("push", s.url("flights"), "old")
	blob := strings.TrimSpace(c.git("rev-parse", "old:old.bin"))
	raw := filepath.Join(s.data, "lakes", "flights", "objects", "raw", blob[:2], blob)
	if _, err := os.Stat(raw); err != nil {
		t.Fatal(err)
	}
	c.git("push", s.url("flights"), ":old")

	for _, bad := range []string{"lake gc", "lake gc flights --grace -1s", "lake gc flights --grace soon"} {
		if _, _, code := s.ssh("admin", bad); code != 2 {
			t.Errorf("%s: exit code %d", bad, code)
		}
	}
	if _, errText, code := s.ssh("user", "lake gc flights"); code != 1 || !strings.Contains(errText, "administrators") {
		t.Errorf("a user collects: exit code %d, %s", code, errText)
	}
	out, errText, code := s.ssh("admin", "lake gc flights")
	if code != 0 || !strings.Contains(out, "freed 0 objects") {
		t.Errorf("with the defaults: exit code %d, %s%s", code, out, errText)
	}
	past := time.Now().Add(-time.Hour)
	check(t, filepath.WalkDir(filepath.Join(s.data, "lakes", "flights", "objects", "raw"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			err = os.Chtimes(path, past, past)
		}
		return err
	}))
	out, errText, code = s.ssh("admin", "lake gc flights --grace 30m --reflog 0s --dry-run --json")
	if code != 0 || !strings.Contains(out, `"dry_run":true`) || !strings.Contains(out, `"garbage":{"objects":0`) {
		// Its commit is young, and names the part.
		t.Errorf("a dry run: exit code %d, %s%s", code, out, errText)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		// Packs become older than the clock's slack.
		out, errText, code = s.ssh("admin", "lake gc flights --grace 0s --reflog 0s")
		if code != 0 || time.Now().After(deadline) {
			t.Fatalf("exit code %d, %s%s", code, out, errText)
		}
		if !strings.Contains(out, "freed 0 objects") {
			break
		}
	}
	if !strings.Contains(out, "freed 4 objects (1 raw)") {
		t.Errorf("gc says %s", out)
	}
	if _, err := os.Stat(raw); !os.IsNotExist(err) {
		t.Errorf("the part of a deleted branch is still there: %v", err)
	}
	s.from(s.url("flights")).fsck()
	c.git("push", s.url("flights"), "old")
	clone := s.from(s.url("flights"))
	clone.git("checkout", "-q", "old")
	clone.fsck()
	out, errText, code = s.ssh("admin", "lake fsck flights")
	if code != 0 {
		t.Errorf("fsck: exit code %d, %s%s", code, out, errText)
	}
}
