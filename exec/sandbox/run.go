package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/exec/protocol"
)

// Run gives job to a sandbox of its own, warm if one waits, and returns when the
// program has ended. Everything that the program does wrong is in the report. An
// error means that the job could not run, or that it cannot be told what the
// program did: staging failed, gVisor crashed, the trace of violations has gaps,
// the file sink failed, ctx ended. Nothing that the program wrote may be used then.
func (m *Manager) Run(ctx context.Context, job Job) (*Report, error) {
	begin := time.Now()
	lim := job.Limits.withDefaults()
	prog, err := m.program(job)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(job.Order)
	if err != nil {
		return nil, fmt.Errorf("encode order: %w", err)
	}
	if err := m.begin(lim.CPUs); err != nil {
		return nil, err
	}
	defer m.end(lim.CPUs)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(m.ctx, func() { cancel(ErrClosed) })()

	b, warm, err := m.take(m.shapeOf(prog, lim))
	if err != nil {
		return nil, err
	}
	defer m.retire(b)
	defer b.log.detach()
	defer context.AfterFunc(ctx, b.kill)()

	if err := b.group.setWeight(weightJob); err != nil {
		return nil, err
	}
	if err := b.group.limit(lim); err != nil {
		return nil, err
	}
	if err := stage(m.inDir(b), job.Inputs); err != nil {
		return nil, err
	}
	r := &running{box: b, lim: lim, report: &Report{Warm: warm}}
	if err := b.await(ctx); err != nil {
		// Without packages of the job's own, what runs until then is the operator's.
		if prog.packages == "" || ctx.Err() != nil || !r.unready(err) {
			return nil, err
		}
	}
	b.log.attach(job.Log, lim.LogBytes)
	if !r.report.Unready {
		timer := time.AfterFunc(lim.Timeout, func() {
			r.late.Store(true)
			b.kill()
		})
		defer timer.Stop()
		b.order(text)
	}
	r.report.Start = time.Since(begin)
	if err := r.read(job.Files, job.Note); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	if r.report.Answer == nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	r.report.Total = time.Since(begin)
	return r.report, nil
}

func (m *Manager) program(job Job) (program, error) {
	switch {
	case job.Order == nil:
		return program{}, errors.New("job without an order")
	case job.Kind == KindWorker && job.Packages != "":
		return program{}, errors.New("packages are for Python")
	case job.Kind == KindWorker:
		return program{kind: KindWorker}, nil
	case job.Kind != KindPython:
		return program{}, fmt.Errorf("unknown kind of sandbox %q", job.Kind)
	case len(m.cfg.Interpreters) == 0:
		return program{}, errors.New("this server has no Python interpreter")
	}
	version := job.Python
	if version == "" {
		version = m.cfg.Interpreters[0].Version
	}
	p := program{kind: KindPython, python: version}
	if m.programs[p] == nil {
		return program{}, fmt.Errorf("this server has no Python %q", version)
	}
	if job.Packages == "" {
		return p, nil
	}
	if !filepath.IsAbs(job.Packages) {
		return program{}, fmt.Errorf("packages in %q: not an absolute path", job.Packages)
	}
	var st unix.Stat_t
	if err := unix.Stat(job.Packages, &st); err != nil {
		return program{}, fmt.Errorf("packages in %q: %w", job.Packages, err)
	} else if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return program{}, fmt.Errorf("packages in %q: not a directory", job.Packages)
	}
	p.packages, p.inode = filepath.Clean(job.Packages), st.Ino
	return p, nil
}

// errLate is why a program that lives does not get its order.
var errLate = errors.New("it did not ask for its order in time")

// await returns when the program reads its order.
func (b *box) await(ctx context.Context) error {
	if b.isReady() {
		return nil
	}
	timer := time.NewTimer(b.patience)
	defer timer.Stop()
	select {
	case <-b.ready:
		return nil
	case <-b.exited:
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return b.died()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		b.kill()
		<-b.exited
		return fmt.Errorf("a %s sandbox was not ready after %s: %w%s", b.shape, b.patience, errLate, b.log.quoted())
	}
}

// running is a box with its order.
type running struct {
	box    *box
	lim    Limits
	report *Report
	late   atomic.Bool
}

// unready reports whether the program ended, or was ended by err, before it read
// its order, rather than the sandbox around it. Packages run when an interpreter
// starts, and what they do then is the doing of the function that declares them.
func (r *running) unready(err error) bool {
	b := r.box
	<-b.exited
	<-b.trace.done
	_, _, exited, _ := b.trace.verdict()
	late := errors.Is(err, errLate)
	r.late.Store(late)
	r.report.Unready = exited || late || b.group.oomKills() > 0
	return r.report.Unready
}

// read takes the program's whole output and fills in the report.
func (r *running) read(files protocol.FileSink, note func(string)) error {
	b := r.box
	var sinkErr error
	sink := files
	if files != nil {
		sink = func(name string, size int64, body io.Reader) error {
			err := files(name, size, body)
			var format *protocol.FormatError
			if err != nil && !errors.Is(err, protocol.ErrNoAnswer) && !errors.As(err, &format) {
				sinkErr = err
			}
			return err
		}
	}
	limits := protocol.DefaultReadLimits
	limits.FileBytes, limits.TotalBytes = r.lim.Output, r.lim.Output
	answer, err := protocol.Read(b.stdout, limits, sink, note)
	if r.report.Unready {
		answer, err = nil, protocol.ErrNoAnswer // nothing was asked
	}
	killed := false
	if err != nil {
		// Whatever it is, the program has nothing more to say.
		killed = !b.hasExited()
		b.kill()
	}
	if answer == nil || !b.trace.hasEnded() {
		// All events, and the reason of the end, are there when the processes
		// have gone. An answer with a clean end needs no such wait.
		<-b.exited
		<-b.trace.done
	}
	<-b.logged

	var over *protocol.LimitError
	rep := r.report
	violations, status, exited, traceErr := b.trace.verdict()
	rep.Answer, rep.Malformed, rep.Violations = answer, err, violations
	rep.OOM = answer == nil && b.group.oomKills() > 0
	rep.TimedOut = answer == nil && r.late.Load()
	rep.OutputExceeded = errors.As(err, &over)
	rep.PeakMemory = b.group.peakMemory()
	rep.ExitCode = -1
	if exited && status.Exited() {
		rep.ExitCode = status.ExitStatus()
	}
	switch {
	case sinkErr != nil:
		return fmt.Errorf("take output: %w", sinkErr)
	case traceErr != nil:
		return fmt.Errorf("cannot tell what the program did: %w", traceErr)
	case exited, rep.OOM, rep.TimedOut, rep.OutputExceeded:
		return nil
	case err != nil && killed && !errors.Is(err, protocol.ErrNoAnswer):
		return nil // malformed output: it was we who ended it
	}
	// The sentry went without a word: it crashed, or somebody killed it.
	return fmt.Errorf("the sandbox broke down (%s)%s", b.cmd.ProcessState, b.log.quoted())
}
