package hooks

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks/lake"
)

const twice = "sandbox: {double_run: new}\n"

func (rec *Record) model(name string) *ModelRecord {
	for i := range rec.Models {
		if rec.Models[i].Name == name {
			return &rec.Models[i]
		}
	}
	return &ModelRecord{}
}

func TestDoubleRunFindsWhatIsNotDeterministic(t *testing.T) {
	r := newRig(t)
	files := with(base(), "headgate.yaml", twice, "models/one.sql", "SELECT n, 'RANDOM' FROM src")
	r.must(r.toMain(files))
	if n := r.boxes.took(protocol.OpModel); n != 4 {
		t.Errorf("%d evaluations of two new models, want 4", n)
	}
	rec := r.record(lake.Published)
	one, two := rec.model("one"), rec.model("two")
	if one.Deterministic == nil || *one.Deterministic || one.Sandboxes != 2 {
		t.Errorf("a model that gives something else each time is recorded as %+v", one)
	}
	if two.Deterministic == nil || !*two.Deterministic {
		t.Errorf("a model that repeats is recorded as %+v", two)
	}
	if len(rec.Warnings) != 1 || !strings.Contains(rec.Warnings[0], "model one is not deterministic: a second run on the same inputs gave something else") {
		t.Errorf("warnings: %q", rec.Warnings)
	}
	if !r.trailerOf(r.tip(mainRef), "one").NotDeterministic || r.trailerOf(r.tip(mainRef), "two").NotDeterministic {
		t.Error("the lineage does not mark the one model and no other")
	}
	// The commit announces it, so that a replay that gives something else is no failure.
	if rep := r.replay(r.tip(mainRef)); !rep.Equal || !rep.model("one").Differs {
		t.Errorf("replay: %+v", rep)
	}
	r.boxes.took("")

	// What does not repeat is not in the cache; what does is there, and runs no second time.
	r.must(r.toMain(with(files, "README.md", "words")))
	if n := r.boxes.took(protocol.OpModel); n != 4 {
		t.Errorf("%d evaluations, want 4: the one model twice, and twice the one that reads it", n)
	}
	r.must(r.toMain(with(files, "models/one.sql", "SELECT n FROM src")))
	r.boxes.took("")
	r.must(r.toMain(with(files, "models/one.sql", "SELECT n FROM src", "README.md", "words")))
	if n := r.boxes.took(protocol.OpModel); n != 0 {
		t.Errorf("%d evaluations of results that are cached, want 0", n)
	}
	rec = r.record(lake.Published)
	if d := rec.model("one").Deterministic; d != nil {
		t.Errorf("a cached result is recorded as tried: %t", *d)
	}
}

func TestDoubleRunUnderStrictRefuses(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(with(base(), "headgate.yaml", twice)))
	files := with(base(), "headgate.yaml", twice, "models/one.sql", "SELECT n, 'RANDOM' FROM src")
	err := r.toMain(files, "strict")
	if err == nil || !strings.Contains(err.Error(), "model one is not deterministic") {
		t.Errorf("push -o strict: %v, want a refusal for the model", err)
	}
	r.record(lake.Rejected)
}

// The policy at the target's tip governs: a proposal cannot switch it off for itself.
func TestDoubleRunIsTheTargetsPolicy(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(with(base(), "headgate.yaml", twice)))
	r.boxes.took("")
	r.must(r.toMain(with(base(), "headgate.yaml", "sandbox: {double_run: off}\n", "models/two.sql", "SELECT n, 1 FROM one")))
	if n := r.boxes.took(protocol.OpModel); n != 2 {
		t.Errorf("%d evaluations of one new model, want 2", n)
	}
	r.must(r.toMain(with(base(), "headgate.yaml", twice, "models/two.sql", "SELECT n, 2 FROM one")))
	if n := r.boxes.took(protocol.OpModel); n != 1 {
		t.Errorf("%d evaluations of one new model after it is off, want 1", n)
	}
}

func TestKeptTableKeepsItsMark(t *testing.T) {
	r := newRig(t)
	files := map[string]string{"headgate.yaml": twice, "tables/src/a.parquet": "PAR1 src 1 PAR1", "models/log.sql": "-- headgate: strategy=append\nSELECT n, 'RANDOM' FROM src"}
	r.must(r.toMain(files))
	first := r.trailerOf(r.tip(mainRef), "log")
	r.must(r.propose(r.tip(mainRef), map[string]string{"README.md": "words"}))
	kept := r.trailerOf(r.tip(mainRef), "log")
	if !first.NotDeterministic || !kept.NotDeterministic || kept.Out != first.Out {
		t.Errorf("marked %t, then kept as %t; out %s, then %s", first.NotDeterministic, kept.NotDeterministic, first.Out, kept.Out)
	}
	if rep := r.replay(r.tip(mainRef)); !rep.Equal {
		t.Errorf("replay: %+v", rep)
	}
}

func TestModelsThatReadTheClockAreTold(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(with(base(), "models/one.sql", "SELECT n,\n  now(), current_date FROM src")))
	rec := r.record(lake.Published)
	want := "models/one.sql:2: model one reads the clock (now(), current_date): its result changes from run to run"
	if len(rec.Warnings) != 1 || rec.Warnings[0] != want {
		t.Errorf("warnings %q, want %q", rec.Warnings, want)
	}
	if !strings.Contains(r.out.String(), want) {
		t.Errorf("the pusher is not told:\n%s", r.out.String())
	}
}

func TestColumnsThatLookLikeTheClockAreNot(t *testing.T) {
	r := newRig(t)
	r.boxes.column = "Current_Date"
	r.must(r.toMain(with(base(), "models/one.sql", "SELECT current_date FROM src")))
	if rec := r.record(lake.Published); len(rec.Warnings) != 0 {
		t.Errorf("warnings %q, want none: it is a column", rec.Warnings)
	}
}

// A pass that the clock has a part in is one of its moment.
func TestVerifiersThatReadTheClockAreNotCached(t *testing.T) {
	r := newRig(t)
	files := with(base(), "verifiers/fresh.sql", "SELECT n FROM two WHERE n < now()")
	r.must(r.toMain(files))
	r.boxes.took("")
	r.must(r.toMain(with(files, "README.md", "words")))
	if n := r.boxes.took(protocol.OpVerify); n != 1 {
		t.Errorf("%d verifiers ran, want the one that reads the clock", n)
	}
}
