package policy

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/spelling"
	"github.com/headgate/headgate/exec/strictyaml"
	"github.com/headgate/headgate/objects/table"
)

// maxRules bounds the change rules of one table.
const maxRules = 200

// maxPhrase bounds a piece of SQL in a rule, in bytes.
const maxPhrase = 4000

func ruleNames() []string {
	names := make([]string, len(plan.RuleKinds))
	for i, k := range plan.RuleKinds {
		names[i] = string(k)
	}
	return names
}

// rules reads a table's change rules: a list of mappings of one rule to its arguments.
func (d *document) rules(n ast.Node, where string) []plan.Rule {
	var rules []plan.Rule
	d.Items(n, where, func(n ast.Node) {
		if len(rules) == maxRules {
			d.Problem(n, "%s has more than %d rules", where, maxRules)
		}
		if len(rules) >= maxRules {
			return
		}
		if !strictyaml.IsMapping(n) {
			name, ok := d.Text(n, where)
			switch {
			case !ok:
			case plan.RuleKind(name) == plan.ImmutableHistory:
				rules = append(rules, plan.Rule{Kind: plan.ImmutableHistory, Line: strictyaml.Line(n)})
			case example(plan.RuleKind(name)) != "":
				d.Problem(n, "rule %s needs its bounds: %s", name, example(plan.RuleKind(name)))
			default:
				d.Problem(n, "unknown rule %q%s", name, spelling.MeantOr(name, ruleNames()))
			}
			return
		}
		before, count := len(d.Problems), 0
		r := plan.Rule{Line: strictyaml.Line(n)}
		d.Each(n, where, func(name string, key, value ast.Node) {
			count++
			if example(plan.RuleKind(name)) == "" {
				d.Problem(key, "unknown rule %q%s", name, spelling.MeantOr(name, ruleNames()))
				return
			}
			r.Kind = plan.RuleKind(name)
			d.rule(value, where+"."+name, &r)
		})
		if count != 1 && len(d.Problems) == before {
			d.Problem(n, "%s: each item is one rule, this one has %d", where, count)
		}
		if len(d.Problems) == before {
			rules = append(rules, r)
		}
	})
	return rules
}

// example shows how a rule is written; "" if there is no such rule.
func example(k plan.RuleKind) string {
	switch k {
	case plan.RowCountChange:
		return "{row_count_change: {min: -1%, max: 20%}}"
	case plan.NullRateChange:
		return "{null_rate_change: {columns: [delay], max: 0.5%}}"
	case plan.DistributionChange:
		return "{distribution_change: {columns: [delay], max: 0.2}}"
	case plan.Freshness:
		return "{freshness: {column: date, max_age: 2d}}"
	case plan.Reconcile:
		return "{reconcile: {value: sum(minutes), to: flights, to_value: sum(delay), tolerance: 0.1%}}"
	case plan.ImmutableHistory:
		return "{immutable_history: {columns: [delay]}}"
	}
	return ""
}

var ruleName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,49}$`)

// rule reads the arguments of a rule whose kind is known.
func (d *document) rule(n ast.Node, where string, r *plan.Rule) {
	before := len(d.Problems)
	list := func(to *[]string, name string) func(ast.Node) {
		return func(n ast.Node) { *to = d.columns(n, where+"."+name) }
	}
	change := func(to **plan.Bound, name string) func(ast.Node) {
		return func(n ast.Node) { *to = d.bound(n, where+"."+name) }
	}
	phrase := func(to *string, name string) func(ast.Node) {
		return func(n ast.Node) { *to = d.phrase(n, where+"."+name) }
	}
	age := func(to **time.Duration, name string) func(ast.Node) {
		return func(n ast.Node) { *to = d.age(n, where+"."+name) }
	}
	known := strictyaml.Fields{
		"severity": func(n ast.Node) {
			if text, ok := d.Text(n, where+".severity"); ok {
				var err error
				if r.Severity, err = plan.ParseSeverity(text); err != nil {
					d.Problem(n, "%s.severity: %v", where, err)
				}
			}
		},
		"name": func(n ast.Node) {
			r.Name, _ = d.Text(n, where+".name")
			if !ruleName.MatchString(r.Name) {
				d.Problem(n, "%s.name: %q: want letters, digits, '_' and '-'", where, r.Name)
			}
		},
	}
	switch r.Kind {
	case plan.RowCountChange:
		known["min"], known["max"] = change(&r.Min, "min"), change(&r.Max, "max")
	case plan.NullRateChange:
		known["columns"], known["min"], known["max"] = list(&r.Columns, "columns"), change(&r.Min, "min"), change(&r.Max, "max")
	case plan.DistributionChange:
		r.Bins = plan.DefaultBins
		known["columns"] = list(&r.Columns, "columns")
		known["max"] = func(n ast.Node) {
			if b := d.bound(n, where+".max"); b != nil {
				if b.Relative || b.Value <= 0 || b.Value > 100 {
					d.Problem(n, "%s.max is a population stability index, a number above 0 and at most 100: 0.1 is a small change, 0.25 a large one", where)
				}
				r.PSI = b.Value
			}
		}
		known["bins"] = func(n ast.Node) {
			i, ok := n.(*ast.IntegerNode)
			v, positive := uint64(0), false
			if ok {
				v, positive = i.Value.(uint64)
			}
			if !positive || v < plan.MinBins || v > plan.MaxBins {
				d.Problem(n, "%s.bins must be a number between %d and %d", where, plan.MinBins, plan.MaxBins)
			}
			r.Bins = int(min(v, plan.MaxBins))
		}
	case plan.Freshness:
		known["column"] = func(n ast.Node) {
			if c, ok := d.Text(n, where+".column"); ok {
				r.Columns = []string{c}
			}
		}
		known["max_age"], known["advance"] = age(&r.MaxAge, "max_age"), age(&r.Advance, "advance")
	case plan.Reconcile:
		r.Tolerance.Text = "0"
		known["value"], known["to_value"] = phrase(&r.Value, "value"), phrase(&r.ToValue, "to_value")
		known["where"], known["to_where"] = phrase(&r.Where, "where"), phrase(&r.ToWhere, "to_where")
		known["by"], known["to_by"] = list(&r.By, "by"), list(&r.ToBy, "to_by")
		known["to"] = func(n ast.Node) {
			r.To, _ = d.Text(n, where+".to")
			if err := table.ValidName(r.To); err != nil {
				d.Problem(n, "%s.to: %v", where, err)
			}
		}
		known["tolerance"] = func(n ast.Node) {
			if b := d.bound(n, where+".tolerance"); b != nil {
				if b.Value < 0 {
					d.Problem(n, "%s.tolerance is less than 0", where)
				}
				r.Tolerance = *b
			}
		}
	case plan.ImmutableHistory:
		known["columns"], known["key"], known["where"] = list(&r.Columns, "columns"), list(&r.Key, "key"), phrase(&r.Where, "where")
	}
	d.Object(n, where, known)
	if len(d.Problems) == before {
		d.complete(n, where, r)
	}
}

// complete checks what a rule must have, and fills in what follows from it.
func (d *document) complete(n ast.Node, where string, r *plan.Rule) {
	missing := func(what string) { d.Problem(n, "%s needs %s: %s", where, what, example(r.Kind)) }
	switch r.Kind {
	case plan.RowCountChange, plan.NullRateChange:
		switch {
		case r.Kind == plan.NullRateChange && len(r.Columns) == 0:
			missing("its columns")
		case r.Min == nil && r.Max == nil:
			missing("min or max, or both")
		case r.Min != nil && r.Max != nil && r.Min.Relative == r.Max.Relative && r.Min.Value > r.Max.Value:
			d.Problem(n, "%s: min %s is more than max %s", where, r.Min.Text, r.Max.Text)
		}
		for _, b := range []*plan.Bound{r.Min, r.Max} {
			switch {
			case b == nil:
			case r.Kind == plan.NullRateChange && (!b.Relative && b.Value != 0 || math.Abs(b.Value) > 1):
				d.Problem(n, "%s: the bound %s is no change of a rate: want points between -100%% and 100%%, such as 0.5%%", where, b.Text)
			case r.Kind == plan.RowCountChange && !b.Relative && b.Value != math.Trunc(b.Value):
				d.Problem(n, "%s: the bound %s is no number of rows; write a share as %s%%", where, b.Text, strconv.FormatFloat(100*b.Value, 'g', -1, 64))
			case r.Kind == plan.RowCountChange && b.Relative && b == r.Min && b.Value < -1:
				d.Problem(n, "%s: min %s: a table cannot lose more than 100%% of its rows", where, b.Text)
			}
		}
	case plan.DistributionChange:
		if len(r.Columns) == 0 {
			missing("its columns")
		} else if r.PSI == 0 {
			missing("max")
		}
	case plan.Freshness:
		if len(r.Columns) == 0 {
			missing("its column")
		} else if r.MaxAge == nil && r.Advance == nil {
			missing("max_age (by the clock), or advance (against the base)")
		}
	case plan.Reconcile:
		if r.Value == "" || r.To == "" {
			missing("value (an aggregate) and to (the other table)")
			return
		}
		if r.ToValue == "" {
			r.ToValue = r.Value
		}
		if len(r.ToBy) == 0 {
			r.ToBy = r.By
		}
		if len(r.By) != len(r.ToBy) {
			d.Problem(n, "%s: by has %d columns and to_by %d; they are compared one by one", where, len(r.By), len(r.ToBy))
		}
	}
}

func (d *document) columns(n ast.Node, where string) []string {
	var columns []string
	seen := make(map[string]bool)
	d.Texts(n, where, func(s string, n ast.Node) {
		if seen[strings.ToLower(s)] {
			d.Problem(n, "%s names %q twice", where, s)
		}
		seen[strings.ToLower(s)] = true
		columns = append(columns, s)
	})
	if len(columns) == 0 && strictyaml.IsSequence(n) {
		d.Problem(n, "%s is empty", where)
	}
	return columns
}

func (d *document) phrase(n ast.Node, where string) string {
	s, ok := d.Text(n, where)
	if ok && (strings.TrimSpace(s) == "" || len(s) > maxPhrase || strings.ContainsRune(s, 0)) {
		d.Problem(n, "%s is no SQL expression of at most %d bytes", where, maxPhrase)
	}
	return s
}

func (d *document) age(n ast.Node, where string) *time.Duration {
	s := n.GetToken().Value // 0 needs no unit and no quotes
	if _, number := n.(*ast.IntegerNode); !number {
		var ok bool
		if s, ok = d.Text(n, where); !ok {
			return nil
		}
	}
	age, err := plan.ParseAge(s)
	if err != nil {
		d.Problem(n, "%s: %v", where, err)
	}
	return &age
}

// bound reads a number, or a text such as "5%".
func (d *document) bound(n ast.Node, where string) *plan.Bound {
	var b plan.Bound
	switch n := n.(type) {
	case *ast.IntegerNode:
		switch v := n.Value.(type) {
		case int64:
			b.Value = float64(v)
		case uint64:
			b.Value = float64(v)
		}
		b.Text = n.GetToken().Value
	case *ast.FloatNode:
		b.Value, b.Text = n.Value, n.GetToken().Value
	case *ast.StringNode:
		percent, ok := strings.CutSuffix(n.Value, "%")
		v, err := strconv.ParseFloat(strings.TrimSpace(percent), 64)
		if !ok || err != nil {
			d.Problem(n, "%s is %q, want a number such as 100, or a share such as 5%%", where, n.Value)
			return nil
		}
		b = plan.Bound{Value: v / 100, Relative: true, Text: n.Value}
	default:
		d.WrongType(n, where, "a number, or a share such as 5%")
		return nil
	}
	if math.IsNaN(b.Value) || math.Abs(b.Value) > 1e15 {
		d.Problem(n, "%s: %s is out of bounds", where, b.Text)
		return nil
	}
	return &b
}

// minScore reads a share: 80% or 0.8.
func (d *document) minScore(n ast.Node) float64 {
	b := d.bound(n, "min_verifier_score")
	if b == nil {
		return 0
	}
	if b.Value < 0 || b.Value > 1 {
		d.Problem(n, "min_verifier_score is %s, want a share such as 80%%", b.Text)
		return 0
	}
	return b.Value
}
