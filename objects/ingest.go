package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/pack"
)

// IngestError says what is wrong with a pack. Its text is one sentence that the
// client may see.
type IngestError struct {
	Offset int64 // of the entry at fault, from the start of the pack
	Reason string
	Err    error // the cause below, if there is one
}

func (e *IngestError) Error() string { return e.Reason }

func (e *IngestError) Unwrap() error { return e.Err }

// IngestStats is what a pack turned out to be.
type IngestStats struct {
	Objects     int   // entries, known objects too
	Deltas      int   // of these
	RawBlobs    int   // of these, those that went to files of their own
	PackBytes   int64 // length of the pack
	ObjectBytes int64 // of all objects, inflated
	Checksum    OID   // the pack's trailer
}

// Ingest takes one pack out of r, a thin one too, checking each object as it
// lands. It holds no large blob in memory. If r is a *bufio.Reader it is read
// exactly to the pack's end; of any other reader more may have been consumed.
//
// The error is an *IngestError if the pack is at fault, wraps ErrNoSpace if the
// disk is full, else r or the disk failed. After an error the quarantine holds some of the pack's objects, and
// should be discarded.
func (q *Quarantine) Ingest(ctx context.Context, r io.Reader, limits Limits) (IngestStats, error) {
	limits = limits.withDefaults()
	in := &ingest{
		ctx:    ctx,
		q:      q,
		limits: limits,
		sc:     pack.NewScanner(r, limits.PackBytes),
		room:   room{share: limits.Staging, dir: q.dir},
		chunk:  make([]byte, 64<<10),
		cache:  newBaseCache(cacheBytes),
		depths: make(map[OID]int),
		byOID:  make(map[OID][]delta),
		byBase: make(map[int][]delta),
	}
	err := in.run()
	in.stats.PackBytes = in.sc.Offset()
	return in.stats, errors.Join(in.explain(err), in.sc.Close(), in.closeSpool())
}

// ingest is the state of one pack on its way in.
type ingest struct {
	ctx    context.Context
	q      *Quarantine
	limits Limits
	room   room
	sc     *pack.Scanner
	stats  IngestStats
	at     int64  // offset of the current entry
	buf    []byte // the small object at hand
	chunk  []byte // what is copied at once
	cache  *baseCache

	entries []landed    // in the order of the pack, so sorted by offset
	depths  map[OID]int // of objects that came as deltas

	spool   spool
	byOID   map[OID][]delta // deltas whose base has not been seen
	byBase  map[int][]delta // deltas upon such deltas, by index of the base
	pending int
}

// landed is an entry that has been seen; oid is zero as long as it waits.
type landed struct {
	offset int64
	oid    OID
}

// over makes an IngestError about a limit of the server's, and names the flag
// that an administrator sets it with.
func (in *ingest) over(flag, format string, args ...any) error {
	return in.refuse(format+" (the server's --max-push-%s)", append(args, flag)...)
}

// refuse makes an IngestError about the current entry.
func (in *ingest) refuse(format string, args ...any) error {
	return &IngestError{Offset: in.at, Reason: fmt.Sprintf(format, args...)}
}

// explain turns errors that are the pack's fault into an *IngestError.
func (in *ingest) explain(err error) error {
	if err == nil {
		return nil
	}
	var already *IngestError
	var format *pack.FormatError
	var check *gitobj.CheckError
	switch {
	case errors.As(err, &already):
		return already
	case errors.As(err, &format) && errors.Is(format.Err, pack.ErrTooLarge):
		return in.over("bytes", "the pack is larger than the limit of %d bytes", in.limits.PackBytes)
	case errors.As(err, &format):
		return &IngestError{Offset: format.Offset, Reason: fmt.Sprintf("%s (byte %d)", format.Reason, format.Offset), Err: err}
	case pack.IsDeltaError(err):
		return &IngestError{Offset: in.at, Reason: fmt.Sprintf("the entry at byte %d: %v", in.at, err), Err: err}
	case errors.As(err, &check), errors.Is(err, errCollision):
		return &IngestError{Offset: in.at, Reason: err.Error(), Err: err}
	}
	return outOfSpace(err)
}

func (in *ingest) run() error {
	count, err := in.sc.Count()
	if err != nil {
		return err
	}
	if int64(count) > int64(in.limits.Objects) {
		return in.over("objects", "the pack has %d objects, the limit is %d", count, in.limits.Objects)
	}
	for {
		if err := in.ctx.Err(); err != nil {
			return err
		}
		e, err := in.sc.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		in.at = e.Offset
		in.stats.Objects++
		in.entries = append(in.entries, landed{offset: e.Offset})
		oid, err := in.land(e)
		if err != nil {
			return err
		}
		in.entries[len(in.entries)-1].oid = oid
	}
	in.stats.Checksum = in.sc.Checksum()
	return in.settle()
}

// land takes the current entry. It returns the zero oid for a delta that has to
// wait for its base.
func (in *ingest) land(e pack.Entry) (OID, error) {
	switch e.Type {
	case plumbing.OFSDeltaObject:
		in.stats.Deltas++
		i := sort.Search(len(in.entries), func(i int) bool { return in.entries[i].offset >= e.BaseOffset })
		if i == len(in.entries) || in.entries[i].offset != e.BaseOffset {
			return OID{}, in.refuse("the delta at byte %d has its base at byte %d, where no object begins", e.Offset, e.BaseOffset)
		}
		if base := in.entries[i].oid; !base.IsZero() {
			return in.landDelta(base, in.sc.Data())
		}
		d, err := in.wait(e)
		in.byBase[i] = append(in.byBase[i], d)
		return OID{}, err
	case plumbing.REFDeltaObject:
		in.stats.Deltas++
		known, err := in.q.has(in.ctx, e.Base)
		if err != nil {
			return OID{}, err
		}
		if known {
			return in.landDelta(e.Base, in.sc.Data())
		}
		d, err := in.wait(e)
		in.byOID[e.Base] = append(in.byOID[e.Base], d)
		return OID{}, err
	}
	if err := in.checkSize(e.Type, e.Size); err != nil {
		return OID{}, err
	}
	oid, err := in.landObject(e.Type, e.Size, func(w io.Writer) error {
		return in.copyData(w)
	})
	if err == nil && e.Type == plumbing.BlobObject && e.Size >= in.q.s.threshold {
		in.q.s.KeepAdler32(oid, in.sc.Adler32())
	}
	return oid, err
}

// copyData copies and verifies the current entry's data.
func (in *ingest) copyData(w io.Writer) error {
	_, err := io.CopyBuffer(w, in.sc.Data(), in.chunk)
	return err
}

func (in *ingest) checkSize(t Type, size int64) error {
	limit := int64(gitobj.MaxBytes)
	if t == Blob {
		limit = in.limits.ObjectBytes
	}
	if size > limit {
		if t != Blob {
			return in.refuse("a %s of %d bytes is over the limit of %d bytes", t, size, limit)
		}
		return in.over("object-bytes", "a blob of %d bytes is over the limit of %d bytes", size, limit)
	}
	return nil
}

// landObject puts an object of a checked size where it belongs. write must
// write exactly size bytes and have its source verified when it returns.
func (in *ingest) landObject(t Type, size int64, write func(io.Writer) error) (OID, error) {
	if t == Blob && size >= in.q.s.threshold {
		in.stats.RawBlobs++
		return in.q.landRaw(in.ctx, size, func(w io.Writer) error { return write(&meter{in, w}) })
	}
	in.buf = in.buf[:0]
	if err := write(&meter{in, (*appender)(&in.buf)}); err != nil {
		return OID{}, err
	}
	if int64(len(in.buf)) != size {
		return OID{}, in.refuse("an object has %d bytes, its header says %d", len(in.buf), size)
	}
	return in.q.landSmall(in.ctx, t, in.buf)
}

// appender gathers a small object. It grows with what has really come, not with
// what a header promised.
type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

// meter counts inflated bytes, and stops a pack that inflates without measure or
// that the disk has no room for. Small objects are deflated again before they get
// there, and what is known already is removed again: the count is an upper bound.
type meter struct {
	in *ingest
	w  io.Writer
}

func (m *meter) Write(p []byte) (int, error) {
	in := m.in
	if err := in.ctx.Err(); err != nil {
		return 0, err
	}
	in.stats.ObjectBytes += int64(len(p))
	if over := in.stats.ObjectBytes - in.limits.InflateFree; over > 0 && over/in.limits.InflateRatio > in.sc.Offset() {
		return 0, in.over("inflation", "the pack inflates to more than %d times its size", in.limits.InflateRatio)
	}
	if err := in.room.take(int64(len(p))); err != nil {
		return 0, err
	}
	return m.w.Write(p)
}
