package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/plan"
)

func TestSeveritiesOfTests(t *testing.T) {
	p, err := Parse("headgate.yaml", []byte(`tables:
  t:
    columns:
      a: {tests: [not_null: {severity: warn}, unique: {severity: error}]}
      b: {tests: [accepted_values: {values: [x, y], severity: warn}, relationships: {to: u, field: b, severity: warn}]}
      c: {tests: [not_null, accepted_values: [x]]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for column, want := range map[string][]plan.Severity{"a": {"warn", ""}, "b": {"warn", "warn"}, "c": {"", ""}} {
		for i, test := range p.Tables["t"].Columns[column].Tests {
			if test.Severity != want[i] {
				t.Errorf("%s, %s: severity %q, want %q", column, test.Kind, test.Severity, want[i])
			}
		}
	}
	if v := p.Tables["t"].Columns["b"].Tests[0].Values; len(v) != 2 {
		t.Errorf("values: %v", v)
	}
	for text, want := range map[string]string{
		"{not_null: {severity: loud}}":          `"loud" is no severity, want error or warn`,
		"{not_null: {severty: warn}}":           "severty",
		"{unique: true}":                        "takes no arguments but its severity",
		"{accepted_values: {severity: warn}}":   "needs its values",
		"{accepted_values: {values: [], x: 1}}": "so that no row could pass",
	} {
		_, err := Parse("headgate.yaml", []byte("tables:\n  t: {columns: {a: {tests: ["+text+"]}}}\n"))
		var bad *Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) || bad.Problems[0].Line != 2 {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
