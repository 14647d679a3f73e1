package lake

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// State is where a run stands. A run only moves forward; the last five are final.
type State string

// The states of a run, in order.
const (
	Accepted   State = "accepted"
	Planning   State = "planning"
	Running    State = "running"   // models
	Verifying  State = "verifying" // verifiers
	Publishing State = "publishing"
	Published  State = "published" // final: the target moved
	Rejected   State = "rejected"  // final: user code or data did not pass
	Failed     State = "failed"    // final: the gate could not run; nothing moved
	Passed     State = "passed"    // final: a dry run that would have published
	Cancelled  State = "cancelled" // final: somebody ended it before it was decided; nothing moved
)

// Final reports whether a run in this state is over.
func (s State) Final() bool {
	return s == Published || s == Rejected || s == Failed || s == Passed || s == Cancelled
}

// Run is the journal's entry of a run: enough to list it, and to end it after a
// crash. The whole story is the run record, refs/runs/<id>.
type Run struct {
	ID       string    `json:"id"`
	State    State     `json:"state"`
	Target   string    `json:"target"` // full ref name
	Base     string    `json:"base"`   // oid the run started from
	Old      string    `json:"old"`    // oid that the target must have when the run publishes; zeros if it must not exist
	Proposal string    `json:"proposal"`
	Gate     string    `json:"gate,omitempty"` // the gate commit, from Publishing on
	Who      string    `json:"who"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	Reason   string    `json:"reason,omitempty"` // one sentence, if it did not publish
}

// ErrNoRun is what Get wraps when there is no such run.
var ErrNoRun = errors.New("run does not exist")

// Journal keeps the state of a lake's runs. Every Put is durable when it
// returns. It is safe for concurrent use.
type Journal struct {
	db *bbolt.DB
}

var runsBucket = []byte("runs")

// OpenJournal opens or creates the journal file.
func OpenJournal(path string) (*Journal, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("open run journal: %w", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(runsBucket)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open run journal: %w", err), db.Close())
	}
	return &Journal{db: db}, nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.db.Close() }

// Put stores the run's state.
func (j *Journal) Put(r Run) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode run %s: %w", r.ID, err)
	}
	return j.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(runsBucket).Put([]byte(r.ID), doc)
	})
}

// Get returns a run, or an error wrapping ErrNoRun.
func (j *Journal) Get(id string) (Run, error) {
	var r Run
	err := j.db.View(func(tx *bbolt.Tx) error {
		doc := tx.Bucket(runsBucket).Get([]byte(id))
		if doc == nil {
			return fmt.Errorf("run %q: %w", id, ErrNoRun)
		}
		return json.Unmarshal(doc, &r)
	})
	return r, err
}

// List returns the newest runs first, at most limit (all if limit is not
// positive). Run ids are ULIDs: their order is the order of time.
func (j *Journal) List(limit int) ([]Run, error) {
	var out []Run
	err := j.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(runsBucket).Cursor()
		for k, doc := c.Last(); k != nil && (limit <= 0 || len(out) < limit); k, doc = c.Prev() {
			var r Run
			if err := json.Unmarshal(doc, &r); err != nil {
				return fmt.Errorf("run %q: %w", k, err)
			}
			out = append(out, r)
		}
		return nil
	})
	return out, err
}
