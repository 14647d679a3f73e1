// Command bench measures what a user of the gate waits for: a push that makes
// every model run, and a push that changes nothing that a model reads. It drives
// the built server with the real git client, and takes the share of sandbox start
// from the run records.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 10, "pushes of each kind; the figures are medians")
	lake := flag.String("lake", "examples/flights", "the lake to publish")
	out := flag.String("json", "", "write the figures to this file too")
	think := flag.Duration("think", 5*time.Second, "idle time before each push, in which a user would read and edit; 0 pushes without a pause")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *lake, *rounds, *think, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// figure is the median of one kind of push; times are seconds.
type figure struct {
	Name      string  `json:"name"`
	Rounds    int     `json:"rounds"`
	Push      float64 `json:"push_s"`      // git push, from start to exit
	Slowest   float64 `json:"slowest_s"`   // of the rounds
	Run       float64 `json:"run_s"`       // the gate's run alone
	Start     float64 `json:"start_s"`     // sandbox starts, summed over functions that ran side by side
	Share     float64 `json:"start_share"` // Start as part of the functions' summed time
	Sandboxes float64 `json:"sandboxes"`   // used
	Warm      float64 `json:"warm"`        // of them taken from the pool
	Target    float64 `json:"target_s"`    // what Push is to stay under
	Met       bool    `json:"target_met"`
}

func run(ctx context.Context, lake string, rounds int, think time.Duration, out string) error {
	if rounds < 1 {
		return fmt.Errorf("-rounds %d: want at least 1", rounds)
	}
	w, err := newWorld(ctx, lake)
	if err != nil {
		return err
	}
	defer w.close()
	if _, err := w.push(ctx); err != nil { // the first push fills the caches of the machine
		return err
	}
	var all, none []sample
	for i := range rounds {
		if err := w.changeSource(ctx, i); err != nil {
			return err
		}
		pause(ctx, think)
		s, err := w.push(ctx)
		if err != nil {
			return err
		}
		if s.cached > 0 {
			return fmt.Errorf("round %d: %d models came from the cache, so this is not what is to be measured", i, s.cached)
		}
		all = append(all, s)
		if err := w.git(ctx, nil, "commit", "-q", "--allow-empty", "-m", fmt.Sprintf("Nothing %d", i)); err != nil {
			return err
		}
		pause(ctx, think)
		if s, err = w.push(ctx); err != nil {
			return err
		}
		if s.cached != s.models {
			return fmt.Errorf("round %d: %d of %d models ran in a push that changes nothing", i, s.models-s.cached, s.models)
		}
		none = append(none, s)
	}
	figures := []figure{summarize("every model runs", all, 3), summarize("nothing changed", none, 0.5)}
	fmt.Printf("%d rounds, %v before each push\n", rounds, think)
	fmt.Printf("%-18s %8s %9s %8s %15s %10s %8s\n", "push", "median", "slowest", "run", "sandbox start", "sandboxes", "target")
	for _, f := range figures {
		fmt.Printf("%-18s %6.2f s %7.2f s %6.2f s %6.2f s (%3.0f%%) %4.0f (%.0f warm) < %.1f s %v\n",
			f.Name, f.Push, f.Slowest, f.Run, f.Start, 100*f.Share, f.Sandboxes, f.Warm, f.Target, f.Met)
	}
	doc, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	fmt.Println(string(doc))
	if out != "" {
		return os.WriteFile(out, append(doc, '\n'), 0o644)
	}
	return nil
}

// pause is a user's think time, and part of what is measured: the server refills
// its pool of warm sandboxes in it.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func summarize(name string, samples []sample, target float64) figure {
	of := func(get func(sample) float64) []float64 {
		var v []float64
		for _, s := range samples {
			v = append(v, get(s))
		}
		slices.Sort(v)
		return v
	}
	median := func(v []float64) float64 { return (v[(len(v)-1)/2] + v[len(v)/2]) / 2 }
	push := of(func(s sample) float64 { return s.push })
	f := figure{
		Name: name, Rounds: len(samples), Push: median(push), Slowest: push[len(push)-1],
		Run:       median(of(func(s sample) float64 { return s.run })),
		Start:     median(of(func(s sample) float64 { return s.start })),
		Share:     median(of(func(s sample) float64 { return s.start / max(s.work, 1e-9) })),
		Sandboxes: median(of(func(s sample) float64 { return float64(s.sandboxes) })),
		Warm:      median(of(func(s sample) float64 { return float64(s.warm) })),
		Target:    target,
	}
	f.Met = f.Push < target
	return f
}
