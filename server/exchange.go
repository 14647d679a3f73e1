package server

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// Bounds of one request's body. A push has those of its pack besides.
const (
	maxFetchRequest = 64 << 20 // of a fetch, inflated: a million haves
	maxHeld         = 64 << 10 // of an answer, while the request is still coming

	// Deflate makes at most 1,032 bytes of one. Haves and packs, which are oids and
	// compressed data, come nowhere near this.
	maxInflation   = 64
	inflationSlack = 1 << 20 // inflated bytes that are not looked at
)

// bodyError is a body that is refused. Its text is for the client.
type bodyError struct {
	status int
	text   string
}

func (e *bodyError) Error() string { return e.text }

// exchange is the body of one HTTP request and the body of its answer, as a pair
// of streams. Many clients, and most of what stands between, do not look at an
// answer before they have sent the whole request; so what is written until then is
// held back, if it is not much. It also lets a bad body have the status that it
// deserves. After that everything goes out at once, progress included.
//
// Read is for one goroutine at a time. Write is safe for concurrent use with all else.
type exchange struct {
	w    http.ResponseWriter
	ctl  *http.ResponseController
	kind string        // the answer's content type
	idle time.Duration // that one read or write may take

	body    io.Reader // as it was sent
	inflate *inflater // nil if it was not compressed
	limit   int64     // bytes that may be read; 0 is no limit
	count   int64     // bytes read
	last    time.Time // when the reader's deadline was set

	mu      sync.Mutex
	held    []byte
	begun   bool       // the header is out
	ended   bool       // all of the request was read
	failure *bodyError // why it was not
	wrote   time.Time  // when the writer's deadline was set
	gaveUp  bool       // the service has set a deadline of its own
}

// newExchange takes over a request. A body of more than limit bytes is refused; 0 is
// no limit.
func newExchange(w http.ResponseWriter, r *http.Request, kind string, limit int64, idle time.Duration) *exchange {
	x := &exchange{w: w, ctl: http.NewResponseController(w), kind: kind, idle: idle, body: r.Body, limit: limit}
	x.ended = r.Body == nil || r.Body == http.NoBody
	if !x.ended {
		// For the one who answers before the end, after all. HTTP/2 has no need of it
		// and says so.
		_ = x.ctl.EnableFullDuplex()
	}
	return x
}

// compressed says that the body is in gzip.
func (x *exchange) compressed() { x.inflate = &inflater{} }

// Read reads the body, inflated and bounded.
func (x *exchange) Read(p []byte) (int, error) {
	if ended, failure := x.state(); failure != nil {
		return 0, failure
	} else if ended {
		return 0, io.EOF
	}
	// A deadline for each read bounds a client that sends nothing, not one that
	// sends for hours. Not every read needs a new one.
	if now := time.Now(); now.Sub(x.last) > x.idle/16 {
		x.last = now
		_ = x.ctl.SetReadDeadline(now.Add(x.idle)) // a connection without deadlines has none to exceed
	}
	n, err := x.read(p)
	x.count += int64(n)
	var bad *bodyError
	switch {
	case x.limit > 0 && x.count > x.limit:
		bad = &bodyError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request has more than %d bytes", x.limit)}
	case errors.As(err, &bad), err == nil:
	case err == io.EOF:
		x.end()
	case errors.Is(err, os.ErrDeadlineExceeded):
		bad = &bodyError{http.StatusRequestTimeout, fmt.Sprintf("nothing came for %s", x.idle)}
	case errors.Is(err, io.ErrUnexpectedEOF):
		bad = &bodyError{http.StatusBadRequest, "the request ends too early"}
	default:
		bad = &bodyError{http.StatusBadRequest, "the request could not be read to its end"}
	}
	if bad != nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.gaveUp {
			return 0, err // the service has an answer
		}
		x.failure = bad
		return 0, bad
	}
	return n, err
}

// SetReadDeadline is for a service that gives up a slow client: a Read that hangs
// ends, and what the service says of it is the answer.
func (x *exchange) SetReadDeadline(t time.Time) error {
	x.mu.Lock()
	x.gaveUp = true
	x.mu.Unlock()
	return x.ctl.SetReadDeadline(t)
}

func (x *exchange) read(p []byte) (int, error) {
	if x.inflate == nil {
		return x.body.Read(p)
	}
	return x.inflate.read(x.body, p)
}

// state returns whether all was read, and why it cannot be.
func (x *exchange) state() (ended bool, failure *bodyError) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ended, x.failure
}

// end notes that the request is complete. From here on the server reads ahead only
// to notice that the client has gone, and a deadline would look like that.
func (x *exchange) end() {
	_ = x.ctl.SetReadDeadline(time.Time{})
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended = true
}

// Write sends a part of the answer, or holds it back while the request is coming.
func (x *exchange) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.begun && !x.ended && len(x.held)+len(p) <= maxHeld {
		x.held = append(x.held, p...)
		return len(p), nil
	}
	if err := x.begin(); err != nil {
		return 0, err
	}
	return x.send(p)
}

// begin sends the header and what was held.
func (x *exchange) begin() error {
	if x.begun {
		return nil
	}
	x.begun = true
	noCache(x.w.Header())
	if x.ended {
		x.w.Header().Del("Connection")
	}
	x.w.Header().Set("Content-Type", x.kind)
	x.w.WriteHeader(http.StatusOK)
	held := x.held
	x.held = nil
	if len(held) == 0 {
		return nil
	}
	_, err := x.send(held)
	return err
}

// largeWrite is what is left to the buffer below: another one follows, or a small
// one that ends the stream.
const largeWrite = 32 << 10

func (x *exchange) send(p []byte) (int, error) {
	if now := time.Now(); now.Sub(x.wrote) > x.idle/16 {
		x.wrote = now
		_ = x.ctl.SetWriteDeadline(now.Add(x.idle)) // as above
	}
	n, err := x.w.Write(p)
	if err == nil && len(p) < largeWrite {
		err = x.ctl.Flush()
	}
	return n, err
}

// finish ends the answer: with what was held, or, if nothing is out yet, with the
// reason why the body was refused. failed is how the service ended.
func (x *exchange) finish(failed error) (refused *bodyError, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.begun:
		return nil, nil
	case x.failure != nil:
		return x.failure, nil
	case failed != nil && len(x.held) == 0:
		return &bodyError{http.StatusBadRequest, "the request could not be understood; it may end too early"}, nil
	}
	return nil, x.begin()
}

// After a refusal the rest of the request is read and dropped, within these
// bounds: a client that dies of a broken pipe does not show the reason.
const (
	discardBytes = 64 << 20
	discardTime  = 5 * time.Second
)

// discard reads what is left of a refused request.
func (x *exchange) discard() {
	_ = x.ctl.SetReadDeadline(time.Now().Add(discardTime))
	_, _ = io.CopyN(io.Discard, x.body, discardBytes) // the answer is known; nothing depends on this
}

// inflater reads gzip within bounds.
type inflater struct {
	z       *gzip.Reader
	in, out int64 // bytes
}

func (f *inflater) read(body io.Reader, p []byte) (n int, err error) {
	source := func(q []byte) (int, error) {
		n, err := body.Read(q)
		f.in += int64(n)
		return n, err
	}
	if f.z == nil {
		if f.z, err = gzip.NewReader(readerFunc(source)); err == nil {
			n, err = f.z.Read(p)
		}
	} else {
		n, err = f.z.Read(p)
	}
	f.out += int64(n)
	switch {
	case f.out > inflationSlack && f.out > f.in*maxInflation:
		return 0, &bodyError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request inflates to more than %d times its size", maxInflation)}
	case err == nil, err == io.EOF && f.z != nil:
		return n, err
	case err == io.EOF:
		err = io.ErrUnexpectedEOF // an empty body is no gzip
	case isGzipError(err):
		err = &bodyError{http.StatusBadRequest, "the request's body is not gzip, as its header says"}
	}
	return n, err
}

func isGzipError(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
