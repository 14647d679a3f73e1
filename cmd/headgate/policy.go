package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects"
)

type policyCmd struct {
	Test policyTestCmd `cmd:"" help:"Explain who may do what to a branch, and why, before anything is pushed."`
}

type policyTestCmd struct {
	Range  string   `arg:"" optional:"" help:"The target's tip and what is to be proposed, as <rev>..<rev>. Without it, only the branch is asked about."`
	Who    []string `help:"A user; may be given several times. By default each name that the policy's grants have." placeholder:"NAME" sep:"none"`
	Group  []string `help:"A group that these users are in; may be given several times." placeholder:"NAME" sep:"none"`
	Branch string   `help:"The branch that is proposed to." default:"main" placeholder:"NAME"`
	JSON   bool     `help:"Print one JSON object." name:"json"`
	Lake   string   `help:"A clone of the lake." default:"." type:"existingdir" placeholder:"DIR"`
}

// Help is shown below the command's flags.
func (policyTestCmd) Help() string {
	return `Examples:
  headgate policy test --who ada --group leads origin/main..HEAD
  headgate policy test --branch release/1
  headgate policy test --json origin/main..HEAD | jq '.users[].edits[] | select(.allowed | not)'
  ssh -p 2222 host policy test flights agent/x     the same on the server, which knows its users and groups

What governs is the headgate.yaml of the range's first commit, or of
origin/<branch>. Nothing is planned and nothing runs here: that a change touches a
verifier by a file which the verifier imports, the gate finds out (git push -o dry-run).

Exit codes: 0 all that was asked about is allowed; 1 something is not; 2 wrong usage.`
}

// Run prints the answer.
func (c *policyTestCmd) Run(ctx context.Context, std streams) (err error) {
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	q := hooks.PolicyQuestion{Branch: c.Branch}
	base, proposal, ranged := strings.Cut(c.Range, "..")
	if c.Range != "" && (!ranged || base == "" || proposal == "" || strings.HasPrefix(proposal, ".")) {
		return usagef("%q is no range; write the target's tip and the proposal: origin/%s..HEAD", c.Range, c.Branch)
	}
	if !ranged {
		base = "refs/remotes/origin/" + c.Branch
		if _, err := lake.commitOf(ctx, base); err != nil {
			base = "HEAD"
		}
	}
	if q.Policy, err = c.resolve(ctx, lake, base); err != nil {
		return err
	}
	q.Base = q.Policy
	if ranged {
		if q.Proposal, err = c.resolve(ctx, lake, proposal); err != nil {
			return err
		}
	}
	scratch, err := newScratch(ctx, lake, q.Policy)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.close()) }()
	if q.Who, err = c.users(ctx, scratch, q.Policy); err != nil {
		return err
	}
	report, err := hooks.TestPolicy(ctx, scratch.store, q)
	if err != nil {
		return err
	}
	report.Notes = append(report.Notes, "who is in which group, and who is an administrator, the server knows: ssh host policy test <lake>")
	if c.JSON {
		err = printJSON(std.out, report)
	} else {
		_, err = io.WriteString(std.out, report.Text())
	}
	if err == nil && report.Denied() {
		err = errors.New("not everything that was asked about is allowed")
	}
	return err
}

func (c *policyTestCmd) resolve(ctx context.Context, lake *checkout, rev string) (objects.OID, error) {
	text, err := lake.commitOf(ctx, rev)
	if err != nil {
		return objects.OID{}, usagef("%v", err)
	}
	return objects.ParseOID(text)
}

// users returns whom the question is about. A name in a grant may be a user's or a
// group's, so somebody of that name is taken to be both.
func (c *policyTestCmd) users(ctx context.Context, s *scratch, commit objects.OID) ([]policy.User, error) {
	var users []policy.User
	if len(c.Who) > 0 {
		for _, name := range c.Who {
			users = append(users, policy.User{Name: name, Groups: c.Group})
		}
		return users, nil
	}
	if len(c.Group) > 0 {
		return []policy.User{{Name: "(anybody)", Groups: c.Group}}, nil
	}
	pol, err := hooks.PolicyAt(ctx, s.store, commit)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, g := range pol.Grants {
		for _, name := range g.Who {
			if name != "*" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		users = append(users, policy.User{Name: name, Groups: []string{name}})
	}
	return append(users, policy.User{Name: fmt.Sprintf("(anybody %s)", map[bool]string{true: "else", false: "at all"}[len(names) > 0])}), nil
}
