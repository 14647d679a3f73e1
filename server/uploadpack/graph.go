package uploadpack

import (
	"context"
	"errors"
	"fmt"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// maxTagChain bounds tags of tags.
const maxTagChain = 32

// graph reads commits and keeps what a walk needs of them for the length of
// one request.
type graph struct {
	r       objects.Reader
	commits map[objects.OID]*commit
	// grafts are commits that the client holds, or will hold, without their
	// parents: every walk ends there.
	grafts map[objects.OID]struct{}
}

type commit struct {
	oid, tree objects.OID
	parents   []objects.OID
	date      int64
	flags     flags
}

type flags uint8

const (
	uninteresting flags = 1 << iota // the client has it
	queued                          // has been in the queue
	walked                          // has left the queue
)

func newGraph(r objects.Reader) *graph {
	return &graph{r: r, commits: map[objects.OID]*commit{}, grafts: map[objects.OID]struct{}{}}
}

func (g *graph) load(ctx context.Context, oid objects.OID) (*commit, error) {
	if c := g.commits[oid]; c != nil {
		return c, nil
	}
	data, err := objects.ReadAll(ctx, g.r, oid, objects.Commit, gitobj.MaxBytes)
	if err != nil {
		return nil, err
	}
	parsed, err := gitobj.ParseCommit(data)
	if err != nil {
		return nil, fmt.Errorf("parse commit %s: %w", oid, err)
	}
	c := &commit{oid: oid, tree: parsed.Tree, parents: parsed.Parents, date: parsed.Committer.When.Unix()}
	g.commits[oid] = c
	return c, nil
}

// parents returns the parents that a walk may follow.
func (g *graph) parents(c *commit) []objects.OID {
	if _, cut := g.grafts[c.oid]; cut {
		return nil
	}
	return c.parents
}

// peel follows a tag to what it names. It returns the tags on the way and the
// first object that is no tag, with its type.
func (g *graph) peel(ctx context.Context, oid objects.OID) (tags []objects.OID, target objects.OID, t objects.Type, err error) {
	for range maxTagChain {
		info, err := g.r.Stat(ctx, oid)
		if err != nil {
			return nil, objects.OID{}, 0, err
		}
		if info.Type != objects.Tag {
			return tags, oid, info.Type, nil
		}
		data, err := objects.ReadAll(ctx, g.r, oid, objects.Tag, gitobj.MaxBytes)
		if err != nil {
			return nil, objects.OID{}, 0, err
		}
		tag, err := gitobj.ParseTag(data)
		if err != nil {
			return nil, objects.OID{}, 0, fmt.Errorf("parse tag %s: %w", oid, err)
		}
		tags = append(tags, oid)
		oid = tag.Object
	}
	return nil, objects.OID{}, 0, requestErrorf("tag %s is more than %d tags deep", oid, maxTagChain)
}

// stat is Stat with a missing object as ok == false.
func (g *graph) stat(ctx context.Context, oid objects.OID) (info objects.Info, ok bool, err error) {
	info, err = g.r.Stat(ctx, oid)
	if errors.Is(err, objects.ErrNotFound) {
		return objects.Info{}, false, nil
	}
	return info, err == nil, err
}

// reachAny reports whether each of the commits in from leads to one in common,
// looking no further than commits older than oldest. It is what lets the server
// tell the client that no more haves are needed.
func (g *graph) reachAny(ctx context.Context, from []objects.OID, common map[objects.OID]struct{}, oldest int64) (bool, error) {
	const (
		open = 1 + iota // on the stack
		no
		yes
	)
	state := map[objects.OID]uint8{}
	type frame struct {
		c    *commit
		next int
	}
	for _, root := range from {
		_, oid, t, err := g.peel(ctx, root)
		if err != nil {
			return false, err
		}
		if t != objects.Commit {
			continue // its ancestry tells nothing, as in git
		}
		var stack []frame
		push := func(oid objects.OID) error {
			if state[oid] != 0 {
				return nil
			}
			if _, ok := common[oid]; ok {
				state[oid] = yes
				return nil
			}
			c, err := g.load(ctx, oid)
			if err != nil {
				return err
			}
			if c.date < oldest {
				state[oid] = no
				return nil
			}
			state[oid] = open
			stack = append(stack, frame{c: c})
			return nil
		}
		if err := push(oid); err != nil {
			return false, err
		}
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			done := false
			if top.next > 0 && state[top.c.parents[top.next-1]] == yes {
				state[top.c.oid], done = yes, true
			} else if top.next == len(top.c.parents) {
				state[top.c.oid], done = no, true
			}
			if done {
				stack = stack[:len(stack)-1]
				continue
			}
			top.next++
			if err := push(top.c.parents[top.next-1]); err != nil {
				return false, err
			}
		}
		if state[oid] != yes {
			return false, nil
		}
	}
	return true, nil
}
