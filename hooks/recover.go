package hooks

import (
	"context"
	"errors"
	"fmt"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/refs"
)

// Recover ends the runs that a stopped server left under way in a lake. A run
// whose gate commit is on its target was published, whatever its journal got to
// say; every other one failed and moved nothing. It must be called before the
// lake takes pushes.
func (g *Gate) Recover(ctx context.Context, l *lake.Lake) error {
	runs, err := l.Runs.List(0)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if r.State.Final() {
			continue
		}
		published, err := g.wasPublished(ctx, l, r)
		if err != nil {
			return fmt.Errorf("recover run %s: %w", r.ID, err)
		}
		r.Ended = g.cfg.Now().UTC()
		if published {
			r.State = lake.Published
		} else {
			r.Gate = ""
			r.State, r.Reason = lake.Failed, fmt.Sprintf("the server stopped while the run was %s; nothing was published, push again", r.State)
			if err := g.recordFailed(ctx, l, r); err != nil {
				return fmt.Errorf("recover run %s: %w", r.ID, err)
			}
		}
		if err := l.Runs.Put(r); err != nil {
			return err
		}
		g.cfg.Logger.Info("run ended by recovery", "lake", l.Name, "run", r.ID, "state", r.State)
	}
	return nil
}

func (g *Gate) wasPublished(ctx context.Context, l *lake.Lake, r lake.Run) (bool, error) {
	if r.State != lake.Publishing || r.Gate == "" {
		return false, nil
	}
	gate, err := objects.ParseOID(r.Gate)
	if err != nil {
		return false, err
	}
	tip, err := l.Refs.Get(ctx, refs.Name(r.Target))
	if errors.Is(err, refs.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	found := false
	err = history.FirstParent(ctx, l.Objects, tip, func(oid objects.OID, _ *gitobj.Commit) (bool, error) {
		found = oid == gate
		return !found, nil
	})
	return found, err
}

// recordFailed writes the run record of a run that did not live to write its own.
func (g *Gate) recordFailed(ctx context.Context, l *lake.Lake, j lake.Run) error {
	name := refs.Name(runsPrefix + j.ID)
	if _, err := l.Refs.Get(ctx, name); err == nil {
		return nil
	} else if !errors.Is(err, refs.ErrNotFound) {
		return err
	}
	q, err := l.Objects.Quarantine()
	if err != nil {
		return err
	}
	rq := &request{lake: l, who: Identity{Name: j.Who}, target: refs.Name(j.Target)}
	r := &run{request: rq, gate: g, journal: j, q: q, rec: newRecord(j.ID, rq, j.Started)}
	r.rec.Base, r.rec.Proposal, r.rec.Reasons = j.Base, j.Proposal, []string{j.Reason}
	return errors.Join(r.keepEvidence(ctx, lake.Failed), q.Discard())
}
