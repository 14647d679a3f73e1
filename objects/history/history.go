// Package history answers questions on the graph of commits. It reads commits
// only, and knows nothing of refs or trees.
package history

import (
	"bytes"
	"container/heap"
	"context"
	"fmt"
	"time"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// Commit reads one commit.
func Commit(ctx context.Context, r objects.Reader, oid objects.OID) (*gitobj.Commit, error) {
	data, err := objects.ReadAll(ctx, r, oid, objects.Commit, gitobj.MaxBytes)
	if err != nil {
		return nil, err
	}
	c, err := gitobj.ParseCommit(data)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", oid, err)
	}
	return c, nil
}

// FirstParent calls fn for tip and its first parents until fn returns false or
// an error, or there is none left.
func FirstParent(ctx context.Context, r objects.Reader, tip objects.OID, fn func(objects.OID, *gitobj.Commit) (bool, error)) error {
	for oid := tip; ; {
		c, err := Commit(ctx, r, oid)
		if err != nil {
			return err
		}
		more, err := fn(oid, c)
		if err != nil || !more || len(c.Parents) == 0 {
			return err
		}
		oid = c.Parents[0]
	}
}

// IsAncestor tells whether anc can be reached from desc; a commit is its own
// ancestor.
func IsAncestor(ctx context.Context, r objects.Reader, anc, desc objects.OID) (bool, error) {
	// Dates may lie, so they order the search (the newest first finds recent
	// ancestors early), but never end it.
	q := queue{}
	seen := map[objects.OID]bool{desc: true}
	if err := q.add(ctx, r, desc); err != nil {
		return false, err
	}
	for q.Len() > 0 {
		at := heap.Pop(&q).(item)
		if at.oid == anc {
			return true, nil
		}
		for _, p := range at.parents {
			if p == anc {
				return true, nil
			}
			if seen[p] {
				continue
			}
			seen[p] = true
			if err := q.add(ctx, r, p); err != nil {
				return false, err
			}
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
)

// MergeBase returns the best common ancestor of a and b: one that is no
// ancestor of another. Of several (criss-cross merges) it is always the same
// one, the newest by date. It returns false if the histories are unrelated.
func MergeBase(ctx context.Context, r objects.Reader, a, b objects.OID) (objects.OID, bool, error) {
	if a == b {
		return a, true, nil
	}
	// git's paint_down_to_common: colours flow from the newest to the oldest
	// commits, until everything in the queue is below a common ancestor.
	marks := map[objects.OID]uint8{a: fromA, b: fromB}
	q := queue{}
	for _, oid := range []objects.OID{a, b} {
		if err := q.add(ctx, r, oid); err != nil {
			return objects.OID{}, false, err
		}
	}
	var found []item
	for q.anyFresh(marks) {
		at := heap.Pop(&q).(item)
		m := marks[at.oid] & (fromA | fromB | stale)
		if m == fromA|fromB {
			if marks[at.oid]&result == 0 {
				marks[at.oid] |= result
				found = append(found, at)
			}
			m |= stale
		}
		for _, p := range at.parents {
			if marks[p]&m == m {
				continue
			}
			marks[p] |= m
			if err := q.add(ctx, r, p); err != nil {
				return objects.OID{}, false, err
			}
		}
	}
	var best []item
	for _, f := range found {
		if marks[f.oid]&stale == 0 {
			best = append(best, f)
		}
	}
	return choose(ctx, r, best)
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

type item struct {
	oid     objects.OID
	when    time.Time
	parents []objects.OID
}

func newer(a, b item) bool {
	if !a.when.Equal(b.when) {
		return a.when.After(b.when)
	}
	return bytes.Compare(a.oid[:], b.oid[:]) < 0
}

// queue is a heap of commits, the newest first.
type queue []item

func (q *queue) add(ctx context.Context, r objects.Reader, oid objects.OID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := Commit(ctx, r, oid)
	if err != nil {
		return err
	}
	heap.Push(q, item{oid, c.Committer.When, c.Parents})
	return nil
}

func (q queue) anyFresh(marks map[objects.OID]uint8) bool {
	for _, it := range q {
		if marks[it.oid]&stale == 0 {
			return true
		}
	}
	return false
}

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
