package engine

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/headgate/headgate/exec/protocol"
)

// forge returns a Parquet file whose footer says something else than was written.
func forge(t *testing.T, change func(*format.FileMetaData)) string {
	t.Helper()
	data, err := os.ReadFile(write(t, "SELECT i, 'text ' || (i % 10) AS s, [i] AS l FROM range(1000) t(i)", ", COMPRESSION zstd"))
	if err != nil {
		t.Fatal(err)
	}
	foot := int(binary.LittleEndian.Uint32(data[len(data)-8:]))
	start := len(data) - 8 - foot
	var meta format.FileMetaData
	if err := thrift.Unmarshal(new(thrift.CompactProtocol), data[start:start+foot], &meta); err != nil {
		t.Fatal(err)
	}
	change(&meta)
	changed, err := thrift.Marshal(new(thrift.CompactProtocol), &meta)
	if err != nil {
		t.Fatal(err)
	}
	out := append(bytes.Clone(data[:start]), changed...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(changed)))
	path := filepath.Join(t.TempDir(), "forged.parquet")
	if err := os.WriteFile(path, append(out, "PAR1"...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A footer that lies is refused, by an import and for a part at the gate, before
// anything of the announced size is made.
func TestFootersThatLie(t *testing.T) {
	for name, change := range map[string]func(*format.FileMetaData){
		"rows":                      func(m *format.FileMetaData) { m.NumRows, m.RowGroups[0].NumRows = 1<<45, 1<<45 },
		"rows of the group":         func(m *format.FileMetaData) { m.RowGroups[0].NumRows = 1 << 45 },
		"a negative number of rows": func(m *format.FileMetaData) { m.NumRows, m.RowGroups[0].NumRows = -5, -5 },
		"values": func(m *format.FileMetaData) {
			for i := range m.RowGroups[0].Columns {
				m.RowGroups[0].Columns[i].MetaData.NumValues = 1 << 45
			}
			m.RowGroups[0].NumRows, m.NumRows = 1<<45, 1<<45
		},
		"sizes": func(m *format.FileMetaData) {
			for i := range m.RowGroups[0].Columns {
				m.RowGroups[0].Columns[i].MetaData.TotalCompressedSize = 1 << 45
				m.RowGroups[0].Columns[i].MetaData.TotalUncompressedSize = 1 << 45
			}
		},
		"offsets": func(m *format.FileMetaData) {
			for i := range m.RowGroups[0].Columns {
				m.RowGroups[0].Columns[i].MetaData.DataPageOffset += 1 << 40
				m.RowGroups[0].Columns[i].MetaData.DictionaryPageOffset += 1 << 40
			}
		},
		"columns": func(m *format.FileMetaData) { m.RowGroups[0].Columns = m.RowGroups[0].Columns[:1] },
		"nesting": func(m *format.FileMetaData) {
			leaf := m.Schema[1]
			group := format.SchemaElement{Name: "g", NumChildren: m.Schema[0].NumChildren, RepetitionType: leaf.RepetitionType}
			group.NumChildren.V = 1
			m.Schema = []format.SchemaElement{group}
			for range 20_000 {
				m.Schema = append(m.Schema, group)
			}
			m.Schema = append(m.Schema, leaf)
			m.RowGroups[0].Columns = m.RowGroups[0].Columns[:1]
		},
		"children": func(m *format.FileMetaData) { m.Schema[0].NumChildren.V = 1 << 30 },
	} {
		t.Run(name, func(t *testing.T) {
			path := forge(t, change)
			for _, order := range []*protocol.Order{
				{Op: protocol.OpCut, FileFormat: "parquet", Files: []string{path}, MemoryLimit: 256 << 20},
				{Op: protocol.OpDescribe, Inputs: []protocol.Table{{Name: "t", Files: []string{path}}}, MemoryLimit: 256 << 20},
			} {
				a, files := do(t, order)
				if a.Error == nil {
					t.Errorf("%s: taken, with %d rows and %d files", order.Op, a.Rows, len(files))
				} else if !strings.Contains(a.Error.Message, path) {
					t.Errorf("%s: %q does not name the file", order.Op, a.Error.Message)
				}
			}
		})
	}
}

// CSV that cannot be read is refused with the file, the line, and what to do.
func TestCSVThatCannotBeRead(t *testing.T) {
	bad := map[string]struct {
		text string
		csv  *protocol.CSV
		want string
	}{
		"latin-1":  {"name,n\nJos\xe9,1\n", nil, ": line 2: it is not UTF-8: say what it is, with --csv-encoding latin-1 or utf-16"},
		"type":     {"a,b\n1,2\nx,3\n", &protocol.CSV{Types: map[string]string{"a": "INTEGER"}}, `: line 3: column "a". Could not convert string "x" to 'INTEGER'`},
		"empty":    {"", nil, " is empty: there are not even names of columns"},
		"encoding": {"a\n1\n", &protocol.CSV{Encoding: "ebcdic"}, `encoding "ebcdic": want utf-8, utf-16 or latin-1`},
		"no type":  {"a\n1\n", &protocol.CSV{Types: map[string]string{"a": "NUMBER) --"}}, "there is no type"},
	}
	for name, tc := range bad {
		t.Run(name, func(t *testing.T) {
			path := file(t, "x.csv", tc.text)
			a, _ := do(t, &protocol.Order{Op: protocol.OpCut, FileFormat: "csv", Files: []string{path}, CSV: tc.csv})
			want := tc.want
			if strings.HasPrefix(want, ":") || strings.HasPrefix(want, " is") {
				want = path + want
			}
			if a.Error == nil || !strings.HasPrefix(a.Error.Message, want) || strings.Contains(a.Error.Message, "\n") {
				t.Errorf("error %+v, want %q", a.Error, want)
			}
		})
	}
}

// What is said of a CSV file holds, whatever it looks like.
func TestCSVSettings(t *testing.T) {
	quote, no, skip := "'", false, 1
	path := file(t, "x.csv", "a comment\n1;'x;y';1,5;02.01.2024;-\n#2;z;2,5;03.01.2024;n\n3;z;2,5;03.01.2024;n\n")
	a, files := ok(t, &protocol.Order{Op: protocol.OpCut, FileFormat: "csv", KeepOrder: true, Files: []string{path}, CSV: &protocol.CSV{
		Delimiter: ";", Quote: &quote, Header: &no, Skip: &skip, Comment: "#", Null: []string{"-"}, DateFormat: "%d.%m.%Y", DecimalComma: true,
		Types: map[string]string{"column0": "SMALLINT"},
	}})
	if a.Snapshot.Columns[0].Type != "SMALLINT" || a.Snapshot.Columns[2].Type != "DOUBLE" || a.Snapshot.Columns[3].Type != "DATE" {
		t.Errorf("columns %v", a.Snapshot.Columns)
	}
	want := []string{"column0,column1,column2,column3,column4", "1,x;y,1.5,2024-01-02,", "3,z,2.5,2024-01-03,n"}
	if got := rowsOf(t, files["part-000000.parquet"]); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("rows %q, want %q", got, want)
	}
}

func FuzzSchemaDepth(f *testing.F) {
	f.Add([]byte{0x19, 0x2c, 0x48, 1, 'a', 0x15, 2, 0, 0x48, 1, 'b', 0, 0})
	f.Add(bytes.Repeat([]byte{0x1c}, 100))
	f.Fuzz(func(t *testing.T, data []byte) {
		if d := schemaDepth(data); d < 0 || d > maxNesting+1 {
			t.Errorf("depth %d", d)
		}
	})
}
