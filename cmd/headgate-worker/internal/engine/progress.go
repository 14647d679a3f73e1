package engine

import (
	"context"
	"time"

	bindings "github.com/duckdb/duckdb-go-bindings"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// progressSettings make DuckDB keep account of how far a query is. It prints nothing.
var progressSettings = []string{"SET enable_progress_bar = true", "SET enable_progress_bar_print = false"}

// progressInterval is how often somebody is told.
const progressInterval = 250 * time.Millisecond

// watch tells how far DuckDB is with the queries that follow, until stop is called, if
// the order asks for it. Only the first connection is watched.
func (e *execution) watch(ctx context.Context, phase string) (stop func(), err error) {
	if !e.order.Progress {
		return func() {}, nil
	}
	var conn mapping.Connection
	if err := e.db.withHandle(func(c mapping.Connection) error { conn = c; return nil }); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticks := time.NewTicker(progressInterval)
		defer ticks.Stop()
		last := 0
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
			}
			// DuckDB's own counter; -1 before it knows. It may be asked from any thread.
			state := bindings.QueryProgress(conn)
			share, _, _ := bindings.QueryProgressTypeMembers(&state)
			if n := int(share); n > last && n <= 100 {
				last = n
				if e.note("%s %d%%", phase, n) != nil {
					return // whoever writes next finds out
				}
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}, nil
}
