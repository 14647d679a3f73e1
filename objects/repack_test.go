package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/pack"
)

func TestToJoin(t *testing.T) {
	for _, c := range []struct {
		counts []int
		want   int
	}{
		{nil, 0},
		{[]int{7}, 0},
		{[]int{1, 2, 4, 8}, 0},
		{[]int{1, 1}, 2},
		{[]int{1, 1, 100}, 2},
		{[]int{1, 1, 3, 100}, 3},     // 1+1 is more than half of 3
		{[]int{1, 1, 4, 9, 100}, 2},  // each has its distance to the sum below
		{[]int{5, 6, 11, 50, 51}, 5}, // the largest two are too close
	} {
		if got := toJoin(c.counts); got != c.want {
			t.Errorf("toJoin(%v) = %d, want %d", c.counts, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOf(rapid.IntRange(1, 1000)).Draw(t, "counts")
		for {
			slices.Sort(counts)
			n := toJoin(counts)
			if n == 1 {
				t.Fatal("one pack would be joined with nothing")
			}
			if n == 0 {
				break
			}
			sum := 0
			for _, c := range counts[:n] {
				sum += c
			}
			counts = append(counts[n:], sum)
		}
		for i := 1; i < len(counts); i++ {
			if counts[i] < geometricFactor*counts[i-1] {
				t.Fatalf("left as they are: %v", counts)
			}
		}
	})
}

func openIn(tb testing.TB, b backend.Backend, dir string, opt Options) *Store {
	tb.Helper()
	s, err := OpenStore(b, filepath.Join(dir, "staging"), opt)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func wantBlobs(tb testing.TB, s *Store, oids []OID, contents [][]byte) {
	tb.Helper()
	for i, oid := range oids {
		data, err := ReadAll(context.Background(), s, oid, Blob, 1<<30)
		if err != nil || !bytes.Equal(data, contents[i]) {
			tb.Fatalf("object %d, %s: %d bytes, %v", i, oid, len(data), err)
		}
	}
}

func wantSound(tb testing.TB, s *Store) CheckStats {
	tb.Helper()
	stats, err := s.Check(context.Background(), func(f Fault) { tb.Errorf("fault: %+v", f) })
	if err != nil {
		tb.Fatal(err)
	}
	return stats
}

func numPacks(s *Store) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.small.packs)
}

// Ten thousand pushes of two objects each leave a handful of packs, with
// everything in them, and nothing of the old ones.
func TestTenThousandPacksAreJoined(t *testing.T) {
	const n = 20_000
	b := backend.NewMemory()
	oids, contents := putBlobs(t, b, n, 2)
	dir := t.TempDir()
	s := openIn(t, b, dir, Options{})
	if got := numPacks(s); got != n/2 {
		t.Fatalf("there are %d packs to begin with", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openIn(t, b, dir, Options{AutoRepack: true})
	s.background.Wait()
	most := bits.Len(n) + joinAtLeast
	if got := numPacks(s); got > most {
		t.Errorf("%d packs are left, want at most %d", got, most)
	}
	wantBlobs(t, s, oids, contents)
	if stats := wantSound(t, s); stats.Objects != n {
		t.Errorf("%d objects are left of %d", stats.Objects, n)
	}
	files := 0
	if err := b.List(t.Context(), "", func(backend.Info) error { files++; return nil }); err != nil {
		t.Fatal(err)
	}
	if files > 3*most {
		t.Errorf("%d files are left", files)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Each push finds few packs, however many came before it.
func TestPushesAreJoinedAsTheyCome(t *testing.T) {
	dir := t.TempDir()
	l, err := backend.NewLocal(filepath.Join(dir, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	s := openIn(t, l, dir, Options{AutoRepack: true})
	var oids []OID
	var contents [][]byte
	const pushes = 100
	most := 0
	for i := range pushes {
		q, err := s.Quarantine()
		if err != nil {
			t.Fatal(err)
		}
		content := fmt.Appendf(nil, "push %d", i)
		oid, err := q.Put(t.Context(), Blob, int64(len(content)), bytes.NewReader(content))
		if err == nil {
			err = q.Migrate(t.Context())
		}
		if err := errors.Join(err, q.Discard()); err != nil {
			t.Fatal(err)
		}
		s.background.Wait()
		most = max(most, numPacks(s))
		oids, contents = append(oids, oid), append(contents, content)
	}
	if limit := bits.Len(pushes) + joinAtLeast; most > limit {
		t.Errorf("a push found %d packs, want at most %d", most, limit)
	}
	wantBlobs(t, s, oids, contents)
	wantSound(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Who reads while packs are joined finds everything at every moment, whether
// packs are kept open or read anew each time.
func TestReadersSeeNoGap(t *testing.T) {
	for name, wrap := range map[string]func(backend.Backend) backend.Backend{
		"kept open": func(b backend.Backend) backend.Backend { return b },
		"read anew": func(b backend.Backend) backend.Backend { return withoutMap{b} },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := backend.NewLocal(filepath.Join(dir, "objects"))
			if err != nil {
				t.Fatal(err)
			}
			oids, contents := putBlobs(t, l, 100, 10)
			s := openIn(t, wrap(l), dir, Options{})
			done := make(chan struct{})
			var readers sync.WaitGroup
			for range 4 {
				readers.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
						}
						i := rand.IntN(len(oids))
						data, err := ReadAll(t.Context(), s, oids[i], Blob, 8)
						if err != nil || !bytes.Equal(data, contents[i]) {
							t.Errorf("object %d: %x, %v", i, data, err)
							return
						}
					}
				})
			}
			for numPacks(s) > 1 {
				// Two at a time, so that packs come and go all the time.
				s.mu.RLock()
				two := slices.Clone(s.small.packs[:2])
				s.mu.RUnlock()
				pf, err := s.rewrite(t.Context(), two, func(*packFile, int) bool { return true })
				if err != nil {
					t.Fatal(err)
				}
				if err := s.swap(t.Context(), pf, two); err != nil {
					t.Fatal(err)
				}
			}
			close(done)
			readers.Wait()
			wantSound(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// mortal is a backend whose process is killed at its n-th change: that one and
// all later ones do not happen.
type mortal struct {
	*backend.Local
	mu   sync.Mutex
	left int
}

var errKilled = errors.New("killed")

// step takes one change, or dies.
func (m *mortal) step() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left == 0 {
		return errKilled
	}
	m.left--
	return nil
}

func (m *mortal) Adopt(ctx context.Context, files []backend.Adoption) error {
	for i := range files {
		if err := m.step(); err != nil {
			return err
		}
		if err := m.Local.Adopt(ctx, files[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (m *mortal) Delete(ctx context.Context, key string) error {
	return m.DeleteAll(ctx, []string{key})
}

func (m *mortal) DeleteAll(ctx context.Context, keys []string) error {
	for _, key := range keys {
		if err := m.step(); err != nil {
			return err
		}
		if err := m.Local.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// A kill at any point of a join leaves a sound store with everything in it.
func TestKillWhilePacksAreJoined(t *testing.T) {
	for steps, done := 0, false; !done; steps++ {
		dir := t.TempDir()
		l, err := backend.NewLocal(filepath.Join(dir, "objects"))
		if err != nil {
			t.Fatal(err)
		}
		oids, contents := putBlobs(t, l, 12, 3)
		s := openIn(t, &mortal{Local: l, left: steps}, dir, Options{})
		_, err = s.Repack(t.Context())
		if done = err == nil; !done && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openIn(t, l, dir, Options{})
		wantBlobs(t, s, oids, contents)
		wantSound(t, s)
		// What is left of the old packs only has second copies.
		stats, err := s.Repack(t.Context())
		if err != nil || stats.Packs > 2 {
			t.Fatalf("killed after %d steps, a new join gives %+v, %v", steps, stats, err)
		}
		wantBlobs(t, s, oids, contents)
		if stats := wantSound(t, s); stats.Objects != 12 {
			t.Errorf("killed after %d steps: %d objects", steps, stats.Objects)
		}
		err = l.List(t.Context(), packPrefix, func(info backend.Info) error {
			id := strings.TrimPrefix(info.Key, packPrefix)[:40]
			if s.small.byID[id] == nil {
				t.Errorf("killed after %d steps: %s is left", steps, info.Key)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// An entry that is damaged is not carried over under a new checksum.
func TestDamageIsNotJoined(t *testing.T) {
	b := backend.NewMemory()
	putBlobs(t, b, 20, 10)
	dir := t.TempDir()
	s := openIn(t, b, dir, Options{})
	pf := s.small.packs[0]
	data, err := s.readKey(t.Context(), pf.key)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := b.Put(t.Context(), pf.key, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	var corrupt *CorruptError
	if _, err := s.Repack(t.Context()); !errors.As(err, &corrupt) {
		t.Errorf("join of a damaged pack: %v", err)
	}
	if got := numPacks(s); got != 2 {
		t.Errorf("there are %d packs now", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// aged is a backend whose keys are as old as one says.
type aged struct {
	backend.Backend
	modified map[string]time.Time
}

func (a *aged) Stat(ctx context.Context, key string) (backend.Info, error) {
	info, err := a.Backend.Stat(ctx, key)
	if when, ok := a.modified[key]; ok {
		info.Modified = when
	}
	return info, err
}

// A joined pack knows when each of its objects came, also after it was joined
// again and after a restart.
func TestJoinedPacksKeepAges(t *testing.T) {
	a := &aged{backend.NewMemory(), make(map[string]time.Time)}
	now := time.Now().Truncate(time.Second)
	ages := make(map[OID]time.Time)
	dir := t.TempDir()
	for round := range 3 {
		// The packs of the rounds before come again, as those of a push that had
		// begun before would.
		fresh := make(map[string]bool)
		b := backend.NewMemory()
		putBlobs(t, b, 40*(round+1), 20)
		err := b.List(t.Context(), "", func(info backend.Info) error {
			fresh[strings.TrimPrefix(info.Key, packPrefix)[:40]] = true
			rc, err := b.Get(t.Context(), info.Key, 0, -1)
			if err == nil {
				err = a.Put(t.Context(), info.Key, rc)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for id := range fresh {
			a.modified[packPrefix+id+packSuffix] = now.Add(-time.Duration(rand.IntN(1000)) * time.Hour)
		}
		s := openIn(t, a, dir, Options{})
		for _, pf := range s.small.packs {
			if !fresh[pf.id] || len(pf.ages) > 0 {
				continue
			}
			for pos := range pf.idx.Len() {
				oid, when := pf.idx.OID(pos), pf.landed(0)
				if ages[oid].Before(when) {
					ages[oid] = when
				}
			}
		}
		if _, err := s.repack(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := openIn(t, a, dir, Options{})
	for oid, when := range ages {
		loc, ok, err := s.find(oid, false)
		if err != nil || !ok {
			t.Fatal(oid, err)
		}
		// Never older than it is, or gc would come too early.
		got := loc.pack.landed(loc.offset)
		if got.Before(when) || got.Sub(when) > ageStep*time.Second {
			t.Errorf("%s came at %v, and its pack says %v", oid, when, got)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCheckReadsAges(t *testing.T) {
	b := backend.NewMemory()
	putBlobs(t, b, 20, 10)
	s := openIn(t, b, t.TempDir(), Options{})
	if _, err := s.Repack(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := packPrefix + s.small.packs[0].id + agesSuffix
	data, err := s.readKey(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		data[i] ^= 4
		if err := b.Put(t.Context(), key, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		var faults []Fault
		if _, err := s.Check(t.Context(), func(f Fault) { faults = append(faults, f) }); err != nil {
			t.Fatal(err)
		}
		if len(faults) != 1 || faults[0].Key != key || faults[0].Kind != Damaged {
			t.Errorf("byte %d of the ages is damaged, and Check says %+v", i, faults)
		}
		data[i] ^= 4
		data = bytes.Clone(data)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzAges(f *testing.F) {
	f.Add(encodeAges([]age{{pack.HeaderSize, 1}, {100, 5}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		ages, err := parseAges(data)
		if err == nil && !bytes.Equal(encodeAges(ages), data) {
			t.Errorf("%v has two spellings", ages)
		}
	})
}
