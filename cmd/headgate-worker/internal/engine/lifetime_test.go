package engine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
)

// witness is an output that sees whether DuckDB is still open when it is written.
type witness struct {
	bytes.Buffer
	db     *database
	closed bool
}

func (w *witness) Write(p []byte) (int, error) {
	w.closed = w.closed || w.db.conn.PingContext(context.Background()) != nil
	return w.Buffer.Write(p)
}

// Nobody waits for DuckDB to give back its memory.
func TestAnswerComesBeforeTeardown(t *testing.T) {
	en, err := Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(en.db.close)
	out := &witness{db: en.db}
	order := &protocol.Order{Op: protocol.OpQuery, SQL: "SELECT 42", Format: "csv", TempDir: t.TempDir()}
	if err := en.Run(t.Context(), order, out, t.Output()); err != nil {
		t.Fatal(err)
	}
	if out.closed || out.Len() == 0 {
		t.Errorf("DuckDB was closed: %t, before %d bytes", out.closed, out.Len())
	}
	if err := en.db.conn.PingContext(t.Context()); err != nil {
		t.Errorf("DuckDB was closed after the answer: %v", err)
	}
	if left, _ := os.ReadDir(order.TempDir); len(left) != 0 {
		t.Errorf("%d files are left in the temporary directory", len(left))
	}
}

// A file is what it is when it is read: nothing is kept of what it was.
func TestFilesAreNotRemembered(t *testing.T) {
	db, err := connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	dir := t.TempDir()
	if err := db.prepare(t.Context(), &protocol.Order{Op: protocol.OpQuery, TempDir: dir}, dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "n.parquet")
	for _, want := range []int{1, 2} {
		if _, err := db.copyTo(t.Context(), "SELECT "+literal(string(rune('0'+want)))+" AS n FROM range(1000)", path, "FORMAT parquet"); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := db.conn.QueryRowContext(t.Context(), "SELECT max(n) FROM "+parquet(path)).Scan(&got); err != nil || got != string(rune('0'+want)) {
			t.Errorf("read %q, want %d (%v)", got, want, err)
		}
	}
	var kept, checked string
	if err := db.conn.QueryRowContext(t.Context(), "SELECT current_setting('enable_external_file_cache'), current_setting('validate_external_file_cache')").Scan(&kept, &checked); err != nil || kept != "false" || checked != "NO_VALIDATION" {
		t.Errorf("cache of files: %s, checked before each read: %s (%v)", kept, checked, err)
	}
}

// Small files are read whole column chunks at a time, and large ones, whose chunks
// may be larger than the memory, are not.
func TestOnlySmallFilesAreReadAhead(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int64) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	small, large := file("small.parquet", 1<<20), file("large.parquet", prefetchFile+1)
	for _, c := range []struct {
		order protocol.Order
		want  bool
	}{
		{protocol.Order{}, true},
		{protocol.Order{Inputs: []protocol.Table{{Name: "t", Files: []string{small, small}}}}, true},
		{protocol.Order{Inputs: []protocol.Table{{Name: "t", Files: []string{small, large}}}}, false},
		{protocol.Order{Prior: &protocol.Table{Name: "t", Files: []string{large}}}, false},
		{protocol.Order{Files: []string{large}}, false},
		{protocol.Order{Files: []string{small}, MemoryLimit: prefetchShare << 20}, true},
		{protocol.Order{Files: []string{small}, MemoryLimit: prefetchShare << 20, Threads: 2}, false},
		{protocol.Order{Files: []string{filepath.Join(dir, "missing")}}, false},
	} {
		db, err := connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		order := c.order
		order.Op = protocol.OpProject // which makes no views
		var got bool
		err = db.prepare(t.Context(), &order, dir)
		if err == nil {
			err = db.conn.QueryRowContext(t.Context(), "SELECT current_setting('prefetch_all_parquet_files')").Scan(&got)
		}
		if err != nil || got != c.want {
			t.Errorf("%+v: read ahead: %t, want %t (%v)", c.order, got, c.want, err)
		}
		db.close()
	}
}
