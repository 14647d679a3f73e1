package exec

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// counted runs jobs that end when they are told to, and counts what they use.
type counted struct {
	mu        sync.Mutex
	used      amount
	most      amount
	started   []string      // the orders' modules, in the order of their starts
	begun     chan string   // a job has started
	end       chan struct{} // one may end
	immediate bool
}

func newCounted() *counted {
	return &counted{begun: make(chan string, 1000), end: make(chan struct{})}
}

func (c *counted) Run(ctx context.Context, job sandbox.Job) (*sandbox.Report, error) {
	need := amountOf(job.Limits)
	c.mu.Lock()
	c.used = c.used.plus(need)
	c.most = amount{max(c.most.milliCPUs, c.used.milliCPUs), max(c.most.memory, c.used.memory)}
	c.started = append(c.started, job.Order.Module)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.used = c.used.minus(need)
		c.mu.Unlock()
	}()
	c.begun <- job.Order.Module
	if !c.immediate {
		select {
		case <-c.end:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &sandbox.Report{Answer: &protocol.Answer{}}, nil
}

func job(name string, cpus float64, memory int64) sandbox.Job {
	return sandbox.Job{Kind: sandbox.KindWorker, Order: &protocol.Order{Module: name}, Limits: sandbox.Limits{CPUs: cpus, Memory: memory}}
}

// within fails a test that waits for what does not come.
const within = 10 * time.Second

func await(t *testing.T, c <-chan string, want string) {
	t.Helper()
	select {
	case have := <-c:
		if have != want {
			t.Fatalf("%q started, want %q", have, want)
		}
	case <-time.After(within):
		t.Fatalf("%q does not start", want)
	}
}

// queued waits until n jobs wait.
func queued(t *testing.T, sc *scheduler, n int) {
	t.Helper()
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		sc.mu.Lock()
		waiting := 0
		for _, a := range sc.sessions {
			waiting += len(a.waiting)
		}
		sc.mu.Unlock()
		if waiting == n {
			return
		}
	}
	t.Fatalf("%d jobs do not wait", n)
}

type starter struct {
	*testing.T
	boxes *counted
	rt    *Runtime
	wg    sync.WaitGroup
}

func newStarter(t *testing.T, b Budget) *starter {
	boxes := newCounted()
	return &starter{T: t, boxes: boxes, rt: New(boxes, Environments{}, b, slog.New(slog.DiscardHandler))}
}

// start runs a job; where it waits, it is waiting when start returns.
func (st *starter) start(s *Session, j sandbox.Job, waiting int) {
	st.Helper()
	st.wg.Go(func() {
		var u Usage
		if _, err := s.run(context.Background(), j, &u); err != nil {
			st.Error(err)
		}
	})
	if waiting > 0 {
		queued(st.T, st.rt.sched, waiting)
	} else {
		await(st.T, st.boxes.begun, j.Order.Module)
	}
}

func TestBudgetIsWeighed(t *testing.T) {
	st := newStarter(t, Budget{CPUs: 4, Memory: 100})
	s := st.rt.Session(nil, nil, Options{})
	st.start(s, job("a", 1, 60), 0)
	st.start(s, job("b", 1, 40), 0)
	st.start(s, job("c", 1, 10), 1) // there are processors, but no memory
	st.boxes.end <- struct{}{}
	await(t, st.boxes.begun, "c")
	st.start(s, job("d", 3, 1), 1) // there is memory, but there are no processors
	st.boxes.end <- struct{}{}
	st.boxes.end <- struct{}{}
	await(t, st.boxes.begun, "d")
	st.boxes.end <- struct{}{}
	st.wg.Wait()
	if st.rt.sched.free != st.rt.sched.total || len(st.rt.sched.sessions) != 0 {
		t.Errorf("after all have ended: %+v of %+v is free, %d sessions", st.rt.sched.free, st.rt.sched.total, len(st.rt.sched.sessions))
	}
}

// A run of many functions came first; the one function of another is next.
func TestNoRunStarvesAnother(t *testing.T) {
	st := newStarter(t, Budget{CPUs: 1, Memory: 100})
	many, one := st.rt.Session(nil, nil, Options{}), st.rt.Session(nil, nil, Options{})
	st.start(many, job("many", 1, 1), 0)
	for i := range 20 {
		st.start(many, job("many", 1, 1), i+1)
	}
	st.start(one, job("one", 1, 1), 21)
	st.boxes.end <- struct{}{}
	await(t, st.boxes.begun, "one")
	for range 20 {
		st.boxes.end <- struct{}{}
		await(t, st.boxes.begun, "many")
	}
	st.boxes.end <- struct{}{}
	st.wg.Wait()
}

// Small jobs may pass a large one, but not for ever.
func TestALargeJobDoesNotStarve(t *testing.T) {
	st := newStarter(t, Budget{CPUs: 2, Memory: 100})
	small, large := st.rt.Session(nil, nil, Options{}), st.rt.Session(nil, nil, Options{})
	st.start(small, job("small", 1, 1), 0)
	st.start(large, job("large", 2, 1), 1)
	passed := 0
	for ; passed < maxOvertaken; passed++ {
		st.start(small, job("small", 1, 1), 0) // beside the one that runs
		st.boxes.end <- struct{}{}
	}
	st.start(small, job("small", 1, 1), 2) // there is room, and it waits: the large one is next
	st.boxes.end <- struct{}{}
	await(t, st.boxes.begun, "large")
	st.boxes.end <- struct{}{}
	await(t, st.boxes.begun, "small")
	st.boxes.end <- struct{}{}
	st.wg.Wait()
}

// Runs that come and go use less than one that has a function running.
func TestALargeJobDoesNotStarveBehindNewRuns(t *testing.T) {
	sc := newScheduler(Budget{CPUs: 3, Memory: 100})
	one := amount{milliCPUs: 1000, memory: 1}
	take := func(s *Session, need amount) <-chan func() {
		got := make(chan func(), 1)
		go func() {
			release, err := sc.acquire(t.Context(), s, need)
			if err != nil {
				t.Error(err)
			}
			got <- release
		}()
		return got
	}
	now := func(got <-chan func()) func() {
		t.Helper()
		select {
		case release := <-got:
			return release
		case <-time.After(within):
			t.Fatal("a job does not start")
			return nil
		}
	}
	large := new(Session)
	own, small := now(take(large, one)), now(take(new(Session), one))
	waits := take(large, amount{milliCPUs: 2000, memory: 1})
	queued(t, sc, 1)
	for range maxOvertaken {
		next := now(take(new(Session), one)) // beside the two that run
		small()
		small = next
	}
	last := take(new(Session), one)
	queued(t, sc, 2) // there is room for it, and it waits: the large one is next
	small()
	release := now(waits)
	own()
	now(last)()
	release()
	if sc.free != sc.total || len(sc.sessions) != 0 {
		t.Errorf("%+v of %+v is free at the end, %d sessions are left", sc.free, sc.total, len(sc.sessions))
	}
}

// A run that was served before waits no longer than one that has just come.
func TestWhoCameFirstIsServedFirst(t *testing.T) {
	st := newStarter(t, Budget{CPUs: 1, Memory: 100})
	old, other := st.rt.Session(nil, nil, Options{}), st.rt.Session(nil, nil, Options{})
	st.start(old, job("old", 1, 1), 0)
	st.start(old, job("old", 1, 1), 1)
	st.start(other, job("other", 1, 1), 2)
	st.boxes.end <- struct{}{}
	await(t, st.boxes.begun, "other") // which used nothing
	st.start(st.rt.Session(nil, nil, Options{}), job("new", 1, 1), 2)
	st.boxes.end <- struct{}{}
	await(t, st.boxes.begun, "old")
	st.boxes.end <- struct{}{}
	await(t, st.boxes.begun, "new")
	st.boxes.end <- struct{}{}
	st.wg.Wait()
}

func TestWhatCannotFitIsRefused(t *testing.T) {
	rt := New(newCounted(), Environments{}, Budget{CPUs: 2, Memory: 1 << 30}, slog.New(slog.DiscardHandler))
	s := rt.Session(nil, nil, Options{Limits: sandbox.Limits{CPUs: 8, Memory: 8 << 30}})
	var u Usage
	_, err := s.run(t.Context(), job("a", 1, 2<<30), &u)
	var f *Failure
	if !errors.As(err, &f) || f.Kind != "limits" || !strings.Contains(f.Text, "asks for 2 GiB of memory and 1 processor(s); this server has 1 GiB and 2") {
		t.Errorf("got %v", err)
	}
	// Who asks for nothing is given what there is.
	if s.opt.Limits.CPUs != 2 || s.opt.Limits.Memory != 1<<30 {
		t.Errorf("limits of a function that asks for none: %+v", s.opt.Limits)
	}
}

func TestCancelledWaitingJobReturns(t *testing.T) {
	st := newStarter(t, Budget{CPUs: 1, Memory: 100})
	s := st.rt.Session(nil, nil, Options{})
	st.start(s, job("runs", 1, 1), 0)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var u Usage
	go func() {
		_, err := s.run(ctx, job("waits", 1, 1), &u)
		ended <- err
	}()
	queued(t, st.rt.sched, 1)
	st.start(st.rt.Session(nil, nil, Options{}), job("behind", 1, 1), 2)
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if u.Wait <= 0 || u.Sandboxes != 0 {
			t.Errorf("it waited %s and took %d sandboxes", u.Wait, u.Sandboxes)
		}
	case <-time.After(within):
		t.Fatal("a cancelled job still waits")
	}
	st.boxes.end <- struct{}{}
	await(t, st.boxes.begun, "behind")
	st.boxes.end <- struct{}{}
	st.wg.Wait()
}

// Whatever comes in whatever order, the budget holds, and everything ends.
func TestBudgetHolds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		boxes := newCounted()
		boxes.immediate = true
		r := New(boxes, Environments{}, Budget{CPUs: 3, Memory: 100}, slog.New(slog.DiscardHandler))
		var wg sync.WaitGroup
		for range rapid.IntRange(1, 4).Draw(rt, "sessions") {
			s := r.Session(nil, nil, Options{})
			for range rapid.IntRange(0, 12).Draw(rt, "jobs") {
				j := job("x", float64(rapid.IntRange(1, 30).Draw(rt, "tenths"))/10, rapid.Int64Range(1, 100).Draw(rt, "memory"))
				cancelled := rapid.IntRange(0, 4).Draw(rt, "cancelled") == 0
				wg.Go(func() {
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					if cancelled {
						go cancel()
					}
					var u Usage
					if _, err := s.run(ctx, j, &u); err != nil && !cancelled {
						rt.Errorf("%+v: %v", j.Limits, err)
					}
				})
			}
		}
		wg.Wait()
		if !boxes.most.fitsIn(r.sched.total) {
			rt.Fatalf("%+v was used of %+v", boxes.most, r.sched.total)
		}
		if r.sched.free != r.sched.total || len(r.sched.sessions) != 0 {
			rt.Fatalf("%+v of %+v is free at the end, %d sessions are left", r.sched.free, r.sched.total, len(r.sched.sessions))
		}
	})
}
