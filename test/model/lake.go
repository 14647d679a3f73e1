// Package model is the gate's protocol as a small state machine, and a checker
// that walks through every state of it: pushes from any base, forks of scratch
// states, reverts, hand-made tables, crashes at each step and recovery. docs/model.md
// says what it leaves out and which function of the gate carries out which action. It
// knows nothing of git, files or sandboxes; conformance_test.go holds the real gate against it.
package model

import (
	"fmt"
	"slices"
)

// Values of tables. A source holds a number; a derived table is known by what it
// was computed from, so that "the output of its model on these inputs" is a comparison.
const (
	Broken = 2 // a value of T on which the model of B fails
	Hand   = 9 // a derived table that somebody wrote
)

// Pair is what B is computed from: a table A and a table T.
type Pair struct{ A, T uint8 }

// Tree is a state of the lake: sources S and T, A = model(S) and B = model(A, T).
type Tree struct {
	S, T, A uint8
	B       Pair
	// Conflict tells that the state holds the conflicts of a merge of S or T, as tables.
	Conflict bool
}

func (t Tree) String() string {
	value := func(v uint8) string {
		if v == Hand {
			return "by hand"
		}
		return fmt.Sprint(v)
	}
	b := "by hand"
	if t.B.A != Hand || t.B.T != Hand {
		b = "of(" + value(t.B.A) + "," + value(t.B.T) + ")"
	}
	a := "by hand"
	if t.A != Hand {
		a = "of(" + value(t.A) + ")"
	}
	text := fmt.Sprintf("S=%d T=%d A=%s B=%s", t.S, t.T, a, b)
	if t.Conflict {
		text += " conflicts"
	}
	return text
}

// consistent is invariant 2: each derived table is the output of its model on the
// inputs of this very state.
func (t Tree) consistent() bool {
	return !t.Conflict && t.T != Broken && t.A == t.S && t.B == Pair{t.A, t.T}
}

// passes is the lake's one verifier. S=1 passes alone and T=1 passes alone, so that
// two proposals which are both good can be bad together.
func (t Tree) passes() bool { return t.B != Pair{1, 1} }

// Tables that models make, one bit for each content.
func bitA(v uint8) uint8 {
	if v > 1 {
		return 0 // came with a push
	}
	return 1 << v
}

func bitB(p Pair) uint8 {
	if p.A > 1 || p.T > 1 {
		return 0
	}
	return 4 << (2*p.A + p.T)
}

// three merges one value: conflict if both sides changed it, differently.
func three[V comparable](base, ours, theirs V) (V, bool) {
	switch {
	case ours == base || ours == theirs:
		return theirs, false
	case theirs == base:
		return ours, false
	}
	return ours, true
}

// merge merges two states over a third. Sources that both changed differently are a
// conflict; of derived tables that both changed the tip's stay, and torn tells so.
func merge(base, ours, theirs Tree) (merged Tree, torn bool) {
	var s, t, a, b bool
	merged.S, s = three(base.S, ours.S, theirs.S)
	merged.T, t = three(base.T, ours.T, theirs.T)
	merged.A, a = three(base.A, ours.A, theirs.A)
	merged.B, b = three(base.B, ours.B, theirs.B)
	merged.Conflict = s || t || theirs.Conflict
	return merged, a || b
}

// ID names a commit of a History; 0 is none.
type ID uint16

// Kind says who made a commit.
type Kind uint8

// The kinds of commits.
const (
	User    Kind = iota + 1
	Gate         // by a run that passed; P1 is the old tip, P2 the proposal
	Scratch      // by a run that did not; P1 is the proposal
	Part         // a part of a run's tables (a naive variant's only)
)

// Commit is known by its content, as in git: the same content is the same commit.
type Commit struct {
	Tree   Tree
	Kind   Kind
	P1, P2 ID
	Run    uint8 // of a Gate or Part: the push that it came of
	Judged Tree  // of a Gate: the state that the verifier saw
}

// History holds every commit that was made in any explored state.
type History struct {
	commits   []Commit
	ids       map[Commit]ID
	ancestors []set // of each commit, itself included
	depth     []int
}

func newHistory() *History {
	return &History{commits: make([]Commit, 1), ids: make(map[Commit]ID), ancestors: make([]set, 1), depth: make([]int, 1)}
}

func (h *History) at(id ID) Commit { return h.commits[id] }

// add returns the commit's id, which it gives it if it is new.
func (h *History) add(c Commit) ID {
	if id, ok := h.ids[c]; ok {
		return id
	}
	if len(h.commits) > 1<<16-1 {
		panic("model: more commits than an ID can name")
	}
	id := ID(len(h.commits))
	up := h.ancestors[c.P1].union(h.ancestors[c.P2])
	h.commits = append(h.commits, c)
	h.ids[c] = id
	h.ancestors = append(h.ancestors, up.with(id))
	h.depth = append(h.depth, 1+max(h.depth[c.P1], h.depth[c.P2]))
	return id
}

// contains tells whether a is b or an ancestor of b.
func (h *History) contains(b, a ID) bool { return h.ancestors[b].has(a) }

// mergeBase is the newest of the best common ancestors, as in objects/history.
func (h *History) mergeBase(a, b ID) ID {
	best := ID(0)
	for _, id := range h.ancestors[a] {
		if h.ancestors[b].has(id) && (best == 0 || h.depth[id] >= h.depth[best]) {
			best = id
		}
	}
	return best
}

// line is the first-parent line of a commit down to the lake's first state, newest first.
func (h *History) line(tip ID) []ID {
	var line []ID
	for id := tip; id != 0; id = h.commits[id].P1 {
		line = append(line, id)
	}
	return line
}

// set is a sorted list of ids.
type set []ID

func (s set) has(id ID) bool {
	_, ok := slices.BinarySearch(s, id)
	return ok
}

func (s set) with(id ID) set {
	at, ok := slices.BinarySearch(s, id)
	if ok {
		return s
	}
	return slices.Insert(slices.Clone(s), at, id)
}

func (s set) union(other set) set {
	out := s
	for _, id := range other {
		out = out.with(id)
	}
	return out
}
