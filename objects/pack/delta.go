package pack

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Delta is a stream of git's delta format: two sizes, then commands that copy
// from a base or insert bytes of their own. See gitformat-pack(5), "Deltified
// representation".
type Delta struct {
	BaseSize int64
	Size     int64 // of the result

	r   io.Reader
	br  *bufio.Reader
	buf []byte
}

var errDelta = errors.New("bad delta")

// NewDelta reads the two sizes in front of a delta. Errors of r pass through;
// an error of the format wraps none of them.
func NewDelta(r io.Reader) (*Delta, error) {
	d := &Delta{r: r, br: bufio.NewReaderSize(r, 4<<10)}
	var err error
	if d.BaseSize, err = d.varint(); err != nil {
		return nil, err
	}
	if d.Size, err = d.varint(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Delta) varint() (int64, error) {
	var v int64
	for shift := uint(0); ; shift += 7 {
		if shift > 56 {
			return 0, fmt.Errorf("%w: size out of range", errDelta)
		}
		c, err := d.byte()
		if err != nil {
			return 0, err
		}
		v |= int64(c&0x7f) << shift
		if c&0x80 == 0 {
			return v, nil
		}
	}
}

func (d *Delta) byte() (byte, error) {
	c, err := d.br.ReadByte()
	if err == io.EOF {
		err = fmt.Errorf("%w: it is cut off", errDelta)
	}
	return c, err
}

// Apply writes the result to w: exactly Size bytes, or an error. base must hold
// BaseSize bytes.
func (d *Delta) Apply(base io.ReaderAt, w io.Writer) error {
	if d.buf == nil {
		// An insert command has up to 127 bytes.
		d.buf = make([]byte, max(min(d.Size, 32<<10), 127))
	}
	left := d.Size
	for {
		op, err := d.br.ReadByte()
		if err == io.EOF {
			if left > 0 {
				return fmt.Errorf("%w: its result is %d bytes short", errDelta, left)
			}
			return nil
		}
		if err != nil {
			return err
		}
		var off, n int64
		switch {
		case op == 0:
			return fmt.Errorf("%w: reserved command", errDelta)
		case op&0x80 == 0:
			n = int64(op)
		default:
			if off, n, err = d.copyArgs(op); err != nil {
				return err
			}
			if off > d.BaseSize || n > d.BaseSize-off {
				return fmt.Errorf("%w: it copies from beyond its base", errDelta)
			}
		}
		if n > left {
			return fmt.Errorf("%w: its result is longer than it says", errDelta)
		}
		left -= n
		if op&0x80 == 0 {
			err = d.insert(w, int(n))
		} else {
			err = d.copy(w, base, off, n)
		}
		if err != nil {
			return err
		}
	}
}

func (d *Delta) copyArgs(op byte) (off, n int64, err error) {
	for i := range 7 {
		if op&(1<<i) == 0 {
			continue
		}
		c, err := d.byte()
		if err != nil {
			return 0, 0, err
		}
		if i < 4 {
			off |= int64(c) << (8 * i)
		} else {
			n |= int64(c) << (8 * (i - 4))
		}
	}
	if n == 0 {
		n = 0x10000
	}
	return off, n, nil
}

func (d *Delta) insert(w io.Writer, n int) error {
	if _, err := io.ReadFull(d.br, d.buf[:n]); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return fmt.Errorf("%w: it is cut off", errDelta)
		}
		return err
	}
	_, err := w.Write(d.buf[:n])
	return err
}

func (d *Delta) copy(w io.Writer, base io.ReaderAt, off, n int64) error {
	for n > 0 {
		b := d.buf[:min(n, int64(len(d.buf)))]
		if m, err := base.ReadAt(b, off); m < len(b) {
			return fmt.Errorf("read delta base: %w", err)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return nil
}

// IsDeltaError tells whether err says that a delta itself is bad, and not that
// its stream, its base or the writer failed.
func IsDeltaError(err error) bool { return errors.Is(err, errDelta) }
