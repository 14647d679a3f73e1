package uploadpack

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/reach"
)

// maxTagChain bounds tags of tags.
const maxTagChain = 32

// graph looks commits up, in the reachability index or in the objects, and
// keeps what a walk needs of them for the length of one request. It is asked for
// objects that are there only: refs, what they lead to, and what was found by stat.
type graph struct {
	r       objects.Reader
	x       *reach.Index // what the store knows of its commits; nil if nothing
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

func newGraph(ctx context.Context, r objects.Reader) *graph {
	return &graph{r: r, x: objects.Reachability(ctx, r), commits: map[objects.OID]*commit{}, grafts: map[objects.OID]struct{}{}}
}

func (g *graph) load(ctx context.Context, oid objects.OID) (*commit, error) {
	if c := g.commits[oid]; c != nil {
		return c, nil
	}
	if k := g.key(oid); k.known && int(k.pos) < g.x.Commits() {
		known := g.x.Commit(k.pos)
		c := &commit{oid: oid, tree: g.x.OID(known.Tree), date: known.Date, parents: make([]objects.OID, len(known.Parents))}
		for i, p := range known.Parents {
			c.parents[i] = g.x.OID(p)
		}
		g.commits[oid] = c
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
		if k := g.key(oid); k.known {
			switch t := g.x.Type(k.pos); t {
			case objects.Tag:
				if commit, ok := g.x.Target(k.pos); ok {
					return append(tags, oid), g.x.OID(commit), objects.Commit, nil
				}
			default:
				return tags, oid, t, nil
			}
		}
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
	var known []uint32 // those in common that the index has
	for oid := range common {
		if k := g.key(oid); k.known {
			known = append(known, k.pos)
		}
	}
	slices.Sort(known)
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
			if k := g.key(oid); k.known {
				// Nothing that the index lacks can lie below a commit that it has.
				if reaches, ok := g.x.ReachesAny(k.pos, known); ok {
					state[oid] = no
					if reaches {
						state[oid] = yes
					}
					return nil
				}
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
