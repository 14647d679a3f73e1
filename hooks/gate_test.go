package hooks

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

func TestEveryFirstParentCommitIsTheGates(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	r.must(r.toMain(with(base(), "models/two.sql", "SELECT n, n FROM one")))
	var seen []string
	err := history.FirstParent(t.Context(), r.lake.Objects, r.tip(mainRef), func(oid objects.OID, c *gitobj.Commit) (bool, error) {
		seen = append(seen, subject(c.Message))
		if err := r.gate.cfg.Signer.Verify(c); err != nil {
			t.Errorf("commit %s on main's first-parent line: %v", oid, err)
		}
		if len(c.Parents) == 0 {
			return true, nil
		}
		g, err := trailer.Parse(c.Message)
		if err != nil || g.Base != c.Parents[0] || g.Proposal != c.Parents[1] || g.PushedBy != "ada" {
			t.Errorf("trailers %+v (%v) do not tell of parents %v", g, err, c.Parents)
		}
		for _, m := range g.Models {
			e, err := tree.Lookup(t.Context(), r.lake.Objects, c.Tree, "tables/"+m.Name)
			if err != nil || e.OID.String() != m.Out {
				t.Errorf("trailer of model %s says %s, the tree has %s (%v)", m.Name, m.Out, e.OID, err)
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Publish to main: Change it", "Publish to main: Change it", "Open lake flights"}
	if !slices.Equal(seen, want) {
		t.Errorf("first-parent line: %q, want %q", seen, want)
	}
	if got := len(r.names(scratchPrefix)); got != 0 {
		t.Errorf("%d scratch refs are left after success", got)
	}
}

func TestOnlyWhatChangedRuns(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	if n := r.boxes.took(protocol.OpModel); n != 2 {
		t.Errorf("first push ran %d models, want 2", n)
	}
	r.must(r.toMain(with(base(), "README.md", "words")))
	if len(r.boxes.ops) != 0 {
		t.Errorf("a push that changes no code and no data ran %v", r.boxes.ops)
	}
	r.must(r.toMain(with(base(), "models/two.sql", "SELECT n -- other\nFROM one")))
	if n := r.boxes.took(protocol.OpModel); n != 1 {
		t.Errorf("a change to the last model ran %d, want 1", n)
	}
	r.must(r.toMain(base(), "no-cache"))
	if n := r.boxes.took(protocol.OpModel); n != 2 {
		t.Errorf("no-cache ran %d models, want 2", n)
	}
}

func TestViolationsRefuse(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	before := r.tip(mainRef)
	err := r.toMain(with(base(), "verifiers/bad_rule.sql", "SELECT n FROM two -- VIOLATIONS 12"))
	var rejected *Rejection
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "12 violating row(s)") {
		t.Fatalf("got %v, want a rejection that counts 12 rows", err)
	}
	if r.tip(mainRef) != before {
		t.Error("main moved")
	}
	rec := r.record(lake.Rejected)
	scratch, run := r.tip(refs.Name(scratchPrefix+rec.ID)), r.tip(refs.Name(runsPrefix+rec.ID))
	if !strings.Contains(r.read(scratch, "tables/two/table.json"), `"parts"`) {
		t.Error("the scratch state lacks the tables that were built")
	}
	i := slices.IndexFunc(rec.Verifiers, func(v VerifierRecord) bool { return v.Status == "fail" })
	if i < 0 || rec.Verifiers[i].Violations != 12 {
		t.Fatalf("record: %+v", rec.Verifiers)
	}
	if got := r.read(run, rec.Verifiers[i].Rows); got != "PAR1PAR1" {
		t.Errorf("violating rows at %s: %q", rec.Verifiers[i].Rows, got)
	}
	for _, want := range []string{"FAIL: 12 violating row(s)", "n=7", "REFUSED", scratchPrefix + rec.ID, runsPrefix + rec.ID} {
		if !strings.Contains(r.out.String(), want) {
			t.Errorf("the pusher was not told %q:\n%s", want, r.out.String())
		}
	}
	// A pass is remembered, a failure never is.
	if err := r.toMain(with(base(), "verifiers/bad_rule.sql", "SELECT n FROM two -- VIOLATIONS 12")); err == nil {
		t.Error("the same failure passes the second time")
	}
}

func TestFailedModelSkipsOnlyItsChildren(t *testing.T) {
	r := newRig(t)
	err := r.toMain(with(base(), "models/one.sql", "SELECT BAD FROM src", "models/three.sql", "SELECT 3 FROM src"))
	var rejected *Rejection
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "models/one.sql:2: Binder Error") {
		t.Fatalf("got %v, want a rejection that names file and line", err)
	}
	status := make(map[string]string)
	rec := r.record(lake.Rejected)
	for _, m := range rec.Models {
		status[m.Name] = m.Status
	}
	want := map[string]string{"one": "failed", "two": "skipped", "three": "ok"}
	if !maps.Equal(status, want) {
		t.Errorf("models: %v, want %v", status, want)
	}
	if r.read(r.tip(refs.Name(scratchPrefix+rec.ID)), "tables/three/table.json") == "" {
		t.Error("the scratch state lacks the table that was built")
	}
	if !r.tip(mainRef).IsZero() {
		t.Error("main exists")
	}
}

// Invariant 6: a gate that cannot run refuses, and says that it is not the
// proposal's fault.
func TestGateThatCannotRunRefuses(t *testing.T) {
	r := newRig(t)
	r.boxes.broken = errors.New("secret path /var/lib/x is gone")
	err := r.toMain(base())
	var unable *CouldNotRun
	if !errors.As(err, &unable) || strings.Contains(err.Error(), "secret") {
		t.Fatalf("got %v, want CouldNotRun without the server's inside", err)
	}
	if !r.tip(mainRef).IsZero() {
		t.Error("main exists")
	}
	r.record(lake.Failed)
	r.boxes.broken = nil
	r.must(r.toMain(base()))
}

func TestTipThatMovesDuringARunRefuses(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	old := r.tip(mainRef)
	var second error
	var entered atomic.Bool // eve's own run gets here too
	r.boxes.during = func() {
		if entered.Swap(true) {
			return
		}
		oid, q := r.commit(with(base(), "models/one.sql", "SELECT 2 FROM src"), old)
		second = r.gate.Receive(r.Context(), &Push{Lake: r.lake, Who: Identity{Name: "eve"}, Objects: q, Progress: io.Discard,
			Updates: []refs.Update{{Name: mainRef, Old: old, New: oid}}})[0].Err
		second = errors.Join(second, q.Discard())
	}
	err := r.toMain(with(base(), "models/one.sql", "SELECT 1 FROM src"))
	r.must(second)
	var rejected *Rejection
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "moved while the run was under way") {
		t.Fatalf("got %v, want a refusal because main moved", err)
	}
	c, cerr := readCommit(r.Context(), r.lake.Objects, r.tip(mainRef))
	r.must(cerr)
	if g, err := trailer.Parse(c.Message); err != nil || g.PushedBy != "eve" {
		t.Errorf("main is %+v (%v), want eve's", g, err)
	}
	run, rerr := r.lake.Runs.Get(rejected.Run)
	r.must(rerr)
	doc, rerr := RunJSON(r.Context(), r.lake, rejected.Run)
	r.must(rerr)
	if run.Gate != "" || strings.Contains(string(doc), `"gate":`) {
		t.Errorf("a refused run names a gate commit: %q in the journal, and\n%s", run.Gate, doc)
	}
	r.boxes.during = nil
	r.boxes.took(protocol.OpModel)
	r.must(r.toMain(with(base(), "models/one.sql", "SELECT 1 FROM src")))
	if n := r.boxes.took(protocol.OpModel); n != 0 {
		t.Errorf("the second try ran %d models again, want them cached", n)
	}
}

// Invariant 2: what is pushed for a derived table never counts.
func TestHandEditedDerivedTableIsRecomputed(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	before := r.read(r.tip(mainRef), "tables/one/table.json")
	edited := with(base(), "tables/one/x.parquet", "PAR1 forged PAR1")
	if err := r.toMain(edited, "strict"); err == nil {
		t.Error("-o strict let a hand-edited derived table through")
	}
	r.must(r.toMain(edited))
	if got := r.read(r.tip(mainRef), "tables/one/table.json"); got != before {
		t.Errorf("table one is %s, want the model's %s", got, before)
	}
	if !strings.Contains(r.out.String(), "table one: what was pushed is not what its model gives") {
		t.Errorf("the pusher was not told:\n%s", r.out.String())
	}
}

// What git revert or git merge leaves of a derived table's files may be no table at
// all: it counts for nothing. Of a source table it is refused.
func TestMixturesOfDerivedTablesAreRecomputed(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	before := r.read(r.tip(mainRef), "tables/one/table.json")
	for _, junk := range []string{"{\n<<<<<<< HEAD\n=======\n>>>>>>> x\n}\n", "{}", ""} {
		r.must(r.toMain(with(base(), "tables/one/table.json", junk+" ", "tables/one/00000000000000000000.parquet", "PAR1 forged PAR1")))
		if got := r.read(r.tip(mainRef), "tables/one/table.json"); got != before {
			t.Errorf("table one is %s, want the model's %s", got, before)
		}
		if !strings.Contains(r.out.String(), "table one: what was pushed is not what its model gives") {
			t.Errorf("the pusher was not told:\n%s", r.out.String())
		}
	}
	old := r.tip(mainRef)
	err := r.toMain(with(base(), "tables/src/table.json", "<<<<<<< HEAD\n"))
	var rejected *Rejection
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "tables/src: table.json: line 1 is a conflict marker of git") || r.tip(mainRef) != old {
		t.Errorf("a source table with a conflict: %v", err)
	}
}

func TestDryRunMovesNothing(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	old := r.tip(mainRef)
	oid, q := r.commit(with(base(), "models/one.sql", "SELECT 5 FROM src"), old)
	out := r.push(q, []string{"dry-run"}, false, refs.Update{Name: mainRef, Old: old, New: oid})[0]
	if out.Err != nil || out.NewOID != old || r.tip(mainRef) != old {
		t.Errorf("outcome %+v, main %s; want ok, with main still %s", out, r.tip(mainRef), old)
	}
	r.record(lake.Passed)
	if got := len(r.names(scratchPrefix)); got != 0 {
		t.Errorf("%d scratch refs after a dry run that passed", got)
	}
}

func TestAtomicPushMovesAllOrNone(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	old := r.tip(mainRef)
	try := func(files map[string]string) []Outcome {
		oid, q := r.commit(files, old)
		return r.push(q, nil, true, refs.Update{Name: "refs/heads/agent/x", New: oid}, refs.Update{Name: mainRef, Old: old, New: oid}, refs.Update{Name: "refs/tags/v1", New: oid})
	}
	for _, o := range try(with(base(), "verifiers/fine.sql", "SELECT 1 FROM two -- VIOLATIONS 1")) {
		if o.Err == nil {
			t.Errorf("%s was let through beside a refused main", o.Name)
		}
	}
	if !r.tip("refs/heads/agent/x").IsZero() || !r.tip("refs/tags/v1").IsZero() || r.tip(mainRef) != old {
		t.Error("a refused atomic push moved a ref")
	}
	for _, o := range try(with(base(), "README.md", "x")) {
		r.must(o.Err)
	}
	if r.tip("refs/heads/agent/x").IsZero() || r.tip("refs/tags/v1").IsZero() || r.tip(mainRef) == old {
		t.Error("an atomic push did not move all refs")
	}
}

func TestWhatMayNotBePushed(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	old := r.tip(mainRef)
	other, q := r.commit(base())
	for _, c := range []struct {
		why    string
		update refs.Update
	}{
		{"deleting main", refs.Update{Name: mainRef, Old: old}},
		{"rewinding main", refs.Update{Name: mainRef, Old: old, New: other}},
		{"writing a scratch ref", refs.Update{Name: scratchPrefix + "x", New: other}},
		{"writing a run record", refs.Update{Name: runsPrefix + "x", New: other}},
		{"writing the house's notes", refs.Update{Name: notesRef, New: other}},
		{"writing elsewhere", refs.Update{Name: "refs/pull/1/head", New: other}},
		{"proposing to a branch that is not there", refs.Update{Name: "refs/for/nowhere", New: other}},
		{"proposing without the tip", refs.Update{Name: "refs/for/main", New: other}},
	} {
		if out := r.push(q, nil, false, c.update); out[0].Err == nil {
			t.Errorf("%s is allowed", c.why)
		}
		if r.tip(mainRef) != old {
			t.Fatalf("%s moved main", c.why)
		}
	}
}

func TestProposalRef(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	old := r.tip(mainRef)
	oid, q := r.commit(with(base(), "models/one.sql", "SELECT 6 FROM src"), old)
	r.must(r.push(q, nil, false, refs.Update{Name: "refs/for/main", New: oid})[0].Err)
	if r.tip(mainRef) == old || !r.tip("refs/for/main").IsZero() {
		t.Error("a proposal did not publish to main, or left a ref of its own")
	}
}

// The run's base is a verified state: also for a branch that starts from a
// proposal in main's history.
func TestRunOnANewBranchIsJudgedAgainstMain(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	gate := r.tip(mainRef)
	c, err := readCommit(t.Context(), r.lake.Objects, gate)
	r.must(err)
	oid, q := r.commit(with(base(), "models/one.sql", "SELECT 9 FROM src"), c.Parents[1])
	r.must(r.push(q, []string{"run"}, false, refs.Update{Name: "refs/heads/agent/y", New: oid})[0].Err)
	b, err := readCommit(t.Context(), r.lake.Objects, r.tip("refs/heads/agent/y"))
	r.must(err)
	// The proposal contains main's proposal but not main's gate commit, so there
	// is no verified state that it contains but the empty one.
	root, err := readCommit(t.Context(), r.lake.Objects, b.Parents[0])
	r.must(err)
	if err := r.gate.cfg.Signer.Verify(root); err != nil || len(root.Parents) != 0 || b.Parents[1] != oid {
		t.Errorf("the branch's commit has parents %v: want a signed empty start (%v) and %s", b.Parents, err, oid)
	}

	oid, q = r.commit(with(base(), "models/one.sql", "SELECT 10 FROM src"), gate)
	r.must(r.push(q, []string{"run"}, false, refs.Update{Name: "refs/heads/agent/z", New: oid})[0].Err)
	b, err = readCommit(t.Context(), r.lake.Objects, r.tip("refs/heads/agent/z"))
	r.must(err)
	if b.Parents[0] != gate {
		t.Errorf("a branch that starts from main's tip %s is judged against %s", gate, b.Parents[0])
	}
}

// Durable states: whatever the journal got to say, a restart ends the run with
// the truth, which is what the refs say.
func TestRecovery(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	published, err := r.lake.Runs.List(1)
	r.must(err)
	lost := published[0]
	lost.State = lake.Publishing // the crash came after the swap
	r.must(r.lake.Runs.Put(lost))
	for i, s := range []lake.State{lake.Accepted, lake.Planning, lake.Running, lake.Verifying, lake.Publishing} {
		r.must(r.lake.Runs.Put(lake.Run{ID: fmt.Sprintf("01J%d", i), State: s, Target: string(mainRef), Gate: strings.Repeat("1", 40), Who: "ada", Proposal: lost.Proposal}))
	}
	old := r.tip(mainRef)
	for range 2 { // a second restart changes nothing
		r.must(r.gate.Recover(t.Context(), r.lake))
		if got, err := r.lake.Runs.Get(lost.ID); err != nil || got.State != lake.Published {
			t.Errorf("the run whose commit is on main is %+v (%v), want published", got, err)
		}
		for i := range 5 {
			id := fmt.Sprintf("01J%d", i)
			if got, err := r.lake.Runs.Get(id); err != nil || got.State != lake.Failed || got.Reason == "" || got.Gate != "" {
				t.Errorf("run %s is %+v (%v), want failed with a reason and no gate commit", id, got, err)
			}
			if doc, err := RunJSON(t.Context(), r.lake, id); err != nil || !strings.Contains(string(doc), `"failed"`) {
				t.Errorf("record of run %s: %s, %v", id, doc, err)
			}
		}
	}
	if r.tip(mainRef) != old {
		t.Error("recovery moved main")
	}
}

// A branch that is not gated holds whatever was pushed, so its tip vouches for
// nothing: a run on it reads every table.
func TestAnUngatedTipVouchesForNothing(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	meta := r.read(r.tip(mainRef), "tables/src/table.json")
	c, err := readCommit(t.Context(), r.lake.Objects, r.tip(mainRef))
	r.must(err)
	parts, err := tree.Lookup(t.Context(), r.lake.Objects, c.Tree, "tables/src")
	r.must(err)
	entries, err := tree.List(t.Context(), r.lake.Objects, parts.OID)
	r.must(err)
	lie := with(base(), "tables/src/a.parquet", "", "tables/src/table.json", strings.Replace(meta, `"rows":1`, `"rows":5`, 1))
	for _, e := range entries {
		if strings.HasSuffix(e.Name, ".parquet") {
			lie["tables/src/"+e.Name] = "PAR1 source PAR1"
		}
	}
	if lie["tables/src/table.json"] == meta {
		t.Fatalf("the lie is the truth: %s", meta)
	}
	const branch = refs.Name("refs/heads/agent/x")
	first, q := r.commit(lie, r.tip(mainRef))
	r.must(r.push(q, nil, false, refs.Update{Name: branch, New: first})[0].Err)
	second, q := r.commit(with(lie, "README.md", "words"), first)
	err = r.push(q, []string{"run"}, false, refs.Update{Name: branch, Old: first, New: second})[0].Err
	var rejected *Rejection
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "not true of the parts") {
		t.Errorf("got %v, want a rejection of the lying table.json", err)
	}
}

// The scratch state of a refused run is nobody's word: forked and pushed, it is
// judged like anything else.
func TestScratchStateIsNotSigned(t *testing.T) {
	r := newRig(t)
	bad := with(base(), "verifiers/fine.sql", "SELECT n FROM two -- VIOLATIONS 1")
	if err := r.toMain(bad); err == nil {
		t.Fatal("violations pass")
	}
	scratch := r.tip(refs.Name(scratchPrefix + r.record(lake.Rejected).ID))
	c, err := readCommit(t.Context(), r.lake.Objects, scratch)
	r.must(err)
	if c.GPGSig != "" || r.gate.isGateCommit(c) {
		t.Error("the scratch state carries the gate's signature")
	}
	q, err := r.lake.Objects.Quarantine()
	r.must(err)
	if out := r.push(q, nil, false, refs.Update{Name: mainRef, New: scratch}); out[0].Err == nil {
		t.Error("the scratch state of a refused run was published")
	}
}

// A function that tried what it may not do is refused however often it is
// pushed: its result must not come back from the cache as if it had behaved.
func TestViolationsAreNeverForgiven(t *testing.T) {
	for _, op := range []protocol.Op{protocol.OpModel, protocol.OpVerify} {
		t.Run(string(op), func(t *testing.T) {
			r := newRig(t)
			r.boxes.violates = op
			for push := 1; push <= 4; push++ { // once per function, and once more
				err := r.toMain(base())
				var rejected *Rejection
				if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "203.0.113.1:80") {
					t.Fatalf("push %d: got %v, want a rejection that names the address", push, err)
				}
			}
			if !r.tip(mainRef).IsZero() {
				t.Error("main exists")
			}
		})
	}
}

// A policy that is not a readable file is the proposal's fault, not the gate's.
func TestUnreadablePolicyIsRejected(t *testing.T) {
	for what, path := range map[string]string{"a directory": "headgate.yaml/x", "too large": "headgate.yaml"} {
		r := newRig(t)
		r.must(r.toMain(base()))
		err := r.toMain(with(base(), path, strings.Repeat("#", maxPolicy+1)))
		var rejected *Rejection
		if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "headgate.yaml") {
			t.Errorf("%s: got %v, want a rejection that names the file", what, err)
		}
	}
}
