package objects

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/pack"
)

// delta is a delta that waits for its base, in the spool.
type delta struct {
	entry        int // index into ingest.entries
	offset, size int64
}

// spool keeps waiting deltas on disk: their number and size are the client's choice.
type spool struct {
	f   *os.File
	end int64
}

// wait spools the current entry's delta.
func (in *ingest) wait(e pack.Entry) (delta, error) {
	if e.Size > in.limits.ObjectBytes {
		return delta{}, in.over("object-bytes", "a delta of %d bytes is over the limit of %d bytes", e.Size, in.limits.ObjectBytes)
	}
	if in.spool.f == nil {
		f, err := os.CreateTemp(in.q.dir, "deltas-")
		if err != nil {
			return delta{}, err
		}
		in.spool.f = f
	}
	if err := in.copyData(&meter{in, in.spool.f}); err != nil {
		return delta{}, err
	}
	d := delta{entry: len(in.entries) - 1, offset: in.spool.end, size: e.Size}
	in.spool.end += e.Size
	in.pending++
	return d, nil
}

func (in *ingest) closeSpool() error {
	if in.spool.f == nil {
		return nil
	}
	return errors.Join(in.spool.f.Close(), os.Remove(in.spool.f.Name()))
}

// settle lands the deltas whose bases came after them.
func (in *ingest) settle() error {
	type job struct {
		base OID
		d    delta
	}
	var ready []job
	release := func(oid OID) {
		for _, d := range in.byOID[oid] {
			ready = append(ready, job{oid, d})
		}
		delete(in.byOID, oid)
	}
	for oid := range in.byOID {
		known, err := in.q.has(in.ctx, oid)
		if err != nil {
			return err
		}
		if known {
			release(oid)
		}
	}
	for len(ready) > 0 {
		j := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		in.at = in.entries[j.d.entry].offset
		oid, err := in.landDelta(j.base, io.NewSectionReader(in.spool.f, j.d.offset, j.d.size))
		if err != nil {
			return err
		}
		in.pending--
		in.entries[j.d.entry].oid = oid
		release(oid)
		for _, d := range in.byBase[j.d.entry] {
			ready = append(ready, job{oid, d})
		}
		delete(in.byBase, j.d.entry)
	}
	if in.pending > 0 {
		for base := range in.byOID {
			return &IngestError{
				Reason: fmt.Sprintf("the pack has a delta against object %s, which is neither in the pack nor in the lake", base),
				Err:    notFound(base),
			}
		}
	}
	return nil
}

// landDelta applies a delta, which it reads to its end, and lands the result.
func (in *ingest) landDelta(base OID, r io.Reader) (OID, error) {
	depth := in.depths[base] + 1
	if depth > in.limits.DeltaDepth {
		return OID{}, in.over("delta-depth", "a chain of more than %d deltas", in.limits.DeltaDepth)
	}
	d, err := pack.NewDelta(r)
	if err != nil {
		return OID{}, err
	}
	b, err := in.openBase(base)
	if err != nil {
		return OID{}, err
	}
	defer b.Close()
	if d.BaseSize != b.info.Size {
		return OID{}, in.refuse("a delta wants a base of %d bytes, object %s has %d", d.BaseSize, base, b.info.Size)
	}
	if err := in.checkSize(b.info.Type, d.Size); err != nil {
		return OID{}, err
	}
	oid, err := in.landObject(b.info.Type, d.Size, func(w io.Writer) error {
		// The delta's commands are often tiny, and each would be a system call.
		bw := writeBuffer{w: w, buf: make([]byte, 0, min(d.Size, 64<<10))}
		if err := d.Apply(b, &bw); err != nil {
			return err
		}
		return bw.flush()
	})
	if err != nil {
		return OID{}, err
	}
	if b.info.Type != Blob || d.Size < in.q.s.threshold {
		in.cache.add(oid, b.info.Type, in.buf)
	}
	if in.depths[oid] == 0 {
		in.depths[oid] = depth
	}
	return oid, nil
}

type writeBuffer struct {
	w   io.Writer
	buf []byte
}

func (b *writeBuffer) Write(p []byte) (int, error) {
	if len(b.buf)+len(p) > cap(b.buf) {
		if err := b.flush(); err != nil {
			return 0, err
		}
		if len(p) > cap(b.buf) {
			return b.w.Write(p)
		}
	}
	b.buf = append(b.buf, p...)
	return len(p), nil
}

func (b *writeBuffer) flush() error {
	if len(b.buf) == 0 {
		return nil
	}
	_, err := b.w.Write(b.buf)
	b.buf = b.buf[:0]
	return err
}

// base is an object to copy from: a small one in memory, a raw blob where it is.
type base struct {
	io.ReaderAt
	info  Info
	close func() error
}

func (b *base) Close() error {
	if b.close == nil {
		return nil
	}
	return b.close()
}

func (in *ingest) openBase(oid OID) (*base, error) {
	if c, ok := in.cache.get(oid); ok {
		return &base{ReaderAt: bytes.NewReader(c.data), info: Info{Type: c.t, Size: int64(len(c.data))}}, nil
	}
	info, f, data, err := in.q.openOwn(oid)
	if err != nil {
		return nil, err
	}
	if f != nil {
		return &base{ReaderAt: f, info: info, close: f.Close}, nil
	}
	s := in.q.s
	if data == nil {
		var ok bool
		if info.Type, data, ok, err = s.object(in.ctx, oid, in.q.hides()); err != nil {
			return nil, err
		}
		if !ok {
			return s.openRawBase(in.ctx, oid, in.q.hides())
		}
		info.Size = int64(len(data))
	}
	in.cache.add(oid, info.Type, data)
	return &base{ReaderAt: bytes.NewReader(data), info: info}, nil
}

func (s *Store) openRawBase(ctx context.Context, oid OID, hide bool) (*base, error) {
	size, err := s.rawSize(ctx, oid, hide)
	if err != nil {
		return nil, err
	}
	info := Info{Type: Blob, Size: size}
	if o, ok := s.b.(backend.Opener); ok {
		f, err := o.OpenAt(ctx, rawKey(oid))
		if err != nil {
			return nil, err
		}
		return &base{ReaderAt: f, info: info, close: f.Close}, nil
	}
	return &base{ReaderAt: rangeReader{ctx, s.b, rawKey(oid)}, info: info}, nil
}

// rangeReader reads a key at random where the backend keeps nothing open.
type rangeReader struct {
	ctx context.Context
	b   backend.Backend
	key string
}

func (r rangeReader) ReadAt(p []byte, off int64) (int, error) {
	rc, err := r.b.Get(r.ctx, r.key, off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(rc, p)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, errors.Join(err, rc.Close())
}

// baseCache keeps recent small bases: the links of a chain come one after another.
type baseCache struct {
	limit int
	bytes int
	order *list.List // of *cachedBase, the most recent in front
	byOID map[OID]*list.Element
}

type cachedBase struct {
	oid  OID
	t    Type
	data []byte
}

const (
	cacheBytes = 32 << 20
	cacheEntry = 4 << 20 // larger ones would push out everything else
)

func newBaseCache(limit int) *baseCache {
	return &baseCache{limit: limit, order: list.New(), byOID: make(map[OID]*list.Element)}
}

// add keeps a copy of data.
func (c *baseCache) add(oid OID, t Type, data []byte) {
	if _, ok := c.byOID[oid]; ok || len(data) > cacheEntry {
		return
	}
	c.byOID[oid] = c.order.PushFront(&cachedBase{oid, t, bytes.Clone(data)})
	for c.bytes += len(data); c.bytes > c.limit; {
		last := c.order.Remove(c.order.Back()).(*cachedBase)
		c.bytes -= len(last.data)
		delete(c.byOID, last.oid)
	}
}

func (c *baseCache) get(oid OID) (*cachedBase, bool) {
	e, ok := c.byOID[oid]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cachedBase), true
}
