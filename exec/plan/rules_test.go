package plan

import (
	"strings"
	"testing"
	"time"
)

// The policy lets the kinds of RuleKinds through, so each of them must compile:
// Compile panics for any other.
func TestEveryKindOfRuleCompiles(t *testing.T) {
	bound, age := &Bound{Value: 0.05, Relative: true, Text: "5%"}, time.Hour
	for _, kind := range RuleKinds {
		r := Rule{
			Kind: kind, Columns: []string{"c"}, Min: bound, Max: bound, PSI: 0.2, Bins: DefaultBins, MaxAge: &age,
			Value: "sum(c)", To: "u", ToValue: "sum(c)", Tolerance: *bound,
		}
		finding, evidence := r.Compile("trips", "c", []string{"k"})
		if !strings.Contains(finding, "SELECT") || !strings.Contains(finding, "trips") || evidence == "" && kind != RowCountChange {
			t.Errorf("%s compiles to %q and %q", kind, finding, evidence)
		}
	}
}
