package hooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
)

// runModels evaluates the plan: each model as soon as its inputs are there. A
// model that fails does not stop the ones that do not need it, so that one push
// shows everything that is wrong.
func (r *run) runModels(ctx context.Context) error {
	pushed, err := r.pushedTables(ctx)
	if err != nil {
		return err
	}
	verified, err := r.baseTables(ctx)
	if err != nil {
		return err
	}
	done := make(map[string]chan struct{}, len(r.plan.Models))
	for _, m := range r.plan.Models {
		done[m.Name] = make(chan struct{})
	}
	errs := make([]error, len(r.plan.Models))
	var group sync.WaitGroup
	for i := range r.plan.Models {
		m := &r.plan.Models[i]
		group.Go(func() {
			defer close(done[m.Name])
			for _, in := range m.Inputs {
				if ch, ok := done[in.Table]; ok {
					<-ch
				}
			}
			errs[i] = r.model(ctx, m, pushed[m.Name], verified[m.Name])
		})
	}
	group.Wait()
	return r.adoptModels(ctx, errs)
}

// errSkipped marks a model whose input failed.
var errSkipped = errors.New("an input failed")

func (r *run) adoptModels(ctx context.Context, errs []error) error {
	var reasons []string
	edits := make(map[string]tree.Edit)
	for i, err := range errs {
		m := &r.plan.Models[i]
		var f *exec.Failure
		switch {
		case err == nil:
			dir, err := table.Dir(m.Name)
			if err != nil {
				return err
			}
			edits[dir] = tree.Edit{Mode: gitobj.ModeTree, OID: r.tables[m.Name].Tree}
			if m.Strategy == plan.StrategyNone {
				edits[dir] = tree.Edit{Remove: true}
			}
		case errors.As(err, &f):
			reasons = append(reasons, fmt.Sprintf("model %s: %s", m.Name, f.Text))
		case errors.Is(err, errSkipped):
		default:
			return err
		}
	}
	// Also when models failed: the scratch state holds the tables built so far.
	if err := r.edit(ctx, edits); err != nil {
		return err
	}
	if len(reasons) > 0 {
		return r.reject(reasons...)
	}
	return nil
}

// pushedTables returns the snapshot ids in the proposal by table name, readable or not.
func (r *run) pushedTables(ctx context.Context) (map[string]objects.OID, error) {
	ids := make(map[string]objects.OID)
	for _, m := range r.plan.Models {
		dir, err := table.Dir(m.Name)
		if err != nil {
			return nil, err
		}
		e, err := tree.Lookup(ctx, r.q, r.tree, dir)
		if errors.Is(err, objects.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ids[m.Name] = e.OID
	}
	return ids, nil
}

// model evaluates one model whose inputs are settled.
func (r *run) model(ctx context.Context, m *plan.Model, pushed, verified objects.OID) error {
	bound, ok := r.bind(m.Inputs)
	if !ok {
		r.mu.Lock()
		r.rec.Models = append(r.rec.Models, ModelRecord{Name: m.Name, Path: m.Path, Status: "skipped"})
		r.mu.Unlock()
		r.say.line("model", m.Name, "skipped: an input failed")
		return errSkipped
	}
	params, err := r.paramsOf(m)
	if err != nil {
		return err
	}
	was, err := r.past(ctx, m, bound, pushed)
	if err != nil {
		return err
	}
	words := r.listen(m.Name, r.logLimit())
	started := time.Now()
	kept := was.done != nil && !r.opt.noCache
	res := &exec.Result{Table: was.table, Cached: true}
	args := exec.Arguments{Inputs: bound, Prior: was.prior, Params: params, Secrets: r.secretsOf(m)}
	if !kept {
		res, err = r.sess.Model(ctx, m, args, words.sink())
	} else {
		res.Warnings, err = r.sess.Contract(ctx, m, was.table)
	}
	var doubt string
	if err == nil && r.policy.Sandbox.DoubleRun && !res.Cached && len(res.Usage.Violations) == 0 {
		doubt, err = r.repeat(ctx, m, args, res)
	}
	took := time.Since(started)
	log := words.close()
	if res != nil {
		r.concealUsage(&res.Usage)
	}
	if err == nil && len(res.Usage.Violations) > 0 && !r.policy.Sandbox.RecordViolations {
		err = &exec.Failure{Kind: "violation", Text: violationText(res.Usage.Violations), Usage: res.Usage}
	}
	if err == nil && r.opt.strict && len(res.Warnings) > 0 {
		err = &exec.Failure{Kind: "columns", Text: "the result is not what columns= declares, and warnings are failures under -o strict: " + strings.Join(res.Warnings, "; "), Usage: res.Usage}
	}
	if err != nil {
		return r.modelFailed(m, bound, res, err, log, took)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tables[m.Name] = res.Table
	rec := modelRecord(m, bound, res, took)
	rec.Params, rec.Secrets = r.paramsByName(m), secretNames(m)
	if was.prior != nil {
		rec.Prior = was.prior.Tree.String()
	}
	if kept {
		rec.Kept, rec.Env = true, was.done.Env
	}
	rec.determinism(r.policy.Sandbox.DoubleRun && !res.Cached, doubt != "" || kept && was.done.NotDeterministic)
	r.rec.Models = append(r.rec.Models, rec)
	r.rec.log(m.Name, log)
	how := seconds(took)
	if res.Cached {
		how = "cached"
	}
	if kept {
		how = "kept: same code, inputs and parameters"
	}
	r.say.line("model", m.Name, "%s rows, %s", count(res.Table.Rows()), how)
	for _, w := range res.Warnings {
		r.warn(fmt.Sprintf("model %s: %s", m.Name, w))
	}
	r.recordViolations("model", m.Name, res.Usage.Violations)
	if doubt != "" {
		r.warn(fmt.Sprintf("model %s is not deterministic: %s", m.Name, doubt))
	}
	if text := clockWarning(m, bound); text != "" {
		r.warn(text)
	}
	// A derived table that somebody pushed counts for nothing unless it is what
	// the model gives; a table left as it was at the base needs no remark.
	if !pushed.IsZero() && pushed != res.Table.Tree && pushed != verified {
		what := "what was pushed is not what its model gives; it was recomputed"
		if m.Strategy == plan.StrategyNone {
			what = "its model has the strategy NONE, so it is not stored; what was pushed was removed"
		}
		r.warn(fmt.Sprintf("table %s: %s", m.Name, what))
	}
	return nil
}

func (r *run) modelFailed(m *plan.Model, bound []exec.Bound, res *exec.Result, err error, log []byte, took time.Duration) error {
	var f *exec.Failure
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rec.log(m.Name, log)
	rec := modelRecord(m, bound, res, took)
	if !errors.As(err, &f) {
		rec.Status = "stopped" // cancelled, or it could not run
		r.rec.Models = append(r.rec.Models, rec)
		return fmt.Errorf("model %s: %w", m.Name, err)
	}
	r.concealFailure(f)
	rec.Status, rec.Error = "failed", failureRecord(f)
	rec.Params, rec.Secrets = r.paramsByName(m), secretNames(m)
	rec.usage(f.Usage)
	r.rec.Models = append(r.rec.Models, rec)
	r.say.line("model", m.Name, "FAILED: %s", f.Text)
	if f.Detail != nil && f.Detail.Traceback != "" {
		r.say.block(f.Detail.Traceback)
	}
	for _, v := range f.Usage.Violations {
		r.say.block(violationLine(v))
	}
	return f
}

// recordViolations warns of what a function may not do where the policy does not
// refuse for it. Its result is in no cache, so each push finds it out anew. The
// caller holds r.mu.
func (r *run) recordViolations(what, name string, vs []sandbox.Violation) {
	if len(vs) == 0 {
		return
	}
	for _, v := range vs {
		r.say.block(violationLine(v))
	}
	r.warn(fmt.Sprintf("%s %s %s; the policy records this and lets it pass (sandbox.violations)", what, name, violationText(vs)))
}

// warn records something the pusher should know. The caller holds r.mu.
func (r *run) warn(text string) {
	text = r.hide.Text(text)
	r.rec.Warnings = append(r.rec.Warnings, text)
	r.say.line("note", "", "%s", strings.TrimSpace(text))
}
