package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/headgate/headgate/exec/plan"
)

func (d *document) parameters(n ast.Node, p *Policy) {
	p.Parameters = make(map[string]Parameter)
	lower := make(map[string]string)
	d.each(n, "parameters", func(name string, key, value ast.Node) {
		where := "parameters." + name
		if !plan.ValidParamName(name) {
			d.problem(key, "parameters: %q is not a name for a parameter (letters, digits, '_', '-' and '.', a letter first)", name)
			return
		}
		if other, ok := lower[strings.ToLower(name)]; ok {
			d.problem(key, "parameters %q and %q are one variable to SQL", other, name)
			return
		}
		lower[strings.ToLower(name)] = name
		param := Parameter{Parameter: plan.Parameter{Line: line(key)}}
		var standard ast.Node
		typed := false
		d.object(value, where, fields{
			"type": func(n ast.Node) {
				typed = true
				param.Type = d.parameterType(n, where+".type")
			},
			"default":     func(n ast.Node) { standard = n },
			"description": func(n ast.Node) { param.Description, _ = d.text(n, where+".description") },
		})
		switch {
		case !typed && isMapping(value):
			d.problem(key, "%s needs a type: %s", where, strings.Join(plan.ParamTypes, ", "))
		case param.Type != "" && standard != nil:
			param.Default = d.parameterDefault(standard, where+".default", param.Type)
		}
		p.Parameters[name] = param
	})
}

var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

func (d *document) secrets(n ast.Node, p *Policy) {
	p.Secrets = make(map[string]Secret)
	d.each(n, "secrets", func(name string, key, value ast.Node) {
		where := "secrets." + name
		if !secretName.MatchString(name) {
			d.problem(key, "secrets: %q is not a name for a secret (letters, digits and '_', a letter first)", name)
			return
		}
		s := Secret{Line: line(key)}
		before := len(d.problems)
		d.object(value, where, fields{"models": func(n ast.Node) {
			d.texts(n, where+".models", func(pattern string, n ast.Node) {
				if reason := badTablePattern(pattern); reason != "" {
					d.problem(n, "%s.models: %q %s", where, pattern, reason)
				}
				s.Models = append(s.Models, pattern)
			})
		}})
		if s.Models == nil && len(d.problems) == before {
			d.problem(key, "%s needs models: the names of those that get it", where)
		}
		p.Secrets[name] = s
	})
}

func (d *document) parameterType(n ast.Node, where string) string {
	name, ok := d.text(n, where)
	if ok && !slices.Contains(plan.ParamTypes, name) {
		d.problem(n, "%s is %q%s", where, name, meantOr(name, plan.ParamTypes))
		return ""
	}
	return name
}

// parameterDefault reads a default as a push option of the same text would be
// read, once YAML's own idea of its type agrees: "5" is no int.
func (d *document) parameterDefault(n ast.Node, where, typ string) any {
	var text string
	ok := true
	switch n := n.(type) {
	case *ast.NullNode:
		return nil
	case *ast.IntegerNode:
		text, ok = fmt.Sprint(n.Value), typ == plan.ParamInt || typ == plan.ParamFloat
	case *ast.FloatNode:
		text, ok = strconv.FormatFloat(n.Value, 'g', -1, 64), typ == plan.ParamFloat
	case *ast.BoolNode:
		text, ok = strconv.FormatBool(n.Value), typ == plan.ParamBool
	case *ast.StringNode, *ast.LiteralNode:
		text, _ = d.text(n, where)
		// An integer beyond 64 bits is a text to the parser; ParseParam says it better.
		ok = typ != plan.ParamBool && (typ == plan.ParamStr || typ == plan.ParamDate || typ == plan.ParamTimestamp || unquoted(n))
	default:
		ok = false
	}
	if !ok {
		hint := ""
		if typ == plan.ParamStr {
			hint = "; write it in quotes"
		}
		d.problem(n, "%s must be of the type %s, not %s%s", where, typ, typeName(n), hint)
		return nil
	}
	v, err := plan.ParseParam(typ, text)
	if err != nil {
		d.problem(n, "%s: %v", where, err)
	}
	return v
}

// unquoted reports whether a text stands in the file without quotes.
func unquoted(n ast.Node) bool {
	s, ok := n.(*ast.StringNode)
	return ok && s.Token != nil && !strings.HasPrefix(strings.TrimSpace(s.Token.Origin), `"`) && !strings.HasPrefix(strings.TrimSpace(s.Token.Origin), "'")
}
