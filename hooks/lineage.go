package hooks

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/lineage"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
)

// LineageQuestion asks what a table was made from.
type LineageQuestion struct {
	Table string // SQL name
	Ref   string // any revision that resolveCommit takes; "" is main
	All   bool   // follow a table that grows by appending to its beginning
}

// Bounds of a lineage on the server: commits that are read, and states of a table
// that grows unless all are asked for.
const (
	maxLineageSteps = 200_000
	lineagePriors   = 10
)

// Lineage draws what a table of the lake was made from. Only commits that this
// server's gate signed are believed. Errors for the asker are *QueryError.
func (g *Gate) Lineage(ctx context.Context, l *lake.Lake, q LineageQuestion) (*lineage.Graph, error) {
	tip, err := resolveCommit(ctx, l, q.Ref)
	if err != nil {
		return nil, err
	}
	c, err := readCommit(ctx, l.Objects, tip)
	if err != nil {
		return nil, err
	}
	name := q.Table
	found, err := table.DiscoverAll(ctx, l.Objects, c.Tree)
	var bad *table.Error
	if err != nil && !errors.As(err, &bad) {
		return nil, err
	}
	var have []string
	for _, t := range found {
		have = append(have, t.Name)
		if strings.EqualFold(t.Name, name) {
			name = t.Name
		}
	}
	if err := table.ValidName(name); err != nil {
		return nil, &QueryError{err.Error()}
	}
	opt := lineage.Options{Priors: lineagePriors, IsGate: g.isGateCommit}
	if q.All {
		opt.Priors = 0
	}
	h := &storedHistory{r: l.Objects, left: maxLineageSteps}
	graph, err := lineage.Draw(ctx, h, tip, name, opt)
	var none *lineage.NoTableError
	switch {
	case errors.As(err, &none):
		if len(have) == 0 {
			have = []string{"none"}
		}
		return nil, &QueryError{fmt.Sprintf("%v; the commit has: %s", err, strings.Join(have, ", "))}
	case errors.Is(err, errLineageTooLong):
		return nil, &QueryError{fmt.Sprintf("the lineage of %s takes more than %d commits to read; headgate lineage draws it from a clone", name, maxLineageSteps)}
	}
	return graph, err
}

var errLineageTooLong = errors.New("too many commits")

// storedHistory reads the lake's objects for lineage.
type storedHistory struct {
	r    objects.Reader
	left int // commits that may still be read
}

// Commit implements lineage.History.
func (h *storedHistory) Commit(ctx context.Context, oid objects.OID) (*gitobj.Commit, error) {
	if h.left--; h.left < 0 {
		return nil, errLineageTooLong
	}
	return readCommit(ctx, h.r, oid)
}

// Tree implements lineage.History.
func (h *storedHistory) Tree(ctx context.Context, commit objects.OID, dir string) (objects.OID, error) {
	c, err := h.Commit(ctx, commit)
	if err != nil {
		return objects.OID{}, err
	}
	return directory(ctx, h.r, c.Tree, dir)
}

// directory returns the oid of a directory below root; zero if there is none.
func directory(ctx context.Context, r objects.Reader, root objects.OID, dir string) (objects.OID, error) {
	e, err := tree.Lookup(ctx, r, root, dir)
	if errors.Is(err, objects.ErrNotFound) || err == nil && e.Mode != gitobj.ModeTree {
		return objects.OID{}, nil
	}
	return e.OID, err
}

// LastChange implements lineage.History. Commits with one root tree, and those with
// one tree of all tables, need no look into it.
func (h *storedHistory) LastChange(ctx context.Context, tip objects.OID, dir string) (objects.OID, error) {
	var newer, want objects.OID // the commit before, and what it has
	var root, tables objects.OID
	found := objects.OID{}
	inside := strings.TrimPrefix(dir, table.Root+"/")
	err := history.FirstParent(ctx, h.r, tip, func(oid objects.OID, c *gitobj.Commit) (bool, error) {
		if h.left--; h.left < 0 {
			return false, errLineageTooLong
		}
		here := want
		if newer.IsZero() || c.Tree != root {
			all, err := directory(ctx, h.r, c.Tree, table.Root)
			if err != nil {
				return false, err
			}
			if newer.IsZero() || all != tables {
				here = objects.OID{}
				if !all.IsZero() {
					if here, err = directory(ctx, h.r, all, inside); err != nil {
						return false, err
					}
				}
			}
			root, tables = c.Tree, all
		}
		if !newer.IsZero() && here != want {
			found = newer
			return false, nil
		}
		newer, want = oid, here
		return true, nil
	})
	if err != nil {
		return objects.OID{}, err
	}
	if found.IsZero() && !want.IsZero() {
		found = newer // the first commit of all has it
	}
	return found, nil
}
