package refs

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// bolt is a Store in one bbolt file. Bucket "refs" maps a name to its oid and
// the number of its newest log entry, "gone" maps the name of a deleted ref to
// that number, and "log" maps growing numbers to moves, each of which has the
// number of the same ref's move before. So the log only grows at its end: keyed
// by name, each commit of many refs would rewrite a page for every one of them.
type bolt struct {
	db    *bbolt.DB
	queue chan *transaction

	mu     sync.RWMutex // held for reading while sending to queue
	closed bool
	done   chan struct{} // closed when the committer has ended
}

// transaction is one call of Apply on its way to the committer.
type transaction struct {
	ctx     context.Context
	updates []Update
	cause   Cause
	done    chan error
}

var (
	refsBucket = []byte("refs")
	goneBucket = []byte("gone")
	logBucket  = []byte("log")
	// eventsBucket maps growing numbers to the events that were not taken yet.
	eventsBucket = []byte("events")
)

const (
	// lockWait is how long OpenBolt waits for another process: long enough for
	// one that is just ending.
	lockWait = time.Second
	// maxBatch bounds one commit, so that the first of its transactions does not
	// wait for ever.
	maxBatch = 1024
)

// OpenBolt opens the store in the file at path, and makes it if need be. The
// file is locked against other processes.
//
// Apply commits in groups: all transactions that wait while one commit is
// being synced go into the next one. A single writer never waits for company.
func OpenBolt(path string) (Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("refs at %s are in use by another process: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open refs: %w", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{refsBucket, goneBucket, logBucket, eventsBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open refs: %w", err), db.Close())
	}
	s := &bolt{db: db, queue: make(chan *transaction, maxBatch), done: make(chan struct{})}
	go s.commitLoop()
	return s, nil
}

func (s *bolt) view(ctx context.Context, fn func(boltTable, *bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.db.View(func(tx *bbolt.Tx) error { return fn(boltTable{tx.Bucket(refsBucket)}, tx) })
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return errClosed
	}
	return err
}

func (s *bolt) Get(ctx context.Context, name Name) (oid OID, err error) {
	err = s.view(ctx, func(t boltTable, _ *bbolt.Tx) error {
		var ok bool
		if oid, ok = t.get(name); !ok {
			return fmt.Errorf("%w: %s", ErrNotFound, name)
		}
		return nil
	})
	return oid, err
}

func (s *bolt) List(ctx context.Context, prefix string) (list []Ref, err error) {
	err = s.view(ctx, func(t boltTable, _ *bbolt.Tx) error {
		c := t.refs.Cursor()
		for k, v := c.Seek([]byte(prefix)); bytes.HasPrefix(k, []byte(prefix)) && k != nil; k, v = c.Next() {
			oid, _, err := decodeRef(v)
			if err != nil {
				return fmt.Errorf("ref %s: %w", k, err)
			}
			list = append(list, Ref{Name(k), oid})
		}
		return nil
	})
	return list, err
}

func (s *bolt) Log(ctx context.Context, name Name, limit int) (list []LogEntry, err error) {
	err = s.view(ctx, func(_ boltTable, tx *bbolt.Tx) error {
		n, err := newestLog(tx, name)
		if err != nil {
			return err
		}
		log := tx.Bucket(logBucket)
		for n != 0 && len(list) < limit {
			var e LogEntry
			if e, n, err = decodeLog(name, log.Get(logKey(n))); err != nil {
				return err
			}
			list = append(list, e)
		}
		return nil
	})
	return list, err
}

// logDisorder is how far the times of moves may be from the order in which they
// were committed: the caller or Apply sets them before that.
const logDisorder = time.Hour

func (s *bolt) LogSince(ctx context.Context, since time.Time, fn func(LogEntry) error) error {
	return s.view(ctx, func(_ boltTable, tx *bbolt.Tx) error {
		c := tx.Bucket(logBucket).Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			if err := ctx.Err(); err != nil {
				return err
			}
			e, _, err := decodeLog("", v)
			if err != nil {
				return err
			}
			if e.When.Before(since.Add(-logDisorder)) {
				return nil
			}
			if e.When.Before(since) {
				continue
			}
			if err := fn(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// Apply waits for the outcome even if ctx ends meanwhile: whoever gets an
// answer gets the true one. A transaction that has not begun then is dropped.
func (s *bolt) Apply(ctx context.Context, updates []Update, cause Cause) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := &transaction{ctx, updates, stamp(cause), make(chan error, 1)}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return errClosed
	}
	s.queue <- t
	s.mu.RUnlock()
	return <-t.done
}

// Close waits for the transactions that were begun.
func (s *bolt) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.queue)
	s.mu.Unlock()
	<-s.done
	return s.db.Close()
}

func (s *bolt) commitLoop() {
	defer close(s.done)
	var batch []*transaction
	for first := range s.queue {
		batch = s.gather(append(batch[:0], first))
		s.commit(batch)
	}
}

// gather takes all that wait. Writers that the last commit has just answered
// are often about to come back: yielding as long as each round brings new ones
// lets them in without making a single writer wait.
func (s *bolt) gather(batch []*transaction) []*transaction {
	for idle := 0; idle < 2 && len(batch) < maxBatch; {
		select {
		case t, ok := <-s.queue:
			if !ok {
				return batch
			}
			batch = append(batch, t)
			idle = 0
		default:
			idle++
			runtime.Gosched()
		}
	}
	return batch
}

// commit applies the transactions one after another in one bbolt transaction.
// Each is checked before anything of it is written, so one that is stale fails
// alone.
func (s *bolt) commit(batch []*transaction) {
	outcomes := make([]error, len(batch))
	tx, err := s.db.Begin(true)
	if err == nil {
		wrote := false
		for i, t := range batch {
			if outcomes[i] = t.ctx.Err(); outcomes[i] != nil {
				continue
			}
			if outcomes[i] = check(boltTable{tx.Bucket(refsBucket)}, t.updates); outcomes[i] != nil {
				continue
			}
			wrote = true
			if err = write(tx, t); err != nil {
				break
			}
		}
		if err == nil && wrote {
			err = tx.Commit()
		} else {
			err = errors.Join(err, tx.Rollback())
		}
	}
	for i, t := range batch {
		if err != nil {
			// Even a stale one may have been stale only because of this batch.
			t.done <- fmt.Errorf("commit refs: %w", err)
			continue
		}
		t.done <- outcomes[i]
	}
}

func write(tx *bbolt.Tx, t *transaction) error {
	refs, gone, log := tx.Bucket(refsBucket), tx.Bucket(goneBucket), tx.Bucket(logBucket)
	log.FillPercent = 1 // entries come in order, pages need no room in between
	if err := journal(tx.Bucket(eventsBucket), t.cause); err != nil {
		return err
	}
	for _, u := range t.updates {
		if u.Old == u.New {
			continue
		}
		prev, err := newestLog(tx, u.Name)
		if err != nil {
			return err
		}
		n, err := log.NextSequence()
		if err != nil {
			return err
		}
		value, err := encodeLog(u, t.cause, prev)
		if err != nil {
			return err
		}
		if err := log.Put(logKey(n), value); err != nil {
			return err
		}
		key := []byte(u.Name)
		if u.New.IsZero() {
			err = errors.Join(refs.Delete(key), gone.Put(key, logKey(n)))
		} else {
			err = refs.Put(key, append(u.New[:], logKey(n)...))
			if u.Old.IsZero() {
				err = errors.Join(err, gone.Delete(key))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// journal drops what a transaction takes, and keeps its event.
func journal(events *bbolt.Bucket, c Cause) error {
	if c.Taken > 0 {
		cur := events.Cursor()
		for k, _ := cur.First(); k != nil && binary.BigEndian.Uint64(k) <= c.Taken; k, _ = cur.First() {
			if err := cur.Delete(); err != nil {
				return err
			}
		}
	}
	if c.Event == nil {
		return nil
	}
	n, err := events.NextSequence()
	if err != nil {
		return err
	}
	return events.Put(logKey(n), c.Event)
}

// Events implements Journal.
func (s *bolt) Events(ctx context.Context, limit int) (list []Event, err error) {
	err = s.view(ctx, func(_ boltTable, tx *bbolt.Tx) error {
		c := tx.Bucket(eventsBucket).Cursor()
		for k, v := c.First(); k != nil && len(list) < limit; k, v = c.Next() {
			list = append(list, Event{binary.BigEndian.Uint64(k), bytes.Clone(v)})
		}
		return nil
	})
	return list, err
}

// newestLog returns the number of the ref's newest log entry, or 0.
func newestLog(tx *bbolt.Tx, name Name) (uint64, error) {
	if v := tx.Bucket(refsBucket).Get([]byte(name)); v != nil {
		_, n, err := decodeRef(v)
		if err != nil {
			return 0, fmt.Errorf("ref %s: %w", name, err)
		}
		return n, nil
	}
	if v := tx.Bucket(goneBucket).Get([]byte(name)); len(v) == 8 {
		return binary.BigEndian.Uint64(v), nil
	}
	return 0, nil
}

func logKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func decodeRef(v []byte) (OID, uint64, error) {
	const n = len(OID{})
	if len(v) != n+8 {
		return OID{}, 0, fmt.Errorf("stored value has %d bytes, want %d", len(v), n+8)
	}
	return OID(v[:n]), binary.BigEndian.Uint64(v[n:]), nil
}

// boltTable is the bucket "refs" as a transaction sees it.
type boltTable struct {
	refs *bbolt.Bucket
}

func (t boltTable) get(name Name) (OID, bool) {
	v := t.refs.Get([]byte(name))
	if len(v) < len(OID{}) {
		return OID{}, false
	}
	return OID(v[:len(OID{})]), true
}

func (t boltTable) under(prefix string, gone map[Name]OID) (Name, bool) {
	c := t.refs.Cursor()
	for k, _ := c.Seek([]byte(prefix)); bytes.HasPrefix(k, []byte(prefix)); k, _ = c.Next() {
		if _, leaves := gone[Name(k)]; !leaves {
			return Name(k), true
		}
	}
	return "", false
}

// logValue is a reflog entry on disk.
type logValue struct {
	Name string    `json:"name"`
	Old  string    `json:"old"`
	New  string    `json:"new"`
	Who  string    `json:"who"`
	Why  string    `json:"why"`
	When time.Time `json:"when"`
	Prev uint64    `json:"prev,omitempty"` // the same ref's entry before
}

func encodeLog(u Update, c Cause, prev uint64) ([]byte, error) {
	return json.Marshal(logValue{string(u.Name), u.Old.String(), u.New.String(), c.Who, c.Why, c.When, prev})
}

func decodeLog(name Name, v []byte) (LogEntry, uint64, error) {
	var l logValue
	if err := json.Unmarshal(v, &l); err != nil {
		return LogEntry{}, 0, fmt.Errorf("reflog of %s: %w", name, err)
	}
	if name == "" {
		name = Name(l.Name)
	}
	e := LogEntry{Update{Name: name}, Cause{Who: l.Who, Why: l.Why, When: l.When}}
	var err error
	if e.Old, err = parseOID(l.Old); err != nil {
		return LogEntry{}, 0, fmt.Errorf("reflog of %s: %w", name, err)
	}
	if e.New, err = parseOID(l.New); err != nil {
		return LogEntry{}, 0, fmt.Errorf("reflog of %s: %w", name, err)
	}
	return e, l.Prev, nil
}
