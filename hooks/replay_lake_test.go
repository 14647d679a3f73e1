package hooks

import (
	"errors"
	"strings"
	"testing"

	"github.com/headgate/headgate/hooks/lake"
)

func TestReplayOnTheServer(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	published := r.record(lake.Published).ID
	if err := r.toMain(with(base(), "models/one.sql", "SELECT n, 'BAD' FROM src")); err == nil {
		t.Fatal("a model that fails was published")
	}
	rejected := r.record(lake.Rejected).ID
	tip := r.tip(mainRef)
	r.boxes.took("")
	var lines []string
	for _, of := range []string{"", "main", "refs/heads/main", tip.String(), published} {
		rep, err := r.gate.Replay(t.Context(), r.lake, ReplayQuestion{Of: of, Verifiers: true, Progress: func(l string) { lines = append(lines, l) }})
		if err != nil || !rep.Equal || rep.Commit != tip.String() || rep.Signature != SignatureGood || len(rep.Models) != 2 || len(rep.Verifiers) != 1 {
			t.Errorf("replay of %q: %+v, %v", of, rep, err)
		}
	}
	if len(lines) != 5*4 {
		t.Errorf("%d lines of progress, want 4 a replay:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	for of, want := range map[string]string{
		rejected:                             "published no gate commit",
		"01J9ZQ4T3N8Y6W2K5D7F0H1M9C":         "has no run",
		"nowhere":                            `no branch, tag, ref or commit "nowhere"`,
		strings.Repeat("ab", 20):             "there is no commit",
		mustCommit(t, r).Parents[1].String(): "it is no gate commit",
		r.forge(nil, func(m string) string { return strings.Replace(m, "rows=1", "rows=2", 1) }).String(): "not the signature of this server's gate",
	} {
		var asked *QueryError
		if _, err := r.gate.Replay(t.Context(), r.lake, ReplayQuestion{Of: of}); !errors.As(err, &asked) || !strings.Contains(asked.Text, want) {
			t.Errorf("replay of %s: %v, want a *QueryError with %q", of, err, want)
		}
	}
	var asked *QueryError
	if _, err := r.gate.Replay(t.Context(), r.lake, ReplayQuestion{Tables: []string{"src"}}); !errors.As(err, &asked) {
		t.Errorf("replay of a source table: %v", err)
	}
}
