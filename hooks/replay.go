package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
)

// Replayer runs the models of a gate commit again, each on the inputs that the
// commit itself holds, and compares what they give with what the commit says.
// All that it needs is the commit's tree, message and parents: where the run
// was made does not matter. It publishes nothing.
type Replayer struct {
	Runtime *exec.Runtime
	// Store has the commit's objects and takes what the models give, which may be
	// thrown away afterwards. It may be a Prefetcher.
	Store   exec.Store
	TempDir string         // on the store's file system
	Ceiling sandbox.Limits // what a policy may ask for at most

	Signature func(*gitobj.Commit) error // checks the commit's signature; nil leaves it unchecked
	Tables    []string                   // replay only these; nil is all
	Verifiers bool                       // evaluate the verifiers again, too
	Progress  func(line string)          // takes a line for each function that has ended; nil drops them
}

// Prefetcher is the optional ability of a store to bring objects here in one
// go, where reading them one by one would take a round trip each.
type Prefetcher interface {
	Prefetch(ctx context.Context, oids []objects.OID) error
}

// NotReplayableError says why a commit cannot be replayed at all.
type NotReplayableError struct {
	Commit objects.OID
	Reason string
}

func (e *NotReplayableError) Error() string {
	return fmt.Sprintf("commit %s cannot be replayed: %s", short(e.Commit), e.Reason)
}

// NoSuchTableError says that a table that was asked for is not one that the
// commit's models make.
type NoSuchTableError struct {
	Table string
	Have  []string
}

func (e *NoSuchTableError) Error() string {
	return fmt.Sprintf("no model of this commit makes the table %q; they make %s", e.Table, strings.Join(e.Have, ", "))
}

// replay is one replay under way.
type replay struct {
	*Replayer
	evaluation
	gate      trailer.Gate
	lineage   map[string]trailer.Model
	committed map[string]objects.OID // table -> snapshot in the commit's tree
	absent    map[string]error       // inputs that could not be read
	standing  *standing              // the base's verifiers that judged the commit too; nil if none did
	base      objects.OID            // the old tip; zero if there is none
	noBase    error                  // why it cannot be read, in a shallow clone
	report    *ReplayReport
	saying    sync.Mutex // guards Progress and the report's notes
}

// Replay replays the commit. What is wrong with the commit is in the report; an
// error means that it could not be replayed. It is a *NotReplayableError if the
// commit is at fault, and a *NoSuchTableError if Tables is.
func (r *Replayer) Replay(ctx context.Context, commit objects.OID) (_ *ReplayReport, err error) {
	c, g, err := readGateCommit(ctx, r.Store, commit)
	if err != nil {
		return nil, err
	}
	p := &replay{
		Replayer: r, evaluation: newEvaluation(nil), gate: g,
		lineage: make(map[string]trailer.Model, len(g.Models)), absent: make(map[string]error),
		report: newReplayReport(commit, g),
	}
	p.store, p.tree = r.Store, c.Tree
	for _, m := range g.Models {
		p.lineage[m.Name] = m
	}
	started := time.Now()
	p.checkCommit(c)
	p.say(p.report.head())
	defer func() {
		if p.sess != nil {
			err = errors.Join(err, p.sess.Close())
		}
		if p.standing != nil && p.standing.sess != nil {
			err = errors.Join(err, p.standing.sess.Close())
		}
	}()
	if err := p.prepare(ctx, commit, c); err != nil {
		return nil, err
	}
	models, err := p.selected()
	if err != nil {
		return nil, err
	}
	if err := p.load(ctx, models); err != nil {
		return nil, err
	}
	if err := p.models(ctx, models); err != nil {
		return nil, err
	}
	if r.Verifiers {
		if err := p.verifiers(ctx); err != nil {
			return nil, err
		}
	}
	p.report.Seconds = time.Since(started).Seconds()
	p.report.conclude()
	return p.report, nil
}

// CheckReplayable returns a *NotReplayableError if the commit does not look like
// one of a gate's. It is what to ask before sandboxes are started for a replay.
func CheckReplayable(ctx context.Context, r objects.Reader, commit objects.OID) error {
	_, _, err := readGateCommit(ctx, r, commit)
	return err
}

func readGateCommit(ctx context.Context, r objects.Reader, oid objects.OID) (*gitobj.Commit, trailer.Gate, error) {
	c, err := readCommit(ctx, r, oid)
	if err != nil {
		return nil, trailer.Gate{}, err
	}
	g, err := trailer.Parse(c.Message)
	if errors.Is(err, trailer.ErrNotGate) {
		err = &NotReplayableError{oid, "it is no gate commit, its message has no lineage"}
	} else if err != nil {
		err = &NotReplayableError{oid, err.Error()}
	}
	return c, g, err
}

// checkCommit compares what the message says of the commit with the commit.
func (p *replay) checkCommit(c *gitobj.Commit) {
	rep := p.report
	switch {
	case p.Signature == nil:
		rep.Signature = SignatureUnchecked
	case p.Signature(c) != nil:
		rep.Signature = SignatureBad
		rep.problem("the commit does not carry the gate's signature: %v", p.Signature(c))
	default:
		rep.Signature = SignatureGood
	}
	if len(c.Parents) != 2 {
		rep.problem("it has %d parents; a gate commit has two, the old tip and the proposal", len(c.Parents))
		return
	}
	for i, says := range []struct {
		what string
		oid  objects.OID
	}{{"Base", p.gate.Base}, {"Proposal", p.gate.Proposal}} {
		if c.Parents[i] != says.oid {
			rep.problem("its message says %s: %s, but parent %d is %s", says.what, says.oid, i+1, c.Parents[i])
		}
	}
}

// prepare reads the base, the policies and the plan.
func (p *replay) prepare(ctx context.Context, commit objects.OID, c *gitobj.Commit) error {
	governing, err := p.readBase(ctx, c)
	if err != nil {
		return err
	}
	if err := p.fetchCode(ctx); err != nil {
		return err
	}
	if p.next, err = policyAt(ctx, p.store, commit); err != nil {
		return replayable(commit, err)
	}
	if governing == nil {
		governing = p.next // as with a lake's first push
	}
	open := func() *exec.Session {
		return p.Runtime.Session(p.store, nil, exec.Options{Limits: limitsUnder(governing, p.Ceiling), Ceiling: p.Ceiling, NoCache: true, TempDir: p.TempDir})
	}
	p.sess = open()
	settings := p.next.PlanSettings()
	settings.Packages, settings.Denied = []string{"*"}, nil // the run that published it held them against its policy
	if p.plan, err = plan.Build(ctx, p.store, p.tree, settings, p.sess); err != nil {
		return replayable(commit, err)
	}
	if err := p.environments(ctx, commit); err != nil {
		return err
	}
	if err := p.stand(ctx, c, open); err != nil {
		return replayable(commit, err)
	}
	if p.params, err = p.recordedParams(); err != nil {
		return &NotReplayableError{commit, err.Error()}
	}
	p.committed = make(map[string]objects.OID)
	found, err := table.Discover(ctx, p.store, p.tree)
	if err != nil {
		return replayable(commit, err)
	}
	for _, t := range found {
		p.committed[t.Name] = t.OID
	}
	p.checkPlan()
	return nil
}

// replayable tells errors that the commit is the cause of from all others.
func replayable(commit objects.OID, err error) error {
	var code *plan.Error
	var pol *policy.Error
	var tab *table.Error
	var f *exec.Failure
	var env *pyenv.Error
	if errors.As(err, &env) || errors.As(err, &code) || errors.As(err, &pol) || errors.As(err, &tab) || errors.As(err, &f) {
		return &NotReplayableError{commit, err.Error()}
	}
	if errors.Is(err, objects.ErrNotFound) {
		return fmt.Errorf("this clone lacks a part of commit %s that is needed to plan it: %w", short(commit), err)
	}
	return err
}

// readBase reads the state that the run was judged against and returns the
// policy there, nil if it has no state. A shallow clone lacks it.
func (p *replay) readBase(ctx context.Context, c *gitobj.Commit) (*policy.Policy, error) {
	if len(c.Parents) == 0 {
		return nil, nil
	}
	base, err := readCommit(ctx, p.store, c.Parents[0])
	if err == nil {
		p.base, p.baseTree = c.Parents[0], base.Tree
		var entries []gitobj.Entry
		if entries, err = tree.List(ctx, p.store, base.Tree); err == nil && len(entries) == 0 {
			return nil, nil // the empty first commit of a branch
		}
	}
	var pol *policy.Policy
	if err == nil {
		pol, err = policyAt(ctx, p.store, c.Parents[0])
	}
	if errors.Is(err, objects.ErrNotFound) {
		p.noBase, p.baseTree = err, objects.OID{}
		p.note("the base is not in this clone, so the limits are those of the commit's own policy")
		return nil, nil
	}
	return pol, err
}

// checkPlan compares the models of the commit's code with those of its message.
func (p *replay) checkPlan() {
	made := make(map[string]bool, len(p.plan.Models))
	for _, m := range p.plan.Models {
		made[m.Name] = true
	}
	for _, m := range p.gate.Models {
		if !made[m.Name] {
			p.report.problem("its message says that a model made table %s, but its tree has no such model", m.Name)
		}
	}
}

// recordedParams returns the values of parameters that the message records.
func (p *replay) recordedParams() (map[plan.Param]any, error) {
	params := make(map[plan.Param]any)
	for i := range p.plan.Models {
		m := &p.plan.Models[i]
		claim := p.lineage[m.Name]
		if claim.Params == "" {
			continue
		}
		values, err := parseCanonicalJSON(claim.Params)
		if err != nil {
			return nil, fmt.Errorf("the parameters of model %s cannot be read: %w", m.Name, err)
		}
		for _, d := range m.Params {
			if v, ok := values[d.Name]; ok {
				params[declaration(d)] = v
			}
		}
	}
	return params, nil
}

// selected returns the models to replay, in the plan's order. One whose table
// is not stored is replayed with those that read it.
func (p *replay) selected() ([]*plan.Model, error) {
	byName := make(map[string]*plan.Model, len(p.plan.Models))
	var have []string
	for i := range p.plan.Models {
		m := &p.plan.Models[i]
		byName[m.Name] = m
		have = append(have, m.Name)
	}
	if p.Tables == nil {
		p.Tables = have
	}
	want := make(map[string]bool)
	var add func(m *plan.Model)
	add = func(m *plan.Model) {
		want[m.Name] = true
		for _, in := range m.Inputs {
			if src := byName[in.Table]; src != nil && src.Strategy == plan.StrategyNone {
				add(src)
			}
		}
	}
	for _, name := range p.Tables {
		at := slices.IndexFunc(have, func(s string) bool { return strings.EqualFold(s, name) })
		if at < 0 {
			return nil, &NoSuchTableError{name, have}
		}
		add(byName[have[at]])
	}
	if p.Verifiers {
		for _, v := range p.judges() {
			for _, in := range v.Inputs {
				if m := byName[in.Table]; m != nil && m.Strategy == plan.StrategyNone {
					add(m)
				}
			}
		}
	}
	var models []*plan.Model
	for i := range p.plan.Models {
		if m := &p.plan.Models[i]; want[m.Name] {
			models = append(models, m)
		}
	}
	return models, nil
}

// load reads the tables that the functions take as inputs. One that is not in
// this clone is left out and remembered.
func (p *replay) load(ctx context.Context, models []*plan.Model) error {
	need := make(map[string]bool)
	for _, m := range models {
		for _, in := range m.Inputs {
			need[in.Table] = true
		}
	}
	if p.Verifiers {
		for _, v := range p.judges() {
			for _, in := range v.Inputs {
				need[strings.TrimPrefix(in.Table, plan.BasePrefix)] = true
			}
		}
	}
	var parts []objects.OID
	for name := range need {
		oid, ok := p.committed[name]
		if !ok {
			continue // not stored, or only at the base
		}
		t, err := exec.LoadTable(ctx, p.store, oid)
		switch {
		case errors.Is(err, objects.ErrNotFound):
			p.absent[name] = err
		case err != nil:
			return &NotReplayableError{p.report.commit, fmt.Sprintf("table %s: %v", name, err)}
		default:
			p.tables[name] = t
			parts = append(parts, t.Parts...)
		}
	}
	past, err := p.loadPast(ctx, models)
	if err != nil {
		return err
	}
	return p.prefetch(ctx, append(parts, past...))
}

// loadPast returns the parts of earlier tables that the functions will read:
// those that a strategy builds on, and the base's in verifiers. What is not in this
// clone is missed when it is read.
func (p *replay) loadPast(ctx context.Context, models []*plan.Model) ([]objects.OID, error) {
	var ids []objects.OID
	for _, m := range models {
		appends := m.Strategy == plan.StrategyAppend && len(m.Key) == 0 // it only names the parts that are there
		if oid, err := objects.ParseOID(p.lineage[m.Name].Prior); err == nil && !appends {
			ids = append(ids, oid)
		}
	}
	if p.Verifiers {
		atBase, err := p.baseTables(ctx)
		if err != nil && !errors.Is(err, objects.ErrNotFound) {
			return nil, err
		}
		for _, v := range p.judges() {
			for _, in := range v.Inputs {
				if oid, ok := atBase[strings.TrimPrefix(in.Table, plan.BasePrefix)]; ok && strings.HasPrefix(in.Table, plan.BasePrefix) {
					ids = append(ids, oid)
				}
			}
		}
	}
	var parts []objects.OID
	for _, id := range ids {
		t, err := exec.LoadTable(ctx, p.store, id)
		if err == nil {
			parts = append(parts, t.Parts...)
		} else if !errors.Is(err, objects.ErrNotFound) {
			return nil, &NotReplayableError{p.report.commit, fmt.Sprintf("table %s of the past: %v", id, err)}
		}
	}
	return parts, nil
}

// fetchCode asks for what is small and sure to be read: policy, code, and what
// describes the tables.
func (p *replay) fetchCode(ctx context.Context) error {
	if _, ok := p.store.(Prefetcher); !ok {
		return nil
	}
	var oids []objects.OID
	small := func(path string, e gitobj.Entry) error {
		name := path[strings.LastIndexByte(path, '/')+1:]
		data := strings.HasPrefix(path, table.Root+"/")
		code := strings.HasSuffix(name, ".sql") || strings.HasSuffix(name, ".py") || strings.HasSuffix(name, ".yml") || strings.HasPrefix(path, "headgate.")
		if e.Mode != gitobj.ModeTree && e.Mode != gitobj.ModeGitlink && (data && name == table.FileName || !data && code) {
			oids = append(oids, e.OID)
		}
		return nil
	}
	for _, root := range []objects.OID{p.tree, p.baseTree} {
		if err := tree.Walk(ctx, p.store, root, small); err != nil {
			return err
		}
	}
	return p.prefetch(ctx, oids)
}

func (p *replay) prefetch(ctx context.Context, oids []objects.OID) error {
	f, ok := p.store.(Prefetcher)
	if !ok || len(oids) == 0 {
		return nil
	}
	return f.Prefetch(ctx, oids)
}

func (p *replay) say(line string) {
	if p.Progress != nil {
		p.saying.Lock()
		defer p.saying.Unlock()
		p.Progress(line)
	}
}

// environments makes what the functions run in, from the commit's lock.
func (p *replay) environments(ctx context.Context, commit objects.OID) error {
	lock, err := p.lock(ctx)
	if err != nil {
		return replayable(commit, err)
	}
	problems, err := p.sess.Prepare(ctx, p.plan, exec.Preparing{Lock: lock, Later: true})
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		return &NotReplayableError{commit, strings.Join(problems, "; ")}
	}
	return nil
}
