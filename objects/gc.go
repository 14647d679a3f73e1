package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/objects/backend"
)

// Roots are what must not be removed, with all that it leads to.
type Roots struct {
	Refs []OID // must be there
	Past []OID // such as what a reflog names: kept if it is still there
}

// GCOptions say what a collection may remove.
type GCOptions struct {
	// Roots is asked several times in one collection, each time for the roots of now.
	Roots  func(context.Context) (Roots, error)
	Grace  time.Duration // objects that came later than this ago stay, with all that they name
	DryRun bool          // removes nothing, and condemns nothing
	// Wait is how long to wait for quarantines that began before garbage was
	// condemned. After that the collection ends, and the next one goes on.
	Wait     time.Duration
	Progress func(string) // takes a line from time to time; may be nil
}

// GCCounts are objects, small and raw.
type GCCounts struct {
	Objects  int // all of them; a second copy of an object counts
	RawBlobs int // of these
	Bytes    int64
}

// GCStats is what a collection found and did.
type GCStats struct {
	Kept      int      // objects that can be reached, or are young
	Garbage   GCCounts // found by this collection
	Freed     GCCounts // removed; garbage of an earlier collection too
	Pardoned  bool     // something condemned has come back to use
	Waiting   int      // quarantines that the rest of the work waits for; 0 if all is done
	Rewritten int      // packs, to leave garbage out
	Repack    RepackStats
}

// clockSlack is more than what file times and ages lose in precision.
const clockSlack = 2 * time.Second

// GC removes what the roots do not lead to and is older than the grace period. It
// may run while others read and write; readers of what no root leads to any more
// may find it gone. Another upkeep is waited for. A collection that was killed, or
// stopped by ctx, is gone on with by the next one.
func (s *Store) GC(ctx context.Context, opt GCOptions) (stats GCStats, err error) {
	if err := s.lockUpkeep(ctx); err != nil {
		return GCStats{}, err
	}
	defer s.unlockUpkeep()
	g := &gc{s: s, opt: opt, stats: &stats}
	if !opt.DryRun {
		// What an earlier collection has left.
		if done, err := g.execute(ctx); err != nil || !done {
			return stats, err
		}
	}
	if err := g.condemn(ctx); err != nil || opt.DryRun {
		return stats, err
	}
	done, err := g.execute(ctx)
	if err != nil || !done {
		return stats, err
	}
	stats.Repack, err = s.repack(ctx, 2)
	return stats, err
}

type gc struct {
	s     *Store
	opt   GCOptions
	stats *GCStats
}

func (g *gc) say(format string, args ...any) {
	if g.opt.Progress != nil {
		g.opt.Progress(fmt.Sprintf(format, args...))
	}
}

// condemn marks, and condemns the rest.
func (g *gc) condemn(ctx context.Context) error {
	s := g.s
	after := s.now().Add(-g.opt.Grace)
	if oldest, ok := s.oldestQuarantine(); ok && oldest.Before(after) {
		after = oldest
	}
	after = after.Add(-s.slack)
	m, err := s.newMarker(ctx, func(n int) { g.say("marking: %d objects", n) })
	if err != nil {
		return err
	}
	roots, err := g.opt.Roots(ctx)
	if err == nil {
		err = m.roots(ctx, roots)
	}
	if err == nil {
		err = m.young(ctx, after)
	}
	if err != nil {
		return fmt.Errorf("mark: %w", err)
	}

	// From here until all is condemned nothing lands.
	s.gate.Lock()
	defer s.gate.Unlock()
	if roots, err = g.opt.Roots(ctx); err == nil {
		err = errors.Join(m.newcomers(ctx), m.roots(ctx, roots))
	}
	if err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	list, counts, err := m.rest(s.now())
	if err != nil {
		return err
	}
	g.stats.Kept, g.stats.Garbage = m.seen, counts
	g.say("%d objects are in use or young, %d are not (%d bytes)", m.seen, counts.Objects, counts.Bytes)
	if g.opt.DryRun || counts.Objects == 0 {
		return nil
	}
	if err := s.b.Put(ctx, condemnedKey, bytes.NewReader(list.encode())); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.condemn(list)
	return nil
}

// execute removes what is condemned, if anything is, and reports whether that is
// done: not if it still waits for quarantines.
func (g *gc) execute(ctx context.Context) (bool, error) {
	s := g.s
	s.mu.RLock()
	list, pardons := s.condemned, s.pardons
	s.mu.RUnlock()
	if list == nil {
		return true, nil
	}
	left, err := s.awaitQuarantines(ctx, g.opt.Wait, func(n int) {
		g.say("waiting for %d pushes or runs that began before", n)
	})
	if err != nil {
		return false, err
	}
	if g.stats.Waiting = left; left > 0 {
		return false, nil
	}
	if err := g.pardonRoots(ctx); err != nil {
		return false, err
	}
	s.mu.RLock()
	g.stats.Pardoned = g.stats.Pardoned || s.pardons != pardons
	s.mu.RUnlock()
	if err := g.sweepPacks(ctx); err != nil {
		return false, fmt.Errorf("sweep packs: %w", err)
	}
	if err := g.sweepRaws(ctx); err != nil {
		return false, fmt.Errorf("sweep raw blobs: %w", err)
	}
	if err := s.DropReachability(ctx); err != nil {
		return false, err
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	if err := s.b.Delete(ctx, condemnedKey); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acquit()
	return true, nil
}

// pardonRoots pardons what refs have come to name since. What only the past names
// stays condemned: half of it may be gone.
func (g *gc) pardonRoots(ctx context.Context) error {
	s := g.s
	s.gate.Lock()
	defer s.gate.Unlock()
	roots, err := g.opt.Roots(ctx)
	if err != nil {
		return err
	}
	var back []OID
	for _, oid := range roots.Refs {
		if s.onlyCondemned(oid) {
			back = append(back, oid)
		}
	}
	if len(back) == 0 {
		return nil
	}
	return s.pardon(ctx, back, nil)
}

// sweepPacks writes each pack that has condemned objects anew, without them.
func (g *gc) sweepPacks(ctx context.Context) error {
	s := g.s
	for {
		s.mu.RLock()
		var pf *packFile
		for _, p := range s.small.packs {
			if p.condemned.count() > 0 {
				pf = p
				break
			}
		}
		var marks bitmap
		if pf != nil {
			marks = pf.condemned // which is never changed, only replaced
		}
		pardons := s.pardons
		s.mu.RUnlock()
		if pf == nil {
			return nil
		}
		to, err := s.rewrite(ctx, []*packFile{pf}, func(_ *packFile, pos int) bool { return !marks.has(pos) })
		if err != nil {
			return err
		}
		var freed GCCounts
		for next, pos := range pf.byOffset() {
			if !marks.has(int(pos)) {
				continue
			}
			loc, err := pf.locateAt(int(pos), next+1)
			if err != nil {
				return err
			}
			freed.Objects++
			freed.Bytes += int64(loc.length)
		}
		swapped, err := s.swapUnless(ctx, to, []*packFile{pf}, pardons)
		if err != nil {
			return err
		}
		if swapped {
			g.stats.Rewritten++
			g.freed(freed)
		}
	}
}

func (g *gc) freed(n GCCounts) {
	g.stats.Freed.Objects += n.Objects
	g.stats.Freed.RawBlobs += n.RawBlobs
	g.stats.Freed.Bytes += n.Bytes
}

// sweepBatch is how many raw blobs are deleted while pushes wait.
const sweepBatch = 256

// sweepRaws deletes condemned raw blobs.
func (g *gc) sweepRaws(ctx context.Context) error {
	var last OID
	for more := true; more; {
		var err error
		if more, err = g.sweepSome(ctx, &last); err != nil {
			return err
		}
		g.say("removed %d objects", g.stats.Freed.Objects)
	}
	return nil
}

// sweepSome deletes some raw blobs after last.
func (g *gc) sweepSome(ctx context.Context, last *OID) (more bool, err error) {
	s := g.s
	// Nobody may bring one of them again meanwhile.
	s.gate.Lock()
	defer s.gate.Unlock()
	s.mu.RLock()
	var batch []OID
	for _, oid := range s.condemned.raws {
		if compareOIDs(oid, *last) > 0 {
			batch = append(batch, oid)
		}
		if len(batch) == sweepBatch {
			break
		}
	}
	s.mu.RUnlock()
	if len(batch) == 0 {
		return false, nil
	}
	var keys []string
	var n GCCounts
	for _, oid := range batch {
		info, err := s.b.Stat(ctx, rawKey(oid))
		if errors.Is(err, backend.ErrNotFound) {
			continue // a killed gc was here before
		}
		if err != nil {
			return false, err
		}
		keys = append(keys, info.Key)
		n.Objects++
		n.RawBlobs++
		n.Bytes += info.Size
	}
	if err := backend.DeleteAll(ctx, s.b, keys); err != nil {
		return false, err
	}
	s.mu.Lock()
	for _, oid := range batch {
		delete(s.raw, oid)
	}
	s.removals++
	s.mu.Unlock()
	*last = batch[len(batch)-1]
	g.freed(n)
	return true, nil
}

// oldestQuarantine returns when the oldest open one began.
func (s *Store) oldestQuarantine() (oldest time.Time, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for q := range s.quarantines {
		if !ok || q.started.Before(oldest) {
			oldest, ok = q.started, true
		}
	}
	return oldest, ok
}

// awaitQuarantines waits until no quarantine is open that sees what is condemned,
// but not longer than max, and returns how many there are.
func (s *Store) awaitQuarantines(ctx context.Context, max time.Duration, tell func(int)) (int, error) {
	timeout := time.NewTimer(max)
	defer timeout.Stop()
	for last := -1; ; {
		s.mu.RLock()
		n := 0
		for q := range s.quarantines {
			if !q.hides() {
				n++
			}
		}
		ended := s.ended
		s.mu.RUnlock()
		if n == 0 {
			return 0, nil
		}
		if n != last {
			last = n
			tell(n)
		}
		select {
		case <-ended:
		case <-timeout.C:
			return n, nil
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
}
