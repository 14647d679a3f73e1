package hooks

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/objects/gitobj"
)

// GateEmail is the committer of gate commits, and the principal that an
// allowed-signers file names.
const GateEmail = "gate@headgate"

// gitNamespace is what git signs commits under.
const gitNamespace = "git"

// Signer signs commits as git does with gpg.format=ssh (PROTOCOL.sshsig,
// namespace "git"). It is safe for concurrent use.
type Signer struct {
	key ssh.Signer
}

// LoadSigner reads the gate key, or makes one (ed25519, mode 0600) if there is none.
func LoadSigner(path string) (*Signer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = newKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("gate key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("gate key %q: %w", path, err)
	}
	return &Signer{key: key}, nil
}

func newKey(path string) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "headgate gate key")
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(block)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// Durable before it is used: a key that signed a commit and is then lost
	// would leave history that nobody can verify or continue.
	f, err := os.CreateTemp(filepath.Dir(path), ".key-")
	if err != nil {
		return nil, err
	}
	_, werr := f.Write(text)
	err = errors.Join(werr, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return text, errors.Join(dir.Sync(), dir.Close())
}

// AllowedSigners is the line of an allowed-signers file (ssh-keygen(1)) with
// which "git verify-commit" accepts gate commits, and "ssh-keygen -Y verify" their proofs.
func (s *Signer) AllowedSigners() string {
	pub := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.key.PublicKey())))
	return fmt.Sprintf(`%s namespaces="%s,%s" %s`, GateEmail, gitNamespace, proof.Namespace, pub)
}

// Fingerprint is the gate key's, as ssh prints it.
func (s *Signer) Fingerprint() string { return ssh.FingerprintSHA256(s.key.PublicKey()) }

// Sign sets the commit's signature.
func (s *Signer) Sign(c *gitobj.Commit) error {
	sig, err := s.armored(gitNamespace, c.Payload())
	if err != nil {
		return fmt.Errorf("sign gate commit: %w", err)
	}
	c.GPGSig = string(sig)
	return nil
}

// Seal returns the note that proves a gate commit.
func (s *Signer) Seal(st *proof.Statement) ([]byte, error) {
	return proof.Seal(st, s.Fingerprint(), func(data []byte) ([]byte, error) { return s.armored(proof.Namespace, data) })
}

func (s *Signer) armored(namespace string, data []byte) ([]byte, error) {
	sig, err := sshsig.Sign(bytes.NewReader(data), s.key, sshsig.HashSHA512, namespace)
	if err != nil {
		return nil, err
	}
	return sshsig.Armor(sig), nil
}

// Verify reports whether the commit carries this gate's signature.
func (s *Signer) Verify(c *gitobj.Commit) error {
	sig, err := signatureOf(c)
	if err != nil {
		return err
	}
	if err := sshsig.Verify(bytes.NewReader(c.Payload()), sig, s.key.PublicKey(), sig.HashAlgorithm, gitNamespace); err != nil {
		return fmt.Errorf("commit signature: %w", err)
	}
	return nil
}

// signatureOf reads the signature of a commit.
func signatureOf(c *gitobj.Commit) (*sshsig.Signature, error) {
	if c.GPGSig == "" {
		return nil, errors.New("commit is not signed")
	}
	sig, err := sshsig.Unarmor([]byte(c.GPGSig))
	if err != nil {
		return nil, fmt.Errorf("commit signature: %w", err)
	}
	return sig, nil
}
