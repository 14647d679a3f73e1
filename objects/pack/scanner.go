package pack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"
)

// Entry is the head of one object in a pack.
type Entry struct {
	Offset int64 // where it begins, from the start of the pack
	Type   Type
	Size   int64 // of Data: the object's, or the delta's
	Base   OID   // of a REFDeltaObject
	// BaseOffset is where the base of an OFSDeltaObject begins; it is less than
	// Offset, but need not be the begin of an entry.
	BaseOffset int64
}

// Scanner reads a pack front to back, once. Call Count, then Next until io.EOF,
// and Close. It is not safe for concurrent use.
//
// An error of the format is a *FormatError; any other error is the stream's own.
type Scanner struct {
	src      source
	br       *bufio.Reader
	inflater io.ReadCloser
	count    uint32
	next     uint32
	data     entryData
	checksum OID
	err      error
}

// NewScanner returns a scanner of the pack that r begins with. A pack of more
// than max bytes is refused; zero is no limit. If r is a *bufio.Reader, what
// follows the pack stays unread in it; any other reader may be read further.
func NewScanner(r io.Reader, max int64) *Scanner {
	br, ok := r.(*bufio.Reader)
	if !ok {
		br = bufio.NewReaderSize(r, chunkSize)
	}
	s := &Scanner{src: source{r: br, max: max, sum: newAsyncSHA1()}}
	s.br = bufio.NewReaderSize(&s.src, chunkSize)
	s.data.s = s
	return s
}

// Close frees what the scanner holds. It does not close the stream.
func (s *Scanner) Close() error {
	s.src.endSum()
	if s.err == nil {
		s.err = errors.New("scanner is closed")
	}
	return nil
}

// Offset is how many bytes of the pack have been consumed.
func (s *Scanner) Offset() int64 { return s.src.total - int64(s.br.Buffered()) }

// Checksum is the pack's trailer, once Next has returned io.EOF.
func (s *Scanner) Checksum() OID { return s.checksum }

// fail makes err the scanner's last word: as the stream's own error if the
// stream failed, else as an error of the format.
func (s *Scanner) fail(reason string, err error) error {
	if s.err != nil {
		return s.err
	}
	switch {
	case errors.Is(s.src.err, ErrTooLarge):
		s.err = &FormatError{Offset: s.Offset(), Reason: fmt.Sprintf("the pack is larger than the limit of %d bytes", s.src.max), Err: ErrTooLarge}
	case s.src.err == io.EOF || s.src.err == io.ErrUnexpectedEOF:
		s.err = &FormatError{Offset: s.Offset(), Reason: "the pack ends early", Err: io.ErrUnexpectedEOF}
	case s.src.err != nil:
		s.err = fmt.Errorf("read pack: %w", s.src.err)
	default:
		s.err = &FormatError{Offset: s.Offset(), Reason: reason, Err: err}
	}
	return s.err
}

// Count reads the pack's header and returns the number of entries.
func (s *Scanner) Count() (uint32, error) {
	if s.err != nil {
		return 0, s.err
	}
	var h [HeaderSize]byte
	if _, err := io.ReadFull(s.br, h[:]); err != nil {
		return 0, s.fail("the pack has no header", err)
	}
	if string(h[:4]) != signature {
		return 0, s.fail("the stream is not a git pack", nil)
	}
	// Version 3 differs from 2 in nothing but the number.
	if v := binary.BigEndian.Uint32(h[4:]); v != 2 && v != 3 {
		return 0, s.fail(fmt.Sprintf("the pack has version %d, want 2", v), nil)
	}
	s.count = binary.BigEndian.Uint32(h[8:])
	return s.count, nil
}

// Next skips what is left of the current entry and returns the next one. After
// the last it checks the trailer and returns io.EOF.
func (s *Scanner) Next() (Entry, error) {
	if s.err != nil {
		return Entry{}, s.err
	}
	if s.data.open {
		if _, err := io.Copy(io.Discard, &s.data); err != nil {
			return Entry{}, err
		}
	}
	if s.next == s.count {
		return Entry{}, s.trailer()
	}
	s.next++
	e := Entry{Offset: s.Offset()}
	var v entryVarint
	for done := false; !done; {
		c, err := s.br.ReadByte()
		if err != nil {
			return Entry{}, s.fail("an entry has no header", err)
		}
		if done, err = v.add(c); err != nil {
			return Entry{}, s.fail("an entry has a bad size", err)
		}
	}
	e.Type, e.Size = v.t, v.size
	switch e.Type {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
	case plumbing.OFSDeltaObject:
		back, err := s.baseDistance()
		if err != nil {
			return Entry{}, err
		}
		if back <= 0 || back > e.Offset-HeaderSize {
			return Entry{}, s.fail("a delta's base is not in front of it", nil)
		}
		e.BaseOffset = e.Offset - back
	case plumbing.REFDeltaObject:
		if _, err := io.ReadFull(s.br, e.Base[:]); err != nil {
			return Entry{}, s.fail("a delta has no base", err)
		}
	default:
		return Entry{}, s.fail(fmt.Sprintf("an entry has the unknown type %d", e.Type), nil)
	}
	if err := s.inflate(); err != nil {
		return Entry{}, s.fail("an entry is not a zlib stream", err)
	}
	s.data = entryData{s: s, size: e.Size, open: true}
	return e, nil
}

// Data reads the current entry's inflated content: exactly Entry.Size bytes and
// then io.EOF, or an error. It is valid until the next call of Next.
func (s *Scanner) Data() io.Reader { return &s.data }

// Adler32 returns the sum of the current entry's content, which its zlib stream
// ends with, once Data has been read to io.EOF.
func (s *Scanner) Adler32() uint32 {
	b := s.src.last(len(s.src.chunk) - s.br.Buffered())
	return binary.BigEndian.Uint32(b[:])
}

func (s *Scanner) baseDistance() (int64, error) {
	var d int64
	for i := 0; ; i++ {
		c, err := s.br.ReadByte()
		if err != nil {
			return 0, s.fail("a delta has no base", err)
		}
		if i > 0 {
			d++
		}
		// More than 2^55 bytes back is before any pack's start.
		if d > 1<<48 {
			return 0, s.fail("a delta's base is not in front of it", nil)
		}
		d = d<<7 | int64(c&0x7f)
		if c&0x80 == 0 {
			return d, nil
		}
	}
}

func (s *Scanner) inflate() error {
	if s.inflater == nil {
		zr, err := zlib.NewReader(s.br)
		if err != nil {
			return err
		}
		s.inflater = zr
		return nil
	}
	return s.inflater.(zlib.Resetter).Reset(s.br, nil)
}

func (s *Scanner) trailer() error {
	consumed := len(s.src.chunk) - s.br.Buffered()
	if err := s.src.retire(consumed); err != nil {
		return s.fail("the pack ends early", err)
	}
	sum := s.src.endSum()
	var want OID
	if _, err := io.ReadFull(s.br, want[:]); err != nil {
		return s.fail("the pack has no checksum", err)
	}
	if sum != want {
		return s.fail("the pack does not match its checksum: it was damaged on the way", nil)
	}
	if err := s.src.retire(len(s.src.chunk) - s.br.Buffered()); err != nil {
		return s.fail("the pack ends early", err)
	}
	s.checksum = sum
	s.err = io.EOF
	return io.EOF
}

// entryData bounds an inflated entry by the size in its header.
type entryData struct {
	s    *Scanner
	size int64 // left to read
	open bool
}

func (d *entryData) Read(p []byte) (int, error) {
	if !d.open {
		return 0, io.EOF
	}
	if d.s.err != nil {
		return 0, d.s.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if d.size == 0 {
		return 0, d.end()
	}
	n, err := d.s.inflater.Read(p[:min(int64(len(p)), d.size)])
	d.size -= int64(n)
	switch {
	case err == io.EOF && d.size > 0:
		return n, d.s.fail("an entry is shorter than its header says", nil)
	case err == io.EOF:
		// The checksum at the end of the zlib stream was right.
		d.open = false
		return n, io.EOF
	case err != nil:
		return n, d.s.fail("an entry does not inflate", err)
	}
	return n, nil
}

// end sees that the zlib stream ends where the header says.
func (d *entryData) end() error {
	var one [1]byte
	for {
		n, err := d.s.inflater.Read(one[:])
		switch {
		case n > 0:
			return d.s.fail("an entry is longer than its header says", nil)
		case err == io.EOF:
			d.open = false
			return io.EOF
		case err != nil:
			return d.s.fail("an entry does not inflate", err)
		}
	}
}
