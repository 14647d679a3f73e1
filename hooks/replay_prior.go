package hooks

import (
	"context"
	"errors"
	"fmt"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
)

// prior returns the table that the message says the model's rows were combined
// with, nil if it says that there was none. It must be the one at the base or, of
// an action that was done before, that of the gate commit which did it: a message
// that was free to name any prior could put any rows into a table.
func (p *replay) prior(ctx context.Context, m *plan.Model, claim *trailer.Model, rep *ReplayedModel) (*exec.Table, error) {
	builds := m.Strategy == plan.StrategyAppend || m.Strategy == plan.StrategyOverwritePartitions
	if !builds {
		if claim.Prior != "" {
			rep.problem("the message says that it builds on %s, but its strategy is %s", shortText(claim.Prior), m.Strategy)
		}
		return nil, nil
	}
	sound, err := p.soundPrior(ctx, claim)
	switch {
	case errors.Is(err, objects.ErrNotFound):
		p.note("whether %s builds on the right table is not known: the history is not in this clone", m.Name)
	case err != nil:
		return nil, err
	case !sound && claim.Prior == "":
		rep.problem("the message says that it builds on no table, but the base has one")
	case !sound:
		rep.problem("the message says that it builds on %s, which is neither the table at the base nor what an earlier gate commit built on", shortText(claim.Prior))
	}
	if claim.Prior == "" {
		return nil, nil
	}
	oid, err := objects.ParseOID(claim.Prior)
	if err != nil {
		return nil, &NotReplayableError{p.report.commit, fmt.Sprintf("prior of model %s: %v", m.Name, err)}
	}
	return exec.LoadTable(ctx, p.store, oid)
}

// soundPrior tells whether a run on this base could have had the prior.
func (p *replay) soundPrior(ctx context.Context, claim *trailer.Model) (bool, error) {
	if p.noBase != nil || p.base.IsZero() {
		return claim.Prior == "", p.noBase
	}
	sound, n := false, 0
	err := history.FirstParent(ctx, p.store, p.base, func(_ objects.OID, c *gitobj.Commit) (bool, error) {
		n++
		line := lineOf(c, claim.Name)
		same := line != nil && line.Out == claim.Out && line.Prior == claim.Prior && sameAction(line, claim)
		if n > 1 && !same {
			return n < maxHistory, nil // most commits, whose signatures nobody need check
		}
		_, err := trailer.Parse(c.Message)
		isGate := err == nil && (p.Signature == nil || p.Signature(c) == nil)
		if n == 1 {
			ids, err := p.baseTables(ctx)
			if err != nil {
				return false, err
			}
			at := ""
			if oid, ok := ids[claim.Name]; ok && isGate {
				at = oid.String()
			}
			sound = claim.Prior == at
		}
		if same && isGate {
			sound = true
		}
		return !sound && n < maxHistory, nil
	})
	return sound, err
}

func (p *replay) note(format string, args ...any) {
	p.saying.Lock()
	defer p.saying.Unlock()
	p.report.Notes = append(p.report.Notes, fmt.Sprintf(format, args...))
}
