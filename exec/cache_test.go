package exec

import (
	"path/filepath"
	"testing"

	"github.com/headgate/headgate/objects"
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
