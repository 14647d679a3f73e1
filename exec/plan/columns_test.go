package plan_test

import (
	"testing"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/objects/table"
)

func TestColumnTestsAreQueriesOfTheViolatingRows(t *testing.T) {
	p := mustBuild(t, with(flights, map[string]string{"models/mart/daily.sql": "FROM flights", "verifiers/v.sql": "FROM flights"}), &plan.Settings{
		File: "headgate.yaml",
		Tables: map[string]plan.Rules{
			"flights": {Columns: map[string][]plan.Test{
				"origin": {
					{Kind: plan.NotNull, Line: 3},
					{Kind: plan.Relationships, To: "REF.airports", Field: "iata", Line: 4},
					{Kind: plan.Relationships, To: "flights", Field: "destination"},
				},
				`odd "name`: {{Kind: plan.Unique}},
			}},
			"Mart.Daily": {Key: []string{"day"}, Columns: map[string][]plan.Test{
				"status": {{Kind: plan.AcceptedValues, Values: []any{"on time", "it's", int64(-3), uint64(7), 0.5, true}}},
			}},
		},
	})
	equal(t, "key by policy", p.Models[0].Key, []string{"day"})
	for i, want := range []struct {
		name, sql string
		inputs    []string
	}{
		{"v", "FROM flights", []string{"flights"}},
		{"mart.daily.status:accepted_values", `SELECT * FROM "mart"."daily" WHERE "status" NOT IN ('on time', 'it''s', -3, 7, 0.5, TRUE)`, []string{"mart.daily"}},
		{`flights.odd "name:unique`, `SELECT * FROM "flights" WHERE "odd ""name" IN (SELECT "odd ""name" FROM "flights" WHERE "odd ""name" IS NOT NULL GROUP BY "odd ""name" HAVING count(*) > 1) ORDER BY "odd ""name"`, []string{"flights"}},
		{"flights.origin:not_null", `SELECT * FROM "flights" WHERE "origin" IS NULL`, []string{"flights"}},
		{"flights.origin:relationships", `SELECT child.* FROM "flights" AS child ANTI JOIN "ref"."airports" AS parent ON child."origin" = parent."iata" WHERE child."origin" IS NOT NULL`, []string{"flights", "ref.airports"}},
		{"flights.origin:relationships:flights", `SELECT child.* FROM "flights" AS child ANTI JOIN "flights" AS parent ON child."origin" = parent."destination" WHERE child."origin" IS NOT NULL`, []string{"flights"}},
	} {
		if i == len(p.Verifiers) {
			t.Fatalf("only %d verifiers", i)
		}
		v := p.Verifiers[i]
		if v.Name != want.name || v.SQL != want.sql {
			t.Errorf("have %s: %s\nwant %s: %s", v.Name, v.SQL, want.name, want.sql)
		}
		equal(t, want.name+" reads", tables(v.Inputs), want.inputs)
	}
	if v := p.Verifiers[4]; v.Kind != plan.KindColumn || v.Table != "flights" || v.Column != "origin" || v.Path != "headgate.yaml" || v.Line != 4 {
		t.Errorf("have %+v", v)
	}
}

func TestProblemsOfRules(t *testing.T) {
	meta := &table.Snapshot{Format: table.Format, Columns: []table.Column{{Name: "Origin", Type: "VARCHAR", Nullable: true}}, Parts: []table.Part{}}
	files := map[string]string{
		"tables/flights/" + table.FileName: string(meta.Encode()),
		"models/daily.sql":                 "-- headgate: key=[day]\nFROM flights",
	}
	have := refused(t, files, &plan.Settings{File: "headgate.yaml", Tables: map[string]plan.Rules{
		"flihgts": {Line: 1},
		"flights": {Line: 2, Key: []string{"id"}, KeyLine: 3, Columns: map[string][]plan.Test{
			"origin": {{Kind: plan.Relationships, Line: 4, To: "airport", Field: "iata"}, {Kind: plan.Relationships, Line: 5, To: "flights", Field: "orign"}},
			"orgin":  {{Kind: plan.NotNull, Line: 6}},
		}},
		"daily": {Line: 7, Key: []string{"Day", "origin"}, KeyLine: 8, Columns: map[string][]plan.Test{
			"anything": {{Kind: "positive", Line: 9}, {Kind: plan.AcceptedValues, Line: 10}},
		}},
	}})
	want := `headgate.yaml:1: tables.flihgts: the commit has no such table (did you mean "flights"?)
headgate.yaml:3: table flights has no column "id"
headgate.yaml:4: relationships: there is no table "airport"
headgate.yaml:5: table flights has no column "orign" (did you mean "Origin"?)
headgate.yaml:6: table flights has no column "orgin" (did you mean "Origin"?)
headgate.yaml:9: unknown column test "positive"
headgate.yaml:10: accepted_values has no values
models/daily.sql:1: key is [day], but the policy says [Day, origin] (headgate.yaml:8)`
	if have != want {
		t.Errorf("have %s\nwant %s", have, want)
	}
}
