package exec

import (
	"fmt"
	"slices"
	"testing"

	"github.com/headgate/headgate/objects/table"
)

func TestBrokenContracts(t *testing.T) {
	have := []table.Column{{Name: "day", Type: "DATE"}, {Name: "n", Type: "BIGINT"}}
	for _, tc := range []struct {
		declared []string
		types    map[string]string
		want     []string
	}{
		{[]string{"n", "day"}, map[string]string{"n": "BIGINT"}, nil},
		{[]string{"day"}, nil, []string{`column "n" is not declared: expected none, found BIGINT`}},
		{[]string{"day", "n", "x"}, nil, []string{`column "x" is missing: expected any type, found none`}},
		{[]string{"Day", "n"}, map[string]string{"Day": "DATE", "n": "INTEGER"}, []string{
			`column "Day" is missing: expected DATE, found none`, `column "n" has another type: expected INTEGER, found BIGINT`,
			`column "day" is not declared: expected none, found DATE`,
		}},
	} {
		if got := broken(tc.declared, tc.types, have); !slices.Equal(got, tc.want) {
			t.Errorf("%q %v: %q, want %q", tc.declared, tc.types, got, tc.want)
		}
	}
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprint("c", i))
	}
	if got := broken(many, nil, have); len(got) != maxBroken+1 || got[maxBroken] != "and 982 more columns are not as declared" {
		t.Errorf("a thousand columns: %q", got)
	}
}
