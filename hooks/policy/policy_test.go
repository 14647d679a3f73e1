package policy

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/strictyaml"
)

const whole = `# a lake's policy
branches:
  main: {gate: required}
  "release/*": {gate: advisory}
  scratch: {gate: off}
sandbox: {memory: 512MiB, cpus: 1.5, timeout: 90s, output: 1GiB, pids: 64, file_size: 100MiB, log: 2MiB, violations: record, double_run: new}
python:
  default: "3.11"
  packages: {allow: ["DuckDB", scikit_learn]}
tables:
  flights:
    key: [flight_id]
    columns:
      delay: {tests: [not_null]}
      origin: {tests: [not_null, {relationships: {to: airports, field: iata}}]}
  mart.daily:
    columns:
      status:
        tests:
          - unique
          - accepted_values: [on time, 3, 2.5, true]
grants:
  - {who: [agents], push: ["agent/*"], propose: [main], read_tables: ["*"], edit: ["models/**", "tables/**"]}
  - who: ["*"]
    propose: []
parameters:
  day: {type: date, default: 2001-01-01, description: the first day}
  n: {type: int, default: 12345678901234567}
  share: {type: float, default: 1}
  name: {type: str, default: "007"}
  on: {type: bool, default: true}
  must: {type: timestamp}
secrets:
  API_KEY: {models: [enrich, "mart.*"]}
`

func TestParseReadsEverySection(t *testing.T) {
	p, err := Parse("headgate.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	want := &Policy{
		File: "headgate.yaml",
		Branches: []Branch{
			{Pattern: "main", Gate: Required, Line: 3},
			{Pattern: "release/*", Gate: Advisory, Line: 4},
			{Pattern: "scratch", Gate: Off, Line: 5},
		},
		Sandbox: Sandbox{
			Memory: 512 << 20, Output: 1 << 30, CPUs: 1.5, Timeout: 90 * time.Second, DoubleRun: true,
			Pids: 64, FileSize: 100 << 20, Log: 2 << 20, RecordViolations: true,
		},
		Python: Python{Default: "3.11", Packages: []string{"duckdb", "scikit-learn"}},
		Tables: map[string]Table{
			"flights": {Line: 11, Key: []string{"flight_id"}, KeyLine: 12, Columns: map[string]Column{
				"delay": {Line: 14, Tests: []plan.Test{{Kind: plan.NotNull, Line: 14}}},
				"origin": {Line: 15, Tests: []plan.Test{
					{Kind: plan.NotNull, Line: 15},
					{Kind: plan.Relationships, Line: 15, To: "airports", Field: "iata"},
				}},
			}},
			"mart.daily": {Line: 16, Columns: map[string]Column{
				"status": {Line: 18, Tests: []plan.Test{
					{Kind: plan.Unique, Line: 20},
					{Kind: plan.AcceptedValues, Line: 21, Values: []any{"on time", uint64(3), 2.5, true}},
				}},
			}},
		},
		Grants: []Grant{
			{
				Line: 23, Who: []string{"agents"}, Push: []string{"agent/*"}, Propose: []string{"main"},
				ReadTables: []string{"*"}, Edit: []string{"models/**", "tables/**"},
			},
			{Line: 24, Who: []string{"*"}, Propose: []string{}},
		},
		Parameters: map[string]Parameter{
			"day":   {plan.Parameter{Type: "date", Default: "2001-01-01", Line: 27}, "the first day"},
			"n":     {plan.Parameter{Type: "int", Default: int64(12345678901234567), Line: 28}, ""},
			"share": {plan.Parameter{Type: "float", Default: json.Number("1.0"), Line: 29}, ""},
			"name":  {plan.Parameter{Type: "str", Default: "007", Line: 30}, ""},
			"on":    {plan.Parameter{Type: "bool", Default: true, Line: 31}, ""},
			"must":  {plan.Parameter{Type: "timestamp", Line: 32}, ""},
		},
		Secrets: map[string]Secret{"API_KEY": {Line: 34, Models: []string{"enrich", "mart.*"}}},
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("have %+v\nwant %+v", p, want)
	}
}

func TestAbsentPartsAreTheDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "\uFEFF# with a byte order mark\n"} {
		p, err := Parse("headgate.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !reflect.DeepEqual(p, Default()) {
			t.Errorf("%q: have %+v, want the defaults", text, p)
		}
	}
	p, err := Parse("headgate.yaml", []byte("sandbox: {cpus: 2}\ngrants: []\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Sandbox.Memory != Default().Sandbox.Memory || p.Sandbox.CPUs != 2 {
		t.Errorf("sandbox is %+v", p.Sandbox)
	}
	if p.Grants == nil {
		t.Error("an empty list of grants must differ from an absent one")
	}
}

func TestProblems(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":          {"branches: {}\ntabels: {}\n", `headgate.yaml:2: unknown key "tabels" (did you mean "tables"?)`},
		"unknown nested key":   {"sandbox:\n  memroy: 2GiB\n", `headgate.yaml:2: unknown key "memroy" in sandbox (did you mean "memory"?)`},
		"nothing near":         {"sandbox:\n  zzzzzz: 1\n", `headgate.yaml:2: unknown key "zzzzzz" in sandbox (there are cpus, double_run, file_size, log, memory, output, pids, timeout, violations)`},
		"bad violations":       {"sandbox: {violations: ignore}\n", `headgate.yaml:1: sandbox.violations is "ignore", want fail or record`},
		"few pids":             {"sandbox: {pids: 3}\n", "headgate.yaml:1: sandbox.pids must be between 16 and 100000"},
		"negative pids":        {"sandbox: {pids: -3}\n", "headgate.yaml:1: sandbox.pids must be between 16 and 100000"},
		"pids as a text":       {"sandbox: {pids: many}\n", "headgate.yaml:1: sandbox.pids must be a number, not a text"},
		"small log":            {"sandbox: {log: 10B}\n", "headgate.yaml:1: sandbox.log: 10B is less than 1KiB"},
		"small files":          {"sandbox: {file_size: 10KiB}\n", "headgate.yaml:1: sandbox.file_size: 10KiB is less than 1MiB"},
		"wrong type":           {"tables: [a]\n", "headgate.yaml:1: tables must be a mapping (key: value), not a list"},
		"scalar root":          {"hello\n", "headgate.yaml:1: the file must be a mapping (key: value), not a text"},
		"null section":         {"sandbox:\n", "headgate.yaml:1: sandbox must be a mapping (key: value), not nothing"},
		"number for a text":    {"sandbox: {memory: 2}\n", "headgate.yaml:1: sandbox.memory must be a text, not the number 2"},
		"bad size":             {"sandbox: {memory: 2 gigs}\n", `headgate.yaml:1: sandbox.memory: "2 gigs" is not a size such as 512MiB or 2GiB`},
		"small size":           {"sandbox: {memory: 1MiB}\n", "headgate.yaml:1: sandbox.memory: 1MiB is less than 64MiB"},
		"double run":           {"sandbox: {double_run: always}\n", `headgate.yaml:1: sandbox.double_run is "always", want off, or new to evaluate new results twice`},
		"double run as a bool": {"sandbox: {double_run: true}\n", "headgate.yaml:1: sandbox.double_run must be a text, not the boolean true"},
		"bad duration":         {"sandbox: {timeout: 10}\n", "headgate.yaml:1: sandbox.timeout must be a text, not the number 10"},
		"negative duration":    {"sandbox: {timeout: \"-1s\"}\n", `headgate.yaml:1: sandbox.timeout: duration "-1s" is not positive`},
		"no cpus":              {"sandbox: {cpus: 0}\n", "headgate.yaml:1: sandbox.cpus must be between 0.1 and 64"},
		"nan cpus":             {"sandbox: {cpus: .nan}\n", "headgate.yaml:1: sandbox.cpus must be a number, not the number .nan"},
		"bad gate":             {"branches:\n  main:\n    gate: requierd\n", `headgate.yaml:3: branches.main.gate is "requierd", want required, advisory or off (did you mean "required"?)`},
		"no gate":              {"branches:\n  main: {}\n", "headgate.yaml:2: branches.main needs a gate: required, advisory or off"},
		"full ref":             {"branches:\n  refs/heads/main: {gate: off}\n", `headgate.yaml:2: branch pattern "refs/heads/main" must be a branch's short name, without refs/heads/`},
		"unquoted version":     {"python: {default: 3.10}\n", `headgate.yaml:1: python.default must be a text: write "3.10" in quotes`},
		"old version":          {"python: {default: \"2.7\"}\n", `headgate.yaml:1: python.default is "2.7", want a version such as "3.11" (at least 3.9)`},
		"bad package":          {"python: {packages: {allow: [\"a b\"]}}\n", `headgate.yaml:1: python.packages.allow: "a b" is not a package name (package names have letters, digits, '-', '_' and '.')`},
		"bad table":            {"tables: {base.x: {}}\n", `headgate.yaml:1: tables: table name "base.x": "base" is reserved`},
		"two cases of a table": {"tables:\n  a: {}\n  A: {}\n", `headgate.yaml:3: tables "a" and "A" are one table to SQL`},
		"duplicate key":        {"sandbox: {cpus: 1}\nsandbox: {cpus: 2}\n", `headgate.yaml:2: is not YAML: mapping key "sandbox" already defined at [1:1]`},
		"empty key":            {"tables: {a: {key: []}}\n", "headgate.yaml:1: tables.a.key is empty; leave it out for a table without a key"},
		"unknown test":         {"tables: {a: {columns: {c: {tests: [notnull]}}}}\n", `headgate.yaml:1: unknown test "notnull" (did you mean "not_null"?)`},
		"test twice":           {"tables: {a: {columns: {c: {tests: [unique, unique]}}}}\n", "headgate.yaml:1: tables.a.columns.c.tests has unique twice"},
		"bare relationships":   {"tables: {a: {columns: {c: {tests: [relationships]}}}}\n", "headgate.yaml:1: test relationships needs its table: {relationships: {to: airports, field: iata}}"},
		"half relationship":    {"tables: {a: {columns: {c: {tests: [{relationships: {to: b}}]}}}}\n", "headgate.yaml:1: tables.a.columns.c.tests.relationships needs both to (a table) and field (its column)"},
		"two tests in one":     {"tables: {a: {columns: {c: {tests: [{accepted_values: [1], relationships: {to: b, field: c}}]}}}}\n", "headgate.yaml:1: tables.a.columns.c.tests: each item is one test, this one has 2"},
		"no accepted values":   {"tables: {a: {columns: {c: {tests: [{accepted_values: []}]}}}}\n", "headgate.yaml:1: tables.a.columns.c.tests.accepted_values is empty, so that no row could pass"},
		"null accepted":        {"tables: {a: {columns: {c: {tests: [{accepted_values: [null]}]}}}}\n", "headgate.yaml:1: tables.a.columns.c.tests.accepted_values: a NULL always passes; use not_null to refuse it"},
		"grant without who":    {"grants:\n  - push: [x]\n", "headgate.yaml:2: a grant needs who: the users or groups it is for"},
		"grant unknown":        {"grants:\n  - who: [x]\n    pull: [y]\n", `headgate.yaml:3: unknown key "pull" in grants (there are approve, create, delete, edit, force, propose, push, read_tables, who)`},
		"grant escape":         {"grants: [{who: [x], edit: [\"../x\"]}]\n", `headgate.yaml:1: grants.edit: "../x" must be a path from the lake's root, without . and ..`},
		"parameter type":       {"parameters: {n: {type: integer}}\n", `headgate.yaml:1: parameters.n.type is "integer" (there are str, int, float, bool, date, timestamp)`},
		"parameter no type":    {"parameters:\n  n: {default: 1}\n", "headgate.yaml:2: parameters.n needs a type: str, int, float, bool, date, timestamp"},
		"parameter key":        {"parameters:\n  n:\n    type: int\n    defualt: 1\n", `headgate.yaml:4: unknown key "defualt" in parameters.n (did you mean "default"?)`},
		"parameter text":       {"parameters:\n  n: {type: int, default: \"1\"}\n", "headgate.yaml:2: parameters.n.default must be of the type int, not a text"},
		"parameter number":     {"parameters:\n  n: {type: str, default: 1}\n", "headgate.yaml:2: parameters.n.default must be of the type str, not the number 1; write it in quotes"},
		"parameter date":       {"parameters:\n  n: {type: date, default: 2001-02-30}\n", `headgate.yaml:2: parameters.n.default: "2001-02-30" is not a date such as 2001-01-31`},
		"parameter large":      {"parameters:\n  n: {type: int, default: 9223372036854775808}\n", `headgate.yaml:2: parameters.n.default: "9223372036854775808" is not an int of 64 bits`},
		"parameter name":       {"parameters:\n  a b: {type: int}\n", `headgate.yaml:2: parameters: "a b" is not a name for a parameter (letters, digits, '_', '-' and '.', a letter first)`},
		"secret name":          {"secrets: {\"a b\": {models: [x]}}\n", `headgate.yaml:1: secrets: "a b" is not a name for a secret (letters, digits and '_', a letter first)`},
		"secret for nobody":    {"secrets:\n  KEY: {}\n", "headgate.yaml:2: secrets.KEY needs models: the names of those that get it"},
		"secret key":           {"secrets:\n  KEY: {functions: [x]}\n", `headgate.yaml:2: unknown key "functions" in secrets.KEY (there are models)`},
		"secret pattern":       {"secrets: {KEY: {models: [\"a/b\"]}}\n", `headgate.yaml:1: secrets.KEY.models: "a/b" cannot match a table name`},
		"two cases of one":     {"parameters:\n  a: {type: int}\n  A: {type: int}\n", `headgate.yaml:3: parameters "a" and "A" are one variable to SQL`},
		"alias":                {"a: &x [1]\nb: *x\n", "headgate.yaml:1: anchors, aliases and merge keys are not allowed; write the value out"},
		"tag":                  {"tables: !!map {}\n", "headgate.yaml:1: YAML tags and directives are not allowed"},
		"two documents":        {"sandbox: {cpus: 1}\n---\nsandbox: {cpus: 2}\n", "headgate.yaml:3: a second YAML document; the file is one"},
		"not UTF-8":            {"a: \xff\n", "headgate.yaml: is not UTF-8 text"},
		"too large":            {strings.Repeat("#", strictyaml.MaxBytes+1), "headgate.yaml: has 1048577 bytes, the limit is 1048576"},
		"too many tokens":      {strings.Repeat("a:\n", 150_000), "headgate.yaml: has more than 100000 YAML tokens"},
		"wide mapping":         {strings.Repeat("a:\n", 2_001), "headgate.yaml:2001: has a mapping of more than 2000 keys"},
		"deep flow":            {"a: " + strings.Repeat("[", 50_000), "headgate.yaml:1: is nested deeper than 32 levels"},
		"deep block":           {strings.Repeat("- ", 50_000), "headgate.yaml:1: is nested deeper than 32 levels"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("headgate.yaml", []byte(c.text))
			var bad *Error
			if !errors.As(err, &bad) {
				t.Fatalf("error is %v, want an *Error", err)
			}
			if err.Error() != c.want {
				t.Errorf("have %s\nwant %s", err, c.want)
			}
		})
	}
}

func TestProblemsAreReportedTogether(t *testing.T) {
	_, err := Parse("headgate.yaml", []byte("sandbox:\n  memory: x\n  cpu: 1\ntabels: {}\nbranches:\n  \"a b\": {gate: off}\n"))
	want := strings.Join([]string{
		`headgate.yaml:2: sandbox.memory: "x" is not a size such as 512MiB or 2GiB`,
		`headgate.yaml:3: unknown key "cpu" in sandbox (did you mean "cpus"?)`,
		`headgate.yaml:4: unknown key "tabels" (did you mean "tables"?)`,
		`headgate.yaml:6: branch pattern "a b" has a character that no branch name has (the only wildcard is *)`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("have %v\nwant %s", err, want)
	}
}

func TestGateOf(t *testing.T) {
	p, err := Parse("headgate.yaml", []byte(`branches:
  "*": {gate: off}
  "release/*": {gate: required}
  "release/old": {gate: off}
  "*/lts": {gate: advisory}
  "a/*x": {gate: off}
  "a/x*": {gate: required}
`))
	if err != nil {
		t.Fatal(err)
	}
	for branch, want := range map[string]Gate{
		"main":        Required, // no pattern opens main
		"dev":         Off,
		"release/1":   Required,
		"release/1/x": Required,
		"release/old": Off,
		"release/lts": Required, // the longer pattern
		"dev/lts":     Advisory,
		"a/xx":        Required, // equally long: the stricter
		"release":     Off,
	} {
		if got := p.GateOf(branch); got != want {
			t.Errorf("gate of %s is %s, want %s", branch, got, want)
		}
	}
	if Default().GateOf("main") != Required || Default().GateOf("agent/x") != Off {
		t.Error("by default main is gated and nothing else")
	}
	open, err := Parse("headgate.yaml", []byte("branches: {main: {gate: off}}"))
	if err != nil {
		t.Fatal(err)
	}
	if open.GateOf("main") != Off {
		t.Error("a policy that names main decides")
	}
}

// TestMatch compares with a matcher that tries everything.
func TestMatch(t *testing.T) {
	var slow func(p, s string) bool
	slow = func(p, s string) bool {
		switch {
		case p == "":
			return s == ""
		case p[0] == '*':
			return slow(p[1:], s) || s != "" && slow(p, s[1:])
		}
		return s != "" && s[0] == p[0] && slow(p[1:], s[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringMatching(`[ab/*]{0,6}`).Draw(t, "pattern")
		s := rapid.StringMatching(`[ab/]{0,8}`).Draw(t, "name")
		if Match(p, s) != slow(p, s) {
			t.Fatalf("Match(%q, %q) = %v", p, s, !slow(p, s))
		}
	})
}

func TestPlanSettings(t *testing.T) {
	p, err := Parse("headgate.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	s := p.PlanSettings()
	flights := s.Tables["flights"]
	if s.File != "headgate.yaml" || len(s.Packages) != 2 || flights.KeyLine != 12 || len(flights.Columns["origin"]) != 2 {
		t.Errorf("settings are %+v", s)
	}
}

// FuzzParse looks for panics, and for errors that are no *Error.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	for _, s := range []string{
		"a: &x [*x]", "- - - ? : [}", "? a\n: b", "a: |\n  x\n b", "%YAML 1.2\n---\n", "{a: b, c}", "a:\n- b\n-", "\"\\x",
		"tables: {a: {columns: {c: {tests: [{accepted_values: [1e400, 0x10, 0b1, 1_000]}]}}}}", "<<: {a: b}", "a: !!binary x", "!: \t",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("headgate.yaml", data)
		var bad *Error
		if err != nil && (!errors.As(err, &bad) || len(bad.Problems) == 0 || p != nil) {
			t.Fatalf("error %v (%T)", err, err)
		}
		if err == nil {
			p.GateOf("main")
			p.PlanSettings()
		}
	})
}
