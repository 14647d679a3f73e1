// Package refs holds a lake's refs and moves them only by atomic
// compare-and-swap. It knows names and oids; what an oid names is not its concern.
package refs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// OID is the object name that a ref holds; the zero OID stands for "no ref".
type OID = plumbing.Hash

// Name is a full, valid ref name such as "refs/heads/main". Parse makes one.
type Name string

// Ref is a name and what it points at.
type Ref struct {
	Name Name
	OID  OID
}

// Update moves one ref from Old to New. A zero Old means that the ref must not
// exist yet, a zero New deletes it.
type Update struct {
	Name     Name
	Old, New OID
}

// Cause is kept in the reflog with every update.
type Cause struct {
	Who  string    // the authenticated user, or "headgate" for the server itself
	Why  string    // one line: "push", "run 01J...: published"
	When time.Time // set by the store if zero

	// Event, if there is one, is kept by the same transaction until it is taken
	// (see Journal). A transaction may have an event and no updates.
	Event []byte
	// Taken drops the events up to this number, as a part of the transaction.
	Taken uint64
}

// Event is what the cause of a transaction left for the journal.
type Event struct {
	Number uint64 // grows with the order of the transactions, from 1
	Data   []byte
}

// Journal is what a Store also is that keeps events.
type Journal interface {
	// Events returns the oldest events that were not taken, in their order, at
	// most limit.
	Events(ctx context.Context, limit int) ([]Event, error)
}

// LogEntry is one move of one ref.
type LogEntry struct {
	Update
	Cause
}

// ErrNotFound is what Get wraps when the ref does not exist.
var ErrNotFound = errors.New("ref not found")

// StaleError says that a ref was not where an update expected it. Nothing of
// the transaction was applied.
type StaleError struct {
	Name             Name
	Expected, Actual OID
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("ref %s is at %s, expected %s", e.Name, e.Actual, e.Expected)
}

// Store is one lake's refs. It is safe for concurrent use.
type Store interface {
	// Get returns what name points at, or an error wrapping ErrNotFound.
	Get(ctx context.Context, name Name) (OID, error)
	// List returns the refs whose names start with prefix, sorted by name.
	List(ctx context.Context, prefix string) ([]Ref, error)
	// Apply performs all updates or none; it returns after they are durable.
	// A *StaleError means that a ref was not at its Old. It is not retried
	// inside; a caller that retries must read again first.
	Apply(ctx context.Context, updates []Update, cause Cause) error
	// Log returns the newest moves of name, newest first, at most limit.
	Log(ctx context.Context, name Name, limit int) ([]LogEntry, error)
	// LogSince calls fn for each move of any ref, deleted ones too, since an
	// instant, the newest first, and stops at fn's first error, which it returns.
	LogSince(ctx context.Context, since time.Time, fn func(LogEntry) error) error
	Close() error
}
