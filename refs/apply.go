package refs

import (
	"fmt"
	"strings"
	"time"
)

// ConflictError says that a ref cannot be made because another one has its
// name as a directory, or the other way round. Nothing of the transaction was
// applied.
type ConflictError struct {
	Name, Existing Name
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("ref %s cannot exist next to %s", e.Name, e.Existing)
}

// table is what a transaction needs of a store's current state.
type table interface {
	get(Name) (OID, bool)
	// under returns some ref other than those in gone whose name starts with
	// prefix.
	under(prefix string, gone map[Name]OID) (Name, bool)
}

// check tells whether all updates can be applied to t at once.
func check(t table, updates []Update) error {
	after := make(map[Name]OID, len(updates)) // the zero oid for deleted ones
	gone := make(map[Name]OID)
	for _, u := range updates {
		if _, err := Parse(string(u.Name)); err != nil {
			return err
		}
		if _, twice := after[u.Name]; twice {
			return fmt.Errorf("ref %s is updated twice in one transaction", u.Name)
		}
		actual, _ := t.get(u.Name)
		if actual != u.Old {
			return &StaleError{Name: u.Name, Expected: u.Old, Actual: actual}
		}
		after[u.Name] = u.New
		if u.New.IsZero() {
			gone[u.Name] = actual
		}
	}
	for _, u := range updates {
		if !u.Old.IsZero() || u.New.IsZero() {
			continue
		}
		if existing, clash := conflict(t, u.Name, after, gone); clash {
			return &ConflictError{Name: u.Name, Existing: existing}
		}
	}
	return nil
}

// conflict looks for a ref at a directory of name, or below it. after holds
// what the transaction itself makes of refs.
func conflict(t table, name Name, after, gone map[Name]OID) (Name, bool) {
	for i, c := range []byte(name) {
		if c != '/' {
			continue
		}
		dir := name[:i]
		oid, touched := after[dir]
		if touched && !oid.IsZero() {
			return dir, true
		}
		if _, exists := t.get(dir); exists && !touched {
			return dir, true
		}
	}
	// Refs that the transaction makes below name find name as their directory.
	return t.under(string(name)+"/", gone)
}

// stamp fills in what the caller left to the store, and keeps the cause to the
// one line that Cause promises.
func stamp(c Cause) Cause {
	if c.When.IsZero() {
		c.When = time.Now()
	}
	oneLine := strings.NewReplacer("\n", " ", "\r", " ")
	c.Who, c.Why = oneLine.Replace(c.Who), oneLine.Replace(c.Why)
	return c
}
