package lake

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"
)

// Bounds of secrets. A shorter value could be guessed, and hiding it in texts
// would hide words; a longer one is a file.
const (
	MinSecret  = 8
	MaxSecret  = 8 << 10
	maxSecrets = 200 // of one lake
)

var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// SecretError says what is wrong with a secret that somebody wants to set, without
// its value.
type SecretError struct{ Text string }

func (e *SecretError) Error() string { return e.Text }

// ErrNoSecret is what errors wrap when there is no such secret.
var ErrNoSecret = errors.New("secret is not set")

// ValidSecretName reports whether a secret may have this name.
func ValidSecretName(name string) bool { return secretName.MatchString(name) }

// SecretInfo is what may be known of a secret.
type SecretInfo struct {
	Name string    `json:"name"`
	Who  string    `json:"who"` // set it
	When time.Time `json:"when"`
}

// Secret is a secret that was opened.
type Secret struct {
	Value  string
	Digest string // keyed: it names the value in cache keys, and tells nothing without the server's key
}

// Secrets keeps a lake's secrets, encrypted with the server's key. Every change
// is durable when it returns. It is safe for concurrent use.
type Secrets struct {
	db   *bbolt.DB
	key  *SecretsKey
	lake Name
}

// sealed is a secret as it is stored.
type sealed struct {
	Version uint64    `json:"version"` // never used twice in a lake
	Box     []byte    `json:"box"`     // nonce and ciphertext
	Who     string    `json:"who"`
	When    time.Time `json:"when"`
}

var secretsBucket = []byte("secrets")

// OpenSecrets opens or creates the file with the secrets of a lake.
func OpenSecrets(path string, n Name, key *SecretsKey) (*Secrets, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(secretsBucket)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open secrets: %w", err), db.Close())
	}
	return &Secrets{db: db, key: key, lake: n}, nil
}

// Close closes the file.
func (s *Secrets) Close() error { return s.db.Close() }

// Set stores a value in place of any other of this name. Errors for whoever
// sets it are *SecretError.
func (s *Secrets) Set(name, value, who string, now time.Time) error {
	bad := func(format string, args ...any) error { return &SecretError{fmt.Sprintf(format, args...)} }
	switch {
	case !ValidSecretName(name):
		return bad("%q is not a name for a secret: letters, digits and '_', a letter first, at most 64", name)
	case len(value) < MinSecret:
		return bad("the value has %d bytes, and one of less than %d cannot be kept out of logs; nothing was set", len(value), MinSecret)
	case len(value) > MaxSecret:
		return bad("the value has more than %d bytes; nothing was set", MaxSecret)
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		return bad("the value is not UTF-8 text; encode it, as base64 for example")
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(secretsBucket)
		if b.Get([]byte(name)) == nil && b.Stats().KeyN >= maxSecrets {
			return bad("the lake has %d secrets, which is the limit; remove some first", maxSecrets)
		}
		version, err := b.NextSequence()
		if err != nil {
			return err
		}
		box, err := s.key.seal(s.bound(name, version), value)
		if err != nil {
			return err
		}
		doc, err := json.Marshal(sealed{Version: version, Box: box, Who: who, When: now.UTC()})
		if err != nil {
			return err
		}
		return b.Put([]byte(name), doc)
	})
}

// bound is what a ciphertext is bound to: it opens in this lake, under this name,
// and as this version only.
func (s *Secrets) bound(name string, version uint64) []byte {
	return fmt.Appendf(nil, "headgate secret\x00%s\x00%s\x00%d", s.lake, name, version)
}

// Remove deletes a secret, or returns an error wrapping ErrNoSecret.
func (s *Secrets) Remove(name string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(secretsBucket)
		if b.Get([]byte(name)) == nil {
			return fmt.Errorf("secret %q: %w", name, ErrNoSecret)
		}
		return b.Delete([]byte(name))
	})
}

// List returns the secrets by name, without their values.
func (s *Secrets) List() ([]SecretInfo, error) {
	var out []SecretInfo
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(secretsBucket).ForEach(func(name, doc []byte) error {
			var v sealed
			if err := json.Unmarshal(doc, &v); err != nil {
				return fmt.Errorf("secret %q: %w", name, err)
			}
			out = append(out, SecretInfo{Name: string(name), Who: v.Who, When: v.When})
			return nil
		})
	})
	return out, err
}

// Get opens a secret. Its error wraps ErrNoSecret if there is none of this name.
func (s *Secrets) Get(name string) (Secret, error) {
	var v sealed
	err := s.db.View(func(tx *bbolt.Tx) error {
		doc := tx.Bucket(secretsBucket).Get([]byte(name))
		if doc == nil {
			return fmt.Errorf("secret %q: %w", name, ErrNoSecret)
		}
		return json.Unmarshal(doc, &v)
	})
	if err != nil {
		return Secret{}, err
	}
	value, err := s.key.open(s.bound(name, v.Version), v.Box)
	if err != nil {
		return Secret{}, fmt.Errorf("secret %q: %w", name, err)
	}
	return Secret{Value: value, Digest: s.key.digest(string(s.lake), name, value)}, nil
}
