package exec

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table"
)

// Entries go with their results, and those that have none stay.
func TestPruneCache(t *testing.T) {
	c, err := OpenCache(filepath.Join(t.TempDir(), "actions.db"))
	if err != nil {
		t.Fatal(err)
	}
	here, gone := objects.OID{1}, objects.OID{2}
	entries := map[Key]any{
		{1}: modelEntry{Tree: here.String()},
		{2}: modelEntry{Tree: gone.String()},
		{3}: []string{"reads"},
		{4}: map[string]int{"rows": 3},
	}
	if err := c.putAll(entries); err != nil {
		t.Fatal(err)
	}
	has := func(oid objects.OID) (bool, error) { return oid != gone, nil }
	for _, want := range []int{1, 0} {
		if n, err := c.Prune(t.Context(), has); n != want || err != nil {
			t.Errorf("removed %d entries, %v; want %d", n, err, want)
		}
	}
	for k := range entries {
		var v any
		if ok, err := c.get(k, &v); ok != (k != Key{2}) || err != nil {
			t.Errorf("entry %d is there: %v, %v", k[0], ok, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// refusing are sandboxes in which each verifier finds rows.
type refusing struct{ runs int }

func (r *refusing) Run(_ context.Context, job sandbox.Job) (*sandbox.Report, error) {
	r.runs++
	a := &protocol.Answer{}
	for _, q := range job.Order.Queries {
		a.Checks = append(a.Checks, protocol.Check{Name: q.Name, Violations: 1})
	}
	return &sandbox.Report{Answer: a}, nil
}

// Whatever the cache says where it should have nothing, or the pass of another
// verifier, a failure stays one.
func TestCacheMakesNoPassOfAFailure(t *testing.T) {
	c, err := OpenCache(filepath.Join(t.TempDir(), "actions.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	boxes := &refusing{}
	rt := New(boxes, Environments{}, Budget{CPUs: 1, Memory: 1 << 30}, slog.New(slog.DiscardHandler))
	s := rt.Session(nil, c, Options{Limits: sandbox.Limits{CPUs: 1, Memory: 1 << 20}})
	group := []Checked{{Verifier: &plan.Verifier{Name: "rule", Kind: plan.KindSQL, SQL: "SELECT 1", Code: objects.OID{1}}}}
	key := action{Op: opVerify, Code: objects.OID{1}.String(), Env: objects.OID{}.String(), Inputs: []actionInput{}}.key()
	for i, entry := range []any{true, "pass", passEntry{}, passEntry{Pass: Key{1}.String()}, map[string]any{"pass": true}, nil} {
		if err := c.putAll(map[Key]any{key: entry}); err != nil {
			t.Fatal(err)
		}
		got, err := s.Verify(t.Context(), group, Sink{})
		if err != nil || got[0].Passed() || got[0].Cached || boxes.runs != i+1 {
			t.Errorf("entry %v: %+v, %v after %d runs", entry, got, err, boxes.runs)
		}
	}
	// The entry that a pass leaves is one that answers.
	if err := c.putAll(map[Key]any{key: passEntry{Pass: key.String()}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Verify(t.Context(), group, Sink{}); err != nil || !got[0].Cached {
		t.Errorf("a pass: %+v, %v", got, err)
	}
}

// A verdict on a table that is not there depends on the columns that it would have.
func TestKeysOfTablesThatAreNotThere(t *testing.T) {
	keys := make(map[Key]bool)
	for _, column := range []string{"a", "b"} {
		empty := &Table{Meta: &table.Snapshot{Columns: []table.Column{{Name: column, Type: "BIGINT"}}}}
		keys[action{Op: opVerify, Inputs: actionInputs([]Bound{{Input: plan.Input{Table: "base.x"}, Table: empty}})}.key()] = true
	}
	if len(keys) != 2 {
		t.Error("two schemas have one key")
	}
}
