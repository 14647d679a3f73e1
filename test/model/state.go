package model

import (
	"fmt"
	"slices"
	"strings"
)

// Sizes of a state. A state is a comparable value, so its lists have a fixed room.
const (
	maxRuns    = 2  // under way at once
	maxScratch = 4  // refs/scratch/*
	maxCommits = 16 // in the store
	maxTold    = 8  // last words on runs
	maxAcked   = 4  // proposals whose pushers were told "ok"
)

// Phase is where a run stands in the server's memory.
type Phase uint8

// The phases of a run, in order. None is an empty slot.
const (
	None      Phase = iota
	Accepted        // the journal has it
	Planned         // merged with the tip
	HasA            // the first model has run
	HasB            // and the second
	Verified        // and the verifier
	Decided         // the journal says "publishing" and names the gate commit
	Stored          // the objects are in the store
	Swapped         // main is the gate commit
	Settled         // the journal says "published"
	Refusing        // decided the other way
	Kept            // the objects of the evidence are in the store
	Shown           // refs/scratch/<id> names them
	Ended           // the journal says so
	Lost            // a crash took everything but the journal
	Halfway         // main has a part of the tables (a naive variant's only)
	Confirmed       // told the pusher before it was true (a naive variant's only)
)

// Why says why a run is refused.
type Why uint8

// The reasons.
const (
	Passed Why = iota
	Rejected
	Cancelled
	Moved
)

// Run is a run under way. What a crash leaves of it is Push, Proposal, Journal and, of
// one that was publishing, Gate.
type Run struct {
	Phase      Phase
	Why        Why
	Push       uint8 // which push this is, from 1
	Round      uint8 // how often the tip has moved under it
	Made       uint8 // tables that it computed, which are in its quarantine
	Publishing bool  // what the journal says
	Checked    bool  // main was compared with the old tip, which a naive variant does apart
	Proposal   ID
	Old        ID // the tip that it was judged against
	Gate       ID
	Evidence   ID
	Tree       Tree // as far as it is built
}

// Told is a final word on a run: the journal's, and what its pusher may rely on.
type Told struct {
	Gate      ID // zero if there was none
	Published bool
}

// State is the lake, its server and its pushers at one instant.
type State struct {
	// Durable: refs, the store, the action cache, the journal (in Runs and Told).
	Main    ID
	Scratch [maxScratch]ID
	Commits [maxCommits]ID // ascending, zeros last
	Tables  uint8          // computed tables in the store
	Cache   uint8          // actions whose result is known
	Told    [maxTold]Told
	// Acked are proposals whose pushers were told "ok".
	Acked [maxAcked]ID

	Up   bool
	Runs [maxRuns]Run

	Pushes, Crashes, Cancels uint8 // that may still come
}

func (s *State) has(id ID) bool { return slices.Contains(s.Commits[:], id) }

func (s *State) store(id ID) {
	if s.has(id) {
		return
	}
	at := slices.Index(s.Commits[:], 0)
	if at < 0 {
		panic("model: more commits than a state has room for")
	}
	for ; at > 0 && s.Commits[at-1] > id; at-- {
		s.Commits[at] = s.Commits[at-1]
	}
	s.Commits[at] = id
}

func put[V comparable](list []V, v V) {
	var zero V
	if slices.Contains(list, v) {
		return
	}
	at := slices.Index(list, zero)
	if at < 0 {
		panic(fmt.Sprintf("model: no room for %v", v))
	}
	list[at] = v
}

// told notes a run's last word.
func (s *State) told(gate ID, published bool) {
	if gate != 0 {
		put(s.Told[:], Told{gate, published})
	}
}

// scratch shows a run's evidence. The oldest goes when there are many, as with age.
func (s *State) scratch(id ID) {
	if slices.Contains(s.Scratch[:], id) {
		return
	}
	if s.Scratch[maxScratch-1] != 0 {
		copy(s.Scratch[:], s.Scratch[1:])
		s.Scratch[maxScratch-1] = 0
	}
	put(s.Scratch[:], id)
}

// tidy gives states that differ by the places of their runs only one form.
func (s *State) tidy() {
	slices.SortFunc(s.Runs[:], func(a, b Run) int {
		return (int(a.Push)+255)%256 - (int(b.Push)+255)%256 // empty ones last
	})
}

// describe is one line of a trace.
func (h *History) describe(s State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "main: %s", h.at(s.Main).Tree)
	for _, id := range s.Scratch {
		if id != 0 {
			fmt.Fprintf(&b, " | scratch: %s", h.at(id).Tree)
		}
	}
	if !s.Up {
		b.WriteString(" | server down")
	}
	return b.String()
}
