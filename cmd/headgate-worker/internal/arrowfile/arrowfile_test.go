package arrowfile

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	_ "github.com/duckdb/duckdb-go/v2"

	"github.com/headgate/headgate/cmd/headgate-worker/internal/rowhash"
)

// sample has a column of each layout.
func sample(t testing.TB, stream bool) []byte {
	t.Helper()
	types := []arrow.DataType{
		arrow.PrimitiveTypes.Int32, arrow.BinaryTypes.String, arrow.BinaryTypes.LargeBinary, arrow.BinaryTypes.StringView,
		arrow.ListOf(arrow.BinaryTypes.String), arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Int8),
		arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Float64), arrow.StructOf(arrow.Field{Name: "b", Type: arrow.FixedWidthTypes.Boolean, Nullable: true}),
		&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String},
		&arrow.Decimal128Type{Precision: 20, Scale: 2}, arrow.FixedWidthTypes.Timestamp_us,
	}
	var fields []arrow.Field
	for i, dt := range types {
		fields = append(fields, arrow.Field{Name: fmt.Sprintf("c%d", i), Type: dt, Nullable: true})
	}
	schema := arrow.NewSchema(fields, nil)
	rows := `[
		{"c0": 1, "c1": "a", "c2": "YWJj", "c3": "a text of more than twelve bytes", "c4": ["x", null], "c5": [1, 2], "c6": [{"key": "k", "value": 1.5}], "c7": {"b": true}, "c8": "red", "c9": "1.25", "c10": "2024-01-02T03:04:05"},
		{"c0": null, "c1": null, "c2": null, "c3": null, "c4": null, "c5": null, "c6": null, "c7": null, "c8": null, "c9": null, "c10": null},
		{"c0": 3, "c1": "", "c2": "", "c3": "short", "c4": [], "c5": [3, null], "c6": [], "c7": {"b": null}, "c8": "green", "c9": "-0.01", "c10": "1969-12-31T23:59:59"}]`
	batch, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(rows))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	var w interface {
		Write(arrow.RecordBatch) error
		Close() error
	}
	if stream {
		w = ipc.NewWriter(&out, ipc.WithSchema(schema))
	} else if w, err = ipc.NewFileWriter(&out, ipc.WithSchema(schema)); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(batch); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// reader has DuckDB read Arrow data and returns how many rows it found.
func reader(t testing.TB) func(data []byte) (int64, error) {
	t.Helper()
	pool, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	conn, err := pool.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	path := filepath.Join(t.TempDir(), "x.arrow")
	return func(data []byte) (n int64, err error) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path)
		if err != nil {
			return 0, err
		}
		defer r.Close()
		var release func()
		err = conn.Raw(func(driver any) error {
			handle, err := rowhash.Handle(driver)
			if err != nil {
				return err
			}
			release, err = r.View(handle, "v")
			return err
		})
		if err != nil {
			return 0, err
		}
		defer release()
		// All bytes of all values, so that a wrong offset that is followed shows.
		if _, err = conn.ExecContext(context.Background(), "CREATE OR REPLACE TEMP TABLE t AS SELECT CAST(COLUMNS(*) AS VARCHAR) FROM v"); err != nil {
			return 0, err
		}
		return n, conn.QueryRowContext(context.Background(), "SELECT count(*) FROM t").Scan(&n)
	}
}

func TestFilesAndStreamsAreRead(t *testing.T) {
	read := reader(t)
	for _, stream := range []bool{false, true} {
		if n, err := read(sample(t, stream)); n != 3 || err != nil {
			t.Errorf("stream %v: %d rows, error %v", stream, n, err)
		}
	}
}

// Whichever byte lies, the answer is rows or an error: never a panic, and never a
// read outside of the data, by which DuckDB would crash.
func TestDamagedArrow(t *testing.T) {
	read := reader(t)
	for _, stream := range []bool{false, true} {
		good := sample(t, stream)
		refused, tried := 0, 0
		for at := 0; at < len(good); at += 5 {
			for _, b := range []byte{0x7f, 0xff, good[at] ^ 1} {
				tried++
				bad := bytes.Clone(good)
				bad[at] = b
				if _, err := read(bad); err != nil {
					refused++
				}
			}
			if at%25 == 0 && at < len(good)-16 {
				if _, err := read(good[:at]); err == nil && !stream {
					t.Errorf("a file of %d bytes that was cut after %d was read", len(good), at)
				}
			}
		}
		if refused < tried/10 {
			t.Errorf("stream %v: only %d of %d damages were noticed", stream, refused, tried)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(sample(f, false))
	f.Add(sample(f, true))
	f.Add([]byte("ARROW1\x00\x00"))
	read := reader(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = read(data)
	})
}

func TestTypesThatNoTableHolds(t *testing.T) {
	read := reader(t)
	for _, tc := range []struct {
		t    arrow.DataType
		rows string
		want string
	}{
		{&arrow.Decimal256Type{Precision: 50, Scale: 2}, `[]`, `column "x" is DECIMAL(50,2), and a table holds at most 38 digits: write fewer digits, or text`},
		{arrow.FixedWidthTypes.Float16, `[]`, `column "x" is a float of 16 bits: write it as float32`},
		{arrow.ListOf(arrow.RunEndEncodedOf(arrow.PrimitiveTypes.Int32, arrow.BinaryTypes.String)), `[]`, "which no table holds: cast it to another type"},
		{arrow.FixedWidthTypes.Timestamp_ns, `[{"x": "2024-01-02T03:04:05.000000001"}]`, `column "x" has nanoseconds in a timestamp with a zone, which a table holds without a zone only`},
		{arrow.FixedWidthTypes.Timestamp_ns, `[{"x": "2024-01-02T03:04:05.000001"}]`, ""},
	} {
		schema := arrow.NewSchema([]arrow.Field{{Name: "x", Type: tc.t, Nullable: true}}, nil)
		batch, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(tc.rows))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w := ipc.NewWriter(&out, ipc.WithSchema(schema))
		if err := w.Write(batch); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = read(out.Bytes())
		if tc.want == "" && err == nil {
			continue
		}
		if err == nil || tc.want == "" || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.t, err, tc.want)
		}
	}
}
