// Package pack reads and writes git's pack format as streams: no object has to
// fit in memory. It checks the format only; what the objects say, and where
// they are kept, is not its concern.
//
// The format is that of gitformat-pack(5): a 12-byte header, entries of a type
// and size varint followed by a zlib stream, and the SHA-1 of all that.
package pack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
)

// OID is the SHA-1 name of a git object.
type OID = plumbing.Hash

// Type is the kind of a pack entry: one of the four objects, or a delta.
type Type = plumbing.ObjectType

const (
	// HeaderSize is the length of "PACK", version and count.
	HeaderSize = 12
	// TrailerSize is the length of the checksum at the end.
	TrailerSize = 20

	signature = "PACK"
	version   = 2
)

// FormatError says where and how a stream is not a pack. Reason is one sentence
// that a client may see.
type FormatError struct {
	Offset int64 // bytes from the start of the pack
	Reason string
	Err    error // the cause, if there is one below
}

func (e *FormatError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s (byte %d: %v)", e.Reason, e.Offset, e.Err)
	}
	return fmt.Sprintf("%s (byte %d)", e.Reason, e.Offset)
}

func (e *FormatError) Unwrap() error { return e.Err }

// AppendHeader appends the header of a pack of n objects.
func AppendHeader(b []byte, n uint32) []byte {
	b = append(b, signature...)
	b = binary.BigEndian.AppendUint32(b, version)
	return binary.BigEndian.AppendUint32(b, n)
}

// AppendEntryHeader appends the type and size in front of an entry's data.
func AppendEntryHeader(b []byte, t Type, size int64) []byte {
	c := byte(t)<<4 | byte(size&0x0f)
	size >>= 4
	for size > 0 {
		b = append(b, c|0x80)
		c = byte(size & 0x7f)
		size >>= 7
	}
	return append(b, c)
}

// AppendDistance appends how far in front of its delta a base begins.
func AppendDistance(b []byte, n int64) []byte {
	var digits [10]byte
	i := len(digits) - 1
	digits[i] = byte(n & 0x7f)
	for n >>= 7; n > 0; n >>= 7 {
		n--
		i--
		digits[i] = 0x80 | byte(n&0x7f)
	}
	return append(b, digits[i:]...)
}

// ParseDistance reads what AppendDistance has written, and returns its length.
func ParseDistance(b []byte) (distance int64, n int, err error) {
	for i, c := range b {
		if i > 0 {
			distance++
		}
		// More than 2^55 bytes back is before any pack's start.
		if distance > 1<<48 {
			break
		}
		distance = distance<<7 | int64(c&0x7f)
		if c&0x80 == 0 {
			return distance, i + 1, nil
		}
	}
	return 0, 0, errors.New("a delta's base is not in front of it")
}

// ParseEntryHeader returns the type and size at the start of b and their length.
func ParseEntryHeader(b []byte) (t Type, size int64, n int, err error) {
	var v entryVarint
	for _, c := range b {
		n++
		done, err := v.add(c)
		if err != nil {
			return 0, 0, 0, err
		}
		if done {
			return v.t, v.size, n, nil
		}
	}
	return 0, 0, 0, errors.New("entry header is cut off")
}

// entryVarint gathers an entry's type and size byte by byte.
type entryVarint struct {
	t     Type
	size  int64
	shift uint
	begun bool
}

func (v *entryVarint) add(c byte) (done bool, err error) {
	if !v.begun {
		v.begun = true
		v.t = Type(c >> 4 & 7)
		v.size = int64(c & 0x0f)
		v.shift = 4
		return c&0x80 == 0, nil
	}
	// 4 + 8*7 = 60 bits: an exabyte is more than any limit.
	if v.shift >= 60 {
		return false, errors.New("object size out of range")
	}
	v.size |= int64(c&0x7f) << v.shift
	v.shift += 7
	return c&0x80 == 0, nil
}
