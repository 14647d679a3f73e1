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
