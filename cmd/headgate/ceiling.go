package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/sandbox"
)

// functionLimits are the flags that say what a headgate.yaml or a function may ask
// for at most.
type functionLimits struct {
	MaxFunctionMemory   string        `help:"Most memory that a lake's policy or one function may ask for." default:"8GiB" placeholder:"SIZE"`
	MaxFunctionCPUs     float64       `help:"Most processors of one function; 0 is all." name:"max-function-cpus" default:"0" placeholder:"N"`
	MaxFunctionTimeout  time.Duration `help:"Longest time of one function." default:"1h" placeholder:"DURATION"`
	MaxFunctionOutput   string        `help:"Most output of one function." default:"16GiB" placeholder:"SIZE"`
	MaxFunctionFileSize string        `help:"Largest file that a function may write below its /tmp." default:"8GiB" placeholder:"SIZE"`
	MaxFunctionLog      string        `help:"Most that is kept of what one function writes to standard output and error." default:"1MiB" placeholder:"SIZE"`
	MaxFunctionPids     int           `help:"Most processes and threads of one function." default:"256" placeholder:"N"`
}

// Bounds of the flags themselves. A function's log is held in memory while it runs.
const (
	leastMemory = 64 << 20
	largestLog  = 256 << 20
	leastPids   = 64 // what the worker needs, with room
)

// ceiling is what the flags say. No function gets more than all together may have.
func (f *functionLimits) ceiling(b exec.Budget) (sandbox.Limits, error) {
	top := sandbox.Limits{CPUs: f.MaxFunctionCPUs, Timeout: f.MaxFunctionTimeout, Pids: f.MaxFunctionPids}
	for _, s := range []struct {
		flag  string
		text  string
		least int64
		to    *int64
	}{
		{"memory", f.MaxFunctionMemory, leastMemory, &top.Memory},
		{"output", f.MaxFunctionOutput, 1 << 20, &top.Output},
		{"file-size", f.MaxFunctionFileSize, 1 << 20, &top.FileSize},
		{"log", f.MaxFunctionLog, 1 << 10, &top.LogBytes},
	} {
		n, err := plan.ParseSize(s.text)
		if err == nil && n < s.least {
			err = fmt.Errorf("%s is less than %d bytes", s.text, s.least)
		}
		if err != nil {
			return top, fmt.Errorf("--max-function-%s: %w", s.flag, err)
		}
		*s.to = n
	}
	switch {
	case top.LogBytes > largestLog:
		return top, fmt.Errorf("--max-function-log: %s is more than 256MiB, and logs are held in memory", f.MaxFunctionLog)
	case !(top.CPUs >= 0 && top.CPUs <= 10_000):
		return top, fmt.Errorf("--max-function-cpus %g: want a number of processors such as 4 or 1.5", top.CPUs)
	case top.Timeout < time.Second || top.Timeout > plan.MaxTimeout:
		return top, fmt.Errorf("--max-function-timeout %s: want between 1s and %s", top.Timeout, plan.MaxTimeout)
	case top.Pids < leastPids:
		return top, fmt.Errorf("--max-function-pids %d: want at least %d", top.Pids, leastPids)
	}
	if top.CPUs == 0 {
		top.CPUs = float64(runtime.GOMAXPROCS(0))
	}
	top.CPUs, top.Memory = min(top.CPUs, b.CPUs), min(top.Memory, b.Memory)
	return top, nil
}

// defaultCeiling is that of a server without flags, on a machine that is large enough.
func defaultCeiling() sandbox.Limits {
	return sandbox.Limits{
		Memory: 8 << 30, Output: 16 << 30, LogBytes: 1 << 20, FileSize: 8 << 30,
		CPUs: float64(runtime.GOMAXPROCS(0)), Timeout: time.Hour, Pids: 256,
	}
}
