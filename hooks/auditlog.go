package hooks

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

// AuditLog is the ref of a lake's audit log (decision 034).
const AuditLog = refs.Name("refs/audit/log")

// auditFile is what an audit log's commit holds: the events that it adds, a line each.
const auditFile = "events.jsonl"

// Bounds of the audit log.
const (
	sealAfter     = 10 * time.Second // that an event waits at most for its commit
	maxSealed     = 2_000            // events of one commit
	maxAuditBytes = 64 << 20         // of one commit's events
	maxAuditWhy   = 1_000            // bytes of one reason
	maxAuditRefs  = 1_000            // refs of one event
)

// Decisions of an audit log, beside the final states of runs.
const (
	DecisionAccepted = "accepted" // done, without a run
	DecisionRefused  = "refused"  // and no run judged it
)

// AuditEvent is one entry of an audit log: who asked for what, from where, and
// what became of it.
type AuditEvent struct {
	Time     time.Time  `json:"time"`
	Who      string     `json:"who"`
	Key      string     `json:"key,omitempty"`  // fingerprint of the key that authenticated
	From     string     `json:"from,omitempty"` // network address
	What     string     `json:"what"`           // "push", "approve", "lake create", "token revoke" ...
	On       string     `json:"on,omitempty"`   // what an administrative act was on: a secret's name, a token's id
	Refs     []AuditRef `json:"refs,omitempty"`
	Decision string     `json:"decision"`
	Why      string     `json:"why,omitempty"`
	Run      string     `json:"run,omitempty"`
}

// AuditRef is what an event asked of one ref.
type AuditRef struct {
	Name string `json:"name"`
	Old  string `json:"old"`
	New  string `json:"new"`
	Why  string `json:"why,omitempty"` // why this one was refused
}

// event begins an entry of the audit log.
func (g *Gate) event(who Identity, what, decision string, updates ...refs.Update) AuditEvent {
	e := AuditEvent{Time: g.cfg.Now().UTC(), Who: who.Name, Key: who.Fingerprint, From: who.From, What: what, Decision: decision}
	for _, u := range updates[:min(len(updates), maxAuditRefs)] {
		e.Refs = append(e.Refs, AuditRef{Name: string(u.Name), Old: u.Old.String(), New: u.New.String()})
	}
	if n := len(updates) - len(e.Refs); n > 0 {
		e.Why = fmt.Sprintf("and %d more refs", n)
	}
	return e
}

// encode returns the event for refs.Cause.
func (e AuditEvent) encode() []byte {
	e.Why = e.Why[:min(len(e.Why), maxAuditWhy)]
	data, err := json.Marshal(e)
	if err != nil {
		panic(err) // texts and times always have a JSON form
	}
	return data
}

// causeOf is a cause that has the event in its transaction: durable with the refs,
// for no fsync more. The log's commit follows within sealAfter.
func (g *Gate) causeOf(l *lake.Lake, why string, e AuditEvent) refs.Cause {
	g.sealSoon(l)
	return refs.Cause{Who: e.Who, Why: why, When: e.Time, Event: e.encode()}
}

// Record puts something that moved no ref of its own into a lake's audit log; it
// is durable when it returns. Events of one moment share their fsync.
func (g *Gate) Record(ctx context.Context, l *lake.Lake, who Identity, what, on, decision, why string) error {
	e := g.event(who, what, decision)
	e.On, e.Why = on, why
	return l.Refs.Apply(ctx, nil, g.causeOf(l, what, e))
}

// recordRefused puts the refs of a push that no run and no move tells of into the
// audit log. The push is refused whether or not that succeeds.
func (g *Gate) recordRefused(ctx context.Context, p *Push, out []Outcome) {
	var refused []refs.Update
	var why []string
	for i, o := range out {
		var rejected *Rejection
		var failed *CouldNotRun
		var cancelled *Cancelled
		if o.Err == nil || errors.As(o.Err, &rejected) || errors.As(o.Err, &failed) || errors.As(o.Err, &cancelled) {
			continue // it is there already, with its run
		}
		refused, why = append(refused, p.Updates[i]), append(why, o.Err.Error())
	}
	if len(refused) == 0 {
		return
	}
	e := g.event(p.Who, "push", DecisionRefused, refused...)
	for i := range e.Refs {
		e.Refs[i].Why = why[i][:min(len(why[i]), maxAuditWhy)]
	}
	if err := p.Lake.Refs.Apply(ctx, nil, g.causeOf(p.Lake, "push refused", e)); err != nil {
		g.cfg.Logger.Error("audit log", "lake", p.Lake.Name, "err", err)
	}
}

// runEvent is the entry of a run that ended.
func (r *run) runEvent(final lake.State, updates ...refs.Update) AuditEvent {
	e := r.gate.event(r.who, "push", string(final), updates...)
	e.Run = r.id()
	if final != lake.Published && len(r.rec.Reasons) > 0 {
		e.Why = strings.TrimSpace(e.Why + " " + r.rec.Reasons[0])
	}
	return e
}

// asked is what the run's pusher wanted of its target.
func (r *run) asked() refs.Update { return refs.Update{Name: r.target, Old: r.old, New: r.proposal} }

// sealing is the state of one lake's audit log.
type sealing struct {
	mu    sync.Mutex // held while the log's ref moves
	timer *time.Timer
}

// sealSoon makes sure that the lake's events are sealed within sealAfter, unless the
// server stops: then they wait, durable, for its next start.
func (g *Gate) sealSoon(l *lake.Lake) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sealings[l]
	if s == nil {
		s = &sealing{}
		g.sealings[l] = s
	}
	if s.timer != nil || g.ended {
		return
	}
	s.timer = time.AfterFunc(sealAfter, func() {
		g.mu.Lock()
		s.timer = nil
		if g.ended {
			g.mu.Unlock()
			return
		}
		g.runs.Add(1)
		g.mu.Unlock()
		defer g.runs.Done()
		if err := g.Seal(context.Background(), l); err != nil {
			g.cfg.Logger.Warn("audit log", "lake", l.Name, "err", err)
		}
	})
}

// endSealing stops what waits to be sealed.
func (g *Gate) endSealing() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	for _, s := range g.sealings {
		if s.timer != nil {
			s.timer.Stop()
		}
	}
}

// Seal turns the events of a lake that wait into commits of its audit log. Their
// objects are durable before the transaction that moves the ref and drops them
// from where they waited, so each is in the log once, whenever the server is killed.
func (g *Gate) Seal(ctx context.Context, l *lake.Lake) error {
	journal, ok := l.Refs.(refs.Journal)
	if !ok {
		return errors.New("the ref store keeps no events")
	}
	g.mu.Lock()
	s := g.sealings[l]
	if s == nil {
		s = &sealing{}
		g.sealings[l] = s
	}
	g.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		events, err := journal.Events(ctx, maxSealed)
		if err != nil || len(events) == 0 {
			return err
		}
		if err := g.seal(ctx, l, events); err != nil {
			return err
		}
	}
}

func (g *Gate) seal(ctx context.Context, l *lake.Lake, events []refs.Event) (err error) {
	tip, err := l.Refs.Get(ctx, AuditLog)
	if err != nil && !errors.Is(err, refs.ErrNotFound) {
		return err
	}
	q, err := l.Objects.Quarantine()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Discard()) }()
	var doc bytes.Buffer
	last := uint64(0)
	n := 0
	for _, e := range events {
		if doc.Len()+len(e.Data) > maxAuditBytes/2 && n > 0 {
			break
		}
		doc.Write(e.Data)
		doc.WriteByte('\n')
		last, n = e.Number, n+1
	}
	blob, err := q.Put(ctx, objects.Blob, int64(doc.Len()), bytes.NewReader(doc.Bytes()))
	if err != nil {
		return err
	}
	root, err := tree.Apply(ctx, q, objects.OID{}, map[string]tree.Edit{auditFile: {Mode: gitobj.ModeFile, OID: blob}})
	if err != nil {
		return err
	}
	c := &gitobj.Commit{Tree: root, Message: fmt.Sprintf("Audit log: %d event(s) up to %d\n", n, last)}
	if !tip.IsZero() {
		c.Parents = []objects.OID{tip}
	}
	commit, err := g.sign(ctx, q, c)
	if err != nil {
		return err
	}
	if err := q.Migrate(ctx); err != nil {
		return err
	}
	return l.Refs.Apply(ctx, []refs.Update{{Name: AuditLog, Old: tip, New: commit}},
		refs.Cause{Who: "headgate", Why: "audit log", When: g.cfg.Now(), Taken: last})
}

// WalkAuditLog calls fn for each event of the audit log at tip, the newest first,
// and stops at its first error. verify checks each commit's signature; nil checks
// none. The chain of commits is held by their oids.
func WalkAuditLog(ctx context.Context, r objects.Reader, tip objects.OID, verify func(*gitobj.Commit) error, fn func(AuditEvent) error) error {
	for at := tip; !at.IsZero(); {
		c, err := readCommit(ctx, r, at)
		if err != nil {
			return err
		}
		if len(c.Parents) > 1 {
			return fmt.Errorf("audit log at %s: it has %d parents, and nobody merges an audit log", at, len(c.Parents))
		}
		if verify != nil {
			if err := verify(c); err != nil {
				return fmt.Errorf("audit log at %s: %w", at, err)
			}
		}
		data, err := readFile(ctx, r, c.Tree, auditFile, maxAuditBytes)
		if err != nil {
			return fmt.Errorf("audit log at %s: %w", at, err)
		}
		var events []AuditEvent
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, maxAuditBytes)
		for lines.Scan() {
			var e AuditEvent
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return fmt.Errorf("audit log at %s: %w", at, err)
			}
			events = append(events, e)
		}
		if err := lines.Err(); err != nil {
			return err
		}
		for i := len(events) - 1; i >= 0; i-- {
			if err := fn(events[i]); err != nil {
				return err
			}
		}
		at = objects.OID{}
		if len(c.Parents) == 1 {
			at = c.Parents[0]
		}
	}
	return nil
}

// AuditEvents calls fn for each event of a lake's audit log, the newest first; what
// waits is sealed before.
func (g *Gate) AuditEvents(ctx context.Context, l *lake.Lake, fn func(AuditEvent) error) error {
	if err := g.Seal(ctx, l); err != nil {
		return err
	}
	tip, err := l.Refs.Get(ctx, AuditLog)
	if errors.Is(err, refs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return WalkAuditLog(ctx, l.Objects, tip, g.cfg.Signer.Verify, fn)
}

// Text is the event in one line, for people.
func (e AuditEvent) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-10s %-12s %s", e.Time.UTC().Format("2006-01-02 15:04:05Z"), e.Decision, e.What, e.Who)
	if e.From != "" {
		fmt.Fprintf(&b, " from %s", e.From)
	}
	if e.On != "" {
		fmt.Fprintf(&b, " on %s", e.On)
	}
	for _, r := range e.Refs {
		fmt.Fprintf(&b, " %s %s..%s", r.Name, r.Old[:min(10, len(r.Old))], r.New[:min(10, len(r.New))])
		if r.Why != "" {
			fmt.Fprintf(&b, " (%s)", r.Why)
		}
	}
	if e.Run != "" {
		fmt.Fprintf(&b, " run %s", e.Run)
	}
	if e.Why != "" {
		fmt.Fprintf(&b, ": %s", e.Why)
	}
	return printable(b.String())
}
