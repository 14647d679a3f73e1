package lake

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseName(t *testing.T) {
	good := map[string]Name{
		"flights": "flights", "/flights": "flights", "/flights.git": "flights", "a/b/c": "a/b/c", "x-1_2.v3": "x-1_2.v3",
	}
	for text, want := range good {
		if got, err := ParseName(text); err != nil || got != want {
			t.Errorf("ParseName(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
	bad := []string{
		"", "/", ".git", "a/../b", "..", "../x", "/a/../../etc", "a//b", "a/", "//a", "A", "a b", "a\x00b", ".hidden", "-rf", "a/b/c/d",
		"a..b", "a.", "a.lock", "a.git/b", "ä", "a\\b", "a%2fb", string(make([]byte, 101)),
	}
	for _, text := range bad {
		var bad *NameError
		if got, err := ParseName(text); !errors.As(err, &bad) {
			t.Errorf("ParseName(%q) = %q, %v; want a NameError", text, got, err)
		}
	}
}

func TestDirectory(t *testing.T) {
	root := filepath.Join(t.TempDir(), "lakes")
	log := slog.New(slog.DiscardHandler)
	d, err := OpenDirectory(root, testKey(t), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := d.Open(ctx, "flights"); !errors.Is(err, ErrNotFound) {
		t.Errorf("open a lake that is not there: %v, want ErrNotFound", err)
	}
	for _, n := range []Name{"team/flights", "flights"} {
		if _, err := d.Create(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Create(ctx, "flights"); !errors.Is(err, ErrExists) {
		t.Errorf("create it twice: %v, want ErrExists", err)
	}
	if names, err := d.List(ctx); err != nil || !reflect.DeepEqual(names, []Name{"flights", "team/flights"}) {
		t.Errorf("list: %q, %v", names, err)
	}
	if err := d.Remove(ctx, "flights"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(ctx, "flights"); !errors.Is(err, ErrNotFound) {
		t.Errorf("open a removed lake: %v, want ErrNotFound", err)
	}
	// A lake that cannot be opened is an error, and what was opened of it is closed.
	broken := filepath.Join(root, "broken")
	if err := os.MkdirAll(filepath.Join(broken, "refs.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if l, err := d.Open(ctx, "broken"); err == nil || errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), "in use") {
			t.Errorf("open a lake that is broken: %v, %v", l, err)
		}
	}
	if err := errors.Join(os.RemoveAll(broken), d.Close()); err != nil {
		t.Fatal(err)
	}

	// A server killed while it made or removed a lake leaves no trace of it.
	for _, left := range []string{newPrefix + "1", trashPrefix + "2"} {
		if err := os.MkdirAll(filepath.Join(root, left, "objects"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d, err = OpenDirectory(root, testKey(t), log)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 {
		t.Errorf("after a restart the directory has %v (%v), want one lake", entries, err)
	}
}

func TestJournalSurvivesAndSorts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runs.db")
	j, err := OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, id := range []string{"01B", "01A", "01C"} {
		if err := j.Put(Run{ID: id, State: Running, Started: start}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Put(Run{ID: "01A", State: Rejected, Started: start, Reason: "no"}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = OpenJournal(path); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	runs, err := j.List(2)
	if err != nil || len(runs) != 2 || runs[0].ID != "01C" || runs[1].ID != "01B" {
		t.Errorf("newest two: %+v, %v", runs, err)
	}
	if r, err := j.Get("01A"); err != nil || r.State != Rejected || r.Reason != "no" || !r.Started.Equal(start) {
		t.Errorf("run 01A: %+v, %v", r, err)
	}
	if _, err := j.Get("01Z"); !errors.Is(err, ErrNoRun) {
		t.Errorf("a run that is not there: %v, want ErrNoRun", err)
	}
}
