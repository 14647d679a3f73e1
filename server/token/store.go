// Package token keeps the tokens that stand for a user's SSH key where a client
// cannot use the key: git over HTTP. It knows by which key a token was made, when
// it ends and what it is limited to. Whose the key is, and whether it still opens
// anything, is asked when the token is used, of whoever knows the keys.
package token

import (
	"bytes"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/headgate/headgate/hooks/lake"
)

// Errors that callers branch on.
var (
	ErrUnknown = errors.New("token is not known")
	ErrExpired = errors.New("token has expired")
)

// Error is why a token cannot be made. Its text is for whoever wants it.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

// Scope is what a token is limited to. The zero value is no limit but those of
// its user.
type Scope struct {
	ReadOnly bool      `json:"read_only,omitempty"`
	Lake     lake.Name `json:"lake,omitempty"` // "" is every lake
}

// Token is what is known of a token; the token itself is not.
type Token struct {
	ID   string `json:"id"`             // 16 hexadecimal digits
	Name string `json:"name,omitempty"` // given by its user
	Key  []byte `json:"key"`            // the public key that made it, in SSH wire format
	Who  string `json:"who"`            // whose the key was then
	Scope
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	Used    time.Time `json:"used,omitzero"` // last, give or take UsedEvery
}

// Expired reports whether the token has ended.
func (t *Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// record is a token as it is stored.
type record struct {
	SHA256 string `json:"sha256"` // of the whole token, hexadecimal
	Token
}

const (
	// UsedEvery is how exact Used is: a use within that time of the last one
	// that was noted costs no write.
	UsedEvery = 10 * time.Minute

	// MaxPerKey bounds the tokens that one key makes.
	MaxPerKey = 100

	// keepExpired is how long an expired token is still listed, and told apart
	// from an unknown one.
	keepExpired = 30 * 24 * time.Hour
)

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Store keeps tokens. Every change is durable when it returns. It is safe for
// concurrent use.
type Store struct{ db *bbolt.DB }

var bucket = []byte("tokens")

// Open opens or creates the file of tokens.
func Open(path string) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("open tokens: %w", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open tokens: %w", err), db.Close())
	}
	return &Store{db: db}, nil
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Create makes a token with t's name, key, owner, scope and expiry, and returns
// it: this once, since only its digest is kept. Errors for its user are *Error.
func (s *Store) Create(t Token, now time.Time) (secret string, made Token, err error) {
	switch {
	case t.Name != "" && !validName.MatchString(t.Name):
		return "", t, &Error{fmt.Sprintf("%q is not a name for a token: up to 64 of A-Z, a-z, 0-9, '.', '_', '-'", t.Name)}
	case len(t.Key) == 0:
		return "", t, errors.New("token: it belongs to no key")
	case t.Expired(now):
		return "", t, &Error{"it would have expired already"}
	}
	secret = newSecret()
	sum := digest(secret)
	t.ID, t.Created, t.Expires, t.Used = idOf(sum), now.UTC(), t.Expires.UTC(), time.Time{}
	doc, err := json.Marshal(record{SHA256: hex.EncodeToString(sum[:]), Token: t})
	if err != nil {
		return "", t, err
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		var ended [][]byte
		count := 0
		err := b.ForEach(func(id, doc []byte) error {
			other, err := parse(id, doc)
			switch {
			case err != nil:
				return err
			case other.Expired(now.Add(-keepExpired)):
				ended = append(ended, bytes.Clone(id))
			case !bytes.Equal(other.Key, t.Key):
			case t.Name != "" && other.Name == t.Name:
				return &Error{fmt.Sprintf("you have a token called %s already, %s; revoke it first, or take another name", t.Name, other.ID)}
			default:
				count++
			}
			return nil
		})
		if err != nil {
			return err
		}
		if count >= MaxPerKey {
			return &Error{fmt.Sprintf("your key has %d tokens, which is the limit; revoke some first", count)}
		}
		for _, id := range ended {
			if err := b.Delete(id); err != nil {
				return err
			}
		}
		if b.Get([]byte(t.ID)) != nil { // once in 2^64
			return errors.New("token: two of the same id; try again")
		}
		return b.Put([]byte(t.ID), doc)
	})
	if err != nil {
		return "", t, err
	}
	return secret, t, nil
}

// Verify returns the token that secret is. The error wraps ErrUnknown or
// ErrExpired, the latter with the token; any other means that the store could
// not be read. That the key is still authorized is left to the caller.
func (s *Store) Verify(secret string, now time.Time) (Token, error) {
	if !WellFormed(secret) {
		return Token{}, ErrUnknown
	}
	sum := digest(secret)
	id := []byte(idOf(sum))
	var r record
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		doc := tx.Bucket(bucket).Get(id)
		if doc == nil {
			return ErrUnknown
		}
		r, err = parse(id, doc)
		return err
	})
	if err != nil {
		return Token{}, err
	}
	// The look-up went by 64 bits of the digest and its time tells about those;
	// the other 192 are compared in a time that tells nothing.
	stored, err := hex.DecodeString(r.SHA256)
	if err != nil || subtle.ConstantTimeCompare(stored, sum[:]) != 1 {
		return Token{}, ErrUnknown
	}
	if r.Expired(now) {
		return r.Token, fmt.Errorf("%w on %s", ErrExpired, r.Expires.Format(time.DateTime+"Z"))
	}
	return r.Token, nil
}

// errFresh ends a transaction that has nothing to write.
var errFresh = errors.New("noted already")

// NoteUse records that a token was used, at most once in UsedEvery; t is what
// Verify returned.
func (s *Store) NoteUse(t Token, now time.Time) error {
	if now.Sub(t.Used) < UsedEvery {
		return nil
	}
	id := []byte(t.ID)
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		doc := b.Get(id)
		if doc == nil {
			return errFresh // revoked meanwhile
		}
		r, err := parse(id, doc)
		if err != nil {
			return err
		}
		if now.Sub(r.Used) < UsedEvery { // by another request, just now
			return errFresh
		}
		r.Used = now.UTC()
		if doc, err = json.Marshal(r); err != nil {
			return err
		}
		return b.Put(id, doc)
	})
	if errors.Is(err, errFresh) {
		return nil
	}
	return err
}

// List returns all tokens, the oldest first, those that have expired included.
func (s *Store) List() ([]Token, error) {
	var list []Token
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(id, doc []byte) error {
			r, err := parse(id, doc)
			list = append(list, r.Token)
			return err
		})
	})
	slices.SortFunc(list, func(a, b Token) int { return a.Created.Compare(b.Created) })
	return list, err
}

// Revoke ends a token at once and for good, or returns ErrUnknown.
func (s *Store) Revoke(id string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if b.Get([]byte(id)) == nil {
			return fmt.Errorf("token %q: %w", id, ErrUnknown)
		}
		return b.Delete([]byte(id))
	})
}

// parse reads a stored token. A field that it does not know may be a limit that
// another version set, so such a token opens nothing.
func parse(id, doc []byte) (record, error) {
	var r record
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return record{}, fmt.Errorf("token %s: %w", id, err)
	}
	if r.ID != string(id) || len(r.Key) == 0 {
		return record{}, fmt.Errorf("token %s: its record is another's", id)
	}
	return r, nil
}
