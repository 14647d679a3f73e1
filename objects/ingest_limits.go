package objects

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"syscall"
)

// Limits bound what one pack may cost. A zero field takes its default.
type Limits struct {
	PackBytes   int64 // length of the pack
	Objects     int   // in the pack
	ObjectBytes int64 // of one blob; commits, trees and tags are bound by gitobj.MaxBytes
	DeltaDepth  int   // longest chain of deltas
	// InflateRatio is how many bytes of objects a byte of the pack may become,
	// beyond InflateFree bytes that are always allowed. Without it, deltas upon
	// deltas make terabytes of a few megabytes.
	InflateRatio int64
	InflateFree  int64
	// Staging, if set, bounds the disk that this pack takes together with all
	// others that are on their way in.
	Staging *Share
}

// DefaultLimits is what the zero Limits mean.
var DefaultLimits = Limits{
	PackBytes:    64 << 30,
	Objects:      2_000_000, // some 260 bytes of memory each while the pack comes
	ObjectBytes:  16 << 30,
	DeltaDepth:   4095, // what git itself can write
	InflateRatio: 512,  // deflate alone does up to 1032 on constant bytes, real histories up to 100
	InflateFree:  1 << 30,
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits
	pick := func(v *int64, def int64) {
		if *v <= 0 {
			*v = def
		}
	}
	pick(&l.PackBytes, d.PackBytes)
	pick(&l.ObjectBytes, d.ObjectBytes)
	pick(&l.InflateRatio, d.InflateRatio)
	pick(&l.InflateFree, d.InflateFree)
	if l.Objects <= 0 {
		l.Objects = d.Objects
	}
	if l.DeltaDepth <= 0 {
		l.DeltaDepth = d.DeltaDepth
	}
	return l
}

// ErrNoSpace is wrapped by the error for a pack that the disk, or the share of
// it that is for packs on their way in, has no room for.
var ErrNoSpace = errors.New("no disk space left")

// Staging is the disk that all packs on their way in may take together, and
// what they must leave free. It is safe for concurrent use.
type Staging struct {
	limit, keep int64 // bytes

	mu   sync.Mutex
	used int64
}

// NewStaging returns an account of limit bytes. A pack is refused too if it
// would leave less than keep bytes free on its disk, so that what is there goes
// on working: refs, runs, the packs of others. Zero of either is no bound.
func NewStaging(limit, keep int64) *Staging {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	return &Staging{limit: limit, keep: keep}
}

// Used returns how many bytes are taken now.
func (s *Staging) Used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// Share opens one push's part of the account. Close must be called when its
// quarantine has been discarded.
func (s *Staging) Share() *Share { return &Share{s: s} }

// Share is what one push has taken of a Staging. It is not safe for concurrent use.
type Share struct {
	s     *Staging
	taken int64
}

// Close gives back all that was taken. It may be called more than once.
func (sh *Share) Close() {
	sh.s.mu.Lock()
	defer sh.s.mu.Unlock()
	sh.s.used -= sh.taken
	sh.taken = 0
}

// take takes n bytes on the disk of dir, or fails with ErrNoSpace.
func (sh *Share) take(n int64, dir string) error {
	if sh.s.keep > 0 {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(dir, &fs); err != nil {
			return fmt.Errorf("free space of %s: %w", dir, err)
		}
		if free := int64(fs.Bavail) * fs.Bsize; free-n < sh.s.keep {
			return fmt.Errorf("%w: %d bytes more would leave less than %d of %d free bytes", ErrNoSpace, n, sh.s.keep, free)
		}
	}
	sh.s.mu.Lock()
	defer sh.s.mu.Unlock()
	if n > sh.s.limit-sh.s.used {
		return fmt.Errorf("%w: packs on their way in have %d of %d bytes, and one wants %d more", ErrNoSpace, sh.s.used, sh.s.limit, n)
	}
	sh.s.used += n
	sh.taken += n
	return nil
}

// room takes disk for one pack, in steps, so that small objects cost no system calls.
type room struct {
	share *Share
	dir   string
	left  int64 // taken and not used
}

// roomStep is what is taken at once for small objects.
const roomStep = 4 << 20

func (r *room) take(n int64) error {
	if r.share == nil {
		return nil
	}
	if n > r.left {
		step := max(n-r.left, roomStep)
		if err := r.share.take(step, r.dir); err != nil {
			return err
		}
		r.left += step
	}
	r.left -= n
	return nil
}

// outOfSpace makes an error of a full disk wrap ErrNoSpace.
func outOfSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
