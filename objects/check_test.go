package objects_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects"
)

func faultsOf(t *testing.T, s *objects.Store) ([]objects.Fault, objects.CheckStats) {
	t.Helper()
	var faults []objects.Fault
	stats, err := s.Check(t.Context(), func(f objects.Fault) { faults = append(faults, f) })
	if err != nil {
		t.Fatal(err)
	}
	return faults, stats
}

// checked is a store with a real history in two packs, raw blobs among it.
func checked(t *testing.T) (p place, s *objects.Store, g *repo, tip objects.OID) {
	t.Helper()
	g, commits := history(t)
	p = newPlace(t)
	s = p.open(t, 4<<10)
	push(t, s, g.pack(commits[0].String()+"\n"), commits[0])
	push(t, s, g.pack(fmt.Sprintf("%s\n^%s\n", commits[2], commits[0]), "--thin"), commits[2])
	return p, s, g, commits[2]
}

func TestCheckOfASoundStore(t *testing.T) {
	p, s, g, tip := checked(t)
	faults, stats := faultsOf(t, s)
	if len(faults) > 0 {
		t.Errorf("a sound store has faults: %+v", faults)
	}
	raws, packs := 0, 0
	for path := range files(t, p.data) {
		switch filepath.Ext(path) {
		case ".pack":
			packs++
		case "":
			raws++
		}
	}
	if want := strings.Count(g.git(nil, "rev-list", "--objects", tip.String())+"\n", "\n"); stats.Objects != want || stats.RawBlobs != raws || stats.Packs != packs || raws == 0 || packs != 2 {
		t.Errorf("looked at %+v; want %d objects, %d raw blobs, %d packs", stats, want, raws, packs)
	}
}

// TestCheckFindsEveryFlippedByte damages each file at its ends and at places in
// between, one byte at a time: none may go unnoticed, in the file that has it.
func TestCheckFindsEveryFlippedByte(t *testing.T) {
	p, s, _, _ := checked(t)
	for path, content := range files(t, p.data) {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, at := range places(len(content)) {
			damaged := []byte(content)
			damaged[at] ^= 0x10
			// In place, as a bad disk does it.
			if err := os.WriteFile(path, damaged, 0o644); err != nil {
				t.Fatal(err)
			}
			faults, _ := faultsOf(t, s)
			found := false
			for _, f := range faults {
				found = found || f.Kind == objects.Damaged && strings.HasSuffix(path, filepath.FromSlash(f.Key)) && f.Key != ""
			}
			if !found {
				t.Errorf("byte %d of %s is damaged, and Check says %+v", at, filepath.Base(path), faults)
			}
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if faults, _ := faultsOf(t, s); len(faults) > 0 {
		t.Errorf("the restored store has faults: %+v", faults)
	}
}

// places returns the first and last bytes of a file and some in between.
func places(size int) []int {
	at := []int{0, 1, size - 1, size - 20, size - 21}
	for i := range 8 {
		at = append(at, 9+i*(size-10)/8)
	}
	return at
}

func TestCheckFindsWhatIsMissingCutOrStray(t *testing.T) {
	p, s, g, _ := checked(t)
	part := oidOf(t, g.git(nil, "rev-parse", "HEAD:tables/big/part.parquet"))
	path := filepath.Join(p.data, "raw", part.String()[:2], part.String())
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	// Nothing remembers that it was there: as after a restart.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = p.open(t, 4<<10)
	faults, _ := faultsOf(t, s)
	if len(faults) != 1 || faults[0].Kind != objects.Missing || faults[0].OID != part || !strings.Contains(faults[0].Detail, "missing") {
		t.Errorf("a missing part gives %+v", faults)
	}

	if err := os.WriteFile(path, content[:len(content)-1], 0o444); err != nil {
		t.Fatal(err)
	}
	faults, _ = faultsOf(t, s)
	if len(faults) != 1 || faults[0].Kind != objects.Damaged || faults[0].OID != part {
		t.Errorf("a part that is cut off gives %+v", faults)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o444); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(p.data, "raw", "notes"), []byte("mine"), 0o444); err != nil {
		t.Fatal(err)
	}
	faults, _ = faultsOf(t, s)
	if len(faults) != 1 || faults[0].Kind != objects.Stray || faults[0].Key != "raw/notes" {
		t.Errorf("a stray file gives %+v", faults)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Check(ctx, func(f objects.Fault) { t.Errorf("a cancelled check reports %+v", f) }); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled check: %v", err)
	}
}
