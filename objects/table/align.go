package table

import "sort"

// Span is a half-open range of positions in a list: From <= i < To.
type Span struct{ From, To int }

// Len is the number of positions in the span.
func (s Span) Len() int { return s.To - s.From }

// Range is a stretch of two lists, A and B. Of an equal one the spans are of one
// length and hold the same, position by position; of any other they have nothing
// that a reader could rely on in common, and one of them may be empty.
type Range struct {
	A, B  Span
	Equal bool
}

// Align says what two lists have in common, in order: oids of the parts of two
// snapshots, or identities of rows. The ranges cover both lists from beginning to
// end without gaps; equal and differing ones alternate, and the lists are equal if
// and only if there is no differing one.
//
// What appears once in each list is paired so that as much as possible is equal, as
// in patience diff. What appears more often is paired by its number where that is
// of use. So lists whose elements are all distinct have the least difference that
// there is; others have one that is right, and near to it.
//
// Parts of tables with a key are in the key's order, and a key is in one row only.
// So the keys of a differing range lie between those of the equal parts around it,
// on both sides: each differing range can be compared by itself, and no equal part
// need be opened. (Of Parquet that was pushed without a table.json, parts may be in
// another order. Equal parts still have nothing to do with differing ones, but two
// differing ranges may then hold rows with one key.)
//
// The time follows the length, times its logarithm for what was moved; prefixes and
// suffixes that are equal cost a comparison each.
func Align[K comparable](a, b []K) []Range {
	al := aligner[K]{a: a, b: b}
	al.segment(Span{0, len(a)}, Span{0, len(b)}, 0)
	return al.ranges(al.pairs)
}

// maxRounds bounds how often a segment without its anchors is looked at again.
// Lists that need more than three rounds are made to.
const maxRounds = 16

type aligner[K comparable] struct {
	a, b  []K
	pairs []Range // equal, in order, not empty
}

func (al *aligner[K]) pair(a, b, n int) {
	if n == 0 {
		return
	}
	if last := len(al.pairs) - 1; last >= 0 && al.pairs[last].A.To == a && al.pairs[last].B.To == b {
		al.pairs[last].A.To += n
		al.pairs[last].B.To += n
		return
	}
	al.pairs = append(al.pairs, Range{A: Span{a, a + n}, B: Span{b, b + n}, Equal: true})
}

// segment pairs what a[sa] and b[sb] have in common, in order.
func (al *aligner[K]) segment(sa, sb Span, round int) {
	prefix := 0
	for prefix < min(sa.Len(), sb.Len()) && al.a[sa.From+prefix] == al.b[sb.From+prefix] {
		prefix++
	}
	al.pair(sa.From, sb.From, prefix)
	sa.From, sb.From = sa.From+prefix, sb.From+prefix
	suffix := 0
	for suffix < min(sa.Len(), sb.Len()) && al.a[sa.To-1-suffix] == al.b[sb.To-1-suffix] {
		suffix++
	}
	sa.To, sb.To = sa.To-suffix, sb.To-suffix
	if sa.Len() > 0 && sb.Len() > 0 && round < maxRounds {
		al.middle(sa, sb, round)
	}
	al.pair(sa.To, sb.To, suffix)
}

// middle pairs anchors, then what is between them.
func (al *aligner[K]) middle(sa, sb Span, round int) {
	type places struct{ countA, countB, atA int }
	seen := make(map[K]*places, sa.Len())
	for i := sa.From; i < sa.To; i++ {
		p := seen[al.a[i]]
		if p == nil {
			p = &places{}
			seen[al.a[i]] = p
		}
		p.countA, p.atA = p.countA+1, i
	}
	for j := sb.From; j < sb.To; j++ {
		if p := seen[al.b[j]]; p != nil {
			p.countB++
		}
	}
	var anchors []anchor
	common := false
	for j := sb.From; j < sb.To; j++ {
		if p := seen[al.b[j]]; p != nil {
			common = true
			if p.countA == 1 && p.countB == 1 {
				anchors = append(anchors, anchor{p.atA, j})
			}
		}
	}
	switch {
	case !common:
		return
	case len(anchors) == 0:
		anchors = al.numbered(sa, sb)
	}
	for _, at := range increasing(anchors) {
		al.segment(Span{sa.From, at.a}, Span{sb.From, at.b}, round+1)
		al.pair(at.a, at.b, 1)
		sa.From, sb.From = at.a+1, at.b+1
	}
	al.segment(sa, sb, round+1)
}

// numbered takes the first of something in a for the first of it in b, the second
// for the second, and so on.
func (al *aligner[K]) numbered(sa, sb Span) []anchor {
	places := make(map[K][]int)
	for i := sa.From; i < sa.To; i++ {
		places[al.a[i]] = append(places[al.a[i]], i)
	}
	var anchors []anchor
	for j := sb.From; j < sb.To; j++ {
		if at := places[al.b[j]]; len(at) > 0 {
			anchors = append(anchors, anchor{at[0], j})
			places[al.b[j]] = at[1:]
		}
	}
	return anchors
}

type anchor struct{ a, b int }

// increasing returns a longest subsequence of anchors, which ascend in b, that
// ascends in a too (Fredman, 1975).
func increasing(anchors []anchor) []anchor {
	// tails[n] is the anchor with the least a that ends an ascent of n+1 anchors.
	var tails []int
	before := make([]int, len(anchors))
	for i, x := range anchors {
		n := sort.Search(len(tails), func(n int) bool { return anchors[tails[n]].a >= x.a })
		before[i] = -1
		if n > 0 {
			before[i] = tails[n-1]
		}
		if n == len(tails) {
			tails = append(tails, i)
		} else {
			tails[n] = i
		}
	}
	out := make([]anchor, len(tails))
	for n, i := len(tails)-1, last(tails); n >= 0; n, i = n-1, before[i] {
		out[n] = anchors[i]
	}
	return out
}

func last(list []int) int {
	if len(list) == 0 {
		return -1
	}
	return list[len(list)-1]
}

// ranges puts the differing ranges between equal ones.
func (al *aligner[K]) ranges(pairs []Range) []Range {
	out := make([]Range, 0, 2*len(pairs)+1)
	var a, b int
	differing := func(toA, toB int) {
		if toA > a || toB > b {
			out = append(out, Range{A: Span{a, toA}, B: Span{b, toB}})
		}
	}
	for _, p := range pairs {
		differing(p.A.From, p.B.From)
		out = append(out, p)
		a, b = p.A.To, p.B.To
	}
	differing(len(al.a), len(al.b))
	return out
}

// Region is a stretch of three lists: a base and two that came of it.
type Region struct {
	Base, Ours, Theirs         Span
	OursChanged, TheirsChanged bool
}

// Overlay lays two alignments of one base upon each other: ours and theirs are
// Align(base, ...), so A is the base in both. The regions cover all three lists
// without gaps. A side that did not change a region holds there what the base does.
// Changes of both sides that overlap or touch (two insertions in one place, say) are
// one region, since nothing that all three hold tells their order; so two regions
// with changes are never side by side.
func Overlay(ours, theirs []Range) []Region {
	var out []Region
	var at Region // spans end where the next region begins
	next := func(n int, oursBy, theirsBy int, oursChanged, theirsChanged bool) {
		at = Region{
			Base: after(at.Base, n), Ours: after(at.Ours, n+oursBy), Theirs: after(at.Theirs, n+theirsBy),
			OursChanged: oursChanged, TheirsChanged: theirsChanged,
		}
		out = append(out, at)
	}
	base := 0 // its length
	for _, r := range ours {
		base = r.A.To
	}
	left, right := changes(ours), changes(theirs)
	for len(left) > 0 || len(right) > 0 {
		var group Span // of the base
		if len(right) == 0 || len(left) > 0 && left[0].A.From <= right[0].A.From {
			group = left[0].A
		} else {
			group = right[0].A
		}
		var oursBy, theirsBy, oursRanges, theirsRanges int
		for {
			if len(left) > 0 && left[0].A.From <= group.To {
				group.To = max(group.To, left[0].A.To)
				oursBy += left[0].B.Len() - left[0].A.Len()
				oursRanges++
				left = left[1:]
			} else if len(right) > 0 && right[0].A.From <= group.To {
				group.To = max(group.To, right[0].A.To)
				theirsBy += right[0].B.Len() - right[0].A.Len()
				theirsRanges++
				right = right[1:]
			} else {
				break
			}
		}
		if n := group.From - at.Base.To; n > 0 {
			next(n, 0, 0, false, false)
		}
		next(group.Len(), oursBy, theirsBy, oursRanges > 0, theirsRanges > 0)
	}
	if n := base - at.Base.To; n > 0 {
		next(n, 0, 0, false, false)
	}
	return out
}

func after(s Span, n int) Span { return Span{s.To, s.To + n} }

func changes(ranges []Range) []Range {
	var out []Range
	for _, r := range ranges {
		if !r.Equal {
			out = append(out, r)
		}
	}
	return out
}
