package plan_test

import (
	"errors"
	"testing"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
)

func TestFunctionsNeedNoTables(t *testing.T) {
	sources := []protocol.Source{
		{Path: "models/a.py"}, {Path: "verifiers/b.py"}, {Path: "tools/c.py"}, {Path: "p/d.py"},
		{Path: "p/bauplan_project.yml", Text: "project: {id: 1, name: p}\ndefaults: {python: {version: 3.10, packages: [{name: polars, version: 2.1}]}}\n"},
	}
	d := &declarer{declared: []protocol.Declaration{
		{Path: "models/a.py", Line: 3, Function: "a", Kind: "model", Name: "a", Strategy: "REPLACE", Packages: map[string]string{"Pandas": "2.2.2"},
			Inputs: []protocol.DeclaredInput{{Table: "nowhere", Param: "x"}}},
		{Path: "verifiers/b.py", Line: 4, Function: "b", Kind: "expectation", Name: "b", Python: "3.12"},
		{Path: "tools/c.py", Line: 5, Function: "c", Kind: "model", Name: "c", Strategy: "REPLACE"},
		{Path: "p/d.py", Line: 1, Function: "Row", Kind: "schema", Name: "Row"},
		{Path: "p/d.py", Line: 6, Function: "d", Kind: "model", Name: "d", Strategy: "REPLACE"},
	}}
	settings := &plan.Settings{Python: "3.11", Packages: []string{"pandas", "polars"}}
	got, err := plan.Functions(t.Context(), sources, settings, d)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d functions, %v; want 3", len(got), err)
	}
	for i, want := range []struct {
		path, python, pkg, version string
		line                       int
	}{
		{"models/a.py", "3.11", "pandas", "==2.2.2", 3}, {"p/d.py", "3.10", "polars", "==2.1", 6}, {"verifiers/b.py", "3.12", "", "", 4},
	} {
		f := got[i]
		if f.Path != want.path || f.Line != want.line || f.Declared.Python != want.python || f.Packages[want.pkg] != want.version {
			t.Errorf("function %d: %+v, want %+v", i, f, want)
		}
	}
	settings.Packages = nil
	var bad *plan.Error
	if _, err := plan.Functions(t.Context(), sources, settings, d); !errors.As(err, &bad) || len(bad.Problems) != 2 {
		t.Errorf("packages that are not allowed: %v, want two problems", err)
	}
}
