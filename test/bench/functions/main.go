// Command functions measures what a sandbox costs a function, against the same
// program outside of one and in the same run: starts, throughput, the TPC-H-like
// queries of tpch.go, and inputs of a gigabyte. It uses the server's own sandboxes,
// worker and Python package.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/headgate/headgate/exec/sandbox"
)

func main() {
	b := &bench{}
	flag.IntVar(&b.rounds, "rounds", 15, "repetitions of each start; the figures are medians")
	flag.Float64Var(&b.scale, "scale", 1, "size of the TPC-H-like data: 1 is 1 GB")
	flag.StringVar(&b.cache, "cache", ".cache/bench", "where data is kept between runs, and where sandboxes live")
	flag.StringVar(&b.bin, "bin", "bin", "directory of headgate and headgate-worker")
	only := flag.String("only", "", "measure only what has one of these words, separated by commas, in its name")
	out := flag.String("json", "", "write the figures to this file too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// figure is one line of the table.
type figure struct {
	Name    string  `json:"name"`
	Inside  float64 `json:"inside"`  // in a sandbox, in Unit
	Outside float64 `json:"outside"` // what it is held against; 0 if nothing
	Unit    string  `json:"unit"`
	Value   float64 `json:"value"` // what the target is for
	Of      string  `json:"of"`    // what Value is: "difference", "ratio", "value", "rate" (a second)
	Target  float64 `json:"target"`
	AtLeast bool    `json:"at_least"` // the target is a lower bound
	Met     bool    `json:"target_met"`
	Detail  string  `json:"detail,omitempty"`
}

type bench struct {
	rounds                 int
	scale                  float64
	cache, bin             string
	runsc, worker, library string // absolute paths
	interpreter            sandbox.Interpreter
	figures                []figure
}

func (b *bench) run(ctx context.Context, only, out string) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	for _, m := range []struct {
		name    string
		measure func(context.Context) error
	}{
		{"warm start", b.warmStart},
		{"cold start", b.coldStart},
		{"environment", b.environment},
		{"input of 1 GB", b.largeInput},
		{"200 functions", b.throughput},
		{"queries", b.queries},
	} {
		wanted := only == ""
		for _, word := range strings.Split(only, ",") {
			wanted = wanted || word != "" && strings.Contains(m.name, word)
		}
		if !wanted {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s ...\n", m.name)
		if err := m.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	b.print()
	if out == "" {
		return nil
	}
	text, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(text, '\n'), 0o644)
}

// prepare finds the programs.
func (b *bench) prepare(ctx context.Context) error {
	for path, at := range map[*string]string{
		&b.runsc: filepath.Join(b.bin, "headgate"), &b.worker: filepath.Join(b.bin, "headgate-worker"),
		&b.library: filepath.Join("sdk", "python"), &b.cache: b.cache,
	} {
		abs, err := filepath.Abs(at)
		if err != nil {
			return err
		}
		*path = abs
	}
	for _, path := range []string{b.runsc, b.worker, b.library} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w; run: make bench-functions", err)
		}
	}
	python := os.Getenv("HEADGATE_PYTHON")
	if python == "" {
		return errors.New("HEADGATE_PYTHON is not set; run: make bench-functions")
	}
	found, err := sandbox.Discover(ctx, []string{python})
	if err != nil {
		return err
	}
	b.interpreter = found[0]
	return os.MkdirAll(b.cache, 0o755)
}

// open starts sandboxes below the cache, so that data of the cache is linked into
// them. Each use has a directory of its own.
func (b *bench) open(ctx context.Context, workers, pythons int) (*sandbox.Manager, string, error) {
	dir, err := os.MkdirTemp(b.cache, "sandbox-")
	if err != nil {
		return nil, "", err
	}
	none := func(n int) int {
		if n == 0 {
			return -1
		}
		return n
	}
	m, err := sandbox.New(ctx, sandbox.Config{
		Dir: dir, Runsc: b.runsc, Worker: b.worker, PythonSDK: b.library, Interpreters: []sandbox.Interpreter{b.interpreter},
		WarmWorkers: none(workers), WarmPython: none(pythons),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return nil, "", errors.Join(err, os.RemoveAll(dir))
	}
	return m, dir, nil
}

// add records a figure and whether it meets its target.
func (b *bench) add(f figure) {
	f.Met = f.Value <= f.Target
	if f.AtLeast {
		f.Met = f.Value >= f.Target
	}
	b.figures = append(b.figures, f)
}

func (b *bench) print() {
	fmt.Printf("%-48s %11s %11s %11s %12s\n", "", "inside", "outside", "value", "target")
	for _, f := range b.figures {
		outside := "-"
		if f.Outside != 0 {
			outside = fmt.Sprintf("%.1f %s", f.Outside, f.Unit)
		}
		unit, sign := " "+f.Unit, "<="
		switch f.Of {
		case "ratio":
			unit = "x"
		case "rate":
			unit = "/s"
		}
		if f.AtLeast {
			sign = ">="
		}
		verdict := "met"
		if !f.Met {
			verdict = "MISSED"
		}
		fmt.Printf("%-48s %11s %11s %11s %12s  %s  %s\n", f.Name, fmt.Sprintf("%.1f %s", f.Inside, f.Unit), outside,
			fmt.Sprintf("%.2f%s", f.Value, unit), fmt.Sprintf("%s %g%s", sign, f.Target, unit), verdict, f.Detail)
	}
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Clone(times)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
