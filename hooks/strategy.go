package hooks

import (
	"context"
	"fmt"
	"maps"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
)

// maxHistory bounds the search for the gate commit that a revert goes back to.
const maxHistory = 10_000

// past is what the target's history says of a model whose strategy builds on the
// table at the base.
type past struct {
	// prior is the table that the model's rows are combined with; nil if there is none.
	prior *exec.Table
	// done is what a gate commit says of this same action, and table what it gave;
	// nil if the action is new. Its prior is then prior.
	done  *trailer.Model
	table *exec.Table
}

// past looks up what a model's strategy builds on. An action (the model's code,
// inputs and parameters) counts once: if the base says that its table came from
// it, or if the proposal holds the table that an earlier gate commit says came
// from it, as after git revert, that is the table, and it is not added again.
// pushed is the table in the proposal and counts for nothing else.
//
// Only gate commits are believed. The environment is not a part of the action
// here: an upgrade of the server must not add anybody's rows a second time.
func (r *run) past(ctx context.Context, m *plan.Model, bound []exec.Bound, pushed objects.OID) (past, error) {
	if m.Strategy != plan.StrategyAppend && m.Strategy != plan.StrategyOverwritePartitions || !r.baseVerified {
		return past{}, nil
	}
	action := trailer.Model{Name: m.Name, Code: m.Code.String(), Params: canonicalJSON(r.paramsByName(m))}
	for _, b := range bound {
		action.Inputs = append(action.Inputs, trailer.Input{Table: b.Input.Table, Snapshot: b.Table.Tree.String()})
	}
	ids, err := r.baseTables(ctx)
	if err != nil {
		return past{}, err
	}
	atBase, there := ids[m.Name]
	var done *trailer.Model
	n := 0
	err = history.FirstParent(ctx, r.q, r.base, func(_ objects.OID, c *gitobj.Commit) (bool, error) {
		n++
		line := lineOf(c, m.Name)
		switch {
		case line == nil:
		case n == 1 && !(there && line.Out == atBase.String()):
		case n > 1 && line.Out != pushed.String():
		case sameAction(line, &action) && (n == 1 || r.gate.isGateCommit(c)):
			done = line
		}
		// Beyond the base, only a table that the base does not have is looked for.
		return done == nil && !pushed.IsZero() && pushed != atBase && n < maxHistory, nil
	})
	if err != nil {
		return past{}, fmt.Errorf("history of table %s: %w", m.Name, err)
	}
	if done == nil {
		if !there {
			return past{}, nil
		}
		t, err := exec.LoadTable(ctx, r.q, atBase)
		return past{prior: t}, err
	}
	p := past{done: done}
	if p.table, err = r.snapshot(ctx, done.Out); err != nil {
		return past{}, err
	}
	if done.Prior != "" {
		p.prior, err = r.snapshot(ctx, done.Prior)
	}
	return p, err
}

func (r *run) snapshot(ctx context.Context, id string) (*exec.Table, error) {
	oid, err := objects.ParseOID(id)
	if err != nil {
		return nil, err
	}
	return exec.LoadTable(ctx, r.q, oid)
}

// lineOf returns what a commit's trailers say of a table's model, nil if nothing.
func lineOf(c *gitobj.Commit, table string) *trailer.Model {
	g, err := trailer.Parse(c.Message)
	if err != nil {
		return nil
	}
	for i := range g.Models {
		if g.Models[i].Name == table {
			return &g.Models[i]
		}
	}
	return nil
}

// sameAction compares what decides a model's rows, apart from what it ran in.
func sameAction(a, b *trailer.Model) bool {
	return a.Code == b.Code && a.Params == b.Params && maps.Equal(snapshotsOf(a), snapshotsOf(b))
}

func snapshotsOf(m *trailer.Model) map[string]string {
	in := make(map[string]string, len(m.Inputs))
	for _, i := range m.Inputs {
		in[i.Table] = i.Snapshot
	}
	return in
}
