package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestMain lets the test binary be the endpoint that startStock starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == stockWord {
		if err := serveStock(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, "stock:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// testWorld is a server with its files below the repository's cache, which is on a
// disk where the system's temporary directory may be memory.
func testWorld(t *testing.T) (w *world, size int64) {
	t.Helper()
	text := os.Getenv("HEADGATE_SIZE")
	if text == "" {
		text = "512MiB"
	}
	size, err := parseSize(text)
	if err != nil {
		t.Fatal(err)
	}
	bin := os.Getenv("HEADGATE_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "..", "bin")
	}
	// The server outlives the test's own context: the clean-up ends it in order.
	w, err = newWorld(context.WithoutCancel(t.Context()), &bench{cache: filepath.Join("..", "..", "..", ".cache", "bench"), bin: bin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w, size
}

// TestMemoryOfAPush: whatever a pack looks like, the server takes it in constant
// memory, even if the kernel counts the page cache too.
func TestMemoryOfAPush(t *testing.T) {
	w, size := testWorld(t)
	for i, l := range loads {
		lake := fmt.Sprintf("push%d", i)
		// One byte more: a size that is no multiple of anything.
		peak, limited, err := w.push(context.WithoutCancel(t.Context()), lake, l, size+1)
		if err != nil {
			t.Fatalf("%s: %v", l.name, err)
		}
		t.Logf("%s: %d MiB, %s", l.name, peak/mib, limited)
		if peak > memoryTarget*mib {
			t.Errorf("push of %d MiB %s: the server had %d MiB resident, the limit is %d", size/mib, l.name, peak/mib, memoryTarget)
		}
		if got := rawBytes(t, w.lakeDir(lake)); got != size+1 {
			t.Errorf("push of %d bytes %s: the lake has %d", size+1, l.name, got)
		}
		if err := w.removeLake(t.Context(), lake); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMemoryOfACrowd: the same for eight clones and eight pushes at once.
func TestMemoryOfACrowd(t *testing.T) {
	const n = 8
	w, size := testWorld(t)
	peak, _, err := w.crowd(context.WithoutCancel(t.Context()), n, size/n)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB", peak/mib)
	if peak > memoryTarget*mib {
		t.Errorf("the server had %d MiB resident, the limit is %d", peak/mib, memoryTarget)
	}
	if got, want := rawBytes(t, w.lakeDir("crowd")), (n+1)*(size/n); got != want {
		t.Errorf("the lake has %d bytes, want %d", got, want)
	}
}

// rawBytes is how much a lake has in large blobs.
func rawBytes(t *testing.T, lake string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(lake, "objects", "raw"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		n += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
