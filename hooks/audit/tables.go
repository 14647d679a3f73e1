package audit

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
)

// list returns the entries of a tree.
func (w *checker) list(ctx context.Context, oid objects.OID) ([]gitobj.Entry, error) {
	if entries, ok := w.lists[oid]; ok {
		return entries, nil
	}
	entries, err := tree.List(ctx, w.r, oid)
	if err != nil {
		return nil, err
	}
	if len(w.lists) >= maxCached {
		clear(w.lists)
	}
	w.lists[oid] = entries
	return entries, nil
}

// entry returns what is at a path; the zero oid if nothing is.
func (w *checker) entry(ctx context.Context, root objects.OID, path string) (gitobj.Entry, error) {
	at := gitobj.Entry{Mode: gitobj.ModeTree, OID: root}
	for name := range strings.SplitSeq(path, "/") {
		if at.Mode != gitobj.ModeTree {
			return gitobj.Entry{}, nil
		}
		entries, err := w.list(ctx, at.OID)
		if err != nil {
			return gitobj.Entry{}, err
		}
		i := slices.IndexFunc(entries, func(e gitobj.Entry) bool { return e.Name == name })
		if i < 0 {
			return gitobj.Entry{}, nil
		}
		at = entries[i]
	}
	return at, nil
}

// snapshot returns the oid of a table in a tree, "" if there is none of that name.
func (w *checker) snapshot(ctx context.Context, root objects.OID, name string) (string, error) {
	dir, err := table.Dir(name)
	if err != nil {
		return "", nil
	}
	e, err := w.entry(ctx, root, dir)
	if err != nil || e.Mode != gitobj.ModeTree {
		return "", err
	}
	return e.OID.String(), nil
}

// tables checks that each derived table is the output of its model on the inputs
// of this same commit, and that no table is there of which nothing is said.
func (w *checker) tables(ctx context.Context, s *proof.Statement) error {
	unstored := make(map[string]string) // outputs that are not in the tree
	known := make(map[string]bool)
	for _, m := range w.gate.Models {
		known[m.Name] = true
		have, err := w.snapshot(ctx, w.c.Tree, m.Name)
		if err != nil {
			return err
		}
		switch {
		case m.Strategy == plan.StrategyNone:
			if unstored[m.Name] = m.Out; have != "" {
				w.found(KindTable, "table %s is in the tree, though its model's strategy is NONE", m.Name)
			}
		case have == "":
			w.found(KindTable, "table %s is not in the tree, and its message says that a model gave it", m.Name)
		case have != m.Out:
			w.found(KindTable, "table %s is %s in the tree, its model gave %s: it was changed after it was made", m.Name, have, m.Out)
		}
	}
	for _, m := range w.gate.Models {
		for _, in := range m.Inputs {
			have, stored := unstored[in.Table], false
			if have == "" {
				var err error
				if have, err = w.snapshot(ctx, w.c.Tree, in.Table); err != nil {
					return err
				}
				stored = true
			}
			if have != in.Snapshot && (have != "" || stored) {
				w.found(KindTable, "the model of %s read %s at %s, and this commit has %s", m.Name, in.Table, in.Snapshot, orNone(have))
			}
		}
		if err := w.prior(ctx, m); err != nil {
			return err
		}
	}
	if s == nil {
		return nil
	}
	for _, d := range s.Predicate.BuildDefinition.Dependencies {
		name, ok := strings.CutPrefix(d.Name, table.Root+"/")
		if !ok {
			continue
		}
		name = strings.ReplaceAll(name, "/", ".")
		known[name] = true
		have, err := w.snapshot(ctx, w.c.Tree, name)
		if err != nil {
			return err
		}
		if have != d.Digest[proof.GitTree] {
			w.found(KindTable, "its proof says that table %s is %s, the tree has %s", name, d.Digest[proof.GitTree], orNone(have))
		}
	}
	return w.unknown(ctx, known)
}

// prior checks that what a model's rows were combined with is the table at the
// base, or that the base's own line says the same: an action counts once.
func (w *checker) prior(ctx context.Context, m trailer.Model) error {
	if m.Prior == "" || w.base == nil {
		return nil
	}
	have, err := w.snapshot(ctx, w.base.Tree, m.Name)
	if err != nil || have == m.Prior || have == m.Out {
		return err // the table as it is at the base was the outcome of an action that counts once
	}
	// After a revert, the table of an older commit is taken together with what that
	// commit says of it.
	old, err := w.claimed(ctx, m)
	if err == nil && !old {
		w.found(KindTable, "the model of %s added to %s, and its base has %s", m.Name, m.Prior, orNone(have))
	}
	return err
}

// maxHistory is how far the gate itself looks back for an action that was done.
const maxHistory = 10_000

// claimed tells whether an older commit of the line says the same of a model.
func (w *checker) claimed(ctx context.Context, m trailer.Model) (bool, error) {
	for at, n := w.c.Parents[0], 0; n < maxHistory; n++ {
		c, err := readCommit(ctx, w.r, at)
		if errors.Is(err, objects.ErrNotFound) {
			return true, nil // not in this clone, so not refuted
		}
		if err != nil {
			return false, err
		}
		if g, err := trailer.Parse(c.Message); err == nil {
			for _, o := range g.Models {
				if o.Name == m.Name && o.Code == m.Code && o.Out == m.Out && o.Prior == m.Prior && o.Params == m.Params && slices.Equal(o.Inputs, m.Inputs) {
					return true, nil
				}
			}
		}
		if len(c.Parents) == 0 {
			break
		}
		at = c.Parents[0]
	}
	return false, nil
}

// unknown looks for tables of which neither message nor proof say anything.
func (w *checker) unknown(ctx context.Context, known map[string]bool) error {
	root, err := w.entry(ctx, w.c.Tree, table.Root)
	if err != nil || root.Mode != gitobj.ModeTree {
		return err
	}
	namespaces := make(map[string]bool)
	for name := range known {
		if ns, _, ok := strings.Cut(name, "."); ok {
			namespaces[ns] = true
		}
	}
	top, err := w.list(ctx, root.OID)
	if err != nil {
		return err
	}
	for _, e := range top {
		if e.Mode != gitobj.ModeTree || known[e.Name] || strings.HasPrefix(e.Name, ".") {
			continue
		}
		if !namespaces[e.Name] {
			w.found(KindTable, "%s/%s is in the tree, and neither a model nor a source of its proof", table.Root, e.Name)
			continue
		}
		below, err := w.list(ctx, e.OID)
		if err != nil {
			return err
		}
		for _, t := range below {
			if name := e.Name + "." + t.Name; t.Mode == gitobj.ModeTree && !known[name] && !strings.HasPrefix(t.Name, ".") {
				w.found(KindTable, "table %s is in the tree, and neither a model nor a source of its proof", name)
			}
		}
	}
	return nil
}

func orNone(oid string) string {
	if oid == "" {
		return "none"
	}
	return oid
}
