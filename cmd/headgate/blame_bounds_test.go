package main

import (
	"encoding/json"
	"testing"

	"github.com/headgate/headgate/objects/table"
)

// A part is passed over only where the order of texts is known to be that of values.
func TestPartsThatCannotHoldAKey(t *testing.T) {
	for _, tc := range []struct {
		kind, low, high, value string
		outside                bool
	}{
		{"BIGINT", "10", "20", "9", true}, {"BIGINT", "10", "20", "10", false}, {"BIGINT", "10", "20", "20", false}, {"BIGINT", "10", "20", "21", true},
		{"BIGINT", "-5", "100", "9", false}, {"BIGINT", "-5", "100", "-6", true}, {"INTEGER", "9", "10", "100", true},
		{"HUGEINT", `"170141183460469231731687303715884105726"`, `"170141183460469231731687303715884105727"`, "170141183460469231731687303715884105725", true},
		{"DECIMAL(9,2)", `"9.50"`, `"10.25"`, "10.00", false}, {"DECIMAL(9,2)", `"9.50"`, `"10.25"`, "10.26", true}, {"DECIMAL(9,2)", `"9.50"`, `"10.25"`, "9.49", true},
		{"DOUBLE", "0.5", "1e+22", "1e+21", false}, {"DOUBLE", "0.5", "1e+22", "0.25", true}, {"DOUBLE", "0", "1", "-0.0", false},
		{"DOUBLE", "0", `"NaN"`, "7.0", false}, {"DOUBLE", "0", "1", "nan", false}, {"FLOAT", "0.1", "0.3", "0.3", false}, {"FLOAT", "0.1", "0.3", "0.4", true},
		{"VARCHAR", `"b"`, `"d\"x"`, "a", true}, {"VARCHAR", `"b"`, `"d\"x"`, "c", false}, {"VARCHAR", `"b"`, `"d\"x"`, `d"x`, false}, {"VARCHAR", `"b"`, `"d\"x"`, "e", true},
		{"VARCHAR", `"Z"`, `"a"`, "é", true}, {"VARCHAR", `"10"`, `"9"`, "5", false},
		{"DATE", `"2026-01-02"`, `"2026-11-24"`, "2026-01-01", true}, {"DATE", `"2026-01-02"`, `"2026-11-24"`, "2026-05-05", false},
		{"DATE", `"2026-01-02"`, `"12026-11-24"`, "3000-01-01", false}, {"DATE", `"0044-03-15 (BC)"`, `"2026-01-01"`, "0001-01-01", false}, {"DATE", `"2026-01-01"`, `"infinity"`, "2027-01-01", false},
		{"TIMESTAMP", `"2026-01-02 10:00:00"`, `"2026-01-02 10:00:00.5"`, "2026-01-02 10:00:00.25", false}, {"TIMESTAMP", `"2026-01-02 10:00:00"`, `"2026-01-02 10:00:00.5"`, "2026-01-02 10:00:00.75", true},
		{"TIMESTAMP WITH TIME ZONE", `"2026-01-02 10:00:00+00"`, `"2026-01-02 11:00:00+00"`, "2026-01-02 11:00:01+00", true},
		{"TIMESTAMP WITH TIME ZONE", `"2026-01-02 10:00:00+00"`, `"2026-01-02 11:00:00+00"`, "2026-01-02 12:00:00+02", false},
		{"UUID", `"10000000-0000-0000-0000-000000000000"`, `"20000000-0000-0000-0000-000000000000"`, "30000000-0000-0000-0000-000000000000", true},
		{"ENUM('z', 'a')", `"z"`, `"a"`, "q", false}, {"INTERVAL", `"1 day"`, `"2 days"`, "9 days", false}, {"BOOLEAN", "false", "false", "true", false},
		{"BIGINT", "1e999999999", "2e999999999", "5", false}, {"BIGINT", "1/3", "2", "5", true},
	} {
		s := table.Stats{Min: json.RawMessage(tc.low), Max: json.RawMessage(tc.high)}
		if got := outsideOf(tc.kind, s, tc.value); got != tc.outside {
			t.Errorf("%s %s of %s to %s: outside is %t", tc.kind, tc.value, tc.low, tc.high, got)
		}
	}
	if outsideOf("BIGINT", table.Stats{Nulls: 3}, "5") {
		t.Error("a part without bounds was passed over")
	}
}

func TestKeysAreRead(t *testing.T) {
	key, err := parseKey([]string{"id=7", "name=a=b", "x="})
	if err != nil || len(key) != 3 || key[1] != (keyValue{"name", "a=b"}) || key[2] != (keyValue{"x", ""}) {
		t.Errorf("%v, %v", key, err)
	}
	for _, bad := range [][]string{{"id"}, {"=7"}, {"id=7", "ID=8"}} {
		if key, err := parseKey(bad); err == nil {
			t.Errorf("%q is %v", bad, key)
		}
	}
	for text, want := range map[string]string{"tables/x": "x", "./tables/ns/x/": "ns.x", "x": "x", "ns.x": "ns.x"} {
		if got := tableNamed(text); got != want {
			t.Errorf("%q names %q", text, got)
		}
	}
}
