package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/audit"
	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
)

// world makes histories as a gate does, and as one does not.
type world struct {
	testing.TB
	q      *objects.Quarantine
	signer *hooks.Signer
	other  *hooks.Signer
	now    time.Time
	tip    objects.OID
	proofs map[string]tree.Edit
	root   objects.OID // of the notes
	runs   map[string]objects.OID
}

func newWorld(t testing.TB) *world {
	t.Helper()
	s, err := objects.OpenStore(backend.NewMemory(), filepath.Join(t.TempDir(), "staging"), objects.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, now: time.Unix(1790000000, 0).UTC(), proofs: make(map[string]tree.Edit), runs: make(map[string]objects.OID)}
	if w.q, err = s.Quarantine(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.q.Discard(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	w.signer, w.other = w.newSigner("gate"), w.newSigner("other")
	w.tip = w.put(&gitobj.Commit{Tree: w.tree(nil), Message: "Open lake flights\n"}, w.signer)
	return w
}

func (w *world) newSigner(name string) *hooks.Signer {
	w.Helper()
	s, err := hooks.LoadSigner(filepath.Join(w.TempDir(), name))
	if err != nil {
		w.Fatal(err)
	}
	return s
}

func (w *world) blob(text string) objects.OID {
	w.Helper()
	oid, err := w.q.Put(context.Background(), objects.Blob, int64(len(text)), strings.NewReader(text))
	if err != nil {
		w.Fatal(err)
	}
	return oid
}

func (w *world) tree(files map[string]string) objects.OID {
	w.Helper()
	edits := make(map[string]tree.Edit)
	for path, text := range files {
		edits[path] = tree.Edit{Mode: gitobj.ModeFile, OID: w.blob(text)}
	}
	root, err := tree.Apply(context.Background(), w.q, objects.OID{}, edits)
	if err != nil {
		w.Fatal(err)
	}
	return root
}

// put stores a commit, signed by s if that is not nil.
func (w *world) put(c *gitobj.Commit, s *hooks.Signer) objects.OID {
	w.Helper()
	if c.Author.Name == "" {
		c.Author = gitobj.Signature{Name: "Headgate", Email: hooks.GateEmail, When: w.now}
		c.Committer = c.Author
	}
	if s != nil {
		if err := s.Sign(c); err != nil {
			w.Fatal(err)
		}
	}
	data := c.Encode()
	oid, err := w.q.Put(context.Background(), objects.Commit, int64(len(data)), bytes.NewReader(data))
	if err != nil {
		w.Fatal(err)
	}
	return oid
}

func (w *world) dir(root objects.OID, path string) string {
	w.Helper()
	e, err := tree.Lookup(context.Background(), w.q, root, path)
	if err != nil {
		w.Fatal(err)
	}
	return e.OID.String()
}

// step is one publication. What is done to it between its parts is a forgery.
type step struct {
	files    map[string]string // of the tree
	commit   *gitobj.Commit    // before it is signed
	gate     *trailer.Gate     // before it is put into the message
	said     *proof.Statement  // before it is sealed
	signer   *hooks.Signer     // of the commit
	sealer   *hooks.Signer     // of the proof
	note     []byte
	noNote   bool
	tree     func(map[string]string)
	message  func(*trailer.Gate)
	object   func(*gitobj.Commit)
	says     func(*proof.Statement)
	rewrites func([]byte) []byte // of the note
}

// honest is a state with a source, a derived table, a verifier and a test.
func honest(n int) map[string]string {
	return map[string]string{
		"headgate.yaml":         "tables: {src: {columns: {n: {tests: [not_null]}}}}\n",
		"models/one.sql":        "SELECT n FROM src",
		"verifiers/fine.sql":    "SELECT n FROM one WHERE n < 0",
		"tables/src/table.json": fmt.Sprintf("source %d", n),
		"tables/one/table.json": fmt.Sprintf("output %d", n),
	}
}

// publish makes the next commit of the line.
func (w *world) publish(st *step) objects.OID {
	w.Helper()
	w.now = w.now.Add(time.Minute)
	n := int(w.now.Unix())
	if st.files == nil {
		st.files = honest(n)
	}
	honestRoot := w.tree(st.files)
	proposal := w.put(&gitobj.Commit{Tree: honestRoot, Parents: []objects.OID{w.tip}, Message: fmt.Sprintf("Change %d\n", n)}, nil)
	run := ulid.MustNew(ulid.Timestamp(w.now), zeros{}).String()
	st.gate = &trailer.Gate{
		RunID: run, Base: w.tip, Proposal: proposal, PushedBy: "ada",
		Models: []trailer.Model{{
			Name: "one", Code: strings.Repeat("1", 40), Env: strings.Repeat("2", 40), Rows: 1,
			Inputs: []trailer.Input{{Table: "src", Snapshot: w.dir(honestRoot, "tables/src")}}, Out: w.dir(honestRoot, "tables/one"),
		}},
		Verifiers: []trailer.Verifier{{Name: "fine", Result: "pass"}, {Name: "src.n:not_null", Result: "pass"}},
	}
	if st.message != nil {
		st.message(st.gate)
	}
	root := honestRoot
	if st.tree != nil {
		files := maps.Clone(st.files)
		st.tree(files)
		root = w.tree(files)
	}
	st.commit = &gitobj.Commit{Tree: root, Parents: []objects.OID{w.tip, proposal}, Message: "Publish\n\n" + st.gate.Format()}
	if st.object != nil {
		st.object(st.commit)
	}
	if st.signer == nil {
		st.signer = w.signer
	}
	oid := w.put(st.commit, st.signer)
	w.prove(st, oid, honestRoot)
	w.tip = oid
	return oid
}

// prove writes the note of a commit.
func (w *world) prove(st *step, oid, root objects.OID) {
	w.Helper()
	named := func(name, algorithm, digest string) proof.Resource {
		return proof.Resource{Name: name, Digest: map[string]string{algorithm: digest}}
	}
	record := w.put(&gitobj.Commit{Message: "Run\n", Tree: w.tree(map[string]string{
		"run.json": fmt.Sprintf(`{"id":%q,"gate":%q,"state":"published"}`, st.gate.RunID, oid),
	})}, w.signer)
	s := &proof.Statement{Type: proof.StatementType, PredicateType: proof.PredicateType, Subject: []proof.Resource{named(proof.NameGate, proof.GitCommit, oid.String())}}
	p := &s.Predicate
	p.BuildDefinition = proof.Definition{
		BuildType: proof.BuildType, External: proof.External{Lake: "flights", Target: "refs/heads/main", PushedBy: "ada"},
		Internal: proof.Internal{Sandbox: "gvisor", BaseVerifiers: proof.BaseJudged},
		Dependencies: []proof.Resource{
			named(proof.NameBase, proof.GitCommit, st.gate.Base.String()), named(proof.NameProposal, proof.GitCommit, st.gate.Proposal.String()),
			named("tables/src", proof.GitTree, w.dir(root, "tables/src")),
		},
	}
	p.RunDetails.Metadata = proof.Metadata{InvocationID: st.gate.RunID, Started: w.now, Finished: w.now}
	p.RunDetails.Byproduct = []proof.Resource{named("refs/runs/"+st.gate.RunID, proof.GitCommit, record.String())}
	for _, m := range st.gate.Models {
		pm := proof.Model{Name: m.Name, Path: "models/" + m.Name + ".sql", Code: m.Code, Environment: m.Env, Inputs: map[string]string{},
			Output: m.Out, Rows: m.Rows, Strategy: m.Strategy, Prior: m.Prior}
		for _, in := range m.Inputs {
			pm.Inputs[in.Table] = in.Snapshot
		}
		p.Models = append(p.Models, pm)
	}
	for _, v := range st.gate.Verifiers {
		path := "headgate.yaml"
		if !strings.Contains(v.Name, ":") {
			path = "verifiers/" + v.Name + ".sql"
		}
		p.Verifiers = append(p.Verifiers, proof.Verifier{Name: v.Name, Path: path, Severity: "error", Result: v.Result, AtBase: v.AtBase})
	}
	if st.says != nil {
		st.says(s)
	}
	st.said = s
	if st.sealer == nil {
		st.sealer = w.signer
	}
	note, err := st.sealer.Seal(s)
	if err != nil {
		w.Fatal(err)
	}
	if st.rewrites != nil {
		note = st.rewrites(note)
	}
	if st.note = note; !st.noNote {
		w.attach(oid, note)
	}
	w.runs[st.gate.RunID] = record
}

func (w *world) attach(of objects.OID, note []byte) {
	w.Helper()
	w.proofs[proof.Path(of)] = tree.Edit{Mode: gitobj.ModeFile, OID: w.blob(string(note))}
}

func (w *world) audit(change ...func(*audit.Auditor)) *audit.Report {
	w.Helper()
	root, err := tree.Apply(context.Background(), w.q, w.root, w.proofs)
	if err != nil {
		w.Fatal(err)
	}
	signers, err := hooks.ParseAllowedSigners([]byte(w.signer.AllowedSigners()))
	if err != nil {
		w.Fatal(err)
	}
	a := &audit.Auditor{
		Open:    func() (objects.Reader, func(), error) { return w.q, func() {}, nil },
		Signers: signers, Branch: "main", Tip: w.tip, Notes: w.put(&gitobj.Commit{Tree: root, Message: "Prove\n"}, w.signer), Runs: w.runs,
	}
	for _, f := range change {
		f(a)
	}
	rep, err := a.Audit(context.Background())
	if err != nil {
		w.Fatal(err)
	}
	return rep
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestHonestHistory(t *testing.T) {
	w := newWorld(t)
	for range 300 { // more than one worker's chunk
		w.publish(&step{})
	}
	rep := w.audit()
	if len(rep.Findings) > 0 || len(rep.Notes) > 0 || rep.Commits != 301 || rep.Proofs != 300 || rep.Records != 300 {
		t.Errorf("%s", rep.Text())
	}
	last := rep.Sample(5, 1)
	if len(last) != 5 || last[0] != rep.Sample(5, 1)[0] || len(rep.Sample(1000, 7)) != 300 {
		t.Errorf("sample: %v", last)
	}
	late := w.audit(func(a *audit.Auditor) { a.Since = w.now.Add(-10 * time.Minute) })
	if late.Commits != 11 || len(late.Findings) > 0 {
		t.Errorf("since: %s", late.Text())
	}
}

func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }

// BenchmarkAudit tells what a commit costs: two signatures, its trailers, its
// statement, and what is new in its tree.
func BenchmarkAudit(b *testing.B) {
	w := newWorld(b)
	const n = 2000
	for range n {
		w.publish(&step{})
	}
	for b.Loop() {
		if rep := w.audit(); len(rep.Findings) > 0 {
			b.Fatal(rep.Text())
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "commits/s")
}
