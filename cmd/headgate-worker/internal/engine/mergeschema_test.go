package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/exec/protocol"
)

// values is a query of rows with names for their columns: values("id, a", "1, 2", "3, 4").
func values(names string, rows ...string) string {
	return "SELECT * FROM (VALUES (" + strings.Join(rows, "), (") + ")) AS v(" + names + ")"
}

func TestMergeOfSchemas(t *testing.T) {
	const base = "SELECT * FROM (VALUES (1, 10, 'x'), (2, 20, 'y'), (3, 30, 'z')) AS v(id, a, b)"
	for _, tc := range []struct {
		name, ours, theirs string
		columns            string // of the merged table, with types
		rows               []string
		conflicts          []string
		key                [3]string // of base, ours and theirs; "" is id
	}{
		{
			name: "a column added on one side, a cell changed on the other",
			ours: values("id, a, b", "1, 11, 'x'", "2, 20, 'y'", "3, 30, 'z'"), theirs: values("id, a, b, c", "1, 10, 'x', 7", "2, 20, 'y', 8", "4, 40, 'w', 9"),
			columns: "id INTEGER, a INTEGER, b VARCHAR, c INTEGER", rows: []string{"1/11/x/7", "2/20/y/8", "4/40/w/9"},
		},
		{
			name: "a row inserted beside an added column has none of it",
			ours: values("id, a, b", "1, 10, 'x'", "2, 20, 'y'", "3, 30, 'z'", "4, 40, 'w'"), theirs: values("id, a, b, c", "1, 10, 'x', 7", "2, 20, 'y', 8", "3, 30, 'z', 9"),
			columns: "id INTEGER, a INTEGER, b VARCHAR, c INTEGER", rows: []string{"1/10/x/7", "2/20/y/8", "3/30/z/9", "4/40/w/-"},
		},
		{
			name: "the same column added on both sides alike",
			ours: values("id, a, b, c", "1, 11, 'x', 7", "2, 20, 'y', 8", "3, 30, 'z', 9"), theirs: values("id, a, b, c", "1, 10, 'x', 7", "2, 22, 'y', 8", "3, 30, 'z', 9"),
			columns: "id INTEGER, a INTEGER, b VARCHAR, c INTEGER", rows: []string{"1/11/x/7", "2/22/y/8", "3/30/z/9"},
		},
		{
			name: "the same column added on both sides with other cells",
			ours: values("id, a, b, c", "1, 10, 'x', 7", "2, 20, 'y', 8", "3, 30, 'z', 9"), theirs: values("id, a, b, c", "1, 10, 'x', 7", "2, 20, 'y', NULL", "3, 30, 'z', 1"),
			conflicts: []string{"2/c/cell/-/8/-", "3/c/cell/-/9/1"},
		},
		{
			name: "the same column added on both sides with two types",
			ours: values("id, a, b, c", "1, 10, 'x', 7"), theirs: values("id, a, b, c", "1, 10, 'x', 'seven'"),
			conflicts: []string{"-/c/schema/no column/INTEGER/VARCHAR"},
		},
		{
			name: "two columns added",
			ours: values("id, a, b, c", "1, 10, 'x', 7", "2, 20, 'y', 8", "3, 30, 'z', 9"), theirs: values("id, d, a, b", "1, 'p', 10, 'x'", "2, 'q', 20, 'y'", "3, 'r', 30, 'z'"),
			columns: "id INTEGER, a INTEGER, b VARCHAR, c INTEGER, d VARCHAR", rows: []string{"1/10/x/7/p", "2/20/y/8/q", "3/30/z/9/r"},
		},
		{
			name: "a type widened on one side",
			ours: values("id, a, b", "1, 10::BIGINT, 'x'", "2, 5000000000, 'y'", "3, 30, 'z'"), theirs: values("id, a, b", "1, 11, 'x'", "2, 20, 'y'", "3, 30, 'zz'"),
			columns: "id INTEGER, a BIGINT, b VARCHAR", rows: []string{"1/11/x", "2/5000000000/y", "3/30/zz"},
		},
		{
			name: "a type widened on both sides, more on one",
			ours: values("id, a, b", "1, 10::BIGINT, 'x'", "2, 20, 'y'", "3, 30, 'z'"), theirs: values("id, a, b", "1, 11::DECIMAL(30,2), 'x'", "2, 20, 'y'", "3, 30, 'z'"),
			columns: "id INTEGER, a DECIMAL(30,2), b VARCHAR", rows: []string{"1/11/x", "2/20/y", "3/30/z"},
		},
		{
			name: "a type changed, but not widened",
			ours: values("id, a, b", "1, 'ten', 'x'"), theirs: values("id, a, b", "1, 11, 'x'", "2, 20, 'y'", "3, 30, 'z'"),
			conflicts: []string{"-/a/schema/INTEGER/VARCHAR/INTEGER"},
		},
		{
			name: "a column dropped on one side, others edited",
			ours: values("id, a", "1, 10", "2, 20", "3, 30"), theirs: values("id, a, b", "1, 11, 'x'", "2, 20, 'y'", "4, 40, 'w'"),
			columns: "id INTEGER, a INTEGER", rows: []string{"1/11", "2/20", "4/40"},
		},
		{
			name: "a column dropped on one side and edited on the other",
			ours: values("id, a", "1, 10", "2, 20", "3, 30"), theirs: values("id, a, b", "1, 11, 'X'", "2, 20, 'y'", "3, 30, 'z'"),
			conflicts: []string{"1/b/dropped/x/-/X"},
		},
		{
			name: "a column dropped on both sides",
			ours: values("id, a", "1, 11", "2, 20", "3, 30"), theirs: values("id, a", "1, 10", "2, 22", "3, 30"),
			columns: "id INTEGER, a INTEGER", rows: []string{"1/11", "2/22", "3/30"},
		},
		{
			name: "columns put elsewhere on one side",
			ours: values("id, a, b", "1, 11, 'x'", "2, 20, 'y'", "3, 30, 'z'"), theirs: values("b, id, a", "'x', 1, 10", "'yy', 2, 20", "'z', 3, 30"),
			columns: "b VARCHAR, id INTEGER, a INTEGER", rows: []string{"x/1/11", "yy/2/20", "z/3/30"},
		},
		{
			name: "columns whose names differ in case only",
			ours: values("id, a, b, c", "1, 10, 'x', 7"), theirs: values("id, a, b, \"C\"", "1, 10, 'x', 7"),
			conflicts: []string{`-/C/schema/-/there is a column "c"/there is a column "C", which is the same name in SQL`},
		},
		{
			name: "a key given on one side",
			ours: values("id, a, b", "1, 11, 'x'", "2, 20, 'y'", "3, 30, 'z'"), theirs: values("id, a, b", "1, 10, 'x'", "2, 20, 'yy'", "3, 30, 'z'"),
			key: [3]string{"none", "none", "id"}, columns: "id INTEGER, a INTEGER, b VARCHAR", rows: []string{"1/11/x", "2/20/yy", "3/30/z"},
		},
		{
			name: "another key on each side",
			ours: values("id, a, b", "1, 10, 'x'"), theirs: values("id, a, b", "1, 10, 'x'"),
			key: [3]string{"id", "a", "b"}, conflicts: []string{"-/-/key/key (id)/key (a)/key (b)"},
		},
		{
			name: "a key taken away",
			ours: values("id, a, b", "1, 11, 'x'"), theirs: values("id, a, b", "1, 10, 'x'", "3, 30, 'z'"),
			key: [3]string{"id", "id", "none"}, conflicts: []string{"-/-/key/key (id)/key (id)/no key"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bench := newMergeBench(t)
			var v [3]version
			for i, query := range []string{base, tc.ours, tc.theirs} {
				key := []string{tc.key[i]}
				switch tc.key[i] {
				case "":
					key = []string{"id"}
				case "none":
					key = nil
				}
				v[i] = bench.cut(t, query, key...)
			}
			r := bench.merge(t, v[0], v[1], v[2])
			if tc.conflicts != nil {
				for i, c := range tc.conflicts { // no key's columns if the key itself is in conflict
					if n := strings.Count(c, "/") - strings.Count(r.conflicts[min(i, len(r.conflicts)-1)], "/"); n > 0 {
						tc.conflicts[i] = c[2*n:]
					}
				}
				if !slices.Equal(r.conflicts, tc.conflicts) {
					t.Errorf("conflicts %q, want %q", r.conflicts, tc.conflicts)
				}
				return
			}
			if len(r.conflicts) > 0 {
				t.Fatalf("conflicts %q", r.conflicts)
			}
			var columns []string
			for _, c := range r.Snapshot.Columns {
				columns = append(columns, c.Name+" "+c.Type)
			}
			if got := strings.Join(columns, ", "); got != tc.columns {
				t.Errorf("columns %s, want %s", got, tc.columns)
			}
			if got := bench.rowsOf(t, r.version); !slices.Equal(got, tc.rows) {
				t.Errorf("rows %q, want %q", got, tc.rows)
			}
		})
	}
}

// What SQL calls equal is not the same: an edit from one to the other is an edit.
func TestMergeSeesWhatSQLCallsEqual(t *testing.T) {
	bench := newMergeBench(t)
	const names = "id, f, i, l, c"
	base := bench.cut(t, values(names, "1, 0.0::DOUBLE, INTERVAL '1 month', [0.0::DOUBLE], 1"), "id")
	ours := bench.cut(t, values(names, "1, '-0.0'::DOUBLE, INTERVAL '30 days', ['-0.0'::DOUBLE], 1"), "id")
	theirs := bench.cut(t, values(names, "1, 0.0::DOUBLE, INTERVAL '1 month', [0.0::DOUBLE], 2"), "id")
	r := bench.merge(t, base, ours, theirs)
	got := bench.read(t, "SELECT CAST(COLUMNS(*) AS VARCHAR) FROM "+parquet(r.paths[r.Parts[0].File]))
	if want := []string{"1/-0.0/30 days/[-0.0]/2"}; !slices.Equal(got, want) {
		t.Errorf("merged into %q, want %q", got, want)
	}
	deleted := bench.cut(t, values(names, "2, 0.0::DOUBLE, INTERVAL '1 month', [0.0::DOUBLE], 1"), "id")
	r = bench.merge(t, base, ours, deleted)
	if len(r.conflicts) != 3 {
		t.Errorf("a row whose cells became others and that was deleted: conflicts %q", r.conflicts)
	}
}

// Rows without a key: appends of both sides follow each other, changes in different
// parts are both taken, and all else is a conflict.
func TestMergeWithoutKey(t *testing.T) {
	bench := newMergeBench(t)
	rows := func(list []int) string {
		texts := make([]string, len(list))
		for i, n := range list {
			texts[i] = fmt.Sprintf("%d, 'row %d'", n, n)
		}
		return values("n, text", texts...)
	}
	appended, both, conflicts := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		base := make([]int, rapid.IntRange(1, 80).Draw(rt, "rows"))
		for i := range base {
			base[i] = i
		}
		edit := func(name string, fresh int) []int {
			out := slices.Clone(base)
			at := len(out)
			if !rapid.Bool().Draw(rt, name+" appends") {
				at = rapid.IntRange(0, len(out)).Draw(rt, name)
			}
			to := min(len(out), at+rapid.IntRange(0, 2).Draw(rt, name+" gone"))
			added := make([]int, rapid.IntRange(0, 9).Draw(rt, name+" added"))
			for i := range added {
				added[i] = fresh + i
			}
			return slices.Replace(out, at, to, added...)
		}
		ours, theirs := edit("ours", 1000), edit("theirs", 2000)
		if len(ours) == 0 || len(theirs) == 0 {
			return
		}
		vb, vo, vt := bench.cut(rt, rows(base)), bench.cut(rt, rows(ours)), bench.cut(rt, rows(theirs))
		r := bench.merge(rt, vb, vo, vt)
		appends := len(ours) >= len(base) && len(theirs) >= len(base) && slices.Equal(ours[:len(base)], base) && slices.Equal(theirs[:len(base)], base)
		if len(r.conflicts) > 0 {
			if appends {
				rt.Fatalf("appends to %v are in conflict: %q", base, r.conflicts)
			}
			conflicts++
			return
		}
		want := ours
		switch {
		case slices.Equal(ours, theirs):
		case appends:
			want = append(slices.Clone(ours), theirs[len(base):]...)
			appended++
		default: // each side's edit, in its place
			want = overlay(base, ours, theirs)
			both++
		}
		if got, cut := r.Encode(), bench.cut(rt, rows(want)).Encode(); string(got) != string(cut) {
			rt.Fatalf("base %v\nours %v\ntheirs %v\nmerged into %q, want %v", base, ours, theirs, bench.rowsOf(rt, r.version), want)
		}
	})
	if appended == 0 || both == 0 || conflicts == 0 {
		t.Errorf("%d merges of appends, %d of others, %d conflicts: the test shows nothing", appended, both, conflicts)
	}
}

// overlay puts the one stretch in which each version differs from the base in its place.
func overlay(base, ours, theirs []int) []int {
	stretch := func(now []int) (from, tail int) {
		for from < min(len(base), len(now)) && base[from] == now[from] {
			from++
		}
		for tail < min(len(base), len(now))-from && base[len(base)-1-tail] == now[len(now)-1-tail] {
			tail++
		}
		return from, tail
	}
	from, _ := stretch(ours)
	other, tail := stretch(theirs)
	if from > other {
		ours, theirs = theirs, ours
		from, _ = stretch(ours)
		other, tail = stretch(theirs)
	}
	_, oursTail := stretch(ours)
	out := slices.Clone(ours[:len(ours)-oursTail])
	if oursTail > len(base)-other {
		out = append(out, base[len(base)-oursTail:other]...)
	}
	_ = from
	return append(append(out, theirs[other:len(theirs)-tail]...), base[len(base)-tail:]...)
}

func TestMergeRules(t *testing.T) {
	bench := newMergeBench(t)
	base := bench.cut(t, values("id, a, b", "1, 10, 'x'", "2, 20, 'y'", "3, 30, 'z'", "4, 40, 'w'"), "id")
	ours := bench.cut(t, values("id, a, b", "1, 11, 'xo'", "2, 21, 'y'", "4, 41, 'w'"), "id")
	theirs := bench.cut(t, values("id, a, b", "1, 12, 'xt'", "2, 22, 'y'", "3, 31, 'z'"), "id")
	for _, tc := range []struct {
		name      string
		rules     []protocol.MergeRule
		rows      []string
		conflicts []string
	}{
		{"none", nil, nil, []string{"1/a/cell/10/11/12", "1/b/cell/x/xo/xt", "2/a/cell/20/21/22", "3/a/deleted/30/-/31", "4/a/deleted/40/41/-"}},
		{"ours", []protocol.MergeRule{{Take: "ours"}}, []string{"1/11/xo", "2/21/y", "4/41/w"}, nil},
		{"theirs", []protocol.MergeRule{{Take: "theirs"}}, []string{"1/12/xt", "2/22/y", "3/31/z"}, nil},
		{"one column", []protocol.MergeRule{{Column: "a", Take: "ours"}}, nil, []string{"1/b/cell/x/xo/xt", "3/a/deleted/30/-/31", "4/a/deleted/40/41/-"}},
		{"some rows", []protocol.MergeRule{{Where: "id <= 2", Take: "base"}}, nil, []string{"3/a/deleted/30/-/31", "4/a/deleted/40/41/-"}},
		{
			"an expression, and the first rule counts",
			[]protocol.MergeRule{{Column: "a", SQL: "ours + theirs + id -- both"}, {Where: "id = 3", Take: "theirs"}, {Take: "ours"}},
			[]string{"1/24/xo", "2/45/y", "3/31/z", "4/41/w"}, nil,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := bench.merge(t, base, ours, theirs, tc.rules...)
			if !slices.Equal(r.conflicts, tc.conflicts) {
				t.Fatalf("conflicts %q, want %q", r.conflicts, tc.conflicts)
			}
			if len(tc.conflicts) == 0 {
				if got := bench.rowsOf(t, r.version); !slices.Equal(got, tc.rows) {
					t.Errorf("rows %q, want %q", got, tc.rows)
				}
				if r.Resolved != 5 {
					t.Errorf("%d conflicts are said to be resolved", r.Resolved)
				}
			}
		})
	}
	for want, rule := range map[string]protocol.MergeRule{
		`no column "zz"`:    {Column: "zz", Take: "ours"},
		"a rule takes":      {Take: "both"},
		"Parser Error":      {SQL: "1); DROP TABLE x; SELECT (1"},
		`"nope" not found`:  {SQL: "nope"},
		"Could not convert": {Column: "a", SQL: "'many'"},
		"does not exist":    {Where: "id ==== 1", Take: "ours"},
	} {
		func() {
			defer func() {
				if got := recover(); got == nil || !strings.Contains(fmt.Sprint(got), want) {
					t.Errorf("rule %+v: %v, want %q", rule, got, want)
				}
			}()
			bench.merge(panicking{}, base, ours, theirs, rule, protocol.MergeRule{Take: "ours"})
		}()
	}
}

// An expression for all columns need make sense only for those that are in conflict.
func TestMergeRuleForColumnsInConflict(t *testing.T) {
	bench := newMergeBench(t)
	v := func(a string) version { return bench.cut(t, values("id, a, b", "1, "+a+", 'x'"), "id") }
	r := bench.merge(t, v("10"), v("11"), v("12"), protocol.MergeRule{SQL: "ours * 100 + theirs"})
	if got, want := bench.rowsOf(t, r.version), []string{"1/1112/x"}; !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
}

// panicking takes a failure for what is expected.
type panicking struct{}

func (panicking) Helper()                           {}
func (panicking) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// A key that is none in some version is named with examples, and with the version.
func TestMergeRefusesKeysThatAreNone(t *testing.T) {
	bench := newMergeBench(t)
	good := bench.cut(t, values("id, a", "1, 10", "2, 20"), "id")
	other := bench.cut(t, values("id, a", "1, 11", "2, 20"), "id")
	bad := func(query string) version {
		v := bench.cut(t, query)
		v.Key = []string{"id"}
		return v
	}
	for want, side := range map[string]version{
		"theirs: key (id) is not unique: 1 value occurs more than once, such as (7) 2 times": bad(values("id, a", "7, 1", "7, 2")),
		`theirs: key column "id" is NULL in 1 row`:                                           bad(values("id, a", "NULL::INTEGER, 1", "7, 2")),
	} {
		func() {
			defer func() {
				if got := recover(); got == nil || !strings.Contains(fmt.Sprint(got), want) {
					t.Errorf("got %v, want %q", got, want)
				}
			}()
			bench.merge(panicking{}, good, other, side)
		}()
	}
}
