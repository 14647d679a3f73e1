package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/headgate/headgate/exec/pyenv"
)

func TestPackagesFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want pyenv.Keep
		err  string
	}{
		{nil, defaultKeep, ""},
		{[]string{"--keep-packages=0", "--package-space=0"}, pyenv.Keep{}, ""},
		{[]string{"--keep-packages=24h", "--package-space=1GiB"}, pyenv.Keep{Age: 24 * time.Hour, Bytes: 1 << 30}, ""},
		{[]string{"--keep-packages=-1h"}, pyenv.Keep{}, "--keep-packages"},
		{[]string{"--package-space=much"}, pyenv.Keep{}, "--package-space"},
	} {
		var f packagesFlags
		parser, err := kong.New(&f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		got, err := f.keep()
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v, want an error of %s", c.args, err, c.err)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v", c.args, got, err)
		}
	}
}

// lines is a log that tests read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestCollectPackagesSaysWhatItFreed(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "envs", strings.Repeat("a", 64))
	if err := os.MkdirAll(old, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "x.py"), make([]byte, 100_000), 0o444); err != nil {
		t.Fatal(err)
	}
	store, err := pyenv.OpenStore(dir, &pyenv.UV{})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-721 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "uses", filepath.Base(old)), at, at); err != nil {
		t.Fatal(err)
	}
	log := &lines{}
	stop := collectPackages(t.Context(), store, defaultKeep, slog.New(slog.NewTextHandler(log, nil)))
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), "unused packages removed"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it says %q", log)
		}
	}
	stop()
	if text := log.String(); !strings.Contains(text, "removed.environments=1") || !strings.Contains(text, "removed.freed_bytes=1") || !strings.Contains(text, "removed.left_bytes=0") {
		t.Errorf("it says %q", text)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("it is there: %v", err)
	}
}
