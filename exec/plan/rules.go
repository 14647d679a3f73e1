package plan

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/spelling"
	"github.com/headgate/headgate/objects/table"
)

// RuleKind names a built-in change rule.
type RuleKind string

// The change rules. Where a rule compares with the base, a table that the base
// lacks, or has without rows, has nothing to be compared with: docs/verifiers.md
// says of each rule what then holds.
const (
	RowCountChange     RuleKind = "row_count_change"
	NullRateChange     RuleKind = "null_rate_change"
	DistributionChange RuleKind = "distribution_change"
	Freshness          RuleKind = "freshness"
	Reconcile          RuleKind = "reconcile"
	ImmutableHistory   RuleKind = "immutable_history"
)

// RuleKinds are all kinds, in the order in which they are documented.
var RuleKinds = []RuleKind{RowCountChange, NullRateChange, DistributionChange, Freshness, Reconcile, ImmutableHistory}

// Bounds of the number of bins that a distribution is counted in.
const (
	MinBins, MaxBins = 2, 100
	DefaultBins      = 10
)

// FewValues is how many different values a column has at most at the base for
// each of them to be a bin of its own. A column with more is cut at quantiles.
const FewValues = 50

// Bound is a figure that a rule compares with: 100 rows, or 5% of them.
type Bound struct {
	Value    float64 // 0.05 for 5%
	Relative bool
	Text     string // as it was written
}

// Rule is a statement about a table as a whole, mostly about how it may change.
// Fields that a kind does not name are zero.
type Rule struct {
	Kind     RuleKind
	Line     int
	Name     string // tells rules of one kind apart; part of the verifier's name
	Severity Severity

	Columns []string // NullRateChange, DistributionChange: each is a verifier; Freshness: one; ImmutableHistory: nil is all
	// Min and Max bound the change: now less base, of rows (RowCountChange) or of the
	// share of NULLs (NullRateChange, relative). Nil is no bound.
	Min, Max *Bound

	PSI  float64 // DistributionChange: the greatest population stability index
	Bins int     // DistributionChange

	MaxAge  *time.Duration // Freshness: of the newest value, by the clock
	Advance *time.Duration // Freshness: how much newer than the newest of the base it is at least

	Key []string // ImmutableHistory: nil is the table's own

	// Value is an aggregate over the table, which must agree with ToValue over To, for
	// each group of By and ToBy, to the Tolerance (relative to ToValue).
	Value, To, ToValue string
	By, ToBy           []string
	Tolerance          Bound
	// Where restricts the rows that are looked at: of the base (ImmutableHistory), of
	// the table (Reconcile). ToWhere does the same for To.
	Where, ToWhere string
}

// phrase is a piece of SQL in a rule.
type phrase struct {
	rule  int // index into the rules
	field string
	text  string
}

// tableRule is a rule and the table it is about.
type tableRule struct {
	table string
	rule  Rule
	clock []protocol.ClockRead // that its phrases read
}

// changeRules compiles the policy's rules to verifiers. keys are those of source tables.
func (b *builder) changeRules(ctx context.Context, snapshots map[string]*table.Snapshot, keys map[string][]string) error {
	var rules []tableRule
	for _, written := range slices.Sorted(maps.Keys(b.settings.Tables)) {
		name, ok := b.names.find(written)
		if !ok {
			continue // it was told
		}
		for _, r := range b.settings.Tables[written].Rules {
			rules = append(rules, tableRule{table: name, rule: r})
		}
	}
	if len(rules) == 0 {
		return nil
	}
	if err := b.checkPhrases(ctx, rules); err != nil {
		return err
	}
	for i := range rules {
		r := &rules[i]
		key := b.keyOf(r.table, keys)
		if len(r.rule.Key) > 0 {
			key = r.rule.Key
		}
		if b.checkRule(r, snapshots) {
			b.compileRule(r, key)
		}
	}
	return nil
}

// keyOf returns the key of a table, nil if it has none.
func (b *builder) keyOf(name string, keys map[string][]string) []string {
	if i, made := b.names.made[strings.ToLower(name)]; made {
		return b.models[i].Key
	}
	return keys[name]
}

// checkPhrases has the SQL in rules read by DuckDB: each must be one expression,
// over the columns of its table alone. It is parsed here without the parentheses
// that it is put into, where half of another query would parse too.
func (b *builder) checkPhrases(ctx context.Context, rules []tableRule) error {
	var phrases []phrase
	var ask []protocol.Query
	add := func(rule int, field, before, text string) {
		if text == "" {
			return
		}
		phrases = append(phrases, phrase{rule: rule, field: field, text: text})
		ask = append(ask, protocol.Query{Name: fmt.Sprintf("rule %d", len(ask)), SQL: before + text})
	}
	for i := range rules {
		r := &rules[i].rule
		add(i, "where", "SELECT 1 WHERE ", r.Where)
		add(i, "to_where", "SELECT 1 WHERE ", r.ToWhere)
		add(i, "value", "SELECT ", r.Value)
		if r.ToValue != r.Value {
			add(i, "to_value", "SELECT ", r.ToValue)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	answers, err := b.d.Tables(ctx, ask)
	if err != nil {
		return err
	}
	if len(answers) != len(ask) {
		return fmt.Errorf("asked for the tables of %d expressions, have %d answers", len(ask), len(answers))
	}
	for i, a := range answers {
		p := phrases[i]
		r := &rules[p.rule]
		where := fmt.Sprintf("tables.%s.rules.%s.%s", r.table, r.rule.Kind, p.field)
		switch {
		case a.Error != nil:
			b.problem(b.settings.File, r.rule.Line, "%s is no expression: %s", where, a.Error.Message)
		case len(a.Tables) > 0:
			b.problem(b.settings.File, r.rule.Line, "%s reads table %q: it is an expression over the columns of its own table; write a verifier in SQL for more", where, clip(a.Tables[0]))
		case len(a.Variables) > 0:
			b.problem(b.settings.File, r.rule.Line, "%s reads the variable %q, which no verifier has", where, clip(a.Variables[0]))
		}
		r.clock = append(r.clock, a.Clock...)
	}
	return nil
}

// checkRule holds a rule's names against the tables and columns that there are.
func (b *builder) checkRule(r *tableRule, snapshots map[string]*table.Snapshot) bool {
	before := len(b.problems)
	for _, list := range [][]string{r.rule.Columns, r.rule.Key, r.rule.By} {
		for _, column := range list {
			b.checkColumn(r.rule.Line, r.table, column, snapshots[r.table])
		}
	}
	if r.rule.Kind == Freshness && len(r.rule.Columns) == 1 {
		b.checkTime(r, snapshots[r.table])
	}
	if r.rule.Kind == Reconcile {
		to, ok := b.names.find(r.rule.To)
		if !ok {
			b.problem(b.settings.File, r.rule.Line, "reconcile: there is no table %q%s", clip(r.rule.To), spelling.DidYouMean(r.rule.To, b.names.known()))
			return false
		}
		r.rule.To = to
		for _, column := range r.rule.ToBy {
			b.checkColumn(r.rule.Line, to, column, snapshots[to])
		}
	}
	return len(b.problems) == before
}

// checkTime refuses freshness of what is no time, where the type is known yet.
func (b *builder) checkTime(r *tableRule, snapshot *table.Snapshot) {
	if snapshot == nil {
		return
	}
	for _, c := range snapshot.Columns {
		if strings.EqualFold(c.Name, r.rule.Columns[0]) && c.Type != "DATE" && !strings.HasPrefix(c.Type, "TIMESTAMP") {
			b.problem(b.settings.File, r.rule.Line, "freshness: column %q of table %s is of type %s, not DATE or TIMESTAMP", clip(c.Name), r.table, clip(c.Type))
		}
	}
}

// compileRule adds the verifiers of a rule.
func (b *builder) compileRule(r *tableRule, key []string) {
	columns := []string{""}
	if r.rule.Kind == NullRateChange || r.rule.Kind == DistributionChange || r.rule.Kind == Freshness {
		columns = r.rule.Columns
	}
	for _, column := range columns {
		rule := r.rule
		v := Verifier{
			Path: b.settings.File, Line: rule.Line, Kind: KindColumn, Table: r.table, Column: column,
			Severity: rule.Severity, Rule: &rule, Inputs: []Input{{Table: r.table}}, Clock: r.clock,
		}
		if rule.Kind != Reconcile {
			v.Inputs = append([]Input{{Table: BasePrefix + r.table}}, v.Inputs...)
		} else if rule.To != r.table {
			v.Inputs = append(v.Inputs, Input{Table: rule.To})
		}
		v.Name = r.table
		if column != "" {
			v.Name += "." + column
		}
		v.Name += ":" + string(rule.Kind)
		if rule.Name != "" {
			v.Name += ":" + rule.Name
		}
		v.SQL, v.Evidence = rule.Compile(r.table, column, key)
		if rule.MaxAge != nil {
			v.Clock = append(v.Clock[:len(v.Clock):len(v.Clock)], protocol.ClockRead{Name: "now()", Line: 1, Column: 1})
		}
		b.verify = append(b.verify, v)
	}
}

// Compile returns the two queries of a rule about a table: its finding, which has a
// row if the rule is violated, and the rows that show it. column is one of Columns
// for kinds of which each column is a verifier; key is the rule's own or the table's.
func (r *Rule) Compile(table, column string, key []string) (finding, evidence string) {
	switch r.Kind {
	case RowCountChange:
		return rowCountSQL(table, r, key)
	case NullRateChange:
		return nullRateSQL(table, column, r, key)
	case DistributionChange:
		return distributionSQL(table, column, r)
	case Freshness:
		return freshnessSQL(table, column, r)
	case Reconcile:
		return reconcileSQL(table, r)
	case ImmutableHistory:
		return historySQL(table, r, key)
	}
	panic("no such rule: " + string(r.Kind)) // the policy has read it
}
