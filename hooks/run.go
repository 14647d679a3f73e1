package hooks

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/mask"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/objects/treemerge"
	"github.com/headgate/headgate/refs"
)

// Rejection says that a run judged a proposal and did not let it through.
type Rejection struct {
	Run     string
	Reasons []string // one sentence each
	Moved   bool     // only because the target moved while the run was under way
}

func (e *Rejection) Error() string {
	text := e.Reasons[0]
	if n := len(e.Reasons) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return fmt.Sprintf("rejected by run %s: %s", e.Run, text)
}

// CouldNotRun says that the gate could not judge a proposal, which refuses it too.
type CouldNotRun struct {
	Run   string
	Cause error // for the log; the client gets the sentence
}

func (e *CouldNotRun) Error() string {
	return fmt.Sprintf("run %s could not run: %v; nothing was published, push again or ask the administrator", e.Run, e.Cause)
}

// Unwrap returns the cause.
func (e *CouldNotRun) Unwrap() error { return e.Cause }

// result of a run that was let through.
type result struct {
	gate   objects.OID
	dryRun bool
}

// run is one execution of the gate. Its fields are set in the order of its states.
type run struct {
	*request
	gate    *Gate
	live    *live
	journal lake.Run
	q       *objects.Quarantine // what the run makes
	say     *reporter
	rec     *Record

	evaluation                  // of the state to publish
	units      []treemerge.Unit // tables that the tip and the proposal changed, still to be merged
	standing   *standing        // the tip's verifiers that judge it too
	hide       *mask.Mask       // of its secrets
	pushed     objects.OID      // the state before the gate wrote anything to it
	needs      []policy.Need    // the rules that ask for approvals
	// baseVerified tells whether the base is a gate commit. The old tip of a
	// branch that is not gated may be anything.
	baseVerified bool
}

// NewRunID returns a ULID: unique, and sorted by time.
func NewRunID(now time.Time) string {
	return ulid.MustNew(ulid.Timestamp(now), rand.Reader).String()
}

// run executes the gate on one request: plan, execute models, verify, publish or
// refuse. Errors are *Rejection, *Cancelled, *CouldNotRun or, when only the final swap
// failed, what swapError says.
func (g *Gate) run(ctx context.Context, rq *request) (result, error) {
	now := g.cfg.Now().UTC()
	id := NewRunID(now)
	ctx, live := g.enlist(ctx, rq, id)
	r := &run{
		request: rq, gate: g, live: live, say: newReporter(io.MultiWriter(live.feed, rq.progress)), evaluation: newEvaluation(nil),
		journal: lake.Run{ID: id, State: lake.Accepted, Target: string(rq.target), Base: rq.base.String(), Old: rq.old.String(), Proposal: rq.proposal.String(), Who: rq.who.Name, Started: now},
		rec:     newRecord(id, rq, now),
	}
	log := g.cfg.Logger.With("lake", rq.lake.Name, "run", id, "target", rq.target, "who", rq.who.Name)
	log.Info("run accepted", "proposal", rq.proposal, "base", rq.base)
	defer func() { g.dismiss(live, r.journal.State) }()
	res, err := r.execute(ctx)
	for _, sess := range r.sessions() {
		if cerr := sess.Close(); cerr != nil {
			log.Warn("close session", "err", cerr)
		}
	}
	if r.q != nil {
		if derr := r.q.Discard(); derr != nil {
			log.Warn("discard quarantine", "err", derr)
		}
	}
	var rejected *Rejection
	var cancelled *Cancelled
	switch {
	case err == nil:
		log.Info("run passed", "gate", res.gate, "dry_run", res.dryRun, "seconds", g.cfg.Now().Sub(now).Seconds())
	case errors.As(err, &rejected):
		log.Info("run rejected", "reasons", rejected.Reasons)
	case errors.As(err, &cancelled):
		log.Info("run cancelled", "by", cancelled.By)
	default:
		log.Error("run could not run", "err", err)
	}
	return res, err
}

func (r *run) id() string { return r.journal.ID }

// enter makes the next state durable before anything of it happens.
func (r *run) enter(s lake.State) error {
	r.journal.State, r.rec.State = s, s
	if s.Final() {
		r.journal.Ended = r.gate.cfg.Now().UTC()
		r.rec.Ended = r.journal.Ended
	}
	if err := r.lake.Runs.Put(r.journal); err != nil {
		return fmt.Errorf("run journal: %w", err)
	}
	return nil
}

// execute runs the state machine and brings the run to a final state.
func (r *run) execute(ctx context.Context) (result, error) {
	if err := r.enter(lake.Accepted); err != nil {
		return result{}, &CouldNotRun{Run: r.id(), Cause: errors.New("its journal could not be written")}
	}
	commit, err := r.judge(ctx)
	if by := r.live.seal(); by != nil {
		return result{}, r.stop(context.WithoutCancel(ctx), by)
	}
	if err == nil {
		if r.opt.dryRun {
			return r.passDry(ctx, commit)
		}
		return r.publish(ctx, commit)
	}
	return result{}, r.refuse(ctx, err)
}

// judge brings the run from the proposal to a signed gate commit whose tree
// every verifier has passed. It makes nothing visible.
func (r *run) judge(ctx context.Context) (objects.OID, error) {
	q, err := r.lake.Objects.Quarantine()
	if err != nil {
		return objects.OID{}, err
	}
	r.q, r.store = q, q
	r.sess = r.gate.cfg.Runtime.Session(q, r.lake.Actions, r.options())
	r.rec.Limits = limitsRecord(r.limits(), r.policy.Sandbox)
	r.say.header(r)
	if err := r.enter(lake.Planning); err != nil {
		return objects.OID{}, err
	}
	if err := r.makePlan(ctx); err != nil {
		return objects.OID{}, err
	}
	r.pushed = r.tree
	if err := r.environments(ctx); err != nil {
		return objects.OID{}, err
	}
	if err := r.stand(ctx); err != nil {
		return objects.OID{}, err
	}
	if err := r.authorize(ctx); err != nil {
		return objects.OID{}, err
	}
	if err := r.enter(lake.Running); err != nil {
		return objects.OID{}, err
	}
	if err := r.checkSources(ctx); err != nil {
		return objects.OID{}, err
	}
	if err := r.runModels(ctx); err != nil {
		return objects.OID{}, err
	}
	if err := r.enter(lake.Verifying); err != nil {
		return objects.OID{}, err
	}
	if err := r.verify(ctx); err != nil {
		return objects.OID{}, err
	}
	if err := r.score(ctx); err != nil {
		return objects.OID{}, err
	}
	if r.opt.strict && len(r.rec.Warnings) > 0 {
		return objects.OID{}, r.reject("warnings are failures under -o strict: " + r.rec.Warnings[0])
	}
	if err := r.confirm(ctx); err != nil {
		return objects.OID{}, err
	}
	return r.commit(ctx)
}

// options are those of the run's sessions.
func (r *run) options() exec.Options {
	return exec.Options{Limits: r.limits(), Ceiling: r.gate.cfg.Ceiling, NoCache: r.opt.noCache, TempDir: r.gate.cfg.TempDir}
}

// sessions are those that the run has begun.
func (r *run) sessions() []*exec.Session {
	var all []*exec.Session
	if r.sess != nil {
		all = append(all, r.sess)
	}
	if r.standing != nil && r.standing.sess != nil {
		all = append(all, r.standing.sess)
	}
	return all
}

func (r *run) reject(reasons ...string) error {
	return &Rejection{Run: r.id(), Reasons: reasons}
}

// makePlan reads the proposal: its policy, its models and verifiers, its tables.
func (r *run) makePlan(ctx context.Context) error {
	c, err := readCommit(ctx, r.q, r.proposal)
	if err != nil {
		return err
	}
	r.tree = c.Tree
	r.rec.Subject = subject(c.Message)
	if !r.base.IsZero() {
		b, err := readCommit(ctx, r.q, r.base)
		if err != nil {
			return err
		}
		r.baseTree = b.Tree
		r.baseVerified = r.gate.isGateCommit(b)
		r.described = r.baseVerified
	}
	if !r.mergeBase.IsZero() {
		if err := r.mergeFiles(ctx); err != nil {
			return err
		}
	}
	// The proposal's policy does not govern this push, but it would the next
	// one, so it must be readable.
	if r.next, err = policyOf(ctx, r.q, r.tree); err != nil {
		return r.rejectIfUser(err)
	}
	if err := r.checkGrants(ctx); err != nil {
		return err
	}
	settings := r.next.PlanSettings()
	// A proposal cannot allow itself a package.
	settings.Packages, settings.Denied = r.policy.Python.Packages, r.policy.Python.Deny
	r.plan, err = plan.Build(ctx, r.q, r.tree, settings, r.sess)
	var bad *plan.Error
	if errors.As(err, &bad) {
		reasons := make([]string, len(bad.Problems))
		for i, p := range bad.Problems {
			reasons[i] = p.String()
		}
		return r.reject(reasons...)
	}
	if err != nil {
		return r.rejectIfUser(err)
	}
	if wrong := r.resolveParams(r.opt.params); len(wrong) > 0 {
		return r.reject(wrong...)
	}
	wrong, err := r.resolveSecrets(ctx)
	if err != nil {
		return err
	}
	if len(wrong) > 0 {
		return r.reject(wrong...)
	}
	r.say.planned(r.plan)
	r.warnCapped()
	return r.mergeTables(ctx)
}

// rejectIfUser turns a failure of the user's code or data into a rejection, and
// leaves every other error alone: that one means "could not run".
func (r *run) rejectIfUser(err error) error {
	var bad *policy.Error
	if errors.As(err, &bad) {
		reasons := make([]string, len(bad.Problems))
		for i, p := range bad.Problems {
			reasons[i] = p.String()
		}
		return r.reject(reasons...)
	}
	var f *exec.Failure
	if errors.As(err, &f) {
		return r.reject(f.Text)
	}
	return err
}

// checkSources reads every table that no model makes, but for those that a base
// which is a gate commit has in the same state: they were read when it was published.
func (r *run) checkSources(ctx context.Context) error {
	found, err := table.DiscoverAll(ctx, r.q, r.tree)
	var bad *table.Error
	if errors.As(err, &bad) {
		return r.reject(bad.Error())
	}
	if err != nil {
		return err
	}
	derived := make(map[string]bool, len(r.plan.Models))
	for _, m := range r.plan.Models {
		derived[m.Name] = true
	}
	verified := make(map[string]objects.OID)
	if r.baseVerified {
		if verified, err = r.baseTables(ctx); err != nil {
			return err
		}
	}
	var reasons []string
	edits := make(map[string]tree.Edit)
	for _, t := range found {
		if derived[t.Name] {
			continue // sound or not: it is made anew
		}
		if t.Unsound != nil {
			reasons = append(reasons, t.Unsound.Error())
			continue
		}
		if strings.HasPrefix(t.Name, conflictsNamespace) {
			reasons = append(reasons, fmt.Sprintf("table %s: these are conflicts of a merge that were not resolved; resolve them (headgate conflicts), then remove the directory", t.Name))
			continue
		}
		loaded, err := r.source(ctx, t, verified, edits)
		var f *exec.Failure
		if errors.As(err, &f) {
			reasons = append(reasons, fmt.Sprintf("table %s: %s", t.Name, f.Text))
			continue
		}
		if err != nil {
			return err
		}
		r.tables[t.Name] = loaded
		r.rec.source(t.Name, loaded)
	}
	if len(reasons) > 0 {
		return r.reject(reasons...)
	}
	return r.edit(ctx, edits)
}

func (r *run) source(ctx context.Context, t table.Table, verified map[string]objects.OID, edits map[string]tree.Edit) (*exec.Table, error) {
	if verified[t.Name] == t.OID {
		if loaded, err := exec.LoadTable(ctx, r.q, t.OID); err == nil {
			return loaded, nil
		}
	}
	loaded, wrote, err := r.sess.Source(ctx, t.OID, r.next.Tables[t.Name].Key)
	if err != nil {
		return nil, err
	}
	if wrote {
		dir, err := table.Dir(t.Name)
		if err != nil {
			return nil, err
		}
		edits[dir] = tree.Edit{Mode: gitobj.ModeTree, OID: loaded.Tree}
		r.say.line("table", t.Name, "wrote %s: %s rows in %d part(s)", table.FileName, count(loaded.Rows()), len(loaded.Parts))
	}
	return loaded, nil
}

// edit replaces entries of the state to publish.
func (r *run) edit(ctx context.Context, edits map[string]tree.Edit) error {
	if len(edits) == 0 {
		return nil
	}
	root, err := tree.Apply(ctx, r.q, r.tree, edits)
	if err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	r.tree = root
	return nil
}

// publish makes the gate commit visible: objects first, then the refs of the run
// record, the notes and the target in one transaction, then the journal.
func (r *run) publish(ctx context.Context, commit objects.OID) (result, error) {
	r.journal.Gate, r.rec.Gate = commit.String(), commit.String()
	if err := r.enter(lake.Publishing); err != nil {
		return result{}, r.refuse(ctx, err)
	}
	record, err := r.writeRecord(ctx, lake.Published)
	if err != nil {
		return result{}, r.refuse(ctx, err)
	}
	note, err := r.prove(ctx, commit, record)
	if err != nil {
		return result{}, r.refuse(ctx, err)
	}
	moved := append([]refs.Update{{Name: r.target, Old: r.old, New: commit}}, r.moves...)
	err = r.gate.publish(ctx, r.lake, &publication{
		commit: commit, note: note, q: r.q,
		updates: append(moved[:len(moved):len(moved)], refs.Update{Name: refs.Name(runsPrefix + r.id()), New: record}),
		cause:   r.gate.causeOf(r.lake, "run "+r.id()+": published", r.runEvent(lake.Published, moved...)),
	})
	if err != nil {
		return result{}, r.refuseSwap(ctx, err)
	}
	r.settle(lake.Published)
	r.say.published(r, commit)
	return result{gate: commit}, nil
}

func (r *run) passDry(ctx context.Context, commit objects.OID) (result, error) {
	record, err := r.writeRecord(ctx, lake.Passed)
	if err == nil {
		err = r.q.Migrate(ctx)
	}
	if err == nil {
		err = r.lake.Refs.Apply(ctx, []refs.Update{{Name: refs.Name(runsPrefix + r.id()), New: record}},
			r.gate.causeOf(r.lake, "run "+r.id()+": dry run", r.runEvent(lake.Passed, r.asked())))
	}
	if err != nil {
		return result{}, r.refuse(ctx, err)
	}
	r.settle(lake.Passed)
	r.say.dryRun(r)
	return result{gate: commit, dryRun: true}, nil
}

// settle records the end of a run whose refs are in place. The refs are the
// truth and the caches only save work, so a failure here is logged, not told.
func (r *run) settle(s lake.State) {
	if err := r.enter(s); err != nil {
		r.gate.cfg.Logger.Error("end run", "run", r.id(), "err", err)
	}
	for _, sess := range r.sessions() {
		if err := sess.Commit(); err != nil {
			r.gate.cfg.Logger.Warn("action cache", "run", r.id(), "err", err)
		}
	}
}

// refuseSwap ends a run whose target moved, or whose refs could not be written.
func (r *run) refuseSwap(ctx context.Context, err error) error {
	var stale *refs.StaleError
	if errors.As(err, &stale) && stale.Name == r.target {
		// What was computed is still true of its inputs: the next push finds it cached.
		branch := strings.TrimPrefix(string(r.target), headsPrefix)
		advice := "git pull --rebase, then push again (what was computed is cached)"
		if r.again {
			advice = "the proposal is merged with it and judged again"
		} else if !r.mergeBase.IsZero() {
			advice = "push again (what was computed is cached)"
		}
		return r.refuse(ctx, &Rejection{Run: r.id(), Moved: true, Reasons: []string{fmt.Sprintf("%s moved while the run was under way; %s", branch, advice)}})
	}
	return r.refuse(ctx, fmt.Errorf("move the refs: %w", r.gate.swapError(err, r.lake.Name)))
}

// refuse ends a run that does not publish: the state built so far and the record
// become visible under refs/scratch and refs/runs, and the target is not touched.
func (r *run) refuse(ctx context.Context, cause error) error {
	r.journal.Gate, r.rec.Gate = "", "" // what was to be published was not
	state := lake.Failed
	var rejected *Rejection
	if errors.As(cause, &rejected) {
		state = lake.Rejected
		r.rec.Reasons = rejected.Reasons
		r.journal.Reason = rejected.Reasons[0]
	} else {
		r.journal.Reason = "could not run"
		r.rec.Reasons = []string{"the gate could not run; the server's log has the cause"}
		if public := publicCause(cause); public != errInside {
			r.rec.Reasons = []string{"the gate could not run: " + public.Error()}
		}
	}
	kept := r.keepEvidence(ctx, state)
	if kept != nil {
		r.gate.cfg.Logger.Error("keep the evidence of a refused run", "run", r.id(), "err", kept)
	}
	if state == lake.Rejected {
		r.settle(state)
		if rejected.Moved && r.again {
			r.say.line("moved", "", "%s", rejected.Reasons[0])
			return cause
		}
		r.say.refused(r, rejected.Reasons, kept == nil)
		return cause
	}
	if err := r.enter(state); err != nil {
		r.gate.cfg.Logger.Error("end run", "run", r.id(), "err", err)
	}
	r.gate.cfg.Logger.Error("run failed", "run", r.id(), "err", r.hide.Text(cause.Error()))
	r.say.failed(r, publicCause(cause), kept == nil)
	return &CouldNotRun{Run: r.id(), Cause: publicCause(cause)}
}

// stop ends a run that somebody cancelled. What it computed until then is cached,
// and its record tells as much as there is.
func (r *run) stop(ctx context.Context, by *Cancelled) error {
	r.journal.Reason = "cancelled by " + by.By
	r.rec.Reasons = []string{r.journal.Reason}
	kept := r.keepEvidence(ctx, lake.Cancelled)
	if kept != nil {
		r.gate.cfg.Logger.Error("keep the evidence of a cancelled run", "run", r.id(), "err", kept)
	}
	if kept == nil {
		r.settle(lake.Cancelled)
	} else if err := r.enter(lake.Cancelled); err != nil {
		r.gate.cfg.Logger.Error("end run", "run", r.id(), "err", err)
	}
	r.say.cancelled(r, by.By, kept == nil)
	return by
}

// errInside is all that a client is told of most causes.
var errInside = errors.New("an error inside the server, which its log has")

// publicCause keeps the server's inside (paths, addresses) out of what a client
// is told.
func publicCause(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return errors.New("the server is shutting down")
	}
	var public interface{ Public() string }
	if errors.As(err, &public) {
		return errors.New(public.Public())
	}
	return errInside
}
