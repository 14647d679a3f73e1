// Package strictyaml reads YAML files that anybody may have written: bounded
// before anything recurses, without aliases and tags, every key known, and with a
// line for each problem. It does not know what the keys mean.
package strictyaml

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

	"github.com/headgate/headgate/exec/spelling"
)

// Bounds of the file itself. The YAML parser recurses and its tokens are large,
// so what reaches it is bounded first.
const (
	MaxBytes    = 1 << 20 // size of a file
	maxTokens   = 100_000
	maxDepth    = 32
	maxSiblings = 2_000 // keys of one mapping: the parser recurses for each, in quadratic time
	maxProblems = 50
)

// Problem is one thing wrong with a file.
type Problem struct {
	Line    int // 0 if it concerns the whole file
	Message string
}

// Document reads one YAML file and collects what is wrong with it. The zero value
// is ready to load one.
type Document struct{ Problems []Problem }

// Fields are the keys that a mapping may have.
type Fields map[string]func(value ast.Node)

// Problem notes what is wrong with a node.
func (d *Document) Problem(at ast.Node, format string, args ...any) {
	d.ProblemAt(Line(at), format, args...)
}

// ProblemAt notes what is wrong with a line, 0 for the whole file. A file has at most 50 problems.
func (d *Document) ProblemAt(line int, format string, args ...any) {
	if len(d.Problems) < maxProblems {
		d.Problems = append(d.Problems, Problem{Line: line, Message: fmt.Sprintf(format, args...)})
	}
}

// Load returns the document's root, or nil if it is empty or has a problem.
func (d *Document) Load(data []byte) (root ast.Node) {
	switch {
	case len(data) > MaxBytes:
		d.ProblemAt(0, "has %d bytes, the limit is %d", len(data), MaxBytes)
		return nil
	case !utf8.Valid(data):
		d.ProblemAt(0, "is not UTF-8 text")
		return nil
	}
	// The parser is not ours, and what it reads is anybody's: a bug in it must
	// refuse the file, not end the server.
	defer func() {
		if r := recover(); r != nil {
			d.ProblemAt(0, "is not YAML that can be read")
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
		d.ProblemAt(0, "has more than %d YAML tokens", maxTokens)
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
		d.Problem(bodies[1], "a second YAML document; the file is one")
		return nil
	}
	if _, ok := bodies[0].(*ast.NullNode); ok {
		return nil
	}
	return bodies[0]
}

func (d *Document) syntax(err error) {
	var located interface {
		error
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &located) {
		d.ProblemAt(0, "is not YAML: %s", firstLine(err.Error()))
		return
	}
	at := 0
	if t := located.GetToken(); t != nil && t.Position != nil {
		at = t.Position.Line
	}
	d.ProblemAt(at, "is not YAML: %s", firstLine(located.GetMessage()))
}

// bounded refuses, before anything recurses, what is deep, large, or not needed
// in a file of settings: an alias is a way to make a small file large.
func (d *Document) bounded(tokens token.Tokens) bool {
	if len(tokens) > maxTokens {
		d.ProblemAt(0, "has more than %d YAML tokens", maxTokens)
		return false
	}
	flow := 0
	type level struct{ column, entries int }
	var block []level // the block collections that are open
	for _, t := range tokens {
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			d.ProblemAt(t.Position.Line, "anchors, aliases and merge keys are not allowed; write the value out")
			return false
		case token.TagType, token.DirectiveType:
			d.ProblemAt(t.Position.Line, "YAML tags and directives are not allowed")
			return false
		case token.InvalidType:
			d.ProblemAt(t.Position.Line, "is not YAML: %s", firstLine(t.Error))
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
				d.ProblemAt(t.Position.Line, "has a mapping of more than %d keys", maxSiblings)
				return false
			}
		}
		if flow+len(block) > maxDepth {
			d.ProblemAt(t.Position.Line, "is nested deeper than %d levels", maxDepth)
			return false
		}
	}
	return true
}

// Each calls do for every pair of a mapping, in the file's order.
func (d *Document) Each(n ast.Node, where string, do func(name string, key, value ast.Node)) {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		d.WrongType(n, where, "a mapping (key: value)")
		return
	}
	seen := make(map[string]bool, len(pairs))
	for _, pair := range pairs {
		name, ok := keyText(pair.Key)
		switch {
		case !ok:
			d.Problem(pair.Key, "%skeys must be plain texts", prefix(where))
		case seen[name]:
			d.Problem(pair.Key, "%skey %q is given twice", prefix(where), name)
		default:
			seen[name] = true
			do(name, pair.Key, pair.Value)
		}
	}
}

// Object reads a mapping whose keys are known.
func (d *Document) Object(n ast.Node, where string, known Fields) {
	d.Each(n, where, func(name string, key, value ast.Node) {
		read, ok := known[name]
		if !ok {
			names := slices.Sorted(maps.Keys(known))
			in := ""
			if where != "" {
				in = " in " + where
			}
			d.Problem(key, "unknown key %q%s%s", name, in, spelling.MeantOr(name, names))
			return
		}
		read(value)
	})
}

// Items calls do for every item of a list.
func (d *Document) Items(n ast.Node, where string, do func(n ast.Node)) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		d.WrongType(n, where, "a list")
		return
	}
	for _, item := range list.Values {
		do(item)
	}
}

// Texts calls do for every text of a list of texts.
func (d *Document) Texts(n ast.Node, where string, do func(s string, n ast.Node)) {
	d.Items(n, where, func(n ast.Node) {
		s, ok := d.Text(n, where)
		if ok && s == "" {
			d.Problem(n, "%s has an empty item", where)
		} else if ok {
			do(s, n)
		}
	})
}

// Text returns a text, as it is between its quotes. A number is none.
func (d *Document) Text(n ast.Node, where string) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	}
	d.WrongType(n, where, "a text")
	return "", false
}

// WrongType notes that a node is not what it must be.
func (d *Document) WrongType(n ast.Node, where, want string) {
	if where == "" {
		where = "the file"
	}
	d.Problem(n, "%s must be %s, not %s", where, want, TypeName(n))
}

// TypeName returns what a node is, for a message: "a list", "the number 3".
func TypeName(n ast.Node) string {
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

// IsMapping reports whether a node is a mapping.
func IsMapping(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// IsSequence reports whether a node is a list.
func IsSequence(n ast.Node) bool {
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

// Line returns the line of a node, 0 if it has none.
func Line(n ast.Node) int {
	if n == nil {
		return 0
	}
	if pair, ok := n.(*ast.MappingValueNode); ok {
		return Line(pair.Key)
	}
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return Line(m.Values[0].Key)
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
