package protocol

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// A function's standard output is a sequence of frames. The first byte is the
// frame's kind; all numbers are big-endian and unsigned:
//
//	'F' file    2-byte length of the name, name, 8-byte size, size bytes
//	'N' note    4-byte length, UTF-8 text: one line of live progress
//	'A' answer  4-byte length, one JSON document (Answer)
//
// The answer is the last frame: only end of file may follow it. Output that
// ends without an answer is a failure of the function, whatever its exit code.
const (
	frameFile   = 'F'
	frameNote   = 'N'
	frameAnswer = 'A'
)

// MaxFileName is the length limit of a file frame's name, in bytes.
const MaxFileName = 200

// maxNote bounds one progress line; a longer one is cut by the writer and an
// error to the reader.
const maxNote = 4 << 10

// maxAnswerFrame is the largest answer that the length field is trusted with,
// whatever the reader's limits: an answer is read into memory.
const maxAnswerFrame = 1 << 30

// ReadLimits bounds what Read takes from a function. Zero means none of it.
type ReadLimits struct {
	Files       int   // number of file frames
	FileBytes   int64 // bytes of one file
	TotalBytes  int64 // bytes of all files together
	AnswerBytes int64 // bytes of the answer's JSON
	Notes       int   // progress lines that are passed on; more of them are dropped
}

// DefaultReadLimits suits one function: 2 GiB of output, an answer of 64 MiB,
// which holds the statistics of a table of some ten thousand parts, and as many
// notes as a person may want to read.
var DefaultReadLimits = ReadLimits{
	Files:       100_000,
	FileBytes:   2 << 30,
	TotalBytes:  2 << 30,
	AnswerBytes: 64 << 20,
	Notes:       1000,
}

// LimitError says which bound of ReadLimits a function's output exceeded.
type LimitError struct {
	What  string // "files", "file", "output", "answer"
	Name  string // the file's name, for "file"
	Limit int64  // bytes, or a number of files for "files"
}

func (e *LimitError) Error() string {
	switch e.What {
	case "files":
		return fmt.Sprintf("more than %d output files", e.Limit)
	case "file":
		return fmt.Sprintf("output file %q is over the limit of %s", e.Name, byteSize(e.Limit))
	case "output":
		return fmt.Sprintf("output over the quota of %s", byteSize(e.Limit))
	default:
		return fmt.Sprintf("%s is over the limit of %s", e.What, byteSize(e.Limit))
	}
}

// FormatError says that a function's output is not a sequence of frames.
type FormatError struct {
	Offset int64 // byte at which the bad frame starts
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("malformed output at byte %d: %s", e.Offset, e.Reason)
}

// ErrNoAnswer is what Read wraps when the output ends, between frames or within
// one, before an answer: the function died or never finished.
var ErrNoAnswer = errors.New("output ends without an answer")

// FileSink takes one file frame. It need not read all of r: the rest is
// skipped. size is what the frame announces; r fails with an error that wraps
// ErrNoAnswer if the output ends before that many bytes. A sink that gets a file
// which the function may not send returns a *FormatError: the fault is the
// function's.
type FileSink func(name string, size int64, r io.Reader) error

// CheckFileName reports whether name may be a file frame's name: 1 to
// MaxFileName bytes of [a-z0-9._-], not starting with a dot, so that it is safe
// as the name of a file in any directory.
func CheckFileName(name string) error {
	switch {
	case name == "":
		return errors.New("file name is empty")
	case len(name) > MaxFileName:
		return fmt.Errorf("file name has %d bytes, limit is %d", len(name), MaxFileName)
	case name[0] == '.':
		return fmt.Errorf("file name %q starts with a dot", name)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return fmt.Errorf("file name %q has a character outside a-z, 0-9, '.', '_' and '-'", name)
		}
	}
	return nil
}

// WriteFile writes one file frame of exactly size bytes of r. It fails if r
// holds fewer; the frame is then broken and w must not be used any more.
func WriteFile(w io.Writer, name string, size int64, r io.Reader) error {
	if err := CheckFileName(name); err != nil {
		return err
	}
	if size < 0 {
		return fmt.Errorf("file %q: negative size %d", name, size)
	}
	head := make([]byte, 0, 1+2+len(name)+8)
	head = append(head, frameFile)
	head = binary.BigEndian.AppendUint16(head, uint16(len(name)))
	head = append(head, name...)
	head = binary.BigEndian.AppendUint64(head, uint64(size))
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("write frame of file %q: %w", name, err)
	}
	if n, err := io.CopyN(w, r, size); err != nil {
		return fmt.Errorf("write file %q after %d of %d bytes: %w", name, n, size, err)
	}
	return nil
}

// WriteNote writes one line of progress. A text that is too long is cut, and
// bytes that are not UTF-8 are replaced: a note never fails for what it says.
func WriteNote(w io.Writer, text string) error {
	b := []byte(text)
	if !utf8.Valid(b) {
		b = []byte(string([]rune(text)))
	}
	if len(b) > maxNote {
		b = b[:maxNote]
		for !utf8.Valid(b) { // at most three steps: the cut was within one character
			b = b[:len(b)-1]
		}
	}
	return writeShort(w, frameNote, b)
}

// WriteAnswer writes the frame that ends the output.
func WriteAnswer(w io.Writer, a *Answer) error {
	// Not json.Marshal, which writes "<" as \u003c, in raw messages too: the bounds
	// in statistics would leave their canonical form.
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	if b.Len() > maxAnswerFrame {
		return fmt.Errorf("encode answer: %w", &LimitError{What: "answer", Limit: maxAnswerFrame})
	}
	return writeShort(w, frameAnswer, b.Bytes())
}

func writeShort(w io.Writer, kind byte, b []byte) error {
	buf := make([]byte, 0, 5+len(b))
	buf = append(buf, kind)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(b)))
	buf = append(buf, b...)
	if _, err := w.Write(buf); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// Read reads a function's whole output: each file goes to file as it comes, each
// note to note, and the answer is returned. Nothing but one note or the answer
// is held in memory, and no more than limits allow. A nil note drops notes; a
// nil file refuses files.
//
// The error is a *LimitError, a *FormatError, one wrapping ErrNoAnswer, an error
// of file as it is, or a failure to read r. An answer with UserError set is an
// answer, not an error. After an error r is in an undefined state.
func Read(r io.Reader, limits ReadLimits, file FileSink, note func(string)) (*Answer, error) {
	d := &decoder{r: bufio.NewReaderSize(r, 64<<10), limits: limits, file: file, note: note}
	for {
		d.start = d.off
		kind, err := d.r.ReadByte()
		if err == io.EOF {
			return nil, ErrNoAnswer
		}
		if err != nil {
			return nil, fmt.Errorf("read output: %w", err)
		}
		d.off++
		switch kind {
		case frameFile:
			err = d.readFile()
		case frameNote:
			err = d.readNote()
		case frameAnswer:
			return d.readAnswer()
		default:
			return nil, d.malformed("unknown frame kind 0x%02x (does the program print to standard output?)", kind)
		}
		if err != nil {
			return nil, err
		}
	}
}

type decoder struct {
	r      *bufio.Reader
	limits ReadLimits
	file   FileSink
	note   func(string)

	start, off int64 // of the current frame; of the next byte
	files      int
	notes      int
	total      int64
}

func (d *decoder) malformed(format string, args ...any) error {
	return &FormatError{Offset: d.start, Reason: fmt.Sprintf(format, args...)}
}

// full fills b or fails; an early end means that there will be no answer.
func (d *decoder) full(b []byte) error {
	n, err := io.ReadFull(d.r, b)
	d.off += int64(n)
	return d.short(err)
}

func (d *decoder) short(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it stops within a frame, after %d bytes", ErrNoAnswer, d.off)
	default:
		return fmt.Errorf("read output: %w", err)
	}
}

func (d *decoder) readFile() error {
	var short [2]byte
	if err := d.full(short[:]); err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint16(short[:]))
	if length > MaxFileName {
		return d.malformed("file name of %d bytes, limit is %d", length, MaxFileName)
	}
	nameBytes := make([]byte, length)
	if err := d.full(nameBytes); err != nil {
		return err
	}
	name := string(nameBytes)
	if err := CheckFileName(name); err != nil {
		return d.malformed("%v", err)
	}
	var long [8]byte
	if err := d.full(long[:]); err != nil {
		return err
	}
	usize := binary.BigEndian.Uint64(long[:])
	if usize > 1<<62 {
		return d.malformed("file %q of %d bytes", name, usize)
	}
	size := int64(usize)
	d.files++
	switch {
	case d.file == nil || d.files > d.limits.Files:
		return &LimitError{What: "files", Limit: int64(d.limits.Files)}
	case size > d.limits.TotalBytes-d.total:
		return &LimitError{What: "output", Limit: d.limits.TotalBytes}
	case size > d.limits.FileBytes:
		return &LimitError{What: "file", Name: name, Limit: d.limits.FileBytes}
	}
	d.total += size
	body := &fileBody{d: d, left: size}
	if err := d.file(name, size, body); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, body)
	return err
}

// fileBody reads the bytes of one file frame, and tells their early end apart
// from their regular one, so that a sink never takes a torn file for a whole one.
type fileBody struct {
	d    *decoder
	left int64
}

func (b *fileBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.d.r.Read(p)
	b.left -= int64(n)
	b.d.off += int64(n)
	if err == io.EOF && b.left == 0 {
		err = nil
	}
	return n, b.d.short(err)
}

// readShort reads a 4-byte length and that many bytes. The buffer grows with what
// arrives: an announced length alone takes no memory.
func (d *decoder) readShort(limit *LimitError) ([]byte, error) {
	var head [4]byte
	if err := d.full(head[:]); err != nil {
		return nil, err
	}
	length := int64(binary.BigEndian.Uint32(head[:]))
	if length > limit.Limit {
		return nil, limit
	}
	b, err := io.ReadAll(io.LimitReader(d.r, length))
	d.off += int64(len(b))
	if err == nil && int64(len(b)) < length {
		err = io.ErrUnexpectedEOF
	}
	return b, d.short(err)
}

func (d *decoder) readNote() error {
	b, err := d.readShort(&LimitError{What: "note", Limit: maxNote})
	if err != nil {
		return err
	}
	if !utf8.Valid(b) {
		return d.malformed("note is not UTF-8")
	}
	if d.notes++; d.note != nil && d.notes <= d.limits.Notes {
		d.note(string(b))
	}
	return nil
}

func (d *decoder) readAnswer() (*Answer, error) {
	b, err := d.readShort(&LimitError{What: "answer", Limit: min(d.limits.AnswerBytes, maxAnswerFrame)})
	if err != nil {
		return nil, err
	}
	var a *Answer
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, d.malformed("answer: %v", err)
	}
	if a == nil {
		return nil, d.malformed("answer is null")
	}
	d.start = d.off
	switch _, err := d.r.ReadByte(); {
	case err == nil:
		return nil, d.malformed("bytes after the answer")
	case err != io.EOF:
		return nil, fmt.Errorf("read output: %w", err)
	}
	return a, nil
}

// byteSize writes a size the way a user would set it: "2 GiB", "1.5 MiB".
func byteSize(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size {
			return strconv.FormatFloat(float64(n*10/u.size)/10, 'f', -1, 64) + " " + u.name
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
