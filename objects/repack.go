package objects

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// Every push and every run adds a pack. They are joined geometrically, as git
// repack --geometric=2 does: the smallest ones together, until each pack has at
// least twice as many objects as all smaller ones have. So their number grows
// with the logarithm of the store, and each object is copied about that often.

const (
	geometricFactor = 2
	// joinAtLeast is how many packs must have come together before the store
	// joins them by itself: an fsync for each is paid for once in so many pushes.
	joinAtLeast = 8
	// backgroundNice is the priority of upkeep that nobody waits for.
	backgroundNice = 10
)

// RepackStats is what Repack did.
type RepackStats struct {
	Joined  int   // packs that are gone
	Objects int   // in the packs that came instead
	Bytes   int64 // of them
	Packs   int   // that there are now
}

// toJoin returns how many of the smallest packs are to be joined. counts are
// their numbers of objects, ascending.
func toJoin(counts []int) int {
	n := len(counts) - 1
	for n > 0 && counts[n] >= geometricFactor*counts[n-1] {
		n--
	}
	if n <= 0 {
		return 0
	}
	// What stands now has its distance to the pack below. Their sum needs it too.
	sum := 0
	for _, c := range counts[:n] {
		sum += c
	}
	for n < len(counts) && counts[n] < geometricFactor*sum {
		sum += counts[n]
		n++
	}
	return n
}

// candidates returns the packs that a join would take, the smallest first.
func (s *Store) candidates() []*packFile {
	s.mu.RLock()
	defer s.mu.RUnlock()
	packs := slices.Clone(s.small.packs)
	// Marks would have to be carried over.
	packs = slices.DeleteFunc(packs, func(pf *packFile) bool { return pf.condemned.count() > 0 })
	slices.SortFunc(packs, func(a, b *packFile) int {
		return cmp.Or(cmp.Compare(a.idx.Len(), b.idx.Len()), cmp.Compare(a.id, b.id))
	})
	counts := make([]int, len(packs))
	for i, pf := range packs {
		counts[i] = pf.idx.Len()
	}
	return packs[:toJoin(counts)]
}

// Repack joins small packs until there are few. It may run while others read and
// write, and waits for other upkeep to end.
func (s *Store) Repack(ctx context.Context) (RepackStats, error) {
	if err := s.lockUpkeep(ctx); err != nil {
		return RepackStats{}, err
	}
	defer s.unlockUpkeep()
	return s.repack(ctx, 2)
}

func (s *Store) repack(ctx context.Context, atLeast int) (stats RepackStats, err error) {
	for {
		old := s.candidates()
		if len(old) < atLeast {
			break
		}
		start := time.Now()
		pf, err := s.rewrite(ctx, old, func(*packFile, int) bool { return true })
		if err != nil {
			return stats, err
		}
		n, size := pf.idx.Len(), pf.size
		if err := s.swap(ctx, pf, old); err != nil {
			return stats, err
		}
		stats.Joined += len(old)
		stats.Objects += n
		stats.Bytes += size
		s.log.Info("joined packs", "packs", len(old), "objects", n, "bytes", size, "took", time.Since(start).Round(time.Millisecond))
	}
	s.mu.RLock()
	stats.Packs = len(s.small.packs)
	s.mu.RUnlock()
	return stats, nil
}

// lockUpkeep waits until nothing else rewrites packs or needs them to stay.
func (s *Store) lockUpkeep(ctx context.Context) error {
	select {
	case s.upkeep <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.upkeep <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) unlockUpkeep() { <-s.upkeep }

// autoRepack joins packs in the background if that is worth it, and if the store
// is to do so by itself.
func (s *Store) autoRepack() {
	if !s.auto || s.stuck.Load() || len(s.candidates()) < joinAtLeast {
		return
	}
	select {
	case s.upkeep <- struct{}{}:
	default:
		return // whoever is at it, or the next push, comes to it
	}
	s.mu.Lock()
	if s.closing.Err() != nil {
		s.mu.Unlock()
		s.unlockUpkeep()
		return
	}
	s.background.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.background.Done()
		defer s.unlockUpkeep()
		// The thread is not unlocked, so that it ends with the goroutine: its
		// priority could not be raised again.
		runtime.LockOSThread()
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), backgroundNice); err != nil {
			s.log.Warn("upkeep runs at full priority", "err", err)
		}
		if _, err := s.repack(s.closing, joinAtLeast); err != nil && !errors.Is(err, context.Canceled) {
			// A damaged pack would be read in vain after every push.
			s.stuck.Store(true)
			s.log.Error("cannot join packs; run fsck, and restart the server when the store is sound", "err", err)
		}
	}()
}
