package proof_test

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/objects"
)

func statement() *proof.Statement {
	s := &proof.Statement{Type: proof.StatementType, PredicateType: proof.PredicateType}
	s.Predicate.BuildDefinition.BuildType = proof.BuildType
	s.Predicate.BuildDefinition.External = proof.External{Lake: "flights", Target: "refs/heads/main", PushedBy: "ada\n\n{}\x1b[2J"}
	s.Predicate.Models = []proof.Model{{Name: "daily", Inputs: map[string]string{"b": "2", "a": "1"}, Rows: 7}}
	return s
}

func seal(t testing.TB) []byte {
	t.Helper()
	key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	note, err := proof.Seal(statement(), ssh.FingerprintSHA256(key.PublicKey()), func(data []byte) ([]byte, error) {
		sig, err := sshsig.Sign(bytes.NewReader(data), key, sshsig.HashSHA512, proof.Namespace)
		if err != nil {
			return nil, err
		}
		return sshsig.Armor(sig), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return note
}

// TestForeignTextInNotes holds that a name can neither end the text nor drive a terminal.
func TestForeignTextInNotes(t *testing.T) {
	note := seal(t)
	_, s, err := proof.Open(note)
	if err != nil {
		t.Fatalf("%v\n%s", err, note)
	}
	if s.Predicate.BuildDefinition.External.PushedBy != statement().Predicate.BuildDefinition.External.PushedBy {
		t.Errorf("the pusher is %q", s.Predicate.BuildDefinition.External.PushedBy)
	}
	text := s.Text()
	if strings.Contains(text, "\n\n") || strings.Contains(text, "\x1b") || !strings.Contains(text, "daily: 7 rows from a, b") {
		t.Errorf("%q", text)
	}
}

// TestSignedBytes holds the pre-authentication encoding to the example of DSSE's own
// document (protocol.md).
func TestSignedBytes(t *testing.T) {
	e := proof.Envelope{PayloadType: "http://example.com/HelloWorld", Payload: []byte("hello world")}
	if got := string(e.Signed()); got != "DSSEv1 29 http://example.com/HelloWorld 11 hello world" {
		t.Errorf("%q", got)
	}
}

func TestPath(t *testing.T) {
	oid, err := objects.ParseOID("0123456789abcdef0123456789abcdef01234567")
	if err != nil {
		t.Fatal(err)
	}
	if p := proof.Path(oid); p != "01/23/456789abcdef0123456789abcdef01234567" {
		t.Error(p)
	}
	for path, want := range map[string]bool{
		proof.Path(oid): true, oid.String(): true, "01/23456789abcdef0123456789abcdef01234567": true, "README": false, "01/23": false,
	} {
		if of, ok := proof.Commit(path); ok != want || ok && of != oid {
			t.Errorf("%q: %s, %v", path, of, ok)
		}
	}
}

// FuzzOpen holds that whatever is taken for a note says in its text what is in its statement.
func FuzzOpen(f *testing.F) {
	note := seal(f)
	f.Add(note)
	f.Add(bytes.Replace(note, []byte("\n\n"), []byte("\n"), 1))
	f.Add([]byte("\n\n{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, s, err := proof.Open(data)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(data, []byte(s.Text()+"\n{")) || e.PayloadType != proof.PayloadType {
			t.Errorf("%q", data)
		}
		_, _ = e.SSH()
	})
}
