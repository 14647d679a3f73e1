package main

import (
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/hooks/lake"
)

func TestGC(t *testing.T) {
	data := t.TempDir()
	key, err := lake.LoadSecretsKey(filepath.Join(data, "secrets_key"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := lake.OpenDirectory(filepath.Join(data, "lakes"), key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []lake.Name{"a", "team/b"} {
		if _, err := d.Create(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := invoke(t, "gc", "--data", data); code != exitFailed || !strings.Contains(stderr, "in use by another process") {
		t.Errorf("with a server: exit code %d, %s", code, stderr)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := invoke(t, "gc", "--data", data)
	if code != exitOK || strings.Count(stdout, "freed 0 objects") != 2 || !strings.Contains(stderr, "team/b: ") {
		t.Errorf("two lakes: exit code %d, %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = invoke(t, "gc", "--data", data, "--dry-run", "--json", "--grace", "1h", "team/b")
	var reports []lake.GCReport
	if err := json.Unmarshal([]byte(stdout), &reports); code != exitOK || err != nil || len(reports) != 1 || !reports[0].DryRun || stderr != "" {
		t.Errorf("a dry run: exit code %d, %v, %s%s", code, err, stdout, stderr)
	}
	for _, args := range [][]string{{"--grace", "-1h"}, {"--keep-scratch", "-1h"}, {"--keep-runs", "soon"}, {"--grace", "soon"}, {"NO LAKE"}} {
		if code, _, stderr := invoke(t, append([]string{"gc", "--data", data}, args...)...); code != exitUsage {
			t.Errorf("gc %v: exit code %d, %s", args, code, stderr)
		}
	}
	if code, _, stderr := invoke(t, "gc", "--data", data, "absent"); code != exitFailed || !strings.Contains(stderr, "does not exist") {
		t.Errorf("no lake: exit code %d, %s", code, stderr)
	}
}
