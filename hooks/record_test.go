package hooks

import (
	"maps"
	"slices"
	"testing"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks/mask"
)

// A model and a verifier of one name, and names that are one as files, keep a log each.
func TestLogsDoNotReplaceEachOther(t *testing.T) {
	rec := &Record{logs: make(map[string][]byte)}
	for _, name := range []string{"daily", "daily", "a b", "a/b"} {
		rec.log(name, []byte(name))
	}
	rec.log("silent", nil)
	want := []string{"logs/a-b-2.log", "logs/a-b.log", "logs/daily-2.log", "logs/daily.log"}
	if got := slices.Sorted(maps.Keys(rec.logs)); !slices.Equal(got, want) {
		t.Errorf("logs are %q, want %q", got, want)
	}
}

// A secret of digits may stand in a column of numbers, which JSON brings as a float.
func TestSampleHidesSecretsThatAreNumbers(t *testing.T) {
	r := &run{hide: mask.New([]string{"12345678"})}
	d := &exec.Verdict{Check: protocol.Check{Sample: []map[string]any{{"n": 12345678.0, "m": 12345679.0, "s": "is 12345678", "none": nil}}}}
	r.concealVerdict(d)
	row := d.Sample[0]
	if row["n"] != "***" || row["m"] != 12345679.0 || row["s"] != "is ***" || row["none"] != nil {
		t.Errorf("the sample shows %v", row)
	}
}
