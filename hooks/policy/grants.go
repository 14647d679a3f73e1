package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Action is something that a grant allows on branches.
type Action string

// The actions. Pushing to an ungated branch holds creating it; forcing holds
// pushing. On a gated branch there is only proposing and, if it is new, creating.
const (
	Push    Action = "push"    // move it forward, or create it
	Propose Action = "propose" // have the gate judge a commit for it
	Create  Action = "create"  // bring it into being
	Force   Action = "force"   // move it to where its tip is not contained
	Delete  Action = "delete"
)

// Actions are all actions, in the order in which they are explained.
var Actions = []Action{Push, Propose, Create, Force, Delete}

// implied are the grants that allow an action.
var implied = map[Action][]Action{
	Push: {Push, Force}, Propose: {Propose}, Create: {Create, Push, Force}, Force: {Force}, Delete: {Delete},
}

// User is who wants something, as the server's configuration has them.
type User struct {
	Name   string
	Groups []string
	Admin  bool // grants do not bind an administrator
}

// Decision is the answer to a question of who may do what.
type Decision struct {
	Allowed bool
	Why     string // the rule that allows it, or what would: "headgate.yaml:12 lets agents push agent/*"
}

// patterns are those of a grant for an action.
func (g *Grant) patterns(a Action) []string {
	switch a {
	case Push:
		return g.Push
	case Propose:
		return g.Propose
	case Create:
		return g.Create
	case Force:
		return g.Force
	case Delete:
		return g.Delete
	}
	return nil
}

// May says whether a user may do something to a branch, by its short name
// ("agent/x"), or to another ref, by its full one ("refs/tags/v1"). people may be
// nil: then no name is ambiguous.
func (p *Policy) May(u User, a Action, branch string, people *People) Decision {
	return p.decide(u, people, fmt.Sprintf("%s %s", a, branch), func(g *Grant) (string, bool) {
		for _, by := range implied[a] {
			for _, pattern := range g.patterns(by) {
				if matchRef(pattern, branch) {
					return fmt.Sprintf("%s %s", by, pattern), true
				}
			}
		}
		return "", false
	})
}

// matchRef is Match, but for refs that are no branches: only a pattern that
// starts with refs/ reaches them.
func matchRef(pattern, name string) bool {
	return strings.HasPrefix(pattern, "refs/") == strings.HasPrefix(name, "refs/") && Match(pattern, name)
}

// MayEdit says whether a user may change a path of a gated branch.
func (p *Policy) MayEdit(u User, path string, people *People) Decision {
	return p.decide(u, people, "edit "+path, func(g *Grant) (string, bool) { return matching("edit", g.Edit, path) })
}

// MayApprove says whether a user's approval counts for a change of path. An
// administrator needs the grant too: an approval is a second person's word, not a power.
func (p *Policy) MayApprove(u User, path string, people *People) Decision {
	u.Admin = false
	if p.Grants == nil {
		return Decision{false, fmt.Sprintf("%s has no grants, so nobody may approve", p.File)}
	}
	return p.decide(u, people, "approve "+path, func(g *Grant) (string, bool) { return matching("approve", g.Approve, path) })
}

func matching(what string, patterns []string, path string) (string, bool) {
	for _, pattern := range patterns {
		if MatchPath(pattern, path) {
			return what + " " + pattern, true
		}
	}
	return "", false
}

func (p *Policy) decide(u User, people *People, what string, by func(*Grant) (string, bool)) Decision {
	switch {
	case u.Admin:
		return Decision{true, "administrators are above grants"}
	case p.Grants == nil:
		return Decision{true, p.File + " has no grants, so everybody with a key may"}
	}
	others := []string{}
	for i := range p.Grants {
		g := &p.Grants[i]
		rule, ok := by(g)
		if !ok {
			continue
		}
		if who, ok := g.names(u, people); ok {
			return Decision{true, fmt.Sprintf("%s:%d lets %s %s", p.File, g.Line, who, rule)}
		}
		others = append(others, fmt.Sprintf("line %d lets %s", g.Line, strings.Join(g.Who, ", ")))
	}
	why := fmt.Sprintf("no grant of %s lets anybody %s", p.File, what)
	if len(others) > 0 {
		why = fmt.Sprintf("no grant of %s lets %s %s (%s)", p.File, u.Name, what, strings.Join(others, "; "))
	}
	return Decision{false, why}
}

// names says under which name a grant holds for a user.
func (g *Grant) names(u User, people *People) (string, bool) {
	for _, name := range g.Who {
		switch {
		case name == "*":
			return "everybody", true
		case people.ambiguous(name):
			// Whoever may name a user must not get a group's rights by it, nor the other way round.
		case name == u.Name, slices.Contains(u.Groups, name):
			return name, true
		}
	}
	return "", false
}

// MatchPath reports whether a path of a commit matches a pattern, part by part:
// "*" stands for any characters of one part, "**" for any parts, also none. Nothing
// is folded: "Verifiers/x" does not match "verifiers/**".
func MatchPath(pattern, path string) bool {
	return matchParts(strings.Split(pattern, "/"), strings.Split(path, "/"))
}

func matchParts(pattern, path []string) bool {
	// As in Match: the first place for what is between two "**" leaves the most for the rest.
	at := slices.Index(pattern, "**")
	if at < 0 {
		return len(pattern) == len(path) && prefixOf(pattern, path)
	}
	if len(path) < at || !prefixOf(pattern[:at], path) {
		return false
	}
	pattern, path = pattern[at+1:], path[at:]
	for {
		next := slices.Index(pattern, "**")
		if next < 0 {
			return len(path) >= len(pattern) && prefixOf(pattern, path[len(path)-len(pattern):])
		}
		for !prefixOf(pattern[:next], path) {
			if len(path) == 0 {
				return false
			}
			path = path[1:]
		}
		pattern, path = pattern[next+1:], path[next:]
	}
}

// prefixOf reports whether the first parts of path match those of a pattern without "**".
func prefixOf(pattern, path []string) bool {
	if len(path) < len(pattern) {
		return false
	}
	for i, part := range pattern {
		if !Match(part, path[i]) {
			return false
		}
	}
	return true
}

// Changes returns the sections in which two policies differ, as the file names them.
func Changes(a, b *Policy) []string {
	x, y := a.unnumbered(), b.unnumbered()
	var names []string
	for _, section := range []struct {
		name string
		same bool
	}{
		{"branches", reflect.DeepEqual(x.Branches, y.Branches)}, {"sandbox", x.Sandbox == y.Sandbox}, {"python", reflect.DeepEqual(x.Python, y.Python)},
		{"tables", reflect.DeepEqual(x.Tables, y.Tables)}, {"parameters", reflect.DeepEqual(x.Parameters, y.Parameters)},
		{"secrets", reflect.DeepEqual(x.Secrets, y.Secrets)}, {"grants", reflect.DeepEqual(x.Grants, y.Grants)},
		{"approvals", reflect.DeepEqual(x.Approvals, y.Approvals)},
		{"min_verifier_score", x.MinVerifierScore == y.MinVerifierScore},
	} {
		if !section.same {
			names = append(names, section.name)
		}
	}
	return names
}

// unnumbered returns a copy without the lines on which rules are, and without
// the difference of an empty list and an absent one where there is none.
func (p *Policy) unnumbered() *Policy {
	q := *p
	q.Branches = nil
	for _, b := range p.Branches {
		b.Line = 0
		q.Branches = append(q.Branches, b)
	}
	q.Grants = slices.Clone(p.Grants)
	for i := range q.Grants {
		q.Grants[i].Line = 0
	}
	q.Approvals = nil
	for _, a := range p.Approvals {
		a.Line = 0
		q.Approvals = append(q.Approvals, a)
	}
	q.Secrets = make(map[string]Secret)
	for name, s := range p.Secrets {
		s.Line = 0
		q.Secrets[name] = s
	}
	q.Parameters = make(map[string]Parameter)
	for name, v := range p.Parameters {
		v.Line = 0
		q.Parameters[name] = v
	}
	q.Tables = make(map[string]Table)
	for name, t := range p.Tables {
		t.Line, t.KeyLine = 0, 0
		columns := make(map[string]Column)
		for column, c := range t.Columns {
			c.Line, c.Tests = 0, slices.Clone(c.Tests)
			for i := range c.Tests {
				c.Tests[i].Line = 0
			}
			columns[column] = c
		}
		t.Columns = columns
		t.Rules = slices.Clone(t.Rules)
		for i := range t.Rules {
			t.Rules[i].Line = 0
		}
		q.Tables[name] = t
	}
	return &q
}
