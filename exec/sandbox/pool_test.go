package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/protocol"
)

func TestWarmSandboxesServeOnceEach(t *testing.T) {
	cfg := quiet(t)
	cfg.WarmWorkers = 2
	m := open(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for range 3 {
		if err := m.AwaitWarm(ctx); err != nil {
			t.Fatal(err)
		}
		r := must(t, m, "read /in/3/0.parquet", content("3/0.parquet", "rows"))
		if !r.Warm || r.out() != "rows" {
			t.Errorf("warm %t, out %q", r.Warm, r.out())
		}
		if r := must(t, m, "list /tmp"); r.out() != "/tmp\n" {
			t.Errorf("a job sees what another left: %q", r.out())
		}
		if r := must(t, m, "write /tmp/left"); r.userError() != "" {
			t.Error(r.userError())
		}
	}
	// Limits come with the job, also to a sandbox that waited.
	if err := m.AwaitWarm(ctx); err != nil {
		t.Fatal(err)
	}
	r, err := do(t, m, Job{Order: &protocol.Order{SQL: "memory 2000"}, Limits: Limits{Memory: 48 << 20}})
	if err != nil || !r.Warm || !r.OOM {
		t.Errorf("%+v, %v", r.Report, err)
	}
}

func TestManyJobsAtOnce(t *testing.T) {
	cfg := quiet(t)
	cfg.WarmWorkers = 2
	m := open(t, cfg)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 2 {
				r, err := do(t, m, Job{Order: &protocol.Order{SQL: "read /in/x"}, Inputs: []Input{content("x", "y")}})
				if err != nil || r.out() != "y" {
					t.Errorf("%+v, %v", r.Report, err)
				}
			}
		}()
	}
	wg.Wait()
}

func TestDeadWaitingSandboxIsReplaced(t *testing.T) {
	cfg := quiet(t)
	cfg.WarmWorkers = 1
	m := open(t, cfg)
	if err := m.AwaitWarm(context.Background()); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	b := m.shelves[m.shapeOf(program{kind: KindWorker}, DefaultLimits)].boxes[0]
	m.mu.Unlock()
	b.kill()
	<-b.exited
	r := must(t, m, "echo x")
	if r.Warm || r.out() != "x" {
		t.Errorf("%+v %q", r.Report, r.out())
	}
}

// waiting is how many sandboxes wait, by program.
func waiting(m *Manager) map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := make(map[string]int)
	for sh, s := range m.shelves {
		n[sh.String()] += len(s.boxes)
	}
	return n
}

// A program that somebody uses earns warm sandboxes, packages and limits included;
// one that nobody uses does not. What is used last stays when memory is short.
func TestPoolFollowsUse(t *testing.T) {
	in := interpreters(t)
	cfg := withPython(t, in[0])
	cfg.WarmWorkers, cfg.WarmPython = 1, 1
	m := open(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	settled := func() map[string]int {
		t.Helper()
		if err := m.AwaitWarm(ctx); err != nil {
			t.Fatal(err)
		}
		return waiting(m)
	}
	run := func(job Job) bool {
		t.Helper()
		job.Order = &protocol.Order{SQL: map[Kind]string{KindWorker: "echo x", KindPython: "out = 1"}[job.Kind]}
		r, err := do(t, m, job)
		if err != nil || r.Answer == nil {
			t.Fatalf("%+v, %v", r.Report, err)
		}
		return r.Warm
	}
	python := "python " + in[0].Version
	if got := settled(); len(got) != 2 || got["worker"] != 1 || got[python] != 1 {
		t.Fatalf("before any use: %v", got)
	}
	a, b := Job{Kind: KindPython, Packages: t.TempDir()}, Job{Kind: KindPython, Packages: t.TempDir()}
	few := Job{Kind: KindWorker, Limits: Limits{Pids: 100, FileSize: 1 << 20}}
	for _, job := range []Job{a, b, few} {
		if run(job) {
			t.Error("warm at its first use")
		}
		settled()
		if !run(job) {
			t.Error("cold at its second use")
		}
	}
	// A budget for three: the worker, and the two that were used last.
	b.Order = &protocol.Order{}
	last, err := m.program(b)
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.cfg.WarmMemory = m.cost(program{kind: KindWorker})*2 + m.cost(last)*3/2
	m.signal()
	m.mu.Unlock()
	got := settled()
	if got["worker"] != 2 || got["python "+in[0].Version+" with "+filepath.Base(b.Packages)] != 1 || got[python] != 0 || got["python "+in[0].Version+" with "+filepath.Base(a.Packages)] != 0 {
		t.Errorf("with little memory: %v", got)
	}
	if run(a) { // and cold is always to be had
		t.Error("warm though its sandbox had to go")
	}
}

// A job on all processors is not disturbed by a refill until nothing waits any more.
func TestRefillLeavesProcessorsToJobs(t *testing.T) {
	cores := runtime.NumCPU()
	if cores < 2 {
		t.Skip("one processor is never both a job's and the refill's")
	}
	cfg := quiet(t)
	cfg.WarmWorkers = 2
	m := open(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sh := m.shapeOf(program{kind: KindWorker}, DefaultLimits)
	look := func() (waits, starting int, room bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.shelves[sh].boxes), m.starting, m.room(sh)
	}
	// during runs f while a job is in its sandbox, and has not got its inputs yet.
	during := func(cpus float64, f func()) {
		t.Helper()
		if err := m.AwaitWarm(ctx); err != nil {
			t.Fatal(err)
		}
		r, err := do(t, m, Job{Order: &protocol.Order{SQL: "echo x"}, Limits: Limits{CPUs: cpus}, Inputs: []Input{{Path: "x", Link: func(host string) error {
			f()
			return os.WriteFile(host, nil, 0o444)
		}}}})
		if err != nil || r.out() != "x" {
			t.Errorf("%+v, %v", r.Report, err)
		}
	}
	during(float64(cores), func() {
		if waits, starting, room := look(); waits != 1 || starting != 0 || room {
			t.Errorf("beside a job on all processors %d wait, %d start, room for more: %t", waits, starting, room)
		}
		m.retire(m.pop(sh))
		for waits := 0; waits == 0 && ctx.Err() == nil; waits, _, _ = look() {
			m.pause(time.Millisecond)
		}
		if ctx.Err() != nil {
			t.Error("nothing waits, and nothing is started")
		}
	})
	during(float64(cores)-1, func() {
		if _, starting, room := look(); starting == 0 && !room {
			t.Error("no room beside a job that leaves a processor")
		}
	})
}

func TestShelvesAreBounded(t *testing.T) {
	cfg := quiet(t)
	cfg.WarmWorkers = 1
	m := open(t, cfg)
	worker := program{kind: KindWorker}
	m.mu.Lock()
	m.cfg.WarmMemory = 1 // nothing is started
	m.mu.Unlock()
	for n := range 3 * maxShelves {
		m.note(m.shapeOf(worker, Limits{Pids: 1 + n}))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.shelves) != maxShelves || m.shelves[m.shapeOf(worker, DefaultLimits)] == nil || m.shelves[m.shapeOf(worker, Limits{Pids: 3 * maxShelves})] == nil {
		t.Errorf("%d shelves", len(m.shelves))
	}
	for _, s := range m.shelves {
		s.used = s.used.Add(-2 * idle)
	}
	m.next()
	if len(m.shelves) != 1 {
		t.Errorf("%d shelves after a long time without use", len(m.shelves))
	}
}

// The limits that are fixed at the start of a sandbox hold in a warm one too.
func TestWarmSandboxHasItsLimits(t *testing.T) {
	cfg := quiet(t)
	cfg.WarmWorkers = 1
	m := open(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, lim := range []Limits{{Pids: 40, FileSize: 3 << 20}, {Pids: 60, FileSize: 5 << 20}, {Pids: 40, FileSize: 3 << 20}} {
		if err := m.AwaitWarm(ctx); err != nil {
			t.Fatal(err)
		}
		r, err := do(t, m, Job{Order: &protocol.Order{SQL: "fork"}, Limits: lim})
		var children int
		if err != nil || r.Answer == nil {
			t.Fatalf("%+v, %v", r.Report, err)
		}
		// Each has several threads, which count.
		if _, err := fmt.Sscan(r.out(), &children); err != nil || children > lim.Pids || children < lim.Pids/8 {
			t.Errorf("limit of %d tasks: %d children", lim.Pids, children)
		}
		r, err = do(t, m, Job{Order: &protocol.Order{SQL: "disk 20"}, Limits: lim})
		if err != nil || r.Answer == nil || r.out() != fmt.Sprint(lim.FileSize>>20) || !strings.Contains(r.userError(), "file too large") {
			t.Errorf("limit of %d bytes: wrote %s MiB, %q, %v", lim.FileSize, r.out(), r.userError(), err)
		}
	}
}

// What a package does when it is imported ahead of time has a limit, too.
func TestWaitingSandboxHasLittleMemory(t *testing.T) {
	in := interpreters(t)[0]
	cfg := withPython(t, in)
	cfg.WarmPython = 1
	m := open(t, cfg)
	if m.rootless {
		t.Skip("without root, memory is limited by address space from the start")
	}
	packages := t.TempDir()
	greedy := fmt.Sprintf("held = b'x' * %d\n", bootMemory+100<<20)
	if err := os.WriteFile(filepath.Join(packages, "sitecustomize.py"), []byte(greedy), 0o444); err != nil {
		t.Fatal(err)
	}
	job := Job{Kind: KindPython, Packages: packages, Order: &protocol.Order{SQL: "import sitecustomize\nout = len(sitecustomize.held)"}}
	// The function's own limit is larger.
	if r, err := do(t, m, job); err != nil || r.Answer == nil || r.out() != fmt.Sprint(bootMemory+100<<20) {
		t.Fatalf("%+v, %v", r.Report, err)
	}
	prog, err := m.program(job)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		m.mu.Lock()
		s := m.shelves[m.shapeOf(prog, DefaultLimits)]
		failed, waits := !s.failed.IsZero(), len(s.boxes) > 0 && s.boxes[0].isReady()
		m.mu.Unlock()
		switch {
		case waits:
			t.Fatal("a sandbox waits with more memory than one may have")
		case failed:
			return
		case time.Now().After(deadline):
			t.Fatal("no sandbox was started ahead of time")
		}
	}
}

// BenchmarkWarm is the time from order to answer. BenchmarkCold adds the start.
func BenchmarkWarm(b *testing.B) {
	cfg := quiet(b)
	cfg.WarmWorkers = 1
	m := open(b, cfg)
	var start, total time.Duration
	for b.Loop() {
		if err := m.AwaitWarm(context.Background()); err != nil {
			b.Fatal(err)
		}
		r := must(b, m, "echo x")
		start, total = start+r.Start, total+r.Total
	}
	b.ReportMetric(float64(start.Microseconds())/float64(b.N)/1e3, "ms-start")
	b.ReportMetric(float64(total.Microseconds())/float64(b.N)/1e3, "ms-total")
}

func BenchmarkCold(b *testing.B) {
	m := open(b, quiet(b))
	var start, total time.Duration
	for b.Loop() {
		r := must(b, m, "echo x")
		start, total = start+r.Start, total+r.Total
	}
	b.ReportMetric(float64(start.Microseconds())/float64(b.N)/1e3, "ms-start")
	b.ReportMetric(float64(total.Microseconds())/float64(b.N)/1e3, "ms-total")
}
