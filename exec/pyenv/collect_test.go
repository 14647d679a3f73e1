package pyenv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// twoTools is a store with an environment of each of two tools; both have pyarrow
// and a library that only they share.
func twoTools(t *testing.T) (s *Store, one, two *Environment) {
	t.Helper()
	big := strings.Repeat("x = 1\n", 20_000)
	s, _ = local(t, arrow("20.0.0"), aWheel{pkg: "lib", version: "1.0", files: map[string]string{"lib.py": big}},
		aWheel{pkg: "one", version: "1.0", requires: []string{"lib"}, files: map[string]string{"one.py": big}},
		aWheel{pkg: "two", version: "1.0", requires: []string{"lib"}, files: map[string]string{"two.py": big}})
	for name, e := range map[string]**Environment{"one": &one, "two": &two} {
		var err error
		if *e, err = s.Resolve(t.Context(), python311(name, "==1.0")); err != nil {
			t.Fatal(err)
		}
	}
	return s, one, two
}

func mustMake(t testing.TB, s *Store, e *Environment) Made {
	t.Helper()
	m, err := s.Make(t.Context(), e, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// back sets the last use of all that is there to so long ago.
func back(t *testing.T, s *Store, age time.Duration) {
	t.Helper()
	for _, kind := range []string{"uses", "wheels", "locked"} {
		entries, err := os.ReadDir(filepath.Join(s.dir, kind))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range entries {
			path := filepath.Join(s.dir, kind, d.Name())
			info, err := d.Info()
			if err != nil {
				t.Fatal(err)
			}
			if at := info.ModTime().Add(-age); os.Chtimes(path, at, at) != nil {
				t.Fatal(path)
			}
		}
	}
}

func names(t *testing.T, s *Store, kind string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, kind))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range entries {
		list = append(list, d.Name())
	}
	return list
}

func collect(t *testing.T, s *Store, keep Keep) Collected {
	t.Helper()
	c, err := s.Collect(t.Context(), keep)
	if err != nil {
		t.Fatal(err)
	}
	if left := names(t, s, filepath.Join("tmp", filepath.Base(s.tmp))); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	return c
}

func TestCollectByAge(t *testing.T) {
	s, one, two := twoTools(t)
	mustMake(t, s, one).Release()
	mustMake(t, s, two).Release()
	if c := collect(t, s, Keep{Age: 30 * 24 * time.Hour}); c.Environments+c.Wheels+c.Locks != 0 || c.Freed != 0 || c.Left < 3*120_000 {
		t.Errorf("of what was just used it removes %+v", c)
	}
	back(t, s, 31*24*time.Hour)
	used := mustMake(t, s, one)
	defer used.Release()
	c := collect(t, s, Keep{Age: 30 * 24 * time.Hour})
	if c.Environments != 1 || c.Wheels != 1 || c.Locks != 1 || c.Freed < 120_000 || c.Left < 2*120_000 {
		t.Errorf("collected %+v, want two with its wheel and its lock", c)
	}
	if got := names(t, s, "envs"); !slices.Equal(got, []string{one.Digest()}) {
		t.Errorf("environments %q", got)
	}
	if s.Ready(two) || !s.Ready(one) {
		t.Errorf("two is ready: %t, one: %t", s.Ready(two), s.Ready(one))
	}
	if got := names(t, s, "uses"); !slices.Equal(got, []string{one.Digest()}) {
		t.Errorf("uses of %q", got)
	}
	// It is made again, of the wheels that are there and the one that is not.
	again := mustMake(t, s, two)
	defer again.Release()
	if text, err := os.ReadFile(filepath.Join(again.Dir, "two.py")); err != nil || len(text) != 120_000 || again.Wheels != 1 {
		t.Errorf("made again with %d wheels fetched: %v", again.Wheels, err)
	}
}

// What was meant to be made and could not be leaves nothing for ever.
func TestCollectWhatWasNeverMade(t *testing.T) {
	s, one, _ := twoTools(t)
	bad := &Environment{Spec: one.Spec, Wheels: slices.Clone(one.Wheels)}
	bad.Wheels[0].SHA256 = sumA
	if _, err := s.Make(t.Context(), bad, nil); err == nil {
		t.Fatal("made of a lock that does not hold")
	}
	back(t, s, 2*time.Hour)
	if c := collect(t, s, Keep{}); c.Environments != 0 || len(names(t, s, "uses")) != 0 {
		t.Errorf("%+v, uses %q", c, names(t, s, "uses"))
	}
}

func TestCollectBySize(t *testing.T) {
	s, one, two := twoTools(t)
	mustMake(t, s, one).Release()
	back(t, s, 10*time.Hour)
	mustMake(t, s, two).Release()
	all := collect(t, s, Keep{Bytes: 1 << 40}).Left
	// What was used within an hour stays however small the budget is.
	if c := collect(t, s, Keep{Bytes: all - 1}); c.Environments != 1 || c.Wheels != 1 || c.Locks != 1 || c.Left != all-c.Freed || c.Left > all-120_000 {
		t.Errorf("of %d bytes: %+v, want the one used longest ago with its wheel", all, c)
	}
	if c := collect(t, s, Keep{Bytes: 1}); c.Environments != 0 {
		t.Errorf("what was just used is removed: %+v", c)
	}
	back(t, s, 2*time.Hour)
	used := mustMake(t, s, two)
	back(t, s, 2*time.Hour) // a run that takes long
	if c := collect(t, s, Keep{Bytes: 1, Age: time.Hour}); c.Environments != 0 || c.Left == 0 {
		t.Errorf("what is in use is removed: %+v", c)
	}
	used.Release()
	if c := collect(t, s, Keep{Bytes: 1}); c.Environments != 0 {
		t.Errorf("what was in use a moment ago is removed: %+v", c)
	}
	back(t, s, 2*time.Hour)
	if c := collect(t, s, Keep{Bytes: 1}); c.Environments != 1 || c.Wheels != 3 || c.Left != 0 {
		t.Errorf("nothing is used, and %+v is removed", c)
	}
}

// A wheel that no environment has yet is not removed from under one that is made.
func TestCollectKeepsWheelsOfWhatIsMade(t *testing.T) {
	s, one, _ := twoTools(t)
	other, err := OpenStore(s.dir, s.uv)
	if err != nil {
		t.Fatal(err)
	}
	s.least, other.least = 0, 0
	made, err := s.Make(t.Context(), one, func(string) error {
		// Composed, and not visible yet: its files are linked.
		c, err := other.Collect(t.Context(), Keep{Age: 1, Bytes: 1})
		if err != nil || c.Wheels != 0 {
			t.Errorf("%+v, %v", c, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	made.Release()
	lock, err := lockDir(filepath.Join(s.dir, "wheels"), 1) // as Make does while it fetches
	if err != nil {
		t.Fatal(err)
	}
	if c := collect(t, other, Keep{Age: 1}); c.Environments != 1 || c.Wheels != 0 {
		t.Errorf("while wheels are fetched: %+v", c)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if c := collect(t, other, Keep{Age: 1}); c.Wheels != 3 {
		t.Errorf("then: %+v", c)
	}
}

// whole reports whether an environment has all of its files.
func whole(dir string, e *Environment) error {
	for _, w := range e.Wheels {
		name := w.Package + ".py"
		if w.Package == "pyarrow" {
			name = "pyarrow/__init__.py"
		}
		if _, err := os.ReadFile(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// Runs of several processes use environments that collectors of several processes
// want to remove all the time.
func TestCollectBesideRuns(t *testing.T) {
	s, one, two := twoTools(t)
	other, err := OpenStore(s.dir, s.uv)
	if err != nil {
		t.Fatal(err)
	}
	s.least, other.least = 0, 0
	ctx, cancel := context.WithCancel(t.Context())
	var collectors, runs sync.WaitGroup
	var removed atomic.Int64
	for _, store := range []*Store{s, other} {
		collectors.Go(func() {
			for ctx.Err() == nil {
				c, err := store.Collect(ctx, Keep{Age: 1, Bytes: 1})
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				removed.Add(int64(c.Environments))
			}
		})
	}
	for i := range 4 {
		runs.Go(func() {
			store, e := []*Store{s, other}[i%2], []*Environment{one, two}[i/2]
			for range 3 {
				m, err := store.Make(t.Context(), e, nil)
				if err != nil {
					t.Error(err)
					return
				}
				for range 5 {
					if err := whole(m.Dir, e); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Millisecond)
				}
				m.Release()
				time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
			}
		})
	}
	runs.Wait()
	cancel()
	collectors.Wait()
	if removed.Load() == 0 {
		t.Error("nothing was removed beside the runs")
	}
	if c := collect(t, s, Keep{Age: 1}); len(names(t, s, "envs"))+len(names(t, s, "wheels"))+len(names(t, s, "locked")) != 0 {
		t.Errorf("at the end %+v is removed, and there are %q, %q, %q", c, names(t, s, "envs"), names(t, s, "wheels"), names(t, s, "locked"))
	}
}

const collectorDir = "PYENV_TEST_COLLECTOR"

// TestCollector is what TestCollectSurvivesKill kills.
func TestCollector(t *testing.T) {
	dir := os.Getenv(collectorDir)
	if dir == "" {
		t.Skip("it runs as a process of its own")
	}
	s, err := OpenStore(dir, &UV{})
	if err != nil {
		t.Fatal(err)
	}
	s.least = 0
	fmt.Println("collecting")
	for {
		if _, err := s.Collect(t.Context(), Keep{Age: 1, Bytes: 1}); err != nil {
			fmt.Println(err)
			t.Fatal(err)
		}
	}
}

// A collector that is killed in the middle leaves what is used whole, and what it
// was removing to be swept.
func TestCollectSurvivesKill(t *testing.T) {
	s, one, _ := twoTools(t)
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCollector$")
		cmd.Env = append(os.Environ(), collectorDir+"="+s.dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 11)); err != nil {
			t.Fatal(err)
		}
		m := mustMake(t, s, one)
		if rand.IntN(2) == 0 { // it is killed while it waits for this one, or while it removes it
			m.Release()
		}
		time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); cmd.ProcessState.Exited() {
			t.Fatalf("the collector ended by itself: %v", err)
		}
		again := mustMake(t, s, one)
		if err := whole(again.Dir, one); err != nil {
			t.Error(err)
		}
		again.Release()
	}
	reopened, err := OpenStore(s.dir, s.uv)
	if err != nil {
		t.Fatal(err)
	}
	if left := names(t, reopened, "tmp"); len(left) != 2 { // s and reopened
		t.Errorf("left behind: %q", left)
	}
}

// An environment that could not be finished is used as it is, and tried again, at
// growing distances and without its wheels or the index.
func TestUnfinishedEnvironmentsAreFinishedLater(t *testing.T) {
	s, one, _ := twoTools(t)
	tries, fails := 0, true
	finish := func(root string) error {
		tries++
		if err := os.MkdirAll(filepath.Join(root, "__pycache__"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, "__pycache__", "one.pyc"), fmt.Append(nil, tries), 0o444); err != nil {
			return err // one of an earlier try would be there
		}
		if fails {
			return fmt.Errorf("compile: %w", ErrUnfinished)
		}
		return nil
	}
	made := func(want int) Made {
		t.Helper()
		m, err := s.Make(t.Context(), one, finish)
		if err != nil {
			t.Fatal(err)
		}
		if err := whole(m.Dir, one); err != nil {
			t.Error(err)
		}
		if tries != want {
			t.Errorf("tried %d times, want %d", tries, want)
		}
		return m
	}
	first := made(1)
	made(1).Release() // too early
	ago := func(d time.Duration) {
		at := time.Now().Add(-d)
		if err := os.Chtimes(s.failuresFile(one), at, at); err != nil {
			t.Fatal(err)
		}
	}
	ago(firstRetry + time.Second)
	made(2).Release()
	ago(firstRetry + time.Second) // the second wait is longer
	made(2).Release()
	ago(2*firstRetry + time.Second)
	cancelled, cancel := context.WithCancel(t.Context())
	if _, err := s.Make(cancelled, one, func(string) error { cancel(); return cancelled.Err() }); !errors.Is(err, context.Canceled) {
		t.Errorf("a run that is cancelled: %v", err)
	}
	fails = false
	s.uv.Path = "" // no index
	second := made(3)
	if first.Dir == second.Dir || filepath.Base(second.Dir) != one.Digest() {
		t.Errorf("first in %s, then in %s", first.Dir, second.Dir)
	}
	made(3).Release()
	if text, err := os.ReadFile(filepath.Join(second.Dir, "__pycache__", "one.pyc")); string(text) != "3" {
		t.Errorf("finished with %q, %v", text, err)
	}
	// The run that had the first one still has it, and then it goes.
	if err := whole(first.Dir, one); err != nil {
		t.Error(err)
	}
	collect(t, s, Keep{})
	if err := whole(first.Dir, one); err != nil {
		t.Error(err)
	}
	first.Release()
	second.Release()
	collect(t, s, Keep{})
	if got := names(t, s, "envs"); !slices.Equal(got, []string{one.Digest()}) {
		t.Errorf("environments %q", got)
	}
	if got := names(t, s, "unfinished"); len(got) > 0 {
		t.Errorf("unfinished: %q", got)
	}
}

func TestRetryAfter(t *testing.T) {
	for n, want := range map[int]time.Duration{0: firstRetry, 1: firstRetry, 2: 2 * firstRetry, 4: 8 * firstRetry, 20: lastRetry, 1 << 40: lastRetry} {
		if got := retryAfter(n); got != want {
			t.Errorf("after %d failures: %s, want %s", n, got, want)
		}
	}
}

// Wheels that are small each may be large together.
func TestAnEnvironmentIsBoundedUnpacked(t *testing.T) {
	s, one, two := twoTools(t)
	var refused *Error
	s.unpacked.bytes = 200_000
	if _, err := s.Make(t.Context(), one, nil); !errors.As(err, &refused) || !strings.Contains(refused.Text, "does not fit beside the other wheels") {
		t.Errorf("too many bytes: %v", err)
	}
	s.unpacked = environmentBounds
	s.unpacked.files = 6
	if _, err := s.Make(t.Context(), two, nil); !errors.As(err, &refused) || !strings.Contains(refused.Text, "does not fit") {
		t.Errorf("too many files: %v", err)
	}
	s.unpacked = environmentBounds
	mustMake(t, s, one).Release()
	// Wheels that are there count, too.
	s.unpacked.bytes = 200_000
	if _, err := s.Make(t.Context(), two, nil); !errors.As(err, &refused) || !strings.Contains(refused.Text, "does not fit") {
		t.Errorf("with a wheel that is there: %v", err)
	}
	left := 0
	if err := filepath.WalkDir(s.tmp, func(string, fs.DirEntry, error) error { left++; return nil }); err != nil || left != 1 {
		t.Errorf("left behind: %d, %v", left-1, err)
	}
}
