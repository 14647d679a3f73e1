package hooks

import (
	"errors"
	"reflect"
	"testing"
)

func TestPushOptions(t *testing.T) {
	got, err := parseOptions([]string{"run", "no-cache", "param.day=2001-01-02", "param.n=3", "param.on=true", "param.empty="})
	if err != nil {
		t.Fatal(err)
	}
	want := options{run: true, noCache: true, params: map[string]string{"day": "2001-01-02", "n": "3", "on": "true", "empty": ""}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestUnknownPushOptionRefuses(t *testing.T) {
	var bad *OptionError
	if _, err := parseOptions([]string{"param.n=1", "param.n=2"}); !errors.As(err, &bad) || bad.Option != "param.n=2" {
		t.Errorf("a parameter given twice: %v, want an OptionError", err)
	}
	for _, text := range []string{"dryrun", "dry-run=yes", "async", "param.=1", "param.x", ""} {
		var bad *OptionError
		if _, err := parseOptions([]string{text}); !errors.As(err, &bad) || bad.Option != text {
			t.Errorf("option %q: got %v, want an OptionError that names it", text, err)
		}
	}
}
