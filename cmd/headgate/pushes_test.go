package main

import (
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/headgate/headgate/objects"
)

func parsePushes(t *testing.T, args ...string) pushLimits {
	t.Helper()
	var f pushLimits
	p, err := kong.New(&f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(args); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPushLimits(t *testing.T) {
	f := parsePushes(t)
	r, err := f.rules()
	d := objects.DefaultLimits
	d.InflateFree = 0 // has no flag
	if err != nil || r.Limits != d || r.Pace.Stall != 2*time.Minute || r.Pace.Rate != 1<<10 {
		t.Errorf("without flags: %+v, %v; want the defaults %+v", r, err, d)
	}
	f = parsePushes(t, "--max-push-bytes=1MiB", "--max-push-objects=7", "--max-push-object-bytes=64KiB", "--max-push-delta-depth=3", "--max-push-inflation=9",
		"--max-staging=2MiB", "--min-free-disk=0", "--push-stall=9s", "--push-min-rate=0")
	r, err = f.rules()
	if err != nil || r.Limits != (objects.Limits{PackBytes: 1 << 20, Objects: 7, ObjectBytes: 64 << 10, DeltaDepth: 3, InflateRatio: 9}) || r.Pace.Stall != 9*time.Second || r.Pace.Rate != -1 {
		t.Errorf("got %+v, %v", r, err)
	}
	for _, arg := range []string{"--max-push-bytes=0", "--max-push-bytes=x", "--max-push-objects=0", "--max-push-object-bytes=1", "--max-push-delta-depth=0", "--max-push-inflation=0",
		"--max-staging=-1", "--min-free-disk=1XB", "--push-stall=1ms", "--push-min-rate=fast"} {
		f := parsePushes(t, arg)
		name, _, _ := strings.Cut(arg, "=")
		if _, err := f.rules(); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}
