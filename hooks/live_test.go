package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/refs"
)

// sleeper is a Python model that says something and then waits for its end.
type sleeper struct {
	began chan struct{} // closed when it waits
	wake  chan struct{} // closed to let it go on
}

func (f *sleeper) answer(ctx context.Context, job sandbox.Job) (*protocol.Answer, error) {
	switch job.Order.Op {
	case protocol.OpDeclare:
		return &protocol.Answer{Declared: []protocol.Declaration{{
			Path: "models/slow.py", Line: 1, Function: "slow", Kind: "model", Name: "slow", Inputs: []protocol.DeclaredInput{{Param: "one", Table: "one"}},
		}}}, nil
	case protocol.OpPyModel:
		if _, err := io.WriteString(job.Log, "half of it is done\n"); err != nil {
			return nil, err
		}
		close(f.began)
		select {
		case <-f.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx) // as a sandbox that was killed
		}
		return &protocol.Answer{Rows: 1}, job.Files("output.parquet", 8, strings.NewReader("PAR1PAR1"))
	case protocol.OpCut:
		part := []byte("PAR1 slow PAR1")
		return &protocol.Answer{Snapshot: new(scripted).oneColumn("part-0")}, job.Files("part-0", int64(len(part)), bytes.NewReader(part))
	}
	return nil, fmt.Errorf("unscripted order %q", job.Order.Op)
}

// slowly is a rig with a run under way whose model waits. The run's error comes
// from the channel when it has ended.
func slowly(t *testing.T) (*rig, *sleeper, <-chan error) {
	t.Helper()
	r := newRig(t)
	f := &sleeper{began: make(chan struct{}), wake: make(chan struct{})}
	r.boxes.python = f.answer
	r.must(r.toMain(base()))
	old := r.tip(mainRef)
	oid, q := r.commit(with(base(), "models/slow.py", "# a function", "models/one.sql", "SELECT n, n FROM src"), old)
	ended := make(chan error, 1)
	go func() {
		ended <- r.push(q, nil, false, refs.Update{Name: mainRef, Old: old, New: oid})[0].Err
	}()
	select {
	case <-f.began:
	case err := <-ended:
		t.Fatalf("the run ended: %v\n%s", err, r.out.String())
	}
	return r, f, ended
}

// page is a writer that can be read while it is written.
type page struct {
	mu   sync.Mutex
	text bytes.Buffer
	grew chan struct{}
}

func newPage() *page { return &page{grew: make(chan struct{}, 1)} }

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.grew <- struct{}{}:
	default:
	}
	return p.text.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// until waits for a text.
func (p *page) until(t *testing.T, text string) {
	t.Helper()
	for deadline := time.After(10 * time.Second); !strings.Contains(p.String(), text); {
		select {
		case <-p.grew:
		case <-deadline:
			t.Fatalf("%q did not come; there is\n%s", text, p.String())
		}
	}
}

type watching struct {
	state lake.State
	err   error
}

func (r *rig) watch(ctx context.Context, id string, w io.Writer) <-chan watching {
	out := make(chan watching, 1)
	go func() {
		state, err := r.gate.Watch(ctx, r.lake, id, w)
		out <- watching{state, err}
	}()
	return out
}

func TestRunIsWatched(t *testing.T) {
	r, f, ended := slowly(t)
	id := r.gate.Newest(r.lake)
	first, late := newPage(), newPage()
	a := r.watch(t.Context(), id, first)
	first.until(t, "slow | half of it is done")
	// Who comes late reads it from the beginning.
	b := r.watch(t.Context(), id, late)
	late.until(t, "judges")
	// Who stops reading keeps nobody waiting.
	stuck, release := io.Pipe()
	defer stuck.Close()
	r.watch(t.Context(), id, release)
	gone, leave := context.WithCancel(t.Context())
	c := r.watch(gone, id, newPage())
	leave()
	if w := <-c; w.err == nil {
		t.Error("a watcher that left was told of an end")
	}

	close(f.wake)
	r.must(<-ended)
	for _, w := range []watching{<-a, <-b} {
		if w.err != nil || w.state != lake.Published {
			t.Errorf("a watcher was told %q, %v; want published", w.state, w.err)
		}
	}
	if first.String() != r.out.String() || late.String() != r.out.String() {
		t.Errorf("watchers read\n%s\nand\n%s\nthe pusher read\n%s", first, late, r.out.String())
	}
	if r.gate.Newest(r.lake) != "" {
		t.Error("a run that is over is still under way")
	}
	if _, err := r.gate.Watch(t.Context(), r.lake, id, io.Discard); !errors.Is(err, ErrNotUnderWay) {
		t.Errorf("watch a run that is over: %v, want ErrNotUnderWay", err)
	}
}

func TestRunIsCancelled(t *testing.T) {
	r, f, ended := slowly(t)
	tip := r.tip(mainRef)
	id := r.gate.Newest(r.lake)
	seen := newPage()
	w := r.watch(t.Context(), id, seen)
	var refused *CancelError
	if err := r.gate.Cancel(t.Context(), r.lake, id, Identity{Name: "bob"}); !errors.As(err, &refused) || !strings.Contains(err.Error(), "ada's") {
		t.Errorf("cancel another's run: %v, want a refusal that names whose it is", err)
	}
	other, err := r.lakes.Create(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.gate.Cancel(t.Context(), other, id, Identity{Name: "ada"}); !errors.Is(err, ErrNotUnderWay) {
		t.Errorf("cancel it in another lake: %v, want ErrNotUnderWay", err)
	}
	if err := r.gate.Cancel(t.Context(), r.lake, id, Identity{Name: "root", Admin: true}); err != nil {
		t.Fatal(err)
	}
	var cancelled *Cancelled
	if err := <-ended; !errors.As(err, &cancelled) || cancelled.By != "root" || !strings.Contains(err.Error(), "cancelled by root") {
		t.Errorf("the pusher is told %v", err)
	}
	if got := <-w; got.state != lake.Cancelled || got.err != nil {
		t.Errorf("the watcher is told %q, %v; want cancelled", got.state, got.err)
	}
	if !strings.Contains(seen.String(), "CANCELLED by root. main is unchanged") {
		t.Errorf("the watcher reads\n%s", seen)
	}
	if r.tip(mainRef) != tip {
		t.Error("main moved")
	}
	rec := r.record(lake.Cancelled)
	if len(rec.Reasons) != 1 || rec.Reasons[0] != "cancelled by root" || rec.Models[len(rec.Models)-2].Status != "stopped" && rec.Models[len(rec.Models)-1].Status != "stopped" {
		t.Errorf("record: reasons %q, models %+v", rec.Reasons, rec.Models)
	}
	if log := r.read(r.tip(refs.Name(runsPrefix+id)), "logs/slow.log"); log != "half of it is done\n" {
		t.Errorf("the log is %q", log)
	}
	if err := r.gate.Cancel(t.Context(), r.lake, id, Identity{Name: "ada"}); !errors.Is(err, ErrNotUnderWay) {
		t.Errorf("cancel it again: %v, want ErrNotUnderWay", err)
	}

	// What was done is not done again.
	f.began, f.wake = make(chan struct{}), make(chan struct{})
	close(f.wake)
	r.boxes.took(protocol.OpModel)
	r.must(r.toMain(with(base(), "models/slow.py", "# a function", "models/one.sql", "SELECT n, n FROM src")))
	if n := r.boxes.took(protocol.OpModel); n > 1 {
		t.Errorf("%d SQL models ran again after the run was cancelled, want at most the one that had not", n)
	}
}

// Once refs may move, a run is decided: it is not cancelled half-way.
func TestDecidedRunIsNotCancelled(t *testing.T) {
	ended := false
	l := &live{id: "x", who: "ada", end: func(error) { ended = true }}
	if by := l.seal(); by != nil {
		t.Fatalf("sealed as cancelled by %s", by.By)
	}
	var refused *CancelError
	if err := l.cancel("ada"); !errors.As(err, &refused) || ended {
		t.Errorf("cancel: %v, ended %t; want a refusal and nothing else", err, ended)
	}
	early := &live{id: "y", end: func(error) { ended = true }}
	if err := errors.Join(early.cancel("ada"), early.cancel("bob")); err != nil || !ended {
		t.Errorf("cancel: %v, ended %t", err, ended)
	}
	if by := early.seal(); by == nil || by.By != "ada" {
		t.Errorf("sealed as cancelled by %v, want ada", by)
	}
}

func TestFeedIsBounded(t *testing.T) {
	f := newFeed()
	line := []byte(strings.Repeat("x", 1<<20-1) + "\n")
	for range 20 {
		if _, err := f.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	f.close()
	var out bytes.Buffer
	if err := f.follow(t.Context(), &out); err != nil || out.Len() > maxFeed+100 || !strings.HasSuffix(out.String(), "in the run record)\n") {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
}

func TestSpeechIsBoundedOnTheTerminalAndWholeInTheRecord(t *testing.T) {
	r := newRig(t)
	var out bytes.Buffer
	now := time.Unix(0, 0)
	begin := func(limit int64) *speech {
		s := (&run{gate: r.gate, say: newReporter(&out)}).listen("m", limit)
		s.now = func() time.Time { return now }
		return s
	}
	s := begin(1 << 20)
	for i := range 100 { // at once
		fmt.Fprintf(s.sink().Log, "line %d\n", i)
	}
	now = now.Add(time.Second)
	s.note("a note\x1b[31m")
	fmt.Fprint(s.sink().Log, "50%\r\x1b[1;32m100%\x1b[0m\x1b]0;title\x07\rno newline")
	kept := string(s.close())
	if n := strings.Count(out.String(), "m | line "); n != saidBurst {
		t.Errorf("%d lines at once, want %d:\n%s", n, saidBurst, out.String())
	}
	for _, want := range []string{"m | ... 40 line(s) left out, 280 bytes", "m | a note?[31m\n", "m | 50%\n", "m | 100%?]0;title?\n", "m | no newline\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing:\n%s", want, out.String())
		}
	}
	if !strings.HasSuffix(kept, "line 99\n50%\r\x1b[1;32m100%\x1b[0m\x1b]0;title\x07\rno newline") || strings.Count(kept, "\n") != 100 {
		t.Errorf("kept: %q", kept)
	}

	// A flood is told of in groups, not line by line.
	out.Reset()
	s = begin(1 << 20)
	for range 4000 {
		now = now.Add(time.Millisecond)
		fmt.Fprintln(s.sink().Log, "flood")
	}
	s.close()
	if told, left := strings.Count(out.String(), "| flood\n"), strings.Count(out.String(), "left out"); told < 100 || told > 200 || left > 12 {
		t.Errorf("of a flood: %d lines, and %d times that some were left out", told, left)
	}

	out.Reset()
	s = begin(300_000)
	for range 5000 {
		now = now.Add(time.Second)
		fmt.Fprintln(s.sink().Log, strings.Repeat("long ", 500))
	}
	kept = string(s.close())
	if out.Len() > saidBytes+2000 || !strings.Contains(out.String(), "left out") || !strings.Contains(out.String(), "long…\n") || !strings.Contains(out.String(), "cut at its limit") {
		t.Errorf("%d bytes on the terminal: %s", out.Len(), out.String()[max(0, out.Len()-1000):])
	}
	if len(kept) > 300_100 || !strings.HasSuffix(kept, "\n[log cut at its limit of 300000 bytes]\n") {
		t.Errorf("kept %d bytes: %q", len(kept), kept[max(0, len(kept)-80):])
	}
}
