package plan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/headgate/headgate/exec/strictyaml"
)

// ReadDefault reads the default of a parameter of type typ from a file of settings,
// as a push option of the same text would be read, once YAML's own idea of its
// type agrees: "5" is no int. What is wrong is noted in d, and then it is nil.
func ReadDefault(d *strictyaml.Document, n ast.Node, where, typ string) any {
	var text string
	ok := true
	switch n := n.(type) {
	case *ast.NullNode:
		return nil
	case *ast.IntegerNode:
		text, ok = fmt.Sprint(n.Value), typ == ParamInt || typ == ParamFloat
	case *ast.FloatNode:
		text, ok = strconv.FormatFloat(n.Value, 'g', -1, 64), typ == ParamFloat
	case *ast.BoolNode:
		text, ok = strconv.FormatBool(n.Value), typ == ParamBool
	case *ast.StringNode, *ast.LiteralNode:
		text, _ = d.Text(n, where)
		// An integer beyond 64 bits is a text to the parser; ParseParam says it better.
		ok = typ != ParamBool && (typ == ParamStr || typ == ParamDate || typ == ParamTimestamp || unquoted(n))
	default:
		ok = false
	}
	if !ok {
		hint := ""
		if typ == ParamStr {
			hint = "; write it in quotes"
		}
		d.Problem(n, "%s must be of the type %s, not %s%s", where, typ, strictyaml.TypeName(n), hint)
		return nil
	}
	v, err := ParseParam(typ, text)
	if err != nil {
		d.Problem(n, "%s: %v", where, err)
		return nil
	}
	return v
}

// unquoted reports whether a text stands in the file without quotes.
func unquoted(n ast.Node) bool {
	s, ok := n.(*ast.StringNode)
	if !ok || s.Token == nil {
		return false
	}
	origin := strings.TrimSpace(s.Token.Origin)
	return !strings.HasPrefix(origin, `"`) && !strings.HasPrefix(origin, "'")
}
