package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/headgate/headgate/exec/protocol"
)

const workerName = "headgate-worker"

// workerFlag is the flag that commands share which start the worker.
type workerFlag struct {
	Worker string `help:"The headgate-worker program; by default the one beside this program, else on PATH." placeholder:"PATH" env:"HEADGATE_WORKER"`
}

// path returns the worker's path.
func (f workerFlag) path() (string, error) {
	if f.Worker != "" {
		return exec.LookPath(f.Worker)
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), workerName)
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath(workerName)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside this program nor on PATH; name it with --worker", workerName)
	}
	return path, nil
}

// localLimits bounds a worker that runs as the user's own process: their machine
// is theirs to fill, so only the answer, which is held in memory, is bounded.
var localLimits = protocol.ReadLimits{
	Files: 1 << 20, FileBytes: 1 << 50, TotalBytes: 1 << 50,
	AnswerBytes: protocol.DefaultReadLimits.AnswerBytes, Notes: protocol.DefaultReadLimits.Notes,
}

// runWorker runs one order in a worker process of the user's own. Nothing is
// sandboxed: it reads the user's files with the user's rights. An *protocol.UserError
// is the order's own failure.
func (f workerFlag) runWorker(ctx context.Context, order *protocol.Order, sink protocol.FileSink, note func(string)) (*protocol.Answer, error) {
	path, err := f.path()
	if err != nil {
		return nil, err
	}
	if order.TempDir == "" {
		tmp, err := os.MkdirTemp("", "headgate-worker-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(tmp)
		order.TempDir = tmp
	}
	if order.MemoryLimit == 0 {
		order.MemoryLimit = workerMemory()
	}
	if order.Threads == 0 {
		order.Threads = runtime.NumCPU()
	}
	return runOrder(ctx, exec.Command(path), workerName, order, sink, note)
}

// workerShare of the memory is DuckDB's; over that it goes on on disk. What it takes
// beside its own account, and the page cache, need the rest.
const workerShare = 0.4

// workerMemory is what DuckDB may use of the machine's memory, or of the cgroup's; 0,
// which leaves it to DuckDB, where that cannot be told.
func workerMemory() int64 {
	total, err := machineMemory(os.DirFS("/"))
	if err != nil {
		return 0
	}
	return int64(float64(total) * workerShare)
}

// runOrder gives an order to a program of the user's own and reads its answer.
func runOrder(ctx context.Context, program *exec.Cmd, name string, order *protocol.Order, sink protocol.FileSink, note func(string)) (*protocol.Answer, error) {
	doc, err := json.Marshal(order)
	if err != nil {
		return nil, fmt.Errorf("encode order: %w", err)
	}
	// Cancelled as soon as the output cannot be used, so that Wait does not wait
	// for a worker that writes into a pipe which nobody reads.
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(running, program.Path, program.Args[1:]...)
	cmd.Env, cmd.Dir = program.Env, program.Dir
	cmd.Stdin = bytes.NewReader(doc)
	var log tail
	cmd.Stderr = &log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if sink == nil {
		sink = func(string, int64, io.Reader) error { return nil }
	}
	if note == nil {
		note = func(string) {}
	}
	answer, readErr := protocol.Read(stdout, localLimits, sink, note)
	if readErr != nil && !errors.Is(readErr, protocol.ErrNoAnswer) { // else it has ended
		cancel()
	}
	waitErr := cmd.Wait()
	switch {
	case readErr != nil && errors.Is(readErr, protocol.ErrNoAnswer) && ctx.Err() == nil && wasKilled(cmd):
		return nil, fmt.Errorf("the system killed %s, most likely for want of memory: close other programs, or raise the limit", name)
	case readErr != nil && errors.Is(readErr, protocol.ErrNoAnswer):
		return nil, fmt.Errorf("%s ended without an answer (%v): %s", name, waitErr, log.text())
	case readErr != nil:
		return nil, readErr
	case answer.Error != nil:
		return nil, answer.Error
	case waitErr != nil:
		return nil, fmt.Errorf("%s: %w: %s", name, waitErr, log.text())
	}
	return answer, nil
}

// wasKilled reports whether a program that has ended was killed, and did not crash.
func wasKilled(cmd *exec.Cmd) bool {
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

const tailBytes = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b); n > tailBytes {
		t.b = append(t.b[:0], t.b[n-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) text() string {
	if s := strings.TrimSpace(string(t.b)); s != "" {
		return s
	}
	return "it said nothing"
}
