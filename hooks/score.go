package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

// shownSpots is how many weak spots of a table a refusal names.
const shownSpots = 5

// ScoreRecord is the score of one table's verifiers.
type ScoreRecord struct {
	Table      string   `json:"table"`
	Why        string   `json:"why"` // it was asked for
	Score      float64  `json:"score"`
	Killed     int      `json:"killed"`
	Counted    int      `json:"counted"`
	Equivalent int      `json:"equivalent"`
	Rows       int64    `json:"rows"`          // that were read
	Cut        bool     `json:"cut,omitempty"` // there are more
	Cached     bool     `json:"cached"`
	Survived   []string `json:"survived,omitempty"` // mutants that no verifier noticed
}

// score holds the tables whose definition or verifiers the push changes against the
// policy's min_verifier_score: who changes what is checked shows that the checks
// still notice faults. What other tables' verifiers are worth was decided
// when they came.
func (r *run) score(ctx context.Context) error {
	if r.policy.MinVerifierScore == 0 {
		return nil
	}
	why, err := r.scored(ctx)
	if err != nil || len(why) == 0 {
		return err
	}
	var targets []string
	keys := make(map[string][]string)
	for name := range why {
		targets = append(targets, name)
		if t, ok := r.find(name); ok {
			keys[name] = t.Meta.Key
		}
		if key := r.next.Tables[name].Key; len(key) > 0 {
			keys[name] = key
		}
	}
	slices.Sort(targets)
	score := exec.ScoreOf(r.plan, targets, keys)
	var bound []exec.Bound
	for _, name := range exec.Narrow(r.plan, score) {
		t, ok := r.find(name)
		if !ok {
			continue // of a model that is not stored; a verifier that reads it is left out, and named
		}
		bound = append(bound, exec.Bound{Input: plan.Input{Table: name}, Table: t})
	}
	started := time.Now()
	words := r.listen("min_verifier_score", r.logLimit())
	scored, cached, _, err := r.sess.Score(ctx, score, bound, words.sink())
	if err == nil {
		err = r.sess.ScoreExpectations(ctx, r.plan, score, scored, bound, words.sink())
	}
	words.close()
	var f *exec.Failure
	if errors.As(err, &f) {
		return r.reject(fmt.Sprintf("the verifiers could not be scored, and %s asks for min_verifier_score: %s", PolicyFile, f.Text))
	}
	if err != nil {
		return err
	}
	var reasons []string
	for i := range scored.Tables {
		// What came out of the sandbox is about the targets, in their order.
		if reason := r.scoreOf(targets[i], why[targets[i]], &scored.Tables[i], cached, time.Since(started)); reason != "" {
			reasons = append(reasons, reason)
		}
	}
	for _, u := range scored.Unsound {
		r.warn(fmt.Sprintf("verifier %s has no part in the score: %s", u.Name, u.Reason))
	}
	if len(reasons) > 0 {
		return r.reject(reasons...)
	}
	return nil
}

// scoreOf records one table's score and returns why it refuses, if it does.
func (r *run) scoreOf(name, why string, t *protocol.ScoredTable, cached bool, took time.Duration) string {
	var tally exec.Tally
	tally.Add(t.Mutants...)
	rec := ScoreRecord{Table: name, Why: why, Score: tally.Share(), Killed: tally.Killed, Counted: tally.Counted, Equivalent: tally.Equivalent, Rows: t.Rows, Cut: t.Cut, Cached: cached}
	for _, m := range t.Mutants {
		if m.Status == protocol.MutantSurvived {
			rec.Survived = append(rec.Survived, m.Name)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rec.Scores = append(r.rec.Scores, rec)
	how := seconds(took)
	if cached {
		how = "cached"
	}
	least := r.policy.MinVerifierScore
	if rec.Score >= least {
		r.say.line("score", name, "%.0f%%: %d of %d faults are noticed, %s", 100*rec.Score, rec.Killed, rec.Counted, how)
		return ""
	}
	r.say.line("score", name, "%.1f%%, BELOW %.0f%%: %d of %d faults are noticed, %s", 100*rec.Score, 100*least, rec.Killed, rec.Counted, how)
	var weakest []string
	for i, spot := range exec.WeakSpots(t.Mutants) {
		if i == shownSpots {
			break
		}
		var operators []string
		for _, m := range spot.Survived {
			operators = append(operators, m.Operator)
		}
		weakest = append(weakest, fmt.Sprintf("%s (%s)", spot.Name(name), strings.Join(operators, ", ")))
		if remedy := spot.Survived[0].Remedy; remedy != nil {
			text := "headgate.yaml: " + remedy.YAML
			if remedy.Path != "" {
				text = remedy.Path + ": " + remedy.SQL
			}
			r.say.block(fmt.Sprintf("%s: %s\n  would be noticed by %s", spot.Name(name), spot.Survived[0].Fault, text))
		}
	}
	return fmt.Sprintf("the verifiers of table %s notice %.1f%% of small faults, %s asks for %.0f%%, and %s; weakest are %s; see: headgate verifiers score %s",
		name, 100*rec.Score, PolicyFile, 100*least, why, strings.Join(weakest, ", "), name)
}

// scored tells which tables are to be scored, and why.
func (r *run) scored(ctx context.Context) (map[string]string, error) {
	atBase, err := r.baseTables(ctx)
	if err != nil {
		return nil, err
	}
	why := make(map[string]string)
	stored := make(map[string]bool)
	for i := range r.plan.Models {
		stored[r.plan.Models[i].Name] = r.plan.Models[i].Strategy != plan.StrategyNone
	}
	for name, t := range r.tables {
		if kept, made := stored[name]; made && !kept {
			continue // it is of this run alone
		}
		id, old := atBase[name]
		if !old {
			why[name] = "this push brings the table"
			continue
		}
		before, err := exec.LoadTable(ctx, r.store, id)
		if err != nil {
			return nil, fmt.Errorf("table %s at the base: %w", name, err)
		}
		if !slices.Equal(before.Meta.Key, t.Meta.Key) || !slices.EqualFunc(before.Meta.Columns, t.Meta.Columns, sameColumn) {
			why[name] = "this push changes its columns"
		}
	}
	if r.standing == nil {
		return why, nil
	}
	changed := func(v *plan.Verifier, what string) {
		for _, in := range v.Inputs {
			name := strings.TrimPrefix(in.Table, plan.BasePrefix)
			if _, there := r.tables[name]; there && why[name] == "" {
				why[name] = fmt.Sprintf("this push has verifier %s %s", v.Name, what)
			}
		}
	}
	for i := range r.standing.changes {
		c := &r.standing.changes[i]
		for j := range r.plan.Verifiers {
			if v := &r.plan.Verifiers[j]; strings.EqualFold(v.Name, c.Name) {
				changed(v, c.Change)
			}
		}
		for _, v := range r.standing.verifiers {
			if strings.EqualFold(v.Name, c.Name) {
				changed(v, c.Change)
			}
		}
	}
	return why, nil
}

func sameColumn(a, b table.Column) bool { return a.Name == b.Name && a.Type == b.Type }
