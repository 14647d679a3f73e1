package lake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"

	"github.com/headgate/headgate/refs"
)

// Care is what a served directory of lakes does for its lakes by the clock: it
// collects each once in a while, one lake at a time.
type Care struct {
	Every time.Duration // between two collections of a lake; 0 collects none
	GC    GCOptions     // Wait and Progress are Care's own
	Look  time.Duration // how often it is looked whose turn it is; default a 24th of Every, but a minute at least, and Every if that is less
	Now   func() time.Time
	Log   *slog.Logger
}

// careWait is how long a collection waits for pushes and runs under way. It holds
// nobody up meanwhile; what it found stays condemned, and the next look goes on.
const careWait = 10 * time.Minute

// Run looks after the lakes until ctx ends.
func (c Care) Run(ctx context.Context, d *Directory) {
	if c.Every <= 0 {
		return
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	look := c.Look
	if look <= 0 {
		look = min(c.Every, max(c.Every/24, time.Minute))
	}
	t := time.NewTicker(look)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			c.round(ctx, d)
		case <-ctx.Done():
			return
		}
	}
}

// round collects the lakes whose turn it is.
func (c Care) round(ctx context.Context, d *Directory) {
	names, err := d.List(ctx)
	if err != nil {
		c.Log.Error("cannot list the lakes for collection", "err", err)
		return
	}
	for _, n := range names {
		if ctx.Err() != nil {
			return
		}
		if err := c.one(ctx, d, n); err != nil && ctx.Err() == nil && !errors.Is(err, ErrNotFound) {
			c.Log.Error("cannot collect garbage", "lake", n, "err", err)
		}
	}
}

func (c Care) one(ctx context.Context, d *Directory, n Name) error {
	l, err := d.Open(ctx, n)
	if err != nil {
		return err
	}
	now := c.Now()
	last, err := l.Runs.lastCollected()
	if err != nil {
		return err
	}
	if now.Sub(last) < c.Every {
		return nil
	}
	idle := false
	if !last.IsZero() {
		if idle, err = c.idle(ctx, l, last); err != nil {
			return err
		}
	}
	if !idle {
		opt := c.GC
		opt.Wait = careWait
		r, err := l.GC(ctx, opt)
		if err != nil {
			return err
		}
		c.Log.Info("collected garbage", "lake", n, "objects", r.Freed.Objects, "bytes", r.Freed.Bytes, "kept", r.Kept, "waiting", r.Waiting,
			"runs_expired", r.Expired.Runs, "states_expired", r.Expired.Scratch)
		if r.Waiting > 0 {
			return nil // still its turn
		}
	}
	return l.Runs.setCollected(now)
}

// idle tells whether nothing can have become garbage since the last collection:
// no ref has moved for so long that all garbage was collected by then, and
// nothing that runs left has come of age.
func (c Care) idle(ctx context.Context, l *Lake, last time.Time) (bool, error) {
	since := last.Add(-c.GC.Grace - c.GC.Reflog)
	moved := errors.New("moved")
	err := l.Refs.LogSince(ctx, since, func(refs.LogEntry) error { return moved })
	if errors.Is(err, moved) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	due, err := l.expire(ctx, c.GC.Keep, c.Now(), true)
	return due == Expired{}, err
}

var (
	careBucket   = []byte("care")
	collectedKey = []byte("collected")
)

// lastCollected returns when the lake was last collected by Care, or the zero time.
func (j *Journal) lastCollected() (when time.Time, err error) {
	err = j.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(careBucket)
		if b == nil {
			return nil
		}
		text := b.Get(collectedKey)
		if text == nil {
			return nil
		}
		return when.UnmarshalText(text)
	})
	if err != nil {
		// A time that cannot be read must not end collection for ever.
		return time.Time{}, nil
	}
	return when, nil
}

func (j *Journal) setCollected(when time.Time) error {
	text, err := when.UTC().MarshalText()
	if err != nil {
		return fmt.Errorf("time of collection: %w", err)
	}
	return j.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(careBucket)
		if err != nil {
			return err
		}
		return b.Put(collectedKey, text)
	})
}
