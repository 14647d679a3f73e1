package pack

import (
	"bufio"
	"crypto/sha1"
	"errors"
)

// chunkSize is how much of the stream is buffered in front of the inflater.
const chunkSize = 64 << 10

// ErrTooLarge is wrapped by the error for a pack of more bytes than it may have.
var ErrTooLarge = errors.New("pack is larger than the limit")

// source feeds the scanner's buffer and hashes what the scanner has consumed.
// The inflater is fast only on a *bufio.Reader, which reads ahead; but the
// checksum covers, and the caller loses, exactly the bytes up to the pack's
// end. So a chunk is only peeked at, and is hashed and discarded when the
// scanner asks for the next one: its buffer is empty then, all is consumed.
type source struct {
	r     *bufio.Reader
	max   int64 // 0: no limit
	chunk []byte
	total int64   // handed out, the chunk included
	tail  [4]byte // what came right before the chunk
	sum   *asyncSHA1
	err   error // the first error of r
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.retire(len(s.chunk)); err != nil {
		return 0, err
	}
	if s.err != nil {
		return 0, s.err
	}
	if s.max > 0 && s.total >= s.max {
		s.err = ErrTooLarge
		return 0, s.err
	}
	if _, err := s.r.Peek(1); err != nil {
		s.err = err
		return 0, err
	}
	n := min(s.r.Buffered(), len(p))
	if s.max > 0 {
		n = int(min(int64(n), s.max-s.total))
	}
	chunk, err := s.r.Peek(n)
	if err != nil {
		s.err = err
		return 0, err
	}
	s.chunk = chunk
	s.total += int64(n)
	return copy(p, chunk), nil
}

// retire hashes and takes the first n bytes of the chunk.
func (s *source) retire(n int) error {
	if s.sum != nil {
		s.sum.Write(s.chunk[:n])
	}
	s.tail = s.last(n)
	s.chunk = s.chunk[n:]
	_, err := s.r.Discard(n)
	return err
}

// last returns the four bytes that end with the first n of the chunk.
func (s *source) last(n int) (b [4]byte) {
	if n >= len(b) {
		return [4]byte(s.chunk[n-len(b) : n])
	}
	copy(b[copy(b[:], s.tail[n:]):], s.chunk[:n])
	return b
}

// endSum returns the hash of all that was retired, once. What is retired later
// (the trailer) is not hashed.
func (s *source) endSum() OID {
	if s.sum == nil {
		return OID{}
	}
	sum := s.sum.Sum()
	s.sum = nil
	return sum
}

// asyncSHA1 hashes in a goroutine of its own: next to inflating, this is the
// largest cost of taking a pack, and the two can run side by side.
type asyncSHA1 struct {
	full, free chan []byte
	done       chan OID
	buf        []byte
}

// Four buffers let the two sides drift apart by some milliseconds.
const hashBuffers = 4

func newAsyncSHA1() *asyncSHA1 {
	a := &asyncSHA1{
		full: make(chan []byte, hashBuffers),
		free: make(chan []byte, hashBuffers),
		done: make(chan OID, 1),
		buf:  make([]byte, 0, chunkSize),
	}
	for range hashBuffers - 1 {
		a.free <- make([]byte, 0, chunkSize)
	}
	go func() {
		h := sha1.New()
		for b := range a.full {
			h.Write(b)
			a.free <- b[:0]
		}
		var oid OID
		h.Sum(oid[:0])
		a.done <- oid
	}()
	return a
}

// Write copies p; it never fails.
func (a *asyncSHA1) Write(p []byte) {
	for len(p) > 0 {
		n := min(len(p), cap(a.buf)-len(a.buf))
		a.buf = append(a.buf, p[:n]...)
		p = p[n:]
		if len(a.buf) == cap(a.buf) {
			a.full <- a.buf
			a.buf = <-a.free
		}
	}
}

// Sum ends the goroutine and returns the hash of everything written.
func (a *asyncSHA1) Sum() OID {
	a.full <- a.buf
	close(a.full)
	return <-a.done
}
