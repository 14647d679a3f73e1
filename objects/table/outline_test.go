package table_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects/table"
)

// outline is what ParseOutline makes of a snapshot.
func outline(s *table.Snapshot) *table.Snapshot {
	out := *s
	out.Parts = slices.Clone(s.Parts)
	for i := range out.Parts {
		out.Parts[i].Columns = nil
	}
	return &out
}

func TestParseOutline(t *testing.T) {
	s := sound()
	// Texts that look like the end of a part, or of the list.
	s.Parts[0].Columns[0].Min = json.RawMessage(`"],\"file\":\"ffffffffffffffffffff.parquet\",\"rows\":9}"`)
	s.Parts[0].Columns[0].Max = json.RawMessage(`"]\n}\n\"parts\": ["`)
	s.Parts = append(s.Parts, s.Parts[0], s.Parts[0])
	for _, s := range []*table.Snapshot{s, sound(), {Format: 1, Columns: []table.Column{{Name: "\n\"parts\": [", Type: "INTEGER"}}}} {
		if _, err := table.Parse(s.Encode()); err != nil {
			t.Fatal(err)
		}
		got, err := table.ParseOutline(s.Encode())
		if err != nil || !reflect.DeepEqual(got.Encode(), outline(s).Encode()) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, outline(s))
		}
	}
	good := string(sound().Encode())
	for name, doc := range map[string]string{
		"cut":         good[:len(good)-3],
		"no parts":    `{"columns": [], "format": 1}`,
		"a bad file":  strings.Replace(good, ".parquet", ".parquat", 1),
		"a bad size":  strings.Replace(good, `"bytes":`, `"bytes":x`, 1),
		"bad rows":    strings.Replace(good, `"rows":`, `"rows":-`, 1),
		"format":      strings.Replace(good, `"format": 1`, `"format": 2`, 1),
		"one line":    strings.ReplaceAll(good, "\n", ""),
		"empty":       "",
		"another key": strings.Replace(good, `"format": 1,`, "\"format\": 1,\n\"x\": 1,", 1),
	} {
		if s, err := table.ParseOutline([]byte(doc)); err == nil {
			t.Errorf("%s: read as %+v", name, s)
		}
	}
}

// FuzzParseOutline: whatever Parse takes, ParseOutline takes for the same.
func FuzzParseOutline(f *testing.F) {
	f.Add(sound().Encode())
	f.Add((&table.Snapshot{Format: 1, Columns: []table.Column{{Name: "a", Type: "INTEGER"}}}).Encode())
	f.Add([]byte("{\n\"columns\": [\n],\n\"format\": 1,\n\"key\": [],\n\"parts\": [\n]\n}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		got, outlineErr := table.ParseOutline(data)
		if !bytes.Equal(data, before) {
			t.Fatal("the bytes were changed")
		}
		s, err := table.Parse(data)
		if err != nil {
			return
		}
		if outlineErr != nil || !reflect.DeepEqual(got, outline(s)) {
			t.Fatalf("%q: outline %+v, %v; want %+v", data, got, outlineErr, outline(s))
		}
	})
}

// big is a table of 7,000 parts, 100 million rows.
func big() []byte {
	s := &table.Snapshot{Format: 1}
	for i := range 10 {
		s.Columns = append(s.Columns, table.Column{Name: fmt.Sprint("c", i), Type: "INTEGER", Nullable: true})
	}
	for n := range 7000 {
		p := table.Part{Bytes: 123456, Rows: 14300, File: fmt.Sprintf("%020x.parquet", n)}
		for i := range 10 {
			p.Columns = append(p.Columns, table.Stats{Max: json.RawMessage(fmt.Sprint(n + i + 10)), Min: json.RawMessage(fmt.Sprint(n + i)), Nulls: 3})
		}
		s.Parts = append(s.Parts, p)
	}
	return s.Encode()
}

func BenchmarkParse(b *testing.B) {
	data := big()
	b.SetBytes(int64(len(data)))
	for range b.N {
		if _, err := table.Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseOutline(b *testing.B) {
	data := big()
	b.SetBytes(int64(len(data)))
	for range b.N {
		if _, err := table.ParseOutline(data); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTypes(t *testing.T) {
	with := func(kind string) error {
		_, err := table.Parse((&table.Snapshot{Format: 1, Columns: []table.Column{{Name: "a", Type: kind}}}).Encode())
		return err
	}
	for _, kind := range []string{
		"INTEGER", "DECIMAL(18,2)", "TIMESTAMP WITH TIME ZONE", "INTEGER[3][]", `STRUCT(a INTEGER, "b ); DROP" VARCHAR[])`, "MAP(VARCHAR, STRUCT(ü DATE))",
		`ENUM('it''s', ')', '"')`, `"NULL"`, `STRUCT("a ""b" INTEGER)`, "GEOMETRY('OGC:CRS84')",
	} {
		if err := with(kind); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	// What would end the statement that it becomes part of.
	for _, kind := range []string{
		"INTEGER)", "INTEGER); COPY x TO 'y'", "INTEGER[)", "STRUCT(a INTEGER", "VARCHAR 'x", `"x`, "INTEGER -- x", "INTEGER /* x", "INTEGER;", "A\nB", "$$x$$", "(]", "E'\\'); x'",
	} {
		if err := with(kind); err == nil {
			t.Errorf("%s was taken for a type", kind)
		}
	}
}

func TestSchemaChanges(t *testing.T) {
	old := &table.Snapshot{Key: []string{"id"}, Columns: []table.Column{{Name: "id", Type: "INTEGER"}, {Name: "gone", Type: "DATE"}, {Name: "Delay", Type: "INTEGER", Nullable: true}, {Name: "x", Type: "VARCHAR"}}}
	is := &table.Snapshot{Key: []string{"id", "x"}, Columns: []table.Column{{Name: "x", Type: "VARCHAR"}, {Name: "id", Type: "BIGINT"}, {Name: "note", Type: "VARCHAR"}, {Name: "delay", Type: "INTEGER"}}}
	want := []table.SchemaChange{
		{Kind: table.ColumnDropped, Column: "gone", From: "DATE"},
		{Kind: table.ColumnRetyped, Column: "id", From: "INTEGER", To: "BIGINT"},
		{Kind: table.ColumnAdded, Column: "note", To: "VARCHAR"},
		{Kind: table.ColumnRenamed, Column: "delay", From: "Delay", To: "delay"},
		{Kind: table.ColumnNullable, Column: "delay", From: "true", To: "false"},
		{Kind: table.ColumnsMoved, From: "id, delay, x", To: "x, id, delay"},
		{Kind: table.KeyChanged, From: "id", To: "id, x"},
	}
	if got := table.SchemaChanges(old, is); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := table.SchemaChanges(old, old); got != nil {
		t.Errorf("of one schema: %+v", got)
	}
	for _, tc := range []struct{ old, new, want []string }{
		{[]string{"id"}, []string{"id", "x"}, []string{"id", "x"}},
		{[]string{"id"}, []string{"note"}, []string{"id"}},   // the new key is of a new column
		{[]string{"gone"}, []string{"note"}, nil},            // neither is on both sides
		{nil, []string{"Delay"}, []string{"delay"}},          // as the new table spells it
		{[]string{"x"}, nil, []string{"x"}}, {nil, nil, nil}, // no key any more, and never one
	} {
		a, b := *old, *is
		a.Key, b.Key = tc.old, tc.new
		if got := table.RowKey(&a, &b); !slices.Equal(got, tc.want) {
			t.Errorf("keys %v and %v: rows are paired by %v, want %v", tc.old, tc.new, got, tc.want)
		}
	}
}
