package policy

import (
	"strings"
	"testing"
)

func TestMinVerifierScoreIsAShare(t *testing.T) {
	for text, want := range map[string]float64{"80%": 0.8, "0.5": 0.5, "1": 1, "0": 0} {
		p, err := Parse("headgate.yaml", []byte("min_verifier_score: "+text+"\n"))
		if err != nil || p.MinVerifierScore != want {
			t.Errorf("%s: %v %v", text, p, err)
		}
	}
	for text, want := range map[string]string{"80": "want a share such as 80%", "-1%": "want a share", "high": `min_verifier_score is "high"`, "[1]": "must be"} {
		if _, err := Parse("headgate.yaml", []byte("\nmin_verifier_score: "+text+"\n")); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "headgate.yaml:2: ") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Who lowers the bar, or loosens a rule, changes the policy; moving a rule to another line does not.
func TestRulesAndTheBarArePolicy(t *testing.T) {
	parse := func(text string) *Policy {
		p, err := Parse("headgate.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	old := parse("min_verifier_score: 80%\ntables: {t: {rules: [row_count_change: {max: 1}]}}\n")
	for text, want := range map[string]string{
		"min_verifier_score: 70%\ntables: {t: {rules: [row_count_change: {max: 1}]}}\n":              "min_verifier_score",
		"min_verifier_score: 80%\ntables: {t: {rules: [row_count_change: {max: 2}]}}\n":              "tables",
		"\n\n# moved\nmin_verifier_score: 80%\ntables: {t: {rules: [row_count_change: {max: 1}]}}\n": "",
	} {
		if got := strings.Join(Changes(old, parse(text)), " "); got != want {
			t.Errorf("%q changes %q, want %q", text, got, want)
		}
	}
}
