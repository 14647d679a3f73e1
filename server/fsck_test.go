package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLakeFsck checks a lake that git has filled, and again when the disk has
// lost a bit under the running server.
func TestLakeFsck(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	out, errText, code := s.ssh("admin", "lake fsck flights")
	if code != 0 || !strings.Contains(out, "flights: ") || !strings.Contains(out, "sound") || strings.Contains(out, "fault") {
		t.Errorf("a sound lake: exit code %d, %s%s", code, out, errText)
	}
	if !strings.Contains(out, "(2 raw)") || strings.Contains(out, " 0 refs") {
		t.Errorf("what was pushed was not looked at: %s", out)
	}
	blob := strings.TrimSpace(c.git("rev-parse", "light:tables/a/p2"))
	path := filepath.Join(s.data, "lakes", "flights", "objects", "raw", blob[:2], blob)
	content, err := os.ReadFile(path)
	check(t, err)
	content[12_345] ^= 4
	check(t, os.Chmod(path, 0o644))
	check(t, os.WriteFile(path, content, 0o644))
	out, errText, code = s.ssh("admin", "lake fsck flights --json")
	if code != 3 || !strings.Contains(out, `"kind":"damaged"`) || !strings.Contains(out, blob) {
		t.Errorf("a lake with a damaged part: exit code %d, %s%s", code, out, errText)
	}
	if !strings.Contains(s.log.String(), "lake has faults") {
		t.Error("the operator's log does not say that a lake has faults")
	}
}
