package policy

import (
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/spelling"
	"github.com/headgate/headgate/exec/strictyaml"
)

func (d *document) parameters(n ast.Node, p *Policy) {
	p.Parameters = make(map[string]Parameter)
	lower := make(map[string]string)
	d.Each(n, "parameters", func(name string, key, value ast.Node) {
		where := "parameters." + name
		if !plan.ValidParamName(name) {
			d.Problem(key, "parameters: %q is not a name for a parameter (letters, digits, '_', '-' and '.', a letter first)", name)
			return
		}
		if other, ok := lower[strings.ToLower(name)]; ok {
			d.Problem(key, "parameters %q and %q are one variable to SQL", other, name)
			return
		}
		lower[strings.ToLower(name)] = name
		param := Parameter{Parameter: plan.Parameter{Line: strictyaml.Line(key)}}
		var standard ast.Node
		typed := false
		d.Object(value, where, strictyaml.Fields{
			"type": func(n ast.Node) {
				typed = true
				param.Type = d.parameterType(n, where+".type")
			},
			"default":     func(n ast.Node) { standard = n },
			"description": func(n ast.Node) { param.Description, _ = d.Text(n, where+".description") },
		})
		switch {
		case !typed && strictyaml.IsMapping(value):
			d.Problem(key, "%s needs a type: %s", where, strings.Join(plan.ParamTypes, ", "))
		case param.Type != "" && standard != nil:
			param.Default = plan.ReadDefault(&d.Document, standard, where+".default", param.Type)
		}
		p.Parameters[name] = param
	})
}

var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

func (d *document) secrets(n ast.Node, p *Policy) {
	p.Secrets = make(map[string]Secret)
	d.Each(n, "secrets", func(name string, key, value ast.Node) {
		where := "secrets." + name
		if !secretName.MatchString(name) {
			d.Problem(key, "secrets: %q is not a name for a secret (letters, digits and '_', a letter first)", name)
			return
		}
		s := Secret{Line: strictyaml.Line(key)}
		before := len(d.Problems)
		d.Object(value, where, strictyaml.Fields{"models": func(n ast.Node) {
			d.Texts(n, where+".models", func(pattern string, n ast.Node) {
				if reason := badTablePattern(pattern); reason != "" {
					d.Problem(n, "%s.models: %q %s", where, pattern, reason)
				}
				s.Models = append(s.Models, pattern)
			})
		}})
		if s.Models == nil && len(d.Problems) == before {
			d.Problem(key, "%s needs models: the names of those that get it", where)
		}
		p.Secrets[name] = s
	})
}

func (d *document) parameterType(n ast.Node, where string) string {
	name, ok := d.Text(n, where)
	if ok && !slices.Contains(plan.ParamTypes, name) {
		d.Problem(n, "%s is %q%s", where, name, spelling.MeantOr(name, plan.ParamTypes))
		return ""
	}
	return name
}
