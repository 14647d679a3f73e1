package plan_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
)

func TestParseParam(t *testing.T) {
	for _, c := range []struct {
		typ, text string
		want      any
	}{
		{"str", "", ""}, {"str", "007", "007"}, {"str", "null", "null"},
		{"int", "12345678901234567", int64(12345678901234567)}, {"int", "-0", int64(0)}, {"int", "+7", int64(7)},
		{"int", "9223372036854775807", int64(9223372036854775807)},
		{"float", "3", json.Number("3.0")}, {"float", ".5", json.Number("0.5")}, {"float", "-0.0", json.Number("0.0")}, {"float", "1e300", json.Number("1e+300")},
		{"bool", "True", true}, {"bool", "false", false},
		{"date", "2001-02-28", "2001-02-28"},
		{"timestamp", "2001-02-28", "2001-02-28T00:00:00"}, {"timestamp", "2001-02-28 10:00", "2001-02-28T10:00:00"},
		{"timestamp", "2001-02-28T10:00:00.250+02:00", "2001-02-28T08:00:00.25"}, {"timestamp", "2001-02-28T10:00:00Z", "2001-02-28T10:00:00"},
		{"", "2001-01-02", "2001-01-02"}, {"", "3", int64(3)}, {"", "12345678901234567", int64(12345678901234567)},
		{"", "123456789012345678901234567890", json.Number("123456789012345678901234567890")},
		{"", "3.0", json.Number("3.0")}, {"", "007", "007"}, {"", "null", nil}, {"", "true", true}, {"", "True", "True"}, {"", "1e999", "1e999"},
	} {
		got, err := plan.ParseParam(c.typ, c.text)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("ParseParam(%q, %q) = %#v, %v; want %#v", c.typ, c.text, got, err, c.want)
		}
	}
	for _, c := range [][2]string{
		{"int", ""}, {"int", "1.0"}, {"int", "0x10"}, {"int", "1_000"}, {"int", "9223372036854775808"}, {"int", " 1"},
		{"float", ""}, {"float", "nan"}, {"float", "inf"}, {"float", "1e999"}, {"float", "0x1p3"}, {"float", "."},
		{"bool", "1"}, {"bool", "yes"}, {"date", "2001-02-29"}, {"date", "01.02.2001"}, {"date", "0000-01-01"}, {"date", "2001-1-1"},
		{"timestamp", "10:00"}, {"timestamp", "2001-02-28T10:00:00,5"}, {"timestamp", "2001-02-28T10:00:00.0000001"}, {"timestamp", "0001-01-01T00:00:00+01:00"},
		{"str", "a\x00b"}, {"str", "\xff"}, {"str", strings.Repeat("x", 4097)}, {"", "\xff"}, {"decimal", "1"},
	} {
		if got, err := plan.ParseParam(c[0], c[1]); err == nil {
			t.Errorf("ParseParam(%q, %q) = %#v, want an error", c[0], c[1], got)
		} else if c[0] != "" && c[0] != "str" && !strings.Contains(err.Error(), c[0]) {
			t.Errorf("ParseParam(%q, %q): %q does not name the type", c[0], c[1], err)
		}
	}
}

// Whatever is accepted has one JSON form, survives the way to a function and
// through the lineage, and says the same when it is given again.
func FuzzParseParam(f *testing.F) {
	for _, text := range []string{"", "1", "-0", "007", "1e5", "1.50", "12345678901234567890", "true", "null", "2001-01-31", "2001-01-31T10:00:00.5+05:30", "ä", "\x00"} {
		for i := range len(plan.ParamTypes) + 1 {
			f.Add(i, text)
		}
	}
	f.Fuzz(func(t *testing.T, kind int, text string) {
		typ := ""
		if i := kind % (len(plan.ParamTypes) + 1); i > 0 {
			typ = plan.ParamTypes[i-1]
		}
		v, err := plan.ParseParam(typ, text)
		if err != nil {
			return
		}
		doc, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("ParseParam(%q, %q) = %#v has no JSON: %v", typ, text, v, err)
		}
		dec := json.NewDecoder(bytes.NewReader(doc))
		dec.UseNumber()
		var read any
		if err := dec.Decode(&read); err != nil {
			t.Fatal(err)
		}
		for _, again := range []any{v, read} {
			same, err := plan.ParseParam(typ, plan.ParamText(again))
			if err != nil || !reflect.DeepEqual(same, v) {
				t.Fatalf("ParseParam(%q, %q) = %#v, of its text %q it is %#v, %v", typ, text, v, plan.ParamText(again), same, err)
			}
		}
		if n, ok := v.(json.Number); ok && typ == plan.ParamFloat && !strings.ContainsAny(n.String(), ".e") {
			t.Fatalf("float %q reads as an integer", n)
		}
	})
}

func TestParametersOfAPlan(t *testing.T) {
	settings := &plan.Settings{Parameters: map[string]plan.Parameter{
		"day": {Type: plan.ParamDate, Default: "2001-01-01", Line: 3}, "n": {Type: plan.ParamInt},
	}}
	files := map[string]string{"models/m.sql": "-- headgate: params=[day, other]\nSELECT getvariable('day') AS d"}
	p := mustBuild(t, files, settings)
	want := []plan.Param{{Param: "day", Name: "day", Type: "date", Default: "2001-01-01"}, {Param: "other", Name: "other"}}
	if got := p.Models[0].Params; !reflect.DeepEqual(got, want) {
		t.Errorf("params: %+v, want %+v", got, want)
	}
	// The same text given as another type is another argument.
	code := p.Models[0].Code
	settings.Parameters["day"] = plan.Parameter{Type: plan.ParamStr, Default: "2001-01-01"}
	if mustBuild(t, files, settings).Models[0].Code == code {
		t.Error("another type of a parameter leaves the model's code as it was")
	}
	for text, want := range map[string]string{
		"-- headgate: params=[day, DAY]\nSELECT 1 AS x":         "twice",
		"-- headgate: params=[\"a b\"]\nSELECT 1 AS x":          "not the name of a parameter",
		"SELECT 1 AS x,\n  getvariable('day') AS d":             "params=[day]",
		"-- headgate: params=[n]\nSELECT getvariable('m') AS m": "params=[m]",
	} {
		problem := refused(t, map[string]string{"models/m.sql": text}, settings)
		if !strings.Contains(problem, want) || !strings.HasPrefix(problem, "models/m.sql:") || strings.Contains(problem, "\n") {
			t.Errorf("%q: %s, want one problem with a line that says %q", text, problem, want)
		}
	}
	problem := refused(t, map[string]string{"verifiers/v.sql": "SELECT getvariable('day') AS d"}, settings)
	if !strings.Contains(problem, "push option") {
		t.Errorf("a verifier with a variable: %s", problem)
	}
}

func TestFunctionsOwnLimits(t *testing.T) {
	p := mustBuild(t, map[string]string{"models/m.sql": "-- headgate: cpus=2.5 memory=512MiB timeout=90s\nSELECT 1 AS x"}, nil)
	if got, want := p.Models[0].Resources, (plan.Resources{CPUs: 2.5, Memory: 512 << 20, Timeout: 90 * time.Second}); got != want {
		t.Errorf("resources %+v, want %+v", got, want)
	}
	for _, cpus := range []string{"0", "-1", "65", "many", "NaN", "Inf"} {
		problem := refused(t, map[string]string{"models/m.sql": "-- headgate: cpus=" + cpus + "\nSELECT 1 AS x"}, nil)
		if !strings.HasPrefix(problem, "models/m.sql:1: cpus: ") {
			t.Errorf("cpus=%s: %s", cpus, problem)
		}
	}
	for _, d := range []protocol.Declaration{{CPUs: -1}, {CPUs: 100}, {Pids: -1}, {Pids: 3}, {Pids: 1 << 30}} {
		d.Path, d.Line, d.Kind, d.Function, d.Name = "models/f.py", 7, "model", "f", "f"
		problem := refused(t, map[string]string{"models/f.py": "# a function"}, nil, d)
		if !strings.HasPrefix(problem, "models/f.py:7: ") {
			t.Errorf("cpus %g, pids %d: %s", d.CPUs, d.Pids, problem)
		}
	}
}
