package exec

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// Bounds of a score. A mutant costs some milliseconds for each verifier that it is shown to.
const (
	ScoreRows    = 1_000_000 // of each table that are read
	ScoreMutants = 400       // of each table

	// Of a score that a push waits for.
	GateScoreRows    = 200_000
	GateScoreMutants = 150
)

// ScoreOf describes what it takes to score a plan's verifiers on some of its tables:
// all its verifiers in SQL, and those models that can be evaluated again
// in the same database. Keys are given by table name.
func ScoreOf(p *plan.Plan, targets []string, keys map[string][]string) *protocol.Score {
	s := &protocol.Score{MaxRows: ScoreRows, MaxMutants: ScoreMutants}
	for _, name := range targets {
		s.Targets = append(s.Targets, protocol.ScoreTable{Name: name, Key: keys[name]})
	}
	seen := make(map[protocol.ScoreRelation]bool)
	for i := range p.Verifiers {
		v := &p.Verifiers[i]
		if v.Test != nil && v.Test.Kind == plan.Relationships {
			r := protocol.ScoreRelation{Table: v.Table, Column: v.Column, To: v.Test.To, Field: v.Test.Field}
			if !seen[r] {
				seen[r] = true
				s.Relations = append(s.Relations, r)
			}
		}
		if v.Kind != plan.KindPython && v.Severity != plan.SeverityWarn { // what only warns lets a fault through
			s.Checks = append(s.Checks, protocol.ScoreQuery{Name: v.Name, SQL: v.SQL, Tables: inputNames(v.Inputs)})
		}
	}
	for i := range p.Models {
		m := &p.Models[i]
		q := protocol.ScoreQuery{Name: m.Name, Tables: inputNames(m.Inputs)}
		// Python runs elsewhere; a parameter has no value here, the clock another one, and other
		// strategies build on what is there already.
		if m.Kind == plan.KindSQL && m.Strategy == plan.StrategyReplace && len(m.Params) == 0 && len(m.Clock) == 0 {
			q.SQL = m.SQL
		}
		s.Models = append(s.Models, q)
	}
	return s
}

func inputNames(inputs []plan.Input) []string {
	names := make([]string, 0, len(inputs))
	for _, in := range inputs {
		if !slices.Contains(names, in.Table) {
			names = append(names, in.Table)
		}
	}
	return names
}

// Watchers are the plan's expectations in Python that see a mutant of a table: they read it,
// or what can be made of it again. Those whose tables cannot be made again see none.
func Watchers(p *plan.Plan, s *protocol.Score, table string) []*plan.Verifier {
	name := strings.ToLower(table)
	again, stale := map[string]bool{name: true}, make(map[string]bool)
	for _, m := range s.Models {
		if strings.EqualFold(m.Name, table) {
			continue
		}
		changed, lost := false, false
		for _, t := range m.Tables {
			changed = changed || again[strings.ToLower(t)]
			lost = lost || stale[strings.ToLower(t)]
		}
		switch {
		case lost || changed && m.SQL == "":
			stale[strings.ToLower(m.Name)] = true
		case changed:
			again[strings.ToLower(m.Name)] = true
		}
	}
	var out []*plan.Verifier
	for i := range p.Verifiers {
		v := &p.Verifiers[i]
		if v.Kind != plan.KindPython || v.Severity == plan.SeverityWarn {
			continue
		}
		sees, lost := false, false
		for _, in := range v.Inputs {
			t := strings.ToLower(in.Table)
			sees, lost = sees || again[t], lost || stale[strings.TrimPrefix(t, plan.BasePrefix)]
		}
		if sees && !lost {
			out = append(out, v)
		}
	}
	return out
}

// Narrow cuts a score down to what its targets need, for a push that waits for it, and
// returns the tables to be bound: the targets, what models make of them again,
// and what verifiers and these models read beside. Verifiers that see no target are dropped.
func Narrow(p *plan.Plan, s *protocol.Score) (tables []string) {
	s.MaxRows, s.MaxMutants = GateScoreRows, GateScoreMutants
	low := func(name string) string { return strings.ToLower(strings.TrimPrefix(name, plan.BasePrefix)) }
	changed, need := make(map[string]bool), make(map[string]string)
	add := func(name string) {
		name = strings.TrimPrefix(name, plan.BasePrefix)
		if _, ok := need[strings.ToLower(name)]; !ok {
			need[strings.ToLower(name)] = name
		}
	}
	for _, t := range s.Targets {
		changed[low(t.Name)] = true
		add(t.Name)
	}
	sees := func(names []string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return changed[low(n)] })
	}
	for _, t := range s.Targets {
		for _, v := range Watchers(p, s, t.Name) {
			for _, in := range v.Inputs {
				add(in.Table)
			}
		}
	}
	var models []protocol.ScoreQuery
	for _, m := range s.Models {
		if sees(m.Tables) {
			changed[low(m.Name)] = true
			models = append(models, m)
			add(m.Name)
			for _, t := range m.Tables {
				add(t)
			}
		}
	}
	s.Models = models
	s.Checks = slices.DeleteFunc(s.Checks, func(q protocol.ScoreQuery) bool { return !sees(q.Tables) })
	for _, q := range s.Checks {
		for _, t := range q.Tables {
			add(t)
		}
	}
	for _, r := range s.Relations {
		if changed[low(r.Table)] {
			add(r.To)
		}
	}
	return slices.Sorted(maps.Values(need))
}

// opScore is the operation of cache entries about scores.
const opScore = "score"

// Score makes mutants of tables in a sandbox and shows them to the verifiers in SQL. The
// answer depends on the score and the tables alone, and is cached by them.
func (s *Session) Score(ctx context.Context, score *protocol.Score, bound []Bound, out Sink) (scored *protocol.Scored, cached bool, u Usage, err error) {
	code, err := json.Marshal(score)
	if err != nil {
		return nil, false, u, err
	}
	key := action{Op: opScore, Code: string(code), Env: s.rt.env.Worker.String(), Inputs: actionInputs(bound)}.key()
	var known struct {
		Key   string           `json:"key"` // see passEntry
		Score *protocol.Scored `json:"score"`
	}
	if s.cached(key, &known) && known.Key == key.String() && known.Score != nil {
		return known.Score, true, u, nil
	}
	job := s.job(sandbox.KindWorker, "", s.opt.Limits, &protocol.Order{Op: protocol.OpScore, Score: score})
	job.Log, job.Note = limited(out.Log), out.Note
	s.stage(ctx, &job, bound)
	answer, err := s.run(ctx, job, &u)
	if err != nil {
		return nil, false, u, err
	}
	if answer.Score == nil || len(answer.Score.Tables) != len(score.Targets) {
		return nil, false, u, fmt.Errorf("asked to score %d tables, the answer is about others", len(score.Targets))
	}
	// A copy as it is now: the caller adds what expectations say, which are not in the key.
	entry, err := json.Marshal(struct {
		Key   string           `json:"key"`
		Score *protocol.Scored `json:"score"`
	}{key.String(), answer.Score})
	if err != nil {
		return nil, false, u, err
	}
	s.remember(key, json.RawMessage(entry))
	return answer.Score, false, u, nil
}

// ExpectCases puts an expectation's inputs into an order, as mutants have them. place tells where a
// file that the worker sent is, by its name.
func ExpectCases(order *protocol.Order, v *plan.Verifier, mutants []protocol.Mutant, place func(string) string) {
	for _, m := range mutants {
		var inputs []protocol.Table
		for i, in := range v.Inputs {
			inputs = append(inputs, protocol.Table{Name: in.Table, Param: in.Param, Files: []string{place(m.Files[i].Name)}, Columns: m.Files[i].Columns})
		}
		order.Cases = append(order.Cases, inputs)
	}
}

// ExpectAnswers returns for each of n cases why the expectation refuses it, "" if it passes.
func ExpectAnswers(answer *protocol.Answer, v *plan.Verifier, n int) ([]string, error) {
	if len(answer.Checks) != n {
		return nil, fmt.Errorf("expectation %s: %d answers to %d cases", v.Name, len(answer.Checks), n)
	}
	why := make([]string, n)
	for i, c := range answer.Checks {
		switch {
		case c.Error != nil:
			why[i] = "could not be evaluated: " + c.Error.Message
		case c.Violations > 0 && c.Message != "":
			why[i] = c.Message
		case c.Violations > 0:
			why[i] = "does not hold"
		}
	}
	return why, nil
}

// Tally counts what became of mutants.
type Tally struct {
	Killed     int
	Counted    int // killed or survived
	Equivalent int
}

// Add counts mutants.
func (t *Tally) Add(mutants ...protocol.Mutant) {
	for i := range mutants {
		switch mutants[i].Status {
		case protocol.MutantKilled:
			t.Killed++
			t.Counted++
		case protocol.MutantSurvived:
			t.Counted++
		case protocol.MutantEquivalent:
			t.Equivalent++
		}
	}
}

// Share is the share of faults that are noticed, from 0 to 1; 1 if there are none.
func (t *Tally) Share() float64 {
	if t.Counted == 0 {
		return 1
	}
	return float64(t.Killed) / float64(t.Counted)
}

// WeakSpot is a column, or the rows of a table, with faults that nobody notices.
type WeakSpot struct {
	Column   string // "" for the rows
	Counted  int
	Survived []protocol.Mutant
}

// Name is "flights.delay", or "flights" for its rows.
func (w *WeakSpot) Name(table string) string {
	if w.Column == "" {
		return table
	}
	return table + "." + w.Column
}

// WeakSpots returns those of a table, the weakest first: by the share of faults that pass, then by their number.
func WeakSpots(mutants []protocol.Mutant) []WeakSpot {
	var spots []WeakSpot
	for _, m := range mutants {
		i := slices.IndexFunc(spots, func(w WeakSpot) bool { return w.Column == m.Column })
		if i < 0 {
			i = len(spots)
			spots = append(spots, WeakSpot{Column: m.Column})
		}
		switch m.Status {
		case protocol.MutantSurvived:
			spots[i].Survived = append(spots[i].Survived, m)
			spots[i].Counted++
		case protocol.MutantKilled:
			spots[i].Counted++
		}
	}
	spots = slices.DeleteFunc(spots, func(w WeakSpot) bool { return len(w.Survived) == 0 })
	slices.SortStableFunc(spots, func(a, b WeakSpot) int {
		if c := len(b.Survived)*a.Counted - len(a.Survived)*b.Counted; c != 0 {
			return c
		}
		return len(b.Survived) - len(a.Survived)
	})
	return spots
}
