package hooks

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

// notes returns the notes of the lake by the commit that they prove.
func (r *rig) proofs() map[objects.OID][]byte {
	r.Helper()
	all := make(map[objects.OID][]byte)
	tip := r.tip(notesRef)
	if tip.IsZero() {
		return all
	}
	c, err := readCommit(r.Context(), r.lake.Objects, tip)
	if err != nil {
		r.Fatal(err)
	}
	err = tree.Walk(r.Context(), r.lake.Objects, c.Tree, func(path string, e gitobj.Entry) error {
		if e.Mode == gitobj.ModeTree {
			return nil
		}
		of, ok := proof.Commit(path)
		if !ok || proof.Path(of) != path {
			r.Errorf("the notes have %q", path)
		}
		all[of], err = objects.ReadAll(r.Context(), r.lake.Objects, e.OID, objects.Blob, proof.MaxNote)
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	return all
}

func TestProof(t *testing.T) {
	r := newRig(t)
	r.gate.cfg.Versions = map[string]string{"duckdb": "v1.5.6"}
	r.must(r.toMain(with(base(), "verifiers/soft.sql", "-- headgate: severity=warn\nSELECT n FROM two -- VIOLATIONS 3")))
	if out := r.toMain(with(base(), "models/one.sql", "BAD FROM src")); out == nil {
		t.Fatal("the second push was let through")
	}
	gate := r.tip(mainRef)
	all := r.proofs()
	if len(all) != 1 {
		t.Fatalf("%d notes, want the one of the commit that was published", len(all))
	}
	e, s, err := proof.Open(all[gate])
	if err != nil {
		t.Fatalf("%v\n%s", err, all[gate])
	}
	signers, err := ParseAllowedSigners([]byte(r.gate.cfg.Signer.AllowedSigners()))
	if err != nil {
		t.Fatal(err)
	}
	if err := signers.VerifyProof(e, time.Now()); err != nil {
		t.Error(err)
	}
	c := mustCommit(t, r)
	run := s.Predicate.RunDetails.Metadata.InvocationID
	if s.Gate() != gate.String() || s.Dependency(proof.NameBase, proof.GitCommit) != c.Parents[0].String() ||
		s.Dependency(proof.NameProposal, proof.GitCommit) != c.Parents[1].String() || s.Record(runsPrefix+run) != r.tip(refs.Name(runsPrefix+run)).String() {
		t.Errorf("subject and dependencies: %+v", s)
	}
	if src, err := tree.Lookup(t.Context(), r.lake.Objects, c.Tree, "tables/src"); err != nil || s.Dependency("tables/src", proof.GitTree) != src.OID.String() {
		t.Errorf("source: %v, %v", src, err)
	}
	p := s.Predicate
	if len(p.Models) != 2 || p.Models[1].Name != "two" || p.Models[1].Path != "models/two.sql" || p.Models[1].Inputs["one"] != p.Models[0].Output {
		t.Errorf("models: %+v", p.Models)
	}
	if len(p.Verifiers) != 2 || p.Verifiers[0].Result != "pass" || p.Verifiers[1] != (proof.Verifier{
		Name: "soft", Path: "verifiers/soft.sql", Severity: "warn", Result: "warn", Violations: 3,
	}) {
		t.Errorf("verifiers: %+v", p.Verifiers)
	}
	text, _, _ := strings.Cut(string(all[gate]), "\n\n")
	for _, want := range []string{"Run " + run, "pushed by ada", "DuckDB v1.5.6", "1 passed, 1 warned", "two: 1 rows from one"} {
		if !strings.Contains(text, want) {
			t.Errorf("the note does not say %q:\n%s", want, text)
		}
	}

	// Stock tools accept it, and nothing else.
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string]string{"allowed": r.gate.cfg.Signer.AllowedSigners() + "\n", "sig": e.Signatures[0].Armored()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := func(data []byte) error {
		cmd := exec.Command(keygen, "-Y", "verify", "-f", "allowed", "-I", GateEmail, "-n", proof.Namespace, "-s", "sig")
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(string(data))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := verify(e.Signed()); err != nil {
		t.Error(err)
	}
	if verify(append(e.Signed(), ' ')) == nil {
		t.Error("ssh-keygen takes the signature for one of other bytes")
	}
}

func TestProofForged(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	note := r.proofs()[r.tip(mainRef)]
	e, s, err := proof.Open(note)
	if err != nil {
		t.Fatal(err)
	}
	signers, err := ParseAllowedSigners([]byte(r.gate.cfg.Signer.AllowedSigners()))
	if err != nil {
		t.Fatal(err)
	}
	for old, forged := range map[string]string{
		"pushed by ada": "pushed by bob", "\n\n": "\n", `"payloadType":"application/vnd.in-toto+json"`: `"payloadType":"text/plain"`,
	} {
		if _, _, err := proof.Open([]byte(strings.Replace(string(note), old, forged, 1))); err == nil {
			t.Errorf("a note with %q instead of %q is read", forged, old)
		}
	}
	s.Predicate.BuildDefinition.External.PushedBy = "bob"
	if e.Payload, err = json.Marshal(s); err != nil {
		t.Fatal(err)
	}
	if signers.VerifyProof(e, time.Now()) == nil {
		t.Error("a statement that was changed after it was signed is believed")
	}
	// A signature of a commit is none of a statement.
	sig, err := r.gate.cfg.Signer.armored(gitNamespace, e.Signed())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proof.Seal(s, "", func([]byte) ([]byte, error) { return []byte("no signature"), nil }); err == nil {
		t.Error("a statement is sealed with no signature")
	}
	sealed, err := proof.Seal(s, "", func([]byte) ([]byte, error) { return sig, nil })
	if err != nil {
		t.Fatal(err)
	}
	if e, _, err = proof.Open(sealed); err != nil {
		t.Fatal(err)
	}
	if err := signers.VerifyProof(e, time.Now()); err == nil {
		t.Error("a signature of the namespace git is taken for one of a proof")
	}
}

// TestPublicationsTakeTurns publishes to many branches at once: all of them must
// get through, each with its note, and the notes' history is one line.
func TestPublicationsTakeTurns(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	tip := r.tip(mainRef)
	const n = 16
	proposals := make([]objects.OID, n)
	quarantines := make([]*objects.Quarantine, n)
	for i := range n {
		proposals[i], quarantines[i] = r.commit(with(base(), "readme", fmt.Sprint(i)), tip)
	}
	// Hold the turn until all of them wait, so that one batch takes them.
	led := r.gate.ledgerOf(r.lake)
	led.turn.Lock()
	out := make([][]Outcome, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			out[i] = r.gate.Receive(t.Context(), &Push{
				Lake: r.lake, Who: r.who, Options: []string{"run"}, Objects: quarantines[i], Progress: &strings.Builder{},
				Updates: []refs.Update{{Name: refs.Name(fmt.Sprintf("refs/heads/agent/%d", i)), New: proposals[i]}},
			})
		})
	}
	waiting := func() int {
		led.mu.Lock()
		defer led.mu.Unlock()
		return len(led.waiting)
	}
	for deadline := time.Now().Add(time.Minute); waiting() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d publications came to wait", waiting(), n)
		}
	}
	// One of them loses its branch meanwhile, and none of the others notices.
	const lost = 7
	if err := r.lake.Refs.Apply(t.Context(), []refs.Update{{Name: "refs/heads/agent/7", New: tip}}, refs.Cause{}); err != nil {
		t.Fatal(err)
	}
	led.turn.Unlock()
	wait.Wait()
	all := r.proofs()
	if len(all) != n { // main's, and all but one
		t.Errorf("%d notes, want %d", len(all), n)
	}
	for i := range n {
		if err := out[i][0].Err; (err != nil) != (i == lost) {
			t.Errorf("branch %d: %v", i, err)
		}
		if at := r.tip(refs.Name(fmt.Sprintf("refs/heads/agent/%d", i))); i != lost && all[at] == nil {
			t.Errorf("branch %d is at %s, which has no note", i, at)
		}
		if err := quarantines[i].Discard(); err != nil {
			t.Error(err)
		}
	}
	entries, err := r.lake.Refs.Log(t.Context(), notesRef, n+1)
	if err != nil || len(entries) != n {
		t.Fatalf("the notes moved %d times, %v; want once a publication", len(entries), err)
	}
	slices.Reverse(entries)
	for i, e := range entries[1:] {
		c, err := readCommit(t.Context(), r.lake.Objects, e.New)
		if err != nil || !slices.Equal(c.Parents, []objects.OID{entries[i].New}) || r.gate.cfg.Signer.Verify(c) != nil {
			t.Errorf("notes %s: parents %v, %v", e.New, c.Parents, err)
		}
	}
}
