package history

import (
	"bytes"
	"container/heap"
	"context"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/reach"
)

// graph looks commits up.
type graph struct {
	r objects.Reader
	x *reach.Index // nil if there is none
}

func newGraph(ctx context.Context, r objects.Reader) graph {
	return graph{r, objects.Reachability(ctx, r)}
}

// item is a commit in a walk.
type item struct {
	oid     objects.OID
	when    int64
	parents []objects.OID
	at      uint32 // position in the index
	indexed bool
}

// find returns a commit's position in the index.
func (g graph) find(oid objects.OID) (uint32, bool) {
	if g.x == nil {
		return 0, false
	}
	return g.x.Find(oid)
}

func (g graph) load(ctx context.Context, oid objects.OID) (item, error) {
	if err := ctx.Err(); err != nil {
		return item{}, err
	}
	at, ok := g.find(oid)
	if !ok || int(at) >= g.x.Commits() {
		c, err := Commit(ctx, g.r, oid)
		if err != nil {
			return item{}, err
		}
		return item{oid: oid, when: c.Committer.When.Unix(), parents: c.Parents}, nil
	}
	c := g.x.Commit(at)
	it := item{oid: oid, when: c.Date, at: at, indexed: true, parents: make([]objects.OID, len(c.Parents))}
	for i, p := range c.Parents {
		it.parents[i] = g.x.OID(p)
	}
	return it, nil
}

// root loads a commit that a caller names: the index may know more than is there.
func (g graph) root(ctx context.Context, oid objects.OID) (item, error) {
	if _, err := g.r.Stat(ctx, oid); err != nil {
		return item{}, err
	}
	return g.load(ctx, oid)
}

// IsAncestor tells whether anc can be reached from desc; a commit is its own
// ancestor.
func IsAncestor(ctx context.Context, r objects.Reader, anc, desc objects.OID) (bool, error) {
	// Dates may lie, so they order the search (the newest first finds recent
	// ancestors early), but never end it. Generations do not lie.
	g := newGraph(ctx, r)
	target, indexed := g.find(anc)
	q := queue{}
	seen := map[objects.OID]bool{desc: true}
	first, err := g.root(ctx, desc)
	if err != nil {
		return false, err
	}
	for heap.Push(&q, first); q.Len() > 0; {
		at := heap.Pop(&q).(item)
		if at.oid == anc {
			return true, nil
		}
		if at.indexed {
			if !indexed {
				continue // the index has all that this one leads to
			}
			if yes, known := g.x.ReachesAny(at.at, []uint32{target}); yes {
				return true, nil
			} else if known || g.x.Commit(at.at).Generation <= g.x.Commit(target).Generation {
				continue
			}
		}
		for _, p := range at.parents {
			if p == anc {
				return true, nil
			}
			if seen[p] {
				continue
			}
			seen[p] = true
			it, err := g.load(ctx, p)
			if err != nil {
				return false, err
			}
			heap.Push(&q, it)
		}
	}
	return false, nil
}

// The marks of MergeBase.
const (
	fromA = 1 << iota
	fromB
	stale  // an ancestor of a common ancestor
	result // was taken for a merge base
	queued // is in the queue
)

// MergeBase returns the best common ancestor of a and b: one that is no
// ancestor of another. Of several (criss-cross merges) it is always the same
// one, the newest by date. It returns false if the histories are unrelated.
func MergeBase(ctx context.Context, r objects.Reader, a, b objects.OID) (objects.OID, bool, error) {
	if a == b {
		return a, true, nil
	}
	g := newGraph(ctx, r)
	roots := [2]item{}
	for i, oid := range [2]objects.OID{a, b} {
		var err error
		if roots[i], err = g.root(ctx, oid); err != nil {
			return objects.OID{}, false, err
		}
	}
	for i, at := range roots {
		if other := roots[1-i]; at.indexed && other.indexed {
			if yes, _ := g.x.ReachesAny(at.at, []uint32{other.at}); yes {
				return other.oid, true, nil
			}
		}
	}
	found, err := g.paint(ctx, roots)
	if err != nil {
		return objects.OID{}, false, err
	}
	return choose(ctx, r, found)
}

// paint is git's paint_down_to_common: colours flow from the newest to the
// oldest commits, until everything in the queue is below a common ancestor.
func (g graph) paint(ctx context.Context, roots [2]item) ([]item, error) {
	marks := map[objects.OID]uint8{}
	q := queue{}
	fresh := 0 // commits in the queue that are not stale
	for i, at := range roots {
		marks[at.oid] = fromA<<i | queued
		heap.Push(&q, at)
		fresh++
	}
	var found []item
	for fresh > 0 {
		at := heap.Pop(&q).(item)
		marks[at.oid] &^= queued
		m := marks[at.oid] & (fromA | fromB | stale)
		if m&stale == 0 {
			fresh--
		}
		if m == fromA|fromB {
			if marks[at.oid]&result == 0 {
				marks[at.oid] |= result
				found = append(found, at)
			}
			m |= stale
		}
		for _, p := range at.parents {
			before := marks[p]
			if before&m == m {
				continue
			}
			marks[p] = before | m | queued
			switch {
			case before&queued == 0:
				it, err := g.load(ctx, p)
				if err != nil {
					return nil, err
				}
				heap.Push(&q, it)
				if marks[p]&stale == 0 {
					fresh++
				}
			case before&stale == 0 && m&stale != 0:
				fresh--
			}
		}
	}
	var best []item
	for _, f := range found {
		if marks[f.oid]&stale == 0 {
			best = append(best, f)
		}
	}
	return best, nil
}

// choose drops candidates that are ancestors of others, which wrong dates can
// leave in, and takes the newest.
func choose(ctx context.Context, r objects.Reader, found []item) (objects.OID, bool, error) {
	var best *item
	for i, f := range found {
		redundant := false
		for j, g := range found {
			if i == j {
				continue
			}
			var err error
			if redundant, err = IsAncestor(ctx, r, f.oid, g.oid); err != nil {
				return objects.OID{}, false, err
			}
			if redundant {
				break
			}
		}
		if !redundant && (best == nil || newer(f, *best)) {
			best = &found[i]
		}
	}
	if best == nil {
		return objects.OID{}, false, nil
	}
	return best.oid, true, nil
}

func newer(a, b item) bool {
	if a.when != b.when {
		return a.when > b.when
	}
	return bytes.Compare(a.oid[:], b.oid[:]) < 0
}

// queue is a heap of commits, the newest first.
type queue []item

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return newer(q[i], q[j]) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(item)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
