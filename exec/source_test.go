package exec

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects/table"
)

func twoColumns() *table.Snapshot {
	return &table.Snapshot{
		Format:  table.Format,
		Columns: []table.Column{{Name: "id", Type: "BIGINT"}, {Name: "t", Type: "VARCHAR", Nullable: true}},
		Parts: []table.Part{{File: "a.parquet", Rows: 10, Bytes: 100, Columns: []table.Stats{
			{Min: json.RawMessage("1"), Max: json.RawMessage("10")}, {Nulls: 2, Min: json.RawMessage(`"a"`), Max: json.RawMessage(`"z"`)},
		}}},
	}
}

// A reader skips parts by what table.json says of them, so each single thing it
// says must be checked.
func TestEveryLieInATableIsNamed(t *testing.T) {
	if diff := differs(twoColumns(), twoColumns()); diff != "" {
		t.Fatalf("the truth is called a lie: %s", diff)
	}
	for what, lie := range map[string]struct {
		tell func(*table.Snapshot)
		want string
	}{
		"a column less":       {func(s *table.Snapshot) { s.Columns = s.Columns[:1] }, "1 columns"},
		"another name":        {func(s *table.Snapshot) { s.Columns[0].Name = "key" }, `"key"`},
		"another type":        {func(s *table.Snapshot) { s.Columns[0].Type = "INTEGER" }, "INTEGER"},
		"never NULL":          {func(s *table.Snapshot) { s.Columns[1].Nullable = false }, "2 NULLs"},
		"more rows":           {func(s *table.Snapshot) { s.Parts[0].Rows++ }, "11 rows"},
		"other bytes":         {func(s *table.Snapshot) { s.Parts[0].Bytes-- }, "99 bytes"},
		"fewer NULLs":         {func(s *table.Snapshot) { s.Parts[0].Columns[1].Nulls = 0 }, "nulls 0"},
		"a higher minimum":    {func(s *table.Snapshot) { s.Parts[0].Columns[0].Min = json.RawMessage("5") }, "min 5"},
		"a lower maximum":     {func(s *table.Snapshot) { s.Parts[0].Columns[0].Max = json.RawMessage("5") }, "max 5"},
		"bounds of all NULLs": {func(s *table.Snapshot) { s.Parts[0].Columns[1].Min = nil }, `"t"`},
	} {
		have := twoColumns()
		lie.tell(have)
		if diff := differs(have, twoColumns()); !strings.Contains(diff, lie.want) {
			t.Errorf("%s: got %q, want it to name %q", what, diff, lie.want)
		}
	}
	// Not nullable is a stricter word than the parts', and true if no row is NULL.
	strict, found := twoColumns(), twoColumns()
	found.Columns[0].Nullable = true
	if diff := differs(strict, found); diff != "" {
		t.Errorf("a column without NULLs may be declared not nullable: %s", diff)
	}
}
