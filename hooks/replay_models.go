package hooks

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
)

// models replays the models side by side. A model reads what the commit holds
// and not what a replay of its inputs gave, so that one that differs is reported
// alone; only a table that is not stored is passed from replay to replay.
func (p *replay) models(ctx context.Context, models []*plan.Model) error {
	done := make(map[string]chan struct{})
	for _, m := range models {
		if m.Strategy == plan.StrategyNone {
			done[m.Name] = make(chan struct{})
		}
	}
	replayed := make([]ReplayedModel, len(models))
	errs := make([]error, len(models))
	var group sync.WaitGroup
	for i, m := range models {
		group.Go(func() {
			if ch := done[m.Name]; ch != nil {
				defer close(ch)
			}
			for _, in := range m.Inputs {
				if ch := done[in.Table]; ch != nil {
					<-ch
				}
			}
			replayed[i], errs[i] = p.model(ctx, m)
			if errs[i] == nil {
				p.say(replayed[i].line())
			}
		})
	}
	group.Wait()
	p.report.Models = replayed
	return errors.Join(errs...)
}

// model replays one model. An error means that it could not be run at all.
func (p *replay) model(ctx context.Context, m *plan.Model) (ReplayedModel, error) {
	claim, claimed := p.lineage[m.Name]
	stored := p.committed[m.Name]
	rep := ReplayedModel{Name: m.Name, Path: m.Path, Committed: claim.Out, CommittedRows: claim.Rows, CommittedEnv: claim.Env, NotDeterministic: claim.NotDeterministic, announced: claim.NotDeterministic}
	if !claimed {
		rep.problem("the message has no line for it")
		rep.Committed = stored.String()
	}
	for _, in := range m.Inputs {
		if err := p.absent[in.Table]; err != nil {
			rep.leaveOut("its input %s is not in this clone: %v", in.Table, err)
			return rep, nil
		}
	}
	if names := secretNames(m); len(names) > 0 {
		rep.leaveOut("it needs the secret %q, which the server gives to nobody but the model", names[0])
		return rep, nil
	}
	bound, ok := p.bind(m.Inputs)
	if !ok {
		rep.leaveOut("an input could not be replayed")
		return rep, nil
	}
	params, err := p.paramsOf(m)
	if err != nil {
		rep.problem("the message has no value for a parameter: %v", err)
		rep.Status = ReplayDiffers
		return rep, nil
	}
	if claimed {
		rep.compareLineage(m, &claim, bound)
		if m.Strategy != plan.StrategyNone && claim.Out != stored.String() {
			rep.problem("the tree has %s where the message says %s: the table was changed after it was made", shortText(stored.String()), shortText(claim.Out))
		}
	}
	args := exec.Arguments{Inputs: bound, Params: params}
	if args.Prior, err = p.prior(ctx, m, &claim, &rep); err != nil {
		if absentInput(err) == nil {
			return rep, err
		}
		rep.leaveOut("the table that it builds on is not in this clone: %v", err)
		return rep, nil
	}
	started := time.Now()
	res, err := p.sess.Model(ctx, m, args, exec.Sink{})
	rep.Seconds = time.Since(started).Seconds()
	if gone := absentInput(err); gone != nil {
		rep.leaveOut("an object is not in this clone: %v", gone)
		return rep, nil
	}
	var env *exec.EnvironmentError
	if errors.As(err, &env) {
		rep.leaveOut("%v", err)
		return rep, nil
	}
	var f *exec.Failure
	if errors.As(err, &f) {
		rep.Status, rep.Error = ReplayFailed, failureRecord(f)
		return rep, nil
	}
	if err != nil {
		return rep, fmt.Errorf("model %s: %w", m.Name, err)
	}
	for _, v := range res.Usage.Violations {
		rep.Violations = append(rep.Violations, ViolationRecord{Kind: v.Kind, Detail: v.Detail, Count: v.Count})
	}
	rep.Env, rep.Replayed, rep.Rows = res.Env.String(), res.Table.Tree.String(), res.Table.Rows()
	p.mu.Lock()
	if m.Strategy == plan.StrategyNone {
		p.tables[m.Name] = res.Table
	}
	p.mu.Unlock()
	if claimed && claim.Rows != rep.Rows && claim.Out == rep.Replayed {
		rep.problem("the message says %d rows, it has %d", claim.Rows, rep.Rows)
	}
	if rep.Differs = rep.Replayed != rep.Committed; rep.Differs {
		if err := p.confirm(ctx, m, args, res, &rep); err != nil {
			return rep, err
		}
	}
	if !stored.IsZero() && stored != res.Table.Tree {
		if t, err := exec.LoadTable(ctx, p.store, stored); err == nil {
			rep.Difference = difference(ctx, p.sess, t, res.Table)
		}
	}
	rep.settle()
	return rep, nil
}

// absentInput returns the error if it says that the clone lacks an object.
func absentInput(err error) error {
	if errors.Is(err, objects.ErrNotFound) {
		return err
	}
	return nil
}

// confirm replays once more a model that gave something else than the commit
// says: one that does not agree with itself either is not deterministic, and no
// sign of tampering.
func (p *replay) confirm(ctx context.Context, m *plan.Model, args exec.Arguments, first *exec.Result, rep *ReplayedModel) error {
	again, err := p.sess.Model(ctx, m, args, exec.Sink{})
	var f *exec.Failure
	if err != nil && !errors.As(err, &f) {
		return fmt.Errorf("model %s: %w", m.Name, err)
	}
	if err == nil && again.Table.Tree != first.Table.Tree {
		rep.NotDeterministic = true
	}
	return nil
}

// compareLineage compares what the message says went into the model with what
// the commit's tree has.
func (m *ReplayedModel) compareLineage(pm *plan.Model, claim *trailer.Model, bound []exec.Bound) {
	if claim.Code != pm.Code.String() {
		m.problem("the message says code=%s, the code in the tree is %s", shortText(claim.Code), shortText(pm.Code.String()))
	}
	if strategy := cmp.Or(claim.Strategy, plan.StrategyReplace); strategy != cmp.Or(pm.Strategy, plan.StrategyReplace) {
		m.problem("the message says strategy=%s, the code in the tree says %s", strategy, pm.Strategy)
	}
	have := make(map[string]string, len(bound))
	for _, b := range bound {
		have[b.Input.Table] = b.Table.Tree.String()
	}
	for _, in := range claim.Inputs {
		oid, ok := have[in.Table]
		switch {
		case !ok:
			m.problem("the message says that it read %s, the code in the tree does not", in.Table)
		case oid != in.Snapshot:
			m.problem("the message says that it read %s at %s, the tree has %s", in.Table, shortText(in.Snapshot), shortText(oid))
		}
		delete(have, in.Table)
	}
	for _, b := range bound {
		if _, left := have[b.Input.Table]; left {
			m.problem("it reads %s, of which the message does not say so", b.Input.Table)
			delete(have, b.Input.Table)
		}
	}
}

// maxDifferenceAnswer bounds the one row that a comparison gives, in bytes.
const maxDifferenceAnswer = 1 << 20

// difference says in what two results differ, as far as it is cheap to tell: the
// columns, else the number of rows, else the first column whose values differ
// row by row. It is "" if it could not be told.
func difference(ctx context.Context, sess *exec.Session, a, b *exec.Table) string {
	for i := range max(len(a.Meta.Columns), len(b.Meta.Columns)) {
		switch {
		case i >= len(a.Meta.Columns):
			return fmt.Sprintf("column %q is new", b.Meta.Columns[i].Name)
		case i >= len(b.Meta.Columns):
			return fmt.Sprintf("column %q is gone", a.Meta.Columns[i].Name)
		}
		if ca, cb := a.Meta.Columns[i], b.Meta.Columns[i]; ca.Name != cb.Name || ca.Type != cb.Type {
			return fmt.Sprintf("column %d is %q %s, was %q %s", i+1, cb.Name, cb.Type, ca.Name, ca.Type)
		}
	}
	if ra, rb := a.Rows(), b.Rows(); ra != rb {
		return fmt.Sprintf("%s rows, was %s", count(rb), count(ra))
	}
	var sql strings.Builder
	for i, c := range a.Meta.Columns {
		name := `"` + strings.ReplaceAll(c.Name, `"`, `""`) + `"`
		fmt.Fprintf(&sql, "%scount(*) FILTER (WHERE was.%s IS DISTINCT FROM now.%s) AS c%d", map[bool]string{true: ", "}[i > 0], name, name, i)
	}
	var answer limitedBuffer
	bound := []exec.Bound{{Input: plan.Input{Table: "was"}, Table: a}, {Input: plan.Input{Table: "now"}, Table: b}}
	if err := sess.Query(ctx, "SELECT "+sql.String()+" FROM was POSITIONAL JOIN now", bound, "json", 1, &answer); err != nil {
		return ""
	}
	var counts map[string]int64
	if err := json.Unmarshal(answer.Bytes(), &counts); err != nil {
		return ""
	}
	for i, c := range a.Meta.Columns {
		if n := counts[fmt.Sprintf("c%d", i)]; n > 0 {
			return fmt.Sprintf("column %q, in %s of %s rows", c.Name, count(n), count(a.Rows()))
		}
	}
	return "equal rows, stored in other bytes"
}

// limitedBuffer refuses to hold more than maxDifferenceAnswer.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxDifferenceAnswer {
		return 0, errors.New("the answer is too long")
	}
	return b.Buffer.Write(p)
}
