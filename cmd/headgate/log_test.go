package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects/table"
)

// snapshotOf writes a table.json whose parts have these names and hold 10 rows each.
func snapshotOf(parts ...string) []byte {
	s := &table.Snapshot{Format: table.Format, Columns: []table.Column{{Name: "a", Type: "BIGINT"}}}
	for _, p := range parts {
		s.Parts = append(s.Parts, table.Part{File: strings.Repeat(p, 20) + ".parquet", Rows: 10, Bytes: 1000, Columns: make([]table.Stats, 1)})
	}
	return s.Encode()
}

// TestLogMeasuresTables holds the log of a long history, whose tables come, grow,
// shrink and go, against what was committed; git's own settings do not matter.
func TestLogMeasuresTables(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(dir, "none"))
	git := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	git("init", "-q")
	git("config", "log.showSignature", "true")
	git("config", "log.follow", "true")
	git("config", "log.showRoot", "false")
	at := filepath.Join(dir, "tables", "ns", "x")
	put := func(parts string) {
		if err := os.RemoveAll(filepath.Join(dir, "tables")); err != nil {
			t.Fatal(err)
		}
		if parts == "" {
			return
		}
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{table.FileName: snapshotOf(strings.Split(parts, "")...)}
		for _, p := range parts {
			files[strings.Repeat(string(p), 20)+".parquet"] = []byte("part " + string(p))
		}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(at, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	states := []string{"a", "ab", "b", "", "ab", "abc", "aabc", "d"}
	for i := range 40 {
		states = append(states, fmt.Sprintf("%x", 0xabc+i*0x1111))
	}
	for i, s := range states {
		put(s)
		git("add", "-A")
		git("commit", "-q", "--allow-empty", "-m", fmt.Sprint(i))
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"log", "--json", "--lake", dir, "tables/ns/x"}, streams{&out, &out}); code != 0 {
		t.Fatalf("exit code %d: %s", code, &out)
	}
	var got []published
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	if len(got) != len(states) {
		t.Fatalf("%d commits of %d", len(got), len(states))
	}
	before := ""
	for i, now := range states {
		want := changedTable{Name: "ns.x", Status: "changed", Rows: int64(10 * len(now)), RowsBefore: int64(10 * len(before))}
		switch {
		case before == "":
			want.Status = "added"
		case now == "":
			want.Status = "removed"
		}
		for c := '0'; c <= 'f'; c++ {
			if strings.ContainsRune(now, c) && strings.ContainsRune(before, c) {
				want.PartsReused, want.BytesReused = want.PartsReused+1, want.BytesReused+1000
			} else if strings.ContainsRune(now, c) {
				want.PartsNew, want.BytesNew = want.PartsNew+1, want.BytesNew+1000
			}
		}
		p := got[len(got)-1-i]
		if p.Subject != fmt.Sprint(i) || len(p.Tables) != 1 {
			t.Fatalf("commit %d: %+v", i, p)
		}
		have := *p.Tables[0]
		if (have.Snapshot == "") != (now == "") || (have.Before == "") != (before == "") {
			t.Errorf("commit %d: snapshots %q, %q", i, have.Before, have.Snapshot)
		}
		have.Snapshot, have.Before = "", ""
		if have != want {
			t.Errorf("commit %d, %q to %q: %+v, want %+v", i, before, now, have, want)
		}
		before = now
	}
}
