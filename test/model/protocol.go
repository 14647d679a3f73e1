package model

import (
	"fmt"
	"slices"
)

// Variant says how a gate differs from ours. Each is a fault that a real system has
// had, or that ours would have if one line of it were another.
type Variant struct {
	Name string
	// TrustPushed runs only the models whose inputs the proposal changed, so that a derived
	// table which was pushed by itself is believed.
	TrustPushed bool
	// TrustScratch believes a scratch state: the server made it, after all.
	TrustScratch bool
	// TableByTable moves main once for each table.
	TableByTable bool
	// RefsFirst moves main before the objects are in the store.
	RefsFirst bool
	// NoSwap looks whether main is where it was, and then moves it, in two steps.
	NoSwap bool
	// VerifySource verifies the proposal and not what comes of its merge with the tip.
	VerifySource bool
	// Reparent puts what was judged on whatever main is by then.
	Reparent bool
	// CacheFirst remembers results before they are in the store, and believes the cache.
	CacheFirst bool
	// AckFirst tells the pusher before main has moved.
	AckFirst bool
	// TrustJournal has recovery take "publishing" for "published".
	TrustJournal bool
	// LateCancel cancels runs that are decided.
	LateCancel bool
}

// Edits are what pushers do.
type Edits struct {
	Sources bool // set S or T
	Hand    bool // write a derived table
	Restore bool // take one derived table from another state, as "revert of one table" does
	Revert  bool // revert a gate commit
	Fork    bool // build on scratch states, or propose them as they are
}

// AllEdits is everything.
var AllEdits = Edits{Sources: true, Hand: true, Restore: true, Revert: true, Fork: true}

// Bounds keep the states few.
type Bounds struct {
	Pushes, Crashes, Cancels, Rounds uint8
	Runs                             int // at once
	Edits                            Edits
	// Full explores every order of steps that concern nobody but the run itself; else
	// they come first, since no order of them can be told from another.
	Full bool
}

// Model is a gate and what may happen to it.
type Model struct {
	*History
	Variant
	Bounds
}

// New returns a model.
func New(v Variant, b Bounds) *Model {
	return &Model{History: newHistory(), Variant: v, Bounds: b}
}

// Start is a lake with one published state.
func (m *Model) Start() State {
	first := Tree{}
	s := State{Up: true, Pushes: m.Pushes, Crashes: m.Crashes, Cancels: m.Bounds.Cancels}
	s.Main = m.add(Commit{Tree: first, Kind: Gate, Judged: first})
	s.store(s.Main)
	s.Tables = bitA(first.A) | bitB(first.B)
	s.Cache = s.Tables
	return s
}

// Act is the name of an action.
type Act string

// The actions. docs/model.md says which function carries out each.
const (
	ActPush    Act = "push"
	ActRetry   Act = "retry" // a moved tip: the proposal is merged and judged again
	ActPlan    Act = "plan"
	ActRunA    Act = "run A"
	ActRunB    Act = "run B"
	ActVerify  Act = "verify"
	ActDecide  Act = "decide"
	ActStore   Act = "store"
	ActSwap    Act = "swap"
	ActSettle  Act = "settle"
	ActAck     Act = "acknowledge"
	ActKeep    Act = "keep"
	ActShow    Act = "show"
	ActEnd     Act = "end"
	ActGiveUp  Act = "give up"
	ActCancel  Act = "cancel"
	ActCrash   Act = "crash"
	ActRecover Act = "recover"
	ActStart   Act = "start"
)

// Step is an action and whom it concerns.
type Step struct {
	Act  Act
	Push uint8 // whose run; 0 if it is the server's
	// Of a push: what was done to which commit, and the proposal that came of it.
	Base, Proposal ID
	Edit           string
}

func (s Step) String() string {
	switch {
	case s.Act == ActPush:
		return fmt.Sprintf("push %d: %s", s.Push, s.Edit)
	case s.Push == 0:
		return string(s.Act)
	}
	return fmt.Sprintf("run %d: %s", s.Push, s.Act)
}

// Next calls emit for every state that can follow s.
func (m *Model) Next(s State, emit func(Step, State)) {
	send := func(step Step, next State) {
		next.tidy()
		emit(step, next)
	}
	if s.Crashes > 0 && s.Up {
		send(Step{Act: ActCrash}, m.crash(s))
	}
	if !s.Up {
		m.recover(s, send)
		return
	}
	own := -1 // a run that has a step of its own to take
	if !m.Full {
		own = slices.IndexFunc(s.Runs[:], func(r Run) bool { return r.Phase >= Accepted && r.Phase < Verified })
	}
	for i, r := range s.Runs {
		if r.Phase == None || own >= 0 && i != own {
			continue
		}
		if s.Cancels > 0 && (r.Phase < Decided || m.LateCancel && r.Phase < Settled) {
			next := s
			next.Cancels--
			next.Runs[i] = m.refuse(r, Cancelled)
			send(Step{Act: ActCancel, Push: r.Push}, next)
		}
		m.step(s, i, send)
	}
	if own >= 0 || s.Pushes == 0 {
		return
	}
	free := slices.IndexFunc(s.Runs[:m.Bounds.Runs], func(r Run) bool { return r.Phase == None })
	if free < 0 {
		return
	}
	number := m.Pushes - s.Pushes + 1
	m.proposals(s, func(base, proposal ID, edit string) {
		if m.contains(s.Main, proposal) {
			return // "main contains this commit already"
		}
		next := s
		next.Pushes--
		next.store(proposal)
		next.Runs[free] = Run{Phase: Accepted, Push: number, Proposal: proposal, Old: s.Main}
		send(Step{Act: ActPush, Push: number, Base: base, Proposal: proposal, Edit: edit}, next)
	})
}

// proposals are what a pusher may push: a change of any state that was published or
// shown, or a scratch state as it is.
func (m *Model) proposals(s State, emit func(base, proposal ID, edit string)) {
	known := m.line(s.Main)
	if m.Edits.Fork {
		for _, id := range s.Scratch {
			if id != 0 {
				known = append(known, id)
			}
		}
	}
	for n, base := range known {
		t := m.at(base).Tree
		where := "main"
		switch {
		case m.at(base).Kind == Scratch:
			where = "a scratch state"
			emit(base, base, "propose a scratch state as it is ("+t.String()+")")
		case n > 0:
			where = fmt.Sprintf("main~%d", n)
		}
		seen := make(map[Tree]bool)
		change := func(to Tree, what string) {
			if to != t && !seen[to] {
				seen[to] = true
				emit(base, m.add(Commit{Tree: to, Kind: User, P1: base}), what+" on "+where)
			}
		}
		m.changes(s, base, t, known, change)
	}
}

func (m *Model) changes(s State, base ID, t Tree, known []ID, change func(Tree, string)) {
	with := func(edit func(*Tree)) Tree { to := t; edit(&to); return to }
	if t.Conflict {
		change(with(func(t *Tree) { t.Conflict = false }), "resolve the conflicts")
	}
	if m.Edits.Sources {
		for v := range uint8(2) {
			change(with(func(t *Tree) { t.S = v }), fmt.Sprintf("set S to %d", v))
		}
		for v := range uint8(Broken + 1) {
			change(with(func(t *Tree) { t.T = v }), fmt.Sprintf("set T to %d", v))
		}
	}
	if m.Edits.Revert {
		for _, id := range m.line(base) {
			c := m.at(id)
			if c.Kind != Gate || c.P1 == 0 {
				continue
			}
			to, _ := merge(c.Tree, t, m.at(c.P1).Tree)
			if !to.Conflict {
				change(to, "revert a gate commit ("+c.Tree.String()+")")
			}
		}
	}
	if m.Edits.Restore {
		for _, id := range known {
			from := m.at(id).Tree
			change(with(func(t *Tree) { t.A = from.A }), "restore A alone")
			change(with(func(t *Tree) { t.B = from.B }), "restore B alone")
		}
	}
	if m.Edits.Hand {
		change(with(func(t *Tree) { t.A = Hand }), "write A by hand")
		change(with(func(t *Tree) { t.B = Pair{Hand, Hand} }), "write B by hand")
	}
}

// refuse brings a run onto the way to its end without a publication.
func (m *Model) refuse(r Run, why Why) Run {
	tree := r.Tree
	if r.Phase == Accepted {
		tree = m.at(r.Proposal).Tree // nothing was made of it yet
	}
	if r.Phase == HasA && why == Cancelled {
		planned, _ := m.planned(&r) // results are adopted together
		tree.A = planned.A
	}
	r.Phase, r.Why = Refusing, why
	r.Evidence = m.add(Commit{Tree: tree, Kind: Scratch, P1: r.Proposal})
	return r
}

// step takes the one step that a run has before it.
func (m *Model) step(s State, i int, emit func(Step, State)) {
	r := s.Runs[i]
	do := func(act Act, change func(next *State, r *Run)) {
		next := s
		change(&next, &next.Runs[i])
		emit(Step{Act: act, Push: r.Push, Proposal: r.Proposal}, next)
	}
	switch r.Phase {
	case Accepted:
		do(ActPlan, func(_ *State, r *Run) { m.plan(r) })
	case Planned:
		do(ActRunA, func(s *State, r *Run) { m.runA(s, r) })
	case HasA:
		do(ActRunB, func(s *State, r *Run) { m.runB(s, r) })
	case HasB:
		do(ActVerify, func(_ *State, r *Run) {
			judged := r.Tree
			if m.VerifySource {
				judged = m.at(r.Proposal).Tree
				judged.A, judged.B = judged.S, Pair{judged.S, judged.T}
			}
			if r.Phase = Verified; !judged.passes() {
				*r = m.refuse(*r, Rejected)
			}
		})
	case Verified:
		do(ActDecide, func(_ *State, r *Run) {
			r.Gate = m.add(Commit{Tree: r.Tree, Kind: Gate, P1: r.Old, P2: r.Proposal, Run: r.Push, Judged: m.judged(r)})
			r.Publishing = true
			r.Phase = Decided
		})
	case Decided:
		if m.AckFirst {
			do(ActAck, func(s *State, r *Run) { put(s.Acked[:], r.Proposal); r.Phase = Confirmed })
			return
		}
		m.publish(r, do)
	case Confirmed, Stored, Halfway:
		m.publish(r, do)
	case Swapped:
		do(ActSettle, func(s *State, r *Run) {
			s.told(r.Gate, true)
			s.Cache |= r.Made
			r.Phase = Settled
		})
	case Settled:
		do(ActAck, func(s *State, r *Run) { put(s.Acked[:], r.Proposal); *r = Run{} })
	case Refusing:
		do(ActKeep, func(s *State, r *Run) { s.store(r.Evidence); s.Tables |= r.Made; r.Phase = Kept })
	case Kept:
		do(ActShow, func(s *State, r *Run) { s.scratch(r.Evidence); r.Phase = Shown })
	case Shown:
		do(ActEnd, func(s *State, r *Run) {
			s.told(r.Gate, false)
			s.Cache |= r.Made
			if r.Phase = Ended; r.Why != Moved {
				*r = Run{}
			}
		})
	case Ended:
		if r.Round+1 >= m.Rounds || m.contains(s.Main, r.Proposal) {
			do(ActGiveUp, func(_ *State, r *Run) { *r = Run{} })
			return
		}
		do(ActRetry, func(s *State, r *Run) {
			*r = Run{Phase: Accepted, Push: r.Push, Round: r.Round + 1, Proposal: r.Proposal, Old: s.Main}
		})
	}
}

func (m *Model) judged(r *Run) Tree {
	if m.VerifySource {
		return m.at(r.Proposal).Tree
	}
	return r.Tree
}

// planned is what comes of the proposal and the tip.
func (m *Model) planned(r *Run) (t Tree, torn bool) {
	t = m.at(r.Proposal).Tree
	if m.contains(r.Proposal, r.Old) {
		return t, false
	}
	return merge(m.at(m.mergeBase(r.Old, r.Proposal)).Tree, m.at(r.Old).Tree, t)
}

// plan makes the state to judge.
func (m *Model) plan(r *Run) {
	var torn bool
	r.Tree, torn = m.planned(r)
	r.Phase = Planned
	if r.Tree.Conflict || torn && m.believes(r, false) {
		*r = m.refuse(*r, Rejected)
	}
}

// believes tells whether a naive gate takes a derived table for what its model would give.
func (m *Model) believes(r *Run, changed bool) bool {
	return m.TrustPushed && !changed || m.TrustScratch && m.at(r.Proposal).Kind == Scratch
}

func (m *Model) runA(s *State, r *Run) {
	r.Phase = HasA
	if m.believes(r, r.Tree.S != m.at(r.Old).Tree.S) {
		return
	}
	r.Tree.A = r.Tree.S
	m.make(s, r, bitA(r.Tree.A))
}

func (m *Model) runB(s *State, r *Run) {
	r.Phase = HasB
	tip := m.at(r.Old).Tree
	if m.believes(r, r.Tree.A != tip.A || r.Tree.T != tip.T) {
		return
	}
	if r.Tree.T == Broken {
		*r = m.refuse(*r, Rejected) // A is new by now, B is not
		return
	}
	r.Tree.B = Pair{r.Tree.A, r.Tree.T}
	m.make(s, r, bitB(r.Tree.B))
}

// make computes a table, unless its result is known and there.
func (m *Model) make(s *State, r *Run, bit uint8) {
	known := s.Cache&bit != 0 && (m.CacheFirst || s.Tables&bit != 0)
	if known {
		return
	}
	r.Made |= bit
	if m.CacheFirst {
		s.Cache |= bit
	}
}

// publish takes the steps from "publishing" to main.
func (m *Model) publish(r Run, do func(Act, func(*State, *Run))) {
	store := func(s *State, r *Run) { s.store(r.Gate); s.Tables |= r.Made }
	switch {
	case m.RefsFirst && r.Phase == Stored: // swapped already
		do(ActStore, func(s *State, r *Run) { store(s, r); r.Phase = Swapped })
	case !m.RefsFirst && (r.Phase == Decided || r.Phase == Confirmed):
		do(ActStore, func(s *State, r *Run) { store(s, r); r.Phase = Stored })
	case m.NoSwap && !r.Checked:
		do("compare", func(s *State, r *Run) {
			if r.Checked = true; s.Main != r.Old {
				*r = m.refuse(*r, Moved)
			}
		})
	case m.TableByTable && r.Phase == Stored:
		do("move A", func(s *State, r *Run) {
			if s.Main != r.Old {
				*r = m.refuse(*r, Moved)
				return
			}
			part := m.at(r.Old).Tree
			part.S, part.A = r.Tree.S, r.Tree.A
			s.Main = m.add(Commit{Tree: part, Kind: Part, P1: r.Old, Run: r.Push})
			s.store(s.Main)
			r.Phase = Halfway
		})
	default:
		do(ActSwap, func(s *State, r *Run) {
			if m.Reparent && s.Main != r.Old {
				r.Gate = m.add(Commit{Tree: r.Tree, Kind: Gate, P1: s.Main, P2: r.Proposal, Run: r.Push, Judged: r.Tree})
				s.store(r.Gate)
			} else if s.Main != r.Old && !m.NoSwap && r.Phase != Halfway {
				*r = m.refuse(*r, Moved)
				return
			}
			s.Main = r.Gate
			if r.Phase = Swapped; m.RefsFirst {
				r.Phase = Stored
			}
		})
	}
}

// crash drops what is not durable.
func (m *Model) crash(s State) State {
	s.Up = false
	s.Crashes--
	for i, r := range s.Runs {
		switch {
		case r.Phase == None:
		case r.Phase == Settled, r.Phase == Ended:
			s.Runs[i] = Run{} // the journal has its end
		default: // one that is refused because main moved is still "publishing" there
			s.Runs[i] = Run{Phase: Lost, Push: r.Push, Proposal: r.Proposal, Publishing: r.Publishing, Gate: r.Gate}
		}
	}
	return s
}

// recover ends the runs of a server that stopped, one by one, and then takes pushes.
func (m *Model) recover(s State, emit func(Step, State)) {
	i := slices.IndexFunc(s.Runs[:], func(r Run) bool { return r.Phase == Lost })
	if i < 0 {
		s.Up = true
		emit(Step{Act: ActStart}, s)
		return
	}
	r := s.Runs[i]
	published := r.Publishing && (m.TrustJournal || slices.Contains(m.line(s.Main), r.Gate))
	s.told(r.Gate, published)
	s.Runs[i] = Run{}
	emit(Step{Act: ActRecover, Push: r.Push}, s)
}
