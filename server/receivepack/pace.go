package receivepack

import (
	"fmt"
	"io"
	"time"
)

// Pace is how slowly a client may send. Only the time in which the server waits
// for the client counts, and only from the first byte of the commands or of the
// pack on: before it, a client runs its hooks and looks for deltas, however long.
type Pace struct {
	Stall time.Duration // the longest silence; 2 min if zero
	Rate  int64         // bytes a second, on average over a Stall of waiting; 1 KiB if zero, negative for any
}

const (
	defaultStall = 2 * time.Minute
	defaultRate  = 1 << 10
)

// SlowError is a push that was given up because the client did not send. Its
// text is for the client.
type SlowError struct{ Text string }

func (e *SlowError) Error() string { return e.Text }

// pacedReader reads ahead in a goroutine of its own, so that a client which
// sends nothing can be given up: a Read that hangs in the transport ends only
// with the session, or by its SetReadDeadline if it has one. It is not safe for
// concurrent use.
type pacedReader struct {
	r    io.Reader
	pace Pace
	full chan []byte
	free chan []byte
	done chan struct{} // closed when nothing more will be read
	gone chan struct{} // closed when the goroutine has ended, before full is
	err  error         // of the transport, once full is closed

	buf     []byte // what is left of rest's chunk
	chunk   []byte
	flowing bool // the first byte has come
	waited  time.Duration
	got     int64 // bytes in that time
	slow    error
}

const paceBuffer = 64 << 10

func newPacedReader(r io.Reader, pace Pace) *pacedReader {
	if pace.Stall == 0 {
		pace.Stall = defaultStall
	}
	if pace.Rate == 0 {
		pace.Rate = defaultRate
	}
	p := &pacedReader{r: r, pace: pace, full: make(chan []byte), free: make(chan []byte, 2), done: make(chan struct{}), gone: make(chan struct{})}
	for range cap(p.free) {
		p.free <- make([]byte, paceBuffer)
	}
	go p.pump(r)
	return p
}

func (p *pacedReader) pump(r io.Reader) {
	defer close(p.full)
	defer close(p.gone)
	for {
		var b []byte
		select {
		case b = <-p.free:
		case <-p.done:
			p.err = io.ErrClosedPipe
			return
		}
		n, err := r.Read(b[:cap(b)])
		if n > 0 {
			select {
			case p.full <- b[:n]:
			case <-p.done:
				p.err = io.ErrClosedPipe
				return
			}
		}
		if err != nil {
			p.err = err
			return
		}
	}
}

// rest says that the client may take its time again, if it has not sent more already.
func (p *pacedReader) rest() {
	if len(p.buf) == 0 {
		p.flowing, p.waited, p.got = false, 0, 0
	}
}

// deadliner is a transport whose Read can be ended.
type deadliner interface{ SetReadDeadline(time.Time) error }

// stop ends the goroutine as soon as the transport's Read returns. If that can
// be made to return, it has ended when stop returns.
func (p *pacedReader) stop() {
	close(p.done)
	d, ok := p.r.(deadliner)
	select {
	case <-p.gone:
		return
	default:
	}
	if ok && d.SetReadDeadline(time.Unix(1, 0)) == nil {
		<-p.gone
	}
}

func (p *pacedReader) Read(b []byte) (int, error) {
	if len(p.buf) == 0 {
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.buf)
	p.buf = p.buf[n:]
	return n, nil
}

// next waits for a chunk.
func (p *pacedReader) next() error {
	if p.slow != nil {
		return p.slow
	}
	if p.chunk != nil {
		p.free <- p.chunk // has room for all there are
		p.chunk = nil
	}
	var silence <-chan time.Time
	began := time.Now()
	if p.flowing {
		t := time.NewTimer(p.pace.Stall)
		defer t.Stop()
		silence = t.C
	}
	select {
	case b, ok := <-p.full:
		if !ok {
			return p.err
		}
		p.chunk, p.buf = b, b
	case <-silence:
		return p.giveUp("nothing came for %s in the middle of a push; push again", p.pace.Stall)
	}
	if !p.flowing {
		p.flowing = true
		return nil
	}
	p.waited += time.Since(began)
	p.got += int64(len(p.buf))
	if p.waited >= p.pace.Stall {
		if float64(p.got) < float64(p.pace.Rate)*p.waited.Seconds() {
			return p.giveUp("%d bytes came in %s of waiting, which is less than %d bytes a second; push again over a better connection",
				p.got, p.waited.Round(time.Second), p.pace.Rate)
		}
		p.waited, p.got = 0, 0
	}
	return nil
}

func (p *pacedReader) giveUp(format string, args ...any) error {
	p.slow = &SlowError{fmt.Sprintf(format, args...)}
	if d, ok := p.r.(deadliner); ok {
		_ = d.SetReadDeadline(time.Unix(1, 0)) // a transport that fails here has ended already
	}
	return p.slow
}
