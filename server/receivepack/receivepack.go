// Package receivepack takes pushes: git's protocol v0 and v1, over a stateful
// connection or in requests that stand alone, as smart HTTP has them. It brings
// the objects into quarantine, checks what the protocol lets it check, and hands
// the push to the gate; whether a ref may move, and by whom, is the gate's to say.
package receivepack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/server/pktline"
)

// Gate decides what becomes of a push.
type Gate interface {
	// Receive returns one outcome for each update, in order. It migrates the
	// push's objects if it moves a ref to them.
	Receive(ctx context.Context, p *hooks.Push) []hooks.Outcome
}

// Server takes pushes of one user to one lake. Its fields are not changed after
// the first Serve.
type Server struct {
	Lake   *lake.Lake
	Who    hooks.Identity
	Gate   Gate
	Agent  string // "headgate/1.2"
	Logger *slog.Logger

	// Hidden are namespaces, each ending in a slash, that only the server
	// writes. They are not advertised.
	Hidden []string
	// Posted are namespaces, each ending in a slash, that are pushed to as into a
	// letter box: what becomes of it is the gate's affair, so what a ref there is at is
	// not advertised and not compared with what the client takes it to be.
	Posted []string

	Limits    objects.Limits
	Staging   *objects.Staging // the disk that all pushes together may take; nil is no bound
	Pace      Pace
	KeepAlive time.Duration // of silence before an empty packet is sent; 5 s if zero

	SessionID     string          // as in package uploadpack: the capability session-id
	ClientSession func(id string) // if set, is given the client's
}

const defaultKeepAlive = 5 * time.Second

// After a refused pack the rest of it is read and dropped, up to these bounds,
// so that the client reads the report instead of dying of a broken pipe.
const (
	drainBytes = 1 << 30
	drainTime  = 20 * time.Second
)

// maxTrailing bounds what is read after the pack of a stateless push.
const maxTrailing = 1 << 20

// Serve speaks with one client. version is 0 or 1; a client that asked for more
// gets 0, as git does. ctx must not end with the client's connection: a run that
// has begun goes on when its pusher has gone, and only the reports are lost. The
// error says why the push got no report; the client was told where it could be.
func (s *Server) Serve(ctx context.Context, version int, r io.Reader, w io.Writer) error {
	if err := s.Advertise(ctx, version, w); err != nil {
		return err
	}
	return s.take(ctx, r, w, false)
}

// Advertise writes the refs and capabilities, which a client reads before it
// pushes. Without a Lake it tells of an empty one.
func (s *Server) Advertise(ctx context.Context, version int, w io.Writer) error {
	out := bufio.NewWriterSize(w, 64<<10)
	lines := pktline.NewWriter(out)
	if err := s.advertise(ctx, version, lines); err != nil {
		_ = lines.ErrorLine("the server could not read its refs; its log says why") // err says more
		return errors.Join(err, out.Flush())
	}
	return out.Flush()
}

// Respond takes one stateless push (git's --stateless-rpc): all that Serve does
// after the advertisement. It reads r to its end before the gate is asked, so
// that what the gate says need not overtake the request.
func (s *Server) Respond(ctx context.Context, r io.Reader, w io.Writer) error {
	return s.take(ctx, r, w, true)
}

func (s *Server) take(ctx context.Context, r io.Reader, w io.Writer, stateless bool) error {
	paced := newPacedReader(r, s.Pace)
	defer paced.stop()
	in := bufio.NewReaderSize(paced, 64<<10)
	out := bufio.NewWriterSize(w, 64<<10)
	lines := pktline.NewWriter(out)
	req, err := readRequest(pktline.NewReader(in))
	if err != nil {
		if errors.Is(err, pktline.ErrLimit) {
			err = requestErrorf("the refs and options of one push have more than %d bytes; push in parts", maxRequest)
		}
		var re *RequestError
		var slow *SlowError
		if errors.As(err, &re) || errors.As(err, &slow) {
			_ = lines.ErrorLine(err.Error())
			_ = out.Flush()
		}
		return err
	}
	if in.Buffered() == 0 {
		paced.rest() // the client packs its objects now
	}
	if s.ClientSession != nil && req.session != "" {
		s.ClientSession(req.session[:min(len(req.session), maxQuoted)])
	}
	if len(req.commands) == 0 {
		return nil
	}
	p := &push{Server: s, request: req, in: in, progress: io.Discard, stateless: stateless}
	if !req.sideBand {
		p.process(ctx)
		p.report(lines)
		if err := errors.Join(lines.Err(), out.Flush()); err != nil {
			return err
		}
		return p.finish()
	}

	mux := pktline.NewMux(w, pktline.MaxBand64k)
	keepAlive := s.KeepAlive
	if keepAlive == 0 {
		keepAlive = defaultKeepAlive
	}
	stop := mux.KeepAlive(pktline.BandProgress, keepAlive)
	defer stop()
	relay := newRelay(mux.Band(pktline.BandProgress))
	defer relay.Close()
	p.progress = relay
	p.process(ctx)
	relay.Close() // all progress before the report
	stop()
	band := bufio.NewWriterSize(mux.Band(pktline.BandData), pktline.MaxBand64k)
	p.report(pktline.NewWriter(band))
	if err := errors.Join(band.Flush(), mux.Flush()); err != nil {
		return fmt.Errorf("send report: %w", err)
	}
	return p.finish()
}

func (s *Server) advertise(ctx context.Context, version int, w *pktline.Writer) error {
	if version == 1 {
		_ = w.Line("version 1") // the writer keeps its first error
	}
	caps := "report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta push-options" +
		" object-format=sha1 agent=" + s.Agent
	if s.SessionID != "" {
		caps += " session-id=" + s.SessionID
	}
	var list []refs.Ref
	if s.Lake != nil {
		var err error
		if list, err = s.Lake.Refs.List(ctx, "refs/"); err != nil {
			return err
		}
	}
	first := true
	for _, ref := range list {
		switch {
		case s.hidden(string(ref.Name)), s.posted(string(ref.Name)):
			continue
		case first:
			_ = w.Line("%s %s\x00%s", ref.OID, ref.Name, caps)
		default:
			_ = w.Line("%s %s", ref.OID, ref.Name)
		}
		first = false
	}
	if first {
		_ = w.Line("%s capabilities^{}\x00%s", refs.OID{}, caps)
	}
	return w.Flush()
}

func (s *Server) hidden(name string) bool {
	return slices.ContainsFunc(s.Hidden, func(ns string) bool { return strings.HasPrefix(name, ns) })
}

func (s *Server) posted(name string) bool {
	return slices.ContainsFunc(s.Posted, func(ns string) bool { return strings.HasPrefix(name, ns) })
}

// push is one push under way.
type push struct {
	*Server
	*request
	in       *bufio.Reader
	progress io.Writer

	stateless bool // nothing may follow in the input

	unpack string // "ok", or why the pack was refused
	drain  bool   // the rest of a refused pack may still be coming
}

// reasons for "ng" that git itself uses, and its users know.
const (
	reasonUnpack = "unpacker error"
	reasonAtomic = "atomic push failure"
)

// errInternal is what the client sees of a fault of the server.
var errInternal = errors.New("the server failed; its log says why")

// process takes the pack and gives every command its outcome.
func (p *push) process(ctx context.Context) {
	q, err := p.Lake.Objects.Quarantine()
	if err != nil {
		p.Logger.Error("cannot open quarantine", "lake", p.Lake.Name, "err", err)
		p.refuseUnpack(ingestText(err))
		return
	}
	limits := p.Limits
	if p.Staging != nil {
		limits.Staging = p.Staging.Share()
		defer limits.Staging.Close()
	}
	defer func() {
		if err := q.Discard(); err != nil {
			p.Logger.Error("cannot discard quarantine", "lake", p.Lake.Name, "err", err)
		}
	}()
	if p.needsPack() {
		if _, err := q.Ingest(ctx, p.in, limits); err != nil {
			p.Logger.Warn("pack refused", "lake", p.Lake.Name, "user", p.Who.Name, "err", err)
			p.refuseUnpack(ingestText(err))
			// Whoever does not send has nothing to be waited for.
			var slow *SlowError
			p.drain = !errors.As(err, &slow)
			return
		}
	}
	if p.stateless {
		// What else there is would be no part of the push, and is passed over.
		_, _ = io.CopyN(io.Discard, p.in, maxTrailing)
	}
	if p.needsPack() {
		err := p.connected(ctx, q)
		var bad *gitobj.CheckError
		switch {
		case errors.As(err, &bad): // a file that only its name makes dangerous
			p.refuseUnpack(err)
			return
		case err != nil:
			p.unpack = "ok"
			p.refuseAll(err)
			return
		}
	}
	p.unpack = "ok"
	for _, c := range p.commands {
		if c.err == nil {
			c.err = p.check(ctx, q, c)
		}
	}
	if p.atomic && slices.ContainsFunc(p.commands, func(c *command) bool { return c.err != nil }) {
		p.refuseAll(errors.New(reasonAtomic))
		return
	}
	p.decide(ctx, q)
}

// ingestText returns what the client is told of a failed ingestion.
func ingestText(err error) error {
	var ie *objects.IngestError
	var slow *SlowError
	switch {
	case errors.As(err, &ie):
		return ie
	case errors.As(err, &slow):
		return slow
	case errors.Is(err, objects.ErrNoSpace), errors.Is(err, syscall.ENOSPC):
		return errors.New("the server has no disk space left for this push; nothing of it was kept: tell its administrator, or push again later")
	}
	return errInternal
}

func (p *push) refuseUnpack(reason error) {
	p.unpack = oneLine(reason.Error())
	p.drain = true
	for _, c := range p.commands {
		c.err = errors.New(reasonUnpack)
	}
}

func (p *push) refuseAll(reason error) {
	for _, c := range p.commands {
		if c.err == nil {
			c.err = reason
		}
	}
}

// connected checks that nothing is missing below what was pushed.
func (p *push) connected(ctx context.Context, q *objects.Quarantine) error {
	var tips []objects.OID
	for _, c := range p.commands {
		if !c.new.IsZero() {
			tips = append(tips, c.new)
		}
	}
	err := q.CheckConnected(ctx, tips)
	if err == nil {
		return nil
	}
	p.Logger.Warn("push is not connected", "lake", p.Lake.Name, "user", p.Who.Name, "err", err)
	var missing *objects.MissingError
	var bad *gitobj.CheckError
	switch {
	case errors.As(err, &bad):
		return err
	case !errors.As(err, &missing):
		return errInternal
	case missing.Actual == 0 && slices.Contains(p.shallow, missing.From):
		// Git's words, for receive.shallowUpdate=false: the store is closed, so
		// the lake would have to become shallow itself to take this.
		return fmt.Errorf("shallow update not allowed: the lake lacks history that your shallow clone has cut off at %.7s; run git fetch --unshallow and push again", missing.From)
	}
	return fmt.Errorf("missing necessary objects: %w", missing)
}

// check applies the rules that hold for every lake and every ref.
func (p *push) check(ctx context.Context, q *objects.Quarantine, c *command) error {
	if p.hidden(string(c.ref)) {
		return errors.New("only the server writes this ref")
	}
	current, err := p.Lake.Refs.Get(ctx, c.ref)
	if err != nil && !errors.Is(err, refs.ErrNotFound) {
		p.Logger.Error("cannot read ref", "lake", p.Lake.Name, "ref", c.ref, "err", err)
		return errInternal
	}
	switch {
	case p.posted(string(c.ref)):
		return nil
	case c.new.IsZero() && current.IsZero():
		return errors.New("no such ref")
	case current != c.old && current.IsZero():
		return errors.New("stale: the ref has been deleted meanwhile; fetch first")
	case current != c.old:
		return fmt.Errorf("stale: the ref is at %.7s now; fetch first", current)
	case c.new.IsZero():
		return nil
	}
	info, err := q.Stat(ctx, c.new)
	if err != nil {
		p.Logger.Error("cannot read pushed object", "lake", p.Lake.Name, "oid", c.new, "err", err)
		return errInternal
	}
	if strings.HasPrefix(string(c.ref), "refs/heads/") && info.Type != objects.Commit {
		return fmt.Errorf("a branch points at a commit, and %.7s is a %s", c.new, info.Type)
	}
	return nil
}

// decide hands what is left to the gate.
func (p *push) decide(ctx context.Context, q *objects.Quarantine) {
	var asked []*command
	var updates []refs.Update
	for _, c := range p.commands {
		if c.err == nil && c.old != c.new {
			asked = append(asked, c)
			updates = append(updates, refs.Update{Name: c.ref, Old: c.old, New: c.new})
		}
	}
	if len(asked) == 0 {
		return
	}
	outcomes := p.Gate.Receive(ctx, &hooks.Push{
		Lake: p.Lake, Who: p.Who, Updates: updates, Options: p.options,
		Atomic: p.atomic, Objects: q, Progress: p.progress,
	})
	for i, c := range asked {
		if i >= len(outcomes) || outcomes[i].Name != c.ref {
			// Whatever happened, the client must not hear "ok" of it.
			p.Logger.Error("the gate gave no outcome", "lake", p.Lake.Name, "ref", c.ref)
			c.err = errInternal
			continue
		}
		c.err, c.newOID = outcomes[i].Err, outcomes[i].NewOID
	}
}

// report writes report-status or report-status-v2.
func (p *push) report(w *pktline.Writer) {
	if !p.status && !p.statusV2 {
		return
	}
	_ = w.Line("unpack %s", p.unpack)
	for _, c := range p.commands {
		if c.err != nil {
			_ = w.Line("ng %s %s", c.name, oneLine(c.err.Error()))
			continue
		}
		_ = w.Line("ok %s", c.name)
		if p.statusV2 && !c.newOID.IsZero() {
			_ = w.Line("option new-oid %s", c.newOID)
		}
	}
	_ = w.Flush()
}

// finish waits, within bounds, for a client that is still sending a refused pack.
func (p *push) finish() error {
	if !p.drain {
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.CopyN(io.Discard, p.in, drainBytes) // the report is out; nothing depends on this
	}()
	select {
	case <-done:
	case <-time.After(drainTime): // closing the session ends the goroutine
	}
	return nil
}

// maxReason bounds a reason in a report, which is one packet line.
const maxReason = 2000

// oneLine makes a text fit for one line of a report.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "..."
	}
	return text
}
