package exec

import (
	"strings"

	"github.com/headgate/headgate/exec/plan"
)

// holdsByStatistics reports whether a change rule holds by what table.json says of
// the numbers of rows and NULLs. False means that the rows must be looked at, if only
// to show them.
func holdsByStatistics(c *Checked) bool {
	rule := c.Verifier.Rule
	if rule == nil || rule.Kind != plan.RowCountChange && rule.Kind != plan.NullRateChange {
		return false
	}
	var now, base *Table
	for _, b := range c.Bound {
		if strings.HasPrefix(b.Input.Table, plan.BasePrefix) {
			base = b.Table
		} else {
			now = b.Table
		}
	}
	if now == nil || base == nil {
		return false
	}
	before, after := float64(base.Rows()), float64(now.Rows())
	if rule.Kind == plan.RowCountChange {
		change := after - before
		within := func(b *plan.Bound, sign float64) bool {
			switch {
			case b == nil:
				return true
			case b.Relative:
				return before == 0 || sign*change <= sign*b.Value*before
			}
			return sign*change <= sign*b.Value
		}
		return within(rule.Min, -1) && within(rule.Max, 1)
	}
	if before == 0 || after == 0 {
		return true
	}
	had, ok := nulls(base, c.Verifier.Column)
	if !ok {
		had = before // a column that is not there is NULL in every row
	}
	has, ok := nulls(now, c.Verifier.Column)
	if !ok {
		return false // what it means that the column is gone is for SQL to say
	}
	change := has/after - had/before
	return (rule.Min == nil || change >= rule.Min.Value) && (rule.Max == nil || change <= rule.Max.Value)
}

// nulls is the number of NULLs in a column; false if there is no such column.
func nulls(t *Table, column string) (float64, bool) {
	for i, c := range t.Meta.Columns {
		if !strings.EqualFold(c.Name, column) {
			continue
		}
		var n int64
		for _, p := range t.Meta.Parts {
			if i >= len(p.Columns) {
				return 0, false
			}
			n += p.Columns[i].Nulls
		}
		return float64(n), true
	}
	return 0, false
}
