package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/pyenv"
)

// packagesFlags say how long Python's packages are kept that no function uses.
type packagesFlags struct {
	KeepPackages time.Duration `help:"How long environments of Python packages are kept that no run uses; 0 keeps them. One that was removed is made again when a function needs it." name:"keep-packages" default:"720h" placeholder:"DURATION"`
	PackageSpace string        `help:"How much room packages take on disk at most: beyond it, what was used longest ago is removed, but nothing that was used within the last hour. 0 sets no limit." name:"package-space" default:"20GiB" placeholder:"SIZE"`
}

// defaultKeep is what the flags' defaults say.
var defaultKeep = pyenv.Keep{Age: 720 * time.Hour, Bytes: 20 << 30}

func (f *packagesFlags) keep() (pyenv.Keep, error) {
	keep := pyenv.Keep{Age: f.KeepPackages}
	if keep.Age < 0 {
		return keep, fmt.Errorf("--keep-packages %s: want a duration such as 720h, or 0", keep.Age)
	}
	if f.PackageSpace == "0" {
		return keep, nil
	}
	var err error
	if keep.Bytes, err = plan.ParseSize(f.PackageSpace); err != nil {
		return keep, fmt.Errorf("--package-space: %w", err)
	}
	return keep, nil
}

// collectEvery is how often a server looks for packages that nobody uses.
const collectEvery = time.Hour

// collectPackages removes packages that nobody uses, at once and then from time to
// time, beside the runs. It goes on until ctx ends or stop is called, which waits.
func collectPackages(ctx context.Context, store *pyenv.Store, keep pyenv.Keep, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		again := time.NewTicker(collectEvery)
		defer again.Stop()
		for {
			removed, err := store.Collect(ctx, keep)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				log.Error("cannot remove unused packages", "removed", removed, "err", err)
			case removed.Freed > 0 || removed.Locks > 0:
				log.Info("unused packages removed", "removed", removed)
			default:
				log.Debug("no unused packages", "kept", removed)
			}
			select {
			case <-again.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}
