package engine

import (
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/exec/protocol"
)

// chunkRow is a row as the chunker knows it.
type chunkRow struct {
	hash   uint64
	weight int64
}

// cutRows cuts rows as the worker does: it sees only those that matter.
func cutRows(k chunking, rows []chunkRow) []int64 {
	c := &chunker{chunking: k}
	for i, r := range rows {
		if r.hash < k.loose() || r.weight > 1 {
			c.mark(mark{int64(i), r.hash, r.weight})
		}
	}
	return c.finish(int64(len(rows)))
}

// cutPlainly is the rule of docs/formats.md, row by row.
func cutPlainly(target int64, rows []chunkRow) []int64 {
	var ends []int64
	weight := int64(0)
	for i, r := range rows {
		if weight > 0 && weight+r.weight > 2*target {
			ends, weight = append(ends, int64(i)), 0
		}
		weight += r.weight
		share := float64(r.hash) / math.MaxUint64 / float64(r.weight)
		small := share < 1/float64(4*target)
		if weight >= target {
			small = share < 4/float64(target)
		}
		if weight >= 2*target || weight*2 >= target && small {
			ends, weight = append(ends, int64(i+1)), 0
		}
	}
	if weight > 0 {
		ends = append(ends, int64(len(rows)))
	}
	return ends
}

func drawRows(rt *rapid.T, target int64, name string) []chunkRow {
	seed := rapid.Uint64().Draw(rt, name+" seed")
	n := rapid.IntRange(0, int(20*target)).Draw(rt, name+" rows")
	heavy := rapid.SampledFrom([]int{0, 0, 10, 500}).Draw(rt, name+" heavy rows in a thousand")
	random := rand.New(rand.NewPCG(seed, 1))
	rows := make([]chunkRow, n)
	for i := range rows {
		rows[i] = chunkRow{random.Uint64(), 1}
		if random.IntN(1000) < heavy {
			rows[i].weight = 1 + random.Int64N(3*target)
		}
	}
	return rows
}

func TestChunksFollowTheRule(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		target := rapid.SampledFrom([]int64{8, 64, 100}).Draw(rt, "target")
		rows := drawRows(rt, target, "table")
		have, want := cutRows(chunking{target}, rows), cutPlainly(target, rows)
		if !slices.Equal(have, want) {
			rt.Fatalf("cut at %v, want %v", have, want)
		}
	})
}

func TestChunksAreBounded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const target = 64
		rows := drawRows(rt, target, "table")
		start := int64(0)
		ends := cutRows(chunking{target}, rows)
		for i, end := range ends {
			var weight int64
			for _, r := range rows[start:end] {
				weight += r.weight
			}
			if weight > 2*target && end-start > 1 {
				rt.Fatalf("part %d weighs %d", i, weight)
			}
			next := int64(0)
			if int(end) < len(rows) {
				next = rows[end].weight
			}
			if i < len(ends)-1 && weight < target/2 && weight+next <= 2*target {
				rt.Fatalf("part %d weighs only %d", i, weight)
			}
			start = end
		}
		if len(rows) > 0 && start != int64(len(rows)) {
			rt.Fatalf("the parts end at %d of %d rows", start, len(rows))
		}
	})
}

// An edit changes the parts around it: the cuts before it stay, and a few parts
// behind it they are the old ones again.
func TestChunksAfterAnEdit(t *testing.T) {
	const target, rows, edits = 64, 200 * 64, 300
	random := rand.New(rand.NewPCG(7, 7))
	table := make([]chunkRow, rows)
	for i := range table {
		table[i] = chunkRow{random.Uint64(), 1}
	}
	k := chunking{target}
	before := cutRows(k, table)
	changed := 0
	for range edits {
		at := random.IntN(rows)
		edited := slices.Insert(slices.Clone(table), at, chunkRow{random.Uint64(), 1})
		known := make(map[string]bool)
		start := int64(0)
		for _, end := range before {
			known[fmt.Sprint(table[start:end])] = true
			start = end
		}
		start = 0
		fresh := 0
		for _, end := range cutRows(k, edited) {
			if !known[fmt.Sprint(edited[start:end])] {
				fresh++
			}
			start = end
		}
		if fresh > 12 {
			t.Errorf("a row at %d changes %d parts", at, fresh)
		}
		changed += fresh
	}
	if mean := float64(changed) / edits; mean > 2 {
		t.Errorf("a row changes %.2f parts", mean)
	}
}

// Rows that are all alike never say where to cut, nor do rows without end.
func TestChunksOfHopelessRows(t *testing.T) {
	for _, hash := range []uint64{math.MaxUint64, 0} {
		rows := make([]chunkRow, 1000)
		for i := range rows {
			rows[i] = chunkRow{hash, 1}
		}
		ends := cutRows(chunking{64}, rows)
		want := int64(128)
		if hash == 0 {
			want = 32
		}
		if ends[0] != want || ends[1] != 2*want || ends[len(ends)-1] != 1000 {
			t.Errorf("hash %d: cut at %v", hash, ends)
		}
	}
	if ends := cutRows(chunking{64}, nil); len(ends) != 0 {
		t.Errorf("no rows are cut at %v", ends)
	}
}

// Rows of a megabyte make parts of few rows, so that a part fits in memory.
func TestWideRowsMakePartsOfFewRows(t *testing.T) {
	a, files := do(t, &protocol.Order{Op: protocol.OpModel, SQL: "SELECT i, repeat(chr(65 + (i % 26)::INTEGER), 1000000) AS s FROM range(100) t(i)", Key: []string{"i"}})
	if a.Error != nil {
		t.Fatal(a.Error)
	}
	for _, p := range a.Snapshot.Parts {
		if p.Rows > 67 {
			t.Errorf("a part has %d rows of a megabyte", p.Rows)
		}
	}
	if a.Rows != 100 || len(files) != len(a.Snapshot.Parts) || len(files) < 2 {
		t.Errorf("%d rows in %d files", a.Rows, len(files))
	}
}

// Parquet holds each float as it is: a dictionary that took -0.0 for 0.0 would lose it.
func TestNegativeZerosAreKept(t *testing.T) {
	const rows = "SELECT i, CASE i % 3 WHEN 0 THEN -0.0::DOUBLE WHEN 1 THEN 0.0 ELSE i END AS d, [CASE i % 3 WHEN 0 THEN '-0'::FLOAT ELSE 0 END] AS l FROM range(20000) t(i)"
	a, files := do(t, &protocol.Order{Op: protocol.OpModel, SQL: rows, Key: []string{"i"}})
	if a.Error != nil {
		t.Fatal(a.Error)
	}
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var negative, inLists int
	for _, p := range a.Snapshot.Parts {
		path := filepath.Join(t.TempDir(), p.File)
		if err := os.WriteFile(path, files[p.File], 0o600); err != nil {
			t.Fatal(err)
		}
		var d, l int
		query := "SELECT count(*) FILTER (WHERE d::VARCHAR = '-0.0'), count(*) FILTER (WHERE l::VARCHAR = '[-0.0]') FROM '" + path + "'"
		if err := db.QueryRow(query).Scan(&d, &l); err != nil {
			t.Fatal(err)
		}
		negative, inLists = negative+d, inLists+l
	}
	if want := 6667; negative != want || inLists != want {
		t.Errorf("%d and %d of %d are -0.0", negative, inLists, want)
	}
}

// What Parquet would change is refused, and what it holds is taken.
func TestInexactValuesAreRefused(t *testing.T) {
	for value, refused := range map[string]bool{
		"INTERVAL '1 month 2 days 3.123 seconds'":      false,
		"INTERVAL '3.123456 seconds'":                  true,
		"INTERVAL '2400 hours'":                        true,
		"[INTERVAL '3.123456 seconds']":                true,
		"'12:34:56.123456+00'::TIMETZ":                 false,
		"'12:34:56.123456+05:30'::TIMETZ":              true,
		"{'at': '12:34:56.123456+05:30'::TIMETZ}":      true,
		"TIMESTAMPTZ '2001-01-01 00:00:00+05:30'":      false,
		"'00000000-0000-0000-0000-0000000000ff'::UUID": false,
	} {
		a, _ := do(t, &protocol.Order{Op: protocol.OpModel, SQL: "SELECT " + value + " AS v"})
		if refused != (a.Error != nil) {
			t.Errorf("%s: error %+v, want one: %v", value, a.Error, refused)
		} else if refused && !strings.Contains(a.Error.Message, `column "v"`) {
			t.Errorf("%s: %s", value, a.Error.Message)
		}
	}
}
