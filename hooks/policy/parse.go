package policy

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/objects/table"
)

// Bounds of what a policy may ask for. A sandbox below them could not start; one
// above them is a typing error.
const (
	minMemory  = 64 << 20
	maxMemory  = 1 << 40
	minOutput  = 1 << 20
	minTimeout = time.Second
	maxCPUs    = 64
	minPids    = 16
	maxPids    = 100_000
	minLog     = 1 << 10
)

// Parse reads a policy; file is its name in problems. What the file leaves out
// is as in Default. Any error is an *Error.
func Parse(file string, data []byte) (*Policy, error) {
	d := &document{file: file}
	p := Default()
	p.File = file
	if root := d.load(data); root != nil {
		d.policy(root, p)
	}
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, &Error{Problems: d.problems}
	}
	return p, nil
}

func (d *document) policy(root ast.Node, p *Policy) {
	d.object(root, "", fields{
		"branches": func(n ast.Node) { d.branches(n, p) },
		"sandbox":  func(n ast.Node) { d.sandbox(n, &p.Sandbox) },
		"python":   func(n ast.Node) { d.python(n, &p.Python) },
		"tables":   func(n ast.Node) { d.tables(n, p) },
		"grants":   func(n ast.Node) { d.grants(n, p) },

		"parameters": func(n ast.Node) { d.parameters(n, p) },
		"secrets":    func(n ast.Node) { d.secrets(n, p) },
	})
}

func (d *document) branches(n ast.Node, p *Policy) {
	d.each(n, "branches", func(name string, key, value ast.Node) {
		where := "branches." + name
		if reason := badPattern(name); reason != "" {
			d.problem(key, "branch pattern %q %s", name, reason)
			return
		}
		b, given := Branch{Pattern: name, Line: line(key)}, false
		d.object(value, where, fields{"gate": func(n ast.Node) {
			given = true
			b.Gate = d.gate(n, where+".gate")
		}})
		if !given && isMapping(value) {
			d.problem(key, "%s needs a gate: required, advisory or off", where)
		}
		p.Branches = append(p.Branches, b)
	})
}

func (d *document) gate(n ast.Node, where string) Gate {
	// YAML 1.1 reads a bare off as false; whichever the parser does, off is meant.
	if b, ok := n.(*ast.BoolNode); ok && !b.Value && strings.EqualFold(b.Token.Value, "off") {
		return Off
	}
	s, ok := d.text(n, where)
	if !ok {
		return Required
	}
	for _, g := range []Gate{Off, Advisory, Required} {
		if s == g.String() {
			return g
		}
	}
	names := []string{"required", "advisory", "off"}
	d.problem(n, "%s is %q, want required, advisory or off%s", where, s, plan.DidYouMean(s, names))
	return Required
}

func (d *document) sandbox(n ast.Node, s *Sandbox) {
	d.object(n, "sandbox", fields{
		"memory": func(n ast.Node) { s.Memory = d.size(n, "sandbox.memory", minMemory, "64MiB") },
		"output": func(n ast.Node) { s.Output = d.size(n, "sandbox.output", minOutput, "1MiB") },
		"cpus":   func(n ast.Node) { s.CPUs = d.cpus(n) },
		"timeout": func(n ast.Node) {
			text, ok := d.text(n, "sandbox.timeout")
			if !ok {
				return
			}
			t, err := plan.ParseTimeout(text)
			if err == nil && t < minTimeout {
				err = fmt.Errorf("%q is less than %s", text, minTimeout)
			}
			if err != nil {
				d.problem(n, "sandbox.timeout: %v", err)
			}
			s.Timeout = t
		},
		"file_size":  func(n ast.Node) { s.FileSize = d.size(n, "sandbox.file_size", minOutput, "1MiB") },
		"log":        func(n ast.Node) { s.Log = d.size(n, "sandbox.log", minLog, "1KiB") },
		"pids":       func(n ast.Node) { s.Pids = d.pids(n) },
		"violations": func(n ast.Node) { s.RecordViolations = d.violations(n) },
		"double_run": func(n ast.Node) { s.DoubleRun = d.doubleRun(n) },
	})
}

func (d *document) pids(n ast.Node) int {
	i, ok := n.(*ast.IntegerNode)
	if !ok {
		d.wrongType(n, "sandbox.pids", "a number")
		return 0
	}
	v, ok := i.Value.(uint64)
	if !ok || v < minPids || v > maxPids {
		d.problem(n, "sandbox.pids must be between %d and %d", minPids, maxPids)
		return 0
	}
	return int(v)
}

func (d *document) violations(n ast.Node) (record bool) {
	s, ok := d.text(n, "sandbox.violations")
	if ok && s != "fail" && s != "record" {
		d.problem(n, "sandbox.violations is %q, want fail or record%s", s, plan.DidYouMean(s, []string{"fail", "record"}))
	}
	return s == "record"
}

func (d *document) doubleRun(n ast.Node) bool {
	if b, ok := n.(*ast.BoolNode); ok && !b.Value && strings.EqualFold(b.Token.Value, "off") {
		return false // see gate
	}
	s, ok := d.text(n, "sandbox.double_run")
	if ok && s != "off" && s != "new" {
		d.problem(n, "sandbox.double_run is %q, want off, or new to evaluate new results twice%s", s, plan.DidYouMean(s, []string{"off", "new"}))
	}
	return s == "new"
}

func (d *document) size(n ast.Node, where string, least int64, shown string) int64 {
	text, ok := d.text(n, where)
	if !ok {
		return 0
	}
	size, err := plan.ParseSize(text)
	switch {
	case err != nil:
		d.problem(n, "%s: %v", where, err)
	case size < least:
		d.problem(n, "%s: %s is less than %s", where, text, shown)
	case size > maxMemory:
		d.problem(n, "%s: %s is more than 1TiB", where, text)
	}
	return size
}

func (d *document) cpus(n ast.Node) float64 {
	var cpus float64
	switch n := n.(type) {
	case *ast.IntegerNode:
		switch v := n.Value.(type) {
		case int64:
			cpus = float64(v)
		case uint64:
			cpus = float64(v)
		}
	case *ast.FloatNode:
		cpus = n.Value
	default:
		d.wrongType(n, "sandbox.cpus", "a number")
		return 0
	}
	if math.IsNaN(cpus) || cpus < 0.1 || cpus > maxCPUs {
		d.problem(n, "sandbox.cpus must be between 0.1 and %d", maxCPUs)
	}
	return cpus
}

var pythonVersion = regexp.MustCompile(`^3\.(9|[1-9][0-9])$`)

func (d *document) python(n ast.Node, p *Python) {
	d.object(n, "python", fields{
		"default": func(n ast.Node) {
			switch n.(type) {
			case *ast.FloatNode, *ast.IntegerNode:
				// 3.10 without quotes is the number 3.1.
				d.problem(n, "python.default must be a text: write \"%s\" in quotes", n.GetToken().Value)
				return
			}
			text, ok := d.text(n, "python.default")
			if ok && !pythonVersion.MatchString(text) {
				d.problem(n, "python.default is %q, want a version such as \"3.11\" (at least 3.9)", text)
			}
			p.Default = text
		},
		"packages": func(n ast.Node) {
			d.object(n, "python.packages", fields{
				"allow": func(n ast.Node) { p.Packages = d.packages(n, "python.packages.allow", true) },
				"deny":  func(n ast.Node) { p.Deny = d.packages(n, "python.packages.deny", false) },
			})
		},
	})
}

// packages reads a list of packages' names; all tells whether "*" is one.
func (d *document) packages(n ast.Node, where string, all bool) []string {
	names := []string{}
	d.texts(n, where, func(s string, n ast.Node) {
		name := s
		if s != "*" || !all {
			var err error
			if name, err = plan.NormalPackage(s); err != nil {
				d.problem(n, "%s: %q is not a package name (%v)", where, s, err)
				return
			}
		}
		names = append(names, name)
	})
	return names
}

func (d *document) tables(n ast.Node, p *Policy) {
	p.Tables = make(map[string]Table)
	lower := make(map[string]string)
	d.each(n, "tables", func(name string, key, value ast.Node) {
		if err := table.ValidName(name); err != nil {
			d.problem(key, "tables: %v", err)
			return
		}
		if other, ok := lower[strings.ToLower(name)]; ok {
			d.problem(key, "tables %q and %q are one table to SQL", other, name)
			return
		}
		lower[strings.ToLower(name)] = name
		t := Table{Line: line(key)}
		where := "tables." + name
		d.object(value, where, fields{
			"key": func(n ast.Node) {
				t.KeyLine = line(n)
				d.texts(n, where+".key", func(s string, n ast.Node) {
					if slices.Contains(t.Key, s) {
						d.problem(n, "%s.key names %q twice", where, s)
					}
					t.Key = append(t.Key, s)
				})
				if len(t.Key) == 0 && isSequence(n) {
					d.problem(n, "%s.key is empty; leave it out for a table without a key", where)
				}
			},
			"columns": func(n ast.Node) {
				t.Columns = make(map[string]Column)
				d.each(n, where+".columns", func(name string, key, value ast.Node) {
					c := Column{Line: line(key)}
					at := where + ".columns." + name
					d.object(value, at, fields{"tests": func(n ast.Node) { c.Tests = d.tests(n, at+".tests") }})
					t.Columns[name] = c
				})
			},
		})
		p.Tables[name] = t
	})
}

func (d *document) tests(n ast.Node, where string) []plan.Test {
	var tests []plan.Test
	seen := make(map[plan.TestKind]bool)
	d.items(n, where, func(n ast.Node) {
		t, ok := d.test(n, where)
		if !ok {
			return
		}
		if seen[t.Kind] && t.Kind != plan.Relationships {
			d.problem(n, "%s has %s twice", where, t.Kind)
			return
		}
		seen[t.Kind] = true
		tests = append(tests, t)
	})
	return tests
}

var testKinds = []string{string(plan.NotNull), string(plan.Unique), string(plan.AcceptedValues), string(plan.Relationships)}

// test reads "not_null", or a mapping of one test to its arguments.
func (d *document) test(n ast.Node, where string) (plan.Test, bool) {
	t := plan.Test{Line: line(n)}
	if !isMapping(n) {
		name, ok := d.text(n, where)
		if !ok {
			return t, false
		}
		t.Kind = plan.TestKind(name)
		switch t.Kind {
		case plan.NotNull, plan.Unique:
			return t, true
		case plan.AcceptedValues:
			d.problem(n, "test accepted_values needs its values: {accepted_values: [a, b]}")
		case plan.Relationships:
			d.problem(n, "test relationships needs its table: {relationships: {to: airports, field: iata}}")
		default:
			d.problem(n, "unknown test %q%s", name, meantOr(name, testKinds))
		}
		return t, false
	}
	before, count := len(d.problems), 0
	d.each(n, where, func(name string, key, value ast.Node) {
		count++
		t.Kind = plan.TestKind(name)
		switch t.Kind {
		case plan.AcceptedValues:
			t.Values = d.values(value, where+".accepted_values")
		case plan.Relationships:
			d.relationship(value, where+".relationships", &t)
		case plan.NotNull, plan.Unique:
			d.problem(key, "test %s takes no arguments; write it as a plain text", name)
		default:
			d.problem(key, "unknown test %q%s", name, meantOr(name, testKinds))
		}
	})
	if count != 1 && len(d.problems) == before {
		d.problem(n, "%s: each item is one test, this one has %d", where, count)
	}
	return t, len(d.problems) == before
}

func (d *document) relationship(n ast.Node, where string, t *plan.Test) {
	d.object(n, where, fields{
		"to": func(n ast.Node) {
			name, ok := d.text(n, where+".to")
			if !ok {
				return
			}
			if err := table.ValidName(name); err != nil {
				d.problem(n, "%s.to: %v", where, err)
			}
			t.To = name
		},
		"field": func(n ast.Node) { t.Field, _ = d.text(n, where+".field") },
	})
	if isMapping(n) && (t.To == "" || t.Field == "") {
		d.problem(n, "%s needs both to (a table) and field (its column)", where)
	}
}

func (d *document) values(n ast.Node, where string) []any {
	var values []any
	d.items(n, where, func(n ast.Node) {
		switch n := n.(type) {
		case *ast.StringNode:
			values = append(values, n.Value)
		case *ast.LiteralNode:
			values = append(values, n.Value.Value)
		case *ast.BoolNode:
			values = append(values, n.Value)
		case *ast.IntegerNode:
			values = append(values, n.Value)
		case *ast.FloatNode:
			values = append(values, n.Value)
		case *ast.NullNode:
			d.problem(n, "%s: a NULL always passes; use not_null to refuse it", where)
		default:
			d.wrongType(n, where, "a text, a number or a boolean")
		}
	})
	if list, ok := n.(*ast.SequenceNode); ok && len(list.Values) == 0 {
		d.problem(n, "%s is empty, so that no row could pass", where)
	}
	return values
}

func (d *document) grants(n ast.Node, p *Policy) {
	p.Grants = []Grant{}
	d.items(n, "grants", func(n ast.Node) {
		g := Grant{Line: line(n)}
		list := func(to *[]string, name string, bad func(string) string) func(ast.Node) {
			return func(n ast.Node) {
				*to = []string{}
				d.texts(n, "grants."+name, func(s string, n ast.Node) {
					if reason := bad(s); reason != "" {
						d.problem(n, "grants.%s: %q %s", name, s, reason)
					}
					*to = append(*to, s)
				})
			}
		}
		d.object(n, "grants", fields{
			"who":         list(&g.Who, "who", badWho),
			"push":        list(&g.Push, "push", badPattern),
			"propose":     list(&g.Propose, "propose", badPattern),
			"read_tables": list(&g.ReadTables, "read_tables", badTablePattern),
			"edit":        list(&g.Edit, "edit", badPathPattern),
		})
		if len(g.Who) == 0 && isMapping(n) {
			d.problem(n, "a grant needs who: the users or groups it is for")
		}
		p.Grants = append(p.Grants, g)
	})
}

// badPattern says what is wrong with a pattern of branches, or "".
func badPattern(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > 200:
		return "is longer than 200 characters"
	case strings.HasPrefix(s, "refs/"):
		return "must be a branch's short name, without refs/heads/"
	case strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") || strings.Contains(s, "//"):
		return "has an empty part"
	case strings.Contains(s, ".."), strings.Contains(s, "@{"), strings.HasPrefix(s, "-"),
		strings.HasSuffix(s, "."), strings.HasSuffix(s, ".lock"):
		return "cannot match a branch name"
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?[\`, r) }):
		return "has a character that no branch name has (the only wildcard is *)"
	}
	return ""
}

func badWho(s string) string {
	if s == "" || len(s) > 200 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "is not the name of a user or a group"
	}
	return ""
}

func badTablePattern(s string) string {
	if err := table.ValidName(strings.ReplaceAll(s, "*", "x")); err != nil {
		return "cannot match a table name"
	}
	return ""
}

func badPathPattern(s string) string {
	if s == "" || len(s) > 1000 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return "is not a pattern of paths"
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." {
			return "must be a path from the lake's root, without . and .."
		}
	}
	return ""
}

func meantOr(name string, known []string) string {
	if near := plan.DidYouMean(name, known); near != "" {
		return near
	}
	return fmt.Sprintf(" (there are %s)", strings.Join(known, ", "))
}
