package hooks

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// What the gate signs, stock git must verify; and nothing else.
func TestStockGitVerifiesGateCommits(t *testing.T) {
	dir := t.TempDir()
	signer, err := LoadSigner(filepath.Join(dir, "keys", "gate_ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadSigner(filepath.Join(dir, "keys", "gate_ed25519"))
	if err != nil || again.Fingerprint() != signer.Fingerprint() {
		t.Fatalf("second start has key %s (%v), want the first start's %s", again.Fingerprint(), err, signer.Fingerprint())
	}
	git := func(stdin []byte, args ...string) (string, error) {
		cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	must := func(stdin []byte, args ...string) string {
		t.Helper()
		out, err := git(stdin, args...)
		if err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
		return out
	}
	must(nil, "init", "-q")
	tree, err := objects.ParseOID(must(nil, "mktree"))
	if err != nil {
		t.Fatal(err)
	}
	house := gitobj.Signature{Name: "Headgate", Email: GateEmail, When: time.Unix(1700000000, 0).UTC()}
	c := &gitobj.Commit{Tree: tree, Author: house, Committer: house, Message: "Publish to main: it\n\nRun-Id: x\n"}
	if err := signer.Sign(c); err != nil {
		t.Fatal(err)
	}
	if err := signer.Verify(c); err != nil {
		t.Fatalf("own signature: %v", err)
	}
	allowed := filepath.Join(dir, "allowed")
	if err := os.WriteFile(allowed, []byte(signer.AllowedSigners()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	oid := must(c.Encode(), "hash-object", "-t", "commit", "-w", "--stdin")
	must(nil, "-c", "gpg.ssh.allowedSignersFile="+allowed, "verify-commit", oid)

	// The same signature on other words.
	c.Message = "Publish to main: something else\n"
	if err := signer.Verify(c); err == nil {
		t.Error("a signature for another message verifies")
	}
	forged := must(c.Encode(), "hash-object", "-t", "commit", "-w", "--stdin")
	if out, err := git(nil, "-c", "gpg.ssh.allowedSignersFile="+allowed, "verify-commit", forged); err == nil {
		t.Errorf("git verifies a forged commit: %s", out)
	}
}
