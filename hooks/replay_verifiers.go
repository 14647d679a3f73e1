package hooks

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/objects"
)

// verifiers evaluates the commit's verifiers on its tables and its base.
func (p *replay) verifiers(ctx context.Context) error {
	groups, err := p.groupVerifiers(ctx)
	if errors.Is(err, objects.ErrNotFound) {
		p.report.problem("the verifiers cannot be evaluated: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	said := make(map[string]string, len(p.gate.Verifiers))
	for _, v := range p.gate.Verifiers {
		said[v.Name] = v.Result
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

func (p *replay) verifierGroup(ctx context.Context, group []exec.Checked, said map[string]string) ([]ReplayedVerifier, error) {
	verdicts, err := p.sess.Verify(ctx, group, exec.Sink{})
	var f *exec.Failure
	if err != nil && !errors.As(err, &f) {
		return nil, err
	}
	out := make([]ReplayedVerifier, len(group))
	for i, c := range group {
		v := ReplayedVerifier{Name: c.Verifier.Name, Path: c.Verifier.Path, Committed: said[c.Verifier.Name], Replayed: "pass"}
		switch {
		case f != nil:
			v.Replayed, v.Reason = "error", f.Text
		case verdicts[i].Error != nil:
			v.Replayed, v.Reason = "error", exec.Describe(verdicts[i].Error)
		case verdicts[i].Violations > 0:
			v.Replayed, v.Reason = "fail", fmt.Sprintf("%s violating row(s)", count(verdicts[i].Violations))
		case len(verdicts[i].Usage.Violations) > 0: // as the lineage says it
			v.Replayed, v.Reason = "warn", violationText(verdicts[i].Usage.Violations)
		}
		v.Equal = v.Replayed == v.Committed
		p.say(v.line())
		out[i] = v
	}
	return out, nil
}
