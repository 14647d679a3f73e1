package backend_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/backend/backendtest"
)

func TestMemory(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backend.Backend { return backend.NewMemory() })
}

func TestLocal(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		l, err := backend.NewLocal(filepath.Join(t.TempDir(), "a", "b"))
		if err != nil {
			t.Fatal(err)
		}
		return l
	})
}

func TestLocalSweepsStaleTemporaries(t *testing.T) {
	dir := t.TempDir()
	if _, err := backend.NewLocal(dir); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, ".tmp", "put-1")
	live := filepath.Join(dir, ".tmp", "put-2")
	for _, p := range []string{old, live} {
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	longAgo := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.NewLocal(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a killed writer's file is still there: %v", err)
	}
	if _, err := os.Stat(live); err != nil {
		t.Errorf("a live writer's file was removed: %v", err)
	}
}

func TestLocalPutLeavesNoTemporaries(t *testing.T) {
	dir := t.TempDir()
	l, err := backend.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Put(t.Context(), "k", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(dir, ".tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in .tmp: %v, %v", left, err)
	}
}
