// Package sandbox runs one program, once, in a gVisor sandbox of its own: no
// network, nothing of the host but its read-only inputs, and bounded memory,
// processors, tasks, time, disk, output and log. The only ways out are the pipes
// of standard output (frames, see package protocol) and standard error (a log).
// Warm sandboxes, started ahead and waiting for their order, hide what a start
// costs. It does not know what a program computes, nor what its failure means.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/exec/protocol"
)

// Kind says which program a sandbox holds.
type Kind string

// The two programs: the static DuckDB worker, and a Python interpreter that runs
// the SDK's harness.
const (
	KindWorker Kind = "worker"
	KindPython Kind = "python"
)

// Config says where sandboxes live and what is in them.
type Config struct {
	// Dir holds all state. It must be on the file system of the object store, so
	// that inputs are hard-linked. One Manager at a time owns it.
	Dir string
	// Runsc is the program that is gVisor's command line when its argv[0] is
	// "runsc" (see package runsc). Default: this process's own executable.
	Runsc string
	// Worker is the static headgate-worker binary.
	Worker string
	// PythonSDK is the directory whose package headgate._sandbox is the harness.
	// Required if there are Interpreters.
	PythonSDK string
	// Interpreters are what KindPython can run in; the first is the default.
	Interpreters []Interpreter
	// WarmWorkers and WarmPython are how many sandboxes wait for an order at most:
	// workers, and of Python for each version and environment in use. Zero means the
	// default of 12 and 2, a negative number none.
	WarmWorkers, WarmPython int
	// WarmMemory is how many bytes all that wait may hold together; what was used
	// last comes first. Default: a sixteenth of the machine's, at least 512 MiB.
	WarmMemory int64
	// Scratch is the size limit of a sandbox's /tmp, in bytes. It lies on the disk
	// of Dir, not in memory, so that DuckDB can spill. Default 8 GiB.
	Scratch int64
	Logger  *slog.Logger
}

const (
	defaultWarmWorkers = 12 // what a run of a dozen functions takes; 20 to 60 MB each
	defaultWarmPython  = 2
	leastWarmMemory    = 512 << 20
	defaultScratch     = 8 << 30
)

// Limits bound one job. Zero fields take the value of DefaultLimits.
type Limits struct {
	Memory   int64         // bytes of the program: its heap, its tmpfs and page cache of /tmp
	Output   int64         // bytes of all output files together
	FileSize int64         // bytes of one file below /tmp; at most, and by default, Config.Scratch
	LogBytes int64         // bytes kept of standard error
	CPUs     float64       // processors
	Timeout  time.Duration // from the order to the end of the program
	Pids     int           // tasks (threads count) inside
}

// DefaultLimits are those of a function that declares nothing.
var DefaultLimits = Limits{
	Memory:   2 << 30,
	Output:   2 << 30,
	LogBytes: 1 << 20,
	CPUs:     1,
	Timeout:  10 * time.Minute,
	Pids:     256,
}

func (l Limits) withDefaults() Limits {
	set := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.Memory, DefaultLimits.Memory)
	set(&l.Output, DefaultLimits.Output)
	set(&l.LogBytes, DefaultLimits.LogBytes)
	if l.CPUs <= 0 {
		l.CPUs = DefaultLimits.CPUs
	}
	if l.Timeout <= 0 {
		l.Timeout = DefaultLimits.Timeout
	}
	if l.Pids <= 0 {
		l.Pids = DefaultLimits.Pids
	}
	return l
}

// Input is one read-only file.
type Input struct {
	// Path is where the program finds it, below /in: "3/0.parquet".
	Path string
	// Link places the file at hostPath, which does not exist but whose directory
	// does. The file must be readable by everybody: the program is nobody inside.
	Link func(hostPath string) error
}

// Job is one order to one program.
type Job struct {
	Kind   Kind
	Python string // version of the interpreter, for KindPython; "" is the default one
	// Packages is a host directory with an environment's packages, seen read-only
	// at /env, for KindPython: all that the interpreter has then is these and its
	// standard library. It must not change, and be there until the job ends; what is at
	// the same path later may be another directory. "" leaves the interpreter the
	// packages of its own.
	Packages string
	Inputs   []Input
	Order    *protocol.Order
	Limits   Limits
	Files    protocol.FileSink // takes the output files as they come; nil refuses them
	Note     func(string)      // takes progress lines; nil drops them
	Log      io.Writer         // takes standard error, at most Limits.LogBytes and a mark; nil drops it
}

// Report is what a program did. Every failure of the program is here, and none
// of the infrastructure.
type Report struct {
	Answer         *protocol.Answer // nil if it ended without one
	Malformed      error            // why its output is not an answer: *protocol.FormatError, *protocol.LimitError, ErrNoAnswer
	Start          time.Duration    // until the program had its order
	Total          time.Duration
	Warm           bool
	Unready        bool        // its packages ended it, or held it up, before it read its order: it was not called
	Violations     []Violation // from the interpreter's start on
	ExitCode       int         // -1 if it was killed
	OOM            bool
	TimedOut       bool
	OutputExceeded bool
	PeakMemory     int64 // bytes, the sandbox's own 20 MB included; 0 if not known
}

// ErrClosed is what Run returns once Close was called.
var ErrClosed = errors.New("the sandboxes are shut down")

// Manager starts sandboxes. It is safe for concurrent use; how many jobs run at
// a time is its callers' choice.
type Manager struct {
	cfg      Config
	log      *slog.Logger
	lock     *os.File
	rootless bool
	cgroups  *cgroups // nil if rootless
	spawn    *spawner
	programs map[program]*image
	bare     map[string]*image // by version of the interpreter: for packages of a job's own
	patience time.Duration     // startTimeout, but in tests

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // everything that Close awaits: teardowns and the refill

	mu       sync.Mutex
	closed   bool
	active   int // jobs running
	busy     int // thousandths of processors that these may use
	starting int // sandboxes for the pool
	shelves  map[shape]*shelf
	costs    map[program]int64 // bytes that a waiting sandbox was measured to hold
	changed  chan struct{}     // signals refill and waiters; closed and replaced on each change
}

// program is what a sandbox was started for.
type program struct {
	kind     Kind
	python   string
	packages string
	// inode is that of packages. A sandbox that waits holds the directory that it was
	// started with open, so that no other has its number: one that was removed and made
	// again is another program.
	inode uint64
}

func (p program) String() string {
	switch {
	case p.kind != KindPython:
		return string(p.kind)
	case p.packages != "":
		return "python " + p.python + " with " + filepath.Base(p.packages)
	}
	return "python " + p.python
}

// New takes over cfg.Dir, sweeps what a killed server left there, and proves by
// running one that sandboxes work. Its error says what this machine lacks: there
// is no way to run without a sandbox. ctx bounds New only.
func New(ctx context.Context, cfg Config) (_ *Manager, err error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	m := &Manager{cfg: cfg, log: cfg.Logger, rootless: os.Geteuid() != 0, patience: startTimeout, changed: make(chan struct{})}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("sandbox: %w", err), m.Close())
		}
	}()
	if m.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if m.rootless {
		if err := checkRootless(); err != nil {
			return nil, err
		}
	} else if m.cgroups, err = openCgroups(groupName(cfg.Dir)); err != nil {
		return nil, err
	}
	if err := m.sweep(); err != nil {
		return nil, err
	}
	m.spawn = newSpawner()
	m.stock()
	if err := m.buildImages(); err != nil {
		return nil, err
	}
	if err := m.selfTest(ctx); err != nil {
		return nil, fmt.Errorf("self-test: %w", err)
	}
	m.wg.Add(1)
	go m.refill()
	return m, nil
}

func (c *Config) complete() error {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Runsc == "" {
		c.Runsc = "/proc/self/exe"
	}
	if c.Dir == "" {
		return errors.New("no state directory is configured")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	if strings.Contains(dir, ",") {
		return fmt.Errorf("state directory %q: gVisor cannot work below a name with a comma", dir)
	}
	c.Dir = dir
	if c.Worker == "" {
		return errors.New("no headgate-worker binary is configured")
	}
	if len(c.Interpreters) > 0 && c.PythonSDK == "" {
		return errors.New("interpreters of Python are configured, but no directory of its SDK")
	}
	defaults := func(n *int, d int) {
		switch {
		case *n == 0:
			*n = d
		case *n < 0:
			*n = 0
		}
	}
	defaults(&c.WarmWorkers, defaultWarmWorkers)
	defaults(&c.WarmPython, defaultWarmPython)
	if c.WarmMemory <= 0 {
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			return fmt.Errorf("size of memory: %w", err)
		}
		c.WarmMemory = max(leastWarmMemory, int64(info.Totalram)*int64(info.Unit)/16)
	}
	if c.Scratch <= 0 {
		c.Scratch = defaultScratch
	}
	return nil
}

// Close kills every sandbox and waits until nothing of them is left but the
// reusable directories. Jobs that are running fail with ErrClosed.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	for sh := range m.shelves {
		m.drop(sh)
	}
	m.mu.Unlock()
	m.cancel()
	m.wg.Wait()
	if m.spawn != nil {
		m.spawn.close()
	}
	var errs []error
	if m.lock != nil {
		errs = append(errs, m.sweepFiles())
	}
	if m.cgroups != nil {
		errs = append(errs, m.cgroups.remove())
	}
	if m.lock != nil {
		errs = append(errs, m.lock.Close())
	}
	return errors.Join(errs...)
}

// selfTest runs the smallest order in a new sandbox. It goes all the way: gVisor,
// cgroups, the trace of violations, the worker and its answer.
func (m *Manager) selfTest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var stderr logBuffer
	report, err := m.Run(ctx, Job{
		Kind:   KindWorker,
		Order:  &protocol.Order{Op: protocol.OpTables, Queries: []protocol.Query{{Name: "self-test", SQL: "SELECT 1"}}},
		Limits: Limits{Timeout: startTimeout},
		Log:    &stderr,
	})
	switch {
	case err != nil:
		return err
	case report.Answer == nil:
		return fmt.Errorf("worker ended without an answer (exit code %d, out of memory %t): %v%s", report.ExitCode, report.OOM, report.Malformed, stderr.quoted())
	case report.Answer.Error != nil:
		return fmt.Errorf("worker could not answer: %w", report.Answer.Error)
	}
	m.log.Info("sandboxes work", "rootless", m.rootless, "start", report.Start, "total", report.Total, "peak_memory", report.PeakMemory)
	return nil
}
