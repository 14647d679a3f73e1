package audit_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/audit"
	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// TestForgeries forges one thing at a time, with the gate's own signature on all
// the rest, and wants its own sentence for it.
func TestForgeries(t *testing.T) {
	const junk = "ffffffffffffffffffffffffffffffffffffffff"
	weaker := honest(1)
	weaker["verifiers/fine.sql"] = "SELECT 1 WHERE false"
	for _, c := range []struct {
		name string
		st   func(w *world) *step
		want string
	}{
		{"a key of somebody else's signs", func(w *world) *step { return &step{signer: w.other} }, "signed by another key than the gate's"},
		{"the proof is of another key", func(w *world) *step { return &step{sealer: w.other} }, "the proof is signed by another key than the gate's"},
		{"a trailer", func(*world) *step {
			return &step{message: func(g *trailer.Gate) { g.PushedBy = "bob" }, says: func(*proof.Statement) {}}
		}, "its message says that the pusher is bob, its proof says ada"},
		{"a model's code", func(*world) *step {
			return &step{says: func(s *proof.Statement) { s.Predicate.Models[0].Code = junk }}
		}, "do not say the same of the model one"},
		{"a model that is not in the message", func(*world) *step {
			return &step{says: func(s *proof.Statement) {
				s.Predicate.Models = append(s.Predicate.Models, proof.Model{Name: "two", Path: "models/one.sql"})
			}}
		}, "its proof has the model two, its message has not"},
		{"a verdict", func(*world) *step {
			return &step{says: func(s *proof.Statement) { s.Predicate.Verifiers[0].Result = "warn" }}
		}, "do not say the same of the verifier fine"},
		{"a derived table in the tree", func(*world) *step {
			return &step{tree: func(f map[string]string) { f["tables/one/table.json"] = "by hand" }}
		}, "table one is [0-9a-f]+ in the tree, its model gave [0-9a-f]+: it was changed after it was made"},
		{"a source table in the tree", func(*world) *step {
			return &step{tree: func(f map[string]string) { f["tables/src/table.json"] = "by hand" }}
		}, "the model of one read src at"},
		{"a table that is dropped", func(*world) *step {
			return &step{tree: func(f map[string]string) { delete(f, "tables/one/table.json") }}
		}, "table one is not in the tree"},
		{"a table that nobody knows", func(*world) *step {
			return &step{tree: func(f map[string]string) { f["tables/extra/table.json"] = "{}" }}
		}, "tables/extra is in the tree, and neither a model nor a source"},
		{"a verifier that did not run", func(*world) *step {
			return &step{tree: func(f map[string]string) { f["verifiers/more.sql"] = "SELECT 1" }}
		}, "the verifier verifiers/more.sql is in the tree, and its proof does not name it"},
		{"a test that did not run", func(*world) *step {
			return &step{
				message: func(g *trailer.Gate) { g.Verifiers = g.Verifiers[:1] },
			}
		}, "the test src.n:not_null is in headgate.yaml, and did not judge"},
		{"a verifier that is not there", func(*world) *step {
			return &step{tree: func(f map[string]string) { delete(f, "verifiers/fine.sql") }}
		}, "names a verifier in verifiers/fine.sql, which is not in the tree"},
		{"a verifier of the base that is another now", func(*world) *step { return &step{files: weaker} }, "verifiers/fine.sql of its base is not in the tree as it was, and did not judge"},
		{"a verifier of the base that is said to have changed and did not judge", func(*world) *step {
			return &step{files: weaker, says: func(s *proof.Statement) {
				s.Predicate.VerifierChanges = []proof.Change{{Name: "fine", Path: "verifiers/fine.sql", Change: "edited"}}
			}}
		}, "verifier fine of its base was edited by the proposal, and did not judge it"},
		{"the base's verifiers are passed over", func(*world) *step {
			return &step{says: func(s *proof.Statement) { s.Predicate.BuildDefinition.Internal.BaseVerifiers = proof.BaseNone }}
		}, "the verifiers of its base did not judge it, though the branch was gated"},
		{"the order of the parents", func(*world) *step {
			return &step{object: func(c *gitobj.Commit) { c.Parents[0], c.Parents[1] = c.Parents[1], c.Parents[0] }}
		}, "its parents are in the wrong order"},
		{"a base that is not the parent", func(*world) *step {
			return &step{message: func(g *trailer.Gate) { g.Base = objects.OID{1} }}
		}, "its message says Base: 01"},
		{"one parent", func(*world) *step {
			return &step{object: func(c *gitobj.Commit) { c.Parents = c.Parents[:1] }}
		}, "it has 1 parent"},
		{"the note is removed", func(*world) *step { return &step{noNote: true} }, "it has no proof"},
		{"the note is of another commit", func(*world) *step {
			return &step{says: func(s *proof.Statement) { s.Subject[0].Digest[proof.GitCommit] = junk }}
		}, "its note is the proof of another commit, ffff"},
		{"the note's text", func(*world) *step {
			return &step{rewrites: func(n []byte) []byte { return bytes.Replace(n, []byte("pushed by ada"), []byte("pushed by bob"), 1) }}
		}, "the note's text is not what its statement says"},
		{"the note is nonsense", func(*world) *step {
			return &step{rewrites: func([]byte) []byte { return []byte("reviewed, fine\n") }}
		}, "its proof cannot be read"},
		{"another branch's commit", func(*world) *step {
			return &step{says: func(s *proof.Statement) { s.Predicate.BuildDefinition.External.Target = "refs/heads/agent/x" }}
		}, "it was published to refs/heads/agent/x, and not to main"},
		{"no gate commit at all", func(*world) *step {
			return &step{object: func(c *gitobj.Commit) { c.Message = "Quick fix\n" }, noNote: true, signer: nil}
		}, "no Run-Id trailer"},
		{"an input of another state", func(*world) *step {
			return &step{message: func(g *trailer.Gate) { g.Models[0].Inputs[0].Snapshot = junk }}
		}, "the model of one read src at ffff"},
		{"rows added to something else than the base", func(*world) *step {
			return &step{message: func(g *trailer.Gate) { g.Models[0].Strategy, g.Models[0].Prior = "APPEND", junk }}
		}, "the model of one added to ffff"},
		{"the run record", func(*world) *step {
			return &step{says: func(s *proof.Statement) { s.Predicate.RunDetails.Byproduct[0].Digest[proof.GitCommit] = junk }}
		}, "its proof says that refs/runs/[0-9A-Z]+ is ffff"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.publish(&step{})
			st := c.st(w)
			forged := w.publish(st)
			w.publish(&step{files: st.files})
			rep := w.audit()
			said := ""
			for _, f := range rep.Findings {
				if f.Commit == forged.String() {
					said += f.Text + "\n"
				}
			}
			if !matches(c.want, said) {
				t.Errorf("want %q, have:\n%s", c.want, rep.Text())
			}
		})
	}
}

func mustRead(w *world, oid objects.OID) []byte {
	w.Helper()
	data, err := objects.ReadAll(w.Context(), w.q, oid, objects.Commit, 1<<20)
	if err != nil {
		w.Fatal(err)
	}
	return data
}

// TestRewrittenHistory goes back to an old tip and on from there: every commit is
// the gate's own, and the notes know what was there before.
func TestRewrittenHistory(t *testing.T) {
	w := newWorld(t)
	old := w.publish(&step{})
	lost := w.publish(&step{})
	w.tip = old
	w.publish(&step{})
	rep := w.audit()
	if len(rep.Findings) != 1 || rep.Findings[0].Commit != lost.String() || !strings.Contains(rep.Findings[0].Text, "the history was rewritten") {
		t.Errorf("%s", rep.Text())
	}
}

// TestUnsignedCommitOnTheLine is what a server whose refs were written to would have.
func TestUnsignedCommitOnTheLine(t *testing.T) {
	w := newWorld(t)
	w.publish(&step{})
	w.tip = w.put(&gitobj.Commit{Tree: w.tree(honest(3)), Parents: []objects.OID{w.tip}, Message: "Quick fix\n"}, nil)
	rep := w.audit()
	if !matches("does not have the gate's signature: commit is not signed(.|\n)*it is no gate commit", rep.Text()) {
		t.Errorf("%s", rep.Text())
	}
}

// TestChangedCommit changes a word of a commit that the gate signed.
func TestChangedCommit(t *testing.T) {
	w := newWorld(t)
	signed, err := gitobj.ParseCommit(mustRead(w, w.publish(&step{})))
	if err != nil {
		t.Fatal(err)
	}
	signed.Message = strings.Replace(signed.Message, "Pushed-By: ada", "Pushed-By: bob", 1)
	w.tip = w.put(signed, nil)
	if rep := w.audit(); !matches("the commit does not have the gate's signature: .*not one of these bytes", rep.Text()) || !matches("it has no proof", rep.Text()) {
		t.Errorf("%s", rep.Text())
	}
}

func TestNotesOfSomebodyElse(t *testing.T) {
	w := newWorld(t)
	w.publish(&step{})
	rep := w.audit(func(a *audit.Auditor) {
		c, err := gitobj.ParseCommit(mustRead(w, a.Notes))
		if err != nil {
			t.Fatal(err)
		}
		a.Notes = w.put(c, w.other)
	})
	if !matches("refs/notes/headgate was not written by the gate", rep.Text()) {
		t.Errorf("%s", rep.Text())
	}
}

// TestKeysThatChange audits a history that two keys signed, one after the other.
func TestKeysThatChange(t *testing.T) {
	w := newWorld(t)
	w.publish(&step{})
	first := w.signer
	w.now = w.now.Add(48 * time.Hour)
	change := w.now.Format("20060102150405Z")
	w.signer = w.other
	w.publish(&step{})
	lines := strings.Replace(first.AllowedSigners(), " ", ` valid-before="`+change+`",`, 1) + "\n" +
		strings.Replace(w.other.AllowedSigners(), " ", ` valid-after="`+change+`",`, 1) + "\n"
	both := func(a *audit.Auditor) {
		var err error
		if a.Signers, err = hooks.ParseAllowedSigners([]byte(lines)); err != nil {
			t.Fatal(err)
		}
	}
	if rep := w.audit(both); len(rep.Findings) > 0 {
		t.Errorf("%s\n%s", lines, rep.Text())
	}
	// Whoever has the old key signs with a date at which it was valid, on top of
	// what came later.
	w.signer = first
	w.now = w.now.Add(-47 * time.Hour)
	w.publish(&step{})
	w.signer = w.other
	if rep := w.audit(both); !matches("is valid before .* only, and signed on .* or later", rep.Text()) {
		t.Errorf("%s", rep.Text())
	}
}
