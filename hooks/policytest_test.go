package hooks

import (
	"errors"
	"strings"
	"testing"

	"github.com/headgate/headgate/refs"
)

// What a test of the policy says before a push is what the gate says of it.
func TestPolicyTestSaysWhatTheGateDoes(t *testing.T) {
	r, _ := governed(t)
	files := r.state(r.tip(mainRef))
	for name, c := range map[string]struct {
		who    Identity
		change []string
		denied string
	}{
		"a model of the bot's":    {bot, []string{"models/two.sql", "SELECT n, n FROM one"}, ""},
		"a verifier of the bot's": {bot, []string{"verifiers/fine.sql", "SELECT n, n FROM two"}, "verifiers/fine.sql"},
		"another case":            {bot, []string{"Models/two.sql", "x"}, "Models/two.sql"},
		"a verifier of ada's":     {ada, []string{"verifiers/fine.sql", "SELECT n, n FROM two"}, ""},
		"a stranger's":            {eve, []string{"models/two.sql", "SELECT n, n FROM one"}, "propose"},
		"an administrator's":      {op, []string{PolicyFile, "branches: {main: {gate: off}}\n"}, ""},
		"a derived table":         {bot, []string{"tables/one/x.parquet", "PAR1 forged PAR1", "models/two.sql", "SELECT n, n FROM one"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r.who = op
			oid, q := r.commit(with(files, c.change...), r.tip(mainRef))
			r.must(q.Migrate(t.Context()))
			rep, err := r.gate.TestPolicy(t.Context(), r.lake, c.who, PolicyAsked{Of: oid.String()})
			r.must(err)
			if rep.Denied() != (c.denied != "") {
				t.Errorf("denied: %v\n%s", rep.Denied(), rep.Text())
			}
			var denied []string
			for _, a := range append(rep.Users[0].Actions, rep.Users[0].Edits...) {
				if !a.Allowed {
					denied = append(denied, a.What)
				}
			}
			if all := strings.Join(denied, " "); c.denied != "" && !strings.Contains(all, c.denied) {
				t.Errorf("denied are %q, want %q", all, c.denied)
			}
			r.who = c.who
			out := r.push(q, []string{"dry-run"}, false, refs.Update{Name: mainRef, Old: r.tip(mainRef), New: oid})
			if err := out[0].Err; (err == nil) != (c.denied == "") {
				t.Errorf("the gate: %v; the test:\n%s", err, rep.Text())
			}
		})
	}
	if _, err := r.gate.TestPolicy(t.Context(), r.lake, ada, PolicyAsked{Who: "nobody"}); !errors.As(err, new(*QueryError)) {
		t.Errorf("somebody without a key: %v", err)
	}
	rep, err := r.gate.TestPolicy(t.Context(), r.lake, ada, PolicyAsked{Who: "bot", Branch: "agent/x"})
	r.must(err)
	if text := rep.Text(); !strings.Contains(text, "agent/x: gate off") || !strings.Contains(text, "bot, in agents\n") || !strings.Contains(text, "yes  push                         headgate.yaml:5 lets agents push agent/*") {
		t.Errorf("of a branch:\n%s", text)
	}
}
