package server_test

import (
	"crypto/ed25519"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/server"
)

func publicKey(t *testing.T, seed byte) gossh.PublicKey {
	t.Helper()
	private := ed25519.NewKeyFromSeed(slices.Repeat([]byte{seed}, ed25519.SeedSize))
	key, err := gossh.NewPublicKey(private.Public())
	check(t, err)
	return key
}

func keyLine(key gossh.PublicKey) string {
	return strings.TrimSpace(string(gossh.MarshalAuthorizedKey(key)))
}

// Groups are a user's, whichever of their keys says so, and change with the file.
func TestGroupsOfUsers(t *testing.T) {
	first, second, other := publicKey(t, 1), publicKey(t, 2), publicKey(t, 3)
	path := filepath.Join(t.TempDir(), "authorized_keys")
	write := func(lines ...string) {
		check(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600))
	}
	write(`user="ada",groups="leads,ci" `+keyLine(first), `user="ada",groups="ops" `+keyLine(second), `user="bob" `+keyLine(other))
	keys, err := server.NewKeyFile(path, nil, slog.New(slog.DiscardHandler))
	check(t, err)
	for _, key := range []gossh.PublicKey{first, second} {
		if who, ok := keys.Lookup(key); !ok || !slices.Equal(who.Groups, []string{"ci", "leads", "ops"}) {
			t.Errorf("ada is in %v", who.Groups)
		}
	}
	if all := keys.People(); len(all) != 3 {
		t.Errorf("people: %v", all)
	}
	write(`user="ada" ` + keyLine(first))
	if who, ok := keys.Lookup(first); !ok || len(who.Groups) != 0 {
		t.Errorf("ada is still in %v", who.Groups)
	}
	if all := keys.People(); len(all) != 1 {
		t.Errorf("people: %v", all)
	}
	for _, bad := range []string{`groups=""`, `groups="a b"`, `groups="a,,b"`, `groups="a,*"`} {
		if got, problems := server.ParseAuthorizedKeys([]byte(bad + " " + keyLine(first))); len(got) != 0 || len(problems) != 1 {
			t.Errorf("%s: %v, %v", bad, got, problems)
		}
	}
}

func TestPolicyTestCommand(t *testing.T) {
	s := newSite(t)
	s.ssh("admin", "lake create flights")
	out, _, code := s.ssh("user", "policy test flights agent/x --branch release/1")
	if code != 0 || !strings.Contains(out, "flights|ada||release/1|agent/x: gate required") {
		t.Errorf("exit %d: %s", code, out)
	}
	if out, _, code := s.ssh("user", "policy test flights --who bob --json"); code != 1 || !strings.Contains(out, `"allowed":false`) {
		t.Errorf("what is denied: exit %d: %s", code, out)
	}
	if _, text, code := s.ssh("user", "policy test flights nowhere"); code != 1 || !strings.Contains(text, "there is no branch") {
		t.Errorf("a ref that is not there: exit %d: %s", code, text)
	}
}
