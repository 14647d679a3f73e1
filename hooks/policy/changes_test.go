package policy

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/plan"
)

const more = `min_verifier_score: 80%
approvals:
  - {paths: ["verifiers/**"], count: 2}
`

// Where a rule stands in the file is no difference, and neither is a comment.
func TestChangesDoNotSeeLines(t *testing.T) {
	text := strings.Replace(whole, "parameters:\n", more+"parameters:\n", 1)
	a, err := Parse("headgate.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	a.Tables["x"] = Table{Line: 3, KeyLine: 4, Rules: []plan.Rule{{Kind: plan.Freshness, Line: 5, Columns: []string{"day"}}}}
	b, err := Parse("headgate.yaml", []byte("# moved\n\n# down\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	b.Tables["x"] = Table{Line: 9, KeyLine: 10, Rules: []plan.Rule{{Kind: plan.Freshness, Line: 11, Columns: []string{"day"}}}}
	if got := Changes(a, b); len(got) > 0 {
		t.Errorf("changed are %v", got)
	}
	if a.Grants[0].Line == 0 || a.Tables["x"].Rules[0].Line != 5 {
		t.Error("the policies themselves lost their lines")
	}
	age := time.Hour
	b.Tables["x"] = Table{Rules: []plan.Rule{{Kind: plan.Freshness, Columns: []string{"day"}, MaxAge: &age}}}
	if got := Changes(a, b); !slices.Equal(got, []string{"tables"}) {
		t.Errorf("changed are %v, want tables", got)
	}
}

// No part of a policy can be changed unseen, also one that is yet to come.
func TestChangesSeeEveryPart(t *testing.T) {
	text := strings.Replace(whole, "parameters:\n", more+"parameters:\n", 1)
	p, err := Parse("headgate.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for i := range reflect.TypeFor[Policy]().NumField() {
		field := reflect.TypeFor[Policy]().Field(i)
		if field.Name == "File" {
			continue
		}
		q := *p
		v := reflect.ValueOf(&q).Elem().Field(i)
		if v.IsZero() {
			t.Fatalf("%s is not in the test's policy", field.Name)
		}
		v.SetZero()
		if got := Changes(p, &q); len(got) != 1 {
			t.Errorf("without %s: changed are %v, want one section", field.Name, got)
		}
	}
}
