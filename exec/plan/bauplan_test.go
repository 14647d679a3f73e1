package plan_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
)

const projectFile = "pipeline/bauplan_project.yml"

// pipeline is a lake with one pipeline of Bauplan and a model of its own.
func pipeline(yaml string, more map[string]string) map[string]string {
	return with(map[string]string{
		"tables/bauplan/trips/a.parquet": "PAR1",
		"tables/zones/a.parquet":         "PAR1",
		projectFile:                      "project:\n  id: 4f0b\n  name: taxi\n" + yaml,
		"pipeline/models.py":             "",
	}, more)
}

func TestAPipelineOfBauplan(t *testing.T) {
	files := pipeline(`
defaults:
  python:
    version: 3.11
    packages: [{name: pandas, version: "2.2.0"}, {name: Polars, version: "1.0"}]
  namespace: bauplan
  timeout: 600
parameters:
  day: {type: str, default: "2023-01-01", description: when}
  n: {type: int, default: 3}
  rate: {default: 0.5}
  strict: {type: bool, required: true}
  api_key: {type: secret, default: kUg6q, key: "awskms:///x"}
include_paths:
  - views/**/*.sql
`, map[string]string{
		"pipeline/trips_of_day.sql":       "-- Trips.\n-- bauplan: materialization_strategy = REPLACE\n-- bauplan: output_schema=Trip\nSELECT * FROM bauplan.trips WHERE day = $day AND note <> '$n' -- $n",
		"pipeline/views/a/renamed.sql":    "-- bauplan: name=viewed partitioned_by='YEAR(day), zone' materialization_strategy=OVERWRITE_PARTITIONS\nSELECT 1",
		"pipeline/views/a/other.txt":      "",
		"pipeline/drafts/not_a_model.sql": "nonsense",
		"pipeline/app/viz.py":             "",
		"models/own.sql":                  "SELECT 1",
	})
	declared := []protocol.Declaration{
		{Path: "pipeline/app/viz.py", Line: 1, Error: &protocol.UserError{Message: "SyntaxError"}},
		{Path: "pipeline/models.py", Line: 2, Function: "Trip", Kind: "schema", Name: "Trip", Columns: []string{"day", "miles"}, Types: map[string]string{"day": "DATE"}, NotNull: []string{"day"}},
		{
			Path: "pipeline/models.py", Line: 9, Function: "clean", Kind: "model", Name: "clean", Packages: map[string]string{"polars": "1.15.0"},
			Inputs: []protocol.DeclaredInput{
				{Param: "a", Table: "trips", Filter: "day = $day AND n > $n"},
				{Param: "b", Table: "bauplan.zones"},
				{Param: "c", Table: "trips_of_day"},
			},
			Params: []protocol.DeclaredParam{{Param: "k", Name: "api_key"}, {Param: "r", Name: "rate"}, {Param: "s", Name: "strict"}},
		},
		{
			Path: "pipeline/models.py", Line: 20, Function: "result", Kind: "model", Name: "result", Strategy: "REPLACE", Timeout: "5s", Python: "3.12",
			Inputs: []protocol.DeclaredInput{{Param: "a", Table: "bauplan.clean"}},
		},
		{
			Path: "pipeline/models.py", Line: 30, Function: "test_clean", Kind: "expectation", Name: "test_clean",
			Inputs: []protocol.DeclaredInput{{Param: "a", Table: "clean"}},
		},
	}
	settings := &plan.Settings{Packages: []string{"*"}, Parameters: map[string]plan.Parameter{"n": {Type: plan.ParamStr}}}
	p := mustBuild(t, files, settings, declared...)
	equal(t, "models", modelNames(p), []string{"own", "trips_of_day", "clean", "result", "viewed"})
	equal(t, "verifiers", verifierNames(p), []string{"test_clean", "trips_of_day.day:not_null"})
	equal(t, "sources", p.Sources, []string{"bauplan.trips", "zones"})

	own, trips, clean, result, viewed := p.Models[0], p.Models[1], p.Models[2], p.Models[3], p.Models[4]
	if own.Strategy != plan.StrategyReplace || clean.Strategy != plan.StrategyNone || result.Strategy != plan.StrategyReplace {
		t.Errorf("strategies are %s, %s, %s", own.Strategy, clean.Strategy, result.Strategy)
	}
	day := plan.Param{Param: "day", Name: "day", Type: "str", Default: "2023-01-01"}
	if want := "-- $n"; !strings.HasSuffix(trips.SQL, "WHERE day = getvariable('day') AND note <> '$n' "+want) {
		t.Errorf("query is %q", trips.SQL)
	}
	if !reflect.DeepEqual(trips.Params, []plan.Param{day}) || trips.Strategy != plan.StrategyReplace || trips.Timeout != 10*time.Minute {
		t.Errorf("trips_of_day is %+v", trips)
	}
	equal(t, "columns of trips_of_day", trips.Columns, []string{"day", "miles"})
	equal(t, "partitions of viewed", viewed.PartitionedBy, []string{"YEAR(day)", "zone"})

	equal(t, "clean reads", tables(clean.Inputs), []string{"bauplan.trips", "zones", "trips_of_day"})
	if in := clean.Inputs[0]; in.Filter != "day = getvariable('day') AND n > getvariable('n')" || fmt.Sprint(in.Variables) != "[day n]" {
		t.Errorf("filter is %q of %v", in.Filter, in.Variables)
	}
	wantParams := []plan.Param{
		{Param: "r", Name: "rate", Type: "float", Default: json.Number("0.5")},
		{Param: "s", Name: "strict", Type: "bool"},
		{Param: "$day", Name: "day", Type: "str", Default: "2023-01-01"},
		{Param: "$n", Name: "n", Type: "int", Default: int64(3)}, // the project's, not the policy's
	}
	if !reflect.DeepEqual(clean.Params, wantParams) {
		t.Errorf("params are %+v", clean.Params)
	}
	equal(t, "secrets", clean.Secrets, []plan.Param{{Param: "k", Name: "api_key"}})
	if !reflect.DeepEqual(clean.Packages, map[string]string{"pandas": "==2.2.0", "polars": "==1.15.0"}) || clean.Python != "3.11" || clean.Timeout != 10*time.Minute {
		t.Errorf("clean is %+v", clean)
	}
	equal(t, "result reads", tables(result.Inputs), []string{"clean"})
	if result.Timeout != 5*time.Second || result.Python != "3.12" {
		t.Errorf("result is %+v", result)
	}
}

func TestProblemsOfPipelines(t *testing.T) {
	python := func(d protocol.Declaration) []protocol.Declaration {
		d.Path, d.Line, d.Function, d.Name = "pipeline/models.py", 4, "f", "f"
		return []protocol.Declaration{d}
	}
	for name, c := range map[string]struct {
		yaml     string
		more     map[string]string
		declared []protocol.Declaration
		want     string
	}{
		"no project": {more: map[string]string{projectFile: "parameters: {}"}, want: projectFile + ": needs project: with an id and a name"},
		"keys":       {yaml: "paramters: {}", want: projectFile + `:4: unknown key "paramters" (did you mean "parameters"?)`},
		"aliases":    {yaml: "defaults: &a {}", want: projectFile + ":4: anchors, aliases and merge keys are not allowed; write the value out"},
		"type":       {yaml: "parameters: {a: {type: date}}", want: projectFile + `:4: parameters.a.type is "date" (there are str, int, float, bool, secret, vault)`},
		"default":    {yaml: "parameters: {a: {type: int, default: '3'}}", want: projectFile + ":4: parameters.a.default must be of the type int, not a text"},
		"timeout":    {yaml: "defaults: {timeout: 5m}", want: projectFile + ":4: defaults.timeout must be a number of seconds, not a text"},
		"package":    {yaml: "defaults: {python: {packages: [{name: pandas}]}}", want: projectFile + ":4: a package needs a name and a version"},
		"paths": {
			yaml: "include_paths: [views/*, ../x.sql, /x.sql, '[.sql', a/**/**/**/**/x.sql]",
			want: projectFile + ":4: include_paths: \"views/*\" does not end in .sql\n" +
				projectFile + ":4: include_paths: \"../x.sql\" must be a path from the project's directory, without . and ..\n" +
				projectFile + ":4: include_paths: \"/x.sql\" must be a path from the project's directory, without . and ..\n" +
				projectFile + ":4: include_paths: \"[.sql\" is not a pattern\n" +
				projectFile + ":4: include_paths: \"a/**/**/**/**/x.sql\" has more than three **",
		},
		"two files": {more: map[string]string{"pipeline/bauplan_project.yaml": "project: {id: b}"}, want: projectFile + ": there is pipeline/bauplan_project.yaml already; a project has one"},
		"a link":    {more: map[string]string{projectFile: linkTo + "/etc/passwd"}, want: projectFile + ": is not a regular file"},
		"too large": {more: map[string]string{projectFile: strings.Repeat("#", 1<<20+1)}, want: projectFile + ": has 1048577 bytes, the limit is 1048576"},
		"settings": {
			more: map[string]string{"pipeline/a.sql": "-- bauplan: nonsense\n-- bauplan: stratgy=x name=a name=b\n-- bauplan: overwrite_filter='a > 1' internet_access=False cache_strategy=NONE\n-- bauplan: output_schema=Gone\nSELECT 1"},
			want: `pipeline/a.sql:1: "nonsense" is not a setting; write name=value` + "\n" +
				`pipeline/a.sql:2: unknown setting "stratgy" (there are cache_strategy, columns, materialization_strategy, name, output_schema, partitioned_by)` + "\n" +
				`pipeline/a.sql:2: setting name is given twice (first on line 2)` + "\n" +
				`pipeline/a.sql:3: overwrite_filter is not supported: OVERWRITE_PARTITIONS replaces the partitions (values of partitioned_by) that occur in the result` + "\n" +
				`pipeline/a.sql:3: cache_strategy NONE is not supported: results are kept by content; a push with -o no-cache runs everything again` + "\n" +
				`pipeline/a.sql:4: output_schema: the Python files of the project have no class "Gone" of TableSchema`,
		},
		"parameters of queries": {
			yaml: "parameters: {day: {default: x}, key: {type: vault}}",
			more: map[string]string{"pipeline/a.sql": "SELECT $dya,\n$key"},
			want: "pipeline/a.sql:1: the query reads $dya, but there is no parameter of that name (did you mean \"day\"?)\n" +
				"pipeline/a.sql:2: reads $key, which is a secret: those are for Python models",
		},
		"parameters of filters": {
			yaml:     "parameters: {key: {type: vault}}",
			declared: python(protocol.Declaration{Kind: "model", Inputs: []protocol.DeclaredInput{{Param: "a", Table: "trips", Filter: "a = $key OR b = $b"}}}),
			want: "pipeline/models.py:4: a filter reads $key, which is a secret\n" +
				"pipeline/models.py:4: a filter reads $b, but there is no parameter of that name; declare it in parameters of headgate.yaml",
		},
		"parameters of expectations": {
			yaml:     "parameters: {a: {default: 1}}",
			declared: python(protocol.Declaration{Kind: "expectation", Inputs: []protocol.DeclaredInput{{Param: "a", Table: "trips", Filter: "a = $a"}}}),
			want:     `pipeline/models.py:4: expectation f takes parameter "a"; what holds of the data cannot depend on a push option`,
		},
	} {
		if got := refused(t, pipeline(c.yaml, c.more), nil, c.declared...); got != c.want {
			t.Errorf("%s: problems are\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

// A SQL query keeps everything that is no parameter.
func TestVariablesOfQueries(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT $a, $a+$b":               "SELECT getvariable('a'), getvariable('a')+getvariable('b')",
		"SELECT '$a', \"$a\", '''$a'":    "SELECT '$a', \"$a\", '''$a'",
		"SELECT e'\\'$a', $b":            "SELECT e'\\'$a', getvariable('b')",
		"SELECT $$ $a $$, $t$ $a $t$":    "SELECT $$ $a $$, $t$ $a $t$",
		"SELECT 1 -- $a\n, $a /* $b */":  "SELECT 1 -- $a\n, getvariable('a') /* $b */",
		"SELECT $1, a$b, $ AS x, '$a":    "SELECT $1, a$b, $ AS x, '$a",
		"SELECT /* $a":                   "SELECT /* $a",
		"SELECT ä$a, $ä":                 "SELECT ä$a, getvariable('ä')",
		"SELECT like'%$a', case'x' end'": "SELECT like'%$a', case'x' end'",
	} {
		files := pipeline("parameters: {a: {default: 1}, b: {default: 2}}", map[string]string{"pipeline/q.sql": sql})
		p, err := build(t, files, nil)
		if strings.Contains(want, "ä") {
			if err == nil {
				t.Errorf("%q: a parameter of that name is none", sql)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", sql, err)
		} else if got := p.Models[0].SQL; got != want {
			t.Errorf("%q becomes %q, want %q", sql, got, want)
		}
	}
}

func TestAPipelineAtTheRootAndOneBelowModels(t *testing.T) {
	p := mustBuild(t, map[string]string{
		"bauplan_project.yaml":                "project: {id: a}",
		"root.sql":                            "SELECT 1",
		"models/plain.sql":                    "SELECT 1",
		"models/taxi/bauplan_project.yml":     "project: {id: b}",
		"models/taxi/inner.sql":               "SELECT 1",
		"verifiers/check/bauplan_project.yml": "project: {id: c}",
		"verifiers/check/m.sql":               "SELECT 1",
		"tables/t/bauplan_project.yml":        "nonsense: [",
		"tables/t/a.parquet":                  "PAR1",
	}, nil)
	strategies := make(map[string]string)
	for _, m := range p.Models {
		strategies[m.Name] = m.Strategy
	}
	want := map[string]string{"root": "NONE", "plain": "REPLACE", "inner": "NONE", "m": "NONE"}
	if !reflect.DeepEqual(strategies, want) {
		t.Errorf("strategies are %v, want %v", strategies, want)
	}
}

// FuzzProject looks for panics, and for errors that are no *Error.
func FuzzProject(f *testing.F) {
	f.Add("parameters: {a: {type: int, default: 3}}\ninclude_paths: ['**/*.sql']", "-- bauplan: name=x materialization_strategy = NONE\nSELECT $a")
	f.Add("defaults: {python: {version: 3.11, packages: [{name: a, version: 1.0}]}}", "-- bauplan: columns=[a, 'b'] partitioned_by=hour(a), b\nSELECT e'\\$a'")
	f.Fuzz(func(t *testing.T, yaml, sql string) {
		files := pipeline(yaml, map[string]string{"pipeline/q.sql": sql, "pipeline/a/b/c.sql": sql})
		p, err := build(t, files, nil)
		if _, ok := err.(*plan.Error); err != nil && !ok {
			t.Fatal(err)
		}
		if err == nil && len(p.Models) == 0 {
			t.Error("the model is gone")
		}
	})
}
