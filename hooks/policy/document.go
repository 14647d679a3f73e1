package policy

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of the file itself. The YAML parser recurses and its tokens are large,
// so what reaches it is bounded first.
const (
	MaxBytes    = 1 << 20 // size of a policy file
	maxTokens   = 100_000
	maxDepth    = 32
	maxSiblings = 2_000 // keys of one mapping: the parser recurses for each, in quadratic time
	maxProblems = 50
)

// document reads one YAML file strictly and collects what is wrong with it.
type document struct {
	file     string
	problems []Problem
}

// fields are the keys that a mapping may have.
type fields map[string]func(value ast.Node)

func (d *document) problem(at ast.Node, format string, args ...any) {
	d.problemAt(line(at), format, args...)
}

func (d *document) problemAt(line int, format string, args ...any) {
	if len(d.problems) < maxProblems {
		d.problems = append(d.problems, Problem{File: d.file, Line: line, Message: fmt.Sprintf(format, args...)})
	}
}

// load returns the document's root, or nil if it is empty or has a problem.
func (d *document) load(data []byte) (root ast.Node) {
	switch {
	case len(data) > MaxBytes:
		d.problemAt(0, "has %d bytes, the limit is %d", len(data), MaxBytes)
		return nil
	case !utf8.Valid(data):
		d.problemAt(0, "is not UTF-8 text")
		return nil
	}
	// The parser is not ours, and what it reads is anybody's: a bug in it must
	// refuse the file, not end the server.
	defer func() {
		if r := recover(); r != nil {
			d.problemAt(0, "is not YAML that can be read")
			root = nil
		}
	}()
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	// A token takes hundreds of bytes, so count what makes tokens before any is made.
	marks := 0
	for _, c := range data {
		if strings.IndexByte("[]{},:-?%!|&*\n", c) >= 0 {
			marks++
		}
	}
	if marks > maxTokens {
		d.problemAt(0, "has more than %d YAML tokens", maxTokens)
		return nil
	}
	tokens := lexer.Tokenize(string(data))
	if !d.bounded(tokens) {
		return nil
	}
	parsed, err := parser.Parse(tokens, 0)
	if err != nil {
		d.syntax(err)
		return nil
	}
	var bodies []ast.Node
	for _, doc := range parsed.Docs {
		if doc != nil && doc.Body != nil {
			bodies = append(bodies, doc.Body)
		}
	}
	switch {
	case len(bodies) == 0:
		return nil
	case len(bodies) > 1:
		d.problem(bodies[1], "a second YAML document; a policy is one")
		return nil
	}
	if _, ok := bodies[0].(*ast.NullNode); ok {
		return nil
	}
	return bodies[0]
}

func (d *document) syntax(err error) {
	var located interface {
		error
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &located) {
		d.problemAt(0, "is not YAML: %s", firstLine(err.Error()))
		return
	}
	at := 0
	if t := located.GetToken(); t != nil && t.Position != nil {
		at = t.Position.Line
	}
	d.problemAt(at, "is not YAML: %s", firstLine(located.GetMessage()))
}

// bounded refuses, before anything recurses, what is deep, large, or not needed
// in a policy: an alias is a way to make a small file large.
func (d *document) bounded(tokens token.Tokens) bool {
	if len(tokens) > maxTokens {
		d.problemAt(0, "has more than %d YAML tokens", maxTokens)
		return false
	}
	flow := 0
	type level struct{ column, entries int }
	var block []level // the block collections that are open
	for _, t := range tokens {
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			d.problemAt(t.Position.Line, "anchors, aliases and merge keys are not allowed; write the value out")
			return false
		case token.TagType, token.DirectiveType:
			d.problemAt(t.Position.Line, "YAML tags and directives are not allowed")
			return false
		case token.InvalidType:
			d.problemAt(t.Position.Line, "is not YAML: %s", firstLine(t.Error))
			return false
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow = max(0, flow-1)
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType:
			if flow > 0 {
				break
			}
			// A collection is nested in those that begin left of it. A value's
			// colon stands right of its key, which only counts too much.
			at := t.Position.Column
			if t.Type == token.MappingValueType && t.Prev != nil {
				at = t.Prev.Position.Column
			}
			for len(block) > 0 && block[len(block)-1].column > at {
				block = block[:len(block)-1]
			}
			if len(block) == 0 || block[len(block)-1].column < at {
				block = append(block, level{column: at})
			}
			top := &block[len(block)-1]
			if t.Type != token.SequenceEntryType {
				top.entries++
			}
			if top.entries > maxSiblings {
				d.problemAt(t.Position.Line, "has a mapping of more than %d keys", maxSiblings)
				return false
			}
		}
		if flow+len(block) > maxDepth {
			d.problemAt(t.Position.Line, "is nested deeper than %d levels", maxDepth)
			return false
		}
	}
	return true
}

// each calls do for every pair of a mapping, in the file's order.
func (d *document) each(n ast.Node, where string, do func(name string, key, value ast.Node)) {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		d.wrongType(n, where, "a mapping (key: value)")
		return
	}
	seen := make(map[string]bool, len(pairs))
	for _, pair := range pairs {
		name, ok := keyText(pair.Key)
		switch {
		case !ok:
			d.problem(pair.Key, "%skeys must be plain texts", prefix(where))
		case seen[name]:
			d.problem(pair.Key, "%skey %q is given twice", prefix(where), name)
		default:
			seen[name] = true
			do(name, pair.Key, pair.Value)
		}
	}
}

// object reads a mapping whose keys are known.
func (d *document) object(n ast.Node, where string, known fields) {
	d.each(n, where, func(name string, key, value ast.Node) {
		read, ok := known[name]
		if !ok {
			names := slices.Sorted(maps.Keys(known))
			in := ""
			if where != "" {
				in = " in " + where
			}
			d.problem(key, "unknown key %q%s%s", name, in, meantOr(name, names))
			return
		}
		read(value)
	})
}

// items calls do for every item of a list.
func (d *document) items(n ast.Node, where string, do func(n ast.Node)) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrongType(n, where, "a list")
		return
	}
	for _, item := range list.Values {
		do(item)
	}
}

// texts calls do for every text of a list of texts.
func (d *document) texts(n ast.Node, where string, do func(s string, n ast.Node)) {
	d.items(n, where, func(n ast.Node) {
		s, ok := d.text(n, where)
		if ok && s == "" {
			d.problem(n, "%s has an empty item", where)
		} else if ok {
			do(s, n)
		}
	})
}

func (d *document) text(n ast.Node, where string) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	}
	d.wrongType(n, where, "a text")
	return "", false
}

func (d *document) wrongType(n ast.Node, where, want string) {
	if where == "" {
		where = "the file"
	}
	d.problem(n, "%s must be %s, not %s", where, want, typeName(n))
}

func typeName(n ast.Node) string {
	switch n := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "a text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + n.GetToken().Value
	case *ast.BoolNode:
		return "the boolean " + n.Token.Value
	case nil, *ast.NullNode:
		return "nothing"
	}
	return "this"
}

func isMapping(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

func isSequence(n ast.Node) bool {
	_, ok := n.(*ast.SequenceNode)
	return ok
}

// keyText returns a mapping's key as it is written: a column may be named 2024 or null.
func keyText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, n.Value != ""
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return n.GetToken().Value, n.GetToken().Value != ""
	}
	return "", false
}

func line(n ast.Node) int {
	if n == nil {
		return 0
	}
	if pair, ok := n.(*ast.MappingValueNode); ok {
		return line(pair.Key)
	}
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return line(m.Values[0].Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

func prefix(where string) string {
	if where == "" {
		return ""
	}
	return where + ": "
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}
