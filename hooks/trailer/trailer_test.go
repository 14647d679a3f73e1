package trailer

import (
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects"
)

func oid(t interface{ Fatal(...any) }, s string) objects.OID {
	o, err := objects.ParseOID(strings.Repeat(s, 40))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func example(t interface{ Fatal(...any) }) Gate {
	return Gate{
		RunID: "01J9ZQ4T3N8Y6W2K5D7F0H1M9C", Base: oid(t, "a"), Proposal: oid(t, "b"), PushedBy: "ada",
		Models: []Model{
			{Name: "daily", Code: strings.Repeat("c", 40), Env: "e0", Inputs: []Input{{"flights", strings.Repeat("1", 40)}, {"ns.airports", strings.Repeat("2", 40)}}, Out: strings.Repeat("3", 40), Rows: 12, Cached: true},
			{Name: "constant", Code: "c", Env: "e", Out: "o"},
		},
		Verifiers: []Verifier{{"no_missing_day", "pass", false}, {"flights.origin:relationships", "warn", true}},
	}
}

func TestFormatIsWhatTheDocumentsShow(t *testing.T) {
	want := "Run-Id: 01J9ZQ4T3N8Y6W2K5D7F0H1M9C\n" +
		"Base: " + strings.Repeat("a", 40) + "\n" +
		"Proposal: " + strings.Repeat("b", 40) + "\n" +
		"Pushed-By: ada\n" +
		"Model: daily code=" + strings.Repeat("c", 40) + " env=e0 in=flights@" + strings.Repeat("1", 40) + ",ns.airports@" + strings.Repeat("2", 40) + " out=" + strings.Repeat("3", 40) + " rows=12 cached=true\n" +
		"Model: constant code=c env=e in= out=o rows=0 cached=false\n" +
		"Verifier: no_missing_day pass\n" +
		"Verifier: flights.origin:relationships warn at=base\n"
	if got := example(t).Format(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestGitTakesTheBlockForTrailers(t *testing.T) {
	g := example(t)
	g.PushedBy = "ada lovelace\nRun-Id: forged"
	cmd := exec.Command("git", "interpret-trailers", "--parse")
	cmd.Stdin = strings.NewReader("Publish to main: x\n\nA body.\n\n" + g.Format())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != g.Format() {
		t.Errorf("git read\n%s\nwant\n%s", out, g.Format())
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		g := example(t)
		g.PushedBy = text.Draw(t, "who")
		g.Models, g.Verifiers = nil, nil
		for range rapid.IntRange(0, 4).Draw(t, "models") {
			m := Model{Name: text.Draw(t, "name"), Code: text.Draw(t, "code"), Env: text.Draw(t, "env"), Out: text.Draw(t, "out"), Rows: rapid.Int64().Draw(t, "rows"), Cached: rapid.Bool().Draw(t, "cached"),
				Params: text.Draw(t, "params"), Strategy: text.Draw(t, "strategy"), Prior: text.Draw(t, "prior"), NotDeterministic: rapid.Bool().Draw(t, "not deterministic")}
			for range rapid.IntRange(0, 3).Draw(t, "inputs") {
				m.Inputs = append(m.Inputs, Input{text.Draw(t, "table"), text.Draw(t, "snapshot")})
			}
			g.Models = append(g.Models, m)
			g.ApprovedBy = append(g.ApprovedBy, text.Draw(t, "approver"))
			g.Verifiers = append(g.Verifiers, Verifier{text.Draw(t, "verifier"), rapid.SampledFrom([]string{"pass", "warn"}).Draw(t, "result"), rapid.Bool().Draw(t, "at base")})
		}
		block := g.Format()
		got, err := Parse("Publish\n\nbody: with colon\n\n" + block)
		if err != nil {
			t.Fatalf("%v in\n%s", err, block)
		}
		if !reflect.DeepEqual(got, g) {
			t.Fatalf("got %+v, want %+v, from\n%s", got, g, block)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	good := example(t).Format()
	for name, c := range map[string]struct {
		text, reason string
	}{
		"run id of another kind":  {strings.Replace(good, "01J9ZQ4T3N8Y6W2K5D7F0H1M9C", "7", 1), "not a run id"},
		"short oid":               {strings.Replace(good, "Base: aaaa", "Base: ", 1), "40 hex digits"},
		"no base":                 {strings.Replace(good, "Base: ", "Basis: ", 1), "no Base"},
		"two proposals":           {strings.Replace(good, "Base: ", "Proposal: "+strings.Repeat("d", 40)+"\nBase: ", 1), "given twice"},
		"model without out":       {strings.Replace(good, " out=o", "", 1), `"out" is missing`},
		"rows that are no number": {strings.Replace(good, "rows=0", "rows=many", 1), `"rows"`},
		"input without snapshot":  {strings.Replace(good, "in= ", "in=flights ", 1), "table@snapshot"},
		"cut escape":              {strings.Replace(good, "Pushed-By: ada", "Pushed-By: ada%4", 1), "escape"},
		"verifier without result": {strings.Replace(good, "no_missing_day pass", "no_missing_day", 1), "a result"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(c.text)
			var bad *Error
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("got %v, want an *Error with %q", err, c.reason)
			}
		})
	}
}

func TestOrdinaryCommitIsNoGateCommit(t *testing.T) {
	for _, message := range []string{"", "Fix it\n", "Fix it\n\nSigned-off-by: ada <a@b>\n", "x\n\n" + example(t).Format() + "\nA paragraph after the trailers.\n"} {
		if _, err := Parse(message); !errors.Is(err, ErrNotGate) {
			t.Errorf("%q: got %v, want ErrNotGate", message, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example(f).Format())
	f.Add("x\n\nRun-Id: 01J9ZQ4T3N8Y6W2K5D7F0H1M9C\nModel: a%20b in=a@b,c\n")
	f.Fuzz(func(t *testing.T, message string) {
		g, err := Parse(message)
		if err != nil {
			return
		}
		again, err := Parse(g.Format())
		if err != nil || !reflect.DeepEqual(again, g) {
			t.Errorf("%+v does not survive a round: %+v, %v", g, again, err)
		}
	})
}
