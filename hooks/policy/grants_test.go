package policy

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestMatchPath(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"headgate.yaml", "headgate.yaml", true},
		{"headgate.yaml", "Headgate.yaml", false},
		{"headgate.yaml", "sub/headgate.yaml", false},
		{"models/**", "models/a.sql", true},
		{"models/**", "models/ns/a.sql", true},
		{"models/**", "models", true},
		{"models/**", "modelsx/a.sql", false},
		{"models/**", "Models/a.sql", false},
		{"models/*", "models/ns/a.sql", false},
		{"models/*.sql", "models/a.sql", true},
		{"models/*.sql", "models/a.py", false},
		{"**", "a/b/c", true},
		{"**/x.sql", "x.sql", true},
		{"**/x.sql", "a/b/x.sql", true},
		{"a/**/b/**/c", "a/b/c", true},
		{"a/**/b/**/c", "a/1/b/2/3/c", true},
		{"a/**/b/**/c", "a/1/2/3/c", false},
		{"a/**/b", "a/b/b/b", true},
		{"a/**/b/*", "a/b/b", true},
		{"a/**/b/*", "a/b", false},
		{"tables/**", "tables/../headgate.yaml", true}, // no tree has such a path
	} {
		if got := MatchPath(c.pattern, c.path); got != c.want {
			t.Errorf("%q on %q: %v, want %v", c.pattern, c.path, got, c.want)
		}
	}
}

// slowMatch is the definition of MatchPath.
func slowMatch(pattern, path []string) bool {
	switch {
	case len(pattern) == 0:
		return len(path) == 0
	case pattern[0] == "**":
		return slowMatch(pattern[1:], path) || len(path) > 0 && slowMatch(pattern, path[1:])
	}
	return len(path) > 0 && Match(pattern[0], path[0]) && slowMatch(pattern[1:], path[1:])
}

func TestMatchPathIsItsDefinition(t *testing.T) {
	part := rapid.SampledFrom([]string{"a", "b", "ab", "*", "a*", "**", "**"})
	name := rapid.SampledFrom([]string{"a", "b", "ab", "abb"})
	rapid.Check(t, func(t *rapid.T) {
		pattern, path := rapid.SliceOfN(part, 1, 6).Draw(t, "pattern"), rapid.SliceOfN(name, 1, 7).Draw(t, "path")
		if got, want := MatchPath(strings.Join(pattern, "/"), strings.Join(path, "/")), slowMatch(pattern, path); got != want {
			t.Fatalf("%v on %v: %v, want %v", pattern, path, got, want)
		}
	})
}

func TestFold(t *testing.T) {
	for _, same := range [][]string{
		{"verifiers", "Verifiers", "VERIFIERS", "veri\u200bfiers", "verifier\u017f"},
		{"é", "e\u0301", "É"},
		{"kelvin", "\u212aelvin"},
		{"headgate.yaml", "headgate.yaml.", "headgate.yaml "},
	} {
		for _, name := range same[1:] {
			if Fold(name) != Fold(same[0]) {
				t.Errorf("%q folds to %q, %q to %q", name, Fold(name), same[0], Fold(same[0]))
			}
		}
	}
	if Fold("models") == Fold("model") {
		t.Error("other names fold to one")
	}
}

const granted = `branches:
  main: {gate: required}
  "release/*": {gate: required}
grants:
  - {who: [agents], push: ["agent/*"], propose: [main], read_tables: ["*"], edit: ["models/**", "tables/**"]}
  - {who: [ada, leads], propose: ["*"], create: ["release/*"], edit: ["**"], approve: ["verifiers/**"]}
  - {who: [bob], force: ["bob/*", "refs/tags/*"], delete: ["bob/*"]}
`

func people() *People {
	return NewPeople([]User{
		{Name: "ada"}, {Name: "bob"}, {Name: "eve"}, {Name: "root", Admin: true},
		{Name: "bot1", Groups: []string{"agents"}}, {Name: "lea", Groups: []string{"leads"}},
	})
}

func TestMay(t *testing.T) {
	p, err := Parse("headgate.yaml", []byte(granted))
	if err != nil {
		t.Fatal(err)
	}
	all := people()
	for _, c := range []struct {
		who    string
		action Action
		branch string
		want   bool
		why    string
	}{
		{"bot1", Push, "agent/x", true, "headgate.yaml:5 lets agents push agent/*"},
		{"bot1", Create, "agent/x", true, "push agent/*"},
		{"bot1", Force, "agent/x", false, "no grant of headgate.yaml lets anybody force agent/x"},
		{"bot1", Delete, "agent/x", false, ""},
		{"bot1", Propose, "main", true, "propose main"},
		{"bot1", Propose, "release/1", false, "no grant of headgate.yaml lets bot1 propose release/1 (line 6 lets ada, leads)"},
		{"bot1", Push, "bob/x", false, ""},
		{"lea", Propose, "release/1", true, "lets leads propose *"},
		{"ada", Create, "release/1", true, ""},
		{"bob", Push, "bob/x", true, "force bob/*"},
		{"bob", Delete, "bob/x", true, ""},
		{"bob", Push, "refs/tags/v1", true, ""},
		{"ada", Propose, "refs/tags/v1", false, ""},
		{"eve", Push, "agent/x", false, ""},
		{"root", Force, "anything", true, "administrators are above grants"},
		{"agents", Push, "agent/x", false, ""}, // a stranger of that name is no member
	} {
		u, ok := all.User(c.who)
		if !ok {
			u = User{Name: c.who}
		}
		if c.who == "agents" {
			all = NewPeople(append(people().Users(), u))
			if got := p.May(User{Name: "bot1", Groups: []string{"agents"}}, Push, "agent/x", all); got.Allowed {
				t.Error("a name that is both a user's and a group's holds for the group")
			}
		}
		got := p.May(u, c.action, c.branch, all)
		if got.Allowed != c.want || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s %s %s: %+v, want %v because %q", c.who, c.action, c.branch, got, c.want, c.why)
		}
	}
	none := Default()
	if got := none.May(User{Name: "eve"}, Force, "x", nil); !got.Allowed {
		t.Errorf("without grants: %+v", got)
	}
	if got := none.MayApprove(User{Name: "root", Admin: true}, "x", nil); got.Allowed {
		t.Error("without grants somebody may approve")
	}
}

func TestCheckGrants(t *testing.T) {
	gates := "branches: {main: {gate: required}, dev: {gate: off}}\n"
	for name, c := range map[string]struct{ grant, problem, warning string }{
		"unknown user":        {`{who: [adda], propose: [main]}`, `headgate.yaml:3: grants: there is no user or group "adda" (did you mean "ada"?)`, ""},
		"both":                {`{who: [twin], propose: [main]}`, `"twin" is both a user and a group`, ""},
		"push to gated":       {`{who: [ada], push: [main]}`, `grants.push: main is gated, so nobody can push it; write propose: [main]`, ""},
		"delete gated":        {`{who: [ada], delete: [main]}`, `grants.delete: main is gated, and a gated branch cannot be deleted`, ""},
		"propose to ungated":  {`{who: [ada], propose: [dev]}`, `grants.propose: dev has no gate to propose to`, ""},
		"nothing":             {`{who: [ada], push: [dve]}`, "", "headgate.yaml:3: grants.push: there is no dve yet"},
		"no path":             {`{who: [ada], edit: ["modles/**"]}`, "", "headgate.yaml:3: grants.edit: modles/** matches nothing here"},
		"tables":              {`{who: [ada], read_tables: ["mart.*"]}`, `grants.read_tables: "mart.*": this version`, ""},
		"all tables":          {`{who: [ada], read_tables: ["*"], propose: [main]}`, "", ""},
		"administrators only": {`{who: [ada], push: ["*"]}`, "", "only administrators may propose to main"},
	} {
		p, err := Parse("headgate.yaml", []byte(gates+"grants:\n  - "+c.grant+"\n"))
		if err != nil {
			t.Fatal(name, err)
		}
		all := NewPeople([]User{{Name: "ada"}, {Name: "root", Admin: true}, {Name: "twin", Groups: []string{"twin"}}})
		problems, warnings := p.CheckGrants(all, []string{"main", "dev"}, []string{"models/a.sql", "headgate.yaml"})
		var texts []string
		for _, problem := range problems {
			texts = append(texts, problem.String())
		}
		if got := strings.Join(texts, "\n"); !strings.Contains(got, c.problem) || (c.problem == "") != (got == "") {
			t.Errorf("%s: problems %q, want %q", name, got, c.problem)
		}
		if got := strings.Join(warnings, "\n"); !strings.Contains(got, c.warning) {
			t.Errorf("%s: warnings %q, want %q", name, got, c.warning)
		}
	}
}

func TestPolicyThatLocksEverybodyOut(t *testing.T) {
	without := NewPeople([]User{{Name: "ada"}, {Name: "bob"}})
	for text, locked := range map[string]bool{
		"grants: []\n": true,
		"grants: [{who: [ada], propose: [main], edit: [\"models/**\"]}]\n":                 true,
		"grants: [{who: [ada], propose: [main]}, {who: [bob], edit: [\"**\"]}]\n":          true,
		"grants: [{who: [ada], propose: [main]}, {who: [\"*\"], edit: [headgate.yaml]}]\n": false,
		"grants: [{who: [ada], propose: [\"*\"], edit: [\"**\"]}]\n":                       false,
		"branches: {main: {gate: required}}\n":                                             false,
	} {
		p, err := Parse("headgate.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		problems, _ := p.CheckGrants(without, nil, nil)
		if got := len(problems) > 0 && strings.Contains(problems[len(problems)-1].Message, "nobody could change headgate.yaml again"); got != locked {
			t.Errorf("%q: %v, want locked %v", text, problems, locked)
		}
		root := NewPeople([]User{{Name: "root", Admin: true}})
		if problems, _ := p.CheckGrants(root, nil, nil); len(problems) > 0 && strings.Contains(problems[len(problems)-1].Message, "nobody could change") {
			t.Errorf("%q: an administrator is locked out: %v", text, problems)
		}
	}
}
