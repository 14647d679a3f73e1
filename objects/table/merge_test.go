package table_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/headgate/headgate/objects/table"
)

// parts makes a keyed snapshot of parts with these names.
func parts(names ...string) *table.Snapshot {
	s := &table.Snapshot{Format: 1, Columns: []table.Column{{Name: "id", Type: "BIGINT"}, {Name: "x", Type: "INTEGER", Nullable: true}}, Key: []string{"id"}}
	for _, n := range names {
		s.Parts = append(s.Parts, table.Part{File: n, Rows: 1, Bytes: 12})
	}
	return s
}

func files(parts []table.Part) []string {
	var out []string
	for _, p := range parts {
		out = append(out, p.File)
	}
	return out
}

// TestPlanMergeKeepsParts: only what both sides changed is merged by rows.
func TestPlanMergeKeepsParts(t *testing.T) {
	base := parts("a", "b", "c", "d", "e", "f", "g")
	m := table.PlanMerge(base, parts("a", "B", "c", "d", "E", "f", "g", "h"), parts("a", "b", "c", "D", "d", "EE", "f"))
	var got []string
	for _, s := range m.Segments {
		if s.ByRows() {
			got = append(got, fmt.Sprint("merge ", files(s.Base), files(s.Ours), files(s.Theirs)))
		} else {
			got = append(got, fmt.Sprint("keep ", files(s.Keep)))
		}
	}
	want := []string{"keep [a B c D d]", "merge [e] [E] [EE]", "keep [f]", "merge [g] [g h] []"}
	if !slices.Equal(got, want) || len(m.Conflicts) > 0 {
		t.Errorf("got %q, want %q; conflicts %v", got, want, m.Conflicts)
	}
	same := table.PlanMerge(base, parts("a", "X"), parts("a", "X"))
	if len(same.Segments) != 1 || !slices.Equal(files(same.Segments[0].Keep), []string{"a", "X"}) {
		t.Errorf("the same change on both sides: %+v", same.Segments)
	}
	// What may be null on either side may be in what is made of both.
	loose := parts("a")
	loose.Columns[0].Nullable = true
	if m := table.PlanMerge(base, loose, base); !m.Columns[0].Nullable || len(m.Segments) != 1 {
		t.Errorf("nullable on one side: %+v", m)
	}
}

func TestPlanMergeOfTypes(t *testing.T) {
	typed := func(t string) *table.Snapshot {
		s := parts("a")
		s.Columns[1].Type = t
		return s
	}
	for _, tc := range []struct{ base, ours, theirs, want string }{
		{"INTEGER", "BIGINT", "INTEGER", "BIGINT"},
		{"INTEGER", "INTEGER", "BIGINT", "BIGINT"},
		{"INTEGER", "BIGINT", "DOUBLE", ""}, // a DOUBLE does not hold every BIGINT
		{"SMALLINT", "INTEGER", "BIGINT", "BIGINT"},
		{"SMALLINT", "BIGINT", "INTEGER", "BIGINT"},
		{"BIGINT", "INTEGER", "BIGINT", ""},
		{"BIGINT", "INTEGER", "INTEGER", "INTEGER"}, // both alike
		{"FLOAT", "DOUBLE", "FLOAT", "DOUBLE"},
		{"INTEGER", "FLOAT", "INTEGER", ""},
		{"BIGINT", "DECIMAL(19,0)", "BIGINT", "DECIMAL(19,0)"},
		{"BIGINT", "DECIMAL(18,0)", "BIGINT", ""},
		{"DECIMAL(9,2)", "DECIMAL(10,3)", "DECIMAL(9,2)", "DECIMAL(10,3)"},
		{"DECIMAL(9,2)", "DECIMAL(10,4)", "DECIMAL(9,2)", ""},
		{"DECIMAL(9,2)", "DECIMAL(10,3)", "DECIMAL(12,3)", "DECIMAL(12,3)"},
		{"DATE", "TIMESTAMP", "DATE", "TIMESTAMP"},
		{"VARCHAR", "INTEGER", "VARCHAR", ""},
		{"TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP", ""},
	} {
		m := table.PlanMerge(typed(tc.base), typed(tc.ours), typed(tc.theirs))
		if tc.want == "" {
			if len(m.Conflicts) != 1 || m.Conflicts[0].Column != "x" || len(m.Segments) > 0 {
				t.Errorf("%+v: %+v, want a conflict", tc, m)
			}
			continue
		}
		if len(m.Conflicts) > 0 || m.Columns[1].Type != tc.want {
			t.Errorf("%+v: %+v", tc, m)
		}
	}
}

// Without a base or a key there is nothing by which rows of two tables could be the same.
func TestPlanMergeWithoutKey(t *testing.T) {
	keyless := func(names ...string) *table.Snapshot {
		s := parts(names...)
		s.Key = nil
		return s
	}
	if m := table.PlanMerge(nil, keyless("a"), keyless("b")); len(m.Conflicts) != 1 {
		t.Errorf("two new tables: %+v", m)
	}
	if m := table.PlanMerge(nil, parts("a"), parts("b")); len(m.Conflicts) > 0 || len(m.Segments) != 1 || !m.Segments[0].ByRows() {
		t.Errorf("two new tables with one key: %+v", m)
	}
	wide := keyless("b")
	wide.Columns = append(wide.Columns, table.Column{Name: "y", Type: "INTEGER"})
	if m := table.PlanMerge(keyless("a"), keyless("a", "c"), wide); len(m.Conflicts) != 1 || m.Conflicts[0].Kind != "schema" {
		t.Errorf("another schema: %+v", m)
	}
}
