package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
)

// verify evaluates every verifier on exactly the state that is to be published.
// Those of the target's tip judge it beside the proposal's own (see standing).
// All run, so that one push shows everything that is wrong; one that cannot be
// evaluated refuses like one that finds violations.
func (r *run) verify(ctx context.Context) error {
	groups, err := r.groupVerifiers(ctx)
	if err != nil {
		return err
	}
	older, unbound, err := r.standingGroups(ctx)
	if err != nil {
		return err
	}
	groups = append(groups, older...)
	reasons := make([][]string, len(groups))
	errs := make([]error, len(groups))
	var wait sync.WaitGroup
	for i, g := range groups {
		wait.Go(func() { reasons[i], errs[i] = r.verifyGroup(ctx, g) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	all := unbound
	for _, rs := range reasons {
		all = append(all, rs...)
	}
	if len(all) > 0 {
		return r.reject(all...)
	}
	return nil
}

// verifyGroup evaluates verifiers that share a sandbox and returns why they refuse.
func (r *run) verifyGroup(ctx context.Context, group []exec.Checked) ([]string, error) {
	words := r.listen(group[0].Verifier.Name, r.logLimit())
	started := time.Now()
	sess := r.sess
	if v := group[0].Verifier; v.Kind == plan.KindPython && r.standing.holds(v) {
		sess = r.standing.sess
	}
	verdicts, err := sess.Verify(ctx, group, words.sink())
	took := time.Since(started)
	log := words.close()
	var f *exec.Failure
	if err != nil && !errors.As(err, &f) {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rec.log(group[0].Verifier.Name, log)
	r.concealFailure(f)
	for i := range verdicts {
		r.concealVerdict(&verdicts[i])
	}
	// Of a group that shares a sandbox some may be cached: they did nothing.
	at := slices.IndexFunc(verdicts, func(d exec.Verdict) bool { return len(d.Usage.Violations) > 0 })
	if f == nil && at >= 0 && !r.policy.Sandbox.RecordViolations {
		f = &exec.Failure{Kind: "violation", Text: violationText(verdicts[at].Usage.Violations), Usage: verdicts[at].Usage}
	}
	if f != nil {
		return r.verifiersFailed(group, f, took), nil
	}
	var reasons []string
	for i := range verdicts {
		if reason := r.verdict(group[i].Verifier, &verdicts[i], took); reason != "" {
			reasons = append(reasons, reason)
		}
	}
	if at >= 0 {
		r.recordViolations("verifier", group[at].Verifier.Name, verdicts[at].Usage.Violations)
	}
	return reasons, nil
}

// verifiersFailed records verifiers whose sandbox failed. The caller holds r.mu.
func (r *run) verifiersFailed(group []exec.Checked, f *exec.Failure, took time.Duration) []string {
	var reasons []string
	for _, c := range group {
		rec := r.verifierRecord(c.Verifier, took)
		rec.Status, rec.Error = "error", failureRecord(f)
		rec.usage(f.Usage)
		r.rec.Verifiers = append(r.rec.Verifiers, rec)
		r.say.line("verify", c.Verifier.Name, "COULD NOT BE EVALUATED: %s", f.Text)
		if f.Detail != nil && f.Detail.Traceback != "" {
			r.say.block(f.Detail.Traceback)
		}
		for _, v := range f.Usage.Violations {
			r.say.block(violationLine(v))
		}
		reasons = append(reasons, r.verifierError(c.Verifier, f.Text))
	}
	return reasons
}

// verdict records one verifier's outcome and returns why it refuses, if it does.
// The caller holds r.mu.
func (r *run) verdict(v *plan.Verifier, d *exec.Verdict, took time.Duration) string {
	rec := r.verifierRecord(v, took)
	rec.Cached, rec.Violations, rec.Message = d.Cached, d.Violations, d.Message
	rec.usage(d.Usage)
	var reason string
	switch {
	case d.Error != nil:
		text := exec.Describe(d.Error)
		rec.Status, rec.Error = "error", &ErrorRecord{Kind: d.Error.Kind, Text: text, Traceback: d.Error.Traceback}
		r.say.line("verify", v.Name, "COULD NOT BE EVALUATED: %s", text)
		if d.Error.Traceback != "" {
			r.say.block(d.Error.Traceback)
		}
		reason = r.verifierError(v, text)
	case d.Violations > 0:
		rec.Status = "fail"
		what := count(d.Violations) + " violating row(s)"
		if d.Message != "" {
			what = d.Message
		}
		if !d.Rows.IsZero() {
			rec.Rows = r.rec.failure(v.Name, d.Rows)
		}
		of := ""
		if r.standing.holds(v) {
			of = " of " + r.stands()
		}
		if v.Severity == plan.SeverityWarn {
			rec.Status = "warn"
			r.say.line("verify", v.Name, "WARNING%s: %s", of, what)
			r.say.sample(d.Columns, d.Sample)
			r.warn(fmt.Sprintf("verifier %s%s: %s", v.Name, of, what))
			break
		}
		r.say.line("verify", v.Name, "FAIL%s: %s", of, what)
		r.say.sample(d.Columns, d.Sample)
		reason = fmt.Sprintf("verifier %s%s: %s", v.Name, of, what)
		if of != "" {
			reason += fmt.Sprintf("; this push has it %s, but as it is at the tip it judges the push too", r.standing.change(v).Change)
		}
	default:
		rec.Status = "pass"
		how := seconds(took)
		if d.Cached {
			how = "cached"
		}
		if r.standing.holds(v) {
			how += ", as it is at the tip"
		}
		r.say.line("verify", v.Name, "pass, %s", how)
	}
	r.rec.Verifiers = append(r.rec.Verifiers, rec)
	return reason
}

// verifierError is why a verifier that cannot be evaluated refuses.
func (r *run) verifierError(v *plan.Verifier, why string) string {
	if r.standing.holds(v) {
		return r.standingError(v, why)
	}
	return fmt.Sprintf("verifier %s could not be evaluated: %s", v.Name, why)
}
