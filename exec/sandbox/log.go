package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
)

// startLog bounds what is kept of a sandbox's standard error before it has a job.
const startLog = 16 << 10

// logBuffer is a program's standard error: it keeps the first bytes until it is
// attached to a writer, then passes on what its limit allows, and drops the rest,
// so that a flood costs the program its time and nobody else anything.
type logBuffer struct {
	mu    sync.Mutex
	early []byte
	to    io.Writer
	left  int64
	cut   bool
	limit int64
}

// Write never fails: a log must not stop a program.
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		l.early = append(l.early, p[:min(len(p), startLog-len(l.early))]...)
		return len(p), nil
	}
	l.pass(p)
	return len(p), nil
}

func (l *logBuffer) pass(p []byte) {
	keep := p[:min(int64(len(p)), l.left)]
	l.left -= int64(len(keep))
	if len(keep) > 0 {
		_, _ = l.to.Write(keep)
	}
	if len(keep) < len(p) && !l.cut {
		l.cut = true
		_, _ = fmt.Fprintf(l.to, "\n[log cut at its limit of %d bytes]\n", l.limit)
	}
}

// attach passes what has come and what comes to w, at most limit bytes of it.
func (l *logBuffer) attach(w io.Writer, limit int64) {
	if w == nil {
		w = io.Discard
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to, l.left, l.limit = w, limit, limit
	l.pass(l.early)
	l.early = nil
}

// detach ends the use of the writer.
func (l *logBuffer) detach() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to, l.left, l.cut = io.Discard, 0, true
}

// quoted is what was kept, for an error message.
func (l *logBuffer) quoted() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSpace(string(l.early))
	if text == "" {
		return ""
	}
	if len(text) > 500 {
		text = "..." + text[len(text)-500:]
	}
	return fmt.Sprintf(": %q", text)
}

// outPipe reads what a program writes. Its end of file is when every process of
// the sandbox has closed the other side, which takes tens of milliseconds of
// teardown after the program is gone; finish says that the program is gone, and
// turns "nothing there now" into the end.
type outPipe struct {
	f *os.File
}

func (p *outPipe) Read(b []byte) (int, error) {
	n, err := p.f.Read(b)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	raw, err := p.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	n = 0
	var readErr error
	if err := raw.Control(func(fd uintptr) {
		for {
			n, readErr = syscall.Read(int(fd), b)
			if readErr != syscall.EINTR {
				return
			}
		}
	}); err != nil {
		return 0, err
	}
	switch {
	case readErr == syscall.EAGAIN, readErr == nil && n == 0:
		return 0, io.EOF
	case readErr != nil:
		return 0, fmt.Errorf("read pipe: %w", readErr)
	}
	return n, nil
}

// finish lets readers end once the pipe is empty.
func (p *outPipe) finish() {
	// The only failure is a closed file, which ends readers too.
	_ = p.f.SetReadDeadline(longAgo)
}
