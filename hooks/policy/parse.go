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
	"github.com/headgate/headgate/exec/spelling"
	"github.com/headgate/headgate/exec/strictyaml"
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
	var d document
	p := Default()
	p.File = file
	if root := d.Load(data); root != nil {
		d.policy(root, p)
	}
	if len(d.Problems) > 0 {
		bad := &Error{}
		for _, problem := range d.Problems {
			bad.Problems = append(bad.Problems, Problem{File: file, Line: problem.Line, Message: problem.Message})
		}
		slices.SortStableFunc(bad.Problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, bad
	}
	return p, nil
}

// document is a policy file as it is read.
type document struct{ strictyaml.Document }

func (d *document) policy(root ast.Node, p *Policy) {
	d.Object(root, "", strictyaml.Fields{
		"branches":  func(n ast.Node) { d.branches(n, p) },
		"sandbox":   func(n ast.Node) { d.sandbox(n, &p.Sandbox) },
		"python":    func(n ast.Node) { d.python(n, &p.Python) },
		"tables":    func(n ast.Node) { d.tables(n, p) },
		"grants":    func(n ast.Node) { d.grants(n, p) },
		"approvals": func(n ast.Node) { d.approvals(n, p) },

		"parameters": func(n ast.Node) { d.parameters(n, p) },
		"secrets":    func(n ast.Node) { d.secrets(n, p) },

		"min_verifier_score": func(n ast.Node) { p.MinVerifierScore = d.minScore(n) },
	})
}

func (d *document) branches(n ast.Node, p *Policy) {
	d.Each(n, "branches", func(name string, key, value ast.Node) {
		where := "branches." + name
		if reason := badPattern(name); reason != "" {
			d.Problem(key, "branch pattern %q %s", name, reason)
			return
		}
		b, given := Branch{Pattern: name, Line: strictyaml.Line(key)}, false
		d.Object(value, where, strictyaml.Fields{"gate": func(n ast.Node) {
			given = true
			b.Gate = d.gate(n, where+".gate")
		}})
		if !given && strictyaml.IsMapping(value) {
			d.Problem(key, "%s needs a gate: required, advisory or off", where)
		}
		p.Branches = append(p.Branches, b)
	})
}

func (d *document) gate(n ast.Node, where string) Gate {
	// YAML 1.1 reads a bare off as false; whichever the parser does, off is meant.
	if b, ok := n.(*ast.BoolNode); ok && !b.Value && strings.EqualFold(b.Token.Value, "off") {
		return Off
	}
	s, ok := d.Text(n, where)
	if !ok {
		return Required
	}
	for _, g := range []Gate{Off, Advisory, Required} {
		if s == g.String() {
			return g
		}
	}
	names := []string{"required", "advisory", "off"}
	d.Problem(n, "%s is %q, want required, advisory or off%s", where, s, spelling.DidYouMean(s, names))
	return Required
}

func (d *document) sandbox(n ast.Node, s *Sandbox) {
	d.Object(n, "sandbox", strictyaml.Fields{
		"memory": func(n ast.Node) { s.Memory = d.size(n, "sandbox.memory", minMemory, "64MiB") },
		"output": func(n ast.Node) { s.Output = d.size(n, "sandbox.output", minOutput, "1MiB") },
		"cpus":   func(n ast.Node) { s.CPUs = d.cpus(n) },
		"timeout": func(n ast.Node) {
			text, ok := d.Text(n, "sandbox.timeout")
			if !ok {
				return
			}
			t, err := plan.ParseTimeout(text)
			if err == nil && t < minTimeout {
				err = fmt.Errorf("%q is less than %s", text, minTimeout)
			}
			if err != nil {
				d.Problem(n, "sandbox.timeout: %v", err)
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
		d.WrongType(n, "sandbox.pids", "a number")
		return 0
	}
	v, ok := i.Value.(uint64)
	if !ok || v < minPids || v > maxPids {
		d.Problem(n, "sandbox.pids must be between %d and %d", minPids, maxPids)
		return 0
	}
	return int(v)
}

func (d *document) violations(n ast.Node) (record bool) {
	s, ok := d.Text(n, "sandbox.violations")
	if ok && s != "fail" && s != "record" {
		d.Problem(n, "sandbox.violations is %q, want fail or record%s", s, spelling.DidYouMean(s, []string{"fail", "record"}))
	}
	return s == "record"
}

func (d *document) doubleRun(n ast.Node) bool {
	if b, ok := n.(*ast.BoolNode); ok && !b.Value && strings.EqualFold(b.Token.Value, "off") {
		return false // see gate
	}
	s, ok := d.Text(n, "sandbox.double_run")
	if ok && s != "off" && s != "new" {
		d.Problem(n, "sandbox.double_run is %q, want off, or new to evaluate new results twice%s", s, spelling.DidYouMean(s, []string{"off", "new"}))
	}
	return s == "new"
}

func (d *document) size(n ast.Node, where string, least int64, shown string) int64 {
	text, ok := d.Text(n, where)
	if !ok {
		return 0
	}
	size, err := plan.ParseSize(text)
	switch {
	case err != nil:
		d.Problem(n, "%s: %v", where, err)
	case size < least:
		d.Problem(n, "%s: %s is less than %s", where, text, shown)
	case size > maxMemory:
		d.Problem(n, "%s: %s is more than 1TiB", where, text)
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
		d.WrongType(n, "sandbox.cpus", "a number")
		return 0
	}
	if math.IsNaN(cpus) || cpus < 0.1 || cpus > maxCPUs {
		d.Problem(n, "sandbox.cpus must be between 0.1 and %d", maxCPUs)
	}
	return cpus
}

var pythonVersion = regexp.MustCompile(`^3\.(9|[1-9][0-9])$`)

func (d *document) python(n ast.Node, p *Python) {
	d.Object(n, "python", strictyaml.Fields{
		"default": func(n ast.Node) {
			switch n.(type) {
			case *ast.FloatNode, *ast.IntegerNode:
				// 3.10 without quotes is the number 3.1.
				d.Problem(n, "python.default must be a text: write \"%s\" in quotes", n.GetToken().Value)
				return
			}
			text, ok := d.Text(n, "python.default")
			if ok && !pythonVersion.MatchString(text) {
				d.Problem(n, "python.default is %q, want a version such as \"3.11\" (at least 3.9)", text)
			}
			p.Default = text
		},
		"packages": func(n ast.Node) {
			d.Object(n, "python.packages", strictyaml.Fields{
				"allow": func(n ast.Node) { p.Packages = d.packages(n, "python.packages.allow", true) },
				"deny":  func(n ast.Node) { p.Deny = d.packages(n, "python.packages.deny", false) },
			})
		},
	})
}

// packages reads a list of packages' names; all tells whether "*" is one.
func (d *document) packages(n ast.Node, where string, all bool) []string {
	names := []string{}
	d.Texts(n, where, func(s string, n ast.Node) {
		name := s
		if s != "*" || !all {
			var err error
			if name, err = plan.NormalPackage(s); err != nil {
				d.Problem(n, "%s: %q is not a package name (%v)", where, s, err)
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
	d.Each(n, "tables", func(name string, key, value ast.Node) {
		if err := table.ValidName(name); err != nil {
			d.Problem(key, "tables: %v", err)
			return
		}
		if other, ok := lower[strings.ToLower(name)]; ok {
			d.Problem(key, "tables %q and %q are one table to SQL", other, name)
			return
		}
		lower[strings.ToLower(name)] = name
		t := Table{Line: strictyaml.Line(key)}
		where := "tables." + name
		d.Object(value, where, strictyaml.Fields{
			"key": func(n ast.Node) {
				t.KeyLine = strictyaml.Line(n)
				d.Texts(n, where+".key", func(s string, n ast.Node) {
					if slices.Contains(t.Key, s) {
						d.Problem(n, "%s.key names %q twice", where, s)
					}
					t.Key = append(t.Key, s)
				})
				if len(t.Key) == 0 && strictyaml.IsSequence(n) {
					d.Problem(n, "%s.key is empty; leave it out for a table without a key", where)
				}
			},
			"columns": func(n ast.Node) {
				t.Columns = make(map[string]Column)
				d.Each(n, where+".columns", func(name string, key, value ast.Node) {
					c := Column{Line: strictyaml.Line(key)}
					at := where + ".columns." + name
					d.Object(value, at, strictyaml.Fields{"tests": func(n ast.Node) { c.Tests = d.tests(n, at+".tests") }})
					t.Columns[name] = c
				})
			},
			"rules": func(n ast.Node) { t.Rules = d.rules(n, where+".rules") },
		})
		p.Tables[name] = t
	})
}

func (d *document) tests(n ast.Node, where string) []plan.Test {
	var tests []plan.Test
	seen := make(map[plan.TestKind]bool)
	d.Items(n, where, func(n ast.Node) {
		t, ok := d.test(n, where)
		if !ok {
			return
		}
		if seen[t.Kind] && t.Kind != plan.Relationships {
			d.Problem(n, "%s has %s twice", where, t.Kind)
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
	t := plan.Test{Line: strictyaml.Line(n)}
	if !strictyaml.IsMapping(n) {
		name, ok := d.Text(n, where)
		if !ok {
			return t, false
		}
		t.Kind = plan.TestKind(name)
		switch t.Kind {
		case plan.NotNull, plan.Unique:
			return t, true
		case plan.AcceptedValues:
			d.Problem(n, "test accepted_values needs its values: {accepted_values: [a, b]}")
		case plan.Relationships:
			d.Problem(n, "test relationships needs its table: {relationships: {to: airports, field: iata}}")
		default:
			d.Problem(n, "unknown test %q%s", name, spelling.MeantOr(name, testKinds))
		}
		return t, false
	}
	before, count := len(d.Problems), 0
	d.Each(n, where, func(name string, key, value ast.Node) {
		count++
		t.Kind = plan.TestKind(name)
		switch t.Kind {
		case plan.AcceptedValues:
			d.acceptedValues(value, where+".accepted_values", &t)
		case plan.Relationships:
			d.relationship(value, where+".relationships", &t)
		case plan.NotNull, plan.Unique:
			if !strictyaml.IsMapping(value) {
				d.Problem(key, "test %s takes no arguments but its severity: {%s: {severity: warn}}", name, name)
				return
			}
			d.Object(value, where+"."+name, strictyaml.Fields{"severity": d.severity(where+"."+name, &t)})
		default:
			d.Problem(key, "unknown test %q%s", name, spelling.MeantOr(name, testKinds))
		}
	})
	if count != 1 && len(d.Problems) == before {
		d.Problem(n, "%s: each item is one test, this one has %d", where, count)
	}
	return t, len(d.Problems) == before
}

// severity reads what becomes of a test's violations.
func (d *document) severity(where string, t *plan.Test) func(ast.Node) {
	return func(n ast.Node) {
		text, ok := d.Text(n, where+".severity")
		if !ok {
			return
		}
		var err error
		if t.Severity, err = plan.ParseSeverity(text); err != nil {
			d.Problem(n, "%s.severity: %v", where, err)
		}
	}
}

// acceptedValues reads a list of values or, where a severity is given too, a
// mapping that has it as "values".
func (d *document) acceptedValues(n ast.Node, where string, t *plan.Test) {
	if !strictyaml.IsMapping(n) {
		t.Values = d.values(n, where)
		return
	}
	given := false
	d.Object(n, where, strictyaml.Fields{
		"values": func(n ast.Node) {
			given = true
			t.Values = d.values(n, where+".values")
		},
		"severity": d.severity(where, t),
	})
	if !given {
		d.Problem(n, "%s needs its values: {accepted_values: {values: [a, b], severity: warn}}", where)
	}
}

func (d *document) relationship(n ast.Node, where string, t *plan.Test) {
	d.Object(n, where, strictyaml.Fields{
		"to": func(n ast.Node) {
			name, ok := d.Text(n, where+".to")
			if !ok {
				return
			}
			if err := table.ValidName(name); err != nil {
				d.Problem(n, "%s.to: %v", where, err)
			}
			t.To = name
		},
		"field":    func(n ast.Node) { t.Field, _ = d.Text(n, where+".field") },
		"severity": d.severity(where, t),
	})
	if strictyaml.IsMapping(n) && (t.To == "" || t.Field == "") {
		d.Problem(n, "%s needs both to (a table) and field (its column)", where)
	}
}

func (d *document) values(n ast.Node, where string) []any {
	var values []any
	d.Items(n, where, func(n ast.Node) {
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
			d.Problem(n, "%s: a NULL always passes; use not_null to refuse it", where)
		default:
			d.WrongType(n, where, "a text, a number or a boolean")
		}
	})
	if list, ok := n.(*ast.SequenceNode); ok && len(list.Values) == 0 {
		d.Problem(n, "%s is empty, so that no row could pass", where)
	}
	return values
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
