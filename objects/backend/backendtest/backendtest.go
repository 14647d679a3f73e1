// Package backendtest is the conformance suite of object backends. It knows
// only the backend.Backend interface and its optional abilities.
package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/headgate/headgate/objects/backend"
)

// Run checks that the backends which open returns keep the contract of
// backend.Backend. Each call of open gives an empty one.
func Run(t *testing.T, open func(t *testing.T) backend.Backend) {
	for name, test := range map[string]func(*testing.T, backend.Backend){
		"RoundTrip":      testRoundTrip,
		"Ranges":         testRanges,
		"Missing":        testMissing,
		"Replace":        testReplace,
		"FailedPut":      testFailedPut,
		"CancelledPut":   testCancelledPut,
		"List":           testList,
		"BadKeys":        testBadKeys,
		"ConcurrentPuts": testConcurrentPuts,
		"Adopt":          testAdopt,
		"Link":           testLink,
		"OpenAt":         testOpenAt,
		"Map":            testMap,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func put(t *testing.T, b backend.Backend, key, content string) {
	t.Helper()
	if err := b.Put(t.Context(), key, strings.NewReader(content)); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func get(t *testing.T, b backend.Backend, key string, off, n int64) string {
	t.Helper()
	rc, err := b.Get(t.Context(), key, off, n)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	return string(data)
}

func wantMissing(t *testing.T, b backend.Backend, key string) {
	t.Helper()
	if _, err := b.Stat(t.Context(), key); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("stat %s: %v, want ErrNotFound", key, err)
	}
	if rc, err := b.Get(t.Context(), key, 0, -1); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("get %s: %v, want ErrNotFound", key, err)
		if err == nil {
			rc.Close()
		}
	}
}

func testRoundTrip(t *testing.T, b backend.Backend) {
	for i, content := range []string{"", "x", strings.Repeat("0123456789", 100_000)} {
		key := fmt.Sprintf("raw/ab/%d", i)
		put(t, b, key, content)
		if got := get(t, b, key, 0, -1); got != content {
			t.Errorf("content of %d bytes came back as %d other ones", len(content), len(got))
		}
		info, err := b.Stat(t.Context(), key)
		if err != nil || info.Size != int64(len(content)) || info.Key != key {
			t.Errorf("stat: %+v, %v", info, err)
		}
		if age := time.Since(info.Modified); age < -time.Second || age > time.Minute {
			t.Errorf("a key that was just put was modified at %v", info.Modified)
		}
	}
}

func testRanges(t *testing.T, b backend.Backend) {
	put(t, b, "k", "0123456789")
	for _, c := range []struct {
		off, n int64
		want   string
	}{
		{0, -1, "0123456789"}, {3, -1, "3456789"}, {3, 2, "34"}, {0, 0, ""},
		{8, 5, "89"}, {10, 1, ""}, {11, -1, ""}, {9, 1, "9"},
	} {
		if got := get(t, b, "k", c.off, c.n); got != c.want {
			t.Errorf("range %d+%d = %q, want %q", c.off, c.n, got, c.want)
		}
	}
	if rc, err := b.Get(t.Context(), "k", -1, 1); err == nil {
		rc.Close()
		t.Error("a negative offset was taken")
	}
}

func testMissing(t *testing.T, b backend.Backend) {
	put(t, b, "a/b", "x")
	for _, key := range []string{"nothing", "a", "a/c", "a/b/c", "z/z"} {
		wantMissing(t, b, key)
	}
	if err := b.Delete(t.Context(), "nothing"); err != nil {
		t.Errorf("delete of a missing key: %v", err)
	}
	if err := b.Delete(t.Context(), "a/b"); err != nil {
		t.Errorf("delete: %v", err)
	}
	wantMissing(t, b, "a/b")
	for _, key := range []string{"k", "c/1", "c/2", "d/1"} {
		put(t, b, key, "x")
	}
	if err := backend.DeleteAll(t.Context(), b, []string{"c/1", "nothing", "d/1", "c/2", "c/1"}); err != nil {
		t.Errorf("delete of many: %v", err)
	}
	if got := list(t, b, ""); !slices.Equal(got, []string{"k"}) {
		t.Errorf("after a delete of many there are %v", got)
	}
	if err := backend.DeleteAll(t.Context(), b, []string{"k", "../k"}); err == nil {
		t.Error("a bad key was taken")
	}
}

func testReplace(t *testing.T, b backend.Backend) {
	put(t, b, "k", "old content")
	rc, err := b.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	put(t, b, "k", "new")
	if got := get(t, b, "k", 0, -1); got != "new" {
		t.Errorf("after replacement: %q", got)
	}
	if data, err := io.ReadAll(rc); err != nil || string(data) != "old content" {
		t.Errorf("a reader from before the replacement got %q, %v", data, err)
	}
}

func testFailedPut(t *testing.T, b backend.Backend) {
	broken := errors.New("broken")
	bad := func() io.Reader {
		return io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken))
	}
	if err := b.Put(t.Context(), "new", bad()); !errors.Is(err, broken) {
		t.Errorf("put from a broken reader: %v", err)
	}
	wantMissing(t, b, "new")
	put(t, b, "old", "whole")
	if err := b.Put(t.Context(), "old", bad()); !errors.Is(err, broken) {
		t.Errorf("put from a broken reader: %v", err)
	}
	if got := get(t, b, "old", 0, -1); got != "whole" {
		t.Errorf("a failed put changed the content to %q", got)
	}
	if keys := list(t, b, ""); !slices.Equal(keys, []string{"old"}) {
		t.Errorf("a failed put left keys: %v", keys)
	}
}

func testCancelledPut(t *testing.T, b backend.Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(strings.NewReader("half"), readerFunc(func(p []byte) (int, error) {
		cancel()
		return copy(p, "more"), nil
	}))
	if err := b.Put(ctx, "k", r); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled put: %v", err)
	}
	wantMissing(t, b, "k")
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func list(t *testing.T, b backend.Backend, prefix string) []string {
	t.Helper()
	var keys []string
	err := b.List(t.Context(), prefix, func(info backend.Info) error {
		keys = append(keys, info.Key)
		return nil
	})
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	slices.Sort(keys)
	return keys
}

func testList(t *testing.T, b backend.Backend) {
	for _, key := range []string{"raw/ab/1", "raw/ab/22", "raw/cd/3", "pack/x.idx", "pack/x.pack", "pack-2"} {
		put(t, b, key, key)
	}
	for _, c := range []struct {
		prefix string
		want   []string
	}{
		{"", []string{"pack-2", "pack/x.idx", "pack/x.pack", "raw/ab/1", "raw/ab/22", "raw/cd/3"}},
		{"raw/", []string{"raw/ab/1", "raw/ab/22", "raw/cd/3"}},
		{"raw/a", []string{"raw/ab/1", "raw/ab/22"}},
		{"raw/ab/2", []string{"raw/ab/22"}},
		{"pack", []string{"pack-2", "pack/x.idx", "pack/x.pack"}},
		{"none/", nil},
	} {
		if got := list(t, b, c.prefix); !slices.Equal(got, c.want) {
			t.Errorf("list %q = %v, want %v", c.prefix, got, c.want)
		}
	}
	stop := errors.New("stop")
	calls := 0
	err := b.List(t.Context(), "", func(info backend.Info) error {
		calls++
		if info.Size != int64(len(info.Key)) || time.Since(info.Modified) > time.Minute {
			t.Errorf("%s: %+v", info.Key, info)
		}
		return stop
	})
	if err != stop || calls != 1 {
		t.Errorf("list went on after an error: %d calls, %v", calls, err)
	}
}

func testBadKeys(t *testing.T, b backend.Backend) {
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", ".a", "a/.b", "A", "a b", "a\x00", "a\\b", strings.Repeat("a", 513)} {
		if err := b.Put(t.Context(), key, strings.NewReader("x")); err == nil {
			t.Errorf("key %q was taken", key)
		}
		if _, err := b.Stat(t.Context(), key); err == nil || errors.Is(err, backend.ErrNotFound) {
			t.Errorf("stat of bad key %q: %v", key, err)
		}
	}
}

func testConcurrentPuts(t *testing.T, b backend.Backend) {
	var wg sync.WaitGroup
	for i := range 8 {
		content := bytes.Repeat([]byte{byte('a' + i)}, 50_000)
		wg.Go(func() {
			for range 5 {
				if err := b.Put(t.Context(), "same/key", bytes.NewReader(content)); err != nil {
					t.Error(err)
				}
				rc, err := b.Get(t.Context(), "same/key", 0, -1)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(rc)
				rc.Close()
				if err != nil || len(got) != 50_000 || bytes.Count(got, got[:1]) != len(got) {
					t.Errorf("a mixture of two contents, %d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
}

func testAdopt(t *testing.T, b backend.Backend) {
	a, ok := b.(backend.Adopter)
	if !ok {
		return // an optional ability
	}
	dir := t.TempDir()
	var files []backend.Adoption
	for i := range 3 {
		p := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(p, []byte(p), 0o444); err != nil {
			t.Fatal(err)
		}
		files = append(files, backend.Adoption{Key: fmt.Sprintf("raw/%d/x", i), Path: p})
	}
	if err := a.Adopt(t.Context(), files); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if got := get(t, b, f.Key, 0, -1); got != f.Path {
			t.Errorf("adopted %q, want %q", got, f.Path)
		}
		if _, err := os.Stat(f.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was copied, not renamed: %v", f.Path, err)
		}
	}
	if err := a.Adopt(t.Context(), files[:1]); err == nil {
		t.Error("a file that is not there was adopted")
	}
}

func testLink(t *testing.T, b backend.Backend) {
	l, ok := b.(backend.Linker)
	if !ok {
		return // an optional ability
	}
	put(t, b, "k", "content")
	p := filepath.Join(t.TempDir(), "link")
	if err := l.Link(t.Context(), "k", p); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(p); err != nil || string(data) != "content" {
		t.Errorf("link reads %q, %v", data, err)
	}
	if st, err := os.Stat(p); err != nil || st.Mode().Perm() != 0o444 {
		t.Errorf("link is %v, %v; want a read-only file", st.Mode(), err)
	}
	if err := l.Link(t.Context(), "k", p); !errors.Is(err, os.ErrExist) {
		t.Errorf("link over an existing file: %v", err)
	}
	if err := l.Link(t.Context(), "none", p+"2"); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("link of a missing key: %v", err)
	}
	if err := l.Link(t.Context(), "k", filepath.Join(p+"3", "x")); err == nil || errors.Is(err, backend.ErrNotFound) {
		t.Errorf("link into a missing directory: %v, want an error that does not say the key is missing", err)
	}
}

func testOpenAt(t *testing.T, b backend.Backend) {
	o, ok := b.(backend.Opener)
	if !ok {
		return // an optional ability
	}
	put(t, b, "k", "0123456789")
	f, err := o.OpenAt(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if n, err := f.ReadAt(buf, 3); n != 4 || err != nil || string(buf) != "3456" {
		t.Errorf("read at 3: %q, %v", buf[:n], err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := o.OpenAt(t.Context(), "none"); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("open of a missing key: %v", err)
	}
}

func testMap(t *testing.T, b backend.Backend) {
	m, ok := b.(backend.Mapper)
	if !ok {
		return // an optional ability
	}
	put(t, b, "k", "0123456789")
	put(t, b, "empty", "")
	data, unmap, err := m.Map(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "k", "x")
	if string(data) != "0123456789" {
		t.Errorf("a replaced key's mapping reads %q", data)
	}
	if err := b.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if string(data) != "0123456789" {
		t.Errorf("a deleted key's mapping reads %q", data)
	}
	if err := unmap(); err != nil {
		t.Error(err)
	}
	if _, _, err := m.Map(t.Context(), "k"); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("map of a missing key: %v", err)
	}
	data, unmap, err = m.Map(t.Context(), "empty")
	if err != nil || len(data) != 0 {
		t.Fatalf("map of an empty key: %q, %v", data, err)
	}
	if err := unmap(); err != nil {
		t.Error(err)
	}
}
