package objects

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/reach"
)

// reachKey is where the reachability index is kept. It may be lost without harm.
const reachKey = "reach/index"

// An index is built again when this much is new: some time lies between two of
// them, and what a walk finds without one stays small.
const (
	reachNewTips    = 256    // commits and tags, or an eighth of what the index has
	reachNewObjects = 50_000 // or a quarter
	reachIdle       = 10 * time.Minute
)

// Reachable is the optional ability of a Reader to tell what its commits lead to
// without reading them. The answer may be nil, and need not know every commit:
// what it does not know must be read. It holds for objects that are there.
type Reachable interface {
	Reachability(ctx context.Context) *reach.Index
}

// Reachability returns what r knows of its commits; nil if it knows nothing.
func Reachability(ctx context.Context, r Reader) *reach.Index {
	if x, ok := r.(Reachable); ok {
		return x.Reachability(ctx)
	}
	return nil
}

// reachability keeps a store's index in memory while it is used.
type reachability struct {
	building sync.Mutex
	mu       sync.Mutex
	loaded   bool
	index    *reach.Index
	used     bool
	idle     *time.Timer
	tried    int // packed objects when an index was last built
	looked   int // packed objects when it was last considered
}

// Reachability implements Reachable. A damaged index is removed and forgotten.
func (s *Store) Reachability(ctx context.Context) *reach.Index {
	r := &s.reach
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used = true
	if r.loaded {
		return r.index
	}
	data, err := s.readKey(ctx, reachKey)
	switch {
	case errors.Is(err, backend.ErrNotFound):
		s.keepIndex(nil)
		return nil
	case err != nil:
		// It is an aid: whoever asks can do without, and asks again.
		s.log.Warn("cannot read the reachability index", "err", err)
		return nil
	}
	x, err := reach.Parse(data)
	if err != nil {
		s.log.Warn("removing a damaged reachability index; it will be built again", "err", err)
		if err := s.b.Delete(ctx, reachKey); err != nil {
			s.log.Warn("cannot remove it", "err", err)
		}
	}
	s.keepIndex(x)
	return x
}

// keepIndex holds an index until nobody has used it for a while. reach.mu is held.
func (s *Store) keepIndex(x *reach.Index) {
	r := &s.reach
	r.loaded, r.index, r.used = true, x, true
	if r.idle != nil {
		r.idle.Stop()
	}
	if x == nil {
		return
	}
	var idle *time.Timer
	idle = time.AfterFunc(reachIdle, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.idle != idle {
			return
		}
		if r.used {
			r.used = false
			idle.Reset(reachIdle)
			return
		}
		r.loaded, r.index = false, nil
	})
	r.idle = idle
}

// ReachabilityWanted tells whether so much has come since UpdateReachability last
// looked that it should look again. It costs next to nothing.
func (s *Store) ReachabilityWanted() bool {
	s.reach.mu.Lock()
	looked := s.reach.looked
	s.reach.mu.Unlock()
	// A commit of a lake is at least itself, two trees and a file.
	return s.packed()-looked >= 3*reachNewTips
}

// UpdateReachability builds the index again if enough has come that the tips
// lead to and the index does not know, and reports whether it did. Tips whose
// history is asked for most come first. It may run while others read and write.
func (s *Store) UpdateReachability(ctx context.Context, tips []OID) (bool, error) {
	if !s.reach.building.TryLock() {
		return false, nil // another one sees to it
	}
	defer s.reach.building.Unlock()
	count := s.packed()
	s.reach.mu.Lock()
	s.reach.looked = count
	s.reach.mu.Unlock()
	prev := s.Reachability(ctx)
	if worth, err := s.worthBuilding(ctx, prev, tips); err != nil || !worth {
		return false, err
	}
	return true, s.buildReachability(ctx, prev, tips, count)
}

func (s *Store) buildReachability(ctx context.Context, prev *reach.Index, tips []OID, count int) error {
	start := time.Now()
	x, err := reach.Build(ctx, s, prev, tips)
	if err != nil {
		return err
	}
	if err := s.b.Put(ctx, reachKey, bytes.NewReader(x.Bytes())); err != nil {
		return err
	}
	s.reach.mu.Lock()
	defer s.reach.mu.Unlock()
	s.reach.tried = count
	s.keepIndex(x)
	s.log.Info("built the reachability index", "objects", x.Len(), "commits", x.Commits(),
		"bytes", len(x.Bytes()), "took", time.Since(start).Round(time.Millisecond))
	return nil
}

// DropReachability forgets the index: after objects were removed from the store
// it knows more than there is.
func (s *Store) DropReachability(ctx context.Context) error {
	s.reach.building.Lock()
	defer s.reach.building.Unlock()
	if err := s.b.Delete(ctx, reachKey); err != nil {
		return err
	}
	s.reach.mu.Lock()
	defer s.reach.mu.Unlock()
	s.reach.tried, s.reach.looked = 0, 0
	s.keepIndex(nil)
	return nil
}

// worthBuilding looks at what is new until it is enough.
func (s *Store) worthBuilding(ctx context.Context, x *reach.Index, tips []OID) (bool, error) {
	enough, objects := reachNewTips, reachNewObjects
	known := func(OID) bool { return false }
	if x != nil {
		enough = max(enough, x.Commits()/8)
		objects = max(objects, x.Len()/4)
		known = func(oid OID) bool { _, ok := x.Find(oid); return ok }
	}
	s.reach.mu.Lock()
	before := s.reach.tried
	s.reach.mu.Unlock()
	if before == 0 && x != nil {
		before = x.Len()
	}
	if s.packed()-before >= objects {
		return true, nil
	}
	seen := make(map[OID]bool)
	todo := append([]OID(nil), tips...)
	for len(todo) > 0 {
		oid := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[oid] || known(oid) {
			continue
		}
		seen[oid] = true
		if len(seen) >= enough {
			return true, nil
		}
		info, err := s.Stat(ctx, oid)
		if err != nil {
			return false, err
		}
		if info.Type == Tree || info.Type == Blob {
			continue
		}
		named, err := s.named(ctx, oid, info.Type)
		if err != nil {
			return false, err
		}
		for _, k := range named {
			if k.t == Commit || k.t == Tag {
				todo = append(todo, k.oid)
			}
		}
	}
	return false, nil
}

func (s *Store) named(ctx context.Context, oid OID, t Type) ([]link, error) {
	data, err := ReadAll(ctx, s, oid, t, maxEntry)
	if err != nil {
		return nil, err
	}
	named, _, err := namedBy(t, data)
	return named, err
}

// packed returns how many objects the packs hold.
func (s *Store) packed() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for _, pf := range s.small.byID {
		n += pf.idx.Len()
	}
	return n
}

// reachability checks the index, and, if they are sound, against the objects.
func (c *check) reachability(ctx context.Context, sound bool) error {
	data, err := c.s.readKey(ctx, reachKey)
	if errors.Is(err, backend.ErrNotFound) {
		return nil
	}
	if err == nil {
		c.stats.Bytes += int64(len(data))
		var x *reach.Index
		if x, err = reach.Parse(data); err == nil && sound {
			err = reach.Verify(ctx, c.s, x)
		}
	}
	if err == nil {
		return nil
	}
	if err := stopped(ctx, err); err != nil {
		return err
	}
	c.report(Fault{Kind: Damaged, Key: reachKey, Detail: err.Error() + " (it may be deleted: the server builds it again)"})
	return nil
}

// Reachability implements Reachable: what is in quarantine is not known.
func (q *Quarantine) Reachability(ctx context.Context) *reach.Index { return q.s.Reachability(ctx) }

var (
	_ Reachable = (*Store)(nil)
	_ Reachable = (*Quarantine)(nil)
)
