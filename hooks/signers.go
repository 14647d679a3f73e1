package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/objects/gitobj"
)

// AllowedSigners are the gate keys of an allowed-signers file: those that a
// server has, and those that it had.
type AllowedSigners struct {
	keys []allowedKey
}

type allowedKey struct {
	key           ssh.PublicKey
	namespaces    []string  // nil is any
	after, before time.Time // zero is any
}

// ParseAllowedSigners reads a file as gpg.ssh.allowedSignersFile names it
// (ssh-keygen(1), with namespaces, valid-after and valid-before). Lines for other
// principals than the gate are passed over; one for the gate with an option that
// is not understood is an error, since it restricts what the key may sign.
func ParseAllowedSigners(text []byte) (*AllowedSigners, error) {
	var a AllowedSigners
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		principals, rest, _ := strings.Cut(line, " ")
		if line == "" || strings.HasPrefix(line, "#") || !slices.Contains(strings.Split(strings.Trim(principals, `"`), ","), GateEmail) {
			continue
		}
		key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
		if err != nil {
			return nil, fmt.Errorf("allowed signers, line %d: %w", i+1, err)
		}
		k := allowedKey{key: key}
		for _, o := range options {
			if err := k.option(o); err != nil {
				return nil, fmt.Errorf("allowed signers, line %d: %w", i+1, err)
			}
		}
		a.keys = append(a.keys, k)
	}
	if len(a.keys) == 0 {
		return nil, fmt.Errorf("allowed signers: no line for %s; ssh host gate-key prints it", GateEmail)
	}
	return &a, nil
}

func (k *allowedKey) option(text string) (err error) {
	name, value, _ := strings.Cut(text, "=")
	value = strings.Trim(value, `"`)
	switch strings.ToLower(name) {
	case "namespaces":
		k.namespaces = strings.Split(value, ",")
		if slices.Contains(k.namespaces, gitNamespace) {
			return nil
		}
	case "valid-after":
		k.after, err = parseValidity(value)
		return err
	case "valid-before":
		k.before, err = parseValidity(value)
		return err
	}
	return fmt.Errorf("the option %q is not one for signing commits of git", text)
}

// parseValidity reads a time of an allowed-signers file: YYYYMMDD or
// YYYYMMDDHHMM[SS], local unless a Z follows.
func parseValidity(text string) (time.Time, error) {
	digits, utc := strings.CutSuffix(text, "Z")
	zone := time.Local
	if utc {
		zone = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(digits) == len(layout) {
			if t, err := time.ParseInLocation(layout, digits, zone); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time, want YYYYMMDD or YYYYMMDDHHMM[SS], and a Z for UTC", text)
}

// ForProofs returns an error if no key is allowed to sign proofs, as in a file
// that an older server gave.
func (a *AllowedSigners) ForProofs() error {
	for _, k := range a.keys {
		if k.allows(proof.Namespace) {
			return nil
		}
	}
	return fmt.Errorf("allowed signers: no line for %s lets its key sign in the namespace %q; ssh host gate-key prints one that does", GateEmail, proof.Namespace)
}

// Verify reports whether one of the keys, valid at the commit's own time, signed it.
func (a *AllowedSigners) Verify(c *gitobj.Commit) error { return a.VerifyAt(c, c.Committer.When) }

// VerifyAt is Verify for keys that are valid at another time.
func (a *AllowedSigners) VerifyAt(c *gitobj.Commit, when time.Time) error {
	sig, err := signatureOf(c)
	if err != nil {
		return err
	}
	if err := a.verify(sig, gitNamespace, c.Payload(), when); err != nil {
		return fmt.Errorf("commit signature: %w", err)
	}
	return nil
}

// VerifyProof reports whether one of the keys, valid at a time, signed an envelope.
func (a *AllowedSigners) VerifyProof(e *proof.Envelope, when time.Time) error {
	sig, err := e.SSH()
	if err != nil {
		return err
	}
	return a.verify(sig, proof.Namespace, e.Signed(), when)
}

// SignerError says why a key may not sign what it signed.
type SignerError struct {
	Key    string // its fingerprint
	Reason string
}

func (e *SignerError) Error() string { return fmt.Sprintf("the key %s %s", e.Key, e.Reason) }

func (a *AllowedSigners) verify(sig *sshsig.Signature, namespace string, data []byte, when time.Time) error {
	bad := &SignerError{Key: ssh.FingerprintSHA256(sig.PublicKey), Reason: "is not among the allowed signers"}
	for _, k := range a.keys {
		if !bytes.Equal(k.key.Marshal(), sig.PublicKey.Marshal()) {
			continue
		}
		const clock = "2006-01-02 15:04:05 MST"
		switch {
		case !k.allows(namespace):
			bad.Reason = fmt.Sprintf("is not allowed for signatures in the namespace %q", namespace)
		case !k.after.IsZero() && when.Before(k.after):
			bad.Reason = fmt.Sprintf("is valid after %s only, and signed on %s", k.after.UTC().Format(clock), when.UTC().Format(clock))
		case !k.before.IsZero() && !when.Before(k.before):
			bad.Reason = fmt.Sprintf("is valid before %s only, and signed on %s or later", k.before.UTC().Format(clock), when.UTC().Format(clock))
		default:
			if err := sshsig.Verify(bytes.NewReader(data), sig, k.key, sig.HashAlgorithm, namespace); err != nil {
				return errors.Join(errNotSigned, err)
			}
			return nil
		}
	}
	return bad
}

// errNotSigned says that a signature is of something else.
var errNotSigned = errors.New("the signature is not one of these bytes")

func (k *allowedKey) allows(namespace string) bool {
	return k.namespaces == nil || slices.Contains(k.namespaces, namespace)
}
