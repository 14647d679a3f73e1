package pack

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/adler32"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"

	"github.com/headgate/headgate/objects/gitobj"
)

// Reader is where a Writer takes objects from.
type Reader interface {
	Open(ctx context.Context, oid OID) (gitobj.Info, io.ReadCloser, error)
}

// Deflater is the optional ability of a Reader to give an object's zlib stream
// as it is stored, so that it need not be deflated again. ok is false if the
// object is not stored like that, or not there.
type Deflater interface {
	Deflated(ctx context.Context, oid OID) (info gitobj.Info, stream []byte, ok bool, err error)
}

// RawOpener is the optional ability of a Reader to open a blob without hashing
// it again: whoever receives the pack names each object by its content anyway.
// ok is false if the object is not stored raw.
type RawOpener interface {
	OpenRaw(ctx context.Context, oid OID) (size int64, rc io.ReadCloser, ok bool, err error)
}

// SumKeeper is the optional ability of a Reader to remember the Adler-32 that ends
// a raw blob's zlib stream: a quarter of what serving one costs is that sum.
type SumKeeper interface {
	Adler32(oid OID) (sum uint32, ok bool)
	KeepAdler32(oid OID, sum uint32)
}

// Packed is an object as a pack holds it: whole, or what makes it of another one.
type Packed struct {
	Type   Type   // of a whole object
	Base   OID    // of a delta; zero if the object is whole
	Size   int64  // inflated, of the object or of the delta
	Stream []byte // zlib, valid until the next call
}

// PackedReader gives objects as they are packed. ok is false for one that is not
// in a pack. Following bases ends at a whole object. It is not safe for concurrent use.
type PackedReader interface {
	Packed(ctx context.Context, oid OID) (p Packed, ok bool, err error)
}

// PackedOpener is the optional ability of a Reader to read many objects as they
// are packed.
type PackedOpener interface {
	OpenPacked() PackedReader
}

// Placement says of objects where they are, for deltas to name them.
type Placement interface {
	// Sent reports whether the object is to be part of this pack.
	Sent(oid OID) bool
	// Known reports whether the receiver has the object, so that it can be named
	// as a base without being sent.
	Known(oid OID) bool
	// Offset returns what SetOffset was given for the object; 0 if nothing yet.
	Offset(oid OID) uint32
	SetOffset(oid OID, off uint32)
}

// farAway is the offset of what cannot be named by one that is kept in 32 bits.
const farAway = 1<<32 - 1

// storeFrom is the size from which a blob goes out as stored blocks: deflating
// is an order of magnitude dearer than sending, and large blobs are compressed
// Parquet. It only matters for a Reader that is no Deflater.
const storeFrom = 32 << 10

const (
	maxStored    = 0xffff // of one stored block, RFC 1951 section 3.2.4
	blockHeader  = 5
	blocksAtOnce = 4 // what is read is hashed and sent while it is in the processor's cache
)

// Writer writes a pack front to back: of whole objects or, after ReuseDeltas, of
// deltas too where the reader has them. It is not safe for concurrent use; after
// an error it must not be used again.
type Writer struct {
	out    io.Writer
	r      Reader
	sum    hash.Hash
	left   int
	zw     *zlib.Writer
	buf    []byte
	err    error
	at     int64 // bytes written
	deltas int

	packed    PackedReader // nil if the reader has none
	places    Placement    // nil: objects are written whole
	byOffsets bool
}

// NewWriter returns a writer of a pack of exactly n objects out of r.
func NewWriter(w io.Writer, r Reader, n int) *Writer {
	pw := &Writer{out: w, r: r, sum: sha1.New(), left: n}
	if o, ok := r.(PackedOpener); ok {
		pw.packed = o.OpenPacked()
	}
	if n < 0 || int64(n) > 0xffffffff {
		pw.err = fmt.Errorf("a pack cannot hold %d objects", n)
		return pw
	}
	pw.write(AppendHeader(nil, uint32(n)))
	return pw
}

// ReuseDeltas lets objects be written as the deltas that they are stored as, if
// the receiver gets or has their bases. byOffset lets them name a base in front
// of them by the distance to it (git's ofs-delta), which is shorter than by name.
// An object that a delta needs is written before it. It must be called before the
// first object, and does nothing if the reader stores no deltas.
func (w *Writer) ReuseDeltas(places Placement, byOffset bool) {
	if w.packed != nil {
		w.places, w.byOffsets = places, byOffset
	}
}

// Deltas returns how many of the objects were written as deltas.
func (w *Writer) Deltas() int { return w.deltas }

func (w *Writer) write(p []byte) {
	if w.err != nil {
		return
	}
	w.at += int64(len(p))
	w.sum.Write(p)
	_, w.err = w.out.Write(p)
}

type writerOnly struct{ w *Writer }

func (o writerOnly) Write(p []byte) (int, error) {
	o.w.write(p)
	if o.w.err != nil {
		return 0, o.w.err
	}
	return len(p), nil
}

// WriteObject appends one object, if it was not written already as the base of
// another one.
func (w *Writer) WriteObject(ctx context.Context, oid OID) error {
	if w.err != nil {
		return w.err
	}
	// Bases first: each is written when the one below it is.
	chain := []OID{oid}
	var deltas []Packed // of the chain's objects, but perhaps the last
	var whole Packed    // the last one, if it is packed whole
	for w.packed != nil {
		last := chain[len(chain)-1]
		if w.places != nil && w.places.Offset(last) != 0 {
			chain = chain[:len(chain)-1]
			break
		}
		p, ok, err := w.packed.Packed(ctx, last)
		if err != nil {
			w.err = fmt.Errorf("write %s: %w", last, err)
			return w.err
		}
		if ok && p.Base.IsZero() {
			whole = p
			break
		}
		if !ok || w.places == nil {
			break
		}
		sent := w.places.Sent(p.Base)
		if !sent && !w.places.Known(p.Base) {
			break
		}
		p.Stream = bytes.Clone(p.Stream)
		deltas = append(deltas, p)
		if !sent {
			break // the receiver has the base
		}
		if len(chain) == maxChain {
			w.err = fmt.Errorf("write %s: it is stored as a chain of more than %d deltas", oid, maxChain)
			return w.err
		}
		chain = append(chain, p.Base)
	}
	for i := len(chain) - 1; i >= 0 && w.err == nil; i-- {
		if w.left == 0 {
			w.err = errors.New("more objects than the pack's header says")
			break
		}
		w.left--
		at := w.at
		var err error
		switch {
		case i < len(deltas):
			err = w.writeDelta(at, deltas[i])
		case whole.Stream != nil:
			w.write(AppendEntryHeader(nil, whole.Type, whole.Size))
			w.write(whole.Stream)
		default:
			err = w.writeObject(ctx, chain[i])
		}
		if err != nil && w.err == nil {
			w.err = fmt.Errorf("write %s: %w", chain[i], err)
		}
		if w.places != nil {
			w.places.SetOffset(chain[i], uint32(min(at, farAway)))
		}
	}
	return w.err
}

// maxChain ends a chain of deltas that bites its own tail. No store has longer ones.
const maxChain = 4096

// writeDelta writes a delta whose base is in front of it, or with the receiver.
func (w *Writer) writeDelta(at int64, d Packed) error {
	w.deltas++
	if off := w.places.Offset(d.Base); w.byOffsets && off != 0 && off != farAway {
		w.write(AppendDistance(AppendEntryHeader(nil, plumbing.OFSDeltaObject, d.Size), at-int64(off)))
	} else {
		w.write(append(AppendEntryHeader(nil, plumbing.REFDeltaObject, d.Size), d.Base[:]...))
	}
	w.write(d.Stream)
	return w.err
}

func (w *Writer) writeObject(ctx context.Context, oid OID) error {
	if d, ok := w.r.(Deflater); ok {
		info, stream, ok, err := d.Deflated(ctx, oid)
		if err != nil {
			return err
		}
		if ok {
			w.write(AppendEntryHeader(nil, info.Type, info.Size))
			w.write(stream)
			return w.err
		}
	}
	if o, ok := w.r.(RawOpener); ok {
		size, rc, ok, err := o.OpenRaw(ctx, oid)
		if err != nil {
			return err
		}
		if ok {
			return errors.Join(w.storeKnown(ctx, oid, size, rc), rc.Close())
		}
	}
	info, rc, err := w.r.Open(ctx, oid)
	if err != nil {
		return err
	}
	defer rc.Close()
	if info.Type == plumbing.BlobObject && info.Size >= storeFrom {
		_, err := w.store(ctx, info.Size, rc, nil)
		return err
	}
	return w.deflate(info, rc)
}

func (w *Writer) deflate(info gitobj.Info, r io.Reader) error {
	w.write(AppendEntryHeader(nil, info.Type, info.Size))
	if w.zw == nil {
		w.zw = zlib.NewWriter(writerOnly{w})
	} else {
		w.zw.Reset(writerOnly{w})
	}
	n, err := io.Copy(w.zw, r)
	if err != nil {
		return err
	}
	if n != info.Size {
		return fmt.Errorf("object has %d bytes, expected %d", n, info.Size)
	}
	return w.zw.Close()
}

// storeKnown is store with the sum that the reader remembers, or will.
func (w *Writer) storeKnown(ctx context.Context, oid OID, size int64, r io.Reader) error {
	k, keeps := w.r.(SumKeeper)
	if !keeps {
		_, err := w.store(ctx, size, r, nil)
		return err
	}
	if sum, ok := k.Adler32(oid); ok {
		// Content that is no longer what it was does not match, and no client takes it.
		_, err := w.store(ctx, size, r, &sum)
		return err
	}
	sum, err := w.store(ctx, size, r, nil)
	if err == nil {
		k.KeepAdler32(oid, sum)
	}
	return err
}

// store writes a blob as a zlib stream of stored blocks: 5 bytes of overhead
// for 64 KiB, at the speed of the checksums. It returns the Adler-32 of the
// content, which is computed unless it is known.
func (w *Writer) store(ctx context.Context, size int64, r io.Reader, known *uint32) (uint32, error) {
	w.write(AppendEntryHeader(nil, plumbing.BlobObject, size))
	w.write([]byte{0x78, 0x01}) // deflate, 32 KiB window, fastest
	if w.buf == nil {
		w.buf = make([]byte, 0, blocksAtOnce*(blockHeader+maxStored))
	}
	adler := adler32.New()
	for left := size; ; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		w.buf = w.buf[:0]
		for range blocksAtOnce {
			n := int(min(left, maxStored))
			left -= int64(n)
			var final byte
			if left == 0 {
				final = 1
			}
			w.buf = append(w.buf, final, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
			at := len(w.buf)
			w.buf = w.buf[:at+n]
			if _, err := io.ReadFull(r, w.buf[at:]); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return 0, err
			}
			if known == nil {
				adler.Write(w.buf[at:])
			}
			if left == 0 {
				break
			}
		}
		w.write(w.buf)
		if w.err != nil {
			return 0, w.err
		}
		if left == 0 {
			break
		}
	}
	// A verifying reader says only at its end that the content was wrong.
	if n, err := r.Read(make([]byte, 1)); n > 0 || err != nil && err != io.EOF {
		if n > 0 {
			err = fmt.Errorf("object has more than %d bytes", size)
		}
		return 0, err
	}
	sum := adler.Sum32()
	if known != nil {
		sum = *known
	}
	w.write(binary.BigEndian.AppendUint32(nil, sum))
	return sum, w.err
}

// Close writes the trailer and returns it. It does not close the stream below.
// The pack is whole only if Close returns nil.
func (w *Writer) Close() (OID, error) {
	if w.err == nil && w.left > 0 {
		w.err = fmt.Errorf("%d objects fewer than the pack's header says", w.left)
	}
	if w.err != nil {
		return OID{}, w.err
	}
	var sum OID
	w.sum.Sum(sum[:0])
	if _, err := w.out.Write(sum[:]); err != nil {
		w.err = err
		return OID{}, err
	}
	w.err = errors.New("pack is closed")
	return sum, nil
}
