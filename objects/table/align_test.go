package table_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects/table"
)

// checkAlignment fails unless ranges are an alignment of a and b as documented.
func checkAlignment(t interface {
	Helper()
	Fatalf(string, ...any)
}, a, b []int, ranges []table.Range) {
	t.Helper()
	var at table.Range
	for i, r := range ranges {
		if r.A.From != at.A.To || r.B.From != at.B.To || r.A.To < r.A.From || r.B.To < r.B.From {
			t.Fatalf("range %d of %+v does not follow the one before", i, ranges)
		}
		if i > 0 && r.Equal == at.Equal {
			t.Fatalf("ranges %d and %d of %+v are of one kind", i-1, i, ranges)
		}
		switch {
		case r.Equal && (r.A.Len() == 0 || !slices.Equal(a[r.A.From:r.A.To], b[r.B.From:r.B.To])):
			t.Fatalf("range %+v is not equal in %v and %v", r, a, b)
		case !r.Equal && r.A.Len() == 0 && r.B.Len() == 0:
			t.Fatalf("range %+v is empty", r)
		}
		at = r
	}
	if at.A.To != len(a) || at.B.To != len(b) {
		t.Fatalf("%+v do not cover %d and %d elements", ranges, len(a), len(b))
	}
}

func common(ranges []table.Range) int {
	n := 0
	for _, r := range ranges {
		if r.Equal {
			n += r.A.Len()
		}
	}
	return n
}

// longest is the length of the longest common subsequence, by the textbook.
func longest(a, b []int) int {
	row := make([]int, len(b)+1)
	for _, x := range a {
		diagonal := 0
		for j, y := range b {
			above := row[j+1]
			if x == y {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(above, row[j])
			}
			diagonal = above
		}
	}
	return row[len(b)]
}

// edited draws a list that came of one by edits: what a snapshot does.
func edited(t *rapid.T, name string, list []int, fresh func() int) []int {
	out := slices.Clone(list)
	for range rapid.IntRange(0, 4).Draw(t, name+" edits") {
		at := rapid.IntRange(0, len(out)).Draw(t, name+" at")
		to := rapid.IntRange(at, min(len(out), at+3)).Draw(t, name+" to")
		insert := make([]int, rapid.IntRange(0, 3).Draw(t, name+" inserted"))
		for i := range insert {
			insert[i] = fresh()
		}
		out = slices.Replace(out, at, to, insert...)
	}
	return out
}

func TestAlignIsAnAlignment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Few values make duplicates, many make none.
		values := rapid.IntRange(0, rapid.SampledFrom([]int{1, 3, 1000}).Draw(t, "values"))
		a := rapid.SliceOfN(values, 0, 40).Draw(t, "a")
		b := rapid.SliceOfN(values, 0, 40).Draw(t, "b")
		if rapid.Bool().Draw(t, "related") {
			b = edited(t, "b", a, func() int { return values.Draw(t, "value") })
		}
		ranges := table.Align(a, b)
		checkAlignment(t, a, b, ranges)
		if equal := len(ranges) == 0 || len(ranges) == 1 && ranges[0].Equal; equal != slices.Equal(a, b) {
			t.Fatalf("%v and %v: %+v", a, b, ranges)
		}
		if common(ranges) == 0 && longest(a, b) > 0 {
			t.Fatalf("%v and %v have something in common, %+v has nothing", a, b, ranges)
		}
	})
}

// TestAlignIsMinimal: no list of distinct elements has a smaller difference.
func TestAlignIsMinimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfNDistinct(rapid.IntRange(0, 30), 0, 30, rapid.ID[int]).Draw(t, "a")
		b := rapid.SliceOfNDistinct(rapid.IntRange(0, 30), 0, 30, rapid.ID[int]).Draw(t, "b")
		if got, want := common(table.Align(a, b)), longest(a, b); got != want {
			t.Fatalf("%v and %v have %d in common, found %d", a, b, want, got)
		}
	})
}

// TestAlignOfOneEdit: whatever surrounds one edit is equal, and all of it.
func TestAlignOfOneEdit(t *testing.T) {
	a := make([]int, 7_000)
	for i := range a {
		a[i] = i
	}
	b := slices.Replace(slices.Clone(a), 3_000, 3_002, -1, -2, -3)
	want := []table.Range{
		{A: table.Span{From: 0, To: 3000}, B: table.Span{From: 0, To: 3000}, Equal: true},
		{A: table.Span{From: 3000, To: 3002}, B: table.Span{From: 3000, To: 3003}},
		{A: table.Span{From: 3002, To: 7000}, B: table.Span{From: 3003, To: 7001}, Equal: true},
	}
	if got := table.Align(a, b); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestAlignIsNotQuadratic: lists that are made to be hard take milliseconds; a
// quadratic algorithm would take hours.
func TestAlignIsNotQuadratic(t *testing.T) {
	const n = 200_000
	list := func(f func(int) int) []int {
		out := make([]int, n)
		for i := range out {
			out[i] = f(i)
		}
		return out
	}
	ascending := list(func(i int) int { return i })
	for name, pair := range map[string][2][]int{
		"reversed":          {ascending, list(func(i int) int { return n - i })},
		"nothing in common": {ascending, list(func(i int) int { return -1 - i })},
		"one value":         {list(func(int) int { return 0 }), list(func(int) int { return 0 })[:n/2]},
		"two values":        {list(func(i int) int { return i % 2 }), list(func(i int) int { return (i + 1) % 2 })},
		"two values, other frequencies": {
			list(func(i int) int { return i % 2 }), list(func(i int) int { return i % 3 % 2 }),
		},
		"shuffled": {ascending, list(func(i int) int { return i * 7919 % n })},
		"nested":   {list(func(i int) int { return i / 2 }), list(func(i int) int { return (n - i) / 2 })},
	} {
		start := time.Now()
		ranges := table.Align(pair[0], pair[1])
		checkAlignment(t, pair[0], pair[1], ranges)
		if took := time.Since(start); took > time.Minute {
			t.Errorf("%s: %v", name, took)
		}
	}
}

// TestOverlayIsAnOverlay: what a region says of each side is so, and a merge by
// regions with changes of one side only takes each side's changes.
func TestOverlayIsAnOverlay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := make([]int, rapid.IntRange(0, 20).Draw(t, "base"))
		for i := range base {
			base[i] = i
		}
		n := 100
		fresh := func() int { n++; return n }
		ours, theirs := edited(t, "ours", base, fresh), edited(t, "theirs", base, fresh)
		regions := table.Overlay(table.Align(base, ours), table.Align(base, theirs))
		var at table.Region
		for i, r := range regions {
			if r.Base.From != at.Base.To || r.Ours.From != at.Ours.To || r.Theirs.From != at.Theirs.To {
				t.Fatalf("region %d of %+v does not follow the one before", i, regions)
			}
			if r.Ours.Len() < 0 || r.Theirs.Len() < 0 || r.Base.Len() < 0 {
				t.Fatalf("region %+v", r)
			}
			part := base[r.Base.From:r.Base.To]
			if same := slices.Equal(part, ours[r.Ours.From:r.Ours.To]); same == r.OursChanged {
				t.Fatalf("%v, ours %v: region %+v", base, ours, r)
			}
			if same := slices.Equal(part, theirs[r.Theirs.From:r.Theirs.To]); same == r.TheirsChanged {
				t.Fatalf("%v, theirs %v: region %+v", base, theirs, r)
			}
			changed := func(r table.Region) bool { return r.OursChanged || r.TheirsChanged }
			if i > 0 && changed(r) == changed(at) {
				t.Fatalf("regions %d and %d of %+v should be one", i-1, i, regions)
			}
			at = r
		}
		if at.Base.To != len(base) || at.Ours.To != len(ours) || at.Theirs.To != len(theirs) {
			t.Fatalf("%+v do not cover %v, %v, %v", regions, base, ours, theirs)
		}
	})
}

func ExampleOverlay() {
	base := []string{"a", "b", "c", "d", "e"}
	ours := []string{"a", "B", "c", "d", "e"}
	theirs := []string{"a", "b", "c", "d", "e", "f"}
	for _, r := range table.Overlay(table.Align(base, ours), table.Align(base, theirs)) {
		side := "both"
		switch {
		case r.OursChanged && r.TheirsChanged:
			side = "conflict"
		case r.OursChanged:
			side = "ours"
		case r.TheirsChanged:
			side = "theirs"
		}
		fmt.Println(side, base[r.Base.From:r.Base.To], ours[r.Ours.From:r.Ours.To], theirs[r.Theirs.From:r.Theirs.To])
	}
	// Output:
	// both [a] [a] [a]
	// ours [b] [B] [b]
	// both [c d e] [c d e] [c d e]
	// theirs [] [] [f]
}
