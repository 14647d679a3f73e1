package tablediff_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/tablediff"
	"github.com/headgate/headgate/objects/table"
)

// state is a table with a part for each letter, of as many rows as the letter's
// place in the alphabet.
func state(parts string, key ...string) tablediff.State {
	s := tablediff.State{Snapshot: &table.Snapshot{Format: 1, Key: key, Columns: []table.Column{{Name: "k", Type: "INTEGER"}, {Name: "v", Type: "VARCHAR"}}}}
	for _, c := range parts {
		s.Parts = append(s.Parts, string(c))
		s.Snapshot.Parts = append(s.Snapshot.Parts, table.Part{File: string(c), Rows: int64(c - 'a' + 1)})
	}
	return s
}

func compare(t *testing.T, was, is tablediff.State) *tablediff.Table {
	t.Helper()
	d, err := tablediff.Compare("ns.t", was, is)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestWorkOpensWhatDiffers(t *testing.T) {
	work := compare(t, state("abcdef", "k"), state("abxdyef", "k")).Work("json", 5)
	want := &protocol.Diff{Key: []string{"k"}, Ranges: []protocol.DiffRange{
		{Old: protocol.DiffParts{Parts: 1, First: 3}, New: protocol.DiffParts{Parts: 1, First: 3}},
		{Old: protocol.DiffParts{Parts: 0, First: 10}, New: protocol.DiffParts{Parts: 1, First: 31}},
	}}
	if !reflect.DeepEqual(work.Order.Diff, want) || fmt.Sprint(work.OldParts, work.NewParts) != "[2] [2 4]" || work.Order.MaxRows != 5 || work.Known != nil {
		t.Errorf("%+v, parts %v and %v", work.Order.Diff, work.OldParts, work.NewParts)
	}
	same := compare(t, state("abc"), state("abc"))
	if work := same.Work("", 0); !same.Same() || work.Order != nil || *work.Known != (protocol.DiffCounts{}) {
		t.Errorf("of equal tables: %+v", work)
	}
	// Of a table that came or went, its rows are known, and as many parts are read as are shown.
	for _, limit := range []int64{1, 3, 4, 0} {
		added := compare(t, tablediff.State{}, state("abc")).Work("json", limit)
		want := map[int64]string{1: "[0]", 3: "[0 1]", 4: "[0 1 2]", 0: "[0 1 2]"}[limit]
		if fmt.Sprint(added.NewParts) != want || added.OldParts != nil || *added.Known != (protocol.DiffCounts{Added: 6}) {
			t.Errorf("added, limit %d: %v, %+v", limit, added.NewParts, added.Known)
		}
	}
	deleted := compare(t, state("abc"), tablediff.State{})
	if work := deleted.Work("", 0); work.Order != nil || *work.Known != (protocol.DiffCounts{Removed: 6}) || deleted.Status() != tablediff.Deleted {
		t.Errorf("deleted: %+v", work)
	}
	if _, err := tablediff.Compare("t", tablediff.State{}, tablediff.State{}); err == nil {
		t.Error("nothing was compared with nothing")
	}
}

// TestWorkCoversTheTables: ranges are at the right rows, and what is not in one is equal.
func TestWorkCoversTheTables(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		parts := rapid.StringMatching(`[a-f]{0,8}`)
		a, b := parts.Draw(rt, "a"), parts.Draw(rt, "b")
		was, is := state(a), state(b)
		d, err := tablediff.Compare("t", was, is)
		if err != nil {
			rt.Fatal(err)
		}
		work := d.Work("json", 0)
		if work.Order == nil {
			if a != b {
				rt.Fatalf("%q and %q: no work", a, b)
			}
			return
		}
		first := func(s tablediff.State, part int) (row int64) {
			for _, p := range s.Snapshot.Parts[:part] {
				row += p.Rows
			}
			return row
		}
		var old, new int
		for _, r := range work.Order.Diff.Ranges {
			if r.Old.Parts > 0 && r.Old.First != first(was, work.OldParts[old]) || r.New.Parts > 0 && r.New.First != first(is, work.NewParts[new]) {
				rt.Fatalf("%q and %q: %+v of parts %v, %v", a, b, r, work.OldParts, work.NewParts)
			}
			old, new = old+r.Old.Parts, new+r.New.Parts
		}
		rest := func(s string, parts []int) string {
			out := []byte(s)
			for _, p := range parts {
				out[p] = '-'
			}
			return strings.ReplaceAll(string(out), "-", "")
		}
		if old != len(work.OldParts) || new != len(work.NewParts) || rest(a, work.OldParts) != rest(b, work.NewParts) {
			rt.Fatalf("%q and %q: %v and %v are opened", a, b, work.OldParts, work.NewParts)
		}
	})
}

func frame(rows ...string) *strings.Reader { return strings.NewReader(strings.Join(rows, "\n") + "\n") }

// show prints a diff of the given frame.
func show(t *testing.T, d *tablediff.Table, p func(*bytes.Buffer) tablediff.Printer, counts protocol.DiffCounts, rows ...string) string {
	t.Helper()
	var b bytes.Buffer
	printer := p(&b)
	if err := printer.Begin(d); err != nil {
		t.Fatal(err)
	}
	if err := d.Rows(frame(rows...), printer); err != nil {
		t.Fatal(err)
	}
	if err := printer.End(counts); err != nil {
		t.Fatal(err)
	}
	if err := printer.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var threeRows = []string{
	`{"kind":"removed","old_row":1,"old":["1","a"]}`,
	`{"kind":"changed","old_row":2,"new_row":1,"old":["2","b"],"new":["2",null],"changed":[1]}`,
	`{"kind":"added","new_row":2,"new":["3","\u001b[2J\nx"]}`,
}

func TestText(t *testing.T) {
	text := func(c tablediff.Colors) func(*bytes.Buffer) tablediff.Printer {
		return func(b *bytes.Buffer) tablediff.Printer { return tablediff.NewText(b, c, " (more)") }
	}
	keyed := compare(t, state("ab", "k"), state("c", "k"))
	got := show(t, keyed, text(tablediff.Colors{}), protocol.DiffCounts{Removed: 1, Added: 1001, Changed: 1}, threeRows...)
	want := `diff --table tables/ns/t
  k  v
- 1  a
~ 2  b -> NULL
+ 3  \u001b[2J\nx
1 row removed, 1,001 added, 1 changed; 3 of them shown (more)
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	got = show(t, keyed, text(tablediff.GitColors), protocol.DiffCounts{Changed: 1}, threeRows[1])
	if want := "~ 2  \x1b[31mb\x1b[m -> \x1b[32mNULL\x1b[m\n"; !strings.Contains(got, want) {
		t.Errorf("in colours: %q", got)
	}
	// Without a key, numbers say which row it is. Long values are cut so that what changed is seen.
	long := strings.Repeat("x", 100)
	wide := state("c")
	wide.Snapshot.Columns = append(wide.Snapshot.Columns, table.Column{Name: "w", Type: "VARCHAR"})
	got = show(t, compare(t, state("ab"), wide), text(tablediff.Colors{}), protocol.DiffCounts{Removed: 1, Added: 1}, `{"kind":"removed","old_row":7,"old":["1","a"]}`, `{"kind":"added","new_row":8,"new":["1","b","`+long+`"]}`)
	want = `diff --table tables/ns/t
column w VARCHAR added
  row  k  v  w
-   7  1  a
+   8  1  b  ` + strings.Repeat("x", 40) + `…
1 row removed, 1 added
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	got = show(t, keyed, text(tablediff.Colors{}), protocol.DiffCounts{Changed: 1}, `{"kind":"changed","old_row":2,"new_row":1,"old":["2","`+long+`a"],"new":["2","`+long+`b"],"changed":[1]}`)
	if want := "…xxxxxxxxa -> …xxxxxxxxb\n"; !strings.Contains(got, want) {
		t.Errorf("got:\n%s\nwant in it: %s", got, want)
	}
}

func TestStat(t *testing.T) {
	var b bytes.Buffer
	p := tablediff.NewStat(&b)
	for _, d := range []*tablediff.Table{compare(t, state("ab", "k"), state("c")), compare(t, tablediff.State{}, state("c"))} {
		if err := errors.Join(p.Begin(d), p.End(protocol.DiffCounts{Removed: 1, Changed: 2000})); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	want := " tables/ns/t | -1 +0 ~2,000  (key was (k), is ())\n tables/ns/t | -1 +0 ~2,000  (new table)\n 2 tables differ: 2 rows removed, 4,000 changed\n"
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", &b, want)
	}
}

func TestJSON(t *testing.T) {
	got := show(t, compare(t, state("ab", "k"), state("c", "k")), func(b *bytes.Buffer) tablediff.Printer { return tablediff.NewJSON(b) }, protocol.DiffCounts{Removed: 1, Added: 1, Changed: 1}, threeRows...)
	want := `{"format":1,"tables":[
{"table":"ns.t","status":"changed","old_rows":3,"new_rows":3,"key":["k"],"schema":[],"rows":[
{"kind":"removed","old_row":1,"old":{"k":1,"v":"a"}},
{"kind":"changed","old_row":2,"new_row":1,"changed":["v"],"old":{"k":2,"v":"b"},"new":{"k":2,"v":null}},
{"kind":"added","new_row":2,"new":{"k":3,"v":"\u001b[2J\nx"}}
],"removed":1,"added":1,"changed":1}]}
`
	if got != want || !json.Valid([]byte(got)) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	var b bytes.Buffer
	if err := tablediff.NewJSON(&b).Close(); err != nil || !json.Valid(b.Bytes()) {
		t.Errorf("without tables: %q, %v", &b, err)
	}
}

func TestLines(t *testing.T) {
	got := show(t, compare(t, tablediff.State{}, state("c")), func(b *bytes.Buffer) tablediff.Printer { return tablediff.NewLines(b) }, protocol.DiffCounts{},
		`{"kind":"added","new_row":1,"new":["1",null]}`, `{"kind":"added","new_row":1,"new":["1",""]}`, `{"kind":"added","new_row":1,"new":["1","a  b=\n"]}`, `{"kind":"added","new_row":1,"new":["1","a b"]}`)
	want := "k=1\nk=1  v=\"\"\nk=1  v=\"a  b=\\n\"\nk=1  v=a b\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestRowsThatCannotBe: what a worker says is foreign.
func TestRowsThatCannotBe(t *testing.T) {
	d := compare(t, state("ab", "k"), state("c", "k"))
	for _, row := range []string{
		`{"kind":"moved","old":["1","a"]}`,
		`{"kind":"removed","old":["1"]}`,
		`{"kind":"removed","old":["1","a"],"new":["1","a"]}`,
		`{"kind":"added"}`,
		`{"kind":"changed","old":["1","a"],"new":["1","b"],"changed":[2]}`,
		`{"kind":"changed","old":["1","a"],"new":["1","b"],"changed":[-1]}`,
		`[]`, `{`, `nonsense`,
	} {
		var bad *protocol.FormatError
		if err := d.Rows(frame(row), tablediff.NewText(&bytes.Buffer{}, tablediff.Colors{}, "")); !errors.As(err, &bad) {
			t.Errorf("%s: %v", row, err)
		}
	}
}

// FuzzRows: no answer of a worker makes a printer fall over.
func FuzzRows(f *testing.F) {
	for _, row := range threeRows {
		f.Add([]byte(row))
	}
	was, is := state("ab", "k"), state("c", "k")
	d, err := tablediff.Compare("t", was, is)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, p := range []tablediff.Printer{tablediff.NewText(&bytes.Buffer{}, tablediff.GitColors, ""), tablediff.NewJSON(&bytes.Buffer{}), tablediff.NewStat(&bytes.Buffer{}), tablediff.NewLines(&bytes.Buffer{})} {
			if err := errors.Join(p.Begin(d), d.Rows(bytes.NewReader(data), p), p.End(protocol.DiffCounts{}), p.Close()); err != nil {
				var bad *protocol.FormatError
				if !errors.As(err, &bad) {
					t.Fatal(err)
				}
			}
		}
	})
}
