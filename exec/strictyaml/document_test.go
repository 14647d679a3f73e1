package strictyaml_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/ast"

	"github.com/headgate/headgate/exec/strictyaml"
)

// read reads a file of two keys, and returns what it found and what was wrong.
func read(text string) (found, wrong string) {
	var d strictyaml.Document
	var got []string
	if root := d.Load([]byte(text)); root != nil {
		d.Object(root, "", strictyaml.Fields{
			"name": func(n ast.Node) {
				if s, ok := d.Text(n, "name"); ok {
					got = append(got, s)
				}
			},
			"list": func(n ast.Node) {
				d.Texts(n, "list", func(s string, _ ast.Node) { got = append(got, s) })
			},
		})
	}
	lines := make([]string, len(d.Problems))
	for i, p := range d.Problems {
		lines[i] = fmt.Sprintf("%d: %s", p.Line, p.Message)
	}
	return strings.Join(got, ","), strings.Join(lines, "; ")
}

func TestDocument(t *testing.T) {
	for text, want := range map[string][2]string{
		"":                          {"", ""},
		"# nothing":                 {"", ""},
		"name: a\nlist: [b, \"c\"]": {"a,b,c", ""},
		"\uFEFFname: |\n  a\n":      {"a\n", ""},
		"nmae: a":                   {"", `1: unknown key "nmae" (did you mean "name"?)`},
		"name: a\nname: b":          {"", `2: is not YAML: mapping key "name" already defined at [1:1]`},
		"name: 1":                   {"", "1: name must be a text, not the number 1"},
		"list: a":                   {"", "1: list must be a list, not a text"},
		"list: ['']":                {"", "1: list has an empty item"},
		"[name]":                    {"", "1: the file must be a mapping (key: value), not a list"},
		"name: &a b\nlist: [*a]":    {"", "1: anchors, aliases and merge keys are not allowed; write the value out"},
		"name: !!str a":             {"", "1: YAML tags and directives are not allowed"},
		"name: a\n---\nname: b":     {"", "3: a second YAML document; the file is one"},
		"name: \xff":                {"", "0: is not UTF-8 text"},
		strings.Repeat("[", 100):    {"", "1: is nested deeper than 32 levels"},
		strings.Repeat("#", strictyaml.MaxBytes+1): {"", "0: has 1048577 bytes, the limit is 1048576"},
		strings.Repeat("- a\n", 60_000):            {"", "0: has more than 100000 YAML tokens"},
	} {
		found, wrong := read(text)
		if found != want[0] || wrong != want[1] {
			t.Errorf("%.40q: found %q and problems %q, want %q and %q", text, found, wrong, want[0], want[1])
		}
	}
}

// FuzzLoad looks for panics, and for a root that comes with a problem.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{"name: a\nlist: [b]", "a: {b: [c, {d: e}]}", "- a\n- b: c", "? a\n: b", "a: |\n  b", "'\"", "\t"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var d strictyaml.Document
		root := d.Load(data)
		if root != nil && len(d.Problems) > 0 {
			t.Errorf("a root of type %s came with problems %v", strictyaml.TypeName(root), d.Problems)
		}
		if root != nil {
			d.Each(root, "", func(string, ast.Node, ast.Node) {})
		}
	})
}
