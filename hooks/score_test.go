package hooks

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/lake"
)

// graded answers scores: of four faults of a table, as many are noticed as there are checks that read it.
func graded(asked *[]string) func(context.Context, sandbox.Job) (*protocol.Answer, error) {
	return func(_ context.Context, job sandbox.Job) (*protocol.Answer, error) {
		s := job.Order.Score
		if job.Order.Op != protocol.OpScore || s == nil {
			return nil, fmt.Errorf("unscripted order %q", job.Order.Op)
		}
		a := &protocol.Answer{Score: &protocol.Scored{}}
		for _, t := range s.Targets {
			*asked = append(*asked, t.Name)
			out := protocol.ScoredTable{Name: t.Name, Mutants: []protocol.Mutant{{Name: "none", Status: protocol.MutantEquivalent}}}
			checks := 0
			for _, c := range s.Checks {
				if strings.Contains(" "+strings.Join(c.Tables, " ")+" ", " "+t.Name+" ") {
					checks++
				}
			}
			for i := range 4 {
				m := protocol.Mutant{Name: fmt.Sprintf("%s.n:f%d", t.Name, i), Operator: fmt.Sprintf("f%d", i), Column: "n", Status: protocol.MutantSurvived}
				if i < checks {
					m.Status = protocol.MutantKilled
				}
				out.Mutants = append(out.Mutants, m)
			}
			a.Score.Tables = append(a.Score.Tables, out)
		}
		return a, nil
	}
}

func TestMinVerifierScore(t *testing.T) {
	r := newRig(t)
	var asked []string
	r.boxes.python = graded(&asked)
	took := func() string {
		names := strings.Join(asked, " ")
		asked = nil
		return names
	}
	r.must(r.toMain(base()))
	if got := took(); got != "" {
		t.Errorf("without a bar %s were scored", got)
	}
	bar := with(base(), PolicyFile, "min_verifier_score: 50%\n")
	r.must(r.toMain(bar))
	if got := took(); got != "" {
		t.Errorf("the bar of the push itself counted: %s were scored", got)
	}

	// A table, and a rule that is too little for its table.
	more := with(bar, "models/three.sql", "SELECT n FROM one")
	err := r.toMain(more)
	if err == nil || !strings.Contains(err.Error(), "the verifiers of table three notice 0.0% of small faults, headgate.yaml asks for 50%, and this push brings the table; weakest are three.n (f0, f1, f2, f3)") {
		t.Errorf("a table that nobody checks: %v", err)
	}
	if got := took(); got != "three" {
		t.Errorf("scored were %q", got)
	}
	rec := r.record(lake.Rejected)
	if len(rec.Scores) != 1 || rec.Scores[0].Counted != 4 || rec.Scores[0].Equivalent != 1 || len(rec.Scores[0].Survived) != 4 {
		t.Errorf("record: %+v", rec.Scores)
	}
	// Warnings let faults through, and a lower bar of the push's own is none.
	for name, next := range map[string]map[string]string{
		"warnings":    with(more, "verifiers/a.sql", "-- headgate: severity=warn\nSELECT n FROM three", "verifiers/b.sql", "-- headgate: severity=warn\nSELECT n, n FROM three"),
		"a lower bar": with(more, PolicyFile, "min_verifier_score: 0\n"),
	} {
		if err := r.toMain(next); err == nil || !strings.Contains(err.Error(), "notice 0.0%") {
			t.Errorf("%s: %v", name, err)
		}
	}
	took()
	good := with(more, "verifiers/a.sql", "SELECT n FROM three", "verifiers/b.sql", "SELECT n, n FROM three")
	r.must(r.toMain(good))
	if got := took(); got != "three" {
		t.Errorf("scored were %q", got)
	}
	if rec := r.record(lake.Published); len(rec.Scores) != 1 || rec.Scores[0].Score != 0.5 || rec.Scores[0].Why != "this push brings the table" {
		t.Errorf("record: %+v", rec.Scores)
	}
	// Data alone are not scored; a verifier that goes is.
	r.must(r.toMain(with(good, "tables/src/a.parquet", "PAR1 other PAR1")))
	if got := took(); got != "" {
		t.Errorf("data alone: %q", got)
	}
	if err := r.toMain(with(good, "tables/src/a.parquet", "PAR1 other PAR1", "verifiers/b.sql", "")); err == nil || !strings.Contains(err.Error(), "this push has verifier b removed") {
		t.Errorf("a verifier that goes: %v", err)
	}
	// What cannot be scored is not let through.
	r.boxes.python = func(context.Context, sandbox.Job) (*protocol.Answer, error) {
		return &protocol.Answer{Error: &protocol.UserError{Kind: "memory", Message: "out of memory"}}, nil
	}
	if err := r.toMain(with(good, "tables/src/a.parquet", "PAR1 other PAR1", "models/four.sql", "SELECT n FROM one")); err == nil || !strings.Contains(err.Error(), "the verifiers could not be scored") {
		t.Errorf("no memory: %v", err)
	}
	r.boxes.python = func(context.Context, sandbox.Job) (*protocol.Answer, error) { return &protocol.Answer{}, nil }
	if err := r.toMain(with(good, "tables/src/a.parquet", "PAR1 other PAR1", "models/four.sql", "SELECT n FROM one")); err == nil {
		t.Error("a score without an answer was let through")
	}
}
