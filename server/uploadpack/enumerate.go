package uploadpack

import (
	"container/heap"
	"context"
	"fmt"
	"math"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// maxTreeDepth is git's own default limit (core.maxTreeDepth).
const maxTreeDepth = 4096

// slop is how many commits more a walk looks at when only commits that the
// client has are left, in case clocks were skewed; git's number.
const slop = 5

// walkAtMost is a selection's bound: setting bitmaps up costs as much as reading
// some hundred trees.
const walkAtMost = 500

// selection is what a fetch is to be answered with.
type selection struct {
	wants  []objects.OID // of any type
	haves  []objects.OID // of any type; all present
	filter Filter
	tags   []tagRef // tags to send along when what they name is sent
	// haveTrees also leaves out the content of every have, not only of those
	// next to what is sent: for shallow clients, whose haves are not connected to the wants.
	haveTrees bool
	// walkAtMost is how many commits are walked, and their trees read, where
	// bitmaps could answer too.
	walkAtMost int
}

// tagRef is an annotated tag that a ref names.
type tagRef struct {
	chain  []objects.OID // the tag, then the tags it names
	target objects.OID
}

// enumerator lists the objects of a selection. It holds a few bits for each
// object that the index knows, an oid or two for each other, and no content.
type enumerator struct {
	*graph
	filter Filter
	sent   objectSet
	theirs objectSet             // trees, blobs and tags that the client has
	depth  map[objects.OID]int64 // with a tree filter: the smallest depth a tree was entered at
	out    objectList
	tick   func(n int)
}

// enumerate returns every object reachable from the wants and not from the
// haves, as git rev-list --objects does: commits first, newest first, then tags,
// trees and blobs. Where bitmaps answer, it is what git rev-list gives with
// bitmaps: it leaves out whatever a have leads to, not only what is next to the
// commits sent. tick is called now and then with the count so far.
func enumerate(ctx context.Context, g *graph, sel selection, tick func(n int)) (*objectList, error) {
	e := &enumerator{
		graph: g, filter: sel.filter, tick: tick,
		sent: g.newSet(), theirs: g.newSet(), depth: map[objects.OID]int64{},
	}
	e.out = objectList{g: g, sent: &e.sent, theirs: &e.theirs}
	if err := e.run(ctx, sel); err != nil {
		return nil, err
	}
	return &e.out, nil
}

// root is a want that is no commit.
type root struct {
	oid    objects.OID
	t      objects.Type
	tagged bool
}

// asked is a selection, peeled.
type asked struct {
	ours, theirs []*commit
	tags         []objects.OID
	roots        []root
	content      bool // the client has trees or blobs of no commit it named
}

func (e *enumerator) peelAll(ctx context.Context, sel selection) (asked, error) {
	var a asked
	for _, oid := range sel.haves {
		tags, target, t, err := e.peel(ctx, oid)
		if err != nil {
			return a, err
		}
		for _, tag := range tags {
			e.theirs.add(e.key(tag))
		}
		switch t {
		case objects.Commit:
			c, err := e.load(ctx, target)
			if err != nil {
				return a, err
			}
			a.theirs = append(a.theirs, c)
		case objects.Tree:
			a.content = true
			if err := e.exclude(ctx, e.key(target), 0); err != nil {
				return a, err
			}
		default:
			a.content = true
			e.theirs.add(e.key(target))
		}
	}
	for _, oid := range sel.wants {
		chain, target, t, err := e.peel(ctx, oid)
		if err != nil {
			return a, err
		}
		a.tags = append(a.tags, chain...)
		if t != objects.Commit {
			a.roots = append(a.roots, root{target, t, len(chain) > 0})
			continue
		}
		c, err := e.load(ctx, target)
		if err != nil {
			return a, err
		}
		a.ours = append(a.ours, c)
	}
	return a, nil
}

func (e *enumerator) run(ctx context.Context, sel selection) error {
	a, err := e.peelAll(ctx, sel)
	if err != nil {
		return err
	}
	// A bitmap knows neither a shallow client's history nor at what depth a tree lies.
	bitmaps := e.x != nil && len(e.grafts) == 0 && !sel.haveTrees && len(a.roots) == 0 && !a.content &&
		(e.filter.treeDepth == unlimited || e.filter.treeDepth == 0)
	switch {
	case bitmaps && len(a.theirs) == 0:
		err = e.byBitmaps(ctx, a)
	case bitmaps:
		var few bool
		if few, err = e.byWalk(ctx, sel, a, sel.walkAtMost); err == nil && !few {
			err = e.byBitmaps(ctx, a)
		}
	default:
		_, err = e.byWalk(ctx, sel, a, math.MaxInt)
	}
	if err != nil {
		return err
	}
	for _, tag := range sel.tags {
		if e.sent.has(e.key(tag.target)) {
			for _, oid := range tag.chain {
				e.add(e.key(oid))
			}
		}
	}
	return nil
}

// byWalk lists the objects by reading trees. It returns false, and has listed
// nothing, if there are more commits than max.
func (e *enumerator) byWalk(ctx context.Context, sel selection, a asked, max int) (bool, error) {
	commits, ok, err := e.limit(ctx, a.ours, a.theirs, max)
	if err != nil || !ok {
		return false, err
	}
	for _, c := range commits {
		e.add(e.key(c.oid))
		for _, p := range e.parents(c) {
			if pc := e.commits[p]; pc != nil && pc.flags&uninteresting != 0 {
				if err := e.exclude(ctx, e.key(pc.tree), 0); err != nil {
					return false, err
				}
			}
		}
	}
	if sel.haveTrees {
		for _, c := range a.theirs {
			if err := e.exclude(ctx, e.key(c.tree), 0); err != nil {
				return false, err
			}
		}
	}
	for _, oid := range a.tags {
		e.add(e.key(oid))
	}
	for _, r := range a.roots {
		k := e.key(r.oid)
		switch {
		case r.tagged && r.t == objects.Tree:
			err = e.include(ctx, k, 0)
		case r.tagged:
			err = e.includeBlob(ctx, k, 0)
		case r.t == objects.Tree:
			// Asked for by name: sent, and its content starts at depth 0 as in git.
			err = e.include(ctx, k, -1)
		default:
			e.theirs.remove(k)
			e.add(k)
		}
		if err != nil {
			return false, err
		}
	}
	for _, c := range commits {
		if err := e.include(ctx, e.key(c.tree), 0); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (e *enumerator) add(k key) {
	if e.sent.has(k) || e.theirs.has(k) {
		return
	}
	e.sent.add(k)
	e.out.add(k)
	e.tick(e.out.Len())
}

// limit returns the commits reachable from ours and not from theirs, newest
// first. It returns false as soon as it sees more than max.
func (e *enumerator) limit(ctx context.Context, ours, theirs []*commit, max int) ([]*commit, bool, error) {
	q := &commitQueue{}
	live := 0 // commits in the queue that the client is not known to have
	enqueue := func(c *commit) {
		if c.flags&queued == 0 {
			c.flags |= queued
			heap.Push(q, c)
			if c.flags&uninteresting == 0 {
				live++
			}
		}
	}
	// paint marks c as the client's, and so all that is known to lie below it.
	paint := func(c *commit) {
		for stack := []*commit{c}; len(stack) > 0; {
			c := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if c.flags&uninteresting != 0 {
				continue
			}
			c.flags |= uninteresting
			if c.flags&(queued|walked) == queued {
				live--
			}
			if c.flags&walked != 0 {
				for _, p := range e.parents(c) {
					if pc := e.commits[p]; pc != nil {
						stack = append(stack, pc)
					}
				}
			}
		}
	}
	for _, c := range theirs {
		paint(c)
		enqueue(c)
	}
	for _, c := range ours {
		enqueue(c)
	}

	var list []*commit
	oldest := int64(math.MaxInt64)
	left := slop
	for q.Len() > 0 {
		if live == 0 {
			if len(list) == 0 {
				break
			}
			if (*q)[0].date < oldest {
				if left == 0 {
					break
				}
				left--
			}
		} else {
			left = slop
		}
		c := heap.Pop(q).(*commit)
		c.flags |= walked
		if c.flags&uninteresting == 0 {
			live--
			if len(list) == max {
				return nil, false, nil
			}
			list = append(list, c)
			oldest = min(oldest, c.date)
		}
		for _, p := range e.parents(c) {
			pc, err := e.load(ctx, p)
			if err != nil {
				return nil, false, fmt.Errorf("parent of commit %s: %w", c.oid, err)
			}
			if c.flags&uninteresting != 0 {
				paint(pc)
			}
			enqueue(pc)
		}
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
	}
	// Commits found to be the client's after they were listed drop out here.
	kept := list[:0]
	for _, c := range list {
		if c.flags&uninteresting == 0 {
			kept = append(kept, c)
		}
	}
	return kept, true, nil
}

// exclude marks a tree and all below it as the client's.
func (e *enumerator) exclude(ctx context.Context, tree key, level int) error {
	return e.fill(ctx, &e.theirs, tree, level, nil)
}

// fill adds a tree and all below it to a set. A tree that is in the set already
// has all that is below it there too. found, if not nil, is called for what is added.
func (g *graph) fill(ctx context.Context, set *objectSet, tree key, level int, found func(key, objects.Type)) error {
	if set.has(tree) {
		return nil
	}
	set.add(tree)
	if found != nil {
		found(tree, objects.Tree)
	}
	return g.links(ctx, tree.oid, level, func(mode gitobj.Mode, oid objects.OID) error {
		k := g.key(oid)
		if mode == gitobj.ModeTree {
			return g.fill(ctx, set, k, level+1, found)
		}
		if !set.has(k) {
			set.add(k)
			if found != nil {
				found(k, objects.Blob)
			}
		}
		return nil
	})
}

// include lists a tree at the given depth and all below it that passes the
// filter. Depth -1 is a tree asked for by name: no filter applies to itself.
func (e *enumerator) include(ctx context.Context, tree key, depth int64) error {
	if depth >= e.filter.treeDepth {
		return nil
	}
	if e.theirs.has(tree) {
		if depth >= 0 {
			return nil
		}
		e.theirs.remove(tree) // asked for by name: the client lacks it, whatever its haves imply
	}
	if e.filter.treeDepth == unlimited {
		if e.sent.has(tree) {
			return nil
		}
	} else {
		// Met again nearer to the root, a tree shows more of its content.
		if before, ok := e.depth[tree.oid]; ok && before <= depth {
			return nil
		}
		e.depth[tree.oid] = depth
	}
	e.add(tree)
	return e.links(ctx, tree.oid, int(max(depth, 0)), func(mode gitobj.Mode, oid objects.OID) error {
		if mode == gitobj.ModeTree {
			return e.include(ctx, e.key(oid), depth+1)
		}
		return e.includeBlob(ctx, e.key(oid), depth+1)
	})
}

func (e *enumerator) includeBlob(ctx context.Context, k key, depth int64) error {
	if depth >= e.filter.treeDepth || e.sent.has(k) {
		return nil
	}
	if pass, err := e.passes(ctx, k); err != nil || !pass {
		return err
	}
	e.add(k)
	return nil
}

// passes tells whether a blob is small enough for the filter.
func (e *enumerator) passes(ctx context.Context, k key) (bool, error) {
	switch limit := e.filter.blobLimit; limit {
	case 0, unlimited:
		return limit > 0, nil
	default:
		if k.known {
			if size, ok := e.x.BlobSize(k.pos); ok {
				return size < limit, nil
			}
		}
		info, err := e.r.Stat(ctx, k.oid)
		return info.Size < limit, err
	}
}

// links calls fn for what a tree names, but for commits of other repositories.
func (g *graph) links(ctx context.Context, tree objects.OID, level int, fn func(gitobj.Mode, objects.OID) error) error {
	if level > maxTreeDepth {
		return requestErrorf("tree %s lies more than %d directories deep", tree, maxTreeDepth)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	data, err := objects.ReadAll(ctx, g.r, tree, objects.Tree, gitobj.MaxBytes)
	if err != nil {
		return err
	}
	return gitobj.TreeLinks(data, func(mode gitobj.Mode, oid objects.OID) error {
		if mode == gitobj.ModeGitlink {
			return nil
		}
		return fn(mode, oid)
	})
}

// commitQueue is a heap with the newest commit on top; ties go by oid, so that
// equal requests give equal packs.
type commitQueue []*commit

func (q commitQueue) Len() int { return len(q) }
func (q commitQueue) Less(i, j int) bool {
	if q[i].date != q[j].date {
		return q[i].date > q[j].date
	}
	return string(q[i].oid[:]) < string(q[j].oid[:])
}
func (q commitQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *commitQueue) Push(x any)   { *q = append(*q, x.(*commit)) }
func (q *commitQueue) Pop() any {
	old := *q
	c := old[len(old)-1]
	*q = old[:len(old)-1]
	return c
}
