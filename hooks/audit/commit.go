package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
)

// checker is one worker. Nothing in it is shared.
type checker struct {
	*audit
	r     objects.Reader
	lists map[objects.OID][]gitobj.Entry // of trees; neighbours have most of them in common
	sql   map[objects.OID][]sqlFile      // of directories of functions
	tests map[objects.OID][]string       // of policies

	findings []Finding
	notes    []string
	gates    []objects.OID

	// of the commit that is looked at
	at   objects.OID
	run  string
	c    *gitobj.Commit
	base *gitobj.Commit // nil if the clone does not have it
	gate trailer.Gate
}

// maxCached bounds each cache of a worker.
const maxCached = 8192

func newChecker(u *audit, r objects.Reader) *checker {
	return &checker{
		audit: u, r: r, lists: make(map[objects.OID][]gitobj.Entry), sql: make(map[objects.OID][]sqlFile), tests: make(map[objects.OID][]string),
	}
}

func (w *checker) found(kind, format string, args ...any) {
	w.findings = append(w.findings, Finding{Commit: w.at.String(), Run: w.run, Kind: kind, Text: fmt.Sprintf(format, args...)})
}

// commit checks one. An error means that it could not be looked at.
func (w *checker) commit(ctx context.Context, at commit) (err error) {
	w.at, w.run, w.base = at.oid, "", nil
	if w.c, err = readCommit(ctx, w.r, at.oid); err != nil {
		return err
	}
	signed := w.signature(w.Signers.VerifyAt(w.c, at.when), "the commit")
	if opening, err := w.opening(ctx); opening || err != nil {
		return err
	}
	if w.gate, err = trailer.Parse(w.c.Message); err != nil {
		if errors.Is(err, trailer.ErrNotGate) && !signed {
			w.found(KindHistory, "it is no gate commit: nothing in its message says that a gate published it")
		} else {
			w.found(KindTrailers, "%v", err)
		}
		return nil
	}
	w.run = w.gate.RunID
	if !w.parents() {
		return nil
	}
	if w.base, err = readCommit(ctx, w.r, w.c.Parents[0]); err != nil && !errors.Is(err, objects.ErrNotFound) {
		return err
	}
	w.gates = append(w.gates, at.oid)
	s, err := w.proof(ctx, at)
	if err != nil {
		return err
	}
	if err := w.tables(ctx, s); err != nil || s == nil {
		return err
	}
	if err := w.verifiers(ctx, s); err != nil {
		return err
	}
	return w.record(ctx, s)
}

// signature tells what is wrong with a signature, and returns whether nothing is.
func (w *checker) signature(err error, of string) bool {
	var key *hooks.SignerError
	switch {
	case err == nil:
		return true
	case errors.As(err, &key):
		w.found(KindSignature, "%s is signed by another key than the gate's: the key %s %s", of, key.Key, key.Reason)
	default:
		w.found(KindSignature, "%s does not have the gate's signature: %v", of, err)
	}
	return false
}

// opening tells whether the commit is the signed, empty one with which the gate
// begins a branch.
func (w *checker) opening(ctx context.Context) (bool, error) {
	if len(w.c.Parents) > 0 {
		return false, nil
	}
	entries, err := w.list(ctx, w.c.Tree)
	if err != nil {
		return false, err
	}
	if len(entries) > 0 {
		w.found(KindHistory, "the history begins with a commit that holds something, which no gate has judged")
	}
	return true, nil
}

// parents checks that the commit joins the old tip and the proposal.
func (w *checker) parents() bool {
	p, g := w.c.Parents, w.gate
	switch {
	case len(p) != 2:
		w.found(KindHistory, "it has %d parent(s); a gate commit has two, the old tip and the proposal", len(p))
		return false
	case p[0] == g.Proposal && p[1] == g.Base && p[0] != p[1]:
		w.found(KindHistory, "its parents are in the wrong order: the first is the proposal, so the line runs through what no gate has judged")
	case p[0] != g.Base:
		w.found(KindHistory, "its message says Base: %s, but its first parent is %s", g.Base, p[0])
	case p[1] != g.Proposal:
		w.found(KindHistory, "its message says Proposal: %s, but its second parent is %s", g.Proposal, p[1])
	}
	return true
}

// proof checks the commit's note and returns its statement, nil if there is none
// that can be believed.
func (w *checker) proof(ctx context.Context, at commit) (*proof.Statement, error) {
	blob, ok := w.proofs[w.at]
	if !ok {
		w.found(KindNote, "it has no proof: there is no note of it in %s", proof.Notes)
		return nil, nil
	}
	note, err := objects.ReadAll(ctx, w.r, blob, objects.Blob, proof.MaxNote)
	if errors.Is(err, objects.ErrNotFound) {
		w.notes = append(w.notes, fmt.Sprintf("the note of %s is not in this clone; its proof was not looked at", w.at))
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e, s, err := proof.Open(note)
	if err != nil {
		w.found(KindNote, "its proof cannot be read: %v", err)
		return nil, nil
	}
	if !w.signature(w.Signers.VerifyProof(e, at.when), "the proof") {
		return nil, nil
	}
	if s.Gate() != w.at.String() {
		w.found(KindNote, "its note is the proof of another commit, %s", s.Gate())
		return nil, nil
	}
	w.whole.Add(1)
	w.agree(s)
	return s, nil
}

// agree compares the statement with the message and the parents.
func (w *checker) agree(s *proof.Statement) {
	x, g := s.Predicate.BuildDefinition.External, w.gate
	if x.Target != w.ref() && (w.Branch == "main" || x.Target != "refs/heads/main") {
		w.found(KindHistory, "it was published to %s, and not to %s", x.Target, w.Branch)
	}
	for _, is := range []struct{ what, message, statement string }{
		{"the run", g.RunID, s.Predicate.RunDetails.Metadata.InvocationID},
		{"the base", g.Base.String(), s.Dependency(proof.NameBase, proof.GitCommit)},
		{"the proposal", g.Proposal.String(), s.Dependency(proof.NameProposal, proof.GitCommit)},
		{"the pusher", g.PushedBy, x.PushedBy},
	} {
		if is.message != is.statement {
			w.found(KindTrailers, "its message says that %s is %s, its proof says %s", is.what, is.message, is.statement)
		}
	}
	proven := make(map[string]trailer.Model, len(s.Predicate.Models))
	for _, m := range s.Predicate.Models {
		proven[m.Name] = lineOf(m)
	}
	for _, m := range g.Models {
		of, ok := proven[m.Name]
		delete(proven, m.Name)
		if !ok {
			w.found(KindTrailers, "its message has the model %s, its proof has not", m.Name)
		} else if !equalModels(m, of) {
			w.found(KindTrailers, "its message and its proof do not say the same of the model %s", m.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(proven)) {
		w.found(KindTrailers, "its proof has the model %s, its message has not", name)
	}
	checks := make(map[trailer.Verifier]int)
	for _, v := range s.Predicate.Verifiers {
		checks[trailer.Verifier{Name: v.Name, Result: v.Result, AtBase: v.AtBase}]++
	}
	for _, v := range g.Verifiers {
		if checks[v]--; v.Result != "pass" && v.Result != "warn" {
			w.found(KindVerifier, "verifier %s is %q in its message, which no gate publishes", v.Name, v.Result)
		}
	}
	for v, n := range checks {
		if n != 0 {
			w.found(KindTrailers, "its message and its proof do not say the same of the verifier %s", v.Name)
		}
	}
}

func lineOf(m proof.Model) trailer.Model {
	t := trailer.Model{
		Name: m.Name, Code: m.Code, Env: m.Environment, Out: m.Output, Rows: m.Rows, Cached: m.Cached,
		Strategy: m.Strategy, Prior: m.Prior, NotDeterministic: m.NotDeterministic,
	}
	if len(m.Params) > 0 {
		t.Params = string(m.Params)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Inputs)) {
		t.Inputs = append(t.Inputs, trailer.Input{Table: name, Snapshot: m.Inputs[name]})
	}
	return t
}

func equalModels(a, b trailer.Model) bool {
	same := slices.Equal(a.Inputs, b.Inputs)
	a.Inputs, b.Inputs = nil, nil
	if a.Params != b.Params { // JSON in JSON may be spelled another way
		var x, y bytes.Buffer
		same = same && json.Compact(&x, []byte(a.Params)) == nil && json.Compact(&y, []byte(b.Params)) == nil && x.String() == y.String()
		a.Params, b.Params = "", ""
	}
	return same && a.Name == b.Name && a.Code == b.Code && a.Env == b.Env && a.Out == b.Out && a.Rows == b.Rows && a.Cached == b.Cached &&
		a.Strategy == b.Strategy && a.Prior == b.Prior && a.NotDeterministic == b.NotDeterministic && a.Params == b.Params
}

// record checks the run's record, if the clone has it.
func (w *checker) record(ctx context.Context, s *proof.Statement) error {
	have, ok := w.Runs[w.run]
	if !ok {
		return nil
	}
	w.records.Add(1)
	ref := "refs/runs/" + w.run
	if want := s.Record(ref); want != have.String() {
		w.found(KindRecord, "its proof says that %s is %s, and it is %s", ref, want, have)
		return nil
	}
	c, err := readCommit(ctx, w.r, have)
	if err != nil {
		return err
	}
	w.signature(w.Signers.Verify(c), "the run record")
	e, err := tree.Lookup(ctx, w.r, c.Tree, "run.json")
	if err != nil {
		w.found(KindRecord, "the run record has no run.json")
		return nil
	}
	data, err := objects.ReadAll(ctx, w.r, e.OID, objects.Blob, maxCommit)
	if err != nil {
		return err
	}
	var rec hooks.Record
	if err := json.Unmarshal(data, &rec); err != nil {
		w.found(KindRecord, "the run record cannot be read: %v", err)
		return nil
	}
	if rec.ID != w.run || rec.Gate != w.at.String() || rec.State != "published" {
		w.found(KindRecord, "the run record is of run %s, which is %s and gave %s", rec.ID, rec.State, rec.Gate)
	}
	return nil
}
