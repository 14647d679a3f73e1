package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/exec/protocol"
)

// throughput runs 200 short functions, one after the other on each processor, and
// watches what the server and its sandboxes hold.
func (b *bench) throughput(ctx context.Context) error {
	const functions = 200
	m, state, err := b.open(ctx, 12, 0)
	if err != nil {
		return err
	}
	defer func() { _, _ = m.Close(), os.RemoveAll(state) }()
	if err := m.AwaitWarm(ctx); err != nil {
		return err
	}
	var (
		mu    sync.Mutex
		done  int
		warm  int
		times []time.Duration
		peak  [4]int64 // of memory, in each quarter
	)
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for watching.Err() == nil {
			held := memoryOf(state)
			mu.Lock()
			quarter := min(3, done*4/functions)
			peak[quarter] = max(peak[quarter], held)
			mu.Unlock()
			select {
			case <-tick.C:
			case <-watching.Done():
			}
		}
	})
	begin := time.Now()
	var all errgroup.Group
	all.SetLimit(runtime.NumCPU())
	for range functions {
		all.Go(func() error {
			job := smallSQL()
			job.Files = discard
			start := time.Now()
			report, err := m.Run(ctx, job)
			if err != nil {
				return err
			}
			if report.Answer == nil {
				return fmt.Errorf("no answer: %+v", report)
			}
			mu.Lock()
			defer mu.Unlock()
			done++
			times = append(times, time.Since(start))
			if report.Warm {
				warm++
			}
			return nil
		})
	}
	err = all.Wait()
	wall := time.Since(begin)
	stop()
	watch.Wait()
	if err != nil {
		return err
	}
	slices.Sort(times)
	b.add(figure{
		Name: fmt.Sprintf("%d short functions on %d processors", functions, runtime.NumCPU()), Inside: ms(wall), Unit: "ms",
		Value: functions / wall.Seconds(), Of: "rate", Target: 10, AtLeast: true,
		Detail: fmt.Sprintf("median %.0f ms, 95%% %.0f ms, %d warm", ms(times[len(times)/2]), ms(times[len(times)*95/100]), warm),
	})
	// The first quarter has the full pool, so it may hold more than the last.
	b.add(figure{
		Name: "  memory of server and sandboxes, last quarter", Inside: mib(peak[3]), Outside: mib(max(peak[0], peak[1])), Unit: "MiB",
		Value: mib(peak[3]) / mib(max(peak[0], peak[1])), Of: "ratio", Target: 1.1,
		Detail: fmt.Sprintf("peaks of the quarters: %.0f, %.0f, %.0f, %.0f MiB", mib(peak[0]), mib(peak[1]), mib(peak[2]), mib(peak[3])),
	})
	return nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// memoryOf is what this process, and all whose command line speaks of dir, hold:
// their private pages and their part of shared ones.
func memoryOf(dir string) int64 {
	var sum int64
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		line, err := os.ReadFile(filepath.Join(p, "cmdline"))
		if err != nil || filepath.Base(p) != strconv.Itoa(os.Getpid()) && !strings.Contains(string(line), dir) {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join(p, "smaps_rollup"))
		if err != nil {
			continue // it has gone
		}
		for _, l := range strings.Split(string(rollup), "\n") {
			if f := strings.Fields(l); len(f) == 3 && f[0] == "Pss:" {
				n, _ := strconv.ParseInt(f[1], 10, 64)
				sum += n << 10
			}
		}
	}
	return sum
}

// largeInput gives a gigabyte of parts to a function.
func (b *bench) largeInput(ctx context.Context) error {
	const parts, size = 64, 16 << 20
	dir := filepath.Join(b.cache, "gigabyte")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	job := smallSQL()
	table := protocol.Table{Name: "big", Columns: []protocol.Column{{Name: "n", Type: "BIGINT", Nullable: true}}}
	for i := range parts {
		file := filepath.Join(dir, fmt.Sprintf("%02d.parquet", i))
		if info, err := os.Stat(file); err != nil || info.Size() < size {
			if err := errors.Join(os.RemoveAll(file), b.makeParquet(ctx, fmt.Sprintf("SELECT CAST(hash(range, %d) >> 1 AS BIGINT) AS n FROM range(%d)", i, size/8+size/64), file)); err != nil {
				return err
			}
		}
		name := filepath.Join("big", filepath.Base(file))
		job.Inputs = append(job.Inputs, link(name, file))
		table.Files = append(table.Files, filepath.Join("/in", name))
	}
	job.Order.Inputs = []protocol.Table{table}
	job.Order.SQL = "SELECT 42 AS answer"
	m, state, err := b.open(ctx, 1, 0)
	if err != nil {
		return err
	}
	defer func() { _, _ = m.Close(), os.RemoveAll(state) }()
	var with, without, first []time.Duration
	for range b.rounds {
		for _, j := range []*[]time.Duration{&with, &without} {
			if err := m.AwaitWarm(ctx); err != nil {
				return err
			}
			one := job
			if j == &without {
				one = smallSQL()
			}
			o, report, err := inside(ctx, m, one, true)
			if err != nil {
				return err
			}
			*j = append(*j, report.Start)
			if j == &with {
				first = append(first, o.first)
			}
		}
	}
	b.add(figure{
		Name: "input of 1 GB: until the function starts", Inside: ms(median(with)), Outside: ms(median(without)), Unit: "ms",
		Value: ms(median(with)), Of: "value", Target: 50, Detail: fmt.Sprintf("%d parts; outside: without input; first output after %.0f ms", parts, ms(median(first))),
	})
	return nil
}
