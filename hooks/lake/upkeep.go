package lake

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
)

// upkeep is what a lake does for itself while it is served, one pass at a time.
type upkeep struct {
	ctx    context.Context
	cancel context.CancelFunc
	log    *slog.Logger

	mu      sync.Mutex
	running bool
	closed  bool
	done    sync.WaitGroup
}

func newUpkeep(log *slog.Logger) *upkeep {
	u := &upkeep{log: log}
	u.ctx, u.cancel = context.WithCancel(context.Background())
	return u
}

// Upkeep looks whether the lake has grown enough for its reachability index to be
// built again and, if so, does that in the background. It is cheap if not, and
// meant to be called after each push. Closing the lake ends it.
func (l *Lake) Upkeep() {
	if !l.Objects.ReachabilityWanted() {
		return
	}
	u := l.upkeep
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.running || u.closed {
		return
	}
	u.running = true
	u.done.Add(1)
	go func() {
		defer u.done.Done()
		if err := l.UpdateReachability(u.ctx); err != nil && u.ctx.Err() == nil {
			// Nothing depends on it; the next pass tries again.
			u.log.Error("cannot build the reachability index", "err", err)
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.running = false
	}()
}

// end cancels what is under way and waits for it.
func (u *upkeep) end() {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.cancel()
	u.done.Wait()
}

// UpdateReachability builds the lake's reachability index again if enough is new.
func (l *Lake) UpdateReachability(ctx context.Context) error {
	list, err := l.Refs.List(ctx, "refs/")
	if err != nil {
		return err
	}
	// What is cloned most comes first.
	order := func(name string) int {
		for i, prefix := range []string{"refs/heads/main", "refs/heads/", "refs/tags/"} {
			if strings.HasPrefix(name, prefix) {
				return i
			}
		}
		return 3
	}
	tips := make([]objects.OID, len(list))
	slices.SortStableFunc(list, func(a, b refs.Ref) int { return order(string(a.Name)) - order(string(b.Name)) })
	for i, r := range list {
		tips[i] = r.OID
	}
	_, err = l.Objects.UpdateReachability(ctx, tips)
	return err
}
