package table_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
)

var part = table.PartName(plumbing.NewHash("0123456789abcdef0123456789abcdef01234567"))

func sound() *table.Snapshot {
	return &table.Snapshot{
		Format:  1,
		Columns: []table.Column{{Name: "id", Type: "BIGINT"}, {Name: `é <"x">`, Type: "VARCHAR", Nullable: true}},
		Key:     []string{"id"},
		Parts: []table.Part{{File: part, Rows: 3, Bytes: 500, Columns: []table.Stats{
			{Min: json.RawMessage("-1"), Max: json.RawMessage("170141183460469231731687303715884105727")},
			{Nulls: 1, Min: json.RawMessage(`"<a>"`), Max: json.RawMessage(`"b\n"`)},
		}}},
	}
}

func TestEncoding(t *testing.T) {
	want := `{
"columns": [
  {"name":"id","nullable":false,"type":"BIGINT"},
  {"name":"é <\"x\">","nullable":true,"type":"VARCHAR"}
],
"format": 1,
"key": ["id"],
"parts": [
  {"bytes":500,"columns":[{"max":170141183460469231731687303715884105727,"min":-1,"nulls":0},{"max":"b\n","min":"<a>","nulls":1}],"file":"0123456789abcdef0123.parquet","rows":3}
]
}
`
	if got := string(sound().Encode()); got != want {
		t.Errorf("encoded as %s\nwant %s", got, want)
	}
	if got, err := table.Parse([]byte(want)); err != nil || !reflect.DeepEqual(got, sound()) {
		t.Errorf("parsed %+v, error %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*table.Snapshot)
		want string
	}{
		{"format", func(s *table.Snapshot) { s.Format = 2 }, "format 2"},
		{"no columns", func(s *table.Snapshot) { s.Columns = nil; s.Parts = nil; s.Key = nil }, "0 columns"},
		{"same names", func(s *table.Snapshot) { s.Columns[1].Name = "ID" }, `name "ID" is taken by column "id"`},
		{"no name", func(s *table.Snapshot) { s.Columns[1].Name = "" }, "column 2: name of 0 bytes"},
		{"no type", func(s *table.Snapshot) { s.Columns[1].Type = "" }, "column 2: type of 0 bytes"},
		{"key", func(s *table.Snapshot) { s.Key = []string{"nope"} }, `key: no column "nope"`},
		{"key twice", func(s *table.Snapshot) { s.Key = []string{"id", "id"} }, `key: no column "id", or named twice`},
		{"file", func(s *table.Snapshot) { s.Parts[0].File = "../../x.parquet" }, `file "../../x.parquet"`},
		{"rows", func(s *table.Snapshot) { s.Parts[0].Rows = -1 }, "-1 rows"},
		{"bytes", func(s *table.Snapshot) { s.Parts[0].Bytes = 11 }, "11 bytes"},
		{"sum", func(s *table.Snapshot) {
			s.Parts[0].Rows = 1 << 48
			s.Parts = append(s.Parts, s.Parts[0])
		}, "too many rows"},
		{"nulls", func(s *table.Snapshot) { s.Parts[0].Columns[0].Nulls = 4 }, "4 nulls in 3 rows"},
		{"half", func(s *table.Snapshot) { s.Parts[0].Columns[0].Min = nil }, "one of min and max"},
		{"bounds of nothing", func(s *table.Snapshot) { s.Parts[0].Columns[0].Nulls = 3 }, "min and max of no values"},
		{"object", func(s *table.Snapshot) { s.Parts[0].Columns[0].Min = json.RawMessage("{}") }, "not a number"},
		{"float", func(s *table.Snapshot) { s.Parts[0].Columns[0].Min = json.RawMessage("1.50") }, "not in canonical form, want 1.5"},
		{"long bound", func(s *table.Snapshot) {
			s.Parts[0].Columns[0].Min = json.RawMessage(`"` + strings.Repeat("x", 2000) + `"`)
		}, "2002 bytes"},
		{"statistics", func(s *table.Snapshot) { s.Parts[0].Columns = nil }, "statistics of 0 columns, want 2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := sound()
			tc.edit(s)
			if _, err := table.Parse(s.Encode()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
	good := string(sound().Encode())
	for name, doc := range map[string]string{
		"spaces":         strings.Replace(good, `"format": 1`, `"format":  1`, 1),
		"upper-case key": strings.Replace(good, `"rows"`, `"Rows"`, 1),
		"twice":          strings.Replace(good, `"format": 1,`, "\"format\": 2,\n\"format\": 1,", 1),
		"unknown":        strings.Replace(good, `"format": 1,`, "\"format\": 1,\n\"x\": 1,", 1),
		"trailing":       good + "{}",
		"no newline":     strings.TrimSuffix(good, "\n"),
		"CRLF":           strings.ReplaceAll(good, "\n", "\r\n"),
		"escapes":        strings.Replace(good, `<a>`, `\u003ca>`, 1),
		"not UTF-8":      strings.Replace(good, `<a>`, "\xff", 1),
		"empty":          "",
		"null":           "null",
	} {
		if s, err := table.Parse([]byte(doc)); err == nil {
			t.Errorf("%s: parsed as %+v", name, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sound().Encode())
	f.Add((&table.Snapshot{Format: 1, Columns: []table.Column{{Name: "a", Type: "INTEGER"}}}).Encode())
	f.Add([]byte(`{"columns":[{}],"format":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := table.Parse(data)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Encode(), data) {
			t.Fatalf("took what is not canonical: %q", data)
		}
		if s.Rows() < 0 {
			t.Fatal("rows overflow")
		}
	})
}

func TestNames(t *testing.T) {
	for name, dir := range map[string]string{"flights": "tables/flights", "ns.flights-2": "tables/ns/flights-2", "2024": "tables/2024"} {
		got, err := table.Dir(name)
		if err != nil || got != dir {
			t.Errorf("Dir(%q) = %q, %v", name, got, err)
		}
		if back, ok := table.NameOf(dir + "/x.parquet"); !ok || back != name {
			t.Errorf("NameOf(%q) = %q, %v", dir, back, ok)
		}
	}
	for _, name := range []string{"", ".", "a.", ".a", "a.b.c", "a b", "a/b", "..", "-a", "é", "base", "BASE.x", "main.x", "temp", strings.Repeat("a", 101), "a\x00"} {
		if dir, err := table.Dir(name); err == nil {
			t.Errorf("Dir(%q) = %q, want an error", name, dir)
		}
	}
	for _, path := range []string{"tables/x.parquet", "models/a/x.parquet", "tables/a/b/c/x", "tables/a.b/x", "tables/base/x", "x"} {
		if name, ok := table.NameOf(path); ok {
			t.Errorf("NameOf(%q) = %q, want none", path, name)
		}
	}
}

func TestNameAndDirAreInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.StringMatching(`tables(/[a-zA-Z0-9_.-]{0,6}){1,3}`).Draw(t, "path")
		name, ok := table.NameOf(path + "/f")
		if !ok {
			return
		}
		if dir, err := table.Dir(name); err != nil || dir != path {
			t.Fatalf("%q is table %q, whose directory is %q, %v", path, name, dir, err)
		}
	})
}

func TestCheckFooter(t *testing.T) {
	file := func(head, middle string, foot uint32, tail string) string {
		return head + middle + string([]byte{byte(foot), byte(foot >> 8), byte(foot >> 16), byte(foot >> 24)}) + tail
	}
	for _, tc := range []struct{ name, data, want string }{
		{"good", file("PAR1", "data-meta", 4, "PAR1"), ""},
		{"empty", "", "not a Parquet file: 0 bytes"},
		{"pointer", "version https://git-lfs.github.com/spec/v1", "Git LFS pointer"},
		{"cut", file("PAR1", "data-meta", 4, "PAR1")[:14], "cut short"},
		{"encrypted", file("PARE", "data-meta", 4, "PARE"), "encrypted"},
		{"no metadata", file("PAR1", "data", 0, "PAR1"), "metadata of 0 bytes"},
		{"too much metadata", file("PAR1", "data", 5, "PAR1"), "metadata of 5 bytes in a file of 16"},
		{"huge metadata", file("PAR1", "data", 1<<32-1, "PAR1"), "metadata of 4294967295 bytes"},
	} {
		err := table.CheckFooter(strings.NewReader(tc.data), int64(len(tc.data)))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
	if err := table.CheckFooter(strings.NewReader("PAR1"), 100); err == nil {
		t.Error("a file shorter than its size passed")
	}
}

// lake is a few objects in memory.
type lake map[objects.OID]object

type object struct {
	kind objects.Type
	data []byte
}

func (l lake) Stat(_ context.Context, oid objects.OID) (objects.Info, error) {
	o, ok := l[oid]
	if !ok {
		return objects.Info{}, fmt.Errorf("%s: %w", oid, objects.ErrNotFound)
	}
	return objects.Info{Type: o.kind, Size: int64(len(o.data))}, nil
}

func (l lake) Open(ctx context.Context, oid objects.OID) (objects.Info, io.ReadCloser, error) {
	info, err := l.Stat(ctx, oid)
	return info, io.NopCloser(bytes.NewReader(l[oid].data)), err
}

func (l lake) put(kind objects.Type, data []byte) objects.OID {
	oid := plumbing.ComputeHash(kind, data)
	l[oid] = object{kind, data}
	return oid
}

// tree stores files by path; content "->x" is a symbolic link.
func (l lake) tree(t *testing.T, files map[string]string) objects.OID {
	t.Helper()
	var entries []gitobj.Entry
	below := make(map[string]map[string]string)
	for path, content := range files {
		if dir, rest, ok := strings.Cut(path, "/"); ok {
			if below[dir] == nil {
				below[dir] = make(map[string]string)
			}
			below[dir][rest] = content
			continue
		}
		mode := gitobj.Mode(gitobj.ModeFile)
		if strings.HasPrefix(content, "->") {
			mode = gitobj.ModeSymlink
		}
		entries = append(entries, gitobj.Entry{Name: path, Mode: mode, OID: l.put(objects.Blob, []byte(content))})
	}
	for dir, sub := range below {
		entries = append(entries, gitobj.Entry{Name: dir, Mode: gitobj.ModeTree, OID: l.tree(t, sub)})
	}
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		t.Fatal(err)
	}
	return l.put(objects.Tree, data)
}

func TestDiscover(t *testing.T) {
	l := lake{}
	root := l.tree(t, map[string]string{
		"README.md":                "x",
		"models/tables/x.sql":      "x",
		"tables/README.md":         "not a table",
		"tables/b/table.json":      string(sound().Encode()),
		"tables/b/" + part:         "PAR1",
		"tables/ns/a/z.parquet":    "PAR1",
		"tables/ns/a/a.parquet":    "PAR1",
		"tables/ns/a/NOTES.md":     "x",
		"tables/empty/.gitkeep":    "",
		"tables/.hidden/x.parquet": "x",
	})
	tables, err := table.Discover(context.Background(), l, root)
	if err != nil {
		t.Fatal(err)
	}
	if len(tables) != 2 || tables[0].Name != "b" || tables[1].Name != "ns.a" {
		t.Fatalf("tables %+v", tables)
	}
	if !reflect.DeepEqual(tables[0].Snapshot, sound()) || tables[1].Snapshot != nil {
		t.Errorf("snapshots %+v, %+v", tables[0].Snapshot, tables[1].Snapshot)
	}
	if p := tables[1].Parquet; len(p) != 2 || p[0].Name != "a.parquet" || p[1].Name != "z.parquet" {
		t.Errorf("parquet files %+v", p)
	}
	one, err := table.Load(context.Background(), l, tables[0].OID)
	if err != nil || len(one.Parquet) != 1 || one.Snapshot.Rows() != 3 {
		t.Errorf("Load = %+v, %v", one, err)
	}
	if none, err := table.Discover(context.Background(), l, l.tree(t, map[string]string{"a": ""})); err != nil || len(none) != 0 {
		t.Errorf("no tables: %+v, %v", none, err)
	}
}

func TestDiscoverRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"a file", map[string]string{"tables": "x"}, "tables: is not a directory"},
		{"too deep", map[string]string{"tables/a/b/c/x.parquet": "x"}, "tables/a/b/c: too deep"},
		{"bad name", map[string]string{"tables/a b/x.parquet": "x"}, `tables/a b: table name "a b"`},
		{"dot", map[string]string{"tables/a.b/x.parquet": "x"}, "a table's name has no dot"},
		{"reserved", map[string]string{"tables/base/t/x.parquet": "x"}, `"base" is reserved`},
		{"case", map[string]string{"tables/a/x.parquet": "x", "tables/A/x.parquet": "x"}, "differ in case only"},
		{"link", map[string]string{"tables/a/x.parquet": "->/etc/passwd"}, `tables/a: "x.parquet" is not a regular file`},
		{"table.json", map[string]string{"tables/a/table.json": "{}"}, "tables/a: table.json: format 0"},
		{"conflict", map[string]string{"tables/a/table.json": "{\n\"columns\": [\n<<<<<<< HEAD\n=======\n>>>>>>> x\n"}, "tables/a: table.json: line 3 is a conflict marker of git"},
		{"conflict in line 1", map[string]string{"tables/a/table.json": "<<<<<<< HEAD\n{\n"}, "tables/a: table.json: line 1 is a conflict marker of git"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := lake{}
			_, err := table.Discover(context.Background(), l, l.tree(t, tc.files))
			var bad *table.Error
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want a *table.Error with %q", err, tc.want)
			}
		})
	}
	l := lake{}
	if _, err := table.Discover(context.Background(), l, plumbing.NewHash("1234567890123456789012345678901234567890")); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("missing tree: error %v", err)
	}
}

// A directory that is no sound table is told of, beside those that are.
func TestDiscoverAll(t *testing.T) {
	l := lake{}
	root := l.tree(t, map[string]string{"tables/a/table.json": "<<<<<<< HEAD\n", "tables/b/x.parquet": "x", "tables/ns/c/y.parquet": "->/etc/passwd"})
	tables, err := table.DiscoverAll(context.Background(), l, root)
	if err != nil || len(tables) != 3 {
		t.Fatalf("%d tables, %v", len(tables), err)
	}
	for i, want := range []struct{ name, unsound string }{{"a", "tables/a: table.json: line 1"}, {"b", ""}, {"ns.c", `tables/ns/c: "y.parquet" is not a regular file`}} {
		got := tables[i]
		if got.Name != want.name || got.OID.IsZero() || (got.Unsound == nil) != (want.unsound == "") || got.Unsound != nil && !strings.Contains(got.Unsound.Error(), want.unsound) {
			t.Errorf("table %q is unsound for %v, want %q for %q", got.Name, got.Unsound, want.name, want.unsound)
		}
	}
	if _, err := table.DiscoverAll(context.Background(), l, l.tree(t, map[string]string{"tables/a b/x.parquet": "x"})); err == nil {
		t.Error("a name that cannot be a table's is no table that is unsound")
	}
}
