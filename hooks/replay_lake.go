package hooks

import (
	"context"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
)

// ReplayQuestion asks for the replay of a run's gate commit.
type ReplayQuestion struct {
	Of        string   // a run id, a branch, a full ref name, or the oid of a gate commit; "" is main
	Tables    []string // see Replayer
	Verifiers bool
	Progress  func(line string)
}

// Replay replays a gate commit of the lake on the server, within its budget of
// sandboxes and with nothing from the action cache. What the models give is
// thrown away. Errors for the asker are *QueryError. Only what this server's gate
// signed is replayed here: what a forged message names was held against no policy.
func (g *Gate) Replay(ctx context.Context, l *lake.Lake, q ReplayQuestion) (*ReplayReport, error) {
	g.runs.Add(1)
	defer g.runs.Done()
	commit, err := gateCommitOf(ctx, l, q.Of)
	if err != nil {
		return nil, err
	}
	c, err := readCommit(ctx, l.Objects, commit)
	if err != nil {
		return nil, err
	}
	if _, err := trailer.Parse(c.Message); !errors.Is(err, trailer.ErrNotGate) && g.cfg.Signer.Verify(c) != nil {
		return nil, &QueryError{fmt.Sprintf("commit %s has the lineage of a gate commit and not the signature of this server's gate; headgate replay, on a clone of yours, says what is true of it", short(commit))}
	}
	quarantine, err := l.Objects.Quarantine()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := quarantine.Discard(); err != nil {
			g.cfg.Logger.Warn("discard quarantine", "err", err)
		}
	}()
	r := &Replayer{
		Runtime: g.cfg.Runtime, Store: quarantine, TempDir: g.cfg.TempDir, Ceiling: g.cfg.Ceiling,
		Signature: g.cfg.Signer.Verify, Tables: q.Tables, Verifiers: q.Verifiers, Progress: q.Progress,
	}
	report, err := r.Replay(ctx, commit)
	var bad *NotReplayableError
	var noTable *NoSuchTableError
	switch {
	case errors.As(err, &bad):
		return nil, &QueryError{fmt.Sprintf("%v; run ls %s lists runs, and those that published can be replayed", err, l.Name)}
	case errors.As(err, &noTable):
		return nil, &QueryError{err.Error()}
	}
	return report, err
}

// gateCommitOf resolves what a user wants replayed.
func gateCommitOf(ctx context.Context, l *lake.Lake, of string) (objects.OID, error) {
	if _, err := ulid.ParseStrict(of); err != nil {
		return resolveCommit(ctx, l, of)
	}
	run, err := l.Runs.Get(of)
	if errors.Is(err, lake.ErrNoRun) {
		return objects.OID{}, &QueryError{fmt.Sprintf("lake %s has no run %s", l.Name, of)}
	}
	if err != nil {
		return objects.OID{}, err
	}
	if run.State != lake.Published {
		return objects.OID{}, &QueryError{fmt.Sprintf("run %s is %s: it published no gate commit that could be replayed", of, run.State)}
	}
	return objects.ParseOID(run.Gate)
}
