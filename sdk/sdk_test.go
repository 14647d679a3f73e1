package sdk

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUnpackIsWholeAndOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sdk")
	first, err := Unpack(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"__init__.py", "py.typed", "_sandbox/__main__.py"} {
		if _, err := os.Stat(filepath.Join(first, "headgate", filepath.FromSlash(name))); err != nil {
			t.Error(err)
		}
	}
	again, err := Unpack(dir)
	if err != nil || again != first {
		t.Errorf("second start unpacks to %q (%v), want %q", again, err, first)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v (%v), want one package", entries, err)
	}
}
