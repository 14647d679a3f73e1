package main

import (
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/sandbox"
)

func parseLimits(t *testing.T, args ...string) functionLimits {
	t.Helper()
	var f functionLimits
	parser, err := kong.New(&f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCeiling(t *testing.T) {
	plenty := exec.Budget{CPUs: 1000, Memory: 1 << 40}
	f := parseLimits(t)
	if got, err := f.ceiling(plenty); err != nil || got != defaultCeiling() {
		t.Errorf("without flags: %+v, %v; want %+v", got, err, defaultCeiling())
	}
	f = parseLimits(t, "--max-function-memory=3GiB", "--max-function-cpus=1.5", "--max-function-timeout=90s", "--max-function-output=2GiB",
		"--max-function-file-size=100MiB", "--max-function-log=2MiB", "--max-function-pids=100")
	want := sandbox.Limits{Memory: 3 << 30, CPUs: 1.5, Timeout: 90 * time.Second, Output: 2 << 30, FileSize: 100 << 20, LogBytes: 2 << 20, Pids: 100}
	if got, err := f.ceiling(plenty); err != nil || got != want {
		t.Errorf("with flags: %+v, %v; want %+v", got, err, want)
	}
	if got, err := f.ceiling(exec.Budget{CPUs: 1, Memory: 1 << 30}); err != nil || got.CPUs != 1 || got.Memory != 1<<30 {
		t.Errorf("above what all functions have together: %+v, %v", got, err)
	}
	for _, arg := range []string{
		"--max-function-memory=lots", "--max-function-memory=1MiB", "--max-function-log=1GiB", "--max-function-log=10B", "--max-function-cpus=-1",
		"--max-function-timeout=0s", "--max-function-timeout=48h", "--max-function-pids=3", "--max-function-output=1B", "--max-function-file-size=0",
	} {
		f := parseLimits(t, arg)
		flag, _, _ := strings.Cut(arg, "=")
		if got, err := f.ceiling(plenty); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %+v, %v; want an error that names the flag", arg, got, err)
		}
	}
}
