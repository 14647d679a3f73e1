package objects

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/gitobj"
)

// world is a backend with a clock of its own, whose process can be killed at any
// change: that one and all later ones do not happen.
type world struct {
	*backend.Memory
	clock    time.Time
	modified map[string]time.Time
	left     int // changes until the kill; negative is never
}

func newWorld() *world {
	return &world{backend.NewMemory(), time.Unix(1_700_000_000, 0), make(map[string]time.Time), -1}
}

func (w *world) now() time.Time { return w.clock }

func (w *world) step() error {
	if w.left == 0 {
		return errKilled
	}
	w.left--
	return nil
}

func (w *world) Put(ctx context.Context, key string, r io.Reader) error {
	if err := w.step(); err != nil {
		return err
	}
	w.modified[key] = w.clock
	return w.Memory.Put(ctx, key, r)
}

func (w *world) Adopt(ctx context.Context, files []backend.Adoption) error {
	for _, file := range files {
		data, err := os.ReadFile(file.Path)
		if err == nil {
			err = w.Put(ctx, file.Key, bytes.NewReader(data))
		}
		if err == nil {
			err = os.Remove(file.Path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *world) Delete(ctx context.Context, key string) error {
	if err := w.step(); err != nil {
		return err
	}
	return w.Memory.Delete(ctx, key)
}

func (w *world) aged(info backend.Info) backend.Info {
	info.Modified = w.modified[info.Key]
	return info
}

func (w *world) Stat(ctx context.Context, key string) (backend.Info, error) {
	info, err := w.Memory.Stat(ctx, key)
	return w.aged(info), err
}

func (w *world) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	return w.Memory.List(ctx, prefix, func(info backend.Info) error { return fn(w.aged(info)) })
}

// fastDir is a directory in memory if there is such a thing.
func fastDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "headgate-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// clientObject is an object as a client has it.
type clientObject struct {
	t     Type
	data  []byte
	names []OID
}

// client knows every object that ever was.
type client map[OID]clientObject

func (c client) add(t Type, data []byte, names ...OID) OID {
	oid := nameOf(t, data)
	c[oid] = clientObject{t, data, names}
	return oid
}

// blob is a small one, or from 10 on a raw one.
func (c client) blob(n int) OID {
	data := fmt.Appendf(nil, "blob %d", n)
	if n >= 10 {
		data = bytes.Repeat(data, 50)
	}
	return c.add(Blob, data)
}

func (c client) tree(tb rapid.TB, blobs ...OID) OID {
	var entries []gitobj.Entry
	for i, oid := range blobs {
		entries = append(entries, gitobj.Entry{Name: fmt.Sprint("f", i), Mode: gitobj.ModeFile, OID: oid})
	}
	data, err := gitobj.EncodeTree(entries)
	if err != nil {
		tb.Fatal(err)
	}
	return c.add(Tree, data, blobs...)
}

func (c client) commit(n int, tree OID, parents ...OID) OID {
	who := gitobj.Signature{Name: "a", Email: "a@b", When: time.Unix(int64(n), 0).UTC()}
	g := gitobj.Commit{Tree: tree, Parents: parents, Author: who, Committer: who, Message: "m\n"}
	return c.add(Commit, g.Encode(), append([]OID{tree}, parents...)...)
}

// reach returns what objects lead to.
func (c client) reach(from ...OID) map[OID]bool {
	seen := make(map[OID]bool)
	for todo := slices.Clone(from); len(todo) > 0; {
		oid := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !seen[oid] {
			seen[oid] = true
			todo = append(todo, c[oid].names...)
		}
	}
	return seen
}

// send puts objects into a quarantine.
func (c client) send(ctx context.Context, q *Quarantine, oids map[OID]bool) error {
	for _, oid := range slices.SortedFunc(maps.Keys(oids), compareOIDs) {
		o := c[oid]
		if _, err := q.Put(ctx, o.t, int64(len(o.data)), bytes.NewReader(o.data)); err != nil {
			return err
		}
	}
	return nil
}

// collect runs a collection that needs not wait.
func collect(tb testing.TB, s *Store, grace time.Duration, refs ...OID) GCStats {
	tb.Helper()
	stats, err := s.GC(context.Background(), GCOptions{
		Roots: func(context.Context) (Roots, error) { return Roots{Refs: refs}, nil },
		Grace: grace,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return stats
}

// store pushes what tips lead to, whatever is there.
func (c client) store(tb testing.TB, s *Store, tips ...OID) {
	tb.Helper()
	q, err := s.Quarantine()
	if err == nil {
		err = c.send(tb.Context(), q, c.reach(tips...))
	}
	if err == nil {
		err = q.CheckConnected(tb.Context(), tips)
	}
	if err == nil {
		err = q.Migrate(tb.Context())
	}
	if err := errors.Join(err, q.Discard()); err != nil {
		tb.Fatal(err)
	}
}

func wantAll(tb testing.TB, s *Store, c client, there bool, tips ...OID) {
	tb.Helper()
	for oid := range c.reach(tips...) {
		_, err := s.Stat(tb.Context(), oid)
		if there && err != nil || !there && !errors.Is(err, ErrNotFound) {
			tb.Errorf("%s %s: %v", c[oid].t, oid, err)
		}
	}
}

func gcStore(tb testing.TB) (*world, *Store, client) {
	tb.Helper()
	w := newWorld()
	s := openIn(tb, w, fastDir(tb), Options{RawThreshold: 100})
	s.now = w.now
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return w, s, make(client)
}

// What no ref leads to stays for the grace period, with what it names, however
// old that is, and also if its pack was joined with others.
func TestGracePeriod(t *testing.T) {
	w, s, c := gcStore(t)
	old := c.tree(t, c.blob(1), c.blob(11))
	c.store(t, s, old)
	w.clock = w.clock.Add(30 * 24 * time.Hour)
	young := c.commit(1, old)
	other := c.commit(2, c.tree(t, c.blob(2), c.blob(12)))
	c.store(t, s, young)
	c.store(t, s, other)
	w.clock = w.clock.Add(time.Hour)
	if _, err := s.Repack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stats := collect(t, s, 14*24*time.Hour); stats.Freed.Objects != 0 {
		t.Errorf("young objects were removed: %+v", stats)
	}
	wantAll(t, s, c, true, young, other)
	w.clock = w.clock.Add(15 * 24 * time.Hour)
	stats := collect(t, s, 14*24*time.Hour, other)
	wantAll(t, s, c, true, other)
	wantAll(t, s, c, false, young)
	if stats.Freed.Objects != 4 || stats.Freed.RawBlobs != 1 || stats.Freed.Bytes < 300 || stats.Kept != 4 {
		t.Errorf("removed: %+v", stats)
	}
	wantSound(t, s)
}

func TestDryRunRemovesNothing(t *testing.T) {
	w, s, c := gcStore(t)
	tip := c.commit(1, c.tree(t, c.blob(1), c.blob(11)))
	c.store(t, s, tip)
	w.clock = w.clock.Add(time.Hour)
	w.left = 0 // any change is an error
	stats, err := s.GC(t.Context(), GCOptions{
		Roots:  func(context.Context) (Roots, error) { return Roots{}, nil },
		DryRun: true,
	})
	if err != nil || stats.Garbage.Objects != 4 || stats.Garbage.RawBlobs != 1 {
		t.Errorf("a dry run: %+v, %v", stats, err)
	}
	w.left = -1
	wantAll(t, s, c, true, tip)
}

// A push that has begun before garbage is condemned sees it and keeps it; one that
// begins after that does not see it and stores it anew, the very same pack too.
func TestPushesWhileGarbageIsCondemned(t *testing.T) {
	w, s, c := gcStore(t)
	garbage := c.commit(1, c.tree(t, c.blob(1), c.blob(11)))
	relied := c.tree(t, c.blob(2), c.blob(12))
	again := c.commit(3, c.tree(t, c.blob(3), c.blob(13)))
	for _, tip := range []OID{garbage, relied, again} {
		c.store(t, s, tip)
	}
	w.clock = w.clock.Add(time.Hour)
	q, err := s.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	child := c.commit(4, relied)
	if err := c.send(t.Context(), q, map[OID]bool{child: true}); err != nil {
		t.Fatal(err)
	}
	if stats := collect(t, s, 0); stats.Waiting != 1 || stats.Garbage.Objects != 11 || stats.Freed.Objects != 0 {
		t.Fatalf("with a push under way: %+v", stats)
	}
	wantAll(t, s, c, true, garbage, relied, again) // for fetches

	// A push that relies on it is refused.
	late, err := s.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	onGarbage := c.commit(5, c[garbage].names[0], garbage)
	if err := c.send(t.Context(), late, map[OID]bool{onGarbage: true}); err != nil {
		t.Fatal(err)
	}
	var missing *MissingError
	if err := late.CheckConnected(t.Context(), []OID{onGarbage}); !errors.As(err, &missing) {
		t.Errorf("a push that relies on condemned objects: %v", err)
	}
	if err := late.CheckConnected(t.Context(), []OID{garbage}); !errors.As(err, &missing) {
		t.Errorf("a push of a condemned commit: %v", err)
	}
	if err := late.Discard(); err != nil {
		t.Fatal(err)
	}
	same, err := s.Quarantine()
	if err == nil {
		err = c.send(t.Context(), same, c.reach(again))
	}
	if err == nil {
		err = same.CheckConnected(t.Context(), []OID{again})
	}
	if err == nil {
		err = same.Migrate(t.Context()) // to the byte the pack that is condemned
	}
	if err != nil {
		t.Fatal(err)
	}

	if err := q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What is pardoned can be relied on.
	c2, err := s.Quarantine()
	if err == nil {
		err = c.send(t.Context(), c2, map[OID]bool{c.commit(6, relied, child): true})
	}
	if err == nil {
		err = c2.CheckConnected(t.Context(), []OID{child})
	}
	if err := errors.Join(err, c2.Discard(), q.Discard()); err != nil {
		t.Fatal(err)
	}
	wantSound(t, s)
	stats := collect(t, s, 0, child) // the ref of the other push does not exist yet
	if stats.Waiting != 0 || stats.Freed.Objects < 4 {
		t.Errorf("after the push: %+v", stats)
	}
	wantAll(t, s, c, true, child, again)
	wantAll(t, s, c, false, garbage)
	if err := same.Discard(); err != nil {
		t.Fatal(err)
	}
	wantSound(t, s)
	for oid := range c.reach(garbage) {
		if _, err := s.Stat(t.Context(), oid); err == nil {
			t.Errorf("%s is remembered", oid)
		}
	}
}

// A collection that is killed at any of its steps is gone on with by the next one.
func TestKillWhileCollecting(t *testing.T) {
	for steps, done := 0, false; !done; steps++ {
		w, c, dir := newWorld(), make(client), fastDir(t)
		s := openIn(t, w, dir, Options{RawThreshold: 100})
		s.now = w.now
		live := c.commit(1, c.tree(t, c.blob(1), c.blob(11)))
		shared := c.commit(2, c.tree(t, c.blob(1), c.blob(2), c.blob(12)), live)
		dead := c.commit(3, c.tree(t, c.blob(3), c.blob(13), c.blob(14)))
		c.store(t, s, live)
		c.store(t, s, live, shared, dead)
		w.clock = w.clock.Add(time.Hour)
		w.left = steps
		_, err := s.GC(t.Context(), GCOptions{Roots: func(context.Context) (Roots, error) { return Roots{Refs: []OID{live}}, nil }})
		if done = err == nil; !done && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		w.left = -1
		s = openIn(t, w, dir, Options{RawThreshold: 100})
		s.now = w.now
		wantAll(t, s, c, true, live)
		wantSound(t, s)
		c.store(t, s, shared) // comes back while half of it is gone
		wantSound(t, s)
		if stats := collect(t, s, 0, live, shared); stats.Waiting != 0 {
			t.Errorf("killed after %d steps: %+v", steps, stats)
		}
		wantAll(t, s, c, true, live, shared)
		if stats := wantSound(t, s); stats.Objects != len(c.reach(live, shared)) {
			t.Errorf("killed after %d steps, %d objects are left", steps, stats.Objects)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if steps > 200 {
			t.Fatal("it never succeeds")
		}
	}
}

// Pushes, readers, joins and collections at once.
func TestCollectWhileOthersWork(t *testing.T) {
	dir := fastDir(t)
	l, err := backend.NewLocal(dir + "/objects")
	if err != nil {
		t.Fatal(err)
	}
	s := openIn(t, l, dir, Options{RawThreshold: 100, AutoRepack: true})
	s.slack = 20 * time.Millisecond // file times are as coarse as the kernel's tick
	var mu sync.Mutex
	refs := make(map[string]OID)
	roots := func(context.Context) (Roots, error) {
		mu.Lock()
		defer mu.Unlock()
		return Roots{Refs: slices.Collect(maps.Values(refs))}, nil
	}
	var work sync.WaitGroup
	for k := range 3 {
		work.Go(func() {
			c := make(client)
			name := fmt.Sprint("r", k)
			var tip OID
			for i := range 60 {
				var parents []OID
				if !tip.IsZero() && i%5 != 0 { // else all before becomes garbage
					parents = []OID{tip}
				}
				next := c.commit(k*1000+i, c.tree(t, c.blob(i%7), c.blob(10+i%9)), parents...)
				send := c.reach(next)
				if len(parents) > 0 {
					for oid := range c.reach(parents...) {
						delete(send, oid)
					}
				}
				q, err := s.Quarantine()
				if err == nil {
					err = c.send(t.Context(), q, send)
				}
				if err == nil {
					err = q.CheckConnected(t.Context(), []OID{next})
				}
				if err == nil {
					err = q.Migrate(t.Context())
				}
				if err == nil {
					mu.Lock()
					refs[name] = next
					mu.Unlock()
				}
				if err := errors.Join(err, q.Discard()); err != nil {
					t.Errorf("push %d of %d: %v", i, k, err)
					return
				}
				tip = next
				for oid := range c.reach(tip) {
					if _, err := ReadAll(t.Context(), s, oid, c[oid].t, 1<<20); err != nil {
						t.Errorf("read after push %d of %d: %v", i, k, err)
						return
					}
				}
			}
		})
	}
	stop := make(chan struct{})
	var upkeep sync.WaitGroup
	freed := 0
	upkeep.Go(func() {
		for {
			stats, err := s.GC(t.Context(), GCOptions{Roots: roots, Grace: -time.Hour, Wait: time.Minute})
			if err != nil {
				t.Error(err)
				return
			}
			freed += stats.Freed.Objects
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	work.Wait()
	close(stop)
	upkeep.Wait()
	// On a busy machine all pushes may have come in one go.
	stats, err := s.GC(t.Context(), GCOptions{Roots: roots, Grace: -time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if freed+stats.Freed.Objects == 0 {
		t.Error("nothing was collected")
	}
	wantSound(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzCondemned(f *testing.F) {
	f.Add((&condemned{packs: map[string]packMarks{OID{1}.String(): {9, bitmap{1, 1}}}, raws: []OID{{1}, {2}}}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= 20 {
			sum := sha1.Sum(data[:len(data)-20])
			data = append(bytes.Clone(data[:len(data)-20]), sum[:]...)
		}
		c, err := parseCondemned(data)
		if err == nil && !bytes.Equal(c.encode(), data) {
			t.Errorf("%+v has two spellings", c)
		}
	})
}

// BenchmarkMark marks a million small objects, reading each: none is reachable,
// and all are young.
func BenchmarkMark(b *testing.B) {
	const n = 1_000_000
	dir := b.TempDir()
	l, err := backend.NewLocal(dir + "/objects")
	if err != nil {
		b.Fatal(err)
	}
	putBlobs(b, l, n, n/4)
	s := openIn(b, l, dir, Options{})
	for b.Loop() {
		before := heap()
		m, err := s.newMarker(b.Context(), nil)
		if err == nil {
			err = m.young(b.Context(), time.Unix(0, 0))
		}
		if err != nil || m.seen != n {
			b.Fatal(m.seen, err)
		}
		b.ReportMetric(float64(heap()-before)/n, "heap-B/object")
		runtime.KeepAlive(m)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
