package mask

import (
	"fmt"
	"io"
)

// Writer passes a stream on without its secrets, however it is cut into writes.
// It holds back at most one byte less than the longest form of a secret, and only
// while what came last may be the beginning of one. What lies beyond its limit
// is dropped; it is looked at all the same, so that no secret is cut in two there.
// It is for one goroutine.
type Writer struct {
	mask  *Mask
	to    io.Writer
	limit int64

	buf   []byte
	known int   // bytes of buf that are part of a secret whose beginning has gone
	open  bool  // the last byte that was passed on was part of a secret
	at    int64 // position of buf in the stream
	cut   bool
}

// Writer returns a Writer that passes on what lies in the first limit bytes of
// the stream. Close must be called at its end.
func (m *Mask) Writer(to io.Writer, limit int64) *Writer {
	if m == nil {
		m = &Mask{}
	}
	return &Writer{mask: m, to: to, limit: limit}
}

// Write never fails: a log must not stop a program.
func (w *Writer) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	hold := 0
	for _, pattern := range w.mask.patterns {
		hold = max(hold, overlap(w.buf, pattern))
	}
	w.pass(len(w.buf) - hold)
	return len(p), nil
}

// Close passes on what was held back. A beginning of a secret that is long enough
// to be worth hiding is hidden.
func (w *Writer) Close() {
	if n := len(w.buf); n >= minPart {
		w.known = n
	}
	w.pass(len(w.buf))
}

// Cut reports whether something was dropped at the limit.
func (w *Writer) Cut() bool { return w.cut }

// pass decides the first n bytes of buf: no secret that is not complete yet
// begins in them.
func (w *Writer) pass(n int) {
	covered := make([]bool, len(w.buf))
	for i := range min(w.known, len(covered)) {
		covered[i] = true
	}
	w.mask.cover(w.buf, covered)
	var out []byte
	for i := range n {
		switch beyond := w.at+int64(i) >= w.limit; {
		case beyond && !(covered[i] && w.open):
			// A secret that began before the limit has its mark already.
			w.cut = true
			w.open = false
		case !covered[i]:
			out = append(out, w.buf[i])
			w.open = false
		case !w.open:
			out = append(out, Mark...)
			w.open = true
		}
	}
	if len(out) > 0 {
		_, _ = w.to.Write(out) // see Write
	}
	known := n
	for known < len(covered) && covered[known] {
		known++
	}
	w.known = known - n
	w.at += int64(n)
	w.buf = append(w.buf[:0], w.buf[n:]...)
}

// CutMark is the line that ends a text which was cut at a limit.
func CutMark(limit int64) string {
	return fmt.Sprintf("\n[log cut at its limit of %d bytes]\n", limit)
}
