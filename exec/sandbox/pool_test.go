package sandbox

import (
	"context"
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
	b := m.pool[program{kind: KindWorker}][0]
	m.mu.Unlock()
	b.kill()
	<-b.exited
	r := must(t, m, "echo x")
	if r.Warm || r.out() != "x" {
		t.Errorf("%+v %q", r.Report, r.out())
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
