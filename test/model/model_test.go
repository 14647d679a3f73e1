package model

import (
	"flag"
	"maps"
	"slices"
	"strings"
	"testing"
)

var large = flag.Bool("large", false, "check with larger bounds, which takes minutes and gigabytes")

// bounds of the checks of our own gate. Three pushes are what it takes to have one that
// is published, one that goes wrong and one that builds on both.
func bounds() []Bounds {
	if *large {
		return []Bounds{
			{Pushes: 3, Crashes: 1, Cancels: 1, Rounds: 3, Runs: 2, Edits: AllEdits},
			{Pushes: 2, Crashes: 2, Cancels: 2, Rounds: 3, Runs: 2, Edits: AllEdits, Full: true},
			{Pushes: 4, Crashes: 0, Rounds: 1, Runs: 1, Edits: AllEdits},
		}
	}
	return []Bounds{
		{Pushes: 2, Crashes: 2, Cancels: 1, Rounds: 2, Runs: 2, Edits: AllEdits},
		{Pushes: 3, Crashes: 1, Rounds: 2, Runs: 1, Edits: AllEdits},
		{Pushes: 3, Rounds: 2, Runs: 2, Edits: AllEdits},
	}
}

// What the checks must have met, or they prove nothing.
var remarkable = []string{
	"a proposal was merged with a tip that it did not contain",
	"a proposal was merged again after the tip moved",
	"two good proposals were refused together",
	"a merge had conflicts",
	"a half-run scratch state was shown",
	"a fork of a scratch state was published",
	"a gate commit was reverted",
	"a table made by hand was pushed",
	"a run was recovered as published",
	"a run that was publishing was recovered as failed",
	"a run was cancelled",
	"results came from the cache",
	"two runs were publishing at once",
}

func (m *Model) watch(s State) (names []string) {
	see := func(n int, is bool) {
		if is {
			names = append(names, remarkable[n])
		}
	}
	publishing := 0
	for _, r := range s.Runs {
		behind := r.Old != 0 && r.Proposal != 0 && !m.contains(r.Proposal, r.Old)
		see(0, behind && r.Phase == Swapped)
		see(1, r.Round > 0 && r.Phase == Swapped)
		see(2, behind && r.Phase == Refusing && r.Why == Rejected && r.Tree.B == Pair{1, 1} && m.at(r.Proposal).Tree.S+m.at(r.Proposal).Tree.T == 1)
		see(3, r.Phase == Refusing && r.Tree.Conflict)
		see(6, r.Phase == Swapped && m.at(r.Proposal).Tree.S < m.at(m.at(r.Proposal).P1).Tree.S)
		see(7, r.Phase == Accepted && m.at(r.Proposal).Tree.A == Hand)
		see(10, r.Why == Cancelled && r.Phase == Shown)
		see(11, r.Phase == Swapped && r.Made == 0)
		if r.Phase == Decided || r.Phase == Stored {
			publishing++
		}
	}
	for _, id := range s.Scratch {
		t := m.at(id).Tree
		see(4, id != 0 && t.T == Broken && t.A == t.S && t.S == 1 && t.B == Pair{0, 0})
	}
	for _, id := range m.line(s.Main) {
		p := m.at(id).P2
		see(5, p != 0 && m.at(m.at(p).P1).Kind == Scratch)
	}
	for _, t := range s.Told {
		see(8, t.Published && !slices.Contains(s.Acked[:], m.at(t.Gate).P2) && s.Crashes < m.Crashes)
		see(9, t.Gate != 0 && !t.Published && s.Crashes < m.Crashes)
	}
	see(12, publishing > 1)
	return names
}

func TestEveryStateHolds(t *testing.T) {
	seen, took := make(map[string]bool), make(map[Act]int)
	for _, b := range bounds() {
		m := New(Variant{}, b)
		res := m.Check(m.watch, Invariants...)
		t.Logf("%d pushes, %d at once, %d crashes, %d cancels: %d states, %d commits, %d steps deep", b.Pushes, b.Runs, b.Crashes, b.Cancels, res.States, res.Commits, res.Depth)
		if res.Broken != nil {
			t.Fatalf("%+v:\n%s", b, res.Broken)
		}
		maps.Copy(seen, res.Seen)
		for act, n := range res.Steps {
			took[act] += n
		}
	}
	for _, name := range remarkable {
		if !seen[name] {
			t.Errorf("no state in which %s: the model does not say what it should", name)
		}
	}
	for _, act := range []Act{ActPush, ActRetry, ActPlan, ActRunA, ActRunB, ActVerify, ActDecide, ActStore, ActSwap, ActSettle, ActAck, ActKeep, ActShow, ActEnd, ActGiveUp, ActCancel, ActCrash, ActRecover, ActStart} {
		if took[act] == 0 {
			t.Errorf("%q is never taken", act)
		}
	}
}

// Gates that are naive in one thing fall, each to the counterexample that is known of
// it. The first two are those published of transactional branches.
func TestNaiveGatesFall(t *testing.T) {
	for _, c := range []struct {
		variant Variant
		bounds  Bounds
		breaks  Invariant
		steps   int      // of the shortest trace
		story   []string // steps that it has, in this order
	}{
		{
			Variant{Name: "derived tables that a push does not touch the inputs of are believed", TrustPushed: true},
			Bounds{Pushes: 2, Runs: 1, Rounds: 1, Edits: Edits{Sources: true, Restore: true}}, Consistent, 18,
			[]string{"push 1: set S to 1 on main", "run 1: swap", "push 2: restore A alone on main", "run 2: swap"},
		},
		{
			Variant{Name: "a scratch state is believed, since the server made it", TrustScratch: true},
			Bounds{Pushes: 2, Runs: 1, Rounds: 1, Edits: Edits{Sources: true, Fork: true}}, Consistent, 15,
			[]string{"push 1: set T to 2 on main", "run 1: show", "push 2: propose a scratch state as it is", "run 2: swap"},
		},
		{
			Variant{Name: "a table that was written by hand is believed", TrustPushed: true},
			Bounds{Pushes: 1, Runs: 1, Rounds: 1, Edits: Edits{Hand: true}}, Consistent, 8,
			[]string{"push 1: write", "run 1: swap"},
		},
		{
			Variant{Name: "tables are published one by one", TableByTable: true},
			Bounds{Pushes: 1, Runs: 1, Rounds: 1, Edits: Edits{Sources: true}}, Atomic, 8,
			[]string{"push 1: set", "run 1: move A"},
		},
		{
			Variant{Name: "refs move before the objects are in the store", RefsFirst: true},
			Bounds{Pushes: 1, Crashes: 1, Runs: 1, Rounds: 1, Edits: Edits{Sources: true}}, Durable, 7,
			[]string{"push 1: set", "run 1: swap"},
		},
		{
			Variant{Name: "main is compared and moved in two steps", NoSwap: true},
			Bounds{Pushes: 2, Runs: 2, Rounds: 1, Edits: Edits{Sources: true}}, Acknowledged, 20,
			[]string{"compare", "swap", "acknowledge", "swap"},
		},
		{
			Variant{Name: "the proposal is verified, and not what comes of its merge", VerifySource: true},
			Bounds{Pushes: 2, Runs: 2, Rounds: 1, Edits: Edits{Sources: true}}, Verifiable, 16,
			[]string{"push 1: set S to 1 on main", "run 1: swap", "push 2: set T to 1 on main~1", "run 2: swap"},
		},
		{
			Variant{Name: "what was judged is put on another tip", Reparent: true},
			Bounds{Pushes: 2, Runs: 2, Rounds: 1, Edits: Edits{Sources: true}}, Serializable, 16,
			[]string{"push 1: set", "push 2: set", "swap", "swap"},
		},
		{
			Variant{Name: "the cache has results before the store does", CacheFirst: true},
			Bounds{Pushes: 2, Crashes: 1, Runs: 1, Rounds: 1, Edits: Edits{Sources: true}}, Durable, 14,
			[]string{"push 1: set", "run A", "crash", "push 2: set", "run 2: swap"},
		},
		{
			Variant{Name: "the pusher is told before main has moved", AckFirst: true},
			Bounds{Pushes: 1, Crashes: 1, Runs: 1, Rounds: 1, Edits: Edits{Sources: true}}, Acknowledged, 7,
			[]string{"push 1: set", "run 1: acknowledge"},
		},
		{
			Variant{Name: "recovery believes the journal", TrustJournal: true},
			Bounds{Pushes: 1, Crashes: 1, Runs: 1, Rounds: 1, Edits: Edits{Sources: true}}, Truthful, 8,
			[]string{"run 1: decide", "crash", "run 1: recover"},
		},
		{
			Variant{Name: "a run is cancelled when it is decided", LateCancel: true},
			Bounds{Pushes: 1, Cancels: 1, Runs: 1, Rounds: 1, Edits: Edits{Sources: true}}, Truthful, 12,
			[]string{"run 1: swap", "run 1: cancel"},
		},
	} {
		t.Run(c.variant.Name, func(t *testing.T) {
			// The same bounds let nothing through our gate.
			if res := New(Variant{}, c.bounds).Check(nil, Invariants...); res.Broken != nil {
				t.Fatalf("our own gate falls:\n%s", res.Broken)
			}
			res := New(c.variant, c.bounds).Check(nil, c.breaks)
			if res.Broken == nil {
				t.Fatalf("the checker does not find it any more, in %d states", res.States)
			}
			t.Logf("in %d steps:\n%s", len(res.Broken.Steps), res.Broken)
			if len(res.Broken.Steps) != c.steps {
				t.Errorf("the shortest trace has %d steps, want %d", len(res.Broken.Steps), c.steps)
			}
			at := 0
			for _, step := range res.Broken.Steps {
				if at < len(c.story) && strings.Contains(step.String(), c.story[at]) {
					at++
				}
			}
			if at < len(c.story) {
				t.Errorf("the trace does not tell of %q", c.story[at])
			}
		})
	}
}

// Taking a run's own steps first loses nothing that anybody could see.
func TestOwnStepsFirstLosesNothing(t *testing.T) {
	type visible struct {
		main    ID
		scratch [maxScratch]ID
		told    [maxTold]Told
		acked   [maxAcked]ID
	}
	var found [2]map[visible]bool
	history := newHistory() // of both, so that their ids are the same
	for i, full := range []bool{false, true} {
		m := New(Variant{}, Bounds{Pushes: 2, Crashes: 1, Cancels: 1, Rounds: 2, Runs: 2, Edits: Edits{Sources: true, Fork: true}, Full: full})
		m.History = history
		found[i] = make(map[visible]bool)
		res := m.Check(func(s State) []string {
			found[i][visible{s.Main, s.Scratch, s.Told, s.Acked}] = true
			return nil
		}, Invariants...)
		if res.Broken != nil {
			t.Fatal(res.Broken)
		}
		t.Logf("full %t: %d states, %d of them look different", full, res.States, len(found[i]))
	}
	if !maps.Equal(found[0], found[1]) {
		t.Errorf("%d states look different with own steps first, %d in full", len(found[0]), len(found[1]))
	}
}
