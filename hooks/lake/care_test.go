package lake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/refs"
)

// leave puts a run into the lake as the gate leaves it: its record, its state if
// it was refused, and its entry in the journal.
func (s *shop) leave(state State, ended time.Time, tip objects.OID) string {
	s.t.Helper()
	id := ulid.MustNew(ulid.Timestamp(ended), ulid.DefaultEntropy()).String()
	s.set(runsPrefix+id, tip)
	if state != Published && state != Passed {
		s.set(scratchPrefix+id, tip)
	}
	run := Run{ID: id, State: state, Started: ended}
	if state.Final() {
		run.Ended = ended
	}
	if err := s.l.Runs.Put(run); err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s *shop) has(name string) bool {
	s.t.Helper()
	_, err := s.l.Refs.Get(s.t.Context(), refs.Name(name))
	if err != nil && !errors.Is(err, refs.ErrNotFound) {
		s.t.Fatal(err)
	}
	return err == nil
}

// What runs left is kept for as long as it was told to, what published for ever.
func TestRetention(t *testing.T) {
	s, end := newShop(t, t.TempDir())
	defer end()
	tip := s.table("side", asIs)
	now := time.Now()
	day := 24 * time.Hour
	// Ages in days, and whether the state, the record and the entry outlive 30 and 90 days.
	cases := []struct {
		state                  State
		age                    int
		scratch, record, entry bool
	}{
		{Published, 400, false, true, true},
		{Rejected, 29, true, true, true},
		{Rejected, 31, false, true, true},
		{Rejected, 91, false, false, false},
		{Failed, 91, false, false, false},
		{Cancelled, 91, false, false, false},
		{Passed, 89, false, true, true},
		{Passed, 91, false, false, false},
		{Verifying, 400, true, true, true},
	}
	ids := make([]string, len(cases))
	for i, c := range cases {
		ids[i] = s.leave(c.state, now.Add(-time.Duration(c.age)*day), tip)
	}
	unknown := ulid.MustNew(ulid.Timestamp(now.Add(-400*day)), ulid.DefaultEntropy()).String()
	s.set(scratchPrefix+unknown, tip)
	s.set(runsPrefix+unknown, tip)
	s.set(scratchPrefix+"no-id", tip)
	keep := Retention{Scratch: DefaultKeepScratch, Runs: DefaultKeepRuns}

	if got, err := s.l.expire(t.Context(), Retention{}, now, false); err != nil || got != (Expired{}) {
		t.Fatalf("without limits %v was dropped, %v", got, err)
	}
	want := Expired{Scratch: 5, Runs: 4}
	for _, dry := range []bool{true, false} {
		report, err := s.l.GC(t.Context(), GCOptions{Grace: time.Hour, Reflog: time.Hour, Keep: keep, DryRun: dry})
		if err != nil || report.Expired != want || !strings.Contains(report.Text(), "drop") {
			t.Fatalf("dry run %v: %+v, %v, want %+v", dry, report, err, want)
		}
		if dry && !s.has(scratchPrefix+ids[2]) {
			t.Fatal("a dry run dropped a state")
		}
	}
	for i, c := range cases {
		_, err := s.l.Runs.Get(ids[i])
		if s.has(scratchPrefix+ids[i]) != c.scratch || s.has(runsPrefix+ids[i]) != c.record || (err == nil) != c.entry {
			t.Errorf("%s, %d days old: state %v, record %v, entry %v", c.state, c.age, s.has(scratchPrefix+ids[i]), s.has(runsPrefix+ids[i]), err)
		}
	}
	if s.has(scratchPrefix+unknown) || !s.has(runsPrefix+unknown) || !s.has(scratchPrefix+"no-id") {
		t.Error("of a run that the journal does not know, the state goes and the record stays")
	}
	log, err := s.l.Refs.Log(t.Context(), refs.Name(scratchPrefix+ids[2]), 1)
	if err != nil || len(log) != 1 || log[0].Who != "headgate" || log[0].Old != tip || !log[0].New.IsZero() {
		t.Errorf("the reflog has %+v, %v", log, err)
	}
	if report, err := s.l.GC(t.Context(), GCOptions{Grace: time.Hour, Keep: keep}); err != nil || report.Expired != (Expired{}) {
		t.Errorf("a second collection dropped %+v, %v", report.Expired, err)
	}
}

// A swarm's refused runs are more than one transaction.
func TestRetentionOfMany(t *testing.T) {
	s, end := newShop(t, t.TempDir())
	defer end()
	tip := s.table("side", asIs)
	old := time.Now().Add(-1000 * time.Hour)
	var updates []refs.Update
	for range 2*dropBatch + 1 {
		id := ulid.MustNew(ulid.Timestamp(old), ulid.DefaultEntropy()).String()
		updates = append(updates, refs.Update{Name: refs.Name(scratchPrefix + id), New: tip})
	}
	if err := s.l.Refs.Apply(t.Context(), updates, refs.Cause{Who: "test"}); err != nil {
		t.Fatal(err)
	}
	got, err := s.l.expire(t.Context(), Retention{Scratch: time.Hour}, time.Now(), false)
	if err != nil || got.Scratch != len(updates) {
		t.Fatalf("dropped %+v, %v", got, err)
	}
	if left, err := s.l.Refs.List(t.Context(), scratchPrefix); err != nil || len(left) != 0 {
		t.Errorf("%d are left, %v", len(left), err)
	}
}

// A lake is collected when its turn comes, also over restarts, and left alone if
// nothing can have become garbage.
func TestCareCollectsByTheClock(t *testing.T) {
	root := t.TempDir()
	s, closeLake := newShop(t, root)
	gone := s.table("gone", func(_ *table.Snapshot, files map[string]objects.OID) {
		files["note"] = s.put(objects.Blob, []byte("gone"))
	})
	cause := refs.Cause{Who: "test", When: time.Now().Add(-25 * time.Hour)}
	if err := s.l.Refs.Apply(t.Context(), []refs.Update{{Name: "refs/heads/gone", Old: gone}}, cause); err != nil {
		t.Fatal(err)
	}
	s.table("later", asIs)
	name := s.l.Name
	closeLake()
	age(t, root, 30*time.Hour)

	key, err := LoadSecretsKey(t.TempDir() + "/secrets_key")
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	now := time.Now()
	care := Care{Every: 24 * time.Hour, GC: GCOptions{Grace: 10 * time.Hour, Reflog: 20 * time.Hour},
		Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(&log, nil))}
	for turn, c := range []struct {
		after time.Duration
		lines int // collections so far
	}{
		{0, 1},
		{23 * time.Hour, 1}, // not yet
		{25 * time.Hour, 2}, // what moved was young the last time
		{60 * time.Hour, 3}, // and so it was this time
		{90 * time.Hour, 3}, // but not the third time, and nothing has moved since
		{3000 * time.Hour, 3},
	} {
		now = time.Now().Add(c.after)
		d, err := OpenDirectory(root, key, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		care.round(t.Context(), d)
		l, err := d.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if there(t, l, gone) {
			t.Errorf("turn %d: what a deleted branch led to is there\n%s", turn, log.String())
		}
		if n := strings.Count(log.String(), "collected garbage"); n != c.lines {
			t.Errorf("turn %d: %d collections, want %d\n%s", turn, n, c.lines, log.String())
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(log.String(), "level=ERROR") {
		t.Error(log.String())
	}
}

// Run looks by itself, and ends with its context.
func TestCareRuns(t *testing.T) {
	root := t.TempDir()
	s, closeLake := newShop(t, root)
	s.table("side", asIs)
	closeLake()
	key, err := LoadSecretsKey(t.TempDir() + "/secrets_key")
	if err != nil {
		t.Fatal(err)
	}
	d, err := OpenDirectory(root, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	lines := make(lineWriter, 16)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	defer func() {
		cancel()
		<-ended
	}()
	go func() {
		defer close(ended)
		Care{Every: time.Millisecond, Look: 5 * time.Millisecond, Log: slog.New(slog.NewTextHandler(lines, nil))}.Run(ctx, d)
	}()
	select {
	case line := <-lines:
		if !strings.Contains(line, "collected garbage") {
			t.Errorf("it says %s", line)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing was collected in a minute")
	}
}

type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	select {
	case w <- fmt.Sprint(string(p)):
	default:
	}
	return len(p), nil
}
