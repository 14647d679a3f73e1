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
	want := options{run: true, noCache: true, params: map[string]any{"day": "2001-01-02", "n": 3.0, "on": true, "empty": ""}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if unused := got.unusedParams([]string{"day", "n", "empty"}); !reflect.DeepEqual(unused, []string{"on"}) {
		t.Errorf("unused parameters: %q, want [on]", unused)
	}
}

func TestUnknownPushOptionRefuses(t *testing.T) {
	for _, text := range []string{"dryrun", "dry-run=yes", "async", "param.=1", "param.x", ""} {
		var bad *OptionError
		if _, err := parseOptions([]string{text}); !errors.As(err, &bad) || bad.Option != text {
			t.Errorf("option %q: got %v, want an OptionError that names it", text, err)
		}
	}
}
