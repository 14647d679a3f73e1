package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
)

// brief writes rows of a diff shortly: "-1:a,b", "+2:a,c", "~1>2:a,b>a,c[1]".
func brief(rows []protocol.DiffRow) []string {
	var out []string
	text := func(values []*string) string { return strings.ReplaceAll(strings.Join(textOf(values), ","), "'", "") }
	for _, r := range rows {
		switch r.Kind {
		case protocol.RowRemoved:
			out = append(out, fmt.Sprintf("-%d:%s", r.OldRow, text(r.Old)))
		case protocol.RowAdded:
			out = append(out, fmt.Sprintf("+%d:%s", r.NewRow, text(r.New)))
		default:
			out = append(out, fmt.Sprintf("~%d>%d:%s>%s%v", r.OldRow, r.NewRow, text(r.Old), text(r.New), r.Changed))
		}
	}
	return out
}

func TestDiffOfRows(t *testing.T) {
	for _, tc := range []struct {
		name    string
		old, is string
		key     []string
		want    []string
	}{
		{
			name: "by key",
			old:  "VALUES (1, 'a'), (2, 'b'), (3, 'c') t(k, v)", is: "VALUES (1, 'a'), (3, 'C'), (4, 'd') t(k, v)", key: []string{"k"},
			want: []string{"-2:2,b", "~3>2:3,c>3,C[1]", "+3:4,d"},
		},
		{
			name: "by sequence",
			old:  "VALUES (1, 'a'), (2, 'b'), (3, 'c') t(k, v)", is: "VALUES (1, 'a'), (3, 'C'), (4, 'd') t(k, v)",
			want: []string{"-2:2,b", "-3:3,c", "+2:3,C", "+3:4,d"},
		},
		{
			name: "duplicates by sequence",
			old:  "VALUES (1), (1), (2) t(a)", is: "VALUES (1), (2), (2), (1) t(a)",
			want: []string{"+2:2", "+3:2", "-3:2"},
		},
		{
			name: "values that SQL calls equal",
			old:  "VALUES (1, 0.0::DOUBLE, 'nan'::DOUBLE, INTERVAL 1 MONTH), (2, 1, 1, NULL) t(k, a, b, c)",
			is:   "VALUES (1, -0.0::DOUBLE, 'nan'::DOUBLE, INTERVAL 30 DAY), (2, 1, NULL, NULL) t(k, a, b, c)", key: []string{"k"},
			want: []string{"~1>1:1,0.0,nan,1 month>1,-0.0,nan,30 days[1 3]", "~2>2:2,1.0,1.0,NULL>2,1.0,NULL,NULL[2]"},
		},
		{
			name: "a column added and one dropped",
			old:  "VALUES (1, 'a'), (2, 'b') t(k, gone)", is: "VALUES (1, NULL), (2, 7) t(k, fresh)", key: []string{"k"},
			want: []string{"~2>2:2,b>2,7[1]"},
		},
		{
			name: "casts with a loss and without",
			old:  "VALUES (1, 1.0::DOUBLE, '7'), (2, 1.5, '7'), (3, 2, '07'), (4, NULL, NULL), (5, 3, 'x') t(k, a, b)",
			is:   "VALUES (1, 1::INTEGER, 7::BIGINT), (2, 2, 7), (3, 2, 7), (4, NULL, NULL), (5, 3, NULL) t(k, a, b)", key: []string{"k"},
			want: []string{"~2>2:2,1.5,7>2,2,7[1]", "~3>3:3,2.0,07>3,2,7[2]", "~5>5:5,3.0,x>5,3,NULL[2]"},
		},
		{
			name: "types without a cast",
			old:  "VALUES (1, 5), (2, NULL) t(k, a)", is: "VALUES (1, {'x': [5]}), (2, NULL) t(k, a)", key: []string{"k"},
			want: []string{"~1>1:1,5>1,{x: [5]}[1]"},
		},
		{
			name: "names that the worker uses, or that differ in case",
			old:  `VALUES (1, 2, 3, 4, 5) t(pos, "old", twin, k0, "file_row_number")`, is: `VALUES (1, 2, 3, 9, 5) t(POS, "old", twin, k0, "file_row_number")`, key: []string{"POS"},
			want: []string{"~1>1:1,2,3,4,5>1,2,3,9,5[3]"},
		},
		{
			name: "a key of several columns, with a name in need of quotes",
			old:  `VALUES (1, 'a', 1), (1, 'b', 2) t("x ""y""", z, v)`, is: `VALUES (1, 'a', 1), (1, 'b', 3), (2, 'a', 4) t("x ""y""", z, v)`, key: []string{`x "y"`, "z"},
			want: []string{"~2>2:1,b,2>1,b,3[2]", "+3:2,a,4"},
		},
		{
			name: "nothing before", old: "VALUES (1) t(a) WHERE false", is: "VALUES (1), (1) t(a)",
			want: []string{"+1:1", "+2:1"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lab := newLaboratory(t)
			_, rows := lab.diff(t, lab.store(t, "SELECT * FROM ("+strings.Replace(tc.old, " t(", ") t(", 1), tc.key...),
				lab.store(t, "SELECT * FROM ("+strings.Replace(tc.is, " t(", ") t(", 1), tc.key...), tc.key)
			if got := brief(rows); !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

// TestDiffOfKeysThatAreNotUnique: a branch that no gate has passed may hold any table.
func TestDiffOfKeysThatAreNotUnique(t *testing.T) {
	lab := newLaboratory(t)
	was := lab.store(t, "SELECT * FROM (VALUES (1, 'a'), (1, 'b'), (NULL, 'c'), (1, 'b')) t(k, v)")
	is := lab.store(t, "SELECT * FROM (VALUES (1, 'b'), (1, 'x'), (NULL, 'd'), (1, 'y'), (1, 'z')) t(k, v)")
	_, rows := lab.diff(t, was, is, []string{"k"})
	want := []string{"~1>2:1,a>1,x[1]", "~4>4:1,b>1,y[1]", "+5:1,z", "~3>3:NULL,c>NULL,d[1]"}
	if got := brief(rows); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestDiffOfManyRows: parts, frames and windows are more than one, and what is equal
// between them is found.
func TestDiffOfManyRows(t *testing.T) {
	lab := newLaboratory(t)
	lab.partLen, lab.window = 1000, 3000
	const n = 60_000
	text := "SELECT i::BIGINT AS k, repeat('x', 40) || (i %% 100) AS v, i / 7 AS x FROM range(%d) r(i)"
	was := lab.store(t, fmt.Sprintf(text, n))
	is := lab.store(t, fmt.Sprintf("SELECT k, v, CASE WHEN k %% 997 = 3 THEN -1 ELSE x END AS x FROM ("+text+") WHERE k %% 5000 <> 17", n))
	removed, changed := 0, 0
	for i := range n {
		switch {
		case i%5000 == 17:
			removed++
		case i%997 == 3:
			changed++
		}
	}
	counts, rows := lab.diff(t, was, is, nil)
	if want := (protocol.DiffCounts{Removed: int64(removed + changed), Added: int64(changed)}); *counts != want {
		t.Errorf("by sequence: %+v, want %+v", *counts, want)
	}
	if have := lab.apply(t, was, is, rows); !slices.EqualFunc(have, is.rows, slices.Equal[[]string]) {
		t.Error("the diff by sequence does not make one of the other")
	}
	counts, rows = lab.diff(t, was, is, []string{"k"})
	if want := (protocol.DiffCounts{Removed: int64(removed), Changed: int64(changed)}); *counts != want {
		t.Errorf("by key: %+v, want %+v", *counts, want)
	}
	if have := lab.apply(t, was, is, rows); !slices.EqualFunc(have, is.rows, slices.Equal[[]string]) {
		t.Error("the diff by key does not make one of the other")
	}
	all := lab.store(t, fmt.Sprintf("SELECT k, upper(v) AS v, x FROM ("+text+")", n))
	for _, key := range [][]string{nil, {"k"}} {
		o := lab.order(was, all, key)
		o.Format, o.MaxRows = "json", 7
		answer, files := lab.run(t, o)
		want := protocol.DiffCounts{Removed: n, Added: n}
		if key != nil {
			want = protocol.DiffCounts{Changed: n}
		}
		if *answer.Diff != want || strings.Count(string(files["rows-000000.json"]), "\n") != 7 || len(files) != 1 {
			t.Errorf("key %v: %+v and %d files, want all counted and 7 rows sent", key, *answer.Diff, len(files))
		}
	}
	o := lab.order(was, all, []string{"k"})
	o.Format = "json"
	if _, files := lab.run(t, o); len(files) < 5 {
		t.Errorf("%d frames for 60,000 rows: they should come as they are made", len(files))
	}
}

func TestDiffAsParquet(t *testing.T) {
	lab := newLaboratory(t)
	was := lab.store(t, "SELECT * FROM (VALUES (1, 0.0::DOUBLE, [1]), (2, 'nan', NULL), (4, 1, [])) t(k, f, gone)", "k")
	is := lab.store(t, "SELECT * FROM (VALUES (1, -0.0::DOUBLE, 'x'), (2, 'nan', NULL), (3, 2, 'y')) t(k, f, \"a b\")", "k")
	o := lab.order(was, is, []string{"k"})
	o.Format = "parquet"
	answer, files := lab.run(t, o)
	if want := (protocol.DiffCounts{Removed: 1, Added: 1, Changed: 1}); *answer.Diff != want {
		t.Errorf("counts %+v", *answer.Diff)
	}
	path := filepath.Join(t.TempDir(), "diff.parquet")
	if err := os.WriteFile(path, files["diff.parquet"], 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range lab.texts(t, `SELECT kind, old_row, new_row, changed::VARCHAR, "old"."k", "old".f::VARCHAR, "old".gone::VARCHAR, "new"."k", "new".f::VARCHAR, "new"."a b" FROM '`+path+"'") {
		got = append(got, strings.ReplaceAll(strings.Join(row, "|"), "'", ""))
	}
	want := []string{
		"changed|1|1|[f, a b]|1|0.0|[1]|1|-0.0|x",
		"added|NULL|3|[]|NULL|NULL|NULL|3|2.0|y",
		"removed|3|NULL|[]|4|1.0|[]|NULL|NULL|NULL",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if types := lab.texts(t, `SELECT typeof("old"), typeof("new") FROM '`+path+"' LIMIT 1"); types[0][0] != `'STRUCT(k INTEGER, f DOUBLE, gone INTEGER[])` {
		t.Errorf("types %q", types)
	}
}

func TestDiffRefuses(t *testing.T) {
	lab := newLaboratory(t)
	st := lab.store(t, "SELECT 1 AS k, 2 AS v", "k")
	other := lab.store(t, "SELECT 1 AS k, 3 AS v", "k")
	for _, tc := range []struct {
		name string
		edit func(*protocol.Order)
		want string
	}{
		{"no ranges", func(o *protocol.Order) { o.Diff.Ranges = nil }, "ranges of 0 parts, but there are 1 files"},
		{"ranges of nothing", func(o *protocol.Order) { o.Diff.Ranges[0].New.Parts = 2 }, "ranges of more parts than there are files"},
		{"a key that is not there", func(o *protocol.Order) { o.Diff.Key = []string{"x"} }, `key column "x" is not on both sides`},
		{"a format", func(o *protocol.Order) { o.Format = "xml" }, `format "xml"`},
		{"one input", func(o *protocol.Order) { o.Inputs = o.Inputs[:1] }, "want two inputs"},
		{"no part", func(o *protocol.Order) { o.Inputs[0].Files[0] = filepath.Join(lab.dir, "none.parquet") }, "none.parquet"},
		{"no Parquet", func(o *protocol.Order) {
			path := filepath.Join(lab.dir, "text.parquet")
			if err := os.WriteFile(path, []byte("PAR1 and nothing else"), 0o600); err != nil {
				t.Fatal(err)
			}
			o.Inputs[0].Files[0] = path
		}, "text.parquet"},
	} {
		o := lab.order(st, other, []string{"k"})
		tc.edit(o)
		if a, _ := do(t, o); a.Error == nil || !strings.Contains(a.Error.Message, tc.want) || a.Error.Kind == kindInternal {
			t.Errorf("%s: %+v, want %q", tc.name, a.Error, tc.want)
		}
	}
}
