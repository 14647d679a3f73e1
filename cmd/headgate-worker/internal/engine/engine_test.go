package engine

import (
	"bytes"
	"context"
	"crypto/sha1"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

// do runs an order and returns its answer and files.
func do(t testing.TB, order *protocol.Order) (*protocol.Answer, map[string][]byte) {
	t.Helper()
	return doInParts(t, order, targetWeight)
}

func doInParts(t testing.TB, order *protocol.Order, rows int64) (*protocol.Answer, map[string][]byte) {
	t.Helper()
	order.TempDir = t.TempDir()
	var out, log bytes.Buffer
	if err := (&execution{order: order, out: &out, partRows: rows}).run(context.Background(), &log); err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	answer, err := protocol.Read(&out, protocol.DefaultReadLimits, func(name string, _ int64, r io.Reader) error {
		b, err := io.ReadAll(r)
		files[name] = b
		return err
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", &log)
	}
	if left, _ := os.ReadDir(order.TempDir); len(left) != 0 {
		t.Errorf("%d files are left in the temporary directory", len(left))
	}
	return answer, files
}

// ok is do for an order that must succeed.
func ok(t testing.TB, order *protocol.Order) (*protocol.Answer, map[string][]byte) {
	t.Helper()
	a, files := do(t, order)
	if a.Error != nil {
		t.Fatalf("order failed: %+v", a.Error)
	}
	return a, files
}

// write makes a Parquet file of a query with DuckDB as any user would.
func write(t testing.TB, query, options string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "t.parquet")
	exec(t, fmt.Sprintf("COPY (%s) TO '%s' (FORMAT parquet%s)", query, path, options))
	return path
}

func exec(t testing.TB, statements ...string) {
	t.Helper()
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// rowsOf reads a Parquet file's rows as DuckDB's text.
func rowsOf(t testing.TB, data []byte) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.parquet")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, files := ok(t, &protocol.Order{Op: protocol.OpQuery, Format: "csv", SQL: "SELECT * FROM t", Inputs: []protocol.Table{{Name: "t", Files: []string{path}}}})
	return strings.Split(strings.TrimSuffix(string(files["rows"]), "\n"), "\n")
}

func columns(pairs ...string) []protocol.Column {
	var c []protocol.Column
	for i := 0; i < len(pairs); i += 2 {
		c = append(c, protocol.Column{Name: pairs[i], Type: pairs[i+1], Nullable: true})
	}
	return c
}

func TestTables(t *testing.T) {
	for _, tc := range []struct {
		sql          string
		want         []string
		err          string
		line, column int
	}{
		{sql: "SELECT * FROM a, ns.b, base.c, base.ns.d", want: []string{"a", "base.c", "base.ns.d", "ns.b"}},
		{sql: "WITH x AS (SELECT * FROM a) SELECT * FROM x;", want: []string{"a"}},
		{sql: "WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x, a WHERE n < 3) FROM x", want: []string{"a"}},
		{sql: "SELECT (SELECT max(y) FROM z) FROM a WHERE EXISTS (FROM q) -- ;", want: []string{"a", "q", "z"}},
		{sql: "SELECT * FROM range(3), generate_series(1, 2), unnest([1])", want: []string{}},
		{sql: `SELECT * FROM "we ird"`, want: []string{"we ird"}},
		{sql: "SELECT * FROM a PIVOT (sum(x) FOR y IN (1, 2))", want: []string{"a"}},
		{sql: "SELECT *\nFORM a", err: `Parser Error: syntax error at or near "a"`, line: 2, column: 6},
		{sql: "SELECT 'é',\n 'ü' x y FROM a", err: `syntax error at or near "y"`, line: 2, column: 8},
		{sql: "SELECT 1; SELECT 2", err: "there is more than one statement", line: 1, column: 11},
		{sql: " -- nothing", err: "there is no query"},
		{sql: "/* x */ DROP TABLE a", err: "only a SELECT is allowed here, not DROP", line: 1, column: 9},
		{sql: "COPY a TO 'x'", err: "only a SELECT is allowed here, not COPY", line: 1, column: 1},
		{sql: "PIVOT a ON b USING sum(c)", err: "PIVOT needs its list of values", line: 1, column: 1},
		{sql: "SELECT *\nFROM read_csv('x.csv')", err: "table function read_csv is not allowed", line: 2, column: 6},
		{sql: "SELECT (SELECT count(*) FROM glob('*'))", err: "table function glob is not allowed", line: 1, column: 30},
		{sql: "SELECT * FROM query('DROP TABLE x')", err: "table function query is not allowed", line: 1, column: 15},
		{sql: "SELECT * FROM 'x.parquet'", err: `"x.parquet" is a file`, line: 1, column: 15},
		{sql: "SELECT * FROM a WHERE x = $1", err: "a placeholder has no value here", line: 1, column: 27},
	} {
		t.Run(tc.sql, func(t *testing.T) {
			a, _ := ok(t, &protocol.Order{Op: protocol.OpTables, Queries: []protocol.Query{{Name: "q", SQL: tc.sql}}})
			got := a.Tables[0]
			if tc.err == "" {
				if got.Error != nil || !reflect.DeepEqual(got.Tables, tc.want) {
					t.Fatalf("tables %q, error %v; want %q", got.Tables, got.Error, tc.want)
				}
				return
			}
			if got.Error == nil || !strings.Contains(got.Error.Message, tc.err) || got.Error.Line != tc.line || got.Error.Column != tc.column || got.Error.Query != "q" {
				t.Fatalf("error %+v, want %q at %d:%d", *got.Error, tc.err, tc.line, tc.column)
			}
		})
	}
}

func TestModelErrors(t *testing.T) {
	file := write(t, "SELECT i AS id, i // 2 AS grp, CASE WHEN i > 1 THEN i END AS opt, 'v' || i AS txt FROM range(5) t(i)", "")
	in := []protocol.Table{{Name: "t", Files: []string{file}, Columns: columns("id", "BIGINT", "grp", "BIGINT", "opt", "BIGINT", "txt", "VARCHAR")}}
	for _, tc := range []struct {
		name, sql    string
		key          []string
		kind, err    string
		line, column int
	}{
		{name: "column", sql: "SELECT id,\n  nope\nFROM t", kind: "sql", err: `Binder Error: Referenced column "nope" not found in FROM clause!`, line: 2, column: 3},
		{name: "position after other scripts", sql: "SELECT 'éü' AS \"ñ\", nope FROM t", kind: "sql", err: "nope", line: 1, column: 21},
		{name: "hint", sql: "SELECT flor(id) FROM t", kind: "sql", err: "Did you mean \"floor\"", line: 1, column: 8},
		{name: "table", sql: "SELECT *\nFROM missing", kind: "sql", err: "Catalog Error: Table with name missing does not exist!", line: 2, column: 6},
		{name: "cast at run time", sql: "SELECT id,\n CAST(txt AS INTEGER) AS x\nFROM t", kind: "sql", err: "Conversion Error: Could not convert string 'v0' to INT32", line: 2, column: 2},
		{name: "same names", sql: "SELECT id, grp AS id FROM t", kind: "data", err: `two columns are named "id"`},
		{name: "same names but case", sql: "SELECT id, grp AS ID FROM t", kind: "data", err: `columns "id" and "ID" differ in case only`},
		{name: "long name", sql: "SELECT 1 AS " + strings.Repeat("x", 300), kind: "data", err: "a name has at most 255 bytes"},
		{name: "no key column", sql: "SELECT id FROM t", key: []string{"grp"}, kind: "data", err: `key column "grp" is not in the result, which has "id"`},
		{name: "null key", sql: "SELECT opt FROM t", key: []string{"opt"}, kind: "data", err: `key column "opt" is NULL in 2 rows`},
		{name: "key not unique", sql: "SELECT * FROM t", key: []string{"grp"}, kind: "data", err: "key (grp) is not unique: 2 values occur more than once, such as (0) 2 times, (1) 2 times"},
		{name: "huge", sql: "SELECT 170141183460469231731687303715884105727::HUGEINT AS h", kind: "sql", err: `column "h": a value does not fit in BIGINT`},
		{name: "union type", sql: "SELECT union_value(a := 1) AS u", kind: "data", err: `column "u" is of type UNION(a INTEGER), which Parquet cannot hold`},
		{name: "file", sql: "SELECT * FROM read_text('/etc/passwd')", kind: "sql", err: "table function read_text is not allowed", line: 1, column: 15},
		{name: "write", sql: "CREATE TABLE x AS SELECT 1", kind: "sql", err: "only a SELECT is allowed here, not CREATE", line: 1, column: 1},
		{name: "settings", sql: "SET threads = 8", kind: "sql", err: "only a SELECT is allowed here, not SET", line: 1, column: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, files := do(t, &protocol.Order{Op: protocol.OpModel, SQL: tc.sql, Key: tc.key, Inputs: in})
			if a.Error == nil {
				t.Fatalf("it succeeded: %+v", a)
			}
			e := a.Error
			if e.Kind != tc.kind || !strings.Contains(e.Message, tc.err) || e.Line != tc.line || e.Column != tc.column {
				t.Errorf("error %+v, want %s %q at %d:%d", *e, tc.kind, tc.err, tc.line, tc.column)
			}
			if strings.Contains(e.Message, "LINE ") || strings.Contains(e.Message, "rows to store") || strings.Contains(e.Message, "pg_") {
				t.Errorf("message %q speaks of our wrappers", e.Message)
			}
			if len(files) != 0 {
				t.Errorf("%d files came with an error", len(files))
			}
		})
	}
}

func TestModelOutOfMemory(t *testing.T) {
	a, _ := do(t, &protocol.Order{Op: protocol.OpModel, MemoryLimit: 20 << 20,
		SQL: "SELECT list(i) AS l FROM range(20000000) t(i)"})
	if a.Error == nil || a.Error.Kind != "memory" || strings.Contains(a.Error.Message, "SET ") {
		t.Fatalf("error %+v, want kind memory without advice on settings", a.Error)
	}
}

// Every type that DuckDB has either comes back as it was or is refused.
func TestModelTypes(t *testing.T) {
	a, files := ok(t, &protocol.Order{Op: protocol.OpModel, SQL: `
		SELECT true AS "bool", 1::TINYINT AS ti, 2::SMALLINT AS si, 3::INTEGER AS i, 4::BIGINT AS bi, sum(5) AS "sum", 6::UBIGINT AS ub,
			1.5::FLOAT AS f, 'nan'::DOUBLE AS d, 1e300 AS big, 0.1::FLOAT AS small, -0.0 / 1 AS zero, 12.30::DECIMAL(10,2) AS dec, 'é "q"' AS "a ""b"" ü", 'x'::BLOB AS bl, '101'::BIT AS bit,
			DATE '2024-02-29' AS da, TIME '12:34:56.789' AS ti2, TIMESTAMP_S '2024-01-01' AS ts, TIMESTAMP_NS '2024-01-01 00:00:00.000000001' AS tn,
			TIMESTAMPTZ '2024-01-01 00:00:00+00' AS tz, INTERVAL 1 MONTH AS iv, '00000000-0000-0000-0000-000000000001'::UUID AS u,
			'b'::ENUM('a', 'b') AS e, [1, 2] AS l, {'x': 1, 'y': [NULL]} AS s, MAP {'k': 1} AS m, NULL AS n, '{"a": 1}'::JSON AS j`})
	want := columns("bool", "BOOLEAN", "ti", "TINYINT", "si", "SMALLINT", "i", "INTEGER", "bi", "BIGINT", "sum", "BIGINT", "ub", "UBIGINT",
		"f", "FLOAT", "d", "DOUBLE", "big", "DOUBLE", "small", "FLOAT", "zero", "DOUBLE", "dec", "DECIMAL(10,2)", `a "b" ü`, "VARCHAR", "bl", "BLOB", "bit", "VARCHAR",
		"da", "DATE", "ti2", "TIME", "ts", "TIMESTAMP", "tn", "TIMESTAMP_NS",
		"tz", "TIMESTAMP WITH TIME ZONE", "iv", "INTERVAL", "u", "UUID",
		"e", "VARCHAR", "l", "INTEGER[]", "s", "STRUCT(x INTEGER, y INTEGER[])", "m", "MAP(VARCHAR, INTEGER)", "n", "INTEGER", "j", "JSON")
	if !reflect.DeepEqual(a.Snapshot.Columns, want) {
		t.Errorf("columns %v\nwant %v", a.Snapshot.Columns, want)
	}
	st := map[string]string{}
	for i, s := range a.Snapshot.Parts[0].Stats {
		st[want[i].Name] = string(s.Min)
	}
	for name, min := range map[string]string{"bool": "true", "sum": "5", "f": "1.5", "d": `"nan"`, "big": "1e+300", "small": "0.1", "zero": "0", "dec": `"12.30"`, `a "b" ü`: `"é \"q\""`,
		"bl": "", "da": `"2024-02-29"`, "tz": `"2024-01-01 00:00:00+00"`, "l": "", "n": ""} {
		if st[name] != min {
			t.Errorf("minimum of %s is %s, want %s", name, st[name], min)
		}
	}
	checkTableJSON(t, a.Snapshot, files)
	rows := rowsOf(t, files["part-000000.parquet"])
	wantRow := `true,1,2,3,4,5,6,1.5,nan,1e+300,0.1,0.0,12.30,"é ""q""",x,101,2024-02-29,12:34:56.789,2024-01-01 00:00:00,2024-01-01 00:00:00.000000001,2024-01-01 00:00:00+00,1 month,00000000-0000-0000-0000-000000000001,b,"[1, 2]","{'x': 1, 'y': [NULL]}",{k=1},,"{""a"": 1}"`
	if len(rows) != 2 || rows[1] != wantRow {
		t.Errorf("row %s\nwant %s", rows[len(rows)-1], wantRow)
	}
}

// checkTableJSON makes sure that what the worker says of a table is what table.json takes.
func checkTableJSON(t *testing.T, found *protocol.Snapshot, files map[string][]byte) {
	t.Helper()
	s := &table.Snapshot{Format: table.Format}
	for _, c := range found.Columns {
		s.Columns = append(s.Columns, table.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable})
	}
	for _, p := range found.Parts {
		data := files[p.File]
		part := table.Part{File: table.PartName(plumbing.ComputeHash(plumbing.BlobObject, data)), Rows: p.Rows, Bytes: int64(len(data))}
		for _, st := range p.Stats {
			part.Columns = append(part.Columns, table.Stats{Nulls: st.Nulls, Min: st.Min, Max: st.Max})
		}
		s.Parts = append(s.Parts, part)
		if err := table.CheckFooter(bytes.NewReader(data), int64(len(data))); err != nil {
			t.Errorf("%s: %v", p.File, err)
		}
	}
	if _, err := table.Parse(s.Encode()); err != nil {
		t.Error(err)
	}
}

func TestModelOrder(t *testing.T) {
	const values = "(VALUES (2, 'b', '-0.0'::DOUBLE), (1, 'z', 0.0), (NULL, 'a', 'nan'::DOUBLE), (2, 'a', 'inf'::DOUBLE), (1, 'z', '-0.0'::DOUBLE)) t(i, s, d)"
	for _, tc := range []struct {
		name, sql string
		key       []string
		want      []string
	}{
		{"all columns", "SELECT * FROM " + values, nil, []string{"1,z,0.0", "1,z,0.0", "2,a,inf", "2,b,0.0", ",a,nan"}},
		{"own order", "SELECT i, s FROM " + values + " ORDER BY i DESC NULLS LAST -- by i;\n;", nil, []string{"2,a", "2,b", "1,z", "1,z", ",a"}},
		{"own order and limit", "SELECT i, s FROM " + values + "\nORDER BY i /* , */\nLIMIT 3", nil, []string{"1,z", "1,z", "2,a"}},
		{"order by all", "SELECT i, s FROM " + values + " ORDER BY ALL DESC LIMIT 2", nil, []string{"2,b", "2,a"}},
		{"order of a subquery is not its own", "SELECT i, s FROM (SELECT * FROM " + values + " ORDER BY s DESC) WHERE i = 2", nil, []string{"2,a", "2,b"}},
		{"union", "SELECT i FROM " + values + " WHERE i = 1 UNION SELECT 7 ORDER BY 1 DESC", nil, []string{"7", "1"}},
		{"key", "SELECT s, i FROM " + values + " WHERE d = 'inf' OR s = 'b' ORDER BY s DESC", []string{"S"}, []string{"a,2", "b,2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, files := ok(t, &protocol.Order{Op: protocol.OpModel, SQL: tc.sql, Key: tc.key})
			if got := rowsOf(t, files["part-000000.parquet"])[1:]; !reflect.DeepEqual(got, tc.want) {
				t.Errorf("rows %q, want %q", got, tc.want)
			}
			if len(tc.key) > 0 && a.Snapshot.Columns[0].Nullable {
				t.Error("a key column is nullable")
			}
		})
	}
}

// Equal rows give equal bytes, whatever the threads and the files they came from.
func TestModelBytesAreDeterministic(t *testing.T) {
	const rows = "SELECT i, hash(i) % 97 AS h, 'text ' || (i * 7919 % 1000) AS s, CASE WHEN i % 11 = 0 THEN NULL ELSE i / 7 END AS d FROM range(150000) t(i)"
	ordered := write(t, rows, "")
	shuffled := write(t, rows+" ORDER BY hash(i)", ", ROW_GROUP_SIZE 20000")
	halves := []string{write(t, "SELECT * FROM ("+rows+") WHERE i % 2 = 1", ", ROW_GROUP_SIZE 4096"), write(t, "SELECT * FROM ("+rows+") WHERE i % 2 = 0", "")}
	var want string
	for i, tc := range []struct {
		files   []string
		threads int
	}{
		{[]string{ordered}, 1}, {[]string{ordered}, 4}, {[]string{shuffled}, 1}, {[]string{shuffled}, 2}, {halves, 1}, {halves, 4},
	} {
		a, files := doInParts(t, &protocol.Order{Op: protocol.OpModel, SQL: "SELECT * FROM t", Key: []string{"i"}, Threads: tc.threads,
			Inputs: []protocol.Table{{Name: "t", Files: tc.files, Columns: columns("i", "BIGINT", "h", "UBIGINT", "s", "VARCHAR", "d", "DOUBLE")}}}, 10_000)
		if a.Error != nil {
			t.Fatal(a.Error)
		}
		if n := len(a.Snapshot.Parts); n < 8 || n > 30 || a.Rows != 150_000 {
			t.Fatalf("%d rows in parts %+v", a.Rows, a.Snapshot.Parts)
		}
		h := sha1.New()
		for _, p := range a.Snapshot.Parts {
			h.Write(files[p.File])
		}
		doc, _ := json.Marshal(a.Snapshot)
		h.Write(doc)
		got := fmt.Sprintf("%x", h.Sum(nil))
		if i == 0 {
			want = got
		}
		if got != want {
			t.Errorf("%d files on %d threads: other bytes", len(tc.files), tc.threads)
		}
	}
}

func TestModelWithoutRows(t *testing.T) {
	in := []protocol.Table{
		{Name: "ns.empty", Columns: columns("id", "BIGINT", "na me", "STRUCT(a INTEGER)")},
		{Name: "base.ns.empty", Columns: columns("id", "BIGINT")},
	}
	a, files := ok(t, &protocol.Order{Op: protocol.OpModel, SQL: `SELECT e.* FROM ns.empty e JOIN base.ns.empty USING (id)`, Inputs: in})
	if len(a.Snapshot.Parts) != 1 || a.Snapshot.Parts[0].Rows != 0 || a.Rows != 0 {
		t.Fatalf("parts %+v", a.Snapshot.Parts)
	}
	if want := in[0].Columns; !reflect.DeepEqual(a.Snapshot.Columns, want) {
		t.Errorf("columns %v, want %v", a.Snapshot.Columns, want)
	}
	if got := rowsOf(t, files["part-000000.parquet"]); !reflect.DeepEqual(got, []string{"id,na me"}) {
		t.Errorf("rows %q", got)
	}
}

func TestInputs(t *testing.T) {
	file := write(t, `SELECT i AS id, i * 10 AS "va""l ü", i % 2 = 0 AS even FROM range(4) t(i)`, "")
	all := columns("id", "BIGINT", `va"l ü`, "BIGINT", "even", "BOOLEAN")
	query := func(in protocol.Table, sql string) (*protocol.Answer, string) {
		a, files := do(t, &protocol.Order{Op: protocol.OpQuery, Format: "csv", SQL: sql, Inputs: []protocol.Table{in}})
		return a, string(files["rows"])
	}
	in := protocol.Table{Name: "base.my-ns.t", Files: []string{file}, Columns: all, Select: []string{`VA"L Ü`, "id"}, Filter: "even -- only those"}
	if a, got := query(in, `SELECT * FROM base."my-ns".t`); got != "\"va\"\"l ü\",id\n0,0\n20,2\n" {
		t.Errorf("rows %q, error %+v", got, a.Error)
	}
	for filter, want := range map[string]string{
		"even) OR (true":               `filter of table "t": Parser Error: syntax error at or near ")"`,
		"id IN (FROM read_csv('x'))":   `filter of table "t": table function read_csv is not allowed`,
		"nope > 1":                     `table "t": Binder Error: Referenced column "nope"`,
		"true; DROP VIEW t":            `filter of table "t": there is more than one statement`,
		"id = 1 UNION SELECT * FROM t": "table \"t\": Parser Error",
	} {
		if a, _ := query(protocol.Table{Name: "t", Files: []string{file}, Columns: all, Filter: filter}, "FROM t"); a.Error == nil || !strings.Contains(a.Error.Message, want) {
			t.Errorf("filter %q: error %+v, want %q", filter, a.Error, want)
		}
	}
	if a, _ := query(protocol.Table{Name: "t", Files: []string{file}, Columns: all, Select: []string{"x"}}, "FROM t"); a.Error == nil || !strings.Contains(a.Error.Message, `table "t" has no column "x"`) {
		t.Errorf("unknown column: error %+v", a.Error)
	}
}
