package receivepack

import (
	"io"
	"sync"
)

// maxBacklog bounds the progress that a slow client has not read yet.
const maxBacklog = 1 << 20

// droppedNote stands where progress is missing.
const droppedNote = "(some progress was dropped: the connection is slow)\n"

// relay passes progress on to the client without ever making the writer wait:
// a run must not stall because its pusher's terminal does. What a slow client
// leaves unread beyond a bound is dropped, and what is written after the client
// has gone goes nowhere. It is safe for concurrent use.
type relay struct {
	w    io.Writer
	done chan struct{}

	mu      sync.Mutex
	wake    *sync.Cond
	buf     []byte
	dropped bool
	closed  bool // no more is taken
	failed  bool // the client has gone
}

func newRelay(w io.Writer) *relay {
	r := &relay{w: w, done: make(chan struct{})}
	r.wake = sync.NewCond(&r.mu)
	go r.run()
	return r
}

// Write takes p and returns at once. It never fails.
func (r *relay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed || r.failed:
	case len(r.buf)+len(p) > maxBacklog:
		r.dropped = true
	default:
		if r.dropped {
			r.buf = append(r.buf, droppedNote...)
			r.dropped = false
		}
		r.buf = append(r.buf, p...)
		r.wake.Signal()
	}
	return len(p), nil
}

// Close sends what was taken and returns when it is sent or the client is gone.
// It may be called more than once.
func (r *relay) Close() {
	r.mu.Lock()
	r.closed = true
	r.wake.Signal()
	r.mu.Unlock()
	<-r.done
}

func (r *relay) run() {
	defer close(r.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []byte
	for {
		for len(r.buf) == 0 && !r.closed {
			r.wake.Wait()
		}
		if len(r.buf) == 0 && r.dropped {
			r.buf, r.dropped = append(r.buf, droppedNote...), false
		}
		if len(r.buf) == 0 {
			return
		}
		out, r.buf = r.buf, out[:0]
		r.mu.Unlock()
		_, err := r.w.Write(out)
		r.mu.Lock()
		if err != nil {
			r.failed = true
			r.buf = nil
			return
		}
	}
}
