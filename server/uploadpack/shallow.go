package uploadpack

import (
	"context"
	"errors"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
)

// cut is how a fetch changes the client's shallow boundary.
type cut struct {
	shallow   []objects.OID // will be held without their parents
	unshallow []objects.OID // were, and will be no longer
	wants     []objects.OID // parents of the unshallowed: wanted too
	haves     []objects.OID // the unshallowed: the client has them, and nothing below
}

// shallowPlan computes the new boundary and sets the graph's grafts, so that
// every later walk sees history as the client does and will.
func (c *conn) shallowPlan(ctx context.Context, g *graph, q *fetchRequest) (cut, error) {
	var plan cut
	client := map[objects.OID]struct{}{}
	for _, oid := range q.shallow {
		info, ok, err := g.stat(ctx, oid)
		if err != nil {
			return plan, err
		}
		if !ok {
			continue // history that was never here bounds nothing
		}
		if info.Type != objects.Commit {
			return plan, requestErrorf("invalid shallow object %s", oid)
		}
		client[oid] = struct{}{}
	}

	var boundary []objects.OID
	var whole map[objects.OID]struct{} // commits the client will hold with their parents
	var err error
	switch {
	case q.depth >= infiniteDepth:
		whole = client
	case q.depth > 0 && q.relative:
		var from []objects.OID
		if from, err = g.reachable(ctx, q.wants, client); err == nil {
			boundary, whole, err = g.byDepth(ctx, from, q.depth+1)
		}
	case q.depth > 0:
		var from []objects.OID
		if from, err = g.commitsOf(ctx, q.wants); err == nil {
			boundary, whole, err = g.byDepth(ctx, from, q.depth)
		}
	case q.deepens():
		boundary, whole, err = c.byRevision(ctx, g, q)
	}
	if err != nil {
		return plan, err
	}

	for _, oid := range boundary {
		if _, ok := client[oid]; !ok {
			plan.shallow = append(plan.shallow, oid)
		}
		g.grafts[oid] = struct{}{}
	}
	for _, oid := range q.shallow {
		if _, ok := client[oid]; !ok {
			continue
		}
		g.grafts[oid] = struct{}{}
		if _, ok := whole[oid]; !ok {
			continue
		}
		commit, err := g.load(ctx, oid)
		if err != nil {
			return plan, err
		}
		plan.unshallow = append(plan.unshallow, oid)
		plan.wants = append(plan.wants, commit.parents...)
		plan.haves = append(plan.haves, oid)
	}
	return plan, nil
}

func (c *conn) writeShallow(plan cut) {
	for _, oid := range plan.shallow {
		_ = c.out.Line("shallow %s", oid)
	}
	for _, oid := range plan.unshallow {
		_ = c.out.Line("unshallow %s", oid)
	}
}

// commitsOf peels wants and returns those that are commits.
func (g *graph) commitsOf(ctx context.Context, wants []objects.OID) ([]objects.OID, error) {
	var out []objects.OID
	for _, w := range wants {
		_, oid, t, err := g.peel(ctx, w)
		if err != nil {
			return nil, err
		}
		if t == objects.Commit {
			out = append(out, oid)
		}
	}
	return out, nil
}

// byDepth walks depth generations down, the starting commits being the first.
// It returns the last generation, and the set of all above it.
func (g *graph) byDepth(ctx context.Context, from []objects.OID, depth int) (last []objects.OID, above map[objects.OID]struct{}, err error) {
	above = map[objects.OID]struct{}{}
	seen := map[objects.OID]struct{}{}
	level := from
	for n := 1; len(level) > 0; n++ {
		var next []objects.OID
		for _, oid := range level {
			if _, ok := seen[oid]; ok {
				continue
			}
			seen[oid] = struct{}{}
			if n >= depth {
				last = append(last, oid)
				continue
			}
			above[oid] = struct{}{}
			c, err := g.load(ctx, oid)
			if err != nil {
				return nil, nil, err
			}
			next = append(next, c.parents...)
		}
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		level = next
	}
	return last, above, nil
}

// reachable returns the members of set that the wants lead to.
func (g *graph) reachable(ctx context.Context, wants []objects.OID, set map[objects.OID]struct{}) ([]objects.OID, error) {
	from, err := g.commitsOf(ctx, wants)
	if err != nil {
		return nil, err
	}
	var out []objects.OID
	err = g.walk(ctx, from, func(c *commit) bool {
		if _, ok := set[c.oid]; ok {
			out = append(out, c.oid)
		}
		return true
	})
	return out, err
}

// walk visits each commit reachable from the given ones once. It goes below
// those for which visit returns true.
func (g *graph) walk(ctx context.Context, from []objects.OID, visit func(*commit) bool) error {
	seen := map[objects.OID]struct{}{}
	for todo := from; len(todo) > 0; {
		oid := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, ok := seen[oid]; ok {
			continue
		}
		seen[oid] = struct{}{}
		c, err := g.load(ctx, oid)
		if err != nil {
			return err
		}
		if visit(c) {
			todo = append(todo, c.parents...)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// byRevision applies deepen-since and deepen-not: the client is to hold the
// commits that are young enough and not in the excluded histories; the boundary
// are those of them that have a parent outside.
func (c *conn) byRevision(ctx context.Context, g *graph, q *fetchRequest) (boundary []objects.OID, whole map[objects.OID]struct{}, err error) {
	var not []objects.OID
	for _, text := range q.not {
		oid, err := c.expandRef(ctx, text)
		if err != nil {
			return nil, nil, err
		}
		not = append(not, oid)
	}
	if not, err = g.commitsOf(ctx, not); err != nil {
		return nil, nil, err
	}
	excluded := map[objects.OID]struct{}{}
	err = g.walk(ctx, not, func(c *commit) bool { excluded[c.oid] = struct{}{}; return true })
	if err != nil {
		return nil, nil, err
	}
	from, err := g.commitsOf(ctx, q.wants)
	if err != nil {
		return nil, nil, err
	}
	whole = map[objects.OID]struct{}{}
	var order []*commit
	err = g.walk(ctx, from, func(c *commit) bool {
		if _, out := excluded[c.oid]; out || c.date < q.since {
			return false
		}
		whole[c.oid] = struct{}{}
		order = append(order, c)
		return true
	})
	if err != nil {
		return nil, nil, err
	}
	if len(whole) == 0 {
		return nil, nil, requestErrorf("no commits selected for shallow requests")
	}
	for _, c := range order {
		for _, p := range c.parents {
			if _, in := whole[p]; !in {
				boundary = append(boundary, c.oid)
				break
			}
		}
	}
	for _, oid := range boundary {
		delete(whole, oid)
	}
	return boundary, whole, nil
}

// expandRef resolves the short or full name of exactly one ref, by git's rules.
func (c *conn) expandRef(ctx context.Context, text string) (objects.OID, error) {
	if oid, err := objects.ParseOID(text); err == nil {
		if _, err := c.Objects.Stat(ctx, oid); err == nil {
			return oid, nil
		}
	}
	var found []objects.OID
	for _, pattern := range []string{"", "refs/", "refs/tags/", "refs/heads/"} {
		name, err := refs.Parse(pattern + text)
		if err != nil {
			continue
		}
		oid, err := c.Refs.Get(ctx, name)
		switch {
		case err == nil:
			found = append(found, oid)
		case !errors.Is(err, refs.ErrNotFound):
			return objects.OID{}, err
		}
	}
	if len(found) != 1 {
		return objects.OID{}, requestErrorf("git upload-pack: ambiguous deepen-not: %s", clip(text))
	}
	return found[0], nil
}
