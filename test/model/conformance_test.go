package model

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

// replica plays a trace of the model on the real gate.
type replica struct {
	*server
	model   *Model
	commits map[ID]objects.OID
	dirs    map[string]objects.OID // directories of tables by content: "S=1", "B=1,0"
	old     map[refs.Name]bool     // scratch refs from before the trace
	before  int                    // published runs from before it
	options []string
}

// begin makes the lake of the model's first state. On the way there it sees every source
// as the gate stores it.
func begin(t *testing.T, m *Model, first ID) *replica {
	t.Helper()
	r := &replica{server: open(t, t.TempDir(), t.TempDir(), true), model: m, commits: make(map[ID]objects.OID), dirs: make(map[string]objects.OID)}
	for n, src := range []struct{ s, t string }{{"S=0", "T=0"}, {"S=1", "T=0"}, {"S=0", "T=1"}, {"S=0", "T=2"}, {"S=0", "T=0"}} {
		q := r.quarantine()
		edits := map[string]tree.Edit{"tables/s": r.parquet(q, src.s), "tables/t": r.parquet(q, src.t)}
		for path, text := range code {
			edits[path] = r.blob(q, text)
		}
		var root objects.OID
		var parents []objects.OID
		tip := r.tip(mainRef)
		if !tip.IsZero() {
			root, parents = r.treeOf(tip), append(parents, tip)
		}
		root, err := tree.Apply(r.ctx, q, root, edits)
		r.must(err)
		p := r.push(uint8(n), q, refs.Update{Name: mainRef, Old: tip, New: r.commit(q, root, parents...)})
		p.until(over)
		if (p.out.Err != nil) != (src.t == "T=2") {
			t.Fatalf("%s, %s: %v", src.s, src.t, p.out.Err)
		}
		r.decode(r.tip(mainRef))
	}
	clear(r.pushes)
	r.old = make(map[refs.Name]bool)
	for _, ref := range r.shown() {
		r.decode(ref.OID)
		r.old[ref.Name] = true
	}
	r.commits[first] = r.tip(mainRef)
	r.before = r.published()
	return r
}

func (r *replica) shown() []refs.Ref {
	r.Helper()
	list, err := r.lake.Refs.List(r.ctx, scratch)
	r.must(err)
	return slices.DeleteFunc(list, func(ref refs.Ref) bool { return r.old[ref.Name] })
}

// published is how many runs the journal calls so. A run that published has its gate
// commit there, and no other has.
func (r *replica) published() int {
	r.Helper()
	runs, err := r.lake.Runs.List(0)
	r.must(err)
	n := 0
	for _, run := range runs {
		if !run.State.Final() || (run.State == lake.Published) != (run.Gate != "") {
			r.Errorf("run %s is %s with the gate commit %q", run.ID, run.State, run.Gate)
		}
		if run.State == lake.Published {
			n++
		}
	}
	return n
}

// decode reads a commit as a state of the model, and learns its tables.
func (r *replica) decode(commit objects.OID) Tree {
	r.Helper()
	root := r.treeOf(commit)
	var t Tree
	for _, name := range []string{"s", "t", "a", "b"} {
		dir, err := tree.Lookup(r.ctx, r.lake.Objects, root, "tables/"+name)
		r.must(err)
		entries, err := tree.List(r.ctx, r.lake.Objects, dir.OID)
		r.must(err)
		i := slices.IndexFunc(entries, func(e gitobj.Entry) bool { return strings.HasSuffix(e.Name, ".parquet") })
		if i < 0 {
			r.Fatalf("table %s of %s has no part", name, commit)
		}
		data, err := objects.ReadAll(r.ctx, r.lake.Objects, entries[i].OID, objects.Blob, 1<<10)
		r.must(err)
		text := strings.TrimSuffix(strings.TrimPrefix(string(data), "PAR1 "), " PAR1")
		if slices.ContainsFunc(entries, func(e gitobj.Entry) bool { return e.Name == "table.json" }) {
			r.dirs[text] = dir.OID
		}
		to := map[string][]any{"s": {&t.S}, "t": {&t.T}, "a": {&t.A}, "b": {&t.B.A, &t.B.T}}[name]
		_, value, _ := strings.Cut(text, "=")
		_, err = fmt.Sscan(strings.ReplaceAll(value, ",", " "), to...)
		r.must(err)
	}
	_, err := tree.Lookup(r.ctx, r.lake.Objects, root, "tables/conflicts")
	t.Conflict = err == nil
	return t
}

// propose makes the commit of a proposal: the base with what the model changed in it.
func (r *replica) propose(step Step) *pusher {
	r.Helper()
	q := r.quarantine()
	if _, ok := r.commits[step.Proposal]; !ok {
		base := r.commits[step.Base]
		is, want := r.decode(base), r.model.at(step.Proposal).Tree
		edits := make(map[string]tree.Edit)
		set := func(dir, content string, changed, byHand bool) {
			switch oid, known := r.dirs[content]; {
			case !changed:
			case byHand:
				edits[dir] = r.parquet(q, content)
			case known:
				edits[dir] = tree.Edit{Mode: gitobj.ModeTree, OID: oid}
			default:
				r.Fatalf("no table %s is known", content)
			}
		}
		set("tables/s", fmt.Sprintf("S=%d", want.S), want.S != is.S, false)
		set("tables/t", fmt.Sprintf("T=%d", want.T), want.T != is.T, false)
		set("tables/a", fmt.Sprintf("A=%d", want.A), want.A != is.A, want.A == Hand)
		set("tables/b", fmt.Sprintf("B=%d,%d", want.B.A, want.B.T), want.B != is.B, want.B.A == Hand)
		if is.Conflict && !want.Conflict {
			edits["tables/conflicts"] = tree.Edit{Remove: true}
		}
		root, err := tree.Apply(r.ctx, q, r.treeOf(base), edits)
		r.must(err)
		r.commits[step.Proposal] = r.commit(q, root, base)
	}
	return r.push(step.Push, q, refs.Update{Name: proposed, New: r.commits[step.Proposal]}, r.options...)
}

// play takes one step, from one state of the model to the next.
func (r *replica) play(step Step, from, to State) {
	r.Helper()
	p := r.pushes[step.Push]
	switch step.Act {
	case ActPush:
		r.propose(step).wait()
	case ActDecide:
		p.until(atSwap)
	case ActPlan, ActStore, ActSettle, ActGiveUp:
		// Nothing that anybody sees, or seen at the next stop.
		if step.Act == ActGiveUp {
			p.until(over)
		}
	case ActRunA:
		p.until(atB)
	case ActRunB:
		p.until(atVerifier)
	case ActVerify:
		p.until(atDecide)
	case ActSwap:
		p.until(swapped)
		if to.Main != from.Main {
			r.commits[to.Main] = r.tip(mainRef)
		}
	case ActAck:
		p.until(over)
		if p.out.Err != nil {
			r.Errorf("push %d was refused: %v", step.Push, p.out.Err)
		}
	case ActKeep:
		p.until(atEvidence)
	case ActShow:
		known := r.shown()
		p.until(shown)
		for _, ref := range r.shown() {
			if !slices.Contains(known, ref) {
				r.commits[evidence(from, step.Push)] = ref.OID
			}
		}
	case ActEnd:
		why := runOf(from, step.Push).Why
		if why == Moved {
			break // goes on with the next round
		}
		p.until(over)
		var rejected *hooks.Rejection
		var cancelled *hooks.Cancelled
		if !errors.As(p.out.Err, &rejected) && !(why == Cancelled && errors.As(p.out.Err, &cancelled)) {
			r.Errorf("push %d ended with %v", step.Push, p.out.Err)
		}
	case ActRetry:
		p.at = atStart
		p.wait()
	case ActCancel:
		id := r.gate.Newest(r.lake)
		if n := len(slices.DeleteFunc(slices.Clone(from.Runs[:]), func(r Run) bool { return r.Phase == None })); n != 1 {
			r.Fatalf("%d runs, and none is told from the others", n)
		}
		p.held = false
		go func() { _ = r.gate.Cancel(context.Background(), r.lake, id, hooks.Identity{Name: "ada"}) }()
		p.until(atEvidence)
	case ActCrash:
		r.server = r.crash()
	case ActRecover:
	case ActStart:
		r.must(r.gate.Recover(r.ctx, r.lake))
	default:
		r.Fatalf("no such action: %s", step.Act)
	}
}

func runOf(s State, push uint8) Run {
	return s.Runs[slices.IndexFunc(s.Runs[:], func(r Run) bool { return r.Push == push })]
}

func evidence(s State, push uint8) ID { return runOf(s, push).Evidence }

// compare holds refs, tables and, when no run is under way, the journal against the model's.
func (r *replica) compare(s State) {
	r.Helper()
	if got, want := r.decode(r.tip(mainRef)), r.model.at(s.Main).Tree; got != want {
		r.Errorf("main is %s, want %s", got, want)
	}
	if r.tip(mainRef) != r.commits[s.Main] {
		r.Error("main is another commit")
	}
	got, want := make(map[Tree]bool), make(map[Tree]bool)
	for _, ref := range r.shown() {
		got[r.decode(ref.OID)] = true
	}
	for _, id := range s.Scratch {
		if id != 0 {
			want[r.model.at(id).Tree] = true
		}
	}
	if !maps.Equal(got, want) {
		r.Errorf("scratch states are %v, want %v", got, want)
	}
	if s.Up && s.Runs == [maxRuns]Run{} {
		if got, want := r.published()-r.before, len(r.model.line(s.Main))-1; got != want {
			r.Errorf("the journal calls %d runs published, want %d", got, want)
		}
	}
}

// sample is a random way through the model until nothing can happen any more.
func sample(m *Model, rng *rand.Rand, cancels bool) (steps []Step, states []State) {
	s := m.Start()
	states = append(states, s)
	for {
		moves := make(map[Act]map[string][]int) // by what is done, and how
		var next []State
		var by []Step
		m.Next(s, func(step Step, to State) {
			run := Run{}
			if step.Push != 0 && step.Act != ActPush {
				run = runOf(s, step.Push)
			}
			switch {
			case step.Act == ActCancel && (!cancels || run.Phase < Planned || run.Phase >= Verified || s.Runs[1].Phase != None):
				return // the real run stands between the states in which the model's can be
			case step.Act == ActDecide && slices.ContainsFunc(s.Runs[:], func(r Run) bool { return r.Phase >= Decided && r.Phase <= Settled }):
				return // publications of one lake take turns, see hooks/ledger.go; the model lets them meet
			case to.Scratch[maxScratch-1] != 0, to.Told[maxTold-1] != Told{}:
				return // the model forgets the oldest
			}
			if moves[step.Act] == nil {
				moves[step.Act] = make(map[string][]int)
			}
			how, _, _ := strings.Cut(step.Edit, " ")
			moves[step.Act][how] = append(moves[step.Act][how], len(next))
			next, by = append(next, to), append(by, step)
		})
		acts := slices.Sorted(maps.Keys(moves))
		if n := len(acts); n > 1 && rng.IntN(6) > 0 { // or each trace is short
			acts = slices.DeleteFunc(acts, func(a Act) bool { return a == ActCrash })
		}
		if len(acts) == 0 || len(acts) == 1 && acts[0] == ActCrash {
			return steps, states
		}
		ways := moves[acts[rng.IntN(len(acts))]]
		how := slices.Sorted(maps.Keys(ways))
		choices := ways[how[rng.IntN(len(how))]]
		i := choices[rng.IntN(len(choices))]
		s = next[i]
		steps, states = append(steps, by[i]), append(states, s)
	}
}

// follow is the way of pushes that come one after the other, each to its end.
func follow(t *testing.T, m *Model, edits ...string) (steps []Step, states []State) {
	t.Helper()
	s := m.Start()
	states = append(states, s)
	take := func(want func(Step) bool) bool {
		taken := false
		m.Next(s, func(step Step, next State) {
			if !taken && want(step) {
				taken = true
				steps, states = append(steps, step), append(states, next)
			}
		})
		s = states[len(states)-1]
		return taken
	}
	for _, edit := range edits {
		if !take(func(step Step) bool { return step.Act == ActPush && strings.HasPrefix(step.Edit, edit) }) {
			t.Fatalf("nobody can %s", edit)
		}
		for take(func(step Step) bool { return step.Act != ActPush }) {
		}
	}
	return steps, states
}

// conform plays a way through the model on the real gate, and compares after each step.
func conform(t *testing.T, m *Model, steps []Step, states []State, options ...string) {
	t.Helper()
	r := begin(t, m, states[0].Main)
	defer func() { r.close() }()
	r.options = options
	for i, step := range steps {
		r.play(step, states[i], states[i+1])
		if states[i+1].Up {
			r.compare(states[i+1])
		}
		if t.Failed() {
			v := Violation{}
			for j := range i + 1 {
				v.Trace = append(v.Trace, fmt.Sprintf("%-58s %s", steps[j], m.describe(states[j+1])))
			}
			t.Fatalf("after\n%s", &v)
		}
	}
}

// What the published counterexamples do to transactional branches does nothing to the
// real gate: each is played against it.
func TestGateWithstandsTheCounterexamples(t *testing.T) {
	for name, edits := range map[string][]string{
		"one table of a run is reverted alone":       {"set S to 1 on main", "restore A alone on main", "restore B alone on main"},
		"a half-run scratch state is proposed":       {"set S to 1 on main", "set T to 2 on main", "propose a scratch state"},
		"a half-run scratch state is built upon":     {"set T to 2 on main", "write B by hand on a scratch state", "set T to 1 on a scratch state"},
		"a derived table is written by hand":         {"write A by hand on main", "write B by hand on main"},
		"a run is reverted, and another built on it": {"set S to 1 on main", "set T to 1 on main~1", "revert a gate commit", "set T to 1 on main"},
	} {
		t.Run(name, func(t *testing.T) {
			m := New(Variant{}, Bounds{Pushes: 4, Rounds: 8, Runs: 1, Edits: AllEdits})
			steps, states := follow(t, m, edits...)
			conform(t, m, steps, states)
		})
	}
}

// The real gate does what the model does, step for step: random ways through the model
// are played on a lake on disk with scripted sandboxes, crashes included.
func TestGateConforms(t *testing.T) {
	traces := 16
	if *large {
		traces = 1000
	}
	took := make(map[Act]int)
	for seed := range traces {
		cancels := seed%4 == 0
		b := Bounds{Pushes: 4, Crashes: 2, Rounds: 8, Runs: 2, Edits: AllEdits, Full: true}
		if cancels {
			b.Cancels = 2
		}
		m := New(Variant{}, b)
		steps, states := sample(m, rand.New(rand.NewPCG(uint64(seed), 1)), cancels)
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
			conform(t, m, steps, states, "no-cache") // each function is asked, so that each step is one of the real run
		}) {
			break
		}
		for _, step := range steps {
			took[step.Act]++
		}
	}
	t.Logf("played %v", took)
	for _, act := range []Act{ActPush, ActRetry, ActSwap, ActAck, ActShow, ActCancel, ActCrash, ActRecover} {
		if took[act] == 0 {
			t.Errorf("%q was never played", act)
		}
	}
}
