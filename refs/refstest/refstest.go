// Package refstest is the conformance suite of ref stores. It knows only the
// refs.Store interface.
package refstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/refs"
)

// Run checks that the stores which open returns keep the contract of
// refs.Store. Each call of open gives an empty one, which Run closes.
func Run(t *testing.T, open func(t *testing.T) refs.Store) {
	for name, test := range map[string]func(*testing.T, refs.Store){
		"CompareAndSwap": testCompareAndSwap,
		"AllOrNone":      testAllOrNone,
		"BadNames":       testBadNames,
		"Directories":    testDirectories,
		"List":           testList,
		"Log":            testLog,
		"LogSince":       testLogSince,
		"Verify":         testVerify,
		"Cancelled":      testCancelled,
		"Chain":          testChain,
		"Transfers":      testTransfers,
		"Journal":        testJournal,
		"Closed":         testClosed,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, s)
		})
	}
}

// oid makes a name that tells its number.
func oid(n int) (o refs.OID) {
	copy(o[:], fmt.Sprintf("%020d", n))
	return o
}

var zero refs.OID

func cause(why string) refs.Cause { return refs.Cause{Who: "test", Why: why} }

func apply(t *testing.T, s refs.Store, updates ...refs.Update) {
	t.Helper()
	if err := s.Apply(t.Context(), updates, cause("apply")); err != nil {
		t.Fatal(err)
	}
}

func wantAt(t *testing.T, s refs.Store, name refs.Name, want refs.OID) {
	t.Helper()
	got, err := s.Get(t.Context(), name)
	if want.IsZero() {
		if !errors.Is(err, refs.ErrNotFound) {
			t.Errorf("%s is at %s, %v, want ErrNotFound", name, got, err)
		}
	} else if err != nil || got != want {
		t.Errorf("%s is at %s, %v, want %s", name, got, err, want)
	}
}

func wantStale(t *testing.T, err error, name refs.Name, expected, actual refs.OID) {
	t.Helper()
	var stale *refs.StaleError
	if !errors.As(err, &stale) || *stale != (refs.StaleError{Name: name, Expected: expected, Actual: actual}) {
		t.Errorf("error %v, want that %s is at %s, not %s", err, name, actual, expected)
	}
}

const main = refs.Name("refs/heads/main")

func testCompareAndSwap(t *testing.T, s refs.Store) {
	swap := func(from, to refs.OID) error {
		return s.Apply(t.Context(), []refs.Update{{Name: main, Old: from, New: to}}, cause("swap"))
	}
	wantAt(t, s, main, zero)
	wantStale(t, swap(oid(1), oid(2)), main, oid(1), zero)
	apply(t, s, refs.Update{Name: main, New: oid(1)})
	wantAt(t, s, main, oid(1))
	wantStale(t, swap(zero, oid(2)), main, zero, oid(1))
	wantStale(t, swap(oid(3), oid(2)), main, oid(3), oid(1))
	wantStale(t, swap(oid(3), zero), main, oid(3), oid(1))
	wantAt(t, s, main, oid(1))
	apply(t, s, refs.Update{Name: main, Old: oid(1), New: oid(2)})
	wantAt(t, s, main, oid(2))
	apply(t, s, refs.Update{Name: main, Old: oid(2)})
	wantAt(t, s, main, zero)
	apply(t, s, refs.Update{Name: main, New: oid(4)})
	wantAt(t, s, main, oid(4))
}

func testAllOrNone(t *testing.T, s refs.Store) {
	apply(t, s, refs.Update{Name: main, New: oid(1)})
	err := s.Apply(t.Context(), []refs.Update{
		{Name: "refs/heads/a", New: oid(1)},
		{Name: main, Old: oid(1), New: oid(2)},
		{Name: "refs/heads/b", Old: oid(9), New: oid(2)},
	}, cause("half"))
	wantStale(t, err, "refs/heads/b", oid(9), zero)
	wantAt(t, s, "refs/heads/a", zero)
	wantAt(t, s, main, oid(1))
	if log, err := s.Log(t.Context(), "refs/heads/a", 10); err != nil || len(log) > 0 {
		t.Errorf("a refused transaction is in the log: %v, %v", log, err)
	}
	if err := s.Apply(t.Context(), []refs.Update{{Name: main, Old: oid(1), New: oid(2)}, {Name: main, Old: oid(2), New: oid(3)}}, cause("twice")); err == nil {
		t.Error("one ref was moved twice in one transaction")
	}
	wantAt(t, s, main, oid(1))
	apply(t, s)
	apply(t, s, refs.Update{Name: "refs/heads/a", New: oid(5)}, refs.Update{Name: main, Old: oid(1)})
	wantAt(t, s, "refs/heads/a", oid(5))
	wantAt(t, s, main, zero)
}

func testBadNames(t *testing.T, s refs.Store) {
	for _, name := range []refs.Name{"", "main", "refs/heads/../x", "refs/heads/a b", "refs/heads/a\x00"} {
		var bad *refs.NameError
		if err := s.Apply(t.Context(), []refs.Update{{Name: name, New: oid(1)}}, cause("bad")); !errors.As(err, &bad) {
			t.Errorf("name %q: %v", name, err)
		}
		wantAt(t, s, name, zero)
	}
}

func testDirectories(t *testing.T, s refs.Store) {
	apply(t, s, refs.Update{Name: "refs/heads/a/b", New: oid(1)}, refs.Update{Name: "refs/heads/c", New: oid(1)})
	for _, c := range []struct{ name, existing refs.Name }{
		{"refs/heads/a", "refs/heads/a/b"},
		{"refs/heads", "refs/heads/a/b"},
		{"refs/heads/c/d", "refs/heads/c"},
		{"refs/heads/c/d/e", "refs/heads/c"},
	} {
		var conflict *refs.ConflictError
		err := s.Apply(t.Context(), []refs.Update{{Name: c.name, New: oid(2)}}, cause("conflict"))
		if !errors.As(err, &conflict) || conflict.Name != c.name {
			t.Errorf("%s next to %s: %v", c.name, c.existing, err)
		}
		wantAt(t, s, c.name, zero)
	}
	var conflict *refs.ConflictError
	both := []refs.Update{{Name: "refs/heads/x", New: oid(1)}, {Name: "refs/heads/x/y", New: oid(1)}}
	if err := s.Apply(t.Context(), both, cause("both")); !errors.As(err, &conflict) {
		t.Errorf("both in one transaction: %v", err)
	}
	slices.Reverse(both)
	if err := s.Apply(t.Context(), both, cause("both")); !errors.As(err, &conflict) {
		t.Errorf("both in one transaction, the other way round: %v", err)
	}
	// Neighbours that only look alike, and a swap within one transaction.
	apply(t, s, refs.Update{Name: "refs/heads/a-b", New: oid(1)}, refs.Update{Name: "refs/heads/cc", New: oid(1)})
	apply(t, s, refs.Update{Name: "refs/heads/a", New: oid(3)}, refs.Update{Name: "refs/heads/a/b", Old: oid(1)})
	apply(t, s, refs.Update{Name: "refs/heads/c", Old: oid(1)}, refs.Update{Name: "refs/heads/c/d", New: oid(3)})
	wantAt(t, s, "refs/heads/a", oid(3))
	wantAt(t, s, "refs/heads/c/d", oid(3))
}

func testList(t *testing.T, s refs.Store) {
	for i, name := range []refs.Name{"refs/tags/v1", "refs/heads/b", "refs/heads/a", "refs/headsx", "refs/heads/a-b", "refs/scratch/1"} {
		apply(t, s, refs.Update{Name: name, New: oid(i + 1)})
	}
	for _, c := range []struct {
		prefix string
		want   []refs.Name
	}{
		{"", []refs.Name{"refs/heads/a", "refs/heads/a-b", "refs/heads/b", "refs/headsx", "refs/scratch/1", "refs/tags/v1"}},
		{"refs/heads/", []refs.Name{"refs/heads/a", "refs/heads/a-b", "refs/heads/b"}},
		{"refs/heads/a", []refs.Name{"refs/heads/a", "refs/heads/a-b"}},
		{"refs/tags/v1", []refs.Name{"refs/tags/v1"}},
		{"refs/z", nil},
		{"x", nil},
	} {
		list, err := s.List(t.Context(), c.prefix)
		if err != nil {
			t.Fatal(err)
		}
		var names []refs.Name
		for _, r := range list {
			names = append(names, r.Name)
			wantAt(t, s, r.Name, r.OID)
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("list %q: %v, want %v", c.prefix, names, c.want)
		}
	}
}

func testLog(t *testing.T, s refs.Store) {
	when := time.Unix(1700000000, 0)
	for i := range 5 {
		c := refs.Cause{Who: "ann", Why: fmt.Sprint("move ", i)}
		if i == 0 {
			c.When, c.Why = when, "two\nlines"
		}
		if err := s.Apply(t.Context(), []refs.Update{{Name: main, Old: oid(i), New: oid(i + 1)}}, c); i > 0 && err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			// oid(0) is not the zero oid, so this one was stale.
			if err := s.Apply(t.Context(), []refs.Update{{Name: main, New: oid(1)}}, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	apply(t, s, refs.Update{Name: "refs/heads/main2", New: oid(9)}, refs.Update{Name: "refs/heads/mai", New: oid(9)})
	apply(t, s, refs.Update{Name: main, Old: oid(5)})
	log, err := s.Log(t.Context(), main, 100)
	if err != nil || len(log) != 6 {
		t.Fatalf("%d entries, %v: %v", len(log), err, log)
	}
	at := zero
	for _, e := range log {
		if e.New != at || e.Name != main || e.When.IsZero() {
			t.Errorf("entry %+v, want one that leads to %s", e, at)
		}
		at = e.Old
	}
	if last := log[5]; !last.When.Equal(when) || last.Who != "ann" || strings.Contains(last.Why, "\n") {
		t.Errorf("first move is %+v", last)
	}
	if log, err = s.Log(t.Context(), main, 2); err != nil || len(log) != 2 || log[1].New != oid(5) {
		t.Errorf("newest two: %v, %v", log, err)
	}
	if log, err = s.Log(t.Context(), "refs/heads/none", 2); err != nil || len(log) != 0 {
		t.Errorf("log of no ref: %v, %v", log, err)
	}
}

// testVerify has updates that only say where a ref must be.
func testVerify(t *testing.T, s refs.Store) {
	apply(t, s, refs.Update{Name: main, New: oid(1)})
	apply(t, s, refs.Update{Name: main, Old: oid(1), New: oid(1)}, refs.Update{Name: "refs/heads/none"}, refs.Update{Name: "refs/heads/b", New: oid(2)})
	err := s.Apply(t.Context(), []refs.Update{{Name: main, Old: oid(2), New: oid(2)}, {Name: "refs/heads/c", New: oid(2)}}, cause("verify"))
	wantStale(t, err, main, oid(2), oid(1))
	if log, err := s.Log(t.Context(), main, 10); err != nil || len(log) != 1 {
		t.Errorf("a move to the same place is in the log: %v, %v", log, err)
	}
}

func testCancelled(t *testing.T, s refs.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Apply(ctx, []refs.Update{{Name: main, New: oid(1)}}, cause("late")); !errors.Is(err, context.Canceled) {
		t.Errorf("apply: %v", err)
	}
	wantAt(t, s, main, zero)
}

// testChain has many writers that each move one ref from where they saw it. Such
// a history is linearizable only if the log is one chain that has each success
// exactly once.
func testChain(t *testing.T, s refs.Store) {
	const writers, wins = 16, 10
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for won := 0; won < wins; {
				old, err := s.Get(t.Context(), main)
				if err != nil && !errors.Is(err, refs.ErrNotFound) {
					t.Error(err)
					return
				}
				to := oid(int(next.Add(1)))
				err = s.Apply(t.Context(), []refs.Update{{Name: main, Old: old, New: to}}, refs.Cause{Who: fmt.Sprint(w)})
				var stale *refs.StaleError
				switch {
				case err == nil:
					won++
				case !errors.As(err, &stale):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	log, err := s.Log(t.Context(), main, writers*wins+1)
	if err != nil || len(log) != writers*wins {
		t.Fatalf("%d moves in the log, want %d (%v)", len(log), writers*wins, err)
	}
	at, err := s.Get(t.Context(), main)
	if err != nil {
		t.Fatal(err)
	}
	won := make(map[string]int)
	for _, e := range log {
		if e.New != at {
			t.Fatalf("the chain breaks: at %s, log has %s", at, e.New)
		}
		at = e.Old
		won[e.Who]++
	}
	if !at.IsZero() {
		t.Errorf("the chain begins at %s", at)
	}
	for who, n := range won {
		if n != wins {
			t.Errorf("writer %s has %d moves in the log, was told of %d", who, n, wins)
		}
	}
}

// testTransfers moves pairs of refs in step; no reader may see them apart.
func testTransfers(t *testing.T, s refs.Store) {
	pair := []refs.Name{"refs/heads/x", "refs/heads/y"}
	apply(t, s, refs.Update{Name: pair[0], New: oid(1)}, refs.Update{Name: pair[1], New: oid(1)})
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				list, err := s.List(t.Context(), "refs/heads/")
				if err != nil || len(list) != 2 || list[0].OID != list[1].OID {
					t.Errorf("a half transaction is visible: %v, %v", list, err)
					return
				}
			}
		})
	}
	for w := range 8 {
		writers.Go(func() {
			for i := range 20 {
				old, err := s.Get(t.Context(), pair[0])
				if err != nil {
					t.Error(err)
					return
				}
				to := oid(1000*w + i + 10)
				err = s.Apply(t.Context(), []refs.Update{{Name: pair[0], Old: old, New: to}, {Name: pair[1], Old: old, New: to}}, cause("both"))
				var stale *refs.StaleError
				if err != nil && !errors.As(err, &stale) {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

func testClosed(t *testing.T, s refs.Store) {
	apply(t, s, refs.Update{Name: main, New: oid(1)})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), main); err == nil || errors.Is(err, refs.ErrNotFound) {
		t.Errorf("get from a closed store: %v", err)
	}
	if err := s.Apply(t.Context(), []refs.Update{{Name: main, Old: oid(1), New: oid(2)}}, cause("late")); err == nil {
		t.Error("a closed store took an update")
	}
}

func testLogSince(t *testing.T, s refs.Store) {
	now := time.Now()
	for i, age := range []time.Duration{100 * time.Hour, 50 * time.Hour, 20 * time.Hour, 0} {
		c := refs.Cause{Who: "ann", When: now.Add(-age)}
		u := []refs.Update{{Name: main, Old: oid(i), New: oid(i + 1)}, {Name: refs.Name(fmt.Sprint("refs/heads/b", i)), New: oid(100 + i)}}
		if i == 0 {
			u[0].Old = zero
		}
		if err := s.Apply(t.Context(), u, c); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, s, refs.Update{Name: "refs/heads/b2", Old: oid(102)})
	var got []string
	err := s.LogSince(t.Context(), now.Add(-30*time.Hour), func(e refs.LogEntry) error {
		got = append(got, fmt.Sprintf("%s %.3s %.3s", e.Name, e.Old, e.New))
		return nil
	})
	// The moves of one transaction have no order.
	slices.Sort(got)
	want := []string{
		fmt.Sprintf("refs/heads/b2 %.3s %.3s", zero, oid(102)), // the deleted ref's own
		fmt.Sprintf("refs/heads/b2 %.3s %.3s", oid(102), zero),
		fmt.Sprintf("refs/heads/b3 %.3s %.3s", zero, oid(103)),
		fmt.Sprintf("%s %.3s %.3s", main, oid(2), oid(3)),
		fmt.Sprintf("%s %.3s %.3s", main, oid(3), oid(4)),
	}
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("since 30 hours ago: %q, %v; want %q", got, err, want)
	}
	stop := errors.New("stop")
	calls := 0
	if err := s.LogSince(t.Context(), time.Time{}, func(refs.LogEntry) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("a function that fails was called %d times: %v", calls, err)
	}
}

// testJournal holds that an event is kept if its transaction is, and dropped with
// the one that takes it.
func testJournal(t *testing.T, s refs.Store) {
	j, ok := s.(refs.Journal)
	if !ok {
		t.Fatal("the store keeps no events")
	}
	event := func(text string, u ...refs.Update) error {
		return s.Apply(t.Context(), u, refs.Cause{Event: []byte(text)})
	}
	if err := errors.Join(event("one", refs.Update{Name: "refs/heads/a", New: oid(1)}), event("two")); err != nil {
		t.Fatal(err)
	}
	if err := event("stale", refs.Update{Name: "refs/heads/a", New: oid(2)}); err == nil {
		t.Fatal("a stale update was applied")
	}
	if err := event("three"); err != nil {
		t.Fatal(err)
	}
	events := func(limit int) []refs.Event {
		t.Helper()
		list, err := j.Events(t.Context(), limit)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	have := events(10)
	if len(have) != 3 || string(have[0].Data) != "one" || string(have[1].Data) != "two" || string(have[2].Data) != "three" || have[0].Number >= have[1].Number {
		t.Fatalf("events: %v", have)
	}
	if two := events(2); len(two) != 2 || two[1].Number != have[1].Number {
		t.Errorf("the oldest two: %v", two)
	}
	// A transaction that fails takes nothing.
	take := refs.Cause{Taken: have[1].Number}
	if err := s.Apply(t.Context(), []refs.Update{{Name: "refs/heads/a", New: oid(9)}}, take); err == nil || len(events(10)) != 3 {
		t.Errorf("%v, %v", err, events(10))
	}
	if err := s.Apply(t.Context(), []refs.Update{{Name: "refs/audit/log", New: oid(9)}}, take); err != nil {
		t.Fatal(err)
	}
	if left := events(10); len(left) != 1 || string(left[0].Data) != "three" {
		t.Errorf("left: %v", left)
	}
	// Numbers are not used again.
	if err := errors.Join(s.Apply(t.Context(), nil, refs.Cause{Taken: have[2].Number}), event("four")); err != nil {
		t.Fatal(err)
	}
	if left := events(10); len(left) != 1 || left[0].Number <= have[2].Number {
		t.Errorf("left: %v, the last one had number %d", left, have[2].Number)
	}
}
