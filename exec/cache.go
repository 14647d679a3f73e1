package exec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.etcd.io/bbolt"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects"
)

// Cache is one lake's action cache: key(code, input snapshots, environment,
// parameters) -> result. It only ever saves work: an entry whose objects are
// gone is a miss, and losing the file loses nothing but time. It is safe for
// concurrent use.
type Cache struct {
	db *bbolt.DB
}

// Key names an action by everything that determines its result.
type Key [sha256.Size]byte

func (k Key) String() string { return hex.EncodeToString(k[:]) }

// action is what a Key digests. Fields are only ever added together with a new
// format number, since an old entry must not answer a new question.
type action struct {
	Format  int               `json:"format"`
	Op      string            `json:"op"`
	Code    string            `json:"code"`
	Env     string            `json:"env"`
	Inputs  []actionInput     `json:"inputs"`
	Params  map[string]any    `json:"params,omitempty"`
	Secrets map[string]string `json:"secrets,omitempty"` // keyed digests, by argument
	Prior   string            `json:"prior,omitempty"`   // snapshot that the strategy builds on
}

type actionInput struct {
	Name    string   `json:"name"`
	Tree    string   `json:"tree"`
	Columns []string `json:"columns,omitempty"`
	Filter  string   `json:"filter,omitempty"`

	Empty []protocol.Column `json:"empty,omitempty"` // the columns of a table that has no snapshot
}

func (a action) key() Key {
	a.Format = 2
	doc, err := json.Marshal(a) // map keys are sorted: the same action gives the same bytes
	if err != nil {
		// Parameters are JSON values by construction (see plan.ParseParam), so this
		// is a programming error, and an unusable key is safer than a shared one.
		panic(fmt.Sprintf("action cache key: %v", err))
	}
	return sha256.Sum256(doc)
}

var actionsBucket = []byte("actions")

// OpenCache opens or creates the cache file. A cache that cannot be read is an
// error, not an empty cache: it may be another server's.
func OpenCache(path string) (*Cache, error) {
	db, err := bbolt.Open(path, fs.FileMode(0o600), &bbolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("open action cache: %w", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(actionsBucket)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open action cache: %w", err), db.Close())
	}
	return &Cache{db: db}, nil
}

// Close closes the file.
func (c *Cache) Close() error { return c.db.Close() }

// get decodes the entry of k into v and reports whether there is one.
func (c *Cache) get(k Key, v any) (bool, error) {
	found := false
	err := c.db.View(func(tx *bbolt.Tx) error {
		doc := tx.Bucket(actionsBucket).Get(k[:])
		if doc == nil {
			return nil
		}
		found = true
		return json.Unmarshal(doc, v)
	})
	return found && err == nil, err
}

// Prune removes the entries of models whose results are gone, as has tells, and
// returns how many there were.
func (c *Cache) Prune(ctx context.Context, has func(objects.OID) (bool, error)) (int, error) {
	var gone [][]byte
	err := c.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(actionsBucket).ForEach(func(k, doc []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			var e modelEntry
			if err := json.Unmarshal(doc, &e); err != nil {
				return nil // an entry of another kind
			}
			oid, err := objects.ParseOID(e.Tree)
			if err != nil {
				return nil
			}
			there, err := has(oid)
			if err == nil && !there {
				gone = append(gone, bytes.Clone(k))
			}
			return err
		})
	})
	if err != nil || len(gone) == 0 {
		return 0, err
	}
	err = c.db.Update(func(tx *bbolt.Tx) error {
		for _, k := range gone {
			if err := tx.Bucket(actionsBucket).Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	return len(gone), err
}

// putAll stores the entries in one durable transaction.
func (c *Cache) putAll(entries map[Key]any) error {
	if len(entries) == 0 {
		return nil
	}
	return c.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(actionsBucket)
		for k, v := range entries {
			doc, err := json.Marshal(v)
			if err != nil {
				return fmt.Errorf("encode action cache entry: %w", err)
			}
			if err := b.Put(k[:], doc); err != nil {
				return err
			}
		}
		return nil
	})
}
