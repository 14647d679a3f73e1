package wire

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"time"

	"github.com/klauspost/compress/zlib"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/pack"
)

// Pack writes a pack front to back. The first error sticks and is returned by
// Close; until then the oids of what was written are right all the same.
type Pack struct {
	w    io.Writer // nil: the oids are all that is wanted
	sum  hash.Hash
	err  error
	left int
	buf  [64 << 10]byte
}

// NewPack begins a pack of n objects. With a nil w it writes nothing and only
// names the objects, which a push has to do before it sends them.
func NewPack(w io.Writer, n int) *Pack {
	p := &Pack{w: w, sum: sha1.New(), left: n}
	p.write(pack.AppendHeader(nil, uint32(n)))
	return p
}

func (p *Pack) write(b []byte) {
	if p.err == nil && p.w != nil {
		p.sum.Write(b)
		_, p.err = p.w.Write(b)
	}
}

type packWriter struct{ p *Pack }

func (w packWriter) Write(b []byte) (int, error) {
	w.p.write(b)
	return len(b), w.p.err
}

// Object appends an object of size bytes out of r, deflated at a zlib level
// (0 stores), and returns its oid. It holds none of it in memory.
func (p *Pack) Object(t objects.Type, size int64, r io.Reader, level int) objects.OID {
	p.left--
	p.write(pack.AppendEntryHeader(nil, t, size))
	name := sha1.New()
	fmt.Fprintf(name, "%s %d\x00", t, size)
	out := io.Writer(name)
	zw, err := zlib.NewWriterLevel(packWriter{p}, level)
	if p.w != nil && err == nil {
		out = io.MultiWriter(zw, name)
	}
	n, copyErr := io.CopyBuffer(out, io.LimitReader(r, size), p.buf[:])
	if copyErr == nil && n != size {
		copyErr = fmt.Errorf("an object of %d bytes has only %d", size, n)
	}
	if err = errors.Join(err, copyErr); err == nil && p.w != nil {
		err = zw.Close()
	}
	if p.err == nil {
		p.err = err
	}
	return objects.OID(name.Sum(nil))
}

// Tree appends a tree of files; names must be in git's order.
func (p *Pack) Tree(names []string, oids []objects.OID) objects.OID {
	var b bytes.Buffer
	for i, name := range names {
		fmt.Fprintf(&b, "100644 %s\x00%s", name, oids[i][:])
	}
	return p.Object(objects.Tree, int64(b.Len()), &b, 1)
}

// Commit appends a commit.
func (p *Pack) Commit(tree objects.OID, message string, parents ...objects.OID) objects.OID {
	var b bytes.Buffer
	fmt.Fprintf(&b, "tree %s\n", hex.EncodeToString(tree[:]))
	for _, parent := range parents {
		fmt.Fprintf(&b, "parent %s\n", parent)
	}
	who := fmt.Sprintf("Wire <wire@example.com> %d +0000", time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
	fmt.Fprintf(&b, "author %s\ncommitter %s\n\n%s\n", who, who, message)
	return p.Object(objects.Commit, int64(b.Len()), &b, 1)
}

// Close writes the trailer.
func (p *Pack) Close() error {
	if p.err == nil && p.left != 0 {
		p.err = fmt.Errorf("the pack is %d objects short of its header", p.left)
	}
	sum := p.sum.Sum(nil)
	p.write(sum)
	return p.err
}

// Noise returns an endless stream of bytes that no compressor shortens, the same
// for the same seed.
func Noise(seed uint64) io.Reader {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	return rand.NewChaCha8(key)
}

// Sparse returns an endless stream that deflates to about a fiftieth: of each
// 64 KiB one KiB is noise, the rest is zero.
func Sparse(seed uint64) io.Reader { return &sparse{noise: Noise(seed)} }

type sparse struct {
	noise io.Reader
	at    int
}

func (s *sparse) Read(p []byte) (int, error) {
	const every, full = 64 << 10, 1 << 10
	n := 0
	for n < len(p) {
		if s.at < full {
			k := min(full-s.at, len(p)-n)
			if _, err := io.ReadFull(s.noise, p[n:n+k]); err != nil {
				return n, err
			}
			n, s.at = n+k, s.at+k
			continue
		}
		k := min(every-s.at, len(p)-n)
		clear(p[n : n+k])
		n, s.at = n+k, (s.at+k)%every
	}
	return n, nil
}

// Parts returns the tip of a commit of one table of n blobs, size bytes together,
// and what writes its pack. The contents are made up while they are hashed and
// again while they are sent, so nothing is held; content must return the same
// bytes each time.
func Parts(size int64, n int, content func(i int) io.Reader, level int) (tip objects.OID, write func(io.Writer) error) {
	fill := func(w io.Writer, level int) (objects.OID, error) {
		p := NewPack(w, n+2)
		names, oids := make([]string, n), make([]objects.OID, n)
		for i := range n {
			each := size / int64(n)
			if i == 0 {
				each += size % int64(n)
			}
			names[i] = fmt.Sprintf("%04d.parquet", i)
			oids[i] = p.Object(objects.Blob, each, content(i), level)
		}
		tip := p.Commit(p.Tree(names, oids), "Parts")
		return tip, p.Close()
	}
	var err error
	tip, err = fill(nil, 0)
	return tip, func(w io.Writer) error {
		if err != nil {
			return err
		}
		sent, err := fill(w, level)
		if err == nil && sent != tip {
			err = fmt.Errorf("the second time, the content was another")
		}
		return err
	}
}
