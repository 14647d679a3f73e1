package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/headgate/headgate/hooks/lake"
)

// keepFlags say how long what runs left behind is kept. serve and gc share them.
type keepFlags struct {
	KeepScratch time.Duration `help:"How long the state of the data of a run that published nothing is kept (refs/scratch); 0 keeps it." name:"keep-scratch" default:"720h" placeholder:"DURATION"`
	KeepRuns    time.Duration `help:"How long the record of a run that published nothing is kept (refs/runs); 0 keeps it. Those of runs that published are always kept." name:"keep-runs" default:"2160h" placeholder:"DURATION"`
}

func (f keepFlags) retention() (lake.Retention, error) {
	if f.KeepScratch < 0 || f.KeepRuns < 0 {
		return lake.Retention{}, usagef("durations cannot be negative; 0 keeps what runs left behind")
	}
	return lake.Retention{Scratch: f.KeepScratch, Runs: f.KeepRuns}, nil
}

// careFlags say how a server looks after its lakes.
type careFlags struct {
	GCEvery  time.Duration `help:"How often each lake is collected: objects that nothing leads to are removed, one lake at a time, while all are in use. 0 leaves it to lake gc." name:"gc-every" default:"24h" placeholder:"DURATION"`
	GCGrace  time.Duration `help:"Keep objects that came later than this ago." name:"gc-grace" default:"336h" placeholder:"DURATION"`
	GCReflog time.Duration `help:"Keep what a ref named later than this ago." name:"gc-reflog" default:"720h" placeholder:"DURATION"`
	keepFlags
}

func (f careFlags) care() (lake.Care, error) {
	keep, err := f.retention()
	if err == nil && (f.GCEvery < 0 || f.GCGrace < 0 || f.GCReflog < 0) {
		err = usagef("durations cannot be negative; --gc-every 0 collects nothing")
	}
	return lake.Care{Every: f.GCEvery, GC: lake.GCOptions{Grace: f.GCGrace, Reflog: f.GCReflog, Keep: keep}}, err
}

// lookAfter collects the lakes by the clock until stop is called, which waits for
// the collection under way to stop where it is.
func lookAfter(ctx context.Context, care lake.Care, lakes *lake.Directory, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	care.Log = log
	go func() {
		defer close(ended)
		care.Run(ctx, lakes)
	}()
	return func() {
		cancel()
		<-ended
	}
}
