package hooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/headgate/headgate/hooks/lake"
)

// ErrNotUnderWay is what errors wrap when a run is over, or never was.
var ErrNotUnderWay = errors.New("run is not under way")

// CancelError says why a run was not cancelled, for whoever asked.
type CancelError struct{ Text string }

func (e *CancelError) Error() string { return e.Text }

// Cancelled says that somebody ended a run before it was decided.
type Cancelled struct{ Run, By string }

func (e *Cancelled) Error() string {
	return fmt.Sprintf("run %s was cancelled by %s; nothing was published", e.Run, e.By)
}

// live is a run under way, as others than its pusher may see and end it.
type live struct {
	lake lake.Name
	id   string
	who  string
	feed *feed
	end  context.CancelCauseFunc

	mu     sync.Mutex
	by     *Cancelled // set once
	sealed bool       // it is being brought to its end, and cannot be cancelled any more
	state  lake.State // its last, once the feed has ended
}

// seal makes the end of the run its own affair: what follows, refs among it, is
// done as a whole. It returns who cancelled the run before, if somebody did.
func (l *live) seal() *Cancelled {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sealed = true
	return l.by
}

// cancel ends the run's sandboxes, unless the run is at its end already.
func (l *live) cancel(by string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.by != nil:
		return nil // somebody else was first; it ends all the same
	case l.sealed:
		return &CancelError{fmt.Sprintf("run %s has been decided and is ending; it cannot be cancelled any more", l.id)}
	}
	l.by = &Cancelled{Run: l.id, By: by}
	l.end(l.by)
	return nil
}

// enlist makes a run visible to Watch and Cancel. The context that it returns
// ends with a *Cancelled as its cause if the run is cancelled.
func (g *Gate) enlist(ctx context.Context, rq *request, id string) (context.Context, *live) {
	ctx, end := context.WithCancelCause(ctx)
	l := &live{lake: rq.lake.Name, id: id, who: rq.who.Name, feed: newFeed(), end: end}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live[id] = l
	return ctx, l
}

// dismiss ends what enlist began. The run's last state is in its journal.
func (g *Gate) dismiss(l *live, state lake.State) {
	l.end(nil)
	l.mu.Lock()
	l.state = state
	l.mu.Unlock()
	l.feed.close()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.live, l.id)
}

func (g *Gate) underWay(l *lake.Lake, id string) (*live, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if run := g.live[id]; run != nil && run.lake == l.Name {
		return run, nil
	}
	return nil, fmt.Errorf("run %q: %w", id, ErrNotUnderWay)
}

// Newest returns the id of the run under way in a lake that began last, "" if
// there is none.
func (g *Gate) Newest(l *lake.Lake) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	newest := ""
	for id, run := range g.live {
		if run.lake == l.Name && cmp.Compare(id, newest) > 0 {
			newest = id
		}
	}
	return newest
}

// Watch writes what a run has said to its pusher from the beginning, and what it
// says until it ends, and returns its last state. However slow w is, the run
// does not wait for it. For a run that is not under way it returns an error that
// wraps ErrNotUnderWay.
func (g *Gate) Watch(ctx context.Context, l *lake.Lake, id string, w io.Writer) (lake.State, error) {
	run, err := g.underWay(l, id)
	if err != nil {
		return "", err
	}
	if err := run.feed.follow(ctx, w); err != nil {
		return "", err
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.state, nil
}

// Cancel ends a run: its sandboxes are killed at once and nothing is published. It
// returns when the run is over, or ctx. Only the run's pusher and administrators
// may; an error for whoever asked is a *CancelError or wraps ErrNotUnderWay.
func (g *Gate) Cancel(ctx context.Context, l *lake.Lake, id string, who Identity) error {
	run, err := g.underWay(l, id)
	if err != nil {
		return err
	}
	if !who.Admin && who.Name != run.who {
		return &CancelError{fmt.Sprintf("run %s is %s's; only they and administrators may cancel it, and you are %s", id, run.who, who.Name)}
	}
	if err := run.cancel(who.Name); err != nil {
		return err
	}
	return run.feed.follow(ctx, io.Discard)
}

// maxFeed bounds what is kept of a run's words for those who watch it, in bytes.
const maxFeed = 8 << 20

// feed is a text that grows, and any number of readers that follow it, each at
// its own pace. It is safe for concurrent use.
type feed struct {
	mu      sync.Mutex
	text    []byte // what is there is never changed, so readers may hold on to it
	full    bool
	ended   bool
	changed chan struct{} // closed and replaced at each change
}

func newFeed() *feed { return &feed{changed: make(chan struct{})} }

// Write takes p and returns at once. It never fails.
func (f *feed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.full || f.ended:
		return len(p), nil
	case len(f.text)+len(p) > maxFeed:
		f.full = true
		f.text = append(f.text, "(the rest is in the run record)\n"...)
	default:
		f.text = append(f.text, p...)
	}
	f.signal()
	return len(p), nil
}

// close ends the text.
func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.signal()
}

func (f *feed) signal() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// follow copies the text to w until it ends or ctx does.
func (f *feed) follow(ctx context.Context, w io.Writer) error {
	for at := 0; ; {
		f.mu.Lock()
		text, ended, changed := f.text, f.ended, f.changed
		f.mu.Unlock()
		if at < len(text) {
			n, err := w.Write(text[at:])
			if at += n; err != nil {
				return err
			}
			continue
		}
		if ended {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
