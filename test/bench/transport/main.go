// Command transport measures what git costs a client and the server: clones,
// pushes, refs, processor time and memory, side by side with stock git behind an
// SSH endpoint of the same library and ciphers, and with the client's own floor.
// Figures of one line come from one run, in turns, so that a load on the machine
// meets both sides.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
)

func main() {
	if len(os.Args) == 5 && os.Args[1] == stockWord {
		if err := serveStock(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, "stock:", err)
			os.Exit(1)
		}
		return
	}
	b := &bench{}
	size := flag.String("size", "256MiB", "of what is pushed and cloned")
	single := flag.String("single", "", "of the pushes under a memory limit; by default four times -size")
	flag.IntVar(&b.rounds, "rounds", 3, "turns of each measurement; figures are the best, since noise only adds")
	flag.StringVar(&b.cache, "cache", ".cache/bench", "where everything is kept during the run; it should be on a disk")
	flag.StringVar(&b.bin, "bin", "bin", "directory of headgate and headgate-worker")
	flag.IntVar(&b.crowd, "crowd", 8, "clones, and as many pushes, at once")
	flag.IntVar(&b.refs, "refs", 100_000, "refs of the lake that is listed")
	flag.BoolVar(&b.slow, "default", false, "measure the stock server and client with their defaults too: minutes for each GiB")
	only := flag.String("only", "", "measure only what has one of these words, separated by commas, in its name")
	out := flag.String("json", "", "write the figures to this file too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := b.sizes(*size, *single)
	if err == nil {
		err = b.run(ctx, *only, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// figure is one line of the table.
type figure struct {
	Name    string  `json:"name"`
	Ours    float64 `json:"headgate"` // in Unit
	Other   float64 `json:"other"`    // what it is held against, in Unit; 0 if nothing
	Than    string  `json:"than"`     // what Other is
	Unit    string  `json:"unit"`
	Value   float64 `json:"value"` // what the target is for
	Of      string  `json:"of"`    // what Value is: "ratio" (Ours/Other), "speedup" (Other/Ours), "value" (Ours)
	Target  float64 `json:"target"`
	AtLeast bool    `json:"at_least"` // the target is a lower bound
	Met     bool    `json:"target_met"`
	Detail  string  `json:"detail,omitempty"`
}

// untargeted is the target of lines that are there to compare.
const untargeted = 0

type bench struct {
	rounds, crowd, refs int
	size, single        int64 // bytes
	slow                bool
	cache, bin          string
	figures             []figure
}

const mib = 1 << 20

// sizes reads the flags that are sizes.
func (b *bench) sizes(size, single string) (err error) {
	if b.size, err = parseSize(size); err != nil {
		return err
	}
	b.single = 4 * b.size
	if single != "" {
		b.single, err = parseSize(single)
	}
	return err
}

func parseSize(text string) (int64, error) {
	var n int64
	var unit string
	if _, err := fmt.Sscanf(text, "%d%s", &n, &unit); err == nil && n > 0 {
		switch unit {
		case "MiB":
			return n * mib, nil
		case "GiB":
			return n << 30, nil
		}
	}
	return 0, fmt.Errorf("%q is no size such as 256MiB or 1GiB", text)
}

// gib is how many GiB are pushed and cloned.
func (b *bench) gib() float64 { return float64(b.size) / (1 << 30) }

func (b *bench) run(ctx context.Context, only, out string) error {
	w, err := newWorld(ctx, b)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.startStock(ctx); err != nil {
		return err
	}
	for _, m := range []struct {
		name    string
		measure func(context.Context, *world) error
	}{
		{"push clone", b.large},
		{"parts", b.small},
		{"crowd", b.manyAtOnce},
		{"single", b.underLimit},
		{"ls-refs", b.listRefs},
		{"apply", b.applyRefs},
		{"pushes", b.smallPushes},
	} {
		wanted := only == ""
		for _, word := range strings.Split(only, ",") {
			wanted = wanted || word != "" && strings.Contains(m.name, word)
		}
		if !wanted {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s ...\n", m.name)
		if err := m.measure(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%.2f GiB, %d rounds, load %s", b.gib(), b.rounds, load)
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

// add records a figure and whether it meets its target.
func (b *bench) add(f figure) {
	switch f.Of {
	case "ratio":
		f.Value = f.Ours / f.Other
	case "speedup":
		f.Value = f.Other / f.Ours
	default:
		f.Value = f.Ours
	}
	f.Met = f.Target == untargeted || f.Value <= f.Target
	if f.AtLeast {
		f.Met = f.Value >= f.Target
	}
	b.figures = append(b.figures, f)
}

func (b *bench) print() {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\theadgate\tother\tthan\tvalue\ttarget\t\t")
	for _, f := range b.figures {
		other, unit, sign, target, verdict := "-", " "+f.Unit, "<=", "-", ""
		if f.Other != 0 {
			other = fmt.Sprintf("%.4g %s", f.Other, f.Unit)
		}
		if f.Of != "value" {
			unit = "x"
		}
		if f.AtLeast {
			sign = ">="
		}
		if f.Target != untargeted {
			target, verdict = fmt.Sprintf("%s %g%s", sign, f.Target, unit), "met"
			if !f.Met {
				verdict = "MISSED"
			}
		}
		fmt.Fprintf(t, "%s\t%.4g %s\t%s\t%s\t%.4g%s\t%s\t%s\t%s\n", f.Name, f.Ours, f.Unit, other, f.Than, f.Value, unit, target, verdict, f.Detail)
	}
	_ = t.Flush() // standard output: nobody to tell
}
