package hooks

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/refs"
)

// sandboxKind is what proofs call the sandbox: there is one kind.
const sandboxKind = "gvisor"

// prove stores the note that proves a gate commit, as the run's record tells it.
func (r *run) prove(ctx context.Context, commit, record objects.OID) (objects.OID, error) {
	c, err := readCommit(ctx, r.q, commit)
	if err != nil {
		return objects.OID{}, err
	}
	s, err := r.statement(commit, c.Parents[0], record)
	if err != nil {
		return objects.OID{}, err
	}
	note, err := r.gate.cfg.Signer.Seal(s)
	if err != nil {
		return objects.OID{}, err
	}
	return r.q.Put(ctx, objects.Blob, int64(len(note)), bytes.NewReader(note))
}

func (r *run) statement(commit, base, record objects.OID) (*proof.Statement, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.rec
	named := func(name, algorithm, digest string) proof.Resource {
		return proof.Resource{Name: name, Digest: map[string]string{algorithm: digest}}
	}
	s := &proof.Statement{
		Type: proof.StatementType, PredicateType: proof.PredicateType,
		Subject: []proof.Resource{named(proof.NameGate, proof.GitCommit, commit.String())},
	}
	p := &s.Predicate
	p.BuildDefinition = proof.Definition{
		BuildType: proof.BuildType,
		External: proof.External{
			Lake: rec.Lake, Target: rec.Target, PushedBy: rec.Who, Key: rec.KeyPrint, Strict: r.opt.strict, NoCache: r.opt.noCache,
		},
		Internal: proof.Internal{Sandbox: sandboxKind, Limits: rec.Limits, BaseVerifiers: r.baseVerifiers()},
	}
	deps := []proof.Resource{
		named(proof.NameBase, proof.GitCommit, base.String()),
		named(proof.NameProposal, proof.GitCommit, r.proposal.String()),
	}
	for _, src := range rec.Sources {
		dir, err := table.Dir(src.Name)
		if err != nil {
			return nil, err
		}
		deps = append(deps, named(dir, proof.GitTree, src.Snapshot))
	}
	p.BuildDefinition.Dependencies = deps
	p.RunDetails = proof.Details{
		Builder:   proof.Builder{ID: proof.BuilderID(r.gate.cfg.Signer.Fingerprint()), Version: r.gate.cfg.Versions},
		Metadata:  proof.Metadata{InvocationID: rec.ID, Started: rec.Started, Finished: rec.Ended},
		Byproduct: []proof.Resource{named(runsPrefix+rec.ID, proof.GitCommit, record.String())},
	}
	if p.Models = rec.provenModels(); p.Models == nil {
		p.Models = []proof.Model{}
	}
	for _, m := range p.Models {
		if m.Strategy != plan.StrategyNone {
			dir, err := table.Dir(m.Name)
			if err != nil {
				return nil, err
			}
			s.Subject = append(s.Subject, named(dir, proof.GitTree, m.Output))
		}
	}
	p.Verifiers = rec.provenVerifiers()
	for _, c := range rec.VerifierChanges {
		p.VerifierChanges = append(p.VerifierChanges, proof.Change{Name: c.Name, Path: c.Path, Change: c.Change, NotRun: c.NotRun})
	}
	for _, e := range rec.Environments {
		p.Environments = append(p.Environments, proof.Environment{Group: e.Group, Python: e.Python, Digest: e.Digest, Packages: e.Packages})
	}
	p.Warnings = rec.Warnings
	return s, nil
}

// baseVerifiers says whether the verifiers of the base judged the state, too.
func (r *run) baseVerifiers() string {
	switch {
	case r.standing != nil:
		return proof.BaseJudged
	case r.standsAlone():
		return proof.BaseNone
	}
	return proof.BaseUnreadable
}

func (rec *Record) provenModels() []proof.Model {
	secrets := make(map[string][]string, len(rec.Models))
	paths := make(map[string]string, len(rec.Models))
	for _, m := range rec.Models {
		secrets[m.Name], paths[m.Name] = m.Secrets, m.Path
	}
	var out []proof.Model
	for _, t := range rec.modelTrailers() { // so that both say the same
		m := proof.Model{
			Name: t.Name, Path: paths[t.Name], Code: t.Code, Environment: t.Env, Inputs: make(map[string]string, len(t.Inputs)),
			Strategy: t.Strategy, Prior: t.Prior, Output: t.Out, Rows: t.Rows, Cached: t.Cached, NotDeterministic: t.NotDeterministic,
			Secrets: secrets[t.Name],
		}
		if t.Params != "" {
			m.Params = json.RawMessage(t.Params)
		}
		for _, in := range t.Inputs {
			m.Inputs[in.Table] = in.Snapshot
		}
		out = append(out, m)
	}
	return out
}

func (rec *Record) provenVerifiers() []proof.Verifier {
	out := []proof.Verifier{}
	said := rec.verifierTrailers()
	for i, v := range rec.Verifiers {
		p := proof.Verifier{
			Name: v.Name, Path: v.Path, AtBase: v.Tip, Severity: v.Severity, Result: said[i].Result, Violations: v.Violations, Cached: v.Cached,
		}
		if p.Severity == "" {
			p.Severity = "error"
		}
		out = append(out, p)
	}
	return out
}

// publication is a gate commit on its way to its target.
type publication struct {
	commit, note objects.OID
	q            *objects.Quarantine // what the run made; it is migrated when the refs move
	updates      []refs.Update
	cause        refs.Cause
	done         chan error // its outcome, if another one publishes it
}
