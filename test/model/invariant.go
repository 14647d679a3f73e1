package model

import "slices"

// Invariant is what must hold of every state, by the names of docs/design.md, section 2.
type Invariant string

// The invariants.
const (
	Gated        Invariant = "gated: every commit of main's first-parent line is a gate commit of exactly the state that was verified"
	Consistent   Invariant = "consistent: each derived table is the output of its model on the inputs of the same commit"
	Verifiable   Invariant = "gated: no published state is one that the verifier refuses"
	Atomic       Invariant = "atomic: readers see all tables of a run or none"
	Serializable Invariant = "serializable: each published state is the one before it with its proposal merged in"
	Durable      Invariant = "durable order: what refs lead to is in the store"
	Acknowledged Invariant = "acknowledged: what a pusher was told is published is in main"
	Truthful     Invariant = "truthful: a run is called published if and only if main has its gate commit"
	Recovered    Invariant = "recovered: a server that takes pushes has forgotten no run"
	Going        Invariant = "going: a run that is not over can take a step"
)

// Invariants are all of them.
var Invariants = []Invariant{Gated, Consistent, Verifiable, Atomic, Serializable, Durable, Acknowledged, Truthful, Recovered, Going}

// violated returns the invariants that a state breaks. Going is the checker's to see.
func (m *Model) violated(s State) []Invariant {
	var broken []Invariant
	add := func(v Invariant, holds bool) {
		if !holds && !slices.Contains(broken, v) {
			broken = append(broken, v)
		}
	}
	for _, id := range m.line(s.Main) {
		c := m.at(id)
		add(Gated, c.Kind == Gate && c.Judged == c.Tree)
		add(Consistent, c.Tree.consistent())
		add(Verifiable, c.Tree.passes())
		add(Atomic, c.Kind != Part)
		add(Serializable, m.follows(c))
	}
	for _, ref := range append(s.Scratch[:], s.Main) {
		for _, id := range m.ancestors[ref] {
			t := m.at(id).Tree
			need := bitA(t.A) | bitB(t.B)
			add(Durable, s.has(id) && s.Tables&need == need)
		}
	}
	for _, id := range s.Acked {
		add(Acknowledged, id == 0 || m.contains(s.Main, id))
	}
	for _, t := range s.Told {
		add(Truthful, t.Gate == 0 || t.Published == slices.Contains(m.line(s.Main), t.Gate))
	}
	for _, r := range s.Runs {
		add(Recovered, !s.Up || r.Phase != Lost)
	}
	return broken
}

// follows tells whether the sources of a gate commit are those of its first parent
// with what its proposal changed. All on the line do: then the line is a serial order.
func (m *Model) follows(c Commit) bool {
	if c.P1 == 0 || c.Kind != Gate {
		return true
	}
	want := m.at(c.P2).Tree
	if !m.contains(c.P2, c.P1) {
		want, _ = merge(m.at(m.mergeBase(c.P1, c.P2)).Tree, m.at(c.P1).Tree, want)
	}
	return !want.Conflict && c.Tree.S == want.S && c.Tree.T == want.T
}
