package engine

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/exec/protocol"
)

// event is a row of the tables here: a day, "" for NULL, and a number.
type event struct {
	day string
	n   int
}

func (e event) String() string { return fmt.Sprintf("%s,%d", e.day, e.n) }

var eventColumns = columns("d", "DATE", "n", "BIGINT")

// eventSQL is a query that gives rows, in no good order and with the columns the other way round.
func eventSQL(rows []event) string {
	if len(rows) == 0 {
		return "SELECT 1::BIGINT AS n, DATE '2020-01-01' AS d WHERE false"
	}
	values := make([]string, len(rows))
	for i, e := range rows {
		day := "NULL"
		if e.day != "" {
			day = "'" + e.day + "'"
		}
		values[i] = fmt.Sprintf("(%d::BIGINT, %s::DATE)", e.n, day)
	}
	return "SELECT n, d FROM (VALUES " + strings.Join(values, ", ") + ") AS t(n, d)"
}

// inCanonicalOrder sorts as the worker does with n before d: NULLs last.
func inCanonicalOrder(rows []event) []event {
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b event) int {
		if c := cmp.Compare(a.n, b.n); c != 0 {
			return c
		}
		if (a.day == "") != (b.day == "") {
			return cmp.Compare(b.day, a.day)
		}
		return cmp.Compare(a.day, b.day)
	})
	return rows
}

// storedTable is a table as its parts.
type storedTable struct {
	dir   string
	db    *sql.DB // reads them, as anybody would
	files []string
	rows  map[string][]event
}

func newStoredTable(t *testing.T) *storedTable {
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &storedTable{dir: t.TempDir(), db: db}
}

func (st *storedTable) read(rt *rapid.T, path string) []event {
	rows, err := st.db.Query("SELECT coalesce(strftime(d, '%Y-%m-%d'), ''), n FROM '" + path + "'")
	if err != nil {
		rt.Fatal(err)
	}
	defer rows.Close()
	found := []event{}
	for rows.Next() {
		var e event
		if err := rows.Scan(&e.day, &e.n); err != nil {
			rt.Fatal(err)
		}
		found = append(found, e)
	}
	return found
}

// partitioning is partitioned_by, and what it means.
type partitioning struct {
	terms []string
	of    func(event) string
}

var partitionings = []partitioning{
	{[]string{"d"}, func(e event) string { return e.day }},
	{[]string{"month(D)"}, func(e event) string { return e.day[:min(7, len(e.day))] }},
	{[]string{"Year(d)", "n"}, func(e event) string { return fmt.Sprint(e.day[:min(4, len(e.day))], " ", e.n) }},
	{[]string{"day(d)"}, func(e event) string { return e.day }},
}

// add carries out one order and checks its answer against the rows that it must give.
// gone tells which rows of the prior are overwritten: a part without any stays as it is.
func (st *storedTable) add(t *testing.T, rt *rapid.T, order *protocol.Order, want []event, gone func(event) bool) {
	order.Prior = &protocol.Table{Name: "t", Columns: eventColumns, Files: st.files}
	appends := order.Strategy == "APPEND" && len(order.Key) == 0
	before := st.files // what the worker need not see
	if appends && len(st.files) > 0 {
		before = st.files[:len(st.files)-1]
		order.Prior.Files = st.files[len(st.files)-1:]
	}
	a, sent := doInParts(t, order, 4)
	if a.Error != nil {
		rt.Fatalf("%s: %+v", order.Strategy, a.Error)
	}
	var files []string
	rows := make(map[string][]event)
	if appends {
		files = append(files, before...)
		for _, f := range files {
			rows[f] = st.rows[f]
		}
	}
	for _, p := range a.Snapshot.Parts {
		if old, ok := st.rows[p.File]; ok {
			files, rows[p.File] = append(files, p.File), old
			continue
		}
		f, err := os.CreateTemp(st.dir, "*.parquet")
		if err != nil {
			rt.Fatal(err)
		}
		path := f.Name()
		if err := errors.Join(os.WriteFile(path, sent[p.File], 0o600), f.Close()); err != nil {
			rt.Fatal(err)
		}
		rows[path] = st.read(rt, path)
		nulls := 0
		for _, e := range rows[path] {
			if e.day == "" {
				nulls++
			}
		}
		if int(p.Rows) != len(rows[path]) || len(p.Stats) != 2 || int(p.Stats[0].Nulls) != nulls {
			rt.Fatalf("part is described as %+v, has rows %v", p, rows[path])
		}
		files = append(files, path)
	}
	var have []event
	for _, f := range files {
		have = append(have, rows[f]...)
	}
	if !slices.Equal(have, want) {
		rt.Fatalf("%s %v:\nhave %v\nwant %v", order.Strategy, order.PartitionedBy, have, want)
	}
	for _, f := range before {
		if gone != nil && !slices.ContainsFunc(st.rows[f], gone) && !slices.Contains(files, f) {
			rt.Fatalf("the part with %v was cut again", st.rows[f])
		}
	}
	st.files, st.rows = files, rows
}

// A table that is appended to and overwritten is what a list of rows would be.
func TestPriorAgainstAList(t *testing.T) {
	days := []string{"2023-01-01", "2023-01-02", "2023-02-01", "2024-01-01", ""}
	st := newStoredTable(t)
	rapid.Check(t, func(rt *rapid.T) {
		st.files, st.rows = nil, nil
		var list []event
		for range rapid.IntRange(1, 3).Draw(rt, "pushes") {
			added := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) event {
				return event{rapid.SampledFrom(days).Draw(rt, "day"), rapid.IntRange(0, 3).Draw(rt, "n")}
			}), 0, 7).Draw(rt, "rows")
			order := &protocol.Order{Op: protocol.OpModel, SQL: eventSQL(added), Strategy: "APPEND"}
			gone := func(event) bool { return false }
			if rapid.Bool().Draw(rt, "overwrite") {
				p := rapid.SampledFrom(partitionings).Draw(rt, "partitioned by")
				order.Strategy, order.PartitionedBy = "OVERWRITE_PARTITIONS", p.terms
				overwritten := make(map[string]bool)
				for _, e := range added {
					overwritten[p.of(e)] = true
				}
				gone = func(e event) bool { return overwritten[p.of(e)] }
				list = slices.DeleteFunc(slices.Clone(list), gone)
			}
			list = append(list, inCanonicalOrder(added)...)
			st.add(t, rt, order, list, gone)
		}
	})
}

// With a key the rows go by it, whenever they came, and it is unique over all of them.
func TestPriorWithAKey(t *testing.T) {
	st := newStoredTable(t)
	rapid.Check(t, func(rt *rapid.T) {
		st.files, st.rows = nil, nil
		numbers := rapid.Permutation([]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}).Draw(rt, "keys")
		var list []event
		for len(numbers) > 0 {
			k := rapid.IntRange(min(4, len(numbers)), len(numbers)).Draw(rt, "how many")
			var added []event
			for _, n := range numbers[:k] {
				added = append(added, event{"2024-01-01", n})
			}
			numbers = numbers[k:]
			list = inCanonicalOrder(append(list, added...))
			st.add(t, rt, &protocol.Order{Op: protocol.OpModel, SQL: eventSQL(added), Strategy: "APPEND", Key: []string{"n"}}, list, nil)
			// However it grew, it is cut like a table that came at once.
			once, _ := doInParts(t, &protocol.Order{Op: protocol.OpModel, SQL: eventSQL(list), Key: []string{"n"}}, 4)
			var have, want []int
			for _, f := range st.files {
				have = append(have, len(st.rows[f]))
			}
			for _, p := range once.Snapshot.Parts {
				want = append(want, int(p.Rows))
			}
			if !slices.Equal(have, want) {
				rt.Fatalf("parts of %v rows, want %v", have, want)
			}
		}
		again := &protocol.Order{Op: protocol.OpModel, SQL: eventSQL(list[:1]), Strategy: "APPEND", Key: []string{"n"},
			Prior: &protocol.Table{Name: "t", Columns: eventColumns, Files: st.files}}
		if a, _ := do(t, again); a.Error == nil || !strings.Contains(a.Error.Message, "key (n) is not unique: 1 value occurs more than once") {
			rt.Fatalf("a key that is in the prior: %+v", a.Error)
		}
		// What replaces a key's partition may use the key again.
		again.Strategy, again.PartitionedBy = "OVERWRITE_PARTITIONS", []string{"n"}
		if a, _ := doInParts(t, again, 4); a.Error != nil || a.Rows != int64(len(list)) {
			rt.Fatalf("%d rows, want %d", a.Rows, len(list))
		}
	})
}

// What follows a keyed table costs its last part and no other; what goes into the
// middle costs what is behind it; and no order is believed that is not there. No
// key here has a hash that ends a part before its second row.
func TestKeyedPartsAreReused(t *testing.T) {
	part := func(rows string) string { return write(t, "SELECT * FROM (VALUES "+rows+") AS v(n, x)", "") }
	a, b, c := part("(1, 'a'), (2, 'b')"), part("(4, 'c'), (6, 'd')"), part("(7, 'e')")
	unsorted, early := part("(6, 'd'), (4, 'c')"), part("(0, 'z'), (9, 'y')")
	for name, tc := range map[string]struct {
		files []string
		sql   string
		by    []string
		keep  int
		want  string
		fails string
	}{
		"behind":              {files: []string{a, b, c}, sql: "SELECT 8 AS n, 'f' AS x", keep: 2, want: "7,e 8,f"},
		"nothing":             {files: []string{a, b}, sql: "SELECT 8 AS n, 'f' AS x WHERE false", keep: 2},
		"between":             {files: []string{a, b, c}, sql: "SELECT 3 AS n, 'f' AS x", keep: 1, want: "3,f 4,c 6,d 7,e"},
		"within":              {files: []string{a, b, c}, sql: "SELECT 0 AS n, 'f' AS x", keep: 0, want: "0,f 1,a 2,b 4,c 6,d 7,e"},
		"a key of the kept":   {files: []string{a, b, c}, sql: "SELECT 2 AS n, 'f' AS x", fails: "key (n) is not unique"},
		"a key of the last":   {files: []string{a, b, c}, sql: "SELECT 7 AS n, 'f' AS x", fails: "key (n) is not unique"},
		"not in order":        {files: []string{a, unsorted, c}, sql: "SELECT 8 AS n, 'f' AS x", keep: 1, want: "4,c 6,d 7,e 8,f"},
		"a low key behind":    {files: []string{a, b, early}, sql: "SELECT 8 AS n, 'f' AS x", keep: 0, want: "0,z 1,a 2,b 4,c 6,d 8,f 9,y"},
		"overwritten":         {files: []string{a, b, c}, sql: "SELECT 8 AS n, 'c' AS x", by: []string{"x"}, keep: 1, want: "6,d 7,e 8,c"},
		"the same part twice": {files: []string{a, a}, sql: "SELECT 8 AS n, 'f' AS x", fails: "key (n) is not unique"},
	} {
		order := &protocol.Order{Op: protocol.OpModel, SQL: tc.sql, Strategy: "APPEND", Key: []string{"n"}, PartitionedBy: tc.by,
			Prior: &protocol.Table{Name: "t", Columns: columns("n", "INTEGER", "x", "VARCHAR"), Files: tc.files}}
		if tc.by != nil {
			order.Strategy = "OVERWRITE_PARTITIONS"
		}
		answer, files := doInParts(t, order, 2)
		if tc.fails != "" {
			if answer.Error == nil || !strings.Contains(answer.Error.Message, tc.fails) {
				t.Errorf("%s: %+v, want %q", name, answer.Error, tc.fails)
			}
			continue
		}
		if answer.Error != nil {
			t.Errorf("%s: %+v", name, answer.Error)
			continue
		}
		var have []string
		for i, p := range answer.Snapshot.Parts {
			if i < tc.keep {
				if p.File != tc.files[i] {
					t.Errorf("%s: part %d is %s, want the prior's", name, i, p.File)
				}
				continue
			}
			have = append(have, rowsOf(t, files[p.File])[1:]...)
		}
		if got := strings.Join(have, " "); got != tc.want {
			t.Errorf("%s: after the kept parts there are %q, want %q", name, got, tc.want)
		}
		if answer.Snapshot.Columns[0].Nullable || !answer.Snapshot.Columns[1].Nullable {
			t.Errorf("%s: columns %+v", name, answer.Snapshot.Columns)
		}
	}
}

func TestPriorMustFit(t *testing.T) {
	prior := &protocol.Table{Name: "t", Columns: columns("a", "BIGINT", "b", "VARCHAR")}
	for _, tc := range []struct{ sql, strategy, by, want string }{
		{"SELECT 1::BIGINT AS a", "APPEND", "", `column "b" is missing`},
		{"SELECT 1 AS a, 'x' AS b", "APPEND", "", `column "a" is INTEGER, in the table it is BIGINT`},
		{"SELECT 1::BIGINT AS a, 'x' AS b, 2 AS c", "APPEND", "", `column "c" is not in the table`},
		{"SELECT 1::BIGINT AS A, 'x' AS b", "APPEND", "", `column "a" is missing; column "A" is not in the table`},
		{"SELECT 1::BIGINT AS a, 'x' AS b", "OVERWRITE_PARTITIONS", "month(b)", `month(b) needs a date or a timestamp, column "b" is VARCHAR`},
		{"SELECT 1::BIGINT AS a, 'x' AS b", "OVERWRITE_PARTITIONS", "c", `partitioned_by: column "c" is not in the result`},
	} {
		order := &protocol.Order{Op: protocol.OpModel, SQL: tc.sql, Strategy: tc.strategy, Prior: prior}
		if tc.by != "" {
			order.PartitionedBy = []string{tc.by}
		}
		if a, _ := do(t, order); a.Error == nil || a.Error.Kind != kindData || !strings.Contains(a.Error.Message, tc.want) {
			t.Errorf("%s: %+v, want %q", tc.sql, a.Error, tc.want)
		}
	}
	// A sum is a HUGEINT to DuckDB and a BIGINT in the table, whose columns are named as the part's own.
	order := &protocol.Order{Op: protocol.OpModel, SQL: "SELECT 'y' AS b, sum(x) AS a FROM range(3) r(x)", Strategy: "APPEND", Prior: prior}
	a, files := ok(t, order)
	if have := rowsOf(t, files["part-000000.parquet"]); !slices.Equal(have, []string{"a,b", "3,y"}) || a.Snapshot.Columns[0].Type != "BIGINT" {
		t.Errorf("rows %q of %+v", have, a.Snapshot.Columns)
	}
}

// Every unit of time tells apart what it should, and names of columns that the
// worker uses itself are free.
func TestPartitionTerms(t *testing.T) {
	file := write(t, `SELECT * FROM (VALUES (TIMESTAMP '2024-01-01 10:00:00', 1), (TIMESTAMP '2024-01-01 11:00:00', 2),
		(TIMESTAMP '2024-01-02 10:00:00', 3), (TIMESTAMP '2024-02-01 10:00:00', 4), (TIMESTAMP '2025-01-01 10:00:00', 5), (NULL, 6)) AS t(p0, n)`, "")
	for term, want := range map[string]string{"hour": "2,3,4,5,6", "day": "3,4,5,6", "month": "4,5,6", "year": "5,6"} {
		for _, kind := range []string{"TIMESTAMP", "TIMESTAMP WITH TIME ZONE"} {
			source := write(t, fmt.Sprintf("SELECT CAST(p0 AS %s) AS p0, n FROM '%s'", kind, file), "")
			order := &protocol.Order{
				Op: protocol.OpModel, SQL: "SELECT CAST('2024-01-01 10:30:00' AS " + kind + ") AS p0, 7 AS n", Strategy: "OVERWRITE_PARTITIONS", PartitionedBy: []string{term + "(p0)"},
				Prior: &protocol.Table{Name: "t", Columns: columns("p0", kind, "n", "INTEGER"), Files: []string{source}},
			}
			_, files := ok(t, order)
			var have []string
			for _, line := range rowsOf(t, files["part-000000.parquet"])[1:] {
				have = append(have, line[strings.LastIndexByte(line, ',')+1:])
			}
			if got := strings.Join(have, ","); got != want {
				t.Errorf("%s of %s leaves rows %s, want %s", term, kind, got, want)
			}
		}
	}
}
