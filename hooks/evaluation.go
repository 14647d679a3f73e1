package hooks

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table"
)

// evaluation is everything that decides what the functions of one state give:
// the plan, the tables it is bound to, the base, and parameters. A run evaluates
// a proposal with it, a replay a gate commit: what is bound to what is written once.
// Its fields are set in this order.
type evaluation struct {
	store  exec.Store
	sess   *exec.Session
	params map[plan.Param]any // the values of parameters; see declaration

	secrets map[string]exec.Secret // those that the plan's models are given, by the lake's name

	baseTree objects.OID // zero if there is no base
	// described tells that the base's table.json files are true of their tables, since
	// a gate has published them. Those of the state always are.
	described bool
	tree      objects.OID    // the state, as it grows
	next      *policy.Policy // the state's own; it governs the push after this one
	plan      *plan.Plan

	mu     sync.Mutex
	tables map[string]*exec.Table // every table of the state
	atBase map[string]*exec.Table // tables of the base, loaded when asked for
}

func newEvaluation(params map[plan.Param]any) evaluation {
	return evaluation{params: params, tables: make(map[string]*exec.Table), atBase: make(map[string]*exec.Table)}
}

// bind resolves a function's inputs to tables; false if one is not there
// because its model failed.
func (e *evaluation) bind(inputs []plan.Input) ([]exec.Bound, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	bound := make([]exec.Bound, 0, len(inputs))
	for _, in := range inputs {
		t := e.tables[in.Table]
		if t == nil {
			return nil, false
		}
		bound = append(bound, exec.Bound{Input: in, Table: t})
	}
	return bound, true
}

// baseTables returns the snapshot ids of the base by table name.
func (e *evaluation) baseTables(ctx context.Context) (map[string]objects.OID, error) {
	ids := make(map[string]objects.OID)
	if e.baseTree.IsZero() {
		return ids, nil
	}
	found, err := table.Discover(ctx, e.store, e.baseTree)
	if err != nil {
		return nil, fmt.Errorf("tables of the base: %w", err)
	}
	for _, t := range found {
		ids[t.Name] = t.OID
	}
	return ids, nil
}

// groupVerifiers binds each verifier to its tables and puts those together that
// may share a sandbox: the column tests of one table, whose SQL is the server's own.
func (e *evaluation) groupVerifiers(ctx context.Context) ([][]exec.Checked, error) {
	all := make([]*plan.Verifier, len(e.plan.Verifiers))
	for i := range e.plan.Verifiers {
		all[i] = &e.plan.Verifiers[i]
	}
	return e.group(ctx, all)
}

func (e *evaluation) group(ctx context.Context, verifiers []*plan.Verifier) ([][]exec.Checked, error) {
	var groups [][]exec.Checked
	columns := make(map[string]int) // table -> index of its group
	for _, v := range verifiers {
		bound := make([]exec.Bound, 0, len(v.Inputs))
		for _, in := range v.Inputs {
			t, err := e.tableAt(ctx, in.Table)
			if err != nil {
				return nil, fmt.Errorf("verifier %s: %w", v.Name, err)
			}
			bound = append(bound, exec.Bound{Input: in, Table: t})
		}
		c := exec.Checked{Verifier: v, Bound: bound, Described: e.described}
		if v.Kind != plan.KindColumn {
			groups = append(groups, []exec.Checked{c})
			continue
		}
		at, ok := columns[v.Table]
		if !ok {
			at = len(groups)
			columns[v.Table] = at
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], c)
	}
	return groups, nil
}

// tableAt returns a table of the state or, for "base.x", of the base. A table
// that the base does not have is empty there: a rule such as "no history may
// vanish" then holds of a new table, as it should.
func (e *evaluation) tableAt(ctx context.Context, name string) (*exec.Table, error) {
	plain, isBase := strings.CutPrefix(name, plan.BasePrefix)
	if !isBase {
		t, ok := e.find(name)
		if !ok {
			return nil, fmt.Errorf("table %q is not in the state to publish", name)
		}
		return t, nil
	}
	if t := e.atBase[plain]; t != nil {
		return t, nil
	}
	ids, err := e.baseTables(ctx)
	if err != nil {
		return nil, err
	}
	var t *exec.Table
	if id, ok := ids[plain]; ok {
		if t, err = exec.LoadTable(ctx, e.store, id); err != nil {
			return nil, err
		}
	} else if now, ok := e.find(plain); ok {
		t = emptyLike(now)
	} else {
		return nil, fmt.Errorf("table %q is neither in the old state nor in the new one", plain)
	}
	e.atBase[plain] = t
	return t, nil
}
