package exec

import (
	"reflect"
	"testing"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/objects/table"
)

// What a filter reads is a value for the worker that cuts the input, never an
// argument of the function, and a part of what the cut is kept by.
func TestVariablesOfFilters(t *testing.T) {
	params := []plan.Param{{Param: "d", Name: "day", Type: "date"}, {Param: "$day", Name: "day", Type: "date"}, {Param: "$n", Name: "n"}}
	values := map[string]any{"d": "2001-01-01", "$day": "2001-01-01", "$n": int64(3)}

	given, types := forFunction(params, values)
	if !reflect.DeepEqual(given, map[string]any{"d": "2001-01-01"}) || !reflect.DeepEqual(types, map[string]string{"d": "date"}) {
		t.Errorf("the function gets %v of types %v", given, types)
	}

	input := Bound{
		Input: plan.Input{Table: "t", Filter: "day = getvariable('day') AND n = getvariable('n')", Variables: []string{"day", "n"}},
		Table: &Table{Meta: &table.Snapshot{}},
	}
	bound := withVariables([]Bound{input, {Input: plan.Input{Table: "u", Filter: "true"}, Table: input.Table}}, params, values)
	want := variables{Values: map[string]any{"day": "2001-01-01", "n": int64(3)}, Types: map[string]string{"day": "date"}}
	if !reflect.DeepEqual(bound[0].variables, want) || bound[1].variables.Values != nil {
		t.Errorf("the inputs have %+v and %+v", bound[0].variables, bound[1].variables)
	}
	one, err := projectionKey(bound[0])
	if err != nil {
		t.Fatal(err)
	}
	values["$n"] = int64(4)
	two, err := projectionKey(withVariables([]Bound{input}, params, values)[0])
	if err != nil || one == two {
		t.Errorf("another value of a variable is the same cut (%v)", err)
	}
}
