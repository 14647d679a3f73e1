package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// stand finds the base's verifiers that the message says have judged the commit,
// if verifiers are to be evaluated at all.
func (p *replay) stand(ctx context.Context, c *gitobj.Commit, open func() *exec.Session) error {
	atBase := make(map[string]bool)
	for _, v := range p.gate.Verifiers {
		if v.AtBase {
			atBase[v.Name] = true
		}
	}
	if !p.Verifiers || len(atBase) == 0 {
		return nil
	}
	if p.noBase != nil || p.baseTree.IsZero() {
		p.note("the base is not in this clone, so its own verifiers cannot be evaluated")
		return nil
	}
	pol, err := policyAt(ctx, p.store, c.Parents[0])
	if err != nil {
		return err
	}
	s, err := p.standingAt(ctx, pol, open)
	if err != nil {
		return err
	}
	p.standing = s
	s.verifiers = slices.DeleteFunc(s.verifiers, func(v *plan.Verifier) bool { return !atBase[v.Name] })
	for name := range atBase {
		if !slices.ContainsFunc(s.verifiers, func(v *plan.Verifier) bool { return v.Name == name }) {
			p.report.problem("its message says that the base's verifier %s judged it, but the base has none that the commit changed", name)
		}
	}
	return nil
}

// judges returns the verifiers of the commit, and those of the base beside them.
func (p *replay) judges() []*plan.Verifier {
	all := make([]*plan.Verifier, len(p.plan.Verifiers))
	for i := range p.plan.Verifiers {
		all[i] = &p.plan.Verifiers[i]
	}
	if p.standing != nil {
		all = append(all, p.standing.verifiers...)
	}
	return all
}

// verifiers evaluates the commit's verifiers on its tables and its base.
func (p *replay) verifiers(ctx context.Context) error {
	groups, err := p.groupVerifiers(ctx)
	if err == nil && p.standing != nil {
		var older [][]exec.Checked
		older, err = p.group(ctx, p.standing.verifiers)
		groups = append(groups, older...)
	}
	if errors.Is(err, objects.ErrNotFound) {
		p.report.problem("the verifiers cannot be evaluated: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	said := make(map[claimed]string, len(p.gate.Verifiers))
	for _, v := range p.gate.Verifiers {
		said[claimed{v.Name, v.AtBase}] = v.Result
	}
	results := make([][]ReplayedVerifier, len(groups))
	errs := make([]error, len(groups))
	var wait sync.WaitGroup
	for i, g := range groups {
		wait.Go(func() { results[i], errs[i] = p.verifierGroup(ctx, g, said) })
	}
	wait.Wait()
	for _, rs := range results {
		p.report.Verifiers = append(p.report.Verifiers, rs...)
	}
	return errors.Join(errs...)
}

// claimed is a verifier that a message has a line for.
type claimed struct {
	name   string
	atBase bool
}

func (p *replay) verifierGroup(ctx context.Context, group []exec.Checked, said map[claimed]string) ([]ReplayedVerifier, error) {
	sess := p.sess
	if v := group[0].Verifier; v.Kind == plan.KindPython && p.standing.holds(v) {
		sess = p.standing.sess
	}
	verdicts, err := sess.Verify(ctx, group, exec.Sink{})
	var f *exec.Failure
	if err != nil && !errors.As(err, &f) {
		return nil, err
	}
	out := make([]ReplayedVerifier, len(group))
	for i, c := range group {
		of := claimed{c.Verifier.Name, p.standing.holds(c.Verifier)}
		v := ReplayedVerifier{Name: of.name, Path: c.Verifier.Path, AtBase: of.atBase, Committed: said[of], Replayed: "pass"}
		switch {
		case f != nil:
			v.Replayed, v.Reason = "error", f.Text
		case verdicts[i].Error != nil:
			v.Replayed, v.Reason = "error", exec.Describe(verdicts[i].Error)
		case verdicts[i].Violations > 0:
			v.Replayed, v.Reason = "fail", fmt.Sprintf("%s violating row(s)", count(verdicts[i].Violations))
			if c.Verifier.Severity == plan.SeverityWarn {
				v.Replayed = "warn"
			}
		case len(verdicts[i].Usage.Violations) > 0: // as the lineage says it
			v.Replayed, v.Reason = "warn", violationText(verdicts[i].Usage.Violations)
		}
		v.Equal = v.Replayed == v.Committed
		p.say(v.line())
		out[i] = v
	}
	return out, nil
}
