package engine

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks/policy"
)

const (
	sales    = "SELECT i AS id, DATE '2024-01-01' + CAST(i // 20 AS INTEGER) AS day, 's' || i % 7 AS shop, CASE i % 3 WHEN 0 THEN 'EUR' WHEN 1 THEN 'USD' ELSE 'CHF' END AS currency, (i * 37 % 100) / 10 AS amount, (i * 37 % 100) / 5 AS gross, CASE WHEN i % 4 > 0 THEN i % 10 END AS rating FROM range(400) t(i)"
	shops    = "SELECT 's' || i AS name, NULL::VARCHAR AS note FROM range(7) t(i)"
	perShop  = "SELECT shop, sum(amount) AS total, count(*) AS n FROM sales GROUP BY shop ORDER BY shop"
	aboveAll = "SELECT max(total) AS most FROM per_shop"
)

func saleOrder(t testing.TB) *protocol.Order {
	return &protocol.Order{Op: protocol.OpScore, Inputs: []protocol.Table{
		{Name: "sales", Files: []string{write(t, sales, "")}}, {Name: "shops", Files: []string{write(t, shops, "")}},
	}, Score: &protocol.Score{
		Targets:   []protocol.ScoreTable{{Name: "sales", Key: []string{"id"}}},
		Relations: []protocol.ScoreRelation{{Table: "sales", Column: "shop", To: "shops", Field: "name"}},
		Models: []protocol.ScoreQuery{
			{Name: "per_shop", SQL: perShop, Tables: []string{"sales"}},
			{Name: "above_all", SQL: aboveAll, Tables: []string{"per_shop"}},
		},
	}}
}

func mutantsOf(a *protocol.Answer) map[string]protocol.Mutant {
	all := make(map[string]protocol.Mutant)
	for _, t := range a.Score.Tables {
		for _, m := range t.Mutants {
			all[m.Name] = m
		}
	}
	return all
}

// TestScore tells which verifier finds which fault, through models too.
func TestScore(t *testing.T) {
	order := saleOrder(t)
	order.Score.Checks = []protocol.ScoreQuery{
		{Name: "no nulls", SQL: "SELECT * FROM sales WHERE amount IS NULL", Tables: []string{"sales"}},
		{Name: "total", SQL: "SELECT * FROM above_all WHERE most > 300 -- nobody sells more", Tables: []string{"above_all"}},
		{Name: "history", SQL: "SELECT * FROM base.sales ANTI JOIN sales USING (id)", Tables: []string{"base.sales", "sales"}},
		{Name: "counts", SQL: "SELECT 1 FROM (SELECT sum(n) AS n FROM per_shop), (SELECT count(*) AS m FROM sales) WHERE n <> m", Tables: []string{"per_shop", "sales"}},
		{Name: "always", SQL: "SELECT 1", Tables: nil},
		{Name: "broken", SQL: "SELECT nope FROM sales", Tables: []string{"sales"}},
	}
	a, _ := ok(t, order)
	if u := a.Score.Unsound; len(u) != 2 || u[0].Name != "always" || u[1].Name != "broken" || !strings.Contains(u[1].Reason, "nope") {
		t.Errorf("unsound: %+v", u)
	}
	all := mutantsOf(a)
	for name, by := range map[string]string{
		"sales.amount:null": "no nulls", "sales:drop": "history", "sales.day:truncate": "history", "sales.amount:scale": "total", "sales.id:null": "history",
		"sales:duplicate": "", "sales.shop:orphan": "", "sales.currency:widen": "", "sales.day:stale": "", "sales.amount:swap": "", "sales.rating:shift": "",
	} {
		m, there := all[name]
		switch {
		case !there:
			t.Errorf("there is no mutant %s", name)
		case m.By != by || (m.Status == protocol.MutantKilled) != (by != ""):
			t.Errorf("%s is %s by %q, want %q", name, m.Status, m.By, by)
		case by == "" && m.Remedy == nil:
			t.Errorf("%s has no remedy", name)
		}
	}
	for name, want := range map[string]string{
		"sales:duplicate":      "tables: {sales: {key: [id]}}",
		"sales.shop:orphan":    "relationships: {to: shops, field: name}",
		"sales.currency:widen": "accepted_values: [CHF, EUR, USD]",
		"sales.day:stale":      "freshness: {column: day, advance: 0}",
		"sales.amount:swap":    "verifiers/sales_amount_at_most_gross.sql",
		"sales.rating:null":    "null_rate_change: {columns: [rating], max: 0.5%}",
		"sales.rating:scale":   "verifiers/sales_rating_in_range.sql",
		"sales.shop:null":      "tables: {sales: {columns: {shop: {tests: [not_null]}}}}",
	} {
		if r := all[name].Remedy; r == nil || !strings.Contains(r.YAML+r.Path, want) {
			t.Errorf("%s: remedy %+v, want %s", name, r, want)
		}
	}
	if m := all["sales:drop"]; m.Rows != 4 || m.Fault != "4 rows of 400 rows are gone" {
		t.Errorf("drop: %+v", m)
	}
	again, _ := ok(t, order)
	if !reflect.DeepEqual(a, again) {
		t.Error("the same order gave another answer")
	}
}

// TestFaultsOfModels holds that a derived table has faults of its own, and that a
// table which cannot be made again is not asked about those of its sources.
func TestFaultsOfModels(t *testing.T) {
	order := saleOrder(t)
	order.Inputs = append(order.Inputs, protocol.Table{Name: "odd", Files: []string{write(t, "SELECT count(*) AS n FROM ("+sales+")", "")}})
	order.Score.Models = append(order.Score.Models, protocol.ScoreQuery{Name: "odd", Tables: []string{"sales"}})
	order.Score.Targets = []protocol.ScoreTable{{Name: "per_shop"}, {Name: "sales", Key: []string{"id"}}}
	order.Score.Checks = []protocol.ScoreQuery{
		{Name: "sum", SQL: "SELECT 1 WHERE (SELECT sum(n) FROM per_shop) <> (SELECT count(*) FROM sales)", Tables: []string{"per_shop", "sales"}},
		{Name: "odd", SQL: "SELECT 1 WHERE (SELECT n FROM odd) <> (SELECT count(*) FROM sales)", Tables: []string{"odd", "sales"}},
	}
	a, _ := ok(t, order)
	all := mutantsOf(a)
	if m := all["per_shop:drop"]; m.By != "sum" {
		t.Errorf("a lost group: %+v", m)
	}
	if m := all["sales:drop"]; m.Status != protocol.MutantSurvived {
		t.Errorf("a lost sale is in the table that is made of it, and nothing that is here differs: %+v", m)
	}
}

// TestEquivalentMutants change nothing and are told apart.
func TestEquivalentMutants(t *testing.T) {
	order := &protocol.Order{Op: protocol.OpScore, Inputs: []protocol.Table{{Name: "t", Files: []string{
		write(t, "SELECT 0 AS zero, i AS i, i AS same, NULL::INTEGER AS never FROM range(300) t(i)", ""),
	}}}, Score: &protocol.Score{Targets: []protocol.ScoreTable{{Name: "t"}}}}
	a, _ := ok(t, order)
	all := mutantsOf(a)
	for name, want := range map[string]string{
		"t.zero:scale": protocol.MutantEquivalent, "t.i:swap": protocol.MutantEquivalent, "t.zero:shift": protocol.MutantSurvived, "t.i:shuffle": protocol.MutantSurvived,
	} {
		if all[name].Status != want {
			t.Errorf("%s is %q, want %s", name, all[name].Status, want)
		}
	}
	for name := range all {
		if strings.Contains(name, "never") {
			t.Errorf("%s: a column without values has no faults", name)
		}
	}
}

func TestScoreIsBounded(t *testing.T) {
	order := saleOrder(t)
	order.Score.MaxRows, order.Score.MaxMutants = 100, 7
	a, _ := ok(t, order)
	s := a.Score.Tables[0]
	if s.Rows != 100 || !s.Cut || len(s.Mutants) != 7 || s.LeftOut < 10 {
		t.Errorf("%d rows, cut %v, %d mutants, %d left out", s.Rows, s.Cut, len(s.Mutants), s.LeftOut)
	}
}

// TestRemedies holds, for random tables, that each fault has a verifier that finds it and passes
// on the table as it is. The mutants go out as files and are verified as a push is.
func TestRemedies(t *testing.T) {
	// Each table costs some sixty queries; -rapid.checks asks for more.
	checks := flag.Lookup("rapid.checks")
	few := checks.Value.String() == checks.DefValue
	if few {
		defer func(old string) { _ = checks.Value.Set(old) }(checks.Value.String())
		if err := checks.Value.Set("4"); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		types := []string{"i", "i % 5", "i / 4", "'c' || i % 3", "DATE '2024-01-01' + CAST(i // 3 AS INTEGER)", "TIMESTAMP '2024-01-01' + to_minutes(i * 17)",
			"CASE WHEN i % 3 > 0 THEN i * 7 % 11 END", "i % 2 = 0", "[i, i % 2]", "(i % 9)::UTINYINT", "(i % 50)::DECIMAL(5,2)", "'x' || i", "CASE WHEN i % 4 = 0 THEN 'nan'::DOUBLE ELSE i END", "NULL::VARCHAR"}
		n := rapid.IntRange(0, 250).Draw(rt, "rows")
		var list []string
		var key []string
		if rapid.Bool().Draw(rt, "keyed") {
			list, key = append(list, "i AS \"the key\""), []string{"the key"}
		}
		for i, d := range rapid.SliceOfN(rapid.SampledFrom(types), 1, 6).Draw(rt, "columns") {
			list = append(list, fmt.Sprintf("%s AS \"c'%d\"", d, i))
		}
		file := write(t, fmt.Sprintf("SELECT %s FROM range(%d) r(i)", strings.Join(list, ", "), n), "")
		tables := []protocol.Table{{Name: "t", Files: []string{file}}}
		order := &protocol.Order{Op: protocol.OpScore, Inputs: tables, Score: &protocol.Score{
			Seed: rapid.Uint64().Draw(rt, "seed"), Targets: []protocol.ScoreTable{{Name: "t", Key: key}},
		}}
		a, _ := ok(t, order)
		order.Score.Wanted = []protocol.Table{{Name: "t"}}
		faults := a.Score.Tables[0].Mutants
		if n == 0 && len(faults) > 0 {
			rt.Fatalf("an empty table has faults: %+v", faults)
		}
		for _, m := range faults {
			if m.Status == protocol.MutantSurvived && m.Remedy == nil {
				rt.Fatalf("%s has no remedy", m.Name)
			}
			if m.Remedy != nil {
				order.Score.Emit = append(order.Score.Emit, m.Name)
				checkYAML(rt, m.Remedy.YAML)
			}
		}
		if len(order.Score.Emit) == 0 {
			return
		}
		emitted, files := ok(t, order)
		for _, m := range emitted.Score.Tables[0].Mutants {
			path := filepath.Join(t.TempDir(), "mutant.parquet")
			if err := os.WriteFile(path, files[m.Files[0].Name], 0o600); err != nil {
				rt.Fatal(err)
			}
			i := 0
			for faults[i].Name != m.Name {
				i++
			}
			q := []protocol.Query{{Name: "remedy", SQL: faults[i].Remedy.SQL}}
			base := protocol.Table{Name: "base.t", Files: []string{file}}
			good, _ := ok(t, &protocol.Order{Op: protocol.OpVerify, Queries: q, Inputs: []protocol.Table{tables[0], base}})
			bad, _ := ok(t, &protocol.Order{Op: protocol.OpVerify, Queries: q, Inputs: []protocol.Table{{Name: "t", Files: []string{path}}, base}})
			if c := good.Checks[0]; c.Error != nil || c.Violations > 0 {
				rt.Fatalf("%s: its remedy does not pass on the table: %+v\n%s", m.Name, c, q[0].SQL)
			}
			if c := bad.Checks[0]; c.Error != nil || c.Violations == 0 {
				rt.Fatalf("%s: its remedy does not find it: %+v\n%s", m.Name, c, q[0].SQL)
			}
		}
	})
}

// checkYAML holds that a piece of headgate.yaml is one.
func checkYAML(t *rapid.T, text string) {
	if text == "" {
		return
	}
	p, err := policy.Parse("headgate.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, table := range p.Tables {
		rules := len(table.Rules)
		for _, c := range table.Columns {
			rules += len(c.Tests)
		}
		if rules+len(table.Key) != 1 {
			t.Fatalf("%d rules in\n%s", rules, text)
		}
	}
}

func TestScalarsOfYAML(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringN(1, 20, 60).Draw(rt, "text")
		p, err := policy.Parse("headgate.yaml", []byte("tables: {t: {columns: {c: {tests: [{accepted_values: "+flow(text, "no", "0x1")+"}]}}}}"))
		if err != nil {
			rt.Fatalf("%q: %v", text, err)
		}
		if got := p.Tables["t"].Columns["c"].Tests[0]; got.Kind != plan.AcceptedValues || !reflect.DeepEqual(got.Values, []any{text, "no", "0x1"}) {
			rt.Fatalf("%q became %q", text, got.Values)
		}
	})
}

// TestSuggestions names what holds, and nothing that does not.
func TestSuggestions(t *testing.T) {
	order := saleOrder(t)
	order.Op, order.Score.Parents = protocol.OpSuggest, []string{"sales", "shops", "per_shop"}
	a, _ := ok(t, order)
	kinds := make(map[string]bool)
	var queries []protocol.Query
	for _, s := range a.Suggestions {
		kinds[s.Column+":"+s.Kind] = true
		queries = append(queries, protocol.Query{Name: s.Kind, SQL: s.SQL})
	}
	for _, want := range []string{"day:not_null", "shop:relationships", "currency:accepted_values", "amount:range", "day:freshness", "day:no_gap", ":immutable_history"} {
		if !kinds[want] {
			t.Errorf("%s is not suggested: %v", want, kinds)
		}
	}
	for _, wrong := range []string{"rating:not_null", "amount:unique", "id:not_null", "shop:accepted_values"} {
		if kinds[wrong] {
			t.Errorf("%s is suggested", wrong)
		}
	}
	in := []protocol.Table{order.Inputs[0], order.Inputs[1], {Name: "base.sales", Files: order.Inputs[0].Files}}
	held, _ := ok(t, &protocol.Order{Op: protocol.OpVerify, Inputs: in, Queries: queries})
	for i, c := range held.Checks {
		if c.Error != nil || c.Violations > 0 {
			t.Errorf("%s fails on the data that it is of: %+v", queries[i].Name, c)
		}
	}
}
