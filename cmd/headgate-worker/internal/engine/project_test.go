package engine

import (
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
)

func TestProject(t *testing.T) {
	trips := write(t, `SELECT * FROM (VALUES (1, TIMESTAMP '2022-12-15 04:59:59', 'a', [1, 2]), (2, TIMESTAMP '2022-12-15 05:00:00', 'b', [3]), (3, NULL, 'c', NULL)) v(id, pickup, secret, list)`, "")
	zoned := write(t, `SELECT * FROM (VALUES (1, TIMESTAMPTZ '2022-12-15 04:59:59+00'), (2, TIMESTAMPTZ '2022-12-15 00:00:00-05')) v(id, pickup)`, "")
	schema := columns("id", "INTEGER", "pickup", "TIMESTAMP", "secret", "VARCHAR", "list", "INTEGER[]")
	a, files := ok(t, &protocol.Order{Op: protocol.OpProject, Inputs: []protocol.Table{
		{Name: "trips", Files: []string{trips}, Columns: schema, Select: []string{"ID"}, Filter: "secret <> 'a'"}, // by a column that is not selected
		{Name: "trips", Files: []string{trips}, Columns: schema, Select: []string{"pickup", "id"}, Filter: "pickup >= '2022-12-15T00:00:00-05:00' AND pickup < '2023-01-01T00:00:00-05:00'"},
		{Name: "ns.zoned", Files: []string{zoned}, Columns: columns("id", "INTEGER", "pickup", "TIMESTAMP WITH TIME ZONE"), Filter: "pickup >= '2022-12-15T00:00:00-05:00' -- New York"},
		{Name: "nothing", Columns: schema, Select: []string{"list"}, Filter: "id = 1"},
		{Name: "base.trips", Files: []string{trips}, Columns: schema, Select: []string{"list"}},
	}})
	for i, want := range []struct {
		columns []string
		rows    []string
	}{
		{[]string{"id INTEGER"}, []string{"2", "3"}},
		// A timestamp without a zone is compared with the literal's own clock, as in Postgres.
		{[]string{"pickup TIMESTAMP", "id INTEGER"}, []string{"2022-12-15 04:59:59,1", "2022-12-15 05:00:00,2"}},
		{[]string{"id INTEGER", "pickup TIMESTAMP WITH TIME ZONE"}, []string{"2,2022-12-15 05:00:00+00"}},
		{[]string{"list INTEGER[]"}, nil},
		{[]string{"list INTEGER[]"}, []string{`"[1, 2]"`, "[3]", ""}},
	} {
		p := a.Projected[i]
		var have []string
		for _, c := range p.Columns {
			have = append(have, c.Name+" "+c.Type)
		}
		if !slices.Equal(have, want.columns) || p.Rows != int64(len(want.rows)) {
			t.Errorf("input %d has columns %q and %d rows", i, have, p.Rows)
		}
		if rows := rowsOf(t, files[p.File])[1:]; strings.Join(rows, "\n") != strings.Join(want.rows, "\n") {
			t.Errorf("input %d has rows %q, want %q", i, rows, want.rows)
		}
		// What is not selected is in no byte of the file.
		if i == 0 && (strings.Contains(string(files[p.File]), "secret") || strings.Contains(string(files[p.File]), "pickup")) {
			t.Error("the file of input 0 has more than its columns")
		}
	}
}

func TestProjectErrors(t *testing.T) {
	file := write(t, "SELECT 1 AS id, 'x' AS name", "")
	for _, tc := range []struct {
		selected []string
		filter   string
		want     string
	}{
		{[]string{"nam"}, "", `table "t" has no column "nam"; it has "id", "name"`},
		{nil, "id >", `filter of table "t": Parser Error`},
		{nil, "ide = 1", `filter of table "t": Binder Error`},
		{nil, "id = 1) OR (true", `filter of table "t": Parser Error`},
		{nil, "id IN (SELECT id FROM other)", `filter of table "t": Catalog Error`},
		{nil, "name IN (SELECT content FROM read_text('/etc/passwd'))", "table function read_text is not allowed"},
		{nil, "CAST(name AS INTEGER) = 1", `filter of table "t": Conversion Error`},
		{nil, "id = $1", "a placeholder has no value here"},
	} {
		in := protocol.Table{Name: "t", Files: []string{file}, Columns: columns("id", "INTEGER", "name", "VARCHAR"), Select: tc.selected, Filter: tc.filter}
		if a, _ := do(t, &protocol.Order{Op: protocol.OpProject, Inputs: []protocol.Table{in}}); a.Error == nil || !strings.Contains(a.Error.Message, tc.want) {
			t.Errorf("%q %q: %+v, want %q", tc.selected, tc.filter, a.Error, tc.want)
		}
	}
}

func TestTypes(t *testing.T) {
	written := []string{"int", "TEXT", "string", "timestamptz", "decimal(9, 2)", "INT8[]", "hugeint", "struct(a int, b text)", "Map(int, date)", "float8", "enum('a')", "timestamp_s", "bool -- yes"}
	want := []string{"INTEGER", "VARCHAR", "VARCHAR", "TIMESTAMP WITH TIME ZONE", "DECIMAL(9,2)", "BIGINT[]", "BIGINT", "STRUCT(a INTEGER, b VARCHAR)", "MAP(INTEGER, DATE)", "DOUBLE", "VARCHAR", "TIMESTAMP", "BOOLEAN"}
	a, _ := ok(t, &protocol.Order{Op: protocol.OpTypes, Types: written})
	if !slices.Equal(a.Types, want) {
		t.Errorf("have %q\nwant %q", a.Types, want)
	}
	for _, wrong := range []string{"", "intt", "INT) AS a, CAST(1 AS INT", "INT) FROM range(3); SELECT (1", "DECIMAL(99,2)", "/*"} {
		if a, _ := do(t, &protocol.Order{Op: protocol.OpTypes, Types: []string{"INT", wrong}}); a.Error == nil || !strings.Contains(a.Error.Message, "there is no type") {
			t.Errorf("%q: %+v, %q", wrong, a.Error, a.Types)
		}
	}
	if a, _ := do(t, &protocol.Order{Op: protocol.OpTypes, Types: []string{"UNION(a INT)"}}); a.Error == nil || !strings.Contains(a.Error.Message, "without loss") {
		t.Errorf("a type that cannot be stored: %+v", a)
	}
}
