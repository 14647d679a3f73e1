package plan

import (
	"maps"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestHeader(t *testing.T) {
	for _, c := range []struct {
		text   string
		name   string
		key    []string
		memory string
		faults []string
	}{
		{text: "SELECT 1"},
		{text: "-- headgate: name=a.b key=[x,y]   memory = 1GiB", name: "a.b", key: []string{"x", "y"}, memory: "1GiB"},
		{text: "\n\n--headgate:name=a\n  -- Headgate: key=[ \"a b\" , \"c\"\"d\" ]\nSELECT 1", name: "a", key: []string{"a b", `c"d`}},
		{text: "-- headgate: key=day", key: []string{"day"}},
		{text: "-- headgate key=[a]\n-- the headgate: name=x\nSELECT 1"},
		{text: "/* headgate:\n-- headgate: name=x\n*/\n-- headgate: name=y\nSELECT 1", name: "y"},
		{text: "/* a */ /* b */ -- headgate: name=y\r\nSELECT 1", name: "y"},
		{text: "SELECT 1 -- headgate: name=y"},
		{text: "-- headgate:"},
		{text: "-- headgate: name", faults: []string{`"name" is not a setting; write name=value`}},
		{text: "-- headgate: name=", faults: []string{"setting name: a value is missing"}},
		{text: "-- headgate: name=[a, b]", faults: []string{"setting name takes one value, not a list"}},
		{text: "-- headgate: key=[]", faults: []string{"setting key: a value is missing"}},
		{text: "-- headgate: key=[a", faults: []string{"setting key: the list is not closed with ]"}},
		{text: "-- headgate: key=[a b]", faults: []string{"setting key: the list is not closed with ]"}},
		{text: `-- headgate: key="a`, faults: []string{"setting key: a double quote is not closed"}},
		{text: `-- headgate: key=""`, faults: []string{"setting key: a value is empty"}},
		{text: `-- headgate: key="a"name=b`, faults: []string{`setting key: "name=b" follows the value without a space`}},
		{text: "-- headgate: key=a=b", faults: []string{`setting key: "a=b" needs double quotes`}},
		{text: "-- headgate: name=a name=b", name: "a", faults: []string{"setting name is given twice (first on line 1)"}},
	} {
		h := parseHeader(c.text, modelSettings)
		var faults []string
		for _, f := range h.faults {
			faults = append(faults, f.message)
		}
		if h.name != c.name || !reflect.DeepEqual(h.key, c.key) || h.rest["memory"] != c.memory || !reflect.DeepEqual(faults, c.faults) {
			t.Errorf("%q: name %q, key %q, memory %q, faults %q", c.text, h.name, h.key, h.rest["memory"], faults)
		}
	}
}

func TestHeaderColumns(t *testing.T) {
	for _, c := range []struct {
		text    string
		columns []string
		types   map[string]string
		fault   string
	}{
		{text: "-- headgate: columns=[day, n] key=[day]", columns: []string{"day", "n"}},
		{text: "-- headgate: columns=day", columns: []string{"day"}},
		{
			text:    `-- headgate: columns=[ day DATE, "the price" DECIMAL(18, 2),tags VARCHAR[] , pair STRUCT("a]" INTEGER[]), n ] key=[day]`,
			columns: []string{"day", "the price", "tags", "pair", "n"},
			types:   map[string]string{"day": "DATE", "the price": "DECIMAL(18, 2)", "tags": "VARCHAR[]", "pair": `STRUCT("a]" INTEGER[])`},
		},
		{text: "-- headgate: columns=[]", fault: "setting columns: a value is missing"},
		{text: "-- headgate: columns=[a INTEGER", fault: "setting columns: the list is not closed with ]"},
		{text: "-- headgate: columns=[a DECIMAL(1,2]", fault: "setting columns: the list is not closed with ]"},
		{text: "-- headgate: columns=[a,,b]", fault: "setting columns: a value is missing"},
	} {
		h := parseHeader(c.text, modelSettings)
		if c.fault != "" {
			if len(h.faults) == 0 || h.faults[0].message != c.fault {
				t.Errorf("%q: faults %v, want %q", c.text, h.faults, c.fault)
			}
			continue
		}
		if len(h.faults) > 0 || !reflect.DeepEqual(h.columns, c.columns) || !maps.Equal(h.types, c.types) {
			t.Errorf("%q: columns %q, types %q, faults %v", c.text, h.columns, h.types, h.faults)
		}
		if strings.Contains(c.text, "key=") && !reflect.DeepEqual(h.key, []string{"day"}) {
			t.Errorf("%q: what follows the list is not read: key %q", c.text, h.key)
		}
	}
}

// FuzzHeader holds that what is read can be written and is read again the same,
// and that no fault is outside the text.
func FuzzHeader(f *testing.F) {
	for _, s := range []string{
		"-- headgate: key=[day, \"a\"\"b\"] strategy=replace\nSELECT 1", "/* x */ -- headgate: name=a", "/*\n*/\n--headgate:name=\"", "-- headgate: key=[a,,b] ]", "",
		"-- headgate: columns=[a INT, \"b\" DECIMAL(1,2)[]] key=a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h := parseHeader(text, modelSettings)
		lines := 1 + strings.Count(text, "\n")
		for _, fault := range h.faults {
			if fault.line < 1 || fault.line > lines {
				t.Fatalf("%q: fault on line %d of %d", text, fault.line, lines)
			}
		}
		if len(h.key) == 0 {
			return
		}
		quoted := make([]string, len(h.key))
		for i, k := range h.key {
			quoted[i] = quote(k)
		}
		again := parseHeader("-- headgate: key=["+strings.Join(quoted, ", ")+"]", modelSettings)
		if len(again.faults) > 0 || !reflect.DeepEqual(again.key, h.key) {
			t.Fatalf("%q: key %q became %q (%v)", text, h.key, again.key, again.faults)
		}
	})
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "100B": 100, "512MiB": 512 << 20, "2GiB": 2 << 30, "1.5 GiB": 3 << 29, "2gb": 2e9, "4G": 4 << 30, "1k": 1024, "8388607TiB": 8388607 << 40,
		"": 0, "GiB": 0, "0GiB": 0, "-1B": 0, "1.3B": 0, "1e3": 0, ".5G": 0, "1.": 0, "1..2G": 0, "8388608TiB": 0, "1 2G": 0, "1/2G": 0, "99999999999999999999999TiB": 0, "1PiB": 0,
	} {
		have, err := ParseSize(text)
		if have != want || (err == nil) != (want > 0) {
			t.Errorf("ParseSize(%q) = %d, %v", text, have, err)
		}
	}
}

func TestParseTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "24h": MaxTimeout, "0s": 0, "-1s": 0, "10": 0, "25h": 0, "": 0} {
		have, err := ParseTimeout(text)
		if have != want || (err == nil) != (want > 0) {
			t.Errorf("ParseTimeout(%q) = %s, %v", text, have, err)
		}
	}
}

func TestNormalPackage(t *testing.T) {
	for name, want := range map[string]string{"Scikit_Learn": "scikit-learn", "a.-_b": "a-b", "numpy": "numpy", "": "", "-a": "", "a-": "", "a b": "", "a/../b": "", "é": ""} {
		have, err := NormalPackage(name)
		if have != want || (err == nil) != (want != "") {
			t.Errorf("NormalPackage(%q) = %q, %v", name, have, err)
		}
	}
}

func TestLiteralsOfSettings(t *testing.T) {
	if _, err := sqlLiteral(math.Inf(1)); err == nil {
		t.Error("infinity has no literal")
	}
}
