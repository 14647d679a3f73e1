package policy

import (
	"fmt"
	"slices"
	"strings"
)

// CheckGrants says what is wrong with grants and approvals when they are changed:
// names that nobody has, rules that contradict the gates, rules that would lock
// everybody out. Patterns that match nothing yet are only warnings; refs are the
// short names of branches, and the full ones of other refs, and paths those of
// the state, that patterns are held against. people is as the server has them.
func (p *Policy) CheckGrants(people *People, refs, paths []string) (problems []Problem, warnings []string) {
	problem := func(line int, format string, args ...any) {
		problems = append(problems, Problem{File: p.File, Line: line, Message: fmt.Sprintf(format, args...)})
	}
	warn := func(line int, format string, args ...any) {
		warnings = append(warnings, Problem{File: p.File, Line: line, Message: fmt.Sprintf(format, args...)}.String())
	}
	for i := range p.Grants {
		g := &p.Grants[i]
		for _, name := range g.Who {
			if text := people.problem(name); text != "" {
				problem(g.Line, "grants: %s", text)
			}
		}
		for _, a := range Actions {
			for _, pattern := range g.patterns(a) {
				if text := p.contradiction(a, pattern); text != "" {
					problem(g.Line, "grants.%s: %s", a, text)
				} else if !slices.ContainsFunc(refs, func(ref string) bool { return matchRef(pattern, ref) }) && !strings.Contains(pattern, "*") {
					warn(g.Line, "grants.%s: there is no %s yet", a, pattern)
				}
			}
		}
		for _, list := range []struct {
			what     string
			patterns []string
		}{{"edit", g.Edit}, {"approve", g.Approve}} {
			for _, pattern := range list.patterns {
				if !slices.ContainsFunc(paths, func(path string) bool { return MatchPath(pattern, path) }) {
					warn(g.Line, "grants.%s: %s matches nothing here", list.what, pattern)
				}
			}
		}
		for _, pattern := range g.ReadTables {
			if pattern != "*" {
				problem(g.Line, "grants.read_tables: %q: this version of Headgate does not keep tables from those who may read others, so a policy must not rely on it; "+
					"write read_tables: [\"*\"], and put the table into a lake of its own", pattern)
			}
		}
	}
	p.checkApprovals(people, problem)
	p.checkLockOut(people, problem, warn)
	return problems, warnings
}

// contradiction says why a pattern without a wildcard can never be what it says,
// given the gates of the same file.
func (p *Policy) contradiction(a Action, pattern string) string {
	if strings.Contains(pattern, "*") || strings.HasPrefix(pattern, "refs/") {
		return ""
	}
	gated := p.GateOf(pattern) == Required
	switch {
	case gated && (a == Push || a == Force):
		return fmt.Sprintf("%s is gated, so nobody can %s it; write propose: [%s]", pattern, a, pattern)
	case gated && a == Delete:
		return fmt.Sprintf("%s is gated, and a gated branch cannot be deleted", pattern)
	case !gated && a == Propose:
		return fmt.Sprintf("%s has no gate to propose to; write push: [%s], or gate it in branches", pattern, pattern)
	}
	return ""
}

// checkLockOut refuses what nobody could ever change again.
func (p *Policy) checkLockOut(people *People, problem, warn func(int, string, ...any)) {
	if p.Grants == nil || people == nil {
		return
	}
	line := 1
	if len(p.Grants) > 0 {
		line = p.Grants[0].Line
	}
	var keepers, proposers []User
	for _, u := range people.Users() {
		if !p.May(u, Propose, MainBranch, people).Allowed {
			continue
		}
		if !u.Admin {
			proposers = append(proposers, u)
		}
		if p.MayEdit(u, p.File, people).Allowed {
			keepers = append(keepers, u)
		}
	}
	switch {
	case len(keepers) == 0:
		problem(line, "grants: with these nobody could change %s again: no user may both propose to %s and edit it, and there is no administrator", p.File, MainBranch)
	case len(proposers) == 0:
		warn(line, "grants: only administrators may propose to %s", MainBranch)
	}
}
