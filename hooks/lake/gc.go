package lake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/refs"
)

// Defaults of GCOptions.
const (
	// DefaultGrace is git's: longer than any push or run takes, and than somebody
	// needs to notice that a result is gone.
	DefaultGrace = 14 * 24 * time.Hour
	// DefaultReflog is git's for what no branch leads to any more.
	DefaultReflog = 30 * 24 * time.Hour
	// DefaultGCWait is how long a collection waits for pushes and runs.
	DefaultGCWait = time.Minute
)

// GCOptions say what a collection removes. The zero value removes everything that
// nothing names now; see the defaults.
type GCOptions struct {
	Grace    time.Duration // objects that came later than this ago stay
	Reflog   time.Duration // what a ref named later than this ago stays
	Keep     Retention     // what runs left behind, dropped before objects are collected
	Wait     time.Duration // for pushes and runs that began before
	DryRun   bool
	Progress func(string) // takes a line from time to time; may be nil
}

// GCCounts are objects, small and raw.
type GCCounts struct {
	Objects  int   `json:"objects"`
	RawBlobs int   `json:"raw_blobs"`
	Bytes    int64 `json:"bytes"`
}

// GCReport is what a collection found and did.
type GCReport struct {
	Lake    Name     `json:"lake"`
	DryRun  bool     `json:"dry_run"`
	Expired Expired  `json:"expired"` // runs of which refs were dropped
	Kept    int      `json:"kept"`    // objects that are in use or young
	Garbage GCCounts `json:"garbage"` // found by this collection
	Freed   GCCounts `json:"freed"`   // removed, also what an earlier collection had found
	// Waiting is the number of pushes and runs that a collection would have to wait
	// for. What it found is removed by the next one.
	Waiting        int `json:"waiting"`
	PacksRewritten int `json:"packs_rewritten"`
	PacksJoined    int `json:"packs_joined"`
	Packs          int `json:"packs"`
	CacheDropped   int `json:"cache_dropped"` // entries of the action cache whose results are gone
}

// Text is the report for people.
func (r *GCReport) Text() string {
	var b strings.Builder
	counts := func(c GCCounts) string {
		return fmt.Sprintf("%d objects (%d raw), %d bytes", c.Objects, c.RawBlobs, c.Bytes)
	}
	if e := r.Expired; e.Scratch > 0 || e.Runs > 0 {
		verb := "dropped"
		if r.DryRun {
			verb = "would drop"
		}
		fmt.Fprintf(&b, "%s: %s %d states and %d records of runs that published nothing\n", r.Lake, verb, e.Scratch, e.Runs)
	}
	fmt.Fprintf(&b, "%s: ", r.Lake)
	switch {
	case r.DryRun:
		fmt.Fprintf(&b, "would free %s; %d objects stay\n", counts(r.Garbage), r.Kept)
		return b.String()
	case r.Waiting > 0:
		fmt.Fprintf(&b, "%d pushes or runs that began before are still under way; freed %s; run gc again later for the rest\n", r.Waiting, counts(r.Freed))
		return b.String()
	}
	fmt.Fprintf(&b, "freed %s; %d objects stay, in %d packs (%d rewritten, %d joined)\n", counts(r.Freed), r.Kept, r.Packs, r.PacksRewritten, r.PacksJoined)
	if r.CacheDropped > 0 {
		fmt.Fprintf(&b, "  %d entries of the action cache went with their results\n", r.CacheDropped)
	}
	return b.String()
}

// GC collects a lake that no server has open: its directory below root.
func GC(ctx context.Context, root string, n Name, log *slog.Logger, opt GCOptions) (_ *GCReport, err error) {
	dir := filepath.Join(root, url.PathEscape(string(n)))
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lake %q: %w", n, ErrNotFound)
	}
	// Opening would make what is missing: without refs, everything is garbage.
	for _, part := range []string{"objects", "refs.db", "runs.db"} {
		if _, err := os.Stat(filepath.Join(dir, part)); err != nil {
			return nil, fmt.Errorf("lake %q: %w", n, err)
		}
	}
	l := &Lake{Name: n}
	defer func() {
		if closeErr := l.close(); err == nil {
			err = closeErr
		}
	}()
	b, err := backend.NewLocal(filepath.Join(dir, "objects"))
	if err == nil {
		l.Objects, err = objects.OpenStore(b, filepath.Join(dir, "quarantine"), objects.Options{Logger: log})
	}
	if err == nil {
		l.Refs, err = refs.OpenBolt(filepath.Join(dir, "refs.db"))
	}
	if err == nil {
		l.Actions, err = exec.OpenCache(filepath.Join(dir, "actions.db"))
	}
	if err == nil {
		l.Runs, err = OpenJournal(filepath.Join(dir, "runs.db"))
	}
	if err != nil {
		return nil, fmt.Errorf("open lake %q: %w", n, err)
	}
	return l.GC(ctx, opt)
}

// GC removes objects that nothing leads to, while the lake is in use; see decision
// 018. A second collection of the same lake waits for the first.
func (l *Lake) GC(ctx context.Context, opt GCOptions) (*GCReport, error) {
	now := time.Now()
	expired, err := l.expire(ctx, opt.Keep, now, opt.DryRun)
	if err != nil {
		return nil, err
	}
	since := now.Add(-opt.Reflog)
	stats, err := l.Objects.GC(ctx, objects.GCOptions{
		Roots:    func(ctx context.Context) (objects.Roots, error) { return l.roots(ctx, since) },
		Grace:    opt.Grace,
		DryRun:   opt.DryRun,
		Wait:     opt.Wait,
		Progress: opt.Progress,
	})
	if err != nil {
		return nil, err
	}
	r := &GCReport{
		Lake: l.Name, DryRun: opt.DryRun, Expired: expired, Kept: stats.Kept,
		Garbage: GCCounts(stats.Garbage), Freed: GCCounts(stats.Freed),
		Waiting: stats.Waiting, PacksRewritten: stats.Rewritten, PacksJoined: stats.Repack.Joined, Packs: stats.Repack.Packs,
	}
	if opt.DryRun || stats.Waiting > 0 {
		return r, nil
	}
	r.CacheDropped, err = l.Actions.Prune(ctx, func(oid objects.OID) (bool, error) {
		_, err := l.Objects.Stat(ctx, oid)
		if errors.Is(err, objects.ErrNotFound) {
			return false, nil
		}
		return true, err
	})
	return r, err
}

// roots are all refs, what they named since an instant, and what runs that are
// not over work on.
func (l *Lake) roots(ctx context.Context, since time.Time) (objects.Roots, error) {
	var r objects.Roots
	past := make(map[objects.OID]bool)
	// What moves between these two is in the log.
	list, err := l.Refs.List(ctx, "refs/")
	if err != nil {
		return r, err
	}
	for _, ref := range list {
		r.Refs = append(r.Refs, ref.OID)
	}
	err = l.Refs.LogSince(ctx, since, func(e refs.LogEntry) error {
		past[e.Old], past[e.New] = true, true
		return nil
	})
	if err != nil {
		return r, err
	}
	runs, err := l.Runs.List(0)
	if err != nil {
		return r, err
	}
	for _, run := range runs {
		if run.State.Final() {
			continue
		}
		for _, text := range []string{run.Base, run.Old, run.Proposal, run.Gate} {
			if oid, err := objects.ParseOID(text); err == nil {
				past[oid] = true
			}
		}
	}
	delete(past, objects.OID{})
	for oid := range past {
		r.Past = append(r.Past, oid)
	}
	return r, nil
}
