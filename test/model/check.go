package model

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
)

// Result is what a check found.
type Result struct {
	States, Commits int
	Depth           int // steps of the longest of the shortest ways to a state
	// Broken is the first violation that was looked for, with a shortest way to it; nil if
	// every state holds.
	Broken *Violation
	// Steps tells how often each action was taken, and Seen which of the watched states were met.
	Steps map[Act]int
	Seen  map[string]bool
}

// Violation is a state that breaks invariants, and how to get there.
type Violation struct {
	Invariants []Invariant
	Trace      []string // one line a step, with the state after it
	Steps      []Step
	State      State
}

func (v *Violation) String() string {
	var b strings.Builder
	for _, line := range v.Trace {
		fmt.Fprintln(&b, line)
	}
	for _, i := range v.Invariants {
		fmt.Fprintf(&b, "broken: %s\n", i)
	}
	return b.String()
}

// node is an explored state: what led to it from where.
type node struct {
	state State
	step  Step
	from  int32
	depth int32
}

// Check walks through every state, nearest first, and stops at the first that breaks
// one of the invariants, so that the way to it is a shortest one. watch, if not nil, names
// remarkable states, so that a check that proves nothing is noticed.
func (m *Model) Check(watch func(State) []string, invariants ...Invariant) Result {
	res := Result{Steps: make(map[Act]int), Seen: make(map[string]bool)}
	seeds := [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	key := func(s State) [2]uint64 {
		return [2]uint64{maphash.Comparable(seeds[0], s), maphash.Comparable(seeds[1], s)}
	}
	start := m.Start()
	nodes := []node{{state: start, from: -1}}
	seen := map[[2]uint64]struct{}{key(start): {}}
	for at := 0; at < len(nodes); at++ {
		n := nodes[at]
		broken := m.violated(n.state)
		if watch != nil {
			for _, name := range watch(n.state) {
				res.Seen[name] = true
			}
		}
		moves := 0
		m.Next(n.state, func(step Step, next State) {
			if step.Act != ActCrash {
				moves++
			}
			res.Steps[step.Act]++
			k := key(next)
			if _, ok := seen[k]; ok {
				return
			}
			seen[k] = struct{}{}
			nodes = append(nodes, node{state: next, step: step, from: int32(at), depth: n.depth + 1})
		})
		if moves == 0 && slices.ContainsFunc(n.state.Runs[:], func(r Run) bool { return r.Phase != None }) {
			broken = append(broken, Going)
		}
		if slices.ContainsFunc(broken, func(i Invariant) bool { return slices.Contains(invariants, i) }) {
			res.Broken = m.violation(nodes, at, broken)
			break
		}
	}
	res.States, res.Commits, res.Depth = len(nodes), len(m.commits)-1, int(nodes[len(nodes)-1].depth)
	return res
}

// violation tells the way to a state.
func (m *Model) violation(nodes []node, at int, broken []Invariant) *Violation {
	v := &Violation{Invariants: broken, State: nodes[at].state}
	for i := int32(at); i > 0; i = nodes[i].from {
		v.Steps = append(v.Steps, nodes[i].step)
		v.Trace = append(v.Trace, fmt.Sprintf("%-58s %s", nodes[i].step, m.describe(nodes[i].state)))
	}
	v.Trace = append(v.Trace, fmt.Sprintf("%-58s %s", "start", m.describe(nodes[0].state)))
	slices.Reverse(v.Trace)
	slices.Reverse(v.Steps)
	return v
}
