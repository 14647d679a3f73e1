package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/headgate/headgate/exec/strictyaml"
)

// Approval says that changes of paths take other people's approval.
type Approval struct {
	Line     int
	Paths    []string // patterns, see MatchPath
	Branches []string // patterns of gated branches; nil is all of them
	Count    int      // of approvals, each by somebody else, and none by a proposer
}

// maxApprovals bounds how many approvals a rule may ask for.
const maxApprovals = 100

// Need is a rule that a proposal's changes fall under.
type Need struct {
	Approval
	Changed []string // the paths
}

// Needs returns the rules for which a change of paths on a branch takes approvals.
func (p *Policy) Needs(branch string, paths []string) []Need {
	var needs []Need
	for _, a := range p.Approvals {
		if a.Branches != nil && !slices.ContainsFunc(a.Branches, func(pattern string) bool { return Match(pattern, branch) }) {
			continue
		}
		n := Need{Approval: a}
		for _, path := range paths {
			if _, ok := matching("", a.Paths, path); ok && !slices.Contains(n.Changed, path) {
				n.Changed = append(n.Changed, path)
			}
		}
		if len(n.Changed) > 0 {
			needs = append(needs, n)
		}
	}
	return needs
}

// MayApproveAny says whether there is a path whose change a user may approve.
func (p *Policy) MayApproveAny(u User, people *People) Decision {
	if p.Grants == nil {
		return Decision{false, fmt.Sprintf("%s has no grants, so nobody may approve", p.File)}
	}
	u.Admin = false
	return p.decide(u, people, "approve", func(g *Grant) (string, bool) { return "approve " + strings.Join(g.Approve, ", "), len(g.Approve) > 0 })
}

// Approvers returns those whose approval of a change of path would count.
func (p *Policy) Approvers(path string, people *People) []string {
	var names []string
	for _, u := range people.Users() {
		if p.MayApprove(u, path, people).Allowed {
			names = append(names, u.Name)
		}
	}
	return names
}

func (d *document) approvals(n ast.Node, p *Policy) {
	p.Approvals = []Approval{}
	d.Items(n, "approvals", func(n ast.Node) {
		a := Approval{Line: strictyaml.Line(n), Count: 1}
		d.Object(n, "approvals", strictyaml.Fields{
			"paths":    d.patterns(&a.Paths, "approvals.paths", badPathPattern),
			"branches": d.patterns(&a.Branches, "approvals.branches", badPattern),
			"count": func(n ast.Node) {
				i, ok := n.(*ast.IntegerNode)
				if !ok {
					d.WrongType(n, "approvals.count", "a number")
					return
				}
				v, ok := i.Value.(uint64)
				if !ok || v < 1 || v > maxApprovals {
					d.Problem(n, "approvals.count must be between 1 and %d", maxApprovals)
					return
				}
				a.Count = int(v)
			},
		})
		if len(a.Paths) == 0 && strictyaml.IsMapping(n) {
			d.Problem(n, "an approval needs paths: those whose changes take it")
		}
		p.Approvals = append(p.Approvals, a)
	})
}

// checkApprovals refuses rules that no change could ever meet: nobody could make it
// and have it approved, as nobody approves their own.
func (p *Policy) checkApprovals(people *People, problem func(int, string, ...any)) {
	for _, a := range p.Approvals {
		if p.Grants == nil {
			problem(a.Line, "approvals: there are no grants, so nobody could approve; give somebody a grant with approve")
			continue
		}
		if people == nil {
			continue
		}
		for _, pattern := range a.Paths {
			path := strings.ReplaceAll(strings.ReplaceAll(pattern, "**", "*"), "*", "x") // some path that it matches
			approvers := p.Approvers(path, people)
			possible := false
			for _, u := range people.Users() {
				others := len(approvers)
				if slices.Contains(approvers, u.Name) {
					others--
				}
				possible = possible || others >= a.Count && p.MayEdit(u, path, people).Allowed
			}
			if !possible {
				who := "nobody"
				if len(approvers) > 0 {
					who = "only " + strings.Join(approvers, ", ")
				}
				problem(a.Line, "approvals: a change of %s would take %d approval(s) by others than who proposes it, and %s may approve it; nobody could change it again", pattern, a.Count, who)
			}
		}
	}
}
