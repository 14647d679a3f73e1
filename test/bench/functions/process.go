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
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// outcome is what is told apart of a function's time.
type outcome struct {
	first time.Duration // to the first byte that it said: of its log, or of its output
	total time.Duration
}

// stopwatch notes when a function says something for the first time.
type stopwatch struct {
	once  sync.Once
	begin time.Time
	first time.Duration
}

func (w *stopwatch) lap() { w.once.Do(func() { w.first = time.Since(w.begin) }) }

// Write makes a stopwatch a log. What an interpreter says while it starts does not
// count.
func (w *stopwatch) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("first line")) {
		w.lap()
	}
	return len(p), nil
}

// inside runs a job in a sandbox.
func inside(ctx context.Context, m *sandbox.Manager, job sandbox.Job, warm bool) (outcome, *sandbox.Report, error) {
	w := &stopwatch{begin: time.Now()}
	job.Log = w
	job.Files = func(name string, size int64, r io.Reader) error {
		w.lap()
		return discard(name, size, r)
	}
	report, err := m.Run(ctx, job)
	total := time.Since(w.begin)
	switch {
	case err != nil:
		return outcome{}, nil, err
	case report.Answer == nil:
		return outcome{}, nil, fmt.Errorf("no answer: %+v", report)
	case report.Answer.Error != nil:
		return outcome{}, nil, report.Answer.Error
	case report.Warm != warm:
		return outcome{}, nil, fmt.Errorf("sandbox was warm: %t, want %t", report.Warm, warm)
	}
	w.lap() // a function that said nothing before its answer
	return outcome{w.first, total}, report, nil
}

// program is how a function runs outside of a sandbox.
type program struct {
	args []string
	env  []string
	dir  string
	wait bool // let it start first, as a warm sandbox has
}

// discard takes files that nobody wants.
func discard(_ string, _ int64, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// outside gives the order to a process of its own.
func outside(ctx context.Context, p program, order *protocol.Order, files protocol.FileSink) (outcome, error) {
	text, err := json.Marshal(order)
	if err != nil {
		return outcome{}, err
	}
	cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	if p.args[0] == "runsc" {
		cmd.Path, cmd.Err = p.dir+"/runsc", nil
	}
	cmd.Env, cmd.Dir = p.env, p.dir
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return outcome{}, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return outcome{}, err
	}
	w := &stopwatch{begin: time.Now()}
	var log bytes.Buffer
	cmd.Stderr = io.MultiWriter(w, &log)
	if err := cmd.Start(); err != nil {
		return outcome{}, err
	}
	if p.wait {
		if err := idle(cmd.Process.Pid); err != nil {
			return outcome{}, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		}
		w.begin = time.Now()
	}
	if _, err := stdin.Write(text); err != nil {
		return outcome{}, errors.Join(err, cmd.Wait())
	}
	if err := stdin.Close(); err != nil {
		return outcome{}, errors.Join(err, cmd.Wait())
	}
	limits := protocol.DefaultReadLimits
	limits.FileBytes, limits.TotalBytes = 1<<40, 1<<40
	answer, err := protocol.Read(lapReader{stdout, w}, limits, files, nil)
	total := time.Since(w.begin)
	if waitErr := cmd.Wait(); err == nil {
		err = waitErr
	}
	switch {
	case err != nil:
		return outcome{}, fmt.Errorf("%s: %w\n%s", p.args[0], err, log.Bytes())
	case answer.Error != nil:
		return outcome{}, answer.Error
	}
	return outcome{w.first, total}, nil
}

// idle returns when a process has used no processor time for a while: it waits for
// its order.
func idle(pid int) error {
	const while = 300 * time.Millisecond
	time.Sleep(while)
	deadline := time.Now().Add(time.Minute)
	for before, same := "", 0; same < 3; {
		time.Sleep(while / 3)
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return err
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		now := strings.Join(fields[11:13], " ") // utime and stime
		if same++; now != before || fields[0] != "S" {
			before, same = now, 0
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d does not come to rest", pid)
		}
	}
	return nil
}

type lapReader struct {
	io.Reader
	w *stopwatch
}

func (r lapReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.w.lap()
	}
	return n, err
}
