package sandbox

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startTimeout bounds how long a sandbox may take until it reads its order. A
// cold interpreter with heavy imports on a busy machine takes seconds.
const startTimeout = 60 * time.Second

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// pipePage is the smallest capacity of a pipe.
const pipePage = 4096

// box is one sandbox: started, waiting for its order, running, and gone. It
// takes one order.
type box struct {
	id     string
	shape  shape
	dir    string
	group  *group
	cmd    *exec.Cmd
	trace  *trace
	stdin  *os.File
	stdout *outPipe
	stderr *outPipe
	log    logBuffer

	patience time.Duration // until it reads its order

	ready  chan struct{} // it reads its order
	exited chan struct{} // the runsc process has been waited for
	logged chan struct{} // standard error has been read to its end

	killOnce   sync.Once
	killErr    error
	retireOnce sync.Once
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// start starts a sandbox and returns without waiting for it.
func (m *Manager) start(sh shape, w weight) (_ *box, err error) {
	img := m.image(sh.program)
	if img == nil {
		return nil, fmt.Errorf("no %s is configured", sh)
	}
	b := &box{
		id: newID(), shape: sh, patience: m.patience,
		ready: make(chan struct{}), exited: make(chan struct{}), logged: make(chan struct{}),
	}
	b.dir = filepath.Join(m.cfg.Dir, "boxes", b.id)
	in := filepath.Join(b.dir, "in")
	if err := os.MkdirAll(in, 0o755); err != nil {
		return nil, fmt.Errorf("sandbox directory: %w", err)
	}
	b.group = &group{}
	defer func() {
		if err != nil {
			if b.trace != nil {
				b.trace.close()
			}
			err = errors.Join(err, b.group.remove(), os.RemoveAll(b.dir))
		}
	}()
	var env []string
	if w == weightBoot {
		env = img.ahead
	}
	spec, err := img.spec(specParams{
		in: in, nothing: filepath.Join(m.cfg.Dir, "nothing"), env: env,
		pids: sh.pids, addressSpace: sh.addressSpace, fileSize: sh.fileSize,
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "config.json"), spec, 0o644); err != nil {
		return nil, fmt.Errorf("sandbox directory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, traceFile), traceConfig(), 0o644); err != nil {
		return nil, fmt.Errorf("sandbox directory: %w", err)
	}
	if m.cgroups != nil {
		if b.group, err = m.cgroups.create(b.id); err != nil {
			b.group = &group{}
			return nil, err
		}
		if err := b.group.limitMemory(bootMemory); err != nil {
			return nil, err
		}
		if err := b.group.setWeight(w); err != nil {
			return nil, err
		}
	}
	if b.trace, err = listenTrace(b.dir); err != nil {
		return nil, err
	}
	return b, b.exec(m)
}

// exec starts gVisor's process with our pipes.
func (b *box) exec(m *Manager) (err error) {
	var files []*os.File
	defer func() {
		for i, f := range files {
			if err != nil || i%2 == 0 { // the child's ends are the even ones
				_ = f.Close()
			}
		}
	}()
	pipe := func(childReads bool) (child, ours *os.File, err error) {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, nil, fmt.Errorf("sandbox pipes: %w", err)
		}
		if childReads {
			child, ours = r, w
		} else {
			child, ours = w, r
		}
		files = append(files, child, ours)
		return child, ours, nil
	}
	stdin, in, err := pipe(true)
	if err != nil {
		return err
	}
	stdout, out, err := pipe(false)
	if err != nil {
		return err
	}
	stderr, logs, err := pipe(false)
	if err != nil {
		return err
	}
	b.stdin, b.stdout, b.stderr = in, &outPipe{out}, &outPipe{logs}
	if err := b.fill(); err != nil {
		return err
	}
	args := []string{"runsc",
		"--root=" + m.stateDir(),
		"--network=none",
		"--ignore-cgroups",
		"--host-settings=ignore",
		// What a sandbox has looked up it need not look up again: nothing of the
		// host changes under it. Inputs come late, but before anybody has looked.
		"--file-access-mounts=exclusive",
		"--sidecar-usage-policy=LEGACY_DEPRECATED_SLOW_EMBEDDED_FALLBACK",
		"--overlay2=all:dir=" + filepath.Join(m.cfg.Dir, "scratch") + ",size=" + strconv.FormatInt(m.cfg.Scratch, 10),
		"--pod-init-config=" + filepath.Join(b.dir, traceFile),
	}
	if m.rootless {
		args = append(args, "--rootless")
	}
	args = append(args, "run", "--bundle="+b.dir, b.id)
	b.cmd = &exec.Cmd{
		Path: m.cfg.Runsc, Args: args, Dir: b.dir,
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Stdin: stdin, Stdout: stdout, Stderr: stderr,
		// A group of its own: an interrupt typed at the server's terminal is for
		// the server, which drains.
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}
	if err := m.spawn.start(b.cmd, b.group); err != nil {
		return fmt.Errorf("start sandbox: %w", err)
	}
	go func() {
		_ = b.cmd.Wait() // how it ended is in ProcessState
		b.trace.close()
		close(b.exited)
	}()
	go func() {
		_, _ = io.Copy(&b.log, b.stderr)
		close(b.logged)
	}()
	go func() {
		// One byte more than the pipe holds is written when the program has begun
		// to read its order, and fails when the sandbox is gone.
		if _, err := b.stdin.Write([]byte{' '}); err == nil {
			close(b.ready)
		}
	}()
	go func() {
		select {
		case <-b.trace.ended:
		case <-b.exited:
		}
		b.stdout.finish()
		b.stderr.finish()
	}()
	return nil
}

// fill fills the pipe to the program with blanks, which mean nothing before a
// JSON document, so that the next write tells when the program reads.
func (b *box) fill() error {
	raw, err := b.stdin.SyscallConn()
	if err != nil {
		return fmt.Errorf("sandbox pipes: %w", err)
	}
	var sizeErr error
	if err := raw.Control(func(fd uintptr) {
		_, sizeErr = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipePage)
	}); err != nil {
		sizeErr = err
	}
	if sizeErr != nil {
		return fmt.Errorf("sandbox pipes: %w", sizeErr)
	}
	if _, err := b.stdin.Write(bytes.Repeat([]byte{' '}, os.Getpagesize())); err != nil {
		return fmt.Errorf("sandbox pipes: %w", err)
	}
	return nil
}

// order sends the order and its end. A program that has died does not read it,
// which is seen in other ways.
func (b *box) order(text []byte) {
	if raw, err := b.stdin.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			// For speed only, and refused where pipes are rationed.
			_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 64<<10)
		})
	}
	_, _ = b.stdin.Write(text)
	_ = b.stdin.Close()
}

// kill ends every process of the sandbox. It is safe to call at any time.
func (b *box) kill() {
	b.killOnce.Do(func() { b.killErr = b.group.kill() })
}

func (b *box) hasExited() bool {
	select {
	case <-b.exited:
		return true
	default:
		return false
	}
}

func (b *box) isReady() bool {
	select {
	case <-b.ready:
		return true
	default:
		return false
	}
}

// retire kills the sandbox and removes what it leaves, in the background: Close
// waits for it.
func (m *Manager) retire(b *box) {
	b.retireOnce.Do(func() {
		m.wg.Add(1)
		go func() {
			defer m.wg.Done()
			if err := m.bury(b); err != nil {
				m.log.Error("sandbox left something behind", "sandbox", b.id, "err", err)
			}
		}()
	})
}

func (m *Manager) bury(b *box) error {
	b.kill()
	<-b.exited
	<-b.logged
	<-b.trace.done
	errs := []error{b.killErr, b.group.remove(), os.RemoveAll(b.dir)}
	for _, f := range []*os.File{b.stdout.f, b.stderr.f} {
		errs = append(errs, f.Close())
	}
	_ = b.stdin.Close() // closed already if there was an order
	// What gVisor would remove itself if it were not killed.
	states, err := filepath.Glob(filepath.Join(m.stateDir(), "*"+b.id+"*"))
	errs = append(errs, err)
	for _, s := range states {
		if err := os.Remove(s); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// died explains a sandbox that ended before it had its order.
func (b *box) died() error {
	<-b.logged
	if n := b.group.oomKills(); n > 0 {
		return fmt.Errorf("a %s sandbox ran out of memory while it started%s", b.shape, b.log.quoted())
	}
	return fmt.Errorf("a %s sandbox did not start (%s)%s", b.shape, strings.TrimSpace(b.cmd.ProcessState.String()), b.log.quoted())
}

func (m *Manager) stateDir() string { return filepath.Join(m.cfg.Dir, "runsc") }
