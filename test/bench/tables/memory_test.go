package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// bigScript writes a table of about so many bytes as they are in memory, with the ids
// of its rows out of order, in a format.
const bigScript = `
import duckdb, sys
path, rows, format = sys.argv[1], int(sys.argv[2]), sys.argv[3]
db = duckdb.connect()
db.execute("SET preserve_insertion_order = false")
db.execute(f"""COPY (SELECT (i * 7919) % {rows} AS id, i // 1000 AS g, i / 2 AS x, 'row ' || (i % 1000) || repeat('x', 48) AS s
	FROM range({rows}) t(i)) TO '{path}' (FORMAT {format})""")
`

const (
	rowBytes = 96 // of bigScript's rows: three numbers of 8, a text of 56 in a string of 16
	mib      = 1 << 20
	// leastMemory is what the two processes and DuckDB's buffers need for any import.
	leastMemory = 512 * mib
)

// An import of ten times its memory, in the given order and in the key's, in a cgroup
// that counts the page cache too.
func TestMemoryOfAnImport(t *testing.T) {
	python := os.Getenv("HEADGATE_PYTHON")
	if python == "" {
		t.Fatal("HEADGATE_PYTHON names no Python with duckdb; run make memory-tables")
	}
	size := int64(768 * mib)
	if text := os.Getenv("HEADGATE_SIZE"); text != "" {
		n, err := strconv.ParseInt(strings.TrimSuffix(text, "GiB"), 10, 64)
		if err != nil || !strings.HasSuffix(text, "GiB") {
			t.Fatalf("HEADGATE_SIZE=%q: want GiB, as in 10GiB", text)
		}
		size = n << 30
	}
	limit := max(size/10, leastMemory)
	rows := size / rowBytes
	cache := filepath.Join("..", "..", "..", ".cache", "bench")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(cache, "import-") // not in /tmp, which may be memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if dir, err = filepath.Abs(dir); err != nil {
		t.Fatal(err)
	}
	headgate, err := filepath.Abs(filepath.Join("..", "..", "..", "bin", "headgate"))
	if err != nil {
		t.Fatal(err)
	}
	lake := filepath.Join(dir, "lake")
	if out, err := exec.Command(headgate, "init", lake).CombinedOutput(); err != nil {
		t.Fatalf("init: %v: %s", err, out)
	}
	for _, format := range []string{"parquet", "csv"} {
		source := filepath.Join(dir, "big."+format)
		if out, err := exec.Command(python, "-c", bigScript, source, strconv.FormatInt(rows, 10), format).CombinedOutput(); err != nil {
			t.Fatalf("make %s: %v: %s", source, err, out)
		}
		for _, key := range []string{"", "id"} {
			t.Run(fmt.Sprintf("%s, key %q", format, key), func(t *testing.T) {
				args := []string{"import", source, "--table", "big", "--replace", "--json", "--lake", lake}
				if key != "" {
					args = append(args, "--key", key)
				}
				out, peak := inCgroup(t, limit, headgate, args...)
				var done struct{ Rows int64 }
				if err := json.Unmarshal(out, &done); err != nil || done.Rows != rows {
					t.Errorf("%d rows, want %d: %v", done.Rows, rows, err)
				}
				t.Logf("%d MiB of rows: at most %d MiB of %d", size/mib, peak/mib, limit/mib)
				if left, _ := filepath.Glob(filepath.Join(lake, ".headgate-*")); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			})
		}
		if err := os.Remove(source); err != nil {
			t.Fatal(err)
		}
	}
}

// inCgroup runs a program that may use so much memory, and returns its output and what
// it used at most, the page cache included. The test fails if there can be no cgroup:
// who has no root says so with HEADGATE_NO_CGROUP=1.
func inCgroup(t *testing.T, limit int64, program string, args ...string) (out []byte, peak int64) {
	t.Helper()
	for _, v := range []struct{ mount, limit, peak string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"},
		{"/sys/fs/cgroup", "memory.max", "memory.peak"},
	} {
		group := filepath.Join(v.mount, fmt.Sprintf("headgate-import-%d", os.Getpid()))
		if os.Mkdir(group, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(group) })
		if os.WriteFile(filepath.Join(group, v.limit), []byte(strconv.FormatInt(limit, 10)), 0) != nil {
			_ = os.Remove(group)
			continue
		}
		cmd := exec.Command("sh", append([]string{"-c", `echo $$ > "$0"/cgroup.procs && exec "$@"`, group, program}, args...)...)
		var log strings.Builder
		cmd.Stderr = &log
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("in %d MiB: %v: %s", limit/mib, err, &log)
		}
		text, err := os.ReadFile(filepath.Join(group, v.peak))
		if err == nil {
			peak, _ = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		}
		_ = os.Remove(group)
		return out, peak
	}
	if os.Getenv("HEADGATE_NO_CGROUP") == "" {
		t.Fatal("no memory cgroup can be made: run as root, or set HEADGATE_NO_CGROUP=1 to leave this out")
	}
	t.Skip("no memory cgroup can be made")
	return nil, 0
}
