package lake

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"

	"github.com/headgate/headgate/refs"
)

// Defaults of Retention.
const (
	DefaultKeepScratch = 30 * 24 * time.Hour
	DefaultKeepRuns    = 90 * 24 * time.Hour
)

// Retention is for how long what refused runs left behind is kept, counted from
// their end; 0 keeps it. The record of a run that published is never dropped: it
// is the proof of a commit.
type Retention struct {
	Scratch time.Duration // refs/scratch/<id>: the state of the data
	Runs    time.Duration // refs/runs/<id> and the journal's entry of a run that published nothing
}

// Expired counts the runs of which something was dropped.
type Expired struct {
	Scratch int `json:"scratch"`
	Runs    int `json:"runs"`
}

// Namespaces of what runs leave behind.
const (
	scratchPrefix = "refs/scratch/"
	runsPrefix    = "refs/runs/"
)

// dropBatch is how many refs one transaction drops: others wait for it.
const dropBatch = 500

// expire drops what is kept no longer. What the refs named stays fetchable by
// nobody and restorable from the reflog until a collection removes it.
func (l *Lake) expire(ctx context.Context, keep Retention, now time.Time, dryRun bool) (Expired, error) {
	var count Expired
	ended, err := l.ends()
	if err != nil {
		return count, err
	}
	var drop []refs.Update
	var forget []string
	scratch, err := l.Refs.List(ctx, scratchPrefix)
	if err != nil {
		return count, err
	}
	for _, r := range scratch {
		end, over := ended.of(strings.TrimPrefix(string(r.Name), scratchPrefix))
		if over && keep.Scratch > 0 && now.Sub(end.when) > keep.Scratch {
			drop = append(drop, refs.Update{Name: r.Name, Old: r.OID})
			count.Scratch++
		}
	}
	records, err := l.Refs.List(ctx, runsPrefix)
	if err != nil {
		return count, err
	}
	record := make(map[string]refs.Ref, len(records))
	for _, r := range records {
		record[strings.TrimPrefix(string(r.Name), runsPrefix)] = r
	}
	for id, end := range ended {
		if !end.state.Final() || end.state == Published || keep.Runs <= 0 || now.Sub(end.when) <= keep.Runs {
			continue
		}
		if r, ok := record[id]; ok {
			drop = append(drop, refs.Update{Name: r.Name, Old: r.OID})
		}
		forget = append(forget, id)
		count.Runs++
	}
	if dryRun {
		return count, nil
	}
	cause := refs.Cause{Who: "headgate", Why: "kept long enough", When: now}
	for len(drop) > 0 {
		n := min(len(drop), dropBatch)
		if err := l.Refs.Apply(ctx, drop[:n], cause); err != nil {
			return count, fmt.Errorf("drop what old runs left: %w", err)
		}
		drop = drop[n:]
	}
	// The journal goes last: a record without an entry is kept for ever.
	return count, l.Runs.forget(forget)
}

type end struct {
	when  time.Time
	state State
}

// ends are the runs that are over, by id.
type ends map[string]end

// of returns when a run was over. Of one that the journal does not know, that is
// when its id was made.
func (e ends) of(id string) (end, bool) {
	if known, ok := e[id]; ok {
		return known, !known.when.IsZero()
	}
	u, err := ulid.ParseStrict(id)
	return end{when: ulid.Time(u.Time())}, err == nil
}

// ends reads the journal. A run that is under way has no time of its end.
func (l *Lake) ends() (ends, error) {
	runs, err := l.Runs.List(0)
	if err != nil {
		return nil, err
	}
	out := make(ends, len(runs))
	for _, r := range runs {
		e := end{state: r.State}
		if r.State.Final() {
			if e.when = r.Ended; e.when.IsZero() {
				e.when = r.Started
			}
		}
		out[r.ID] = e
	}
	return out, nil
}

// forget removes entries.
func (j *Journal) forget(ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return j.db.Update(func(tx *bbolt.Tx) error {
		var errs []error
		for _, id := range ids {
			errs = append(errs, tx.Bucket(runsBucket).Delete([]byte(id)))
		}
		return errors.Join(errs...)
	})
}
