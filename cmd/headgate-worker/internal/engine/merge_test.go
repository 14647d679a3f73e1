package engine

import (
	"bytes"
	"crypto/sha1"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

// version is a snapshot whose parts are files on disk.
type version struct {
	*table.Snapshot
	paths map[string]string // by part name
}

// mergeBench cuts tables into small parts and merges them.
type mergeBench struct {
	t    *testing.T
	dir  string
	db   *sql.DB
	rows int64 // what parts are cut around
}

func newMergeBench(t *testing.T) *mergeBench {
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &mergeBench{t: t, dir: t.TempDir(), db: db, rows: 4}
}

// fataler is what testing.T and rapid.T have in common.
type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// cut makes a version of a query's rows, in the query's order if there is no key.
func (b *mergeBench) cut(f fataler, query string, key ...string) version {
	f.Helper()
	path := filepath.Join(b.dir, fmt.Sprintf("%x.whole", sha1.Sum([]byte(query))))
	if _, err := os.Stat(path); err != nil {
		if _, err := b.db.Exec("COPY (" + query + ") TO '" + path + "' (FORMAT parquet)"); err != nil {
			f.Fatalf("%s: %v", query, err)
		}
	}
	a, files := doInParts(b.t, &protocol.Order{Op: protocol.OpCut, Files: []string{path}, FileFormat: "parquet", Key: key, KeepOrder: len(key) == 0}, b.rows)
	if a.Error != nil {
		f.Fatalf("cut: %v", a.Error)
	}
	return b.version(f, a.Snapshot, key, files, nil)
}

// version writes files to disk and names them by content. Parts that were there are those of known.
func (b *mergeBench) version(f fataler, found *protocol.Snapshot, key []string, files map[string][]byte, known map[string]table.Part) version {
	f.Helper()
	v := version{&table.Snapshot{Format: table.Format, Key: key}, make(map[string]string)}
	for _, c := range found.Columns {
		v.Columns = append(v.Columns, table.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable})
	}
	for _, p := range found.Parts {
		if part, ok := known[p.File]; ok {
			v.Parts, v.paths[part.File] = append(v.Parts, part), p.File
			continue
		}
		data, ok := files[p.File]
		if !ok {
			f.Fatalf("part %q was not sent", p.File)
		}
		name := table.PartName(plumbing.ComputeHash(plumbing.BlobObject, data))
		part := table.Part{File: name, Rows: p.Rows, Bytes: int64(len(data))}
		for _, st := range p.Stats {
			part.Columns = append(part.Columns, table.Stats{Nulls: st.Nulls, Min: st.Min, Max: st.Max})
		}
		v.Parts, v.paths[name] = append(v.Parts, part), filepath.Join(b.dir, name)
		if err := os.WriteFile(v.paths[name], data, 0o600); err != nil {
			f.Fatalf("%v", err)
		}
	}
	return v
}

// result is what a merge gave: a version, or conflicts as "key.../column/kind/base/ours/theirs".
type result struct {
	version
	*protocol.Merged
	conflicts []string
	read      map[string]bool // files that had to be there
}

func protocolColumns(s *table.Snapshot) []protocol.Column {
	if s == nil {
		return nil
	}
	var out []protocol.Column
	for _, c := range s.Columns {
		out = append(out, protocol.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable})
	}
	return out
}

// merge merges as a caller does: with more parts at hand when the first were too few.
func (b *mergeBench) merge(f fataler, base, ours, theirs version, rules ...protocol.MergeRule) result {
	f.Helper()
	for staged := 1; ; staged *= 2 {
		r := b.mergeStaged(f, base, ours, theirs, staged, rules)
		if !r.Short {
			return r
		}
		if staged > 1<<20 {
			f.Fatalf("the merge is never content with what is staged")
		}
	}
}

func (b *mergeBench) mergeStaged(f fataler, base, ours, theirs version, staged int, rules []protocol.MergeRule) result {
	f.Helper()
	plan := table.PlanMerge(base.Snapshot, ours.Snapshot, theirs.Snapshot)
	m := &protocol.Merge{Base: protocolColumns(base.Snapshot), Ours: protocolColumns(ours.Snapshot), Theirs: protocolColumns(theirs.Snapshot),
		Columns: protocolColumns(&table.Snapshot{Columns: plan.Columns}), Rules: rules}
	known := make(map[string]table.Part)
	read := make(map[string]bool)
	paths := func(parts []table.Part, most int) []string {
		var out []string
		for i, p := range parts {
			for _, v := range []version{base, ours, theirs} {
				if path, ok := v.paths[p.File]; ok {
					known[path] = p
					out = append(out, path)
					read[path] = read[path] || i < most
					break
				}
			}
		}
		return out
	}
	for _, s := range plan.Segments {
		seg := protocol.MergeSegment{Keep: paths(s.Keep, staged), Base: paths(s.Base, 1<<30), Ours: paths(s.Ours, 1<<30), Theirs: paths(s.Theirs, 1<<30)}
		seg.Staged = min(staged, len(seg.Keep))
		m.Segments = append(m.Segments, seg)
	}
	for _, c := range plan.Conflicts {
		m.Conflicts = append(m.Conflicts, protocol.MergeConflict(c))
	}
	a, files := doInParts(b.t, &protocol.Order{Op: protocol.OpMerge, Key: plan.Key, Merge: m}, b.rows)
	if a.Error != nil {
		f.Fatalf("merge: %v", a.Error)
	}
	r := result{Merged: a.Merged, read: read}
	switch {
	case a.Merged.Short:
	case a.Merged.Conflicts > 0:
		r.conflicts = b.rowsOf(f, b.version(f, a.Snapshot, nil, files, nil))
		if int64(len(r.conflicts)) != a.Merged.Conflicts {
			f.Fatalf("%d conflicts in the file, the answer says %d", len(r.conflicts), a.Merged.Conflicts)
		}
	default:
		r.version = b.version(f, a.Snapshot, plan.Key, files, known)
	}
	return r
}

// read returns a query's rows, cells joined by "/".
func (b *mergeBench) read(f fataler, query string) []string {
	f.Helper()
	rows, err := b.db.Query(query)
	if err != nil {
		f.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		f.Fatalf("%v", err)
	}
	var out []string
	for rows.Next() {
		cells := make([]any, len(names))
		targets := make([]any, len(names))
		for i := range cells {
			targets[i] = &cells[i]
		}
		if err := rows.Scan(targets...); err != nil {
			f.Fatalf("%v", err)
		}
		texts := make([]string, len(names))
		for i, c := range cells {
			texts[i] = "-"
			if c != nil {
				texts[i] = fmt.Sprint(c)
			}
		}
		out = append(out, strings.Join(texts, "/"))
	}
	return out
}

func (b *mergeBench) rowsOf(f fataler, v version) []string {
	f.Helper()
	var files []string
	for _, p := range v.Parts {
		files = append(files, v.paths[p.File])
	}
	return b.read(f, "SELECT * FROM "+parquet(files...))
}

// item is a row of the tables here, by its key: cells are texts, "-" for NULL.
type item [2]string

type items map[int]item

func (rows items) query() string {
	var values []string
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		r := rows[k]
		a, b := "NULL", "NULL"
		if r[0] != "-" {
			a = r[0]
		}
		if r[1] != "-" {
			b = "'" + r[1] + "'"
		}
		values = append(values, fmt.Sprintf("(%d::BIGINT, %s::BIGINT, %s::VARCHAR)", k, a, b))
	}
	if len(values) == 0 {
		return "SELECT 1::BIGINT AS id, 1::BIGINT AS a, ''::VARCHAR AS b WHERE false"
	}
	return "SELECT * FROM (VALUES " + strings.Join(values, ", ") + ") AS v(id, a, b)"
}

func (rows items) text() []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		out = append(out, fmt.Sprintf("%d/%s/%s", k, rows[k][0], rows[k][1]))
	}
	return out
}

// change is one edit: of a cell, or of a whole row (cell -1), which it inserts or deletes.
type change struct {
	key, cell int
	value     string
	row       *item // nil deletes
}

func apply(rows items, script []change) items {
	out := maps.Clone(rows)
	for _, c := range script {
		r, there := out[c.key]
		switch {
		case c.cell < 0 && c.row == nil:
			delete(out, c.key)
		case c.cell < 0:
			out[c.key] = *c.row
		case there:
			r[c.cell] = c.value
			out[c.key] = r
		}
	}
	return out
}

// script is the shortest one that makes now of base.
func script(base, now items) []change {
	var out []change
	for k := range union(base, now) {
		b, inBase := base[k]
		n, inNow := now[k]
		switch {
		case !inNow:
			out = append(out, change{key: k, cell: -1})
		case !inBase:
			out = append(out, change{key: k, cell: -1, row: &n})
		default:
			for i := range n {
				if n[i] != b[i] {
					out = append(out, change{key: k, cell: i, value: n[i]})
				}
			}
		}
	}
	return out
}

func drawItem(t *rapid.T) item {
	return item{
		rapid.SampledFrom([]string{"-", "0", "1", "2"}).Draw(t, "a"),
		rapid.SampledFrom([]string{"-", "", "x", "y"}).Draw(t, "b"),
	}
}

func drawScript(t *rapid.T, keys *rapid.Generator[int]) []change {
	var script []change
	for range rapid.IntRange(0, 8).Draw(t, "edits") {
		c := change{key: keys.Draw(t, "key"), cell: rapid.IntRange(-1, 1).Draw(t, "cell")}
		value := drawItem(t)
		switch {
		case c.cell >= 0:
			c.value = value[c.cell]
		case rapid.Bool().Draw(t, "insert"):
			c.row = &value
		}
		script = append(script, c)
	}
	return script
}

// touched are the cells in which a version differs from its base: "3/0", and "3/*" of
// a row that came or went, which is all of its cells.
func touched(base, now items) map[string]bool {
	out := make(map[string]bool)
	for k := range maps.Keys(union(base, now)) {
		b, inBase := base[k]
		n, inNow := now[k]
		if inBase != inNow {
			for _, cell := range []string{"0", "1", "*"} {
				out[fmt.Sprintf("%d/%s", k, cell)] = true
			}
			continue
		}
		for i := range b {
			if b[i] != n[i] {
				out[fmt.Sprintf("%d/%d", k, i)] = true
				out[fmt.Sprintf("%d/any", k)] = true
			}
		}
	}
	return out
}

func union(a, b items) items {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// inConflict is the specification: which cells of which rows are in conflict.
func inConflict(base, ours, theirs items) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(union(union(base, ours), theirs))) {
		b, inBase := base[k]
		o, inOurs := ours[k]
		t, inTheirs := theirs[k]
		for _, i := range []int{0, 1} {
			line := func(kind string, cells ...string) {
				out = append(out, fmt.Sprintf("%d/%s/%s/%s", k, []string{"a", "b"}[i], kind, strings.Join(cells, "/")))
			}
			switch {
			case inOurs && inTheirs && inBase && o[i] != b[i] && t[i] != b[i] && o[i] != t[i]:
				line("cell", b[i], o[i], t[i])
			case inOurs && inTheirs && !inBase && o[i] != t[i]:
				line("inserted", "-", o[i], t[i])
			case inBase && inOurs && !inTheirs && o[i] != b[i]:
				line("deleted", b[i], o[i], "-")
			case inBase && inTheirs && !inOurs && t[i] != b[i]:
				line("deleted", b[i], "-", t[i])
			}
		}
	}
	return out
}

// TestMergeOfEditScripts: where the scripts touch different cells, the merge is what
// both give in either order, in the very parts that a cut of that gives; where they
// touch the same, it reports these cells and no other.
func TestMergeOfEditScripts(t *testing.T) {
	bench := newMergeBench(t)
	merges, conflicts, kept := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, 60).Draw(rt, "rows")
		base := make(items)
		for k := range n {
			base[k] = drawItem(rt)
		}
		// Edits close together meet in parts, and in rows; those far apart do not.
		near := rapid.IntRange(0, n+3)
		ours, theirs := apply(base, drawScript(rt, near)), apply(base, drawScript(rt, near))
		vb, vo, vt := bench.cut(rt, base.query(), "id"), bench.cut(rt, ours.query(), "id"), bench.cut(rt, theirs.query(), "id")
		r := bench.merge(rt, vb, vo, vt)
		want := inConflict(base, ours, theirs)
		if !slices.Equal(r.conflicts, want) {
			rt.Fatalf("base %v\nours %v\ntheirs %v\nconflicts %q, want %q", base, ours, theirs, r.conflicts, want)
		}
		disjoint := true
		a, b := touched(base, ours), touched(base, theirs)
		for cell := range a {
			disjoint = disjoint && (!b[cell] || strings.HasSuffix(cell, "/any"))
		}
		for x, y := range map[*map[string]bool]map[string]bool{&a: b, &b: a} {
			for cell := range *x { // a row that went on one side, and was changed on the other
				if row, ok := strings.CutSuffix(cell, "/*"); ok && y[row+"/any"] {
					disjoint = false
				}
			}
		}
		if len(want) > 0 {
			if disjoint {
				rt.Fatalf("disjoint edits are in conflict: %q", want)
			}
			conflicts++
			return
		}
		merges++
		full := bench.mergedOracle(base, ours, theirs)
		if disjoint {
			one, other := apply(ours, script(base, theirs)), apply(theirs, script(base, ours))
			if !slices.Equal(full.text(), one.text()) || !slices.Equal(full.text(), other.text()) {
				rt.Fatalf("one order gives %v, the other %v, the merge %v", one.text(), other.text(), full.text())
			}
		}
		cut := bench.cut(rt, full.query(), "id")
		if got, want := r.Encode(), cut.Encode(); !bytes.Equal(got, want) {
			rt.Fatalf("base %v\nours %v\ntheirs %v\nmerged into %q\nwant %q\n%s\nwant\n%s", base.text(), ours.text(), theirs.text(), bench.rowsOf(rt, r.version), full.text(), got, want)
		}
		for _, p := range r.Parts {
			if !r.read[r.paths[p.File]] {
				kept++
			}
		}
	})
	if merges == 0 || conflicts == 0 || kept == 0 {
		t.Errorf("%d merges, %d conflicts, %d parts that nobody opened: the test shows nothing", merges, conflicts, kept)
	}
}

// mergedOracle merges by the definition, cell by cell.
func (b *mergeBench) mergedOracle(base, ours, theirs items) items {
	out := make(items)
	for k := range union(ours, theirs) {
		was, inBase := base[k]
		o, inOurs := ours[k]
		t, inTheirs := theirs[k]
		switch {
		case inBase && (!inOurs || !inTheirs): // deleted
		case !inOurs:
			out[k] = t
		case !inTheirs:
			out[k] = o
		default:
			for i := range o {
				if o[i] == was[i] {
					o[i] = t[i]
				}
			}
			out[k] = o
		}
	}
	return out
}
