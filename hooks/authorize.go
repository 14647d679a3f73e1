package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

// user is who pushes, as policies see them.
func (i Identity) user() policy.User {
	return policy.User{Name: i.Name, Groups: i.Groups, Admin: i.Admin}
}

// people returns the users and groups that the server knows now; nil if it was
// not told.
func (g *Gate) people() *policy.People {
	if g.cfg.People == nil {
		return nil
	}
	all := g.cfg.People()
	if all == nil {
		return nil
	}
	var users []policy.User
	for _, i := range all {
		users = append(users, i.user())
	}
	return policy.NewPeople(users)
}

// granting returns the policy whose grants bind a push to what no gate guards:
// main's. What a branch says of itself is anybody's word.
func (g *Gate) granting(ctx context.Context, p *Push) (*policy.Policy, error) {
	tip, err := p.Lake.Refs.Get(ctx, mainRef)
	if errors.Is(err, refs.ErrNotFound) {
		return policy.Default(), nil
	}
	if err != nil {
		return nil, g.unable(p, "read main", err).refused
	}
	pol, err := policyAt(ctx, p.Objects, tip)
	if err != nil {
		return nil, g.unable(p, "read the policy of main", err).refused
	}
	return pol, nil
}

// permitOpen says why a push to what no gate guards is not allowed; nil if it is.
func (g *Gate) permitOpen(ctx context.Context, p *Push, u refs.Update) error {
	if p.Who.Admin {
		return nil
	}
	pol, err := g.granting(ctx, p)
	if err != nil || pol.Grants == nil {
		return err
	}
	action := policy.Push
	switch {
	case u.New.IsZero():
		action = policy.Delete
	case u.Old.IsZero():
		action = policy.Create
	case strings.HasPrefix(string(u.Name), tagsPrefix):
		action = policy.Force // a tag that moves is another tag
	default:
		forward, err := history.IsAncestor(ctx, p.Objects, u.Old, u.New)
		if err != nil {
			return g.unable(p, "compare with the tip", err).refused
		}
		if !forward {
			action = policy.Force
		}
	}
	return g.permit(p, pol, action, strings.TrimPrefix(string(u.Name), headsPrefix))
}

// permitProposal says why a proposal to a gated branch is not allowed; nil if it is.
func (g *Gate) permitProposal(p *Push, pol *policy.Policy, name refs.Name, old refs.OID) error {
	if name == mainRef && old.IsZero() {
		return nil // before a lake's first state there is no policy
	}
	branch := strings.TrimPrefix(string(name), headsPrefix)
	if err := g.permit(p, pol, policy.Propose, branch); err != nil || !old.IsZero() {
		return err
	}
	return g.permit(p, pol, policy.Create, branch)
}

func (g *Gate) permit(p *Push, pol *policy.Policy, action policy.Action, branch string) error {
	d := pol.May(p.Who.user(), action, branch, g.people())
	if d.Allowed {
		return nil
	}
	verb := string(action)
	if action == policy.Propose {
		verb = "propose to"
	}
	return fmt.Errorf("%s may not %s %s: %s", p.Who.Name, verb, branch, d.Why)
}

// binding tells whether the target's policy decides what the run may publish.
func (r *run) binding() bool {
	return r.policy.GateOf(strings.TrimPrefix(string(r.target), headsPrefix)) == policy.Required
}

// first tells whether the run makes a lake's first state.
func (r *run) first() bool { return r.target == mainRef && r.old.IsZero() }

// maxDenied is how many paths a refusal names.
const maxDenied = 10

// authorize holds what the proposal changes against the grants of the target's
// tip. A run that starts again on another tip is authorized again.
func (r *run) authorize(ctx context.Context) error {
	if !r.binding() || r.first() || r.policy.Grants == nil && r.policy.Approvals == nil {
		return nil
	}
	people, who := r.gate.people(), r.who.user()
	branch := strings.TrimPrefix(string(r.target), headsPrefix)
	// However the proposal came to be a run, it takes the grant.
	if d := r.policy.May(who, policy.Propose, branch, people); !d.Allowed {
		return r.reject(fmt.Sprintf("%s may not propose to %s: %s", who.Name, branch, d.Why))
	}
	edits, err := r.edits(ctx)
	if err != nil {
		return fmt.Errorf("compare with the base: %w", err)
	}
	var denied []string
	told := make(map[string]bool) // directories of tables: one of their parts stands for all
	for _, e := range edits {
		a := mayEdit(r.policy, who, e, people)
		dir, isTable := tableDir(e.path)
		if a.Allowed || told[dir] {
			continue
		}
		told[dir] = isTable
		denied = append(denied, fmt.Sprintf("%s may not change %s: %s", who.Name, e.path, a.Why))
	}
	if n := len(denied) - maxDenied; n > 0 {
		denied = append(denied[:maxDenied], fmt.Sprintf("and %d more paths", n))
	}
	if len(denied) > 0 {
		return r.reject(denied...)
	}
	return r.needApprovals(ctx, edits)
}

// tableDir returns the directory of a path below tables/.
func tableDir(path string) (string, bool) {
	return path[:max(0, strings.LastIndexByte(path, '/'))], strings.HasPrefix(path, table.Root+"/")
}

// checkGrants refuses a policy whose grants are changed and not sound, and tells
// what of the policy the proposal changes.
func (r *run) checkGrants(ctx context.Context) error {
	governing := r.policy
	if r.first() {
		governing = policy.Default()
	}
	if r.rec.PolicyChanges = policy.Changes(governing, r.next); len(r.rec.PolicyChanges) == 0 {
		return nil
	}
	if !r.base.IsZero() {
		r.say.line("policy", PolicyFile, "CHANGED by this push: %s", strings.Join(r.rec.PolicyChanges, ", "))
	}
	about := slices.ContainsFunc(r.rec.PolicyChanges, func(s string) bool { return s == "grants" || s == "approvals" || s == "branches" })
	if !about || r.next.Grants == nil && r.next.Approvals == nil {
		return nil
	}
	known, err := r.lake.Refs.List(ctx, "refs/")
	if err != nil {
		return fmt.Errorf("list refs: %w", err)
	}
	names := []string{strings.TrimPrefix(string(r.target), headsPrefix)}
	for _, ref := range known {
		names = append(names, strings.TrimPrefix(string(ref.Name), headsPrefix))
	}
	var paths []string
	err = tree.Walk(ctx, r.q, r.tree, func(path string, e gitobj.Entry) error {
		if e.Mode != gitobj.ModeTree {
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the state: %w", err)
	}
	problems, warnings := r.next.CheckGrants(r.gate.people(), names, paths)
	r.mu.Lock()
	for _, text := range warnings {
		r.warn(text)
	}
	r.mu.Unlock()
	if len(problems) > 0 {
		return r.rejectIfUser(&policy.Error{Problems: problems})
	}
	return nil
}

// confirm asks once more, when all is verified, whether the run may still publish:
// a run takes its time, and who its pusher is may have changed since.
func (r *run) confirm(ctx context.Context) error {
	if r.policy.Grants == nil || !r.binding() || r.first() {
		return r.approved(ctx)
	}
	if people := r.gate.people(); people != nil {
		now, ok := people.User(r.who.Name)
		was := slices.Sorted(slices.Values(r.who.Groups))
		if !ok || r.who.Admin && !now.Admin || !slices.Equal(slices.Sorted(slices.Values(now.Groups)), was) {
			return r.reject(fmt.Sprintf("who %s is was changed on the server while the run was under way; push again", r.who.Name))
		}
	}
	if !r.old.IsZero() {
		at, err := policyAt(ctx, r.q, r.old)
		if err == nil && len(policy.Changes(r.policy, at)) == 0 {
			return r.approved(ctx) // the policy is the tip's, which the publication swaps
		}
	}
	tip, err := r.lake.Refs.Get(ctx, mainRef)
	if errors.Is(err, refs.ErrNotFound) {
		return r.approved(ctx)
	}
	if err != nil {
		return err
	}
	now, err := policyAt(ctx, r.q, tip)
	if err != nil {
		return err
	}
	if len(policy.Changes(r.policy, now)) > 0 {
		return r.reject("the policy of main changed while the run was under way; push again")
	}
	return r.approved(ctx)
}
