package hooks

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/trailer"
)

func TestParametersAreTypedKeptAndCached(t *testing.T) {
	r := newRig(t)
	files := with(base(),
		"headgate.yaml", "parameters:\n  day: {type: date, default: 2001-01-01, description: first day}\n  n: {type: int}\n",
		"models/one.sql", "-- headgate: params=[day, n]\nSELECT n FROM src WHERE d = getvariable('day') AND n < getvariable('n')")
	var rejected *Rejection
	if err := r.toMain(files); !errors.As(err, &rejected) || !strings.Contains(err.Error(), "-o param.n=") {
		t.Errorf("without a value: %v, want a refusal that says how to give one", err)
	}
	if err := r.toMain(files, "param.n=many", "param.day=today"); !errors.As(err, &rejected) || len(rejected.Reasons) != 2 ||
		!strings.Contains(rejected.Reasons[0], `"day" is of the type date: "today"`) || !strings.Contains(rejected.Reasons[1], `"n" is of the type int: "many"`) {
		t.Errorf("with wrong values: %v, want both named with their types", err)
	}
	if err := r.toMain(files, "param.n=1", "param.dya=2001-01-01"); err == nil || !strings.Contains(err.Error(), `did you mean "day"`) {
		t.Errorf("a parameter that no model has: %v", err)
	}
	if n := r.boxes.took(protocol.OpModel); n != 0 {
		t.Errorf("%d models ran although parameters were wrong", n)
	}

	r.must(r.toMain(files, "param.n=12345678901234567"))
	if got := r.boxes.params["day"]; got != "2001-01-01" || r.boxes.params["n"] != int64(12345678901234567) {
		t.Errorf("the function got %#v", r.boxes.params)
	}
	doc := r.runJSON()
	if !strings.Contains(doc, `"n": 12345678901234567`) || !strings.Contains(doc, `"day": "2001-01-01"`) {
		t.Errorf("run.json lacks the values:\n%s", doc)
	}
	c, err := readCommit(t.Context(), r.lake.Objects, r.tip(mainRef))
	if err != nil {
		t.Fatal(err)
	}
	g, err := trailer.Parse(c.Message)
	if want := `{"day":"2001-01-01","n":12345678901234567}`; err != nil || g.Models[0].Name != "one" || g.Models[0].Params != want {
		t.Errorf("trailers %+v (%v), want params %s", g, err, want)
	}

	// Equal values are one action, however they are written; others are another.
	r.boxes.took(protocol.OpModel)
	r.must(r.toMain(with(files, "README", "1"), "param.n=+12345678901234567", "param.day=2001-01-01"))
	if n := r.boxes.took(protocol.OpModel); n != 0 {
		t.Errorf("%d models ran for the same values", n)
	}
	r.must(r.toMain(with(files, "README", "2"), "param.n=12345678901234568"))
	if r.boxes.took(protocol.OpModel) == 0 {
		t.Error("no model ran for another value: it passed through a float")
	}
	r.record(lake.Published)
}

func TestRecordedParametersAreReadBackAsTheyWere(t *testing.T) {
	values := make(map[string]any)
	for name, v := range map[string][2]string{
		"i": {plan.ParamInt, "12345678901234567"}, "f": {plan.ParamFloat, "4"}, "g": {plan.ParamFloat, "1e300"}, "s": {plan.ParamStr, "<4>"},
		"b": {plan.ParamBool, "true"}, "d": {plan.ParamDate, "2001-01-31"}, "t": {plan.ParamTimestamp, "2001-01-31 12:00:00"}, "u": {"", "7"}, "w": {"", "word"},
	} {
		var err error
		if values[name], err = plan.ParseParam(v[0], v[1]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := parseCanonicalJSON(canonicalJSON(values))
	if err != nil || !reflect.DeepEqual(got, values) {
		t.Errorf("got %#v (%v)\nwant %#v", got, err, values)
	}
	for _, bad := range []string{"{", "[]", `{"a":1} `, `{"b":1,"a":2}`, `{"a":[1]}x`} {
		if v, err := parseCanonicalJSON(bad); err == nil {
			t.Errorf("%q was read as %v", bad, v)
		}
	}
}

// Two pipelines may give one name another default: each model gets its own, and a
// push option is for all.
func TestOneNameOfTwoParameters(t *testing.T) {
	first := plan.Param{Param: "a", Name: "day", Type: plan.ParamStr, Default: "monday"}
	second := plan.Param{Param: "b", Name: "day", Type: plan.ParamStr, Default: "friday"}
	models := []plan.Model{{Name: "x", Declared: plan.Declared{Params: []plan.Param{first}}}, {Name: "y", Declared: plan.Declared{Params: []plan.Param{second}}}}
	for _, c := range []struct {
		given map[string]string
		want  [2]string
	}{
		{nil, [2]string{"monday", "friday"}},
		{map[string]string{"day": "sunday"}, [2]string{"sunday", "sunday"}},
	} {
		e := newEvaluation(nil)
		e.plan = &plan.Plan{Models: models}
		if wrong := e.resolveParams(c.given); len(wrong) > 0 {
			t.Fatal(wrong)
		}
		for i, argument := range []string{"a", "b"} {
			got, err := e.paramsOf(&models[i])
			if err != nil || got[argument] != c.want[i] {
				t.Errorf("given %v, model %s gets %v (%v), want %q", c.given, models[i].Name, got, err, c.want[i])
			}
			if named := e.paramsByName(&models[i]); named["day"] != c.want[i] {
				t.Errorf("the record has %v", named)
			}
		}
	}
}

// The message of a commit is anybody's text.
func FuzzParseCanonicalJSON(f *testing.F) {
	for _, seed := range []string{`{"a":1,"b":"x","c":1.0,"d":null,"e":true}`, `{}`, `{"a":1e999}`, `{"a":{"b":[1,2]}}`, `{"a":12345678901234567890}`, `[`, ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		values, err := parseCanonicalJSON(text)
		if err == nil && canonicalJSON(values) != text {
			t.Errorf("%q was taken, and is written as %q", text, canonicalJSON(values))
		}
	})
}
