package policy

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/headgate/headgate/exec/strictyaml"
)

func (d *document) grants(n ast.Node, p *Policy) {
	p.Grants = []Grant{}
	d.Items(n, "grants", func(n ast.Node) {
		g := Grant{Line: strictyaml.Line(n)}
		list := func(to *[]string, name string, bad func(string) string) func(ast.Node) {
			return d.patterns(to, "grants."+name, bad)
		}
		d.Object(n, "grants", strictyaml.Fields{
			"who":         list(&g.Who, "who", badWho),
			"push":        list(&g.Push, "push", badRefPattern),
			"propose":     list(&g.Propose, "propose", badPattern),
			"create":      list(&g.Create, "create", badRefPattern),
			"force":       list(&g.Force, "force", badRefPattern),
			"delete":      list(&g.Delete, "delete", badRefPattern),
			"read_tables": list(&g.ReadTables, "read_tables", badTablePattern),
			"edit":        list(&g.Edit, "edit", badPathPattern),
			"approve":     list(&g.Approve, "approve", badPathPattern),
		})
		if len(g.Who) == 0 && strictyaml.IsMapping(n) {
			d.Problem(n, "a grant needs who: the users or groups it is for")
		}
		p.Grants = append(p.Grants, g)
	})
}

// patterns reads a list of names or patterns, none of them twice.
func (d *document) patterns(to *[]string, where string, bad func(string) string) func(ast.Node) {
	return func(n ast.Node) {
		*to = []string{}
		d.Texts(n, where, func(s string, n ast.Node) {
			if reason := bad(s); reason != "" {
				d.Problem(n, "%s: %q %s", where, s, reason)
			}
			if slices.Contains(*to, s) {
				d.Problem(n, "%s names %q twice", where, s)
			}
			*to = append(*to, s)
		})
	}
}

// badRefPattern says what is wrong with a pattern of branches, tags or notes, or "".
func badRefPattern(s string) string {
	for _, space := range []string{"refs/tags/", "refs/notes/"} {
		if rest, ok := strings.CutPrefix(s, space); ok {
			return badPattern(rest)
		}
	}
	if strings.HasPrefix(s, "refs/") {
		return "must be a branch's short name, or start with refs/tags/ or refs/notes/"
	}
	return badPattern(s)
}
