package engine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// blobs is a store in a map.
type blobs map[objects.OID][]byte

func (m blobs) Stat(_ context.Context, oid objects.OID) (objects.Info, error) {
	kind := objects.Blob
	if plumbing.ComputeHash(objects.Tree, m[oid]) == oid {
		kind = objects.Tree
	}
	return objects.Info{Type: kind, Size: int64(len(m[oid]))}, nil
}

func (m blobs) Open(ctx context.Context, oid objects.OID) (objects.Info, io.ReadCloser, error) {
	info, err := m.Stat(ctx, oid)
	return info, io.NopCloser(bytes.NewReader(m[oid])), err
}

func (m blobs) put(kind objects.Type, data []byte) objects.OID {
	oid := plumbing.ComputeHash(kind, data)
	m[oid] = data
	return oid
}

// declarer reads queries with an engine of its own.
type declarer struct{ t testing.TB }

func (d declarer) Tables(_ context.Context, queries []protocol.Query) ([]protocol.QueryTables, error) {
	a, _ := ok(d.t, &protocol.Order{Op: protocol.OpTables, Queries: queries})
	return a.Tables, nil
}

func (declarer) Declare(context.Context, []protocol.Source) ([]protocol.Declaration, error) {
	return nil, nil
}

// rulesOf compiles the rules of a policy for tables t and u.
func rulesOf(t testing.TB, rules string) ([]protocol.Query, error) {
	t.Helper()
	p, err := policy.Parse("headgate.yaml", []byte(rules))
	if err != nil {
		return nil, err
	}
	store := blobs{}
	var models []gitobj.Entry
	for _, name := range []string{"t.sql", "u.sql"} {
		models = append(models, gitobj.Entry{Name: name, Mode: gitobj.ModeFile, OID: store.put(objects.Blob, []byte("SELECT 1 AS x"))})
	}
	dir, err := gitobj.EncodeTree(models)
	if err != nil {
		t.Fatal(err)
	}
	root, err := gitobj.EncodeTree([]gitobj.Entry{{Name: "models", Mode: gitobj.ModeTree, OID: store.put(objects.Tree, dir)}})
	if err != nil {
		t.Fatal(err)
	}
	made, err := plan.Build(context.Background(), store, store.put(objects.Tree, root), p.PlanSettings(), declarer{t})
	if err != nil {
		return nil, err
	}
	var queries []protocol.Query
	for _, v := range made.Verifiers {
		queries = append(queries, protocol.Query{Name: v.Name, SQL: v.SQL, Evidence: v.Evidence})
	}
	return queries, nil
}

// TestRules holds each rule against a base and a state: what it finds, and in how many rows.
func TestRules(t *testing.T) {
	const hundred = "SELECT i AS id, i % 7 AS n, DATE '2024-01-01' + CAST(i // 10 AS INTEGER) AS day, CASE WHEN i % 10 > 0 THEN 'c' || i % 3 END AS c FROM range(100) t(i)"
	for name, c := range map[string]struct {
		rule    string
		key     string
		base    string // of t; "" is a table without rows
		now     string
		u       string
		finding string // "" is a pass
		rows    int64
	}{
		"rows within":         {rule: "row_count_change: {min: -5%, max: 5%}", base: hundred, now: "FROM (" + hundred + ") LIMIT 95"},
		"rows lost":           {rule: "row_count_change: {min: -5%, max: 5%}", base: hundred, now: "FROM (" + hundred + ") LIMIT 94", finding: "rows went from 100 to 94 (-6, -6.00%); allowed is a change from -5% to 5%", rows: 6},
		"rows lost by key":    {rule: "row_count_change: {min: 0}", key: "id", base: hundred, now: "SELECT * REPLACE (n + 1 AS n) FROM (" + hundred + ") LIMIT 98", finding: "rows went from 100 to 98 (-2, -2.00%); allowed is a change of at least 0", rows: 2},
		"rows edited":         {rule: "row_count_change: {min: 0, max: 0}", key: "id", base: hundred, now: "SELECT * REPLACE (n + 1 AS n) FROM (" + hundred + ")"},
		"rows added":          {rule: "row_count_change: {max: 20}", base: "FROM (" + hundred + ") LIMIT 10", now: hundred, finding: "rows went from 10 to 100 (+90, +900.00%); allowed is a change of at most 20", rows: 90},
		"no growth":           {rule: "row_count_change: {min: 1}", base: hundred, now: hundred, finding: "rows went from 100 to 100 (+0, +0.00%); allowed is a change of at least 1", rows: 1},
		"first rows":          {rule: "row_count_change: {min: 0%, max: 1%}", now: hundred},
		"first rows, counted": {rule: "row_count_change: {max: 50}", now: hundred, finding: "rows went from 0 to 100 (+100); allowed is a change of at most 50", rows: 100},
		"other columns":       {rule: "row_count_change: {min: 0}", base: hundred, now: "SELECT id, n, 'x' AS extra FROM (" + hundred + ") LIMIT 99", finding: "rows went from 100 to 99", rows: 100},

		"nulls within":       {rule: "null_rate_change: {columns: [c], max: 1%}", base: hundred, now: "SELECT * REPLACE (CASE WHEN id <> 1 THEN c END AS c) FROM (" + hundred + ")"},
		"nulls rise":         {rule: "null_rate_change: {columns: [c], max: 1%}", key: "id", base: hundred, now: "SELECT * REPLACE (CASE WHEN id > 3 THEN c END AS c) FROM (" + hundred + ")", finding: "NULLs in c went from 10.00% to 13.00% (+3.00 points); allowed is a change of at most 1%", rows: 13},
		"nulls fall":         {rule: "null_rate_change: {columns: [c], min: -1%}", base: hundred, now: "SELECT * REPLACE (coalesce(c, 'x') AS c) FROM (" + hundred + ")", finding: "NULLs in c went from 10.00% to 0.00% (-10.00 points)", rows: 1},
		"nulls of the first": {rule: "null_rate_change: {columns: [c], max: 1%}", now: hundred},

		"same distribution":  {rule: "distribution_change: {columns: [id], max: 0.01}", base: hundred, now: "SELECT * REPLACE (99 - id AS id) FROM (" + hundred + ")"},
		"shifted":            {rule: "distribution_change: {columns: [id], max: 0.2}", base: hundred, now: "SELECT * REPLACE (id + 30 AS id) FROM (" + hundred + ")", finding: "the distribution of id changed: its population stability index is 2.4861, allowed is 0.2", rows: 10},
		"scaled text":        {rule: "distribution_change: {columns: [c], max: 0.2}", base: hundred, now: "SELECT * REPLACE (CASE WHEN c = 'c1' THEN 'd1' ELSE c END AS c) FROM (" + hundred + ")", finding: "its population stability index is 4.8022", rows: 5},
		"nobody is left":     {rule: "distribution_change: {columns: [n], max: 0.2}", base: hundred, now: "FROM (" + hundred + ") WHERE false", finding: "the distribution of n changed", rows: 7},
		"first distribution": {rule: "distribution_change: {columns: [n], max: 0.2}", now: hundred},

		"fresh":          {rule: "freshness: {column: day, max_age: 2d}", base: hundred, now: "SELECT now() - INTERVAL 1 DAY AS day"},
		"stale":          {rule: "freshness: {column: day, max_age: 2d}", base: hundred, now: hundred, finding: "the newest day is 2024-01-10 00:00:00; it may be 2d old at 20", rows: 20},
		"future":         {rule: "freshness: {column: day, max_age: 2d}", base: hundred, now: "SELECT now() + INTERVAL 1 DAY AS day UNION ALL SELECT now() - INTERVAL 9 DAY", finding: "the newest day is 20", rows: 2},
		"goes back":      {rule: "freshness: {column: day, advance: 0}", base: hundred, now: "FROM (" + hundred + ") LIMIT 90", finding: "the newest day is 2024-01-09 00:00:00; it may not be older than the base's, 2024-01-10 00:00:00", rows: 20},
		"advances":       {rule: "freshness: {column: day, advance: 1d}", base: "FROM (" + hundred + ") LIMIT 90", now: hundred},
		"stands still":   {rule: "freshness: {column: day, advance: 1d}", base: hundred, now: hundred, finding: "it must be 1d newer than the base's", rows: 20},
		"first advances": {rule: "freshness: {column: day, advance: 1d}", now: hundred},

		"agrees":           {rule: "reconcile: {value: sum(n), to: u, to_value: max(total)}", now: hundred, u: "SELECT 295 AS total"},
		"disagrees":        {rule: "reconcile: {value: sum(n), to: u, to_value: max(total)}", now: hundred, u: "SELECT 290 AS total", finding: "1 of 1 values of sum(n) differ from max(total) of u; 295 against 290; allowed is a difference of 0", rows: 1},
		"near enough":      {rule: "reconcile: {value: sum(n), to: u, to_value: max(total), tolerance: 2%}", now: hundred, u: "SELECT 290 AS total"},
		"not near":         {rule: "reconcile: {value: sum(n), to: u, to_value: max(total), tolerance: 4}", now: hundred, u: "SELECT 290 AS total", finding: "; 295 against 290; allowed is a difference of 4", rows: 1},
		"groups":           {rule: "reconcile: {value: count(*), to: u, to_value: sum(k), by: [c], to_by: [name]}", now: hundred, u: "SELECT c AS name, count(*) AS k FROM (" + hundred + ") GROUP BY 1"},
		"a group is wrong": {rule: "reconcile: {value: count(*), where: c <> 'c2', to: u, to_value: sum(k), by: [c], to_by: [name]}", now: hundred, u: "SELECT c AS name, count(*) AS k FROM (" + hundred + ") WHERE c IS NOT NULL GROUP BY 1", finding: "1 of 3 values of count(*) differ from sum(k) of u; c = c2: nothing against 30", rows: 1},

		"history":          {rule: "immutable_history", key: "id", base: hundred, now: hundred + " UNION ALL SELECT 100, 1, DATE '2024-02-01', NULL"},
		"history changed":  {rule: "immutable_history", key: "id", base: hundred, now: "SELECT * REPLACE (CASE WHEN id = 5 THEN 99 ELSE n END AS n) FROM (" + hundred + ") WHERE id > 1", finding: "2 gone and 1 changed of the rows of the base; allowed are 0", rows: 3},
		"another column":   {rule: "immutable_history: {columns: [c]}", key: "id", base: hundred, now: "SELECT * REPLACE (CASE WHEN id = 5 THEN 99 ELSE n END AS n) FROM (" + hundred + ")"},
		"a column is gone": {rule: "immutable_history: {columns: [c]}", key: "id", base: hundred, now: "SELECT id FROM (" + hundred + ")", finding: "0 gone and 90 changed", rows: 90},
		"younger rows":     {rule: "immutable_history: {where: \"day < DATE '2024-01-10'\"}", key: "id", base: hundred, now: "FROM (" + hundred + ") LIMIT 90"},
		"older rows":       {rule: "immutable_history: {where: \"day < DATE '2024-01-10'\"}", key: "id", base: hundred, now: "FROM (" + hundred + ") LIMIT 89", finding: "1 gone and 0 changed of the rows of the base where day < DATE '2024-01-10'", rows: 1},
		"without a key":    {rule: "immutable_history", base: hundred, now: "FROM (" + hundred + ") LIMIT 97", finding: "3 rows of the base are gone or changed", rows: 3},
		"its own key":      {rule: "immutable_history: {key: [day], columns: [day]}", base: hundred, now: "FROM (" + hundred + ") WHERE id % 10 = 0"},
	} {
		t.Run(name, func(t *testing.T) {
			key := ""
			if c.key != "" {
				key = "key: [" + c.key + "], "
			}
			queries, err := rulesOf(t, fmt.Sprintf("tables: {t: {%srules: [%s]}}", key, c.rule))
			if err != nil || len(queries) != 1 {
				t.Fatalf("%v, %d rules", err, len(queries))
			}
			if c.base == "" {
				c.base = "FROM (" + c.now + ") WHERE false"
			}
			if c.u == "" {
				c.u = "SELECT 1 AS x"
			}
			a, files := ok(t, &protocol.Order{Op: protocol.OpVerify, MaxRows: 1000, Queries: queries, Inputs: []protocol.Table{
				{Name: "t", Files: []string{write(t, c.now, "")}}, {Name: "base.t", Files: []string{write(t, c.base, "")}}, {Name: "u", Files: []string{write(t, c.u, "")}},
			}})
			check := a.Checks[0]
			switch {
			case check.Error != nil:
				t.Fatalf("%+v\n%s", check.Error, queries[0].SQL)
			case c.finding == "" && check.Violations > 0:
				t.Errorf("refuses: %s %v", check.Message, check.Sample)
			case c.finding != "" && !strings.Contains(check.Message, c.finding), check.Violations != c.rows:
				t.Errorf("found %q in %d rows, want %q in %d\n%v", check.Message, check.Violations, c.finding, c.rows, check.Sample)
			case c.finding != "" && int64(len(rowsOf(t, files[check.File]))) != c.rows+1:
				t.Errorf("%d rows are kept, want %d", len(rowsOf(t, files[check.File]))-1, c.rows)
			}
		})
	}
}

// TestRulesThatAreWrong holds that a rule which says nothing sensible is refused with its line.
func TestRulesThatAreWrong(t *testing.T) {
	for rule, want := range map[string]string{
		"row_count_change":                                          "needs its bounds: {row_count_change: {min: -1%, max: 20%}}",
		"row_count: {min: 1}":                                       `unknown rule "row_count" (there are row_count_change, `,
		"row_count_change: {}":                                      "needs min or max",
		"row_count_change: {min: 5%, max: 1%}":                      "min 5% is more than max 1%",
		"row_count_change: {min: -101%}":                            "cannot lose more than 100%",
		"row_count_change: {max: 0.5}":                              "the bound 0.5 is no number of rows; write a share as 50%",
		"row_count_change: {max: 5 %, min: x}":                      `min is "x", want a number such as 100, or a share such as 5%`,
		"row_count_chang: {max: 1}":                                 `did you mean "row_count_change"?`,
		"row_count_change: {max: 1, most: 2}":                       `unknown key "most"`,
		"row_count_change: {max: 1, severity: loud}":                `"loud" is no severity`,
		"row_count_change: {max: 1, name: a b}":                     "want letters, digits",
		"null_rate_change: {max: 1%}":                               "needs its columns",
		"null_rate_change: {columns: [], max: 1%}":                  "columns is empty",
		"null_rate_change: {columns: [a, A], max: 1%}":              `names "A" twice`,
		"null_rate_change: {columns: [a], max: 2}":                  "the bound 2 is no change of a rate",
		"distribution_change: {columns: [a]}":                       "needs max",
		"distribution_change: {columns: [a], max: 0}":               "above 0 and at most 100",
		"distribution_change: {columns: [a], max: 1, bins: 1}":      "bins must be a number between 2 and 100",
		"freshness: {column: a}":                                    "needs max_age (by the clock), or advance",
		"freshness: {column: a, max_age: 2 weeks}":                  `"2 weeks" is not an age such as 36h, 2d or 1w`,
		"freshness: {column: a, max_age: 99999999w}":                "100 years",
		"reconcile: {value: sum(a)}":                                "needs value (an aggregate) and to",
		"reconcile: {value: sum(a), to: v}":                         `there is no table "v"`,
		"reconcile: {value: sum(a), to: u, tolerance: -1}":          "tolerance is less than 0",
		"reconcile: {value: sum(a), to: u, by: [a, b], to_by: [a]}": "by has 2 columns and to_by 1",
		"reconcile: {value: sum(a, to: u}":                          "headgate.yaml:1",
		"reconcile: {value: \"1) FROM u --\", to: u}":               "value is no expression",
		"reconcile: {value: \"(SELECT max(x) FROM u)\", to: u}":     `reads table "u"`,
		"immutable_history: {where: \"true) OR (true\"}":            "where is no expression",
		"immutable_history: {where: \"x = getvariable('y')\"}":      `reads the variable "y"`,
		"[1]":          "must be a text",
		"{a: 1, b: 2}": "unknown rule",
	} {
		_, err := rulesOf(t, "tables: {t: {rules: ["+rule+"]}}\n")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "headgate.yaml:1: ") {
			t.Errorf("%s\n  gives %v\n  want  %s", rule, err, want)
		}
	}
	_, err := rulesOf(t, "tables:\n  t:\n    rules:\n      - row_count_change: {max: 1}\n      - row_count_change: {max: 2}\n")
	if err == nil || !strings.Contains(err.Error(), `headgate.yaml:5: verifier "t:row_count_change" is already in headgate.yaml`) {
		t.Errorf("two of one name: %v", err)
	}
	if q, err := rulesOf(t, "tables:\n  t:\n    rules:\n      - row_count_change: {max: 1}\n      - row_count_change: {max: 2, name: b}\n"); err != nil || q[1].Name != "t:row_count_change:b" {
		t.Errorf("named: %v %v", q, err)
	}
}
