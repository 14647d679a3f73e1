package hooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/refs"
)

// logged returns the lake's audit log, the oldest first.
func (r *rig) logged() []AuditEvent {
	r.Helper()
	var all []AuditEvent
	if err := r.gate.AuditEvents(r.Context(), r.lake, func(e AuditEvent) error {
		all = append([]AuditEvent{e}, all...)
		return nil
	}); err != nil {
		r.Fatal(err)
	}
	return all
}

func TestAuditLog(t *testing.T) {
	r := newRig(t)
	r.who = Identity{Name: "ada", Fingerprint: "SHA256:x", From: "192.0.2.1:5"}
	r.must(r.toMain(base()))
	gate := r.tip(mainRef)
	if r.toMain(with(base(), "models/one.sql", "BAD FROM src")) == nil {
		t.Fatal("a bad model was let through")
	}
	if err := r.toMain(base(), "dry-run"); err != nil {
		t.Fatal(err)
	}
	oid, q := r.commit(base(), gate)
	out := r.push(q, nil, false, refs.Update{Name: "refs/heads/agent/x", New: oid}, refs.Update{Name: "refs/heads/no", New: oid, Old: gate}, refs.Update{Name: "refs/audit/log", New: oid})
	if out[0].Err != nil || out[1].Err == nil || out[2].Err == nil {
		t.Fatalf("%v", out)
	}
	if err := r.gate.Record(t.Context(), r.lake, r.who, "secret set", "API_KEY", DecisionAccepted, ""); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"push published refs/heads/main", "push rejected refs/heads/main", "push passed refs/heads/main",
		"push accepted refs/heads/agent/x", "push refused refs/heads/no refs/audit/log", "secret set accepted",
	}
	all := r.logged()
	if len(all) != len(want) {
		t.Fatalf("%d events, want %d: %+v", len(all), len(want), all)
	}
	for i, e := range all {
		got := e.What + " " + e.Decision
		for _, ref := range e.Refs {
			got += " " + ref.Name
		}
		if got != want[i] || e.Who != "ada" || e.Key != "SHA256:x" || e.From != "192.0.2.1:5" || e.Time.IsZero() {
			t.Errorf("event %d is %q: %+v", i, got, e)
		}
		if judged := i < 3; judged != (e.Run != "") {
			t.Errorf("event %d: run %q", i, e.Run)
		}
	}
	if all[0].Refs[0].New != gate.String() || !strings.Contains(all[1].Why, "BAD") || !strings.Contains(all[4].Refs[1].Why, "not a place to push to") ||
		all[5].On != "API_KEY" {
		t.Errorf("%+v", all)
	}
	if line := all[4].Text(); !strings.Contains(line, "refused") || !strings.Contains(line, "from 192.0.2.1:5") || strings.Contains(line, "\n") {
		t.Errorf("%q", line)
	}

	// What comes later is a commit on top, signed.
	before := r.tip(AuditLog)
	if err := r.gate.Record(t.Context(), r.lake, r.who, "secret rm", "API_KEY", DecisionAccepted, ""); err != nil {
		t.Fatal(err)
	}
	if again := r.logged(); len(again) != len(all)+1 {
		t.Errorf("%d events after one more", len(again))
	}
	c, err := readCommit(t.Context(), r.lake.Objects, r.tip(AuditLog))
	if err != nil || len(c.Parents) != 1 || c.Parents[0] != before || r.gate.cfg.Signer.Verify(c) != nil {
		t.Errorf("the log's commit: %+v, %v", c, err)
	}
	// Nothing waits, so nothing is sealed.
	tip := r.tip(AuditLog)
	if r.must(r.gate.Seal(t.Context(), r.lake)); r.tip(AuditLog) != tip {
		t.Error("an empty commit was added")
	}
}

// TestAuditLogSurvives holds that what was answered is in the log of the next
// server, once, though this one sealed nothing: an event is durable with its refs.
func TestAuditLogSurvives(t *testing.T) {
	r := newRig(t)
	r.gate.endSealing() // as if it were killed within the ten seconds
	r.must(r.toMain(base()))
	for i := range 5 {
		oid, q := r.commit(base(), r.tip(mainRef))
		if out := r.push(q, nil, false, refs.Update{Name: refs.Name(fmt.Sprintf("refs/heads/agent/%d", i)), New: oid}); out[0].Err != nil {
			t.Fatal(out[0].Err)
		}
	}
	if err := r.lakes.Close(); err != nil {
		t.Fatal(err)
	}
	key, err := lake.LoadSecretsKey(r.dir + "/secrets_key")
	if err != nil {
		t.Fatal(err)
	}
	if r.lakes, err = lake.OpenDirectory(r.dir+"/lakes", key, r.gate.cfg.Logger); err != nil {
		t.Fatal(err)
	}
	if r.lake, err = r.lakes.Open(t.Context(), "flights"); err != nil {
		t.Fatal(err)
	}
	if all := r.logged(); len(all) != 6 {
		t.Errorf("%d events, want 6: %+v", len(all), all)
	}
	if all := r.logged(); len(all) != 6 {
		t.Errorf("%d events when it is read again", len(all))
	}
}

// TestAuditLogCostsNoTransaction counts what a push writes: its event goes with its refs.
func TestAuditLogCostsNoTransaction(t *testing.T) {
	r := newRig(t)
	counting := &countedRefs{Store: r.lake.Refs}
	r.lake.Refs = counting
	r.must(r.toMain(base()))
	tip := r.tip(mainRef)
	counting.n = 0
	oid, q := r.commit(base(), tip)
	if out := r.push(q, nil, false, refs.Update{Name: "refs/heads/agent/x", New: oid}); out[0].Err != nil || counting.n != 1 {
		t.Errorf("%v, %d transactions", out[0].Err, counting.n)
	}
	counting.n = 0
	if r.must(r.toMain(with(base(), "readme", "x"))); counting.n != 1 {
		t.Errorf("a publication took %d transactions of refs", counting.n)
	}
}

type countedRefs struct {
	refs.Store
	n int
}

func (c *countedRefs) Events(ctx context.Context, limit int) ([]refs.Event, error) {
	return c.Store.(refs.Journal).Events(ctx, limit)
}

func (c *countedRefs) Apply(ctx context.Context, updates []refs.Update, cause refs.Cause) error {
	c.n++
	return c.Store.Apply(ctx, updates, cause)
}

func TestAuditLogForged(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	r.logged()
	stranger, err := LoadSigner(t.TempDir() + "/key")
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(AuditEvent) error { return nil }
	if WalkAuditLog(t.Context(), r.lake.Objects, r.tip(AuditLog), stranger.Verify, nothing) == nil {
		t.Error("a log of another server is believed")
	}
	signed := errors.New("stop")
	if err := WalkAuditLog(t.Context(), r.lake.Objects, r.tip(AuditLog), func(*gitobj.Commit) error { return nil }, func(AuditEvent) error { return signed }); !errors.Is(err, signed) {
		t.Errorf("the walk went on: %v", err)
	}
	// A gate commit is no log.
	if WalkAuditLog(t.Context(), r.lake.Objects, r.tip(mainRef), nil, nothing) == nil {
		t.Error("main is read as an audit log")
	}
}
