package plan_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects"
)

// flights are source tables without a table.json yet.
var flights = map[string]string{
	"tables/flights/a.parquet":      "PAR1",
	"tables/ref/airports/a.parquet": "PAR1",
	"README.md":                     "a lake",
}

func TestBuild(t *testing.T) {
	p := mustBuild(t, with(flights, map[string]string{
		"models/daily.sql":        "-- Delays by day.\n-- headgate: key=[day, \"the origin\"] strategy=replace memory=1GiB timeout=90s\nSELECT * FROM Flights JOIN ref.airports",
		"models/mart/top.sql":     "SELECT * FROM daily JOIN daily JOIN enriched",
		"models/a/b/deep.sql":     "/* -- headgate: name=ignored\n-- headgate: name=too */ -- headgate: name=mart.deep\nSELECT 1",
		"models/enrich.py":        "",
		"models/lib.py":           "",
		"models/.draft.sql":       "nonsense",
		"models/README.md":        "",
		"verifiers/no_future.sql": "SELECT * FROM base.flights ANTI JOIN flights JOIN base.gone",
		"verifiers/mart/x.sql":    "SELECT 1",
		"verifiers/e.py":          "",
		"tools/setup.py":          "",
	}), &plan.Settings{Packages: []string{"scikit-learn"}},
		protocol.Declaration{
			Path: "models/enrich.py", Line: 7, Function: "enrich", Kind: "model", Name: "enriched", Strategy: "REPLACE", Key: []string{"id"},
			Python: "3.11", Packages: map[string]string{"Scikit_Learn": "1.5"}, Memory: "1024B", Timeout: "60s", LocalFiles: []string{"models/lib.py"},
			Inputs: []protocol.DeclaredInput{{Param: "x", Table: "FLIGHTS", Columns: []string{"id"}, Filter: "id > 1"}, {Param: "a", Table: "daily"}},
			Params: []protocol.DeclaredParam{{Param: "p", Name: "q"}},
		},
		protocol.Declaration{
			Path: "verifiers/e.py", Line: 3, Function: "check", Kind: "expectation", Name: "check",
			Inputs: []protocol.DeclaredInput{{Param: "t", Table: "base.Flights"}},
		},
		// A problem of a program that is no part of the lake's functions.
		protocol.Declaration{Path: "tools/setup.py", Line: 1, Error: &protocol.UserError{Message: "SyntaxError"}},
	)
	equal(t, "models", modelNames(p), []string{"daily", "enriched", "mart.deep", "mart.top"})
	equal(t, "verifiers", verifierNames(p), []string{"mart.x", "no_future", "check"})
	equal(t, "sources", p.Sources, []string{"flights", "ref.airports"})

	daily, enriched, top := p.Models[0], p.Models[1], p.Models[3]
	equal(t, "daily reads", tables(daily.Inputs), []string{"flights", "ref.airports"})
	equal(t, "top reads", tables(top.Inputs), []string{"daily", "enriched"})
	equal(t, "daily's key", daily.Key, []string{"day", "the origin"})
	if daily.Memory != 1<<30 || daily.Timeout != 90*time.Second || daily.Strategy != "REPLACE" || daily.Kind != plan.KindSQL {
		t.Errorf("daily is %+v", daily)
	}
	if !strings.HasPrefix(daily.SQL, "-- Delays") {
		t.Errorf("the query must keep its lines, have %q", daily.SQL)
	}
	wantInputs := []plan.Input{{Table: "flights", Param: "x", Columns: []string{"id"}, Filter: "id > 1"}, {Table: "daily", Param: "a"}}
	if !reflect.DeepEqual(enriched.Inputs, wantInputs) {
		t.Errorf("enriched reads %+v", enriched.Inputs)
	}
	if enriched.Function != "enrich" || enriched.Line != 7 || enriched.Packages["scikit-learn"] != "==1.5" || enriched.Memory != 1024 ||
		!slices.Equal(enriched.Params, []plan.Param{{Param: "p", Name: "q"}}) {
		t.Errorf("enriched is %+v", enriched)
	}
	if len(enriched.Files) != 2 || enriched.Files[0].Path != "models/enrich.py" || enriched.Files[1].Path != "models/lib.py" || enriched.Files[1].OID.IsZero() {
		t.Errorf("files of enriched are %v", enriched.Files)
	}
	equal(t, "no_future reads", tables(p.Verifiers[1].Inputs), []string{"base.flights", "base.gone", "flights"})
	equal(t, "check reads", tables(p.Verifiers[2].Inputs), []string{"base.flights"})
}

func TestEmptyLakes(t *testing.T) {
	d := &declarer{}
	for _, root := range []objects.OID{{}, make(memory).lake(t, nil)} {
		m := memory{}
		m.lake(t, nil)
		p, err := plan.Build(context.Background(), m, root, nil, d)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Models)+len(p.Verifiers)+len(p.Sources) != 0 {
			t.Errorf("plan is %+v", p)
		}
	}
	if len(d.asked) != 0 {
		t.Errorf("asked %v although there was nothing to read", d.asked)
	}
}

func TestDeclarerIsAskedOnceForAll(t *testing.T) {
	m, d := make(memory), &declarer{}
	root := m.lake(t, map[string]string{
		"models/a.sql": "SELECT 1", "models/b.sql": "SELECT 2", "verifiers/c.sql": "SELECT 3", "models/d.py": "", "lib/e.py": "",
		"tables/f/g.py": "", "tables/f/a.parquet": "",
	})
	if _, err := plan.Build(context.Background(), m, root, nil, d); err != nil {
		t.Fatal(err)
	}
	equal(t, "asked", d.asked, []string{"tables", "declare"})
	equal(t, "sources", d.sources, []string{"lib/e.py", "models/d.py"})

	broken := errors.New("no sandbox")
	_, err := plan.Build(context.Background(), m, root, nil, &declarer{err: broken})
	var bad *plan.Error
	if !errors.Is(err, broken) || errors.As(err, &bad) {
		t.Errorf("error is %v: what could not be read is not the commit's fault", err)
	}
}

func TestProblems(t *testing.T) {
	model := func(d protocol.Declaration) []protocol.Declaration {
		d.Path, d.Line, d.Kind = "models/p.py", 4, "model"
		if d.Function == "" {
			d.Function = "f"
		}
		if d.Name == "" {
			d.Name = d.Function
		}
		return []protocol.Declaration{d}
	}
	for name, c := range map[string]struct {
		files    map[string]string
		declared []protocol.Declaration
		want     string
	}{
		"missing table": {
			files: map[string]string{"models/a.sql": "-- from flihgts\nSELECT *\nFROM flihgts"},
			want:  `models/a.sql:3: reads table "flihgts", which is neither in tables/ nor made by a model (did you mean "flights"?)`,
		},
		"cycle": {
			files: map[string]string{"models/a.sql": "SELECT * FROM b", "models/b.sql": "SELECT * FROM a", "models/c.sql": "SELECT * FROM a"},
			want:  "models/a.sql:1: models need each other: a -> b -> a",
		},
		"self": {
			files: map[string]string{"models/a.sql": "SELECT * FROM a"},
			want:  "models/a.sql:1: models need each other: a -> a",
		},
		"two cycles": {
			files: map[string]string{"models/a.sql": "FROM c", "models/b.sql": "FROM a", "models/c.sql": "FROM b JOIN x", "models/x.sql": "FROM y", "models/y.sql": "FROM x"},
			want:  "models/a.sql:1: models need each other: a -> c -> b -> a\nmodels/x.sql:1: models need each other: x -> y -> x",
		},
		"two models of one table": {
			files:    map[string]string{"models/f.sql": "SELECT 1", "models/p.py": ""},
			declared: model(protocol.Declaration{Function: "F"}),
			want:     `models/p.py:4: table "F" is already made by models/f.sql`,
		},
		"another spelling of a table": {
			files: map[string]string{"models/Flights.sql": "SELECT 1"},
			want:  `models/Flights.sql:1: makes table "Flights", but the commit has "flights": SQL cannot tell them apart; use one spelling`,
		},
		"namespace": {
			files: map[string]string{"models/ref.sql": "SELECT 1"},
			want:  `models/ref.sql:1: makes table "ref", which is also the namespace of table "ref.airports"`,
		},
		"invalid table name": {
			files: map[string]string{"models/a b.sql": "SELECT 1"},
			want:  `models/a b.sql: table name "a b": ' ' is not a letter a-z, a digit, '_' or '-'`,
		},
		"reserved namespace": {
			files: map[string]string{"models/base/x.sql": "SELECT 1"},
			want:  `models/base/x.sql: table name "base.x": "base" is reserved`,
		},
		"deep": {
			files: map[string]string{"models/a/b/c.sql": "SELECT 1"},
			want:  "models/a/b/c.sql: a table has at most one namespace, so this path names none; add: -- headgate: name=<table>",
		},
		"base in a model": {
			files: map[string]string{"models/a.sql": "SELECT * FROM base.flights"},
			want:  `models/a.sql:1: a model cannot read "base.flights": only verifiers see the old tip`,
		},
		"syntax error": {
			files: map[string]string{"models/a.sql": "SELECT\nsyntax error"},
			want:  `models/a.sql:2: syntax error at or near "error"`,
		},
		"strategy": {
			files: map[string]string{"models/a.sql": "\n-- headgate: strategy=apend\nSELECT 1"},
			want:  "models/a.sql:2: there is no strategy APEND (did you mean \"APPEND\"?)",
		},
		"partitions are not told": {
			files: map[string]string{"models/a.sql": "-- headgate: strategy=overwrite_partitions\nSELECT 1"},
			want:  "models/a.sql: strategy OVERWRITE_PARTITIONS needs partitioned_by: the columns, or year(...), month(...), day(...), hour(...) of them, that tell partitions apart",
		},
		"partition term": {
			files: map[string]string{"models/a.sql": "-- headgate: strategy=overwrite_partitions\n-- headgate: partitioned_by=[week(day)]\nSELECT 1"},
			want:  "models/a.sql:2: partitioned_by: \"week(day)\": want a column, or year(...), month(...), day(...) or hour(...) of one",
		},
		"columns twice": {
			files: map[string]string{"models/a.sql": "-- headgate: columns=[day DATE, Day]\nSELECT 1"},
			want:  "models/a.sql:1: columns names \"Day\" twice",
		},
		"partition term twice": {
			files: map[string]string{"models/a.sql": "-- headgate: strategy=overwrite_partitions partitioned_by=[day, Day]\nSELECT 1"},
			want:  "models/a.sql:1: partitioned_by names \"Day\" twice",
		},
		"partitions that decide nothing": {
			files: map[string]string{"models/a.sql": "-- headgate: partitioned_by=[day]\nSELECT 1"},
			want:  "models/a.sql:1: partitioned_by has a meaning for strategy OVERWRITE_PARTITIONS only, this one is REPLACE",
		},
		"settings": {
			files: map[string]string{"models/a.sql": "-- headgate: kye=[a] key=[a, A] memory=x\n-- headgate: timeout=1d\nSELECT 1\n-- headgate: name=b", "verifiers/b.sql": "-- headgate: key=a\nSELECT 1"},
			want: `models/a.sql:1: unknown setting "kye" (did you mean "key"?)` + "\n" +
				`models/a.sql:1: key names column "A" twice` + "\n" +
				`models/a.sql:1: memory: "x" is not a size such as 512MiB or 2GiB` + "\n" +
				`models/a.sql:2: timeout: "1d" is not a duration such as 90s or 10m` + "\n" +
				`models/a.sql:4: settings stand in the comment before the query; here they would be ignored` + "\n" +
				`verifiers/b.sql:1: unknown setting "key" (there are cpus, memory, name, severity, timeout)`,
		},
		"not a regular file": {
			files: map[string]string{"models/a.sql": linkTo + "/etc/passwd"},
			want:  "models/a.sql: is not a regular file; symbolic links and submodules cannot be models or verifiers",
		},
		"not text": {
			files: map[string]string{"models/a.sql": "SELECT\n'\xff'"},
			want:  "models/a.sql:2: is not UTF-8 text",
		},
		"too large": {
			files: map[string]string{"models/a.sql": strings.Repeat(" ", plan.MaxFileBytes+1)},
			want:  "models/a.sql: has 1048577 bytes, the limit is 1048576",
		},
		"upper-case extension": {
			files: map[string]string{"models/a.SQL": "SELECT 1"},
			want:  "models/a.SQL: the extension must be in lower case: .sql",
		},
		"table that is none": {
			files: map[string]string{"tables/a b/x.parquet": "PAR1"},
			want:  `tables/a b: table name "a b": ' ' is not a letter a-z, a digit, '_' or '-'`,
		},
		"declaration": {
			files:    map[string]string{"models/p.py": ""},
			declared: []protocol.Declaration{{Path: "models/p.py", Line: 3, Error: &protocol.UserError{Message: "@model: name must be a literal", Line: 3}}},
			want:     "models/p.py:3: @model: name must be a literal",
		},
		"syntax error in an imported file": {
			files: map[string]string{"models/p.py": "", "lib/x.py": ""},
			declared: append(model(protocol.Declaration{LocalFiles: []string{"lib/x.py"}}),
				protocol.Declaration{Path: "lib/x.py", Error: &protocol.UserError{Message: "SyntaxError: invalid syntax", Line: 9}}),
			want: "lib/x.py:9: SyntaxError: invalid syntax",
		},
		"package": {
			files:    map[string]string{"models/p.py": ""},
			declared: model(protocol.Declaration{Packages: map[string]string{"requests": "2", "Pandas": "2"}}),
			want:     `models/p.py:4: package "requests" is not allowed; the policy allows pandas (python.packages.allow)`,
		},
		"python version": {
			files:    map[string]string{"models/p.py": ""},
			declared: model(protocol.Declaration{Python: "3"}),
			want:     `models/p.py:4: python version "3": want one such as "3.11"`,
		},
		"model among verifiers": {
			files:    map[string]string{"verifiers/p.py": ""},
			declared: []protocol.Declaration{{Path: "verifiers/p.py", Line: 2, Function: "f", Kind: "model", Name: "f"}},
			want:     "verifiers/p.py:2: model f is in verifiers/; models live in models/",
		},
		"expectation with a parameter": {
			files:    map[string]string{"verifiers/p.py": ""},
			declared: []protocol.Declaration{{Path: "verifiers/p.py", Line: 2, Function: "f", Kind: "expectation", Name: "f", Params: []protocol.DeclaredParam{{Param: "p", Name: "q"}}}},
			want:     `verifiers/p.py:2: expectation f takes parameter "q"; what holds of the data cannot depend on a push option`,
		},
		"two verifiers of one name": {
			files:    map[string]string{"verifiers/f.sql": "SELECT 1", "verifiers/p.py": ""},
			declared: []protocol.Declaration{{Path: "verifiers/p.py", Line: 2, Function: "F", Kind: "expectation", Name: "F"}},
			want:     `verifiers/p.py:2: verifier "F" is already in verifiers/f.sql`,
		},
		"verifier name": {
			files: map[string]string{"verifiers/a b.sql": "SELECT 1"},
			want:  `verifiers/a b.sql: verifier name "a b": want letters, digits, '_', '-' and '.'`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			have := refused(t, with(flights, c.files), &plan.Settings{Packages: []string{"pandas"}}, c.declared...)
			if have != c.want {
				t.Errorf("have %s\nwant %s", have, c.want)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	many := make(map[string]string)
	for i := range plan.MaxModels + 1 {
		many[fmt.Sprintf("models/m%d.sql", i)] = "SELECT 1"
	}
	if have := refused(t, many, nil); have != "the commit has 1001 models, the limit is 1000" {
		t.Error(have)
	}
	// A tree of 2^40 paths in 41 objects.
	m := make(memory)
	root := m.lake(t, map[string]string{"x": ""})
	for range 40 {
		data := append([]byte("40000 a\x00"), root[:]...)
		data = append(append(data, "40000 b\x00"...), root[:]...)
		root = m.put(objects.Tree, data)
	}
	_, err := plan.Build(context.Background(), m, root, nil, &declarer{})
	var bad *plan.Error
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "more than 100000 files") {
		t.Errorf("error is %v", err)
	}
}

func TestCodeIsWhatDecidesTheResult(t *testing.T) {
	py := func(change func(*protocol.Declaration)) protocol.Declaration {
		d := protocol.Declaration{Path: "models/p.py", Line: 1, Function: "f", Kind: "model", Name: "f", LocalFiles: []string{"models/lib.py"}}
		change(&d)
		return d
	}
	same := func(*protocol.Declaration) {}
	codes := func(files map[string]string, s *plan.Settings, d protocol.Declaration) map[string]objects.OID {
		p := mustBuild(t, with(flights, files), s, d)
		byName := make(map[string]objects.OID)
		for _, m := range p.Models {
			byName[m.Name] = m.Code
		}
		for _, v := range p.Verifiers {
			byName["verifier "+v.Name] = v.Code
		}
		return byName
	}
	base := map[string]string{"models/a.sql": "FROM flights", "models/p.py": "1", "models/lib.py": "2", "verifiers/v.sql": "FROM flights"}
	all := codes(base, nil, py(same))
	if again := codes(base, nil, py(same)); !reflect.DeepEqual(all, again) {
		t.Error("equal commits have different digests")
	}
	for what, c := range map[string]struct {
		have    map[string]objects.OID
		changed []string
	}{
		"query":        {codes(with(base, map[string]string{"models/a.sql": "FROM flights --"}), nil, py(same)), []string{"a"}},
		"key":          {codes(base, &plan.Settings{Tables: map[string]plan.Rules{"a": {Key: []string{"k"}}}}, py(same)), []string{"a"}},
		"file":         {codes(with(base, map[string]string{"models/p.py": "x"}), nil, py(same)), []string{"f"}},
		"import":       {codes(with(base, map[string]string{"models/lib.py": "x"}), nil, py(same)), []string{"f"}},
		"function":     {codes(base, nil, py(func(d *protocol.Declaration) { d.Function = "g" })), []string{"f"}},
		"strategy":     {codes(base, nil, py(func(d *protocol.Declaration) { d.Strategy = "append" })), []string{"f"}},
		"python":       {codes(base, nil, py(func(d *protocol.Declaration) { d.Python = "3.12" })), []string{"f"}},
		"verifier":     {codes(with(base, map[string]string{"verifiers/v.sql": "FROM flights "}), nil, py(same)), []string{"verifier v"}},
		"limits":       {codes(base, nil, py(func(d *protocol.Declaration) { d.Memory = "1GiB" })), nil},
		"another file": {codes(with(base, map[string]string{"README.md": "x", "models/z.sql": "FROM a"}), nil, py(same)), nil},
	} {
		for name := range all {
			if differs := c.have[name] != all[name]; differs != slices.Contains(c.changed, name) {
				t.Errorf("%s changed: digest of %s differs is %v", what, name, differs)
			}
		}
	}
	renamed := codes(map[string]string{"models/b.sql": "FROM flights", "models/p.py": "1", "models/lib.py": "2"}, nil, py(same))
	if renamed["b"] != all["a"] {
		t.Error("a renamed model loses its cached results")
	}
}

// TestOrderIsTopologicalAndTheSameForAnyCommitOfTheSameModels draws graphs
// without cycles under shuffled names.
func TestOrderIsTopological(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(rt, "models")
		names := rapid.Permutation(strings.Split("abcdefghijkl"[:n], "")).Draw(rt, "names")
		files := map[string]string{"tables/src/x.parquet": ""}
		reads := make(map[string][]string)
		for i, name := range names {
			query := "SELECT * FROM src"
			for j := range i {
				if rapid.Bool().Draw(rt, "edge") {
					query += " JOIN " + names[j]
					reads[name] = append(reads[name], names[j])
				}
			}
			files["models/"+name+".sql"] = query
		}
		p := mustBuild(t, files, nil)
		order := modelNames(p)
		if len(order) != n {
			rt.Fatalf("%d models, planned %v", n, order)
		}
		done := make(map[string]bool)
		for at, name := range order {
			for _, input := range reads[name] {
				if !done[input] {
					rt.Fatalf("%s comes before %s, which it reads: %v", name, input, order)
				}
			}
			// Nothing later with a smaller name could have stood here.
			for _, later := range order[at+1:] {
				if later < name && !slices.ContainsFunc(reads[later], func(in string) bool { return !done[in] }) {
					rt.Fatalf("%s was ready before %s: %v", later, name, order)
				}
			}
			done[name] = true
		}
	})
}

// TestEveryCycleIsNamed closes a way through a random graph and looks for it.
func TestEveryCycleIsNamed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(rt, "models")
		reads := make(map[string]map[string]bool)
		files := make(map[string]string)
		for i := range n {
			name, next := string(rune('a'+i)), string(rune('a'+(i+1)%n))
			reads[name] = map[string]bool{next: true}
			query := "FROM " + next
			for j := range n {
				if rapid.IntRange(0, 4).Draw(rt, "edge") == 0 {
					other := string(rune('a' + j))
					reads[name][other] = true
					query += " JOIN " + other
				}
			}
			files["models/"+name+".sql"] = query
		}
		for _, line := range strings.Split(refused(t, files, nil), "\n") {
			_, cycle, ok := strings.Cut(line, "models need each other: ")
			if !ok {
				rt.Fatalf("unexpected %q", line)
			}
			steps := strings.Split(cycle, " -> ")
			if len(steps) < 2 || steps[0] != steps[len(steps)-1] {
				rt.Fatalf("%q is no cycle", cycle)
			}
			for i := range len(steps) - 1 {
				if !reads[steps[i]][steps[i+1]] {
					rt.Fatalf("%s does not read %s in %q", steps[i], steps[i+1], cycle)
				}
			}
		}
	})
}

func TestWhatASchemaRequiresIsTested(t *testing.T) {
	declared := protocol.Declaration{
		Path: "models/p.py", Line: 4, Function: "f", Kind: "model", Name: "mart.f", Columns: []string{"day", "n"},
		Types: map[string]string{"day": "DATE"}, NotNull: []string{"day", "n"}, CPUs: 0.5, Pids: 20,
		Secrets: []protocol.DeclaredParam{{Param: "key", Name: "API_KEY"}},
	}
	schema := protocol.Declaration{Path: "models/p.py", Line: 1, Function: "S", Kind: "schema", Name: "S", Columns: []string{"day"}}
	settings := &plan.Settings{File: "headgate.yaml", Tables: map[string]plan.Rules{
		"mart.f": {Columns: map[string][]plan.Test{"n": {{Kind: plan.NotNull, Line: 7}}}},
	}}
	p := mustBuild(t, map[string]string{"models/p.py": ""}, settings, schema, declared)
	equal(t, "models", modelNames(p), []string{"mart.f"})
	m := p.Models[0]
	if m.Types["day"] != "DATE" || m.CPUs != 0.5 || m.Pids != 20 || !slices.Equal(m.Secrets, []plan.Param{{Param: "key", Name: "API_KEY"}}) {
		t.Errorf("model is %+v", m)
	}
	// The policy's own test of a column stays the only one of its name.
	equal(t, "verifiers", verifierNames(p), []string{"mart.f.n:not_null", "mart.f.day:not_null"})
	if v := p.Verifiers[1]; v.SQL != `SELECT * FROM "mart"."f" WHERE "day" IS NULL` || v.Path != "models/p.py" || v.Line != 4 {
		t.Errorf("verifier is %+v", v)
	}

	declared.Kind, declared.NotNull = "expectation", nil
	want := `models/p.py:4: expectation f takes secret "API_KEY"; secrets are for models`
	if got := refused(t, map[string]string{"models/p.py": ""}, nil, declared); got != want {
		t.Errorf("problems are %q, want %q", got, want)
	}
}
