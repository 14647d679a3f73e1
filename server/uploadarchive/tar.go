package uploadarchive

import (
	"bytes"
	"fmt"
	"io"
	"strconv"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// item is one thing in an archive.
type item struct {
	path string // with the prefix; a directory's ends in a slash
	mode gitobj.Mode
	oid  objects.OID
	size int64     // of a file or a link
	data io.Reader // of a file; nil else
	link string    // of a symbolic link
}

// writer writes one format.
type writer interface {
	add(item) error
	// Close ends the archive; it does not close what it is written to.
	Close() error
}

const (
	tarRecord = 512
	tarBlock  = 20 * tarRecord
	tarUmask  = 0o002 // git's default of tar.umask
	// What does not fit into 11 octal digits is written as a pax header.
	tarMaxNumber = 0o77777777777

	tarFile, tarLink, tarDir, tarPax, tarGlobal = '0', '2', '5', 'x', 'g'
)

// tarWriter writes the very bytes of git archive --format=tar (archive-tar.c),
// which differ from those of Go's archive/tar in the checksum's field, the split
// of long names and the padding.
type tarWriter struct {
	w       io.Writer
	seconds int64 // of every entry
	n       int64
}

// newTarWriter begins an archive. commit, if it is not zero, is put where git
// get-tar-commit-id finds it.
func newTarWriter(w io.Writer, commit objects.OID, seconds int64) (*tarWriter, error) {
	t := &tarWriter{w: w, seconds: seconds}
	var ext []byte
	if !commit.IsZero() {
		ext = paxRecord(ext, "comment", commit.String())
	}
	if seconds > tarMaxNumber {
		ext = paxRecord(ext, "mtime", strconv.FormatInt(seconds, 10))
		t.seconds = tarMaxNumber
	}
	if ext == nil {
		return t, nil
	}
	return t, t.record(tarHeader{name: "pax_global_header", mode: 0o666, kind: tarGlobal, size: int64(len(ext))}, bytes.NewReader(ext))
}

// paxRecord appends "<length> <key>=<value>\n"; the length counts itself.
func paxRecord(b []byte, key, value string) []byte {
	n := len(key) + len(value) + 3
	digits := len(strconv.Itoa(n))
	for len(strconv.Itoa(n+digits)) > digits {
		digits++
	}
	return fmt.Appendf(b, "%d %s=%s\n", n+digits, key, value)
}

func (t *tarWriter) add(it item) error {
	h := tarHeader{size: it.size, mode: uint32(it.mode) & 0o7777}
	switch it.mode {
	case gitobj.ModeTree, gitobj.ModeGitlink:
		h.kind, h.size, h.mode = tarDir, 0, 0o777&^tarUmask
	case gitobj.ModeSymlink:
		h.kind, h.size, h.mode = tarLink, 0, 0o777
	case gitobj.ModeExec:
		h.kind, h.mode = tarFile, 0o777&^tarUmask
	default:
		h.kind, h.mode = tarFile, 0o666&^tarUmask
	}
	var ext []byte
	if len(it.path) <= tarNameLen {
		h.name = it.path
	} else if i := splitPath(it.path); i > 0 && len(it.path)-i-1 <= tarNameLen {
		h.prefix, h.name = it.path[:i], it.path[i+1:]
	} else {
		h.name = it.oid.String() + ".data"
		ext = paxRecord(ext, "path", it.path)
	}
	if it.mode == gitobj.ModeSymlink {
		h.link = it.link
		if len(it.link) > tarNameLen {
			h.link = "see " + it.oid.String() + ".paxheader"
			ext = paxRecord(ext, "linkpath", it.link)
		}
	}
	if h.size > tarMaxNumber {
		ext = paxRecord(ext, "size", strconv.FormatInt(h.size, 10))
		h.size = 0
	}
	if ext != nil {
		x := tarHeader{name: it.oid.String() + ".paxheader", mode: 0o666, kind: tarPax, size: int64(len(ext))}
		if err := t.record(x, bytes.NewReader(ext)); err != nil {
			return err
		}
	}
	return t.record(h, it.data)
}

const (
	tarNameLen   = 100
	tarPrefixLen = 155
)

// splitPath returns where a long path's prefix ends.
func splitPath(path string) int {
	i := len(path)
	if i > 1 && path[i-1] == '/' {
		i--
	}
	i = min(i, tarPrefixLen)
	for i--; i > 0 && path[i] != '/'; i-- {
	}
	return i
}

type tarHeader struct {
	name, prefix, link string
	mode               uint32
	size               int64
	kind               byte
}

// record writes a header and its data, padded to whole records.
func (t *tarWriter) record(h tarHeader, data io.Reader) error {
	var b [tarRecord]byte
	copy(b[:], h.name)
	number := func(at, digits int, v int64) { copy(b[at:], fmt.Sprintf("%0*o", digits, v)) }
	number(100, 7, int64(h.mode))
	number(108, 7, 0) // uid
	number(116, 7, 0) // gid
	number(124, 11, h.size)
	number(136, 11, t.seconds)
	b[156] = h.kind
	copy(b[157:], h.link)
	copy(b[257:], "ustar\x0000")
	copy(b[265:], "root")
	copy(b[297:], "root")
	number(329, 7, 0) // device
	number(337, 7, 0)
	copy(b[345:345+tarPrefixLen], h.prefix)
	sum := int64(8 * ' ') // the checksum's own field
	for _, c := range b {
		sum += int64(c)
	}
	number(148, 7, sum)
	if err := t.write(b[:]); err != nil {
		return err
	}
	if data == nil {
		return nil
	}
	n, err := io.Copy(t.w, data)
	t.n += n
	if err != nil {
		return err
	}
	return t.pad(tarRecord)
}

func (t *tarWriter) write(b []byte) error {
	n, err := t.w.Write(b)
	t.n += int64(n)
	return err
}

func (t *tarWriter) pad(to int64) error {
	if over := t.n % to; over > 0 {
		return t.write(make([]byte, to-over))
	}
	return nil
}

// Close writes at least two empty records, to the end of a block.
func (t *tarWriter) Close() error {
	if err := t.write(make([]byte, 2*tarRecord)); err != nil {
		return err
	}
	return t.pad(tarBlock)
}
