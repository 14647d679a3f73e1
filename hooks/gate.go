package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/refs"
)

// Config is what a Gate needs.
type Config struct {
	Runtime *exec.Runtime
	Signer  *Signer
	TempDir string         // on the object stores' file system
	Ceiling sandbox.Limits // what headgate.yaml may ask for at most
	Logger  *slog.Logger
	// People returns everybody whose key opens the server now, one for each key. If
	// it is nil, names in policies are not checked.
	People func() []Identity
	Now    func() time.Time // time.Now if nil
	// Versions of what judges pushes, by name ("headgate", "gvisor", "duckdb"), for proofs.
	Versions map[string]string
}

// Gate decides pushes. It is safe for concurrent use; runs on different lakes and
// on the same one go on side by side, and only the final compare-and-swap
// orders them.
type Gate struct {
	cfg  Config
	runs sync.WaitGroup

	mu   sync.Mutex
	live map[string]*live // runs under way, by id

	ledgers map[lake.Name]*ledger // of lakes that were published to

	sealings map[*lake.Lake]*sealing // of lakes with events for their audit log
	ended    bool                    // nothing is sealed any more
}

// New returns a gate.
func New(cfg Config) *Gate {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Gate{cfg: cfg, live: make(map[string]*live), ledgers: make(map[lake.Name]*ledger), sealings: make(map[*lake.Lake]*sealing)}
}

// Wait returns when no run is under way, or when ctx ends.
func (g *Gate) Wait(ctx context.Context) error {
	g.endSealing()
	done := make(chan struct{})
	go func() { g.runs.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("runs are still under way: %w", ctx.Err())
	}
}

// Namespaces of refs.
const (
	headsPrefix   = "refs/heads/"
	tagsPrefix    = "refs/tags/"
	notesPrefix   = "refs/notes/"
	forPrefix     = "refs/for/"
	scratchPrefix = "refs/scratch/"
	runsPrefix    = "refs/runs/"
	mainRef       = refs.Name("refs/heads/main")
)

// PolicyFile is the path of the policy in a commit.
const PolicyFile = "headgate.yaml"

// maxPolicy bounds headgate.yaml, in bytes.
const maxPolicy = 1 << 20

// decision is what is to be done with one update.
type decision struct {
	update refs.Update
	gated  *request // run the gate; the target moves to its gate commit
	advice *request // move at once, then run for information
	// approving is an approval to be written down; the update itself is not done.
	approving *approving
	refused   error
}

// Receive decides a push and carries it out. ctx is the server's, not the
// client's: a client that goes away does not stop a run.
func (g *Gate) Receive(ctx context.Context, p *Push) []Outcome {
	g.runs.Add(1)
	defer g.runs.Done()
	out := g.receive(ctx, p)
	g.recordRefused(ctx, p, out)
	return out
}

func (g *Gate) receive(ctx context.Context, p *Push) []Outcome {
	out := make([]Outcome, len(p.Updates))
	for i, u := range p.Updates {
		out[i].Name = u.Name
	}
	refuseAll := func(err error) []Outcome {
		for i := range out {
			if out[i].Err == nil {
				out[i].Err = err
			}
		}
		return out
	}
	opt, err := parseOptions(p.Options)
	if err != nil {
		return refuseAll(err)
	}
	decisions := make([]decision, len(p.Updates))
	refused, gates := 0, 0
	for i, u := range p.Updates {
		decisions[i] = g.decide(ctx, p, u, opt)
		if out[i].Err = decisions[i].refused; out[i].Err != nil {
			refused++
		}
		if decisions[i].gated != nil {
			gates++
		}
	}
	switch {
	case refused == len(out), p.Atomic && refused > 0:
		return refuseAll(errors.New("atomic push: another ref was refused"))
	case p.Atomic && gates > 1:
		return refuseAll(errors.New("atomic push: only one gated branch can be published in one transaction; push them one by one"))
	}
	if err := p.Objects.Migrate(ctx); err != nil {
		g.cfg.Logger.Error("migrate push", "lake", p.Lake.Name, "err", err)
		return refuseAll(errors.New("the server could not store the objects; nothing was changed, try again"))
	}
	if p.Atomic {
		g.carryOutAtomic(ctx, p, decisions, out)
	} else {
		for i := range decisions {
			if decisions[i].refused == nil {
				g.carryOut(ctx, p, &decisions[i], nil, &out[i])
			}
		}
	}
	return out
}

// carryOutAtomic performs all decisions in one transaction: the gate's own, if
// there is a gated update among them.
func (g *Gate) carryOutAtomic(ctx context.Context, p *Push, decisions []decision, out []Outcome) {
	var moves []refs.Update
	gated := -1
	for i, d := range decisions {
		if d.gated != nil {
			gated = i
		} else {
			moves = append(moves, d.update)
		}
	}
	if gated >= 0 {
		g.carryOut(ctx, p, &decisions[gated], moves, &out[gated])
	} else if err := g.move(ctx, p, moves); err != nil {
		out[0].Err = err
		gated = 0
	}
	for i := range out {
		if i != gated && gated >= 0 && out[gated].Err != nil {
			out[i].Err = errors.New("atomic push: another ref was refused")
		}
	}
	for i, d := range decisions {
		if d.advice != nil && out[i].Err == nil {
			g.advise(ctx, d.advice)
		}
	}
}

// carryOut performs one decision, together with moves that must succeed with it.
func (g *Gate) carryOut(ctx context.Context, p *Push, d *decision, moves []refs.Update, out *Outcome) {
	if d.approving != nil {
		out.Err = g.approve(ctx, p, d.approving)
		return
	}
	if d.gated == nil {
		out.Err = g.move(ctx, p, append(moves, d.update))
		if out.Err == nil && d.advice != nil {
			g.advise(ctx, d.advice)
		}
		return
	}
	d.gated.moves = moves
	res, err := g.runOn(ctx, p, d)
	out.Err = err
	if err == nil && res.dryRun {
		// Nothing moved. The client has the old tip, so it can be told so; where
		// there was none, only a refusal keeps its tracking ref from lying.
		out.NewOID = d.gated.old
		if d.gated.old.IsZero() && strings.HasPrefix(string(out.Name), headsPrefix) {
			out.Err = errors.New("dry run passed; nothing was published")
		}
	}
}

// maxRounds is how often a proposal is judged anew because its target moved.
const maxRounds = 8

// runOn runs the gate. A proposal to refs/for/ that found its target moved is
// merged with the new tip and judged again, as a run of its own; its pusher asked for a
// merge and need not do it. What did not change is cached.
func (g *Gate) runOn(ctx context.Context, p *Push, d *decision) (result, error) {
	rq := d.gated
	proposed := strings.HasPrefix(string(d.update.Name), forPrefix)
	for round := 1; ; round++ {
		rq.again = proposed && round < maxRounds
		res, err := g.run(ctx, rq)
		var rejected *Rejection
		if !rq.again || !errors.As(err, &rejected) || !rejected.Moved {
			return res, err
		}
		next := g.decideProposal(ctx, p, d.update, rq.target, rq.opt)
		if next.refused != nil {
			return result{}, next.refused
		}
		next.gated.moves = rq.moves
		rq = next.gated
		d.gated = rq
	}
}

// advise runs the gate on a branch that has moved already; its verdict only informs.
func (g *Gate) advise(ctx context.Context, rq *request) {
	if _, err := g.run(ctx, rq); err != nil {
		_, _ = fmt.Fprintf(rq.progress, "headgate: the gate is advisory here: %s was pushed although %v\n", rq.target, err)
	}
}

// move applies updates of refs that are not gated.
func (g *Gate) move(ctx context.Context, p *Push, updates []refs.Update) error {
	err := p.Lake.Refs.Apply(ctx, updates, g.causeOf(p.Lake, "push", g.event(p.Who, "push", DecisionAccepted, updates...)))
	return g.swapError(err, p.Lake.Name)
}

// swapError turns a failed ref transaction into what the client may see.
func (g *Gate) swapError(err error, name lake.Name) error {
	var stale *refs.StaleError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &stale):
		return fmt.Errorf("%s moved while you pushed; fetch, then push again", stale.Name)
	}
	var conflict *refs.ConflictError
	if errors.As(err, &conflict) {
		return err
	}
	g.cfg.Logger.Error("move refs", "lake", name, "err", err)
	return errors.New("the server could not move the ref; nothing was changed, try again")
}

func refuse(format string, args ...any) decision {
	return decision{refused: fmt.Errorf(format, args...)}
}

// decide says what one update is: refused, a plain move, or a run of the gate.
func (g *Gate) decide(ctx context.Context, p *Push, u refs.Update, opt options) decision {
	name := string(u.Name)
	if !strings.HasPrefix(name, approvalsPrefix) && (opt.target != "" || opt.withdraw) {
		return refuse("the options target and withdraw are for approvals, which are pushed to %s<oid>", approvalsPrefix)
	}
	switch {
	case strings.HasPrefix(name, approvalsPrefix):
		return g.decideApproval(ctx, p, u, opt)
	case strings.HasPrefix(name, headsPrefix):
		return g.decideBranch(ctx, p, u, u.Name, opt)
	case strings.HasPrefix(name, forPrefix):
		if u.New.IsZero() {
			return refuse("%s is where proposals are pushed; there is nothing to delete", name)
		}
		target, err := refs.Parse(headsPrefix + strings.TrimPrefix(name, forPrefix))
		if err != nil {
			return refuse("%v", err)
		}
		return g.decideProposal(ctx, p, u, target, opt)
	case u.Name == notesRef:
		return refuse("%s is written by the server", name)
	case strings.HasPrefix(name, tagsPrefix), strings.HasPrefix(name, notesPrefix):
		if err := g.permitOpen(ctx, p, u); err != nil {
			return decision{refused: err}
		}
		if opt.dryRun {
			return refuse("dry run: nothing was changed")
		}
		return decision{update: u}
	}
	return refuse("%s is not a place to push to; push to refs/heads/, refs/tags/, refs/notes/ or refs/for/<branch>", name)
}

func (g *Gate) decideBranch(ctx context.Context, p *Push, u refs.Update, target refs.Name, opt options) decision {
	pol, err := g.governing(ctx, p, target, u)
	if err != nil {
		return decision{refused: err}
	}
	branch := strings.TrimPrefix(string(target), headsPrefix)
	gate := pol.GateOf(branch)
	if target == mainRef && u.Old.IsZero() {
		gate = policy.Required // a lake's first state is judged too, whatever it says of itself
	}
	if gate != policy.Required && target != mainRef && !u.Old.IsZero() {
		// What a branch without a gate says of itself is anybody's word.
		main, err := g.granting(ctx, p)
		if err != nil {
			return decision{refused: err}
		}
		if main.GateOf(branch) > gate {
			pol, gate = main, main.GateOf(branch)
		}
	}
	if gate == policy.Off || gate == policy.Advisory {
		if err := g.permitOpen(ctx, p, u); err != nil {
			return decision{refused: err}
		}
		return g.decideOpen(ctx, p, u, pol, gate, opt)
	}
	if err := g.permitProposal(p, pol, target, u.Old); err != nil {
		return decision{refused: err}
	}
	if u.New.IsZero() {
		return refuse("%s is gated and cannot be deleted; change branches in %s first", branch, PolicyFile)
	}
	if !u.Old.IsZero() {
		forward, err := history.IsAncestor(ctx, p.Objects, u.Old, u.New)
		if err != nil {
			return g.unable(p, "compare with the tip", err)
		}
		if !forward {
			return refuse("%s is gated and only moves forward: your commit does not contain its tip; git pull --rebase, then push again", branch)
		}
	}
	rq, err := g.newRequest(ctx, p, u.Old, u.New, target, pol, opt)
	if err != nil {
		return g.unable(p, "prepare the run", err)
	}
	return decision{update: u, gated: rq}
}

// decideOpen decides an update of a branch that moves without passing the gate.
func (g *Gate) decideOpen(ctx context.Context, p *Push, u refs.Update, pol *policy.Policy, gate policy.Gate, opt options) decision {
	if u.New.IsZero() || (gate == policy.Off && !opt.run && !opt.dryRun) {
		if opt.dryRun {
			return refuse("dry run: nothing was changed")
		}
		if idle := opt.needsRun(); idle != "" {
			return refuse("-o %s is for a run, and %s is not gated; add -o run, or leave it out", idle, strings.TrimPrefix(string(u.Name), headsPrefix))
		}
		return decision{update: u}
	}
	rq, err := g.newRequest(ctx, p, u.Old, u.New, u.Name, pol, opt)
	if err != nil {
		return g.unable(p, "prepare the run", err)
	}
	if opt.run || opt.dryRun {
		return decision{update: u, gated: rq}
	}
	rq.old, rq.opt.dryRun = u.New, true
	return decision{update: u, advice: rq}
}

// decideProposal decides a push to refs/for/<branch>, from any base: one that does
// not contain the branch's tip is merged with it.
func (g *Gate) decideProposal(ctx context.Context, p *Push, u refs.Update, target refs.Name, opt options) decision {
	old, err := p.Lake.Refs.Get(ctx, target)
	if errors.Is(err, refs.ErrNotFound) {
		return refuse("%s does not exist; create it by pushing to it", target)
	}
	if err != nil {
		return g.unable(p, "read the target", err)
	}
	branch := strings.TrimPrefix(string(target), headsPrefix)
	if old == u.New {
		return refuse("%s is at this commit already", target)
	}
	at := refs.Update{Name: u.Name, Old: old, New: u.New}
	forward, err := history.IsAncestor(ctx, p.Objects, old, u.New)
	if err != nil {
		return g.unable(p, "compare with the tip", err)
	}
	if forward {
		d := g.decideBranch(ctx, p, at, target, opt)
		if d.refused == nil && d.gated == nil {
			return refuse("%s is not gated; push to it directly, or with -o run", branch)
		}
		return d
	}
	pol, err := g.governing(ctx, p, target, at)
	if err != nil {
		return decision{refused: err}
	}
	if gate := pol.GateOf(branch); gate == policy.Off || gate == policy.Advisory {
		return refuse("%s is not gated; push to it directly, or with -o run", branch)
	}
	if err := g.permitProposal(p, pol, target, old); err != nil {
		return decision{refused: err}
	}
	contained, err := history.IsAncestor(ctx, p.Objects, u.New, old)
	if err != nil {
		return g.unable(p, "compare with the tip", err)
	}
	if contained {
		return refuse("%s contains this commit already", branch)
	}
	from, related, err := history.MergeBase(ctx, p.Objects, old, u.New)
	if err != nil {
		return g.unable(p, "find what your commit and the tip have in common", err)
	}
	if !related {
		return refuse("your commit and %s have no history in common, so they cannot be merged", branch)
	}
	return decision{update: at, gated: &request{
		lake: p.Lake, who: p.Who, target: target, old: old, base: old, proposal: u.New, mergeBase: from,
		policy: pol, opt: opt, progress: p.Progress,
	}}
}

// governing returns the policy that judges a push to target: the one at the
// target's tip, else at main's tip, else (the first push of all) the proposal's own.
func (g *Gate) governing(ctx context.Context, p *Push, target refs.Name, u refs.Update) (*policy.Policy, error) {
	at := u.Old
	if at.IsZero() && target != mainRef {
		tip, err := p.Lake.Refs.Get(ctx, mainRef)
		if err != nil && !errors.Is(err, refs.ErrNotFound) {
			return nil, g.unable(p, "read main", err).refused
		}
		at = tip
	}
	if at.IsZero() {
		at = u.New
	}
	if at.IsZero() {
		return policy.Default(), nil
	}
	pol, err := policyAt(ctx, p.Objects, at)
	if err != nil && at == u.New {
		return nil, err
	}
	if err != nil {
		return nil, g.unable(p, "read the policy at the tip", err).refused
	}
	return pol, nil
}

// unable refuses because the gate itself could not tell; the cause goes to the log.
func (g *Gate) unable(p *Push, what string, err error) decision {
	g.cfg.Logger.Error("gate could not decide", "lake", p.Lake.Name, "what", what, "err", err)
	return refuse("the gate could not %s; nothing was changed, try again or ask the administrator", what)
}

// request is one run to be done.
type request struct {
	lake     *lake.Lake
	who      Identity
	target   refs.Name
	old      objects.OID // where target must be when the run publishes; zero if it must not exist
	base     objects.OID // the old state that the proposal is judged against; zero if there is none
	proposal objects.OID
	// mergeBase is what the proposal is merged with the tip over; zero if it contains the tip.
	mergeBase objects.OID
	policy    *policy.Policy // that governs
	opt       options
	moves     []refs.Update // to publish in the same transaction
	progress  io.Writer
	again     bool // if the target moves, another run follows this one
}

func (g *Gate) newRequest(ctx context.Context, p *Push, old, proposal objects.OID, target refs.Name, pol *policy.Policy, opt options) (*request, error) {
	rq := &request{
		lake: p.Lake, who: p.Who, target: target, old: old, base: old, proposal: proposal,
		policy: pol, opt: opt, progress: p.Progress,
	}
	forward := !old.IsZero()
	if forward && old != proposal {
		var err error
		if forward, err = history.IsAncestor(ctx, p.Objects, old, proposal); err != nil {
			return nil, err
		}
	}
	if !forward {
		base, err := g.baseOnMain(ctx, p, proposal)
		if err != nil {
			return nil, err
		}
		rq.base = base
	}
	return rq, nil
}

// baseOnMain returns the newest state of main that the proposal contains, which
// is what a new branch is judged against; zero if there is none.
func (g *Gate) baseOnMain(ctx context.Context, p *Push, proposal objects.OID) (objects.OID, error) {
	tip, err := p.Lake.Refs.Get(ctx, mainRef)
	if errors.Is(err, refs.ErrNotFound) {
		return objects.OID{}, nil
	}
	if err != nil {
		return objects.OID{}, err
	}
	base, found, err := history.MergeBase(ctx, p.Objects, tip, proposal)
	if err != nil || !found {
		return objects.OID{}, err
	}
	// The merge base may be somebody's proposal, which no gate verified; the
	// state that was verified is the gate commit below it on main's own line.
	var gate objects.OID
	err = history.FirstParent(ctx, p.Objects, tip, func(oid objects.OID, _ *gitobj.Commit) (bool, error) {
		contained, err := history.IsAncestor(ctx, p.Objects, oid, base)
		if contained {
			gate = oid
		}
		return !contained, err
	})
	return gate, err
}
