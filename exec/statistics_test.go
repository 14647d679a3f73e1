package exec

import (
	"testing"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/objects/table"
)

// described is a table of which only table.json is known.
func described(rows, nulls int64) *Table {
	part := func(r, n int64) table.Part {
		return table.Part{Rows: r, Columns: []table.Stats{{Nulls: 0}, {Nulls: n}}}
	}
	return &Table{Meta: &table.Snapshot{
		Columns: []table.Column{{Name: "id", Type: "BIGINT"}, {Name: "C", Type: "VARCHAR"}},
		Parts:   []table.Part{part(rows/2, 0), part(rows-rows/2, nulls)},
	}}
}

func TestRulesHoldByStatistics(t *testing.T) {
	share := func(v float64) *plan.Bound { return &plan.Bound{Value: v, Relative: true} }
	rows := func(v float64) *plan.Bound { return &plan.Bound{Value: v} }
	for name, c := range map[string]struct {
		rule      plan.Rule
		base, now *Table
		holds     bool
	}{
		"no change":            {plan.Rule{Kind: plan.RowCountChange, Min: rows(0), Max: rows(0)}, described(100, 0), described(100, 0), true},
		"one lost":             {plan.Rule{Kind: plan.RowCountChange, Min: rows(0)}, described(100, 0), described(99, 0), false},
		"1% lost":              {plan.Rule{Kind: plan.RowCountChange, Min: share(-0.01)}, described(100, 0), described(99, 0), true},
		"2% lost":              {plan.Rule{Kind: plan.RowCountChange, Min: share(-0.01)}, described(100, 0), described(98, 0), false},
		"half more":            {plan.Rule{Kind: plan.RowCountChange, Min: share(-0.01), Max: share(0.49)}, described(100, 0), described(150, 0), false},
		"new, relative":        {plan.Rule{Kind: plan.RowCountChange, Max: share(0.01)}, described(0, 0), described(150, 0), true},
		"new, absolute":        {plan.Rule{Kind: plan.RowCountChange, Max: rows(149)}, described(0, 0), described(150, 0), false},
		"nulls as before":      {plan.Rule{Kind: plan.NullRateChange, Max: share(0)}, described(100, 10), described(200, 20), true},
		"more nulls":           {plan.Rule{Kind: plan.NullRateChange, Max: share(0.01)}, described(100, 10), described(100, 12), false},
		"fewer nulls":          {plan.Rule{Kind: plan.NullRateChange, Min: share(-0.01)}, described(100, 10), described(100, 8), false},
		"nulls of a new table": {plan.Rule{Kind: plan.NullRateChange, Max: share(0)}, described(0, 0), described(100, 8), true},
		"needs the rows":       {plan.Rule{Kind: plan.ImmutableHistory}, described(1, 0), described(1, 0), false},
	} {
		checked := &Checked{
			Verifier: &plan.Verifier{Column: "c", Rule: &c.rule},
			Bound:    []Bound{{Input: plan.Input{Table: "base.t"}, Table: c.base}, {Input: plan.Input{Table: "t"}, Table: c.now}},
		}
		if got := holdsByStatistics(checked); got != c.holds {
			t.Errorf("%s: %v", name, got)
		}
	}
	gone := described(100, 0)
	gone.Meta.Columns = gone.Meta.Columns[:1]
	if holdsByStatistics(&Checked{
		Verifier: &plan.Verifier{Column: "c", Rule: &plan.Rule{Kind: plan.NullRateChange, Max: share(1)}},
		Bound:    []Bound{{Input: plan.Input{Table: "base.t"}, Table: described(100, 0)}, {Input: plan.Input{Table: "t"}, Table: gone}},
	}) {
		t.Error("a column that is gone cannot be told of by table.json")
	}
	if holdsByStatistics(&Checked{Verifier: &plan.Verifier{}}) {
		t.Error("what is no rule holds by nothing")
	}
}
