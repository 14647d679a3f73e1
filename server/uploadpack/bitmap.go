package uploadpack

import (
	"context"
	"maps"
	"slices"

	"github.com/headgate/headgate/objects"
)

// byBitmaps lists the objects that our commits lead to and theirs do not. Only
// commits without a bitmap, and trees that the index does not know, are read.
func (e *enumerator) byBitmaps(ctx context.Context, a asked) error {
	if err := e.closure(ctx, &e.theirs, a.theirs, nil); err != nil {
		return err
	}
	set := objectSet{bits: e.theirs.bits.Clone(), rest: maps.Clone(e.theirs.rest)}
	type object struct {
		key
		t objects.Type
	}
	var commits []key // that the index does not know
	var rest []object
	err := e.closure(ctx, &set, a.ours, func(k key, t objects.Type) {
		switch {
		case k.known:
		case t == objects.Commit:
			commits = append(commits, k)
		default:
			rest = append(rest, object{k, t})
		}
	})
	if err != nil {
		return err
	}
	set.bits.Subtract(e.theirs.bits)
	var known []uint32
	_ = set.bits.Each(func(pos uint32) error { known = append(known, pos); return nil }) // fn never fails

	n, _ := slices.BinarySearch(known, uint32(e.x.Commits()))
	for _, k := range commits {
		e.add(k)
	}
	// Higher numbers are later.
	for _, pos := range slices.Backward(known[:n]) {
		e.add(e.at(pos))
	}
	for _, oid := range a.tags {
		e.add(e.key(oid))
	}
	if e.filter.treeDepth == 0 {
		return nil
	}
	for _, o := range rest {
		if err := e.addContent(ctx, o.key, o.t); err != nil {
			return err
		}
	}
	for _, pos := range slices.Backward(known[n:]) {
		if err := e.addContent(ctx, e.at(pos), e.x.Type(pos)); err != nil {
			return err
		}
	}
	return nil
}

func (e *enumerator) addContent(ctx context.Context, k key, t objects.Type) error {
	if t == objects.Blob {
		if pass, err := e.passes(ctx, k); err != nil || !pass {
			return err
		}
	}
	e.add(k)
	return nil
}

// closure adds all that commits lead to to a set, which is closed already. found,
// if not nil, is called for what is added without a bitmap.
func (g *graph) closure(ctx context.Context, set *objectSet, from []*commit, found func(key, objects.Type)) error {
	var stack []key
	for _, c := range from {
		stack = append(stack, g.key(c.oid))
	}
	var trees []key
	for len(stack) > 0 {
		k := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if set.has(k) || k.known && g.x.Reach(k.pos, set.bits) {
			continue
		}
		set.add(k)
		if found != nil {
			found(k, objects.Commit)
		}
		if k.known {
			c := g.x.Commit(k.pos)
			trees = append(trees, g.at(c.Tree))
			for _, p := range c.Parents {
				stack = append(stack, g.at(p))
			}
			continue
		}
		c, err := g.load(ctx, k.oid)
		if err != nil {
			return err
		}
		trees = append(trees, g.key(c.tree))
		for _, p := range c.parents {
			stack = append(stack, g.key(p))
		}
	}
	for _, tree := range trees {
		if err := g.fill(ctx, set, tree, 0, found); err != nil {
			return err
		}
	}
	return nil
}
