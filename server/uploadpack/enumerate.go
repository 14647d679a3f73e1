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

// selection is what a fetch is to be answered with.
type selection struct {
	wants  []objects.OID // of any type
	haves  []objects.OID // of any type; all present
	filter Filter
	tags   []tagRef // tags to send along when what they name is sent
	// haveTrees also leaves out the content of every have, not only of those
	// next to what is sent: for shallow clients, whose haves are not connected to the wants.
	haveTrees bool
}

// tagRef is an annotated tag that a ref names.
type tagRef struct {
	chain  []objects.OID // the tag, then the tags it names
	target objects.OID
}

// enumerator lists the objects of a selection. It holds an oid or two for each
// object sent or left out, and no content.
type enumerator struct {
	*graph
	filter Filter
	sent   map[objects.OID]struct{}
	theirs map[objects.OID]struct{} // trees, blobs and tags that the client has
	depth  map[objects.OID]int64    // with a tree filter: the smallest depth a tree was entered at
	out    []objects.OID
	tick   func(n int)
}

// enumerate returns every object reachable from the wants and not from the
// haves, as git rev-list --objects does: commits first, newest first, then tags,
// trees and blobs. tick is called now and then with the count so far.
func enumerate(ctx context.Context, g *graph, sel selection, tick func(n int)) ([]objects.OID, error) {
	e := &enumerator{
		graph: g, filter: sel.filter, tick: tick,
		sent: map[objects.OID]struct{}{}, theirs: map[objects.OID]struct{}{}, depth: map[objects.OID]int64{},
	}
	if err := e.run(ctx, sel); err != nil {
		return nil, err
	}
	return e.out, nil
}

func (e *enumerator) run(ctx context.Context, sel selection) error {
	var theirCommits, ourCommits []*commit
	for _, oid := range sel.haves {
		tags, target, t, err := e.peel(ctx, oid)
		if err != nil {
			return err
		}
		for _, tag := range tags {
			e.theirs[tag] = struct{}{}
		}
		switch t {
		case objects.Commit:
			c, err := e.load(ctx, target)
			if err != nil {
				return err
			}
			theirCommits = append(theirCommits, c)
		case objects.Tree:
			if err := e.exclude(ctx, target, 0); err != nil {
				return err
			}
		default:
			e.theirs[target] = struct{}{}
		}
	}
	type root struct {
		oid    objects.OID
		t      objects.Type
		tagged bool
	}
	var roots []root
	var tags []objects.OID
	for _, oid := range sel.wants {
		chain, target, t, err := e.peel(ctx, oid)
		if err != nil {
			return err
		}
		tags = append(tags, chain...)
		if t != objects.Commit {
			roots = append(roots, root{target, t, len(chain) > 0})
			continue
		}
		c, err := e.load(ctx, target)
		if err != nil {
			return err
		}
		ourCommits = append(ourCommits, c)
	}

	commits, err := e.limit(ctx, ourCommits, theirCommits)
	if err != nil {
		return err
	}
	for _, c := range commits {
		e.add(c.oid)
		for _, p := range e.parents(c) {
			if pc := e.commits[p]; pc != nil && pc.flags&uninteresting != 0 {
				if err := e.exclude(ctx, pc.tree, 0); err != nil {
					return err
				}
			}
		}
	}
	if sel.haveTrees {
		for _, c := range theirCommits {
			if err := e.exclude(ctx, c.tree, 0); err != nil {
				return err
			}
		}
	}
	for _, oid := range tags {
		e.add(oid)
	}
	for _, r := range roots {
		switch {
		case r.tagged && r.t == objects.Tree:
			err = e.include(ctx, r.oid, 0)
		case r.tagged:
			err = e.includeBlob(ctx, r.oid, 0)
		case r.t == objects.Tree:
			// Asked for by name: sent, and its content starts at depth 0 as in git.
			err = e.include(ctx, r.oid, -1)
		default:
			delete(e.theirs, r.oid)
			e.add(r.oid)
		}
		if err != nil {
			return err
		}
	}
	for _, c := range commits {
		if err := e.include(ctx, c.tree, 0); err != nil {
			return err
		}
	}
	for _, tag := range sel.tags {
		if _, ok := e.sent[tag.target]; ok {
			for _, oid := range tag.chain {
				e.add(oid)
			}
		}
	}
	return nil
}

func (e *enumerator) add(oid objects.OID) {
	if _, ok := e.sent[oid]; ok {
		return
	}
	if _, ok := e.theirs[oid]; ok {
		return
	}
	e.sent[oid] = struct{}{}
	e.out = append(e.out, oid)
	e.tick(len(e.out))
}

// limit returns the commits reachable from ours and not from theirs, newest first.
func (e *enumerator) limit(ctx context.Context, ours, theirs []*commit) ([]*commit, error) {
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
			list = append(list, c)
			oldest = min(oldest, c.date)
		}
		for _, p := range e.parents(c) {
			pc, err := e.load(ctx, p)
			if err != nil {
				return nil, fmt.Errorf("parent of commit %s: %w", c.oid, err)
			}
			if c.flags&uninteresting != 0 {
				paint(pc)
			}
			enqueue(pc)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	// Commits found to be the client's after they were listed drop out here.
	kept := list[:0]
	for _, c := range list {
		if c.flags&uninteresting == 0 {
			kept = append(kept, c)
		}
	}
	return kept, nil
}

// exclude marks a tree and all below it as the client's.
func (e *enumerator) exclude(ctx context.Context, tree objects.OID, level int) error {
	if _, ok := e.theirs[tree]; ok {
		return nil
	}
	e.theirs[tree] = struct{}{}
	entries, err := e.entries(ctx, tree, level)
	if err != nil {
		return err
	}
	for _, en := range entries {
		switch en.Mode {
		case gitobj.ModeGitlink:
		case gitobj.ModeTree:
			if err := e.exclude(ctx, en.OID, level+1); err != nil {
				return err
			}
		default:
			e.theirs[en.OID] = struct{}{}
		}
	}
	return nil
}

// include lists a tree at the given depth and all below it that passes the
// filter. Depth -1 is a tree asked for by name: no filter applies to itself.
func (e *enumerator) include(ctx context.Context, tree objects.OID, depth int64) error {
	if depth >= e.filter.treeDepth {
		return nil
	}
	if _, ok := e.theirs[tree]; ok {
		if depth >= 0 {
			return nil
		}
		delete(e.theirs, tree) // asked for by name: the client lacks it, whatever its haves imply
	}
	if before, ok := e.depth[tree]; ok && before <= depth {
		return nil
	} else if _, ok := e.sent[tree]; ok && e.filter.treeDepth == unlimited {
		return nil
	}
	if e.filter.treeDepth != unlimited {
		// Met again nearer to the root, a tree shows more of its content.
		e.depth[tree] = depth
	}
	e.add(tree)
	entries, err := e.entries(ctx, tree, int(max(depth, 0)))
	if err != nil {
		return err
	}
	for _, en := range entries {
		switch en.Mode {
		case gitobj.ModeGitlink: // names a commit of another repository
		case gitobj.ModeTree:
			err = e.include(ctx, en.OID, depth+1)
		default:
			err = e.includeBlob(ctx, en.OID, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *enumerator) includeBlob(ctx context.Context, oid objects.OID, depth int64) error {
	if e.filter.blobLimit == 0 || depth >= e.filter.treeDepth {
		return nil
	}
	if _, ok := e.sent[oid]; ok {
		return nil
	}
	if e.filter.blobLimit != unlimited {
		info, err := e.r.Stat(ctx, oid)
		if err != nil {
			return err
		}
		if info.Size >= e.filter.blobLimit {
			return nil
		}
	}
	e.add(oid)
	return nil
}

func (e *enumerator) entries(ctx context.Context, tree objects.OID, level int) ([]gitobj.Entry, error) {
	if level > maxTreeDepth {
		return nil, requestErrorf("tree %s lies more than %d directories deep", tree, maxTreeDepth)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	data, err := objects.ReadAll(ctx, e.r, tree, objects.Tree, gitobj.MaxBytes)
	if err != nil {
		return nil, err
	}
	entries, err := gitobj.ParseTree(data)
	if err != nil {
		return nil, fmt.Errorf("parse tree %s: %w", tree, err)
	}
	return entries, nil
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
