package objects

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"sort"
	"time"

	"github.com/headgate/headgate/objects/pack"
)

// A pack's objects are as old as its file, but for a pack that was joined of
// older ones: it keeps the ages of its parts beside it, or joining would make
// garbage young again, and gc never come to it.

// age is when the entries of a pack from an offset on landed in the store.
type age struct {
	from   int64 // offset in the pack
	landed int64 // seconds since 1970
}

const (
	agesMagic   = "HGAGES\x00\x01"
	agesEntry   = 16
	agesTrailer = sha1.Size

	// ageStep bounds the number of ages that a pack has: parts that landed within
	// it are all as old as the youngest of them.
	ageStep = 24 * 60 * 60
)

// encodeAges returns the content of a pack's .ages file.
func encodeAges(ages []age) []byte {
	b := append(make([]byte, 0, len(agesMagic)+len(ages)*agesEntry+agesTrailer), agesMagic...)
	for _, a := range ages {
		b = binary.BigEndian.AppendUint64(b, uint64(a.from))
		b = binary.BigEndian.AppendUint64(b, uint64(a.landed))
	}
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

var errAges = errors.New("its file of ages is damaged")

// parseAges reads a .ages file: at least one age, the first from the pack's
// first entry, in the order of the pack.
func parseAges(b []byte) ([]age, error) {
	n := len(b) - len(agesMagic) - agesTrailer
	if n < agesEntry || n%agesEntry != 0 || string(b[:len(agesMagic)]) != agesMagic {
		return nil, errAges
	}
	end := len(b) - agesTrailer
	if sum := sha1.Sum(b[:end]); !bytes.Equal(sum[:], b[end:]) {
		return nil, errAges
	}
	var ages []age
	for b = b[len(agesMagic):end]; len(b) > 0; b = b[agesEntry:] {
		a := age{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}
		if len(ages) == 0 && a.from != pack.HeaderSize || len(ages) > 0 && a.from <= ages[len(ages)-1].from {
			return nil, errAges
		}
		ages = append(ages, a)
	}
	return ages, nil
}

// addAge appends the age of the entries from an offset on, and keeps few of them.
func addAge(ages []age, from int64, landed int64) []age {
	if n := len(ages); n > 0 {
		last := &ages[n-1]
		if last.landed/ageStep == landed/ageStep {
			last.landed = max(last.landed, landed)
			return ages
		}
	}
	return append(ages, age{from, landed})
}

// landed returns when the entry at an offset came into the store.
func (pf *packFile) landed(off int64) time.Time {
	i := sort.Search(len(pf.ages), func(i int) bool { return pf.ages[i].from > off })
	if i == 0 {
		return time.Unix(pf.modified.Load(), 0)
	}
	return time.Unix(pf.ages[i-1].landed, 0)
}
