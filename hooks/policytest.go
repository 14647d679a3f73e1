package hooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/refs"
)

// PolicyQuestion asks who may do what.
type PolicyQuestion struct {
	Who    []policy.User
	People *policy.People // nil: the server was not asked
	Branch string         // "main"
	Policy objects.OID    // the commit whose headgate.yaml governs; zero: there is none
	// Base and Proposal are the states between which edits are told, of commits;
	// Proposal is zero if only the branch is asked about.
	Base, Proposal objects.OID

	given *approvals // of the proposal; nil if they are not known
}

// PolicyReport is the answer, docs/formats.md describes it.
type PolicyReport struct {
	Format   int             `json:"format"` // 1
	Branch   string          `json:"branch"`
	Gate     string          `json:"gate"`             // "required", "advisory", "off"
	Policy   string          `json:"policy,omitempty"` // commit
	Base     string          `json:"base,omitempty"`
	Proposal string          `json:"proposal,omitempty"`
	Changes  []string        `json:"policy_changes,omitempty"`
	Problems []string        `json:"problems,omitempty"` // of the proposal's own policy
	Users    []PolicyAnswers `json:"users"`
	// Approvals are those that the proposal takes, and who gave some already if the
	// server was asked.
	Approvals []ApprovalRecord `json:"approvals,omitempty"`
	Notes     []string         `json:"notes,omitempty"`
}

// PolicyAnswers are those for one user.
type PolicyAnswers struct {
	Who     string         `json:"who"`
	Groups  []string       `json:"groups,omitempty"`
	Admin   bool           `json:"admin,omitempty"`
	Actions []PolicyAnswer `json:"actions"`
	Edits   []PolicyAnswer `json:"edits,omitempty"`
}

// PolicyAnswer is whether something is allowed, and by which rule.
type PolicyAnswer struct {
	What    string `json:"what"` // an action, or a path
	Allowed bool   `json:"allowed"`
	Why     string `json:"why"`
}

// TestPolicy says who may do what to a branch, and with a proposal whether it may
// be published as far as grants go. It plans nothing and runs nothing: changes of
// functions by what they import are seen by the gate alone.
func TestPolicy(ctx context.Context, r objects.Reader, q PolicyQuestion) (*PolicyReport, error) {
	pol := policy.Default()
	rep := &PolicyReport{Format: 1, Branch: q.Branch, Users: []PolicyAnswers{}}
	if !q.Policy.IsZero() {
		var err error
		if pol, err = policyAt(ctx, r, q.Policy); err != nil {
			return nil, err
		}
		rep.Policy = q.Policy.String()
	}
	gate := pol.GateOf(q.Branch)
	rep.Gate = gate.String()
	var edits []edit
	if !q.Proposal.IsZero() {
		rep.Base, rep.Proposal = q.Base.String(), q.Proposal.String()
		var err error
		if edits, err = differences(ctx, r, q.Base, q.Proposal); err != nil {
			return nil, err
		}
		if err := rep.judgeNext(ctx, r, pol, q); err != nil {
			return nil, err
		}
		if gate != policy.Required {
			rep.Notes = append(rep.Notes, fmt.Sprintf("%s is not gated, so paths are not held against grants", q.Branch))
			edits = nil
		} else {
			rep.Notes = append(rep.Notes, "tables that models make are left out; changes of models and verifiers by what they import are found by the gate: git push -o dry-run")
		}
	}
	var paths []string
	for _, e := range edits {
		paths = append(append(paths, e.path), e.twins...)
	}
	for _, n := range pol.Needs(q.Branch, paths) {
		a := ApprovalRecord{Rule: fmt.Sprintf("%s:%d", PolicyFile, n.Line), Count: n.Count, Paths: n.Changed, By: []string{}}
		a.May = pol.Approvers(n.Changed[0], q.People)
		if q.given != nil {
			a.By = counted(pol, q.given, headsPrefix+q.Branch, "", n, q.People)
		}
		rep.Approvals = append(rep.Approvals, a)
	}
	for _, u := range q.Who {
		a := PolicyAnswers{Who: u.Name, Groups: u.Groups, Admin: u.Admin, Actions: []PolicyAnswer{}}
		for _, action := range policy.Actions {
			d := pol.May(u, action, q.Branch, q.People)
			if text := impossible(action, gate); text != "" {
				d = policy.Decision{Why: text}
			}
			a.Actions = append(a.Actions, PolicyAnswer{string(action), d.Allowed, d.Why})
		}
		for _, e := range edits {
			a.Edits = append(a.Edits, mayEdit(pol, u, e, q.People))
		}
		rep.Users = append(rep.Users, a)
	}
	return rep, nil
}

// impossible says why an action is nobody's on a branch with that gate; "" if it
// may be somebody's.
func impossible(a policy.Action, gate policy.Gate) string {
	switch gated := gate == policy.Required; {
	case gated && (a == policy.Push || a == policy.Force || a == policy.Delete):
		return "it is gated: it moves by proposals alone, and forward"
	case !gated && a == policy.Propose:
		return "it is not gated: push to it"
	}
	return ""
}

// judgeNext says what is wrong with the policy that the proposal brings.
func (rep *PolicyReport) judgeNext(ctx context.Context, r objects.Reader, pol *policy.Policy, q PolicyQuestion) error {
	next, err := policyAt(ctx, r, q.Proposal)
	var bad *policy.Error
	if errors.As(err, &bad) {
		rep.Problems = strings.Split(bad.Error(), "\n")
		return nil
	}
	if err != nil {
		return err
	}
	rep.Changes = policy.Changes(pol, next)
	if len(rep.Changes) == 0 || next.Grants == nil {
		return nil
	}
	problems, _ := next.CheckGrants(q.People, nil, nil)
	for _, p := range problems {
		rep.Problems = append(rep.Problems, p.String())
	}
	return nil
}

// mayEdit holds one difference and its twins against the grants.
func mayEdit(pol *policy.Policy, u policy.User, e edit, people *policy.People) PolicyAnswer {
	for i, path := range append([]string{e.path}, e.twins...) {
		d := pol.MayEdit(u, path, people)
		if !d.Allowed {
			if i > 0 {
				d.Why = fmt.Sprintf("it is %s where names are not told apart by case or form: %s", path, d.Why)
			}
			return PolicyAnswer{e.path, false, d.Why}
		}
	}
	return PolicyAnswer{e.path, true, pol.MayEdit(u, e.path, people).Why}
}

// differences returns the paths in which the trees of two commits differ, but for
// tables that the base's message says models made.
func differences(ctx context.Context, r objects.Reader, base, proposal objects.OID) ([]edit, error) {
	var was objects.OID
	made := make(map[string]bool)
	if !base.IsZero() {
		c, err := readCommit(ctx, r, base)
		if err != nil {
			return nil, err
		}
		was = c.Tree
		if g, err := trailer.Parse(c.Message); err == nil {
			for _, m := range g.Models {
				if dir, err := table.Dir(m.Name); err == nil {
					made[dir] = true
				}
			}
		}
	}
	c, err := readCommit(ctx, r, proposal)
	if err != nil {
		return nil, err
	}
	d := &differ{r: r, skip: func(path string) bool { return made[path] }}
	if err := d.walk(ctx, [2]objects.OID{was, c.Tree}, "", nil); err != nil {
		return nil, err
	}
	slices.SortFunc(d.found, func(a, b edit) int { return cmp.Compare(a.path, b.path) })
	return d.found, nil
}

// Denied tells whether anybody who was asked about may not do what the question is:
// with a proposal to bring it to the branch, else anything.
func (rep *PolicyReport) Denied() bool {
	if len(rep.Problems) > 0 {
		return true
	}
	way := string(policy.Push)
	if rep.Gate == policy.Required.String() {
		way = string(policy.Propose)
	}
	for _, u := range rep.Users {
		for _, a := range u.Actions {
			if a.What == way && !a.Allowed {
				return true
			}
		}
		for _, e := range u.Edits {
			if !e.Allowed {
				return true
			}
		}
	}
	return false
}

// Text returns the report for a person.
func (rep *PolicyReport) Text() string {
	var b strings.Builder
	from := "no policy, so the defaults govern"
	if rep.Policy != "" {
		from = fmt.Sprintf("governed by %s of %s", PolicyFile, shortText(rep.Policy))
	}
	fmt.Fprintf(&b, "%s: gate %s, %s\n", printable(rep.Branch), rep.Gate, from)
	if rep.Proposal != "" {
		fmt.Fprintf(&b, "the proposal %s against %s\n", shortText(rep.Proposal), shortText(rep.Base))
	}
	if len(rep.Changes) > 0 {
		fmt.Fprintf(&b, "  it changes the policy: %s\n", strings.Join(rep.Changes, ", "))
	}
	for _, p := range rep.Problems {
		fmt.Fprintf(&b, "  REFUSED  %s\n", printable(p))
	}
	line := func(a PolicyAnswer) {
		word := "no"
		if a.Allowed {
			word = "yes"
		}
		fmt.Fprintf(&b, "  %-4s %-28s %s\n", word, printable(a.What), printable(a.Why))
	}
	for _, u := range rep.Users {
		who := u.Who
		if len(u.Groups) > 0 {
			who += ", in " + strings.Join(u.Groups, ", ")
		}
		if u.Admin {
			who += ", an administrator"
		}
		fmt.Fprintf(&b, "%s\n", printable(who))
		for _, a := range u.Actions {
			line(a)
		}
		for i, e := range u.Edits {
			if i == maxBlock && len(u.Edits) > maxBlock+1 {
				fmt.Fprintf(&b, "       ... %d more paths; --json has them all\n", len(u.Edits)-i)
				break
			}
			e.What = "edit " + e.What
			line(e)
		}
	}
	for _, a := range rep.Approvals {
		fmt.Fprintf(&b, "%s: a change of %s takes %d approval(s)", a.Rule, printable(shortList(a.Paths)), a.Count)
		if len(a.May) > 0 {
			fmt.Fprintf(&b, "; %s may give one", printable(shortList(a.May)))
		}
		if len(a.By) > 0 {
			fmt.Fprintf(&b, "; given by %s", printable(shortList(a.By)))
		}
		fmt.Fprintln(&b)
	}
	for _, n := range rep.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return b.String()
}

// PolicyAsked is a question to the server, which knows users, groups and tips.
type PolicyAsked struct {
	Who    string // "" is the asker
	Branch string
	Of     string // a commit or ref to propose; "" asks about the branch alone
}

// TestPolicy answers a question about a lake. Errors for the asker are *QueryError.
func (g *Gate) TestPolicy(ctx context.Context, l *lake.Lake, asker Identity, asked PolicyAsked) (*PolicyReport, error) {
	q := PolicyQuestion{Who: []policy.User{asker.user()}, People: g.people(), Branch: cmp.Or(asked.Branch, policy.MainBranch)}
	if asked.Who != "" && asked.Who != asker.Name {
		u, ok := q.People.User(asked.Who)
		if !ok {
			return nil, &QueryError{fmt.Sprintf("no key of this server is %s's", asked.Who)}
		}
		q.Who = []policy.User{u}
	}
	target, err := refs.Parse(headsPrefix + q.Branch)
	if err != nil {
		return nil, &QueryError{err.Error()}
	}
	tip, err := l.Refs.Get(ctx, target)
	if err != nil && !errors.Is(err, refs.ErrNotFound) {
		return nil, err
	}
	main, err := l.Refs.Get(ctx, mainRef)
	if err != nil && !errors.Is(err, refs.ErrNotFound) {
		return nil, err
	}
	q.Base, q.Policy = tip, main
	if !tip.IsZero() {
		pol, err := policyAt(ctx, l.Objects, tip)
		var bad *policy.Error
		if err != nil && !errors.As(err, &bad) {
			return nil, err
		}
		if err == nil && pol.GateOf(q.Branch) == policy.Required {
			q.Policy = tip
		}
	}
	if asked.Of != "" {
		if q.Proposal, err = resolveCommit(ctx, l, asked.Of); err != nil {
			return nil, err
		}
	}
	if q.Base.IsZero() && !main.IsZero() && !q.Proposal.IsZero() {
		base, found, err := history.MergeBase(ctx, l.Objects, main, q.Proposal)
		if err != nil {
			return nil, err
		}
		if found {
			q.Base = base
		}
	}
	if !q.Proposal.IsZero() {
		if q.given, err = g.approvalsOf(ctx, l, refs.Name(approvalsPrefix+q.Proposal.String())); err != nil {
			return nil, err
		}
	}
	rep, err := TestPolicy(ctx, l.Objects, q)
	var bad *policy.Error
	if errors.As(err, &bad) {
		return nil, &QueryError{bad.Error()}
	}
	return rep, err
}
