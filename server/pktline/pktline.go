// Package pktline reads and writes git's packet lines and multiplexes them into
// side bands. It knows the framing of the protocol and nothing of what is said in it.
//
// The format is git's gitprotocol-common(5): four lower-case hex digits that
// count themselves, then the payload; 0000, 0001 and 0002 are the flush,
// delimiter and response-end packets.
package pktline

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// MaxData is the largest payload of one packet: 65,520 bytes less the four of
// the length.
const MaxData = 65516

const headerLen = 4

// Kind tells data from the three special packets.
type Kind uint8

// The kinds of packet.
const (
	Data        Kind = iota // a payload, possibly empty
	Flush                   // 0000: end of a message
	Delim                   // 0001: end of a section
	ResponseEnd             // 0002: end of a stateless response
)

func (k Kind) String() string {
	switch k {
	case Data:
		return "data"
	case Flush:
		return "flush"
	case Delim:
		return "delimiter"
	case ResponseEnd:
		return "response-end"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// ErrLimit is returned for a packet beyond what Limit allows.
var ErrLimit = errors.New("more than the limit of one request")

// ErrLength is wrapped by the error for a length that is no packet line's.
var ErrLength = errors.New("bad packet line length")

// Reader reads packets. It takes from the stream exactly the bytes of the
// packets it returns, so that a pack may follow them. It is not safe for
// concurrent use.
type Reader struct {
	r   io.Reader
	hdr [headerLen]byte
	buf []byte

	limited bool
	left    int64 // bytes, if limited
}

// NewReader returns a Reader on r. r should be buffered: each packet costs two reads.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Limit bounds the packets from now on to n bytes in all, so that who keeps them is
// bounded; 0 is no limit. A count of packets is no such bound: one has up to 64 KiB.
func (r *Reader) Limit(n int64) { r.limited, r.left = n > 0, n }

// Next returns the next packet. The payload is valid until the next call. At
// the end of the stream the error is io.EOF between two packets and
// io.ErrUnexpectedEOF inside one.
func (r *Reader) Next() (Kind, []byte, error) {
	if _, err := io.ReadFull(r.r, r.hdr[:]); err != nil {
		return 0, nil, err
	}
	n, err := parseLength(r.hdr)
	if err != nil {
		return 0, nil, err
	}
	if r.left -= int64(max(n, headerLen)); r.limited && r.left < 0 {
		return 0, nil, ErrLimit
	}
	switch n {
	case 0:
		return Flush, nil, nil
	case 1:
		return Delim, nil, nil
	case 2:
		return ResponseEnd, nil, nil
	}
	n -= headerLen
	if cap(r.buf) < n {
		// The length is the sender's claim; it is at most 64 KiB, so it may be believed.
		r.buf = make([]byte, max(n, 1024))
	}
	r.buf = r.buf[:n]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Data, r.buf, nil
}

// Line is Next for textual packets: the payload without the one newline that
// git says a receiver must not insist on.
func (r *Reader) Line() (Kind, string, error) {
	k, p, err := r.Next()
	return k, string(bytes.TrimSuffix(p, []byte("\n"))), err
}

func parseLength(hdr [headerLen]byte) (int, error) {
	n := 0
	for _, c := range hdr {
		var d byte
		switch {
		case c >= '0' && c <= '9':
			d = c - '0'
		case c >= 'a' && c <= 'f':
			d = c - 'a' + 10
		case c >= 'A' && c <= 'F': // git's own reader takes both cases
			d = c - 'A' + 10
		default:
			return 0, fmt.Errorf("%w: %q", ErrLength, hdr[:])
		}
		n = n<<4 | int(d)
	}
	if n == 3 || n > MaxData+headerLen {
		return 0, fmt.Errorf("%w: %q", ErrLength, hdr[:])
	}
	return n, nil
}

// Writer writes packets. The first error sticks: later calls return it and
// write nothing, so a sequence of packets needs one check at its end.
type Writer struct {
	w   io.Writer
	buf []byte
	err error
}

// NewWriter returns a Writer on w. Each packet is one Write.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Packet writes p as one data packet. It fails if p is longer than MaxData.
func (w *Writer) Packet(p []byte) error {
	if len(p) > MaxData && w.err == nil {
		w.err = fmt.Errorf("%w: payload of %d bytes", ErrLength, len(p))
	}
	w.buf = appendHeader(w.buf[:0], len(p)+headerLen)
	w.buf = append(w.buf, p...)
	return w.send(w.buf)
}

// Line writes a formatted text packet and ends it with a newline.
func (w *Writer) Line(format string, args ...any) error {
	return w.Packet(append(fmt.Appendf(nil, format, args...), '\n'))
}

// ErrorLine writes the ERR packet, on which git stops and prints the text as
// "fatal: remote error: ...".
func (w *Writer) ErrorLine(text string) error {
	if len(text) > 4096 {
		text = text[:4096]
	}
	return w.Packet([]byte("ERR " + text))
}

// Flush writes a flush packet.
func (w *Writer) Flush() error { return w.send([]byte("0000")) }

// Delim writes a delimiter packet.
func (w *Writer) Delim() error { return w.send([]byte("0001")) }

// Err returns the first error of any call.
func (w *Writer) Err() error { return w.err }

func (w *Writer) send(b []byte) error {
	if w.err == nil {
		_, w.err = w.w.Write(b)
	}
	return w.err
}

func appendHeader(b []byte, n int) []byte {
	const hex = "0123456789abcdef"
	return append(b, hex[n>>12&15], hex[n>>8&15], hex[n>>4&15], hex[n&15])
}
