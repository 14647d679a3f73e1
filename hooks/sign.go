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
	"slices"
	"strings"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/objects/gitobj"
)

// GateEmail is the committer of gate commits, and the principal that an
// allowed-signers file names.
const GateEmail = "gate@headgate"

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
// which "git verify-commit" accepts gate commits.
func (s *Signer) AllowedSigners() string {
	pub := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.key.PublicKey())))
	return fmt.Sprintf(`%s namespaces="git" %s`, GateEmail, pub)
}

// Fingerprint is the gate key's, as ssh prints it.
func (s *Signer) Fingerprint() string { return ssh.FingerprintSHA256(s.key.PublicKey()) }

// Sign sets the commit's signature.
func (s *Signer) Sign(c *gitobj.Commit) error {
	sig, err := sshsig.Sign(bytes.NewReader(c.Payload()), s.key, sshsig.HashSHA512, "git")
	if err != nil {
		return fmt.Errorf("sign gate commit: %w", err)
	}
	c.GPGSig = string(sshsig.Armor(sig))
	return nil
}

// Verify reports whether the commit carries this gate's signature.
func (s *Signer) Verify(c *gitobj.Commit) error { return verifySignature(c, s.key.PublicKey()) }

// AllowedSigners are the gate keys of an allowed-signers file.
type AllowedSigners struct {
	keys []ssh.PublicKey
}

// ParseAllowedSigners reads a file as gpg.ssh.allowedSignersFile names it
// (ssh-keygen(1)). Lines for other principals than the gate are passed over; one
// for the gate with an option that is not understood is an error, since it
// restricts what the key may sign.
func ParseAllowedSigners(text []byte) (*AllowedSigners, error) {
	var a AllowedSigners
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		principals, rest, _ := strings.Cut(line, " ")
		if line == "" || strings.HasPrefix(line, "#") || !slices.Contains(strings.Split(principals, ","), GateEmail) {
			continue
		}
		key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
		if err != nil {
			return nil, fmt.Errorf("allowed signers, line %d: %w", i+1, err)
		}
		for _, o := range options {
			name, value, _ := strings.Cut(o, "=")
			if name != "namespaces" || !slices.Contains(strings.Split(strings.Trim(value, `"`), ","), "git") {
				return nil, fmt.Errorf("allowed signers, line %d: the option %q is not one for signing commits of git", i+1, o)
			}
		}
		a.keys = append(a.keys, key)
	}
	if len(a.keys) == 0 {
		return nil, fmt.Errorf("allowed signers: no line for %s; ssh host gate-key prints it", GateEmail)
	}
	return &a, nil
}

// Verify reports whether the commit carries the signature of one of the keys.
func (a *AllowedSigners) Verify(c *gitobj.Commit) error {
	var err error
	for _, key := range a.keys {
		if err = verifySignature(c, key); err == nil {
			return nil
		}
	}
	return err
}

func verifySignature(c *gitobj.Commit, key ssh.PublicKey) error {
	if c.GPGSig == "" {
		return errors.New("commit is not signed")
	}
	sig, err := sshsig.Unarmor([]byte(c.GPGSig))
	if err != nil {
		return fmt.Errorf("commit signature: %w", err)
	}
	if err := sshsig.Verify(bytes.NewReader(c.Payload()), sig, key, sig.HashAlgorithm, "git"); err != nil {
		return fmt.Errorf("commit signature: %w", err)
	}
	return nil
}
