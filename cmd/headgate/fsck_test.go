package main

import (
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
)

func TestFsckExitCodes(t *testing.T) {
	data := t.TempDir()
	if code, _, stderr := invoke(t, "fsck", "--data", data); code != exitFailed || !strings.Contains(stderr, "lakes") {
		t.Errorf("a directory that is no server's: exit code %d, %s", code, stderr)
	}
	key, err := lake.LoadSecretsKey(filepath.Join(data, "secrets_key"))
	if err != nil {
		t.Fatal(err)
	}
	open := func() *lake.Directory {
		d, err := lake.OpenDirectory(filepath.Join(data, "lakes"), key, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open()
	for _, n := range []lake.Name{"good", "team/bad"} {
		if _, err := d.Create(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := invoke(t, "fsck", "--data", data); code != exitFailed || !strings.Contains(stderr, "in use by another process") {
		t.Errorf("with a server: exit code %d, %s", code, stderr)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := invoke(t, "fsck", "--data", data); code != exitOK || strings.Count(stdout, "sound") != 2 {
		t.Errorf("sound lakes: exit code %d, %s%s", code, stdout, stderr)
	}

	d = open()
	l, err := d.Open(t.Context(), "team/bad")
	if err != nil {
		t.Fatal(err)
	}
	err = l.Refs.Apply(t.Context(), []refs.Update{{Name: "refs/heads/main", New: objects.OID{7}}}, refs.Cause{Who: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := invoke(t, "fsck", "--data", data)
	if code != exitFaults || !strings.Contains(stdout, "fault: ref refs/heads/main") || !strings.Contains(stderr, "1 faults") {
		t.Errorf("a lake with a fault: exit code %d, %s%s", code, stdout, stderr)
	}
	if code, _, stderr = invoke(t, "fsck", "good", "--data", data); code != exitOK {
		t.Errorf("the good lake alone: exit code %d, %s", code, stderr)
	}
	code, stdout, _ = invoke(t, "fsck", "--data", data, "--json")
	var reports []lake.Report
	if err := json.Unmarshal([]byte(stdout), &reports); err != nil || code != exitFaults || len(reports) != 2 || len(reports[1].Faults) != 1 {
		t.Errorf("--json: exit code %d, %v, %s", code, err, stdout)
	}
	if code, _, stderr = invoke(t, "fsck", "nowhere", "--data", data); code != exitFailed || !strings.Contains(stderr, "does not exist") {
		t.Errorf("a lake that is not there: exit code %d, %s", code, stderr)
	}
	if code, _, _ = invoke(t, "fsck", "../x", "--data", data); code != exitUsage {
		t.Errorf("a bad name: exit code %d", code)
	}
}
