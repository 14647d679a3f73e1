package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
)

// file writes a text file of the test's own.
func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCut(t *testing.T) {
	numbers := write(t, "SELECT i AS id, 's' || i AS s FROM range(3, 0, -1) t(i)", "")
	wider := write(t, "SELECT 9::INTEGER AS id, true AS extra", "")
	for _, tc := range []struct {
		name   string
		order  protocol.Order
		want   []string
		schema []protocol.Column
	}{
		{"parquet in order of columns", protocol.Order{FileFormat: "parquet", Files: []string{numbers}}, []string{"id,s", "1,s1", "2,s2", "3,s3"}, columns("id", "BIGINT", "s", "VARCHAR")},
		{"parquet as it is", protocol.Order{FileFormat: "parquet", KeepOrder: true, Files: []string{numbers}}, []string{"id,s", "3,s3", "2,s2", "1,s1"}, nil},
		{"two files", protocol.Order{FileFormat: "parquet", KeepOrder: true, Files: []string{numbers, wider}}, []string{"id,s,extra", "3,s3,", "2,s2,", "1,s1,", "9,,true"}, columns("id", "BIGINT", "s", "VARCHAR", "extra", "BOOLEAN")},
		{"csv", protocol.Order{FileFormat: "csv", Files: []string{file(t, "a.csv", "id,when,x\n2,2024-01-02,\n1,2024-01-01,1.5\n")}}, []string{"id,when,x", "1,2024-01-01,1.5", "2,2024-01-02,"}, columns("id", "BIGINT", "when", "DATE", "x", "DOUBLE")},
		{"csv of late text", protocol.Order{FileFormat: "csv", KeepOrder: true, Files: []string{file(t, "b.csv", "id\n"+strings.Repeat("1\n", 30000)+"x\n")}}, nil, columns("id", "VARCHAR")},
		{"json", protocol.Order{FileFormat: "json", KeepOrder: true, Files: []string{file(t, "a.jsonl", "{\"id\": 2, \"s\": {\"a\": [1]}}\n{\"id\": 1}\n")}}, []string{"id,s", "2,{'a': [1]}", "1,"}, columns("id", "BIGINT", "s", "STRUCT(a BIGINT[])")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.order.Op = protocol.OpCut
			a, files := ok(t, &tc.order)
			if tc.schema != nil && !reflect.DeepEqual(a.Snapshot.Columns, tc.schema) {
				t.Errorf("columns %v, want %v", a.Snapshot.Columns, tc.schema)
			}
			if tc.want == nil {
				return
			}
			if got := rowsOf(t, files["part-000000.parquet"]); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("rows %q, want %q", got, tc.want)
			}
		})
	}
}

func TestCutErrors(t *testing.T) {
	numbers := write(t, "SELECT 1 AS id", "")
	texts := write(t, "SELECT 'x' AS ID", "")
	whole, err := os.ReadFile(numbers)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, format string
		files        []string
		want         string
	}{
		{"types", "parquet", []string{numbers, texts}, fmt.Sprintf(`column "ID" is INTEGER in %q but VARCHAR in %q`, numbers, texts)},
		{"ragged", "csv", []string{file(t, "r.csv", "a,b\n1,2\n3,4\n5,6,7\n8,9\n")}, "r.csv: line 4 has 3 fields, the lines before have 2"},
		{"short row", "csv", []string{file(t, "r.csv", "a,b\n1,2\n3\n8,9\n")}, "line 3 has 1 field"},
		{"text", "parquet", []string{file(t, "x.parquet", strings.Repeat("no parquet ", 10))}, "No magic bytes found"},
		{"cut short", "parquet", []string{file(t, "x.parquet", string(whole[:len(whole)-3]))}, "No magic bytes found"},
		{"bad footer", "parquet", []string{file(t, "x.parquet", "PAR1"+strings.Repeat("\xff", 40)+"\x28\x00\x00\x00PAR1")}, "x.parquet"},
		{"missing", "parquet", []string{"/nonexistent/x.parquet"}, "x.parquet"},
		{"json", "json", []string{file(t, "x.json", "{\"a\": 1}\n{\"a\": \n")}, "line"},
		{"format", "xls", []string{numbers}, `file format "xls"`},
		{"none", "csv", nil, "there is no file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, _ := do(t, &protocol.Order{Op: protocol.OpCut, FileFormat: tc.format, Files: tc.files})
			if a.Error == nil || a.Error.Kind != "data" || !strings.Contains(a.Error.Message, tc.want) || a.Error.Line != 0 {
				t.Errorf("error %+v, want data error %q", a.Error, tc.want)
			}
		})
	}
}

// What describe finds in parts is what was said when they were cut.
func TestDescribeAgreesWithCut(t *testing.T) {
	src := write(t, "SELECT i AS id, i / 3 AS f, DATE '2024-01-01' + i::INTEGER AS d, repeat('x', i) AS s, [i] AS l FROM range(300) t(i)", "")
	cut, files := ok(t, &protocol.Order{Op: protocol.OpCut, FileFormat: "parquet", Files: []string{src}})
	path := file(t, "p.parquet", string(files["part-000000.parquet"]))
	a, none := ok(t, &protocol.Order{Op: protocol.OpDescribe, Inputs: []protocol.Table{{Name: "t", Files: []string{path}}}})
	if len(none) != 0 {
		t.Errorf("describe sent %d files", len(none))
	}
	a.Snapshot.Parts[0].File = cut.Snapshot.Parts[0].File
	have, _ := json.Marshal(a.Snapshot)
	want, _ := json.Marshal(cut.Snapshot)
	if !bytes.Equal(have, want) {
		t.Errorf("described as %s\ncut as %s", have, want)
	}
	if s := a.Snapshot.Parts[0].Stats; string(s[2].Max) != `"2024-10-26"` || s[3].Max != nil {
		t.Errorf("bounds %s, %s; want a date and none for a long text", s[2].Max, s[3].Max)
	}
	other := write(t, "SELECT 1 AS id, 'x' AS f", "")
	bad, _ := do(t, &protocol.Order{Op: protocol.OpDescribe, Inputs: []protocol.Table{{Name: "t", Files: []string{path, other}}}})
	if bad.Error == nil || !strings.HasPrefix(bad.Error.Message, other+" does not fit "+path) || !strings.Contains(bad.Error.Message, `column "id" is INTEGER, want BIGINT`) {
		t.Errorf("error %+v", bad.Error)
	}
}

// A damaged file gives an answer, whichever byte it is that lies.
func TestDamagedParquet(t *testing.T) {
	good, err := os.ReadFile(write(t, "SELECT i, 'text ' || i AS s, [i] AS l FROM range(1000) t(i)", ", COMPRESSION zstd"))
	if err != nil {
		t.Fatal(err)
	}
	for at := 4; at < len(good); at += len(good) / 60 {
		bad := bytes.Clone(good)
		bad[at] ^= 0xff
		path := file(t, "bad.parquet", string(bad))
		a, _ := do(t, &protocol.Order{Op: protocol.OpDescribe, MemoryLimit: 256 << 20, Inputs: []protocol.Table{{Name: "t", Files: []string{path}}}})
		if a.Error != nil && (a.Error.Message == "" || strings.Contains(a.Error.Message, "Stack Trace")) {
			t.Errorf("byte %d: message %q", at, a.Error.Message)
		}
	}
}

func TestVerify(t *testing.T) {
	src := write(t, "SELECT i AS id, CASE i WHEN 7 THEN 'nan'::DOUBLE ELSE i / 2 END AS x, i::HUGEINT::DECIMAL(38,0) AS big, 'b'::BLOB AS raw FROM range(10) t(i)", "")
	a, files := ok(t, &protocol.Order{Op: protocol.OpVerify, MaxRows: 3,
		Inputs: []protocol.Table{{Name: "t", Files: []string{src}}, {Name: "base.t", Files: []string{src}}},
		Queries: []protocol.Query{
			{Name: "passes", SQL: "SELECT * FROM base.t ANTI JOIN t USING (id)"},
			{Name: "verifiers/Join.sql", SQL: "SELECT * FROM t JOIN base.t b USING (id) WHERE id > 5 ORDER BY id"},
			{Name: "broken", SQL: "SELECT *\nFROM t WHERE nope"},
			{Name: "fails late", SQL: "SELECT error('bad row ' || id) FROM t"},
			{Name: "verifiers-join.sql", SQL: "SELECT sum(id) AS s, TIMESTAMP '2024-01-01' AS ts, NULL AS n FROM t"},
		}})
	c := a.Checks
	if len(c) != 5 || c[0].Violations != 0 || c[0].Error != nil || c[0].File != "" {
		t.Fatalf("checks %+v", c)
	}
	if c[1].Violations != 4 || len(c[1].Sample) != 4 || c[1].Sample[1]["x"] != "nan" || c[1].Sample[0]["x"] != 3.0 || c[1].Sample[0]["big"] != "6" || c[1].Sample[0]["raw"] != "b" {
		t.Errorf("join: %+v", c[1])
	}
	if want := []string{"id", "x", "big", "raw", "x_1", "big_1", "raw_1"}; !reflect.DeepEqual(c[1].Columns, want) {
		t.Errorf("columns %q, want %q", c[1].Columns, want)
	}
	if c[1].File != "verifiers-join.sql.parquet" || c[4].File != "verifiers-join.sql-2.parquet" || len(files) != 2 {
		t.Errorf("files %q, %q of %d", c[1].File, c[4].File, len(files))
	}
	if rows := rowsOf(t, files[c[1].File]); len(rows) != 4 || !strings.HasPrefix(rows[1], "6,3.0,6,b") {
		t.Errorf("kept rows %q", rows)
	}
	if e := c[2].Error; e == nil || e.Query != "broken" || e.Line != 2 || e.Column != 14 || !strings.Contains(e.Message, `"nope"`) {
		t.Errorf("broken: %+v", e)
	}
	if e := c[3].Error; e == nil || !strings.Contains(e.Message, "bad row 0") {
		t.Errorf("fails late: %+v", e)
	}
	if s := c[4].Sample[0]; s["s"] != "45" || s["ts"] != "2024-01-01 00:00:00" || s["n"] != nil {
		t.Errorf("sample %v", s)
	}
}

func TestQuery(t *testing.T) {
	src := write(t, `SELECT i AS id, CASE WHEN i > 1 THEN 'né' || chr(27) || chr(10) END AS "the name" FROM range(4) t(i)`, "")
	in := []protocol.Table{{Name: "t", Files: []string{src}}}
	for _, tc := range []struct {
		format, sql string
		max         int64
		want        string
		rows        int64
	}{
		{"table", "FROM t ORDER BY id", 3, "id  the name\n--  ----------\n 0  NULL\n 1  NULL\n 2  né\\u001b\\n\n(first 3 rows, there are more)\n", 3},
		{"", "SELECT count(*) AS n FROM t", 0, "n\n-\n4\n(1 row)\n", 1},
		{"table", "SELECT * FROM t WHERE false", 0, "id  the name\n--  --------\n(0 rows)\n", 0},
		{"csv", "SELECT id, id * 2 AS \"a,b\" FROM t", 2, "id,\"a,b\"\n0,0\n1,2\n", 2},
		{"json", "SELECT id, [id] AS l FROM t LIMIT 1", 0, "{\"id\":0,\"l\":[0]}\n", 1},
		{"csv", "DESCRIBE SELECT id FROM t", 0, "column_name,column_type,null,key,default,extra\nid,BIGINT,YES,,,\n", 1},
	} {
		a, files := ok(t, &protocol.Order{Op: protocol.OpQuery, Format: tc.format, SQL: tc.sql, MaxRows: tc.max, Inputs: in})
		if got := string(files["rows"]); got != tc.want || a.Rows != tc.rows {
			t.Errorf("%s as %q: %d rows %q, want %d %q", tc.sql, tc.format, a.Rows, got, tc.rows, tc.want)
		}
	}
	a, files := ok(t, &protocol.Order{Op: protocol.OpQuery, Format: "parquet", SQL: "SELECT sum(id) AS s FROM t", Inputs: in})
	if got := rowsOf(t, files["rows"]); !reflect.DeepEqual(got, []string{"s", "6"}) || a.Rows != 1 {
		t.Errorf("parquet rows %q", got)
	}
	for format, want := range map[string]string{"table": "Conversion Error", "csv": "Conversion Error", "xml": `format "xml"`} {
		a, _ := do(t, &protocol.Order{Op: protocol.OpQuery, Format: format, SQL: "SELECT id,\n  CAST('x' || id AS INTEGER) FROM t", Inputs: in})
		if a.Error == nil || !strings.Contains(a.Error.Message, want) || format != "xml" && (a.Error.Line != 2 || a.Error.Column != 3) {
			t.Errorf("%s: error %+v, want %q at 2:3", format, a.Error, want)
		}
	}
}

// A query reaches no file but the order's own, whatever gets past the parser.
func TestFilesAreOutOfReach(t *testing.T) {
	secret := file(t, "secret.csv", "a\n1\n")
	src := write(t, "SELECT 1 AS id", "")
	db, err := connect(t.Context())
	if err == nil {
		err = db.prepare(t.Context(), &protocol.Order{Inputs: []protocol.Table{{Name: "t", Files: []string{src}}}}, t.TempDir())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	for _, s := range []string{
		fmt.Sprintf("SELECT * FROM read_csv('%s')", secret),
		fmt.Sprintf("FROM '%s'", secret),
		fmt.Sprintf("COPY (SELECT 1) TO '%s'", secret),
		fmt.Sprintf("ATTACH '%s.db' AS x", secret),
		"SET enable_external_access = true",
		"SET allowed_directories = ['/']",
		"SET memory_limit = '100GB'",
		"INSTALL httpfs",
		"LOAD spatial",
	} {
		if err := db.exec(t.Context(), s); err == nil {
			t.Errorf("%s: it was allowed", s)
		}
	}
	if err := db.exec(t.Context(), "SELECT * FROM t"); err != nil {
		t.Errorf("the input itself: %v", err)
	}
}

func FuzzScan(f *testing.F) {
	for _, s := range []string{"SELECT 'a''b' -- x\n;", "/* /* */ */ $a$ ; $a$ ORDER BY 1 LIMIT 2", `e'\'' "x`, "((]", "$1 $"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		last := 0
		for _, tok := range scan(sql) {
			if tok.start < last || tok.end <= tok.start || tok.end > len(sql) {
				t.Fatalf("token %+v of %q", tok, sql)
			}
			last = tok.end
		}
		if b := body(sql); !strings.HasPrefix(sql, b) || body(b) != b {
			t.Fatalf("body of %q is %q", sql, b)
		}
		if at, ok := orderEnd(sql); ok && (at < 0 || at > len(sql)) {
			t.Fatalf("order of %q ends at %d", sql, at)
		}
	})
}
