package hooks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/mask"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/refs"
)

// resolveSecrets opens the secrets that the plan's models ask for and may have.
// It returns what is wrong, one sentence each.
func (r *run) resolveSecrets(ctx context.Context) (wrong []string, err error) {
	changed, err := r.changedSecrets(ctx)
	if err != nil {
		return nil, err
	}
	if changed != "" {
		return []string{changed}, nil
	}
	asked := make(map[string]bool)
	for _, m := range r.plan.Models {
		for _, s := range m.Secrets {
			asked[s.Name] = true
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	gives, err := r.secretsGiven(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range r.plan.Models {
		for _, s := range m.Secrets {
			if !gives(s.Name, m.Name) {
				wrong = append(wrong, fmt.Sprintf("%s:%d: model %s asks for the secret %q, which %s at the tip does not give it; "+
					"an administrator can push one that does: secrets: {%s: {models: [%s]}}", m.Path, m.Line, m.Name, s.Name, PolicyFile, s.Name, m.Name))
			}
		}
	}
	if len(wrong) > 0 {
		return wrong, nil
	}
	r.secrets = make(map[string]exec.Secret, len(asked))
	var values []string
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		s, err := r.lake.Secrets.Get(name)
		switch {
		case errors.Is(err, lake.ErrNoSecret):
			wrong = append(wrong, fmt.Sprintf("the secret %q is not set; an administrator sets it with the server's command: secret set %s %s", name, r.lake.Name, name))
		case err != nil:
			r.gate.cfg.Logger.Error("open secret", "lake", r.lake.Name, "run", r.id(), "err", err)
			wrong = append(wrong, fmt.Sprintf("the secret %q cannot be opened with this server's key; an administrator must set it again", name))
		}
		if err != nil {
			continue
		}
		r.secrets[name] = exec.Secret{Value: s.Value, Digest: s.Digest}
		values = append(values, s.Value)
	}
	r.hide = mask.New(values)
	r.say.conceal(r.hide)
	return wrong, nil
}

// changedSecrets says why a proposal may not change who gets secrets. The policy
// of main decides that, so without this rule a first push could grant what a
// second one takes.
func (r *run) changedSecrets(ctx context.Context) (string, error) {
	if r.target != mainRef || r.who.Admin {
		return "", nil
	}
	var now map[string]policy.Secret
	if !r.old.IsZero() {
		tip, err := readCommit(ctx, r.q, r.old)
		if err != nil {
			return "", err
		}
		if r.gate.isMainsGateCommit(tip) {
			now = r.policy.Secrets
		}
	}
	if sameSecrets(now, r.next.Secrets) {
		return "", nil
	}
	return fmt.Sprintf("%s: only an administrator may change secrets, that is, who gets them; you are %s", PolicyFile, r.who.Name), nil
}

// isMainsGateCommit tells whether a run on main made the commit. Only what such
// runs passed on from each other is an administrator's grant: while main has no
// gate, anybody may push a policy to it, or the gate commit of another branch. No
// branch's name holds a colon, so none can be taken for main.
func (g *Gate) isMainsGateCommit(c *gitobj.Commit) bool {
	return strings.HasPrefix(c.Message, "Publish to "+policy.MainBranch+": ") && g.isGateCommit(c)
}

func sameSecrets(a, b map[string]policy.Secret) bool {
	models := func(from map[string]policy.Secret) map[string][]string {
		out := make(map[string][]string)
		for name, s := range from {
			out[name] = s.Models
		}
		return out
	}
	return reflect.DeepEqual(models(a), models(b))
}

// secretsGiven returns what says whether a model gets a secret: the policy at the
// target's tip and the one at main's must both name it. What a branch without a
// gate says of itself is anybody's word, and so is main's where main has no gate
// or no run of its own made the tip.
func (r *run) secretsGiven(ctx context.Context) (func(secret, model string) bool, error) {
	never := func(string, string) bool { return false }
	tip, err := r.lake.Refs.Get(ctx, mainRef)
	if errors.Is(err, refs.ErrNotFound) {
		return never, nil
	}
	if err != nil {
		return nil, err
	}
	commit, err := readCommit(ctx, r.q, tip)
	if err != nil {
		return nil, fmt.Errorf("tip of main: %w", err)
	}
	if !r.gate.isMainsGateCommit(commit) {
		return never, nil
	}
	main, err := policyAt(ctx, r.q, tip)
	var bad *policy.Error
	if errors.As(err, &bad) {
		return never, nil
	}
	if err != nil {
		return nil, fmt.Errorf("policy of main: %w", err)
	}
	if main.GateOf(policy.MainBranch) != policy.Required {
		return never, nil
	}
	return func(secret, model string) bool {
		return main.Gives(secret, model) && r.policy.Gives(secret, model)
	}, nil
}

// secretsOf returns the values of a model's secrets, by argument.
func (e *evaluation) secretsOf(m *plan.Model) map[string]exec.Secret {
	if len(m.Secrets) == 0 {
		return nil
	}
	out := make(map[string]exec.Secret, len(m.Secrets))
	for _, s := range m.Secrets {
		out[s.Param] = e.secrets[s.Name]
	}
	return out
}

func secretNames(m *plan.Model) []string {
	var names []string
	for _, s := range m.Secrets {
		if !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}

// concealFailure hides secrets in what is said of a failure.
func (r *run) concealFailure(f *exec.Failure) {
	if f == nil || r.hide.Empty() {
		return
	}
	f.Text = r.hide.Text(f.Text)
	r.concealError(f.Detail)
	r.concealUsage(&f.Usage)
}

func (r *run) concealError(e *protocol.UserError) {
	if e != nil {
		e.Message, e.Traceback, e.File = r.hide.Text(e.Message), r.hide.Text(e.Traceback), r.hide.Text(e.File)
	}
}

func (r *run) concealUsage(u *exec.Usage) {
	for i := range u.Violations {
		u.Violations[i].Detail = r.hide.Text(u.Violations[i].Detail)
	}
}

// concealVerdict hides secrets in what a verifier says and shows.
func (r *run) concealVerdict(d *exec.Verdict) {
	if r.hide.Empty() {
		return
	}
	d.Message = r.hide.Text(d.Message)
	r.concealError(d.Error)
	r.concealUsage(&d.Usage)
	for _, row := range d.Sample {
		for column, v := range row {
			// A number may be a secret too: one of digits, in a column of numbers.
			text := fmt.Sprint(v)
			if f, ok := v.(float64); ok {
				text = strconv.FormatFloat(f, 'f', -1, 64)
			}
			if v == nil || strings.TrimSpace(text) == "" {
				continue
			}
			if hidden := r.hide.Text(text); hidden != text {
				row[column] = hidden
			}
		}
	}
}
