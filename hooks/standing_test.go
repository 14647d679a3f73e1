package hooks

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/refs"
)

// rule is a verifier that finds rows once the lake's data are bad.
const rule = "SELECT n FROM two -- RULE"

func ruled() map[string]string { return with(base(), "verifiers/rule.sql", rule) }

// worse is data of which the rule finds two rows.
func (r *rig) worse() map[string]string {
	r.boxes.finds = func(sql string) int64 {
		if strings.Contains(sql, "RULE") {
			return 2
		}
		return 0
	}
	return with(ruled(), "tables/src/a.parquet", "PAR1 worse PAR1")
}

// What a push is judged by is not its own to choose, however it goes about it.
func TestVerifiersOfTheTipJudgeToo(t *testing.T) {
	for _, c := range []struct {
		name, change string
		edits        []string
	}{
		{"removed", "removed", []string{"verifiers/rule.sql", ""}},
		{"edited", "edited", []string{"verifiers/rule.sql", "SELECT n FROM two"}},
		{"weakened", "weakened", []string{"verifiers/rule.sql", "-- headgate: severity=warn\n" + rule}},
		{"reading another table", "edited", []string{"verifiers/rule.sql", "SELECT n FROM one"}},
		{"moved under a name that is no verifier's", "removed", []string{"verifiers/rule.sql", "", "verifiers/.rule.sql", rule}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.must(r.toMain(ruled()))
			before := r.tip(mainRef)
			err := r.toMain(with(r.worse(), c.edits...))
			var rejected *Rejection
			if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "rule of main's tip: 2 violating row(s)") || r.tip(mainRef) != before {
				t.Fatalf("got %v, want the tip's rule to refuse", err)
			}
			if want := strings.ToUpper(c.change) + " by this push"; !strings.Contains(r.out.String(), want) {
				t.Errorf("the pusher was not told %q:\n%s", want, r.out.String())
			}
			rec := r.record(lake.Rejected)
			if len(rec.VerifierChanges) != 1 || rec.VerifierChanges[0] != (VerifierChange{Name: "rule", Path: "verifiers/rule.sql", Change: c.change}) {
				t.Errorf("record: %+v", rec.VerifierChanges)
			}
			i := slices.IndexFunc(rec.Verifiers, func(v VerifierRecord) bool { return v.Tip })
			if i < 0 || rec.Verifiers[i].Status != "fail" || rec.Verifiers[i].Violations != 2 {
				t.Errorf("record of the tip's: %+v", rec.Verifiers)
			}
		})
	}
}

// The rules of the tip's headgate.yaml are verifiers, and so is the key that it declares.
func TestRulesOfTheTipsPolicyJudgeToo(t *testing.T) {
	for name, rules := range map[string]string{
		"src.n:not_null": "tables: {src: {columns: {n: {tests: [not_null]}}}}",
		"src:key":        "tables: {src: {key: [n]}}",
	} {
		r := newRig(t)
		r.must(r.toMain(with(base(), PolicyFile, rules)))
		r.boxes.finds = func(sql string) int64 {
			if strings.Contains(sql, `"src"`) {
				return 5
			}
			return 0
		}
		err := r.toMain(with(base(), "tables/src/a.parquet", "PAR1 worse PAR1"))
		if err == nil || !strings.Contains(err.Error(), name+" of main's tip: 5 violating") {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// Whoever may change a verifier does so in a push of its own: the tip's have
// nothing to say of tables that they passed already. Then the data may follow.
func TestVerifierGoesBeforeTheData(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(ruled()))
	worse := with(r.worse(), "verifiers/rule.sql", "")
	if err := r.toMain(worse); err == nil {
		t.Fatal("both at once were published")
	}
	r.must(r.toMain(base()))
	rec := r.record(lake.Published)
	if !strings.Contains(r.out.String(), "it has nothing to judge: "+tablesUnchanged) {
		t.Errorf("the pusher was not told:\n%s", r.out.String())
	}
	if len(rec.VerifierChanges) != 1 || rec.VerifierChanges[0].NotRun != tablesUnchanged {
		t.Errorf("record: %+v", rec.VerifierChanges)
	}
	r.must(r.toMain(worse))
}

// A tip's verifier that cannot be evaluated on the new state refuses, and says how to go on.
func TestVerifierOfTheTipThatCannotRun(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(ruled()))
	next := with(ruled(), "verifiers/rule.sql", "SELECT n FROM two -- as it is now", "models/two.sql", "SELECT n AS m FROM one")
	r.boxes.fails = func(sql string) string {
		if strings.Contains(sql, "RULE") {
			return "Binder Error: no column n"
		}
		return ""
	}
	err := r.toMain(next)
	if err == nil || !strings.Contains(err.Error(), "rule of main's tip could not run on this state: verifiers/rule.sql: Binder Error: no column n; "+fixVerifierFirst) {
		t.Errorf("got %v", err)
	}
	gone := with(base(), "models/two.sql", "", "verifiers/fine.sql", "SELECT n FROM one")
	if err := r.toMain(gone); err == nil || !strings.Contains(err.Error(), "the table two is not in the state any more; "+fixVerifierFirst) {
		t.Errorf("without its table: %v", err)
	}
}

// The same check under another name, or a stricter one, changes nothing.
func TestRenamedVerifiersAreTheSame(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(with(base(), "verifiers/rule.sql", "-- headgate: severity=warn\n"+rule)))
	r.must(r.toMain(with(base(), "verifiers/rule.sql", "-- headgate: severity=warn\n"+rule, "models/two.sql", "SELECT n, n FROM one", "verifiers/fine.sql", "", "verifiers/good.sql", "SELECT n FROM two")))
	for _, c := range r.record(lake.Published).VerifierChanges {
		if c.Change != verifierAdded {
			t.Errorf("change: %+v", c)
		}
	}
}

// Where no gate binds, a push may drop what it likes.
func TestNothingStandsWithoutAGate(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(ruled()))
	for _, files := range []map[string]string{ruled(), with(r.worse(), "verifiers/rule.sql", "")} {
		old := r.tip("refs/heads/agent/x")
		oid, q := r.commit(files, append([]gitobj.OID{}, r.tip(mainRef))...)
		if out := r.push(q, []string{"run"}, false, refs.Update{Name: "refs/heads/agent/x", Old: old, New: oid}); out[0].Err != nil && old.IsZero() {
			t.Fatal(out[0].Err)
		} else if out[0].Err != nil {
			t.Errorf("on a branch without a gate: %v", out[0].Err)
		}
		r.boxes.finds = nil
	}
}

func TestSeverity(t *testing.T) {
	r := newRig(t)
	mild := with(base(), "verifiers/mild.sql", "-- headgate: severity=warn\nSELECT n FROM two -- VIOLATIONS 3")
	r.must(r.toMain(mild))
	rec := r.record(lake.Published)
	i := slices.IndexFunc(rec.Verifiers, func(v VerifierRecord) bool { return v.Name == "mild" })
	if i < 0 || rec.Verifiers[i].Status != "warn" || rec.Verifiers[i].Severity != "warn" || rec.Verifiers[i].Rows == "" || len(rec.Warnings) != 1 {
		t.Errorf("record: %+v, %v", rec.Verifiers, rec.Warnings)
	}
	c, err := readCommit(t.Context(), r.lake.Objects, r.tip(mainRef))
	if err != nil {
		t.Fatal(err)
	}
	g, err := trailer.Parse(c.Message)
	if err != nil || !slices.Contains(g.Verifiers, trailer.Verifier{Name: "mild", Result: "warn"}) {
		t.Errorf("trailers: %+v, %v", g.Verifiers, err)
	}
	if rep := r.replay(r.tip(mainRef)); !rep.Equal {
		t.Errorf("replay: %+v", rep)
	}
	if err := r.toMain(with(mild, "README", "words"), "strict"); err == nil || !strings.Contains(err.Error(), "verifier mild: 3 violating row(s)") {
		t.Errorf("strict: %v", err)
	}
	// One that cannot be evaluated says nothing, and so is no warning.
	r.boxes.fails = func(sql string) string { return "no such thing" }
	if err := r.toMain(with(mild, "verifiers/fine.sql", "", "tables/src/a.parquet", "PAR1 other PAR1")); err == nil || !strings.Contains(err.Error(), "mild could not be evaluated") {
		t.Errorf("with an error: %v", err)
	}
	err = r.toMain(with(mild, "verifiers/other.sql", "-- headgate: severity=mild\nSELECT n FROM two"))
	if err == nil || !strings.Contains(err.Error(), `verifiers/other.sql:1: severity: "mild" is no severity, want error or warn`) {
		t.Errorf("unknown severity: %v", err)
	}
}

// The message of a commit that the tip's verifiers judged says so, and a replay
// evaluates them again.
func TestReplayOfVerifiersOfTheTip(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(ruled()))
	r.must(r.toMain(with(ruled(), "verifiers/rule.sql", "SELECT n FROM two -- another RULE", "models/two.sql", "SELECT n, n FROM one")))
	r.boxes.took(protocol.OpVerify)
	rep := r.replay(r.tip(mainRef))
	if !rep.Equal || len(rep.Verifiers) != 3 {
		t.Fatalf("replay: %+v", rep)
	}
	i := slices.IndexFunc(rep.Verifiers, func(v ReplayedVerifier) bool { return v.AtBase })
	if i < 0 || rep.Verifiers[i].Name != "rule" || rep.Verifiers[i].Committed != "pass" {
		t.Errorf("verifiers: %+v", rep.Verifiers)
	}
	if n := r.boxes.took(protocol.OpVerify); n != 3 {
		t.Errorf("%d verifiers ran, want 3", n)
	}
	r.boxes.finds = func(sql string) int64 { return int64(strings.Count(sql, "-- RULE")) }
	if rep := r.replay(r.tip(mainRef)); rep.Equal {
		t.Error("the tip's verifier fails, and the replay is equal")
	}
}

// A tip that no gate has seen may be anything. Where grants bind, it takes an
// administrator to go on from one whose verifiers cannot be read.
func TestTipWhoseVerifiersCannotBeRead(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(with(base(), PolicyFile, "branches: {main: {gate: off}}\n")))
	broken := with(base(), PolicyFile, grants, "models/two.sql", "SELECT n FROM nowhere")
	r.must(r.toMain(broken))
	fixed := with(base(), PolicyFile, grants)
	r.refused(r.as(ada, mainRef, fixed, r.tip(mainRef)), "the verifiers of main's tip could not run, so nothing can be held against them")
	r.must(r.as(op, mainRef, fixed, r.tip(mainRef)))
	if rec := r.record(lake.Published); len(rec.Warnings) == 0 || !strings.Contains(rec.Warnings[0], "the verifiers of main's tip cannot be read") {
		t.Errorf("warnings: %q", rec.Warnings)
	}
}
