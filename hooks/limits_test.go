package hooks

import (
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/hooks/trailer"
)

func TestLimitsUnderTheCeiling(t *testing.T) {
	top := sandbox.Limits{Memory: 4 << 30, Output: 1 << 30, FileSize: 1 << 30, LogBytes: 2 << 20, CPUs: 2, Timeout: time.Minute, Pids: 100}
	usual := limitsUnder(policy.Default(), top)
	want := sandbox.Limits{Memory: 2 << 30, Output: 1 << 30, FileSize: 1 << 30, LogBytes: 1<<20 + logSlack, CPUs: 1, Timeout: time.Minute, Pids: 100}
	if usual != want {
		t.Errorf("without a word of the policy's: %+v, want %+v", usual, want)
	}
	p := policy.Default()
	p.Sandbox = policy.Sandbox{Memory: 1 << 40, Output: 5 << 20, FileSize: 3 << 20, Log: 1 << 10, CPUs: 1.5, Timeout: time.Second, Pids: 50}
	want = sandbox.Limits{Memory: 4 << 30, Output: 5 << 20, FileSize: 3 << 20, LogBytes: 1<<10 + logSlack, CPUs: 1.5, Timeout: time.Second, Pids: 50}
	if got := limitsUnder(p, top); got != want {
		t.Errorf("with a policy: %+v, want %+v", got, want)
	}
}

// Who asks for more than there is gets what there is, and is told.
func TestMoreThanTheServerGivesIsSaid(t *testing.T) {
	r := newRig(t)
	var got sandbox.Limits
	r.boxes.jobs = func(job sandbox.Job) {
		if job.Order.Op == protocol.OpModel && strings.Contains(job.Order.SQL, "FROM src") {
			got = job.Limits
		}
	}
	files := with(base(), "headgate.yaml", "sandbox: {memory: 16GiB, pids: 30, log: 5KiB}\n",
		"models/one.sql", "-- headgate: timeout=2h cpus=1 memory=256MiB\nSELECT n FROM src")
	r.must(r.toMain(files))
	rec := r.record(lake.Published)
	// The rig's server gives 1 GiB and a minute.
	for _, want := range []string{"headgate.yaml asks for memory of 16GiB; this server gives a function at most 1GiB", "model one asks for time of 2h0m0s; this server gives a function at most 1m0s"} {
		if !strings.Contains(strings.Join(rec.Warnings, "\n"), want) {
			t.Errorf("warnings %q, want %q", rec.Warnings, want)
		}
	}
	if len(rec.Warnings) != 2 {
		t.Errorf("warnings: %q", rec.Warnings)
	}
	if got.Memory != 256<<20 || got.Timeout != time.Minute || got.Pids != 30 {
		t.Errorf("the model had %+v", got)
	}
	if l := rec.Limits; l == nil || l.Memory != 1<<30 || l.Pids != 30 || l.Log != 5<<10 || l.Violations != "fail" {
		t.Errorf("the record has the limits %+v", rec.Limits)
	}
	if err := r.toMain(with(files, "README", "x"), "strict"); err == nil || !strings.Contains(err.Error(), "at most 1GiB") {
		t.Errorf("under -o strict: %v, want a refusal", err)
	}
}

// Where the policy at the tip lets violations pass, they are on record each time:
// no result of a function that violated its sandbox comes from the cache.
func TestViolationsAreRecordedWhereThePolicySaysSo(t *testing.T) {
	for _, op := range []protocol.Op{protocol.OpModel, protocol.OpVerify} {
		r := newRig(t)
		lenient := with(base(), "headgate.yaml", "sandbox: {violations: record}\n")
		r.must(r.toMain(base()))
		r.boxes.violates = op
		// A proposal cannot excuse itself.
		if err := r.toMain(lenient, "no-cache"); err == nil || !strings.Contains(err.Error(), "203.0.113.1:80") {
			t.Errorf("%s: a proposal excused itself: %v", op, err)
		}
		r.boxes.violates = ""
		r.must(r.toMain(lenient))
		r.boxes.violates = op
		if err := r.toMain(with(lenient, "README", "0"), "no-cache", "strict"); err == nil || !strings.Contains(err.Error(), "warnings are failures") {
			t.Errorf("%s: under -o strict: %v", op, err)
		}
		changed := with(lenient, "models/one.sql", "SELECT n, n FROM src")
		for _, again := range []string{"1", "2"} {
			r.must(r.toMain(with(changed, "README", again)))
			if n := r.boxes.took(op); n == 0 {
				t.Errorf("%s: push %s: its result came from the cache", op, again)
			}
			rec := r.record(lake.Published)
			if !strings.Contains(strings.Join(rec.Warnings, "\n"), "tried to connect to 203.0.113.1:80 (blocked)") {
				t.Errorf("%s: push %s: warnings %q", op, again, rec.Warnings)
			}
			found := 0
			for _, m := range rec.Models {
				found += len(m.CostRecord.Violations)
			}
			for _, v := range rec.Verifiers {
				found += len(v.CostRecord.Violations)
			}
			if found == 0 || rec.Limits.Violations != "record" {
				t.Errorf("%s: push %s: no violation is on record", op, again)
			}
		}
		if op == protocol.OpVerify {
			c, err := readCommit(t.Context(), r.lake.Objects, r.tip(mainRef))
			if err != nil {
				t.Fatal(err)
			}
			if g, err := trailer.Parse(c.Message); err != nil || len(g.Verifiers) != 1 || g.Verifiers[0].Result != "warn" {
				t.Errorf("lineage of a verifier that violated: %+v, %v", g.Verifiers, err)
			}
			// A replay finds the same, and says so if the message does not.
			if v := r.replay(r.tip(mainRef)).Verifiers[0]; !v.Equal || v.Replayed != "warn" || !strings.Contains(v.Reason, "203.0.113.1:80") {
				t.Errorf("replay of a verifier that violated: %+v", v)
			}
			r.boxes.violates = ""
			if v := r.replay(r.tip(mainRef)).Verifiers[0]; v.Equal || v.Replayed != "pass" {
				t.Errorf("replay of one that does not any more: %+v", v)
			}
		}
		// Once the tip is strict again, what was let pass is found.
		r.boxes.violates = ""
		r.must(r.toMain(with(changed, "headgate.yaml", "")))
		r.boxes.violates = op
		if err := r.toMain(with(changed, "headgate.yaml", "", "README", "3"), "no-cache"); err == nil {
			t.Errorf("%s: a violation passed a policy that does not allow it", op)
		}
	}
}

// A table that is kept as it is was judged by the policy of its time. A policy that
// has become strict finds out by evaluating everything once more.
func TestKeptTablesAreJudgedAnewWithoutTheCache(t *testing.T) {
	r := newRig(t)
	files := with(base(), "models/one.sql", "-- headgate: strategy=append\nSELECT n FROM src")
	lenient := with(files, "headgate.yaml", "sandbox: {violations: record}\n")
	r.must(r.toMain(with(base(), "headgate.yaml", "sandbox: {violations: record}\n")))
	r.boxes.violates = protocol.OpModel
	r.must(r.toMain(lenient))
	if m := r.record(lake.Published).Models[0]; m.Kept || len(m.CostRecord.Violations) != 1 {
		t.Fatalf("the run that adds: %+v", m)
	}
	r.boxes.violates = ""
	r.must(r.toMain(with(files, "headgate.yaml", ""))) // another model's result was in no cache
	r.boxes.violates = protocol.OpModel
	r.must(r.toMain(with(files, "headgate.yaml", "", "README", "1")))
	if m := r.record(lake.Published).Models[0]; !m.Kept || len(m.CostRecord.Violations) != 0 {
		t.Errorf("what is kept did nothing: %+v", m)
	}
	if err := r.toMain(with(files, "headgate.yaml", "", "README", "2"), "no-cache"); err == nil || !strings.Contains(err.Error(), "203.0.113.1:80") {
		t.Errorf("evaluated anew under the strict policy: %v", err)
	}
}
