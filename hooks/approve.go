package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

// Where the approvals of a proposal are: refs/approvals/<oid> is a commit of the
// server's whose tree holds a file for each approval, and one for each proposer.
const (
	approvalsPrefix = "refs/approvals/"
	approvalsDir    = "approvals" // approvals/<branch>/<user>.json
	proposersDir    = "proposers" // proposers/<user>.json
)

// maxApprovalFiles bounds how much is read of the approvals of one proposal.
const maxApprovalFiles = 10_000

// statement is what somebody said of a proposal, or did with it. The server
// writes it, for the key that opened the connection, and signs the commit.
type statement struct {
	Format   int       `json:"format"` // 1
	Lake     lake.Name `json:"lake"`
	Proposal string    `json:"proposal"`
	Target   string    `json:"target"` // the ref that it is approved for, or was proposed to first
	Who      string    `json:"who"`
	Key      string    `json:"key,omitempty"` // fingerprint
	Time     time.Time `json:"time"`
}

// approving is an approval to be given or withdrawn.
type approving struct {
	ref      refs.Name
	proposal objects.OID
	target   refs.Name
	withdraw bool
}

// approvals are those of one proposal.
type approvals struct {
	at        objects.OID // of the ref; zero if there is none
	given     []statement
	proposers map[string]bool
}

// decideApproval decides a push to refs/approvals/<oid>. It approves exactly the
// commit of that oid, for one branch.
func (g *Gate) decideApproval(ctx context.Context, p *Push, u refs.Update, opt options) decision {
	a := &approving{ref: u.Name, withdraw: opt.withdraw}
	var err error
	if a.proposal, err = objects.ParseOID(strings.TrimPrefix(string(u.Name), approvalsPrefix)); err != nil {
		return refuse("a proposal is approved by its full oid: git push origin <oid>:%s<oid>", approvalsPrefix)
	}
	switch {
	case u.New.IsZero():
		return refuse("approvals are not deleted; withdraw yours with: git push -o withdraw origin %s:%s", a.proposal, u.Name)
	case u.New != a.proposal:
		return refuse("%s approves that commit, and you pushed %s: an approval is of one commit and no other", u.Name, u.New)
	case p.Atomic && len(p.Updates) > 1:
		return refuse("approvals are pushed alone, not in an atomic push with others")
	case opt.run || opt.dryRun || opt.needsRun() != "":
		return refuse("an approval runs nothing; its options are target=<branch> and withdraw")
	}
	if _, err := readCommit(ctx, p.Objects, a.proposal); err != nil {
		return refuse("%s is no commit; what is approved is a proposal", a.proposal)
	}
	branch := opt.target
	if branch == "" {
		branch = policy.MainBranch
	}
	if a.target, err = refs.Parse(headsPrefix + branch); err != nil {
		return refuse("target: %v", err)
	}
	tip, err := p.Lake.Refs.Get(ctx, a.target)
	if errors.Is(err, refs.ErrNotFound) {
		return refuse("there is no branch %s to approve anything for; -o target=<branch> names another", branch)
	}
	if err != nil {
		return g.unable(p, "read the target", err)
	}
	pol, err := policyAt(ctx, p.Objects, tip)
	if err != nil {
		return g.unable(p, "read the policy at the tip", err)
	}
	if pol.GateOf(branch) != policy.Required {
		return refuse("%s is not gated, so nothing waits for an approval", branch)
	}
	if !a.withdraw {
		if d := pol.MayApproveAny(p.Who.user(), g.people()); !d.Allowed {
			return refuse("%s may not approve anything for %s: %s", p.Who.Name, branch, d.Why)
		}
	}
	return decision{update: u, approving: a}
}

// approve gives or withdraws an approval.
func (g *Gate) approve(ctx context.Context, p *Push, a *approving) error {
	branch := strings.TrimPrefix(string(a.target), headsPrefix)
	file := approvalsDir + "/" + url.QueryEscape(branch) + "/" + url.QueryEscape(p.Who.Name) + ".json"
	verb := "Approve"
	if a.withdraw {
		verb = "Withdraw the approval of"
	}
	err := g.state(ctx, p.Lake, p.Who, a.ref, fmt.Sprintf("%s %s for %s", verb, a.proposal, branch), func(have *approvals) (map[string]tree.Edit, *statement, string, error) {
		given := slices.ContainsFunc(have.given, func(s statement) bool { return s.Who == p.Who.Name && s.Target == string(a.target) })
		switch {
		case a.withdraw && !given:
			return nil, nil, "", fmt.Errorf("%s has not approved %s for %s", p.Who.Name, a.proposal, branch)
		case a.withdraw:
			return map[string]tree.Edit{file: {Remove: true}}, nil, "", nil
		case have.proposers[p.Who.Name]:
			return nil, nil, "", fmt.Errorf("%s has proposed %s, and nobody approves their own proposal", p.Who.Name, short(a.proposal))
		case given:
			return nil, nil, "", nil
		}
		return nil, &statement{Proposal: a.proposal.String(), Target: string(a.target)}, file, nil
	})
	if err != nil {
		return err
	}
	done := "approved"
	if a.withdraw {
		done = "withdrew the approval of"
	}
	_, _ = fmt.Fprintf(p.Progress, "headgate: %s %s %s for %s. It counts for this commit and no other.\n", p.Who.Name, done, short(a.proposal), branch)
	return nil
}

// state changes what is said of a proposal: decide returns edits, or a statement to be
// written as a file, or neither. It is asked again if somebody else was faster.
func (g *Gate) state(ctx context.Context, l *lake.Lake, who Identity, ref refs.Name, subject string,
	decide func(*approvals) (map[string]tree.Edit, *statement, string, error)) error {
	for range 10 {
		have, err := g.approvalsOf(ctx, l, ref)
		if err != nil {
			g.cfg.Logger.Error("read approvals", "lake", l.Name, "ref", ref, "err", err)
			return errors.New("the approvals of this proposal could not be read; nothing was changed, ask the administrator")
		}
		edits, said, file, err := decide(have)
		if err != nil || edits == nil && said == nil {
			return err
		}
		err = g.write(ctx, l, who, ref, subject, have.at, edits, said, file)
		var stale *refs.StaleError
		if errors.As(err, &stale) {
			continue
		}
		return g.swapError(err, l.Name)
	}
	return errors.New("others approve at the same time; try again")
}

func (g *Gate) write(ctx context.Context, l *lake.Lake, who Identity, ref refs.Name, subject string, at objects.OID, edits map[string]tree.Edit, said *statement, file string) (err error) {
	q, err := l.Objects.Quarantine()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Discard()) }()
	if said != nil {
		said.Format, said.Lake, said.Who, said.Key, said.Time = 1, l.Name, who.Name, who.Fingerprint, g.cfg.Now().UTC()
		doc, err := json.MarshalIndent(said, "", "  ")
		if err != nil {
			return err
		}
		doc = append(doc, '\n')
		oid, err := q.Put(ctx, objects.Blob, int64(len(doc)), bytes.NewReader(doc))
		if err != nil {
			return err
		}
		edits = map[string]tree.Edit{file: {Mode: gitobj.ModeFile, OID: oid}}
	}
	c := &gitobj.Commit{Message: fmt.Sprintf("%s\n\nBy %s.\n", subject, who.Name), Author: g.house(), Committer: g.house()}
	var root objects.OID
	if !at.IsZero() {
		was, err := readCommit(ctx, q, at)
		if err != nil {
			return err
		}
		root, c.Parents = was.Tree, []objects.OID{at}
	}
	if c.Tree, err = tree.Apply(ctx, q, root, edits); err != nil {
		return err
	}
	if err := g.cfg.Signer.Sign(c); err != nil {
		return err
	}
	data := c.Encode()
	oid, err := q.Put(ctx, objects.Commit, int64(len(data)), bytes.NewReader(data))
	if err != nil {
		return err
	}
	if err := q.Migrate(ctx); err != nil {
		return err
	}
	moved := refs.Update{Name: ref, Old: at, New: oid}
	e := g.event(who, "approve", DecisionAccepted, moved)
	e.Why = subject
	return l.Refs.Apply(ctx, []refs.Update{moved}, g.causeOf(l, subject, e))
}

// approvalsOf reads what was said of a proposal. What this server did not sign, or
// what was said of another proposal or lake, is an error: somebody has been at the refs.
func (g *Gate) approvalsOf(ctx context.Context, l *lake.Lake, ref refs.Name) (*approvals, error) {
	a := &approvals{proposers: make(map[string]bool)}
	at, err := l.Refs.Get(ctx, ref)
	if errors.Is(err, refs.ErrNotFound) {
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	a.at = at
	c, err := readCommit(ctx, l.Objects, at)
	if err != nil {
		return nil, err
	}
	if err := g.cfg.Signer.Verify(c); err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	files := 0
	err = tree.Walk(ctx, l.Objects, c.Tree, func(path string, e gitobj.Entry) error {
		if e.Mode == gitobj.ModeTree {
			return nil
		}
		if files++; files > maxApprovalFiles {
			return fmt.Errorf("%s has more than %d files", ref, maxApprovalFiles)
		}
		doc, err := objects.ReadAll(ctx, l.Objects, e.OID, objects.Blob, 1<<16)
		if err != nil {
			return err
		}
		var s statement
		if err := json.Unmarshal(doc, &s); err != nil {
			return fmt.Errorf("%s of %s: %w", path, ref, err)
		}
		if s.Format != 1 || s.Lake != l.Name || approvalsPrefix+s.Proposal != string(ref) {
			return fmt.Errorf("%s of %s is about %s of lake %s", path, ref, s.Proposal, s.Lake)
		}
		if strings.HasPrefix(path, proposersDir+"/") {
			a.proposers[s.Who] = true
		} else {
			a.given = append(a.given, s)
		}
		return nil
	})
	return a, err
}

// ApprovalRecord is a rule that a run's changes fall under, and who approved them.
type ApprovalRecord struct {
	Rule  string   `json:"rule"` // "headgate.yaml:9"
	Count int      `json:"count"`
	Paths []string `json:"paths"`
	By    []string `json:"by"`            // in a run record those that counted
	May   []string `json:"may,omitempty"` // in a policy test: who may give one
}

// needApprovals finds the rules that the changes fall under, and puts on record who
// proposed them: whoever did cannot approve the commit afterwards and have somebody
// else push it.
func (r *run) needApprovals(ctx context.Context, edits []edit) error {
	var paths []string
	for _, e := range edits {
		paths = append(append(paths, e.path), e.twins...)
	}
	r.needs = r.policy.Needs(strings.TrimPrefix(string(r.target), headsPrefix), paths)
	if len(r.needs) == 0 {
		return nil
	}
	for _, n := range r.needs {
		r.say.line("approve", fmt.Sprintf("%s:%d", PolicyFile, n.Line), "takes %d approval(s): it changes %s", n.Count, shortList(n.Changed))
	}
	return r.noteProposer(ctx)
}

// approvals is the ref of the proposal's approvals.
func (r *run) approvals() refs.Name { return refs.Name(approvalsPrefix + r.proposal.String()) }

// approved counts approvals when all else has been found good: those who approve can
// see what they approve. What it counted must be so still when the refs are swapped.
func (r *run) approved(ctx context.Context) error {
	if len(r.needs) == 0 {
		return nil
	}
	ref := r.approvals()
	branch := strings.TrimPrefix(string(r.target), headsPrefix)
	have, err := r.gate.approvalsOf(ctx, r.lake, ref)
	if err != nil {
		return err
	}
	people := r.gate.people()
	var missing []string
	for _, n := range r.needs {
		by := counted(r.policy, have, string(r.target), r.who.Name, n, people)
		rule := fmt.Sprintf("%s:%d", PolicyFile, n.Line)
		r.rec.Approvals = append(r.rec.Approvals, ApprovalRecord{Rule: rule, Count: n.Count, Paths: n.Changed, By: by})
		if len(by) >= n.Count {
			r.say.line("approve", rule, "by %s", strings.Join(by, ", "))
			continue
		}
		who := r.policy.Approvers(n.Changed[0], people)
		who = slices.DeleteFunc(who, func(name string) bool { return have.proposers[name] || name == r.who.Name })
		text := fmt.Sprintf("a change of %s takes %d approval(s) (%s), and has %d", shortList(n.Changed), n.Count, rule, len(by))
		if len(who) > 0 {
			text += "; who may give one: " + shortList(who)
		}
		missing = append(missing, text)
	}
	if len(missing) > 0 {
		target := ""
		if branch != policy.MainBranch {
			target = "-o target=" + branch + " "
		}
		return r.reject(append(missing, fmt.Sprintf("all else is well. To approve exactly this commit: git fetch origin %s%s && git push %sorigin %s:%s; then push it again",
			scratchPrefix, r.id(), target, r.proposal, ref))...)
	}
	r.moves = append(r.moves, refs.Update{Name: ref, Old: have.at, New: have.at})
	return nil
}

// counted returns those whose approvals count for a rule: they approved this commit for
// this target, did not propose it, and may approve each of the paths, now.
func counted(pol *policy.Policy, have *approvals, target, proposer string, n policy.Need, people *policy.People) []string {
	by := []string{}
	for _, s := range have.given {
		u, known := people.User(s.Who)
		if people == nil {
			u, known = policy.User{Name: s.Who}, true
		}
		if !known || s.Target != target || s.Who == proposer || have.proposers[s.Who] {
			continue
		}
		all := !slices.ContainsFunc(n.Changed, func(path string) bool { return !pol.MayApprove(u, path, people).Allowed })
		if all && !slices.Contains(by, s.Who) {
			by = append(by, s.Who)
		}
	}
	slices.Sort(by)
	return by
}

func (r *run) noteProposer(ctx context.Context) error {
	file := proposersDir + "/" + url.QueryEscape(r.who.Name) + ".json"
	subject := fmt.Sprintf("Propose %s to %s", r.proposal, r.target)
	err := r.gate.state(ctx, r.lake, r.who, r.approvals(), subject, func(have *approvals) (map[string]tree.Edit, *statement, string, error) {
		if have.proposers[r.who.Name] {
			return nil, nil, "", nil
		}
		return nil, &statement{Proposal: r.proposal.String(), Target: string(r.target)}, file, nil
	})
	if err != nil {
		return fmt.Errorf("note the proposer: %w", err)
	}
	return nil
}

// shortList joins names, and leaves out what is too much.
func shortList(names []string) string {
	const most = 5
	if n := len(names) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n)
	}
	return strings.Join(names, ", ")
}
