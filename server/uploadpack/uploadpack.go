// Package uploadpack serves clone and fetch: git's protocol v0, v1 and v2, over
// a stateful connection or in requests that stand alone, as smart HTTP has them.
// It reads a lake's objects and refs and changes nothing; who may read is decided
// before it is called, save for the AllowWant hook.
//
// The protocol is that of git's gitprotocol-v2(5) and gitprotocol-pack(5).
// Where the documents are silent, it does as git's own upload-pack does.
package uploadpack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/server/pktline"
)

// Refs is what is read of a lake's refs.
type Refs interface {
	Get(ctx context.Context, name refs.Name) (refs.OID, error)
	List(ctx context.Context, prefix string) ([]refs.Ref, error)
}

// Server serves fetches from one lake. Its fields are not changed after the
// first Serve; it is safe for concurrent use.
type Server struct {
	Objects objects.Reader
	Refs    Refs
	Head    refs.Name // what HEAD is a symbolic ref to, whether or not it exists
	Agent   string    // "headgate/1.2"

	// Hidden are namespaces, each ending in a slash, whose refs are not
	// advertised. Protocol v2 lists them to a client that asks with a prefix
	// that reaches into the namespace; so "git fetch origin refs/runs/<id>" works.
	Hidden []string

	// AllowWant, if set, may refuse an object that a client wants by its oid.
	// The text of its error is shown to the client.
	AllowWant func(ctx context.Context, oid objects.OID) error

	KeepAlive time.Duration // of silence before an empty packet is sent; 5 s if zero

	// SessionID, if not empty, is advertised as the capability session-id, so that
	// a user can say which session the server's log should be read for. It has no
	// blanks. Clients that are set to (transfer.advertiseSID) tell theirs in turn,
	// which is given to ClientSession if that is set.
	SessionID     string
	ClientSession func(id string)
}

const defaultKeepAlive = 5 * time.Second

// RequestError is a request that is refused. Its text is for the client.
type RequestError struct{ Text string }

func (e *RequestError) Error() string { return e.Text }

func requestErrorf(format string, args ...any) error {
	return &RequestError{Text: fmt.Sprintf(format, args...)}
}

// internalText is what a client sees of a fault of the server.
const internalText = "the server could not read its store; its log says why"

// Serve speaks with one client until it has what it wants. version is the
// protocol the client asked for: 0, 1 or 2. A client that hangs up where the
// protocol lets it is no error. A refusal is sent to the client and returned as
// a *RequestError; for any other error the client gets a safe sentence.
func (s *Server) Serve(ctx context.Context, version int, r io.Reader, w io.Writer) error {
	c := s.conn(r, w)
	if version >= 2 {
		return c.end(c.serveV2(ctx), r)
	}
	return c.end(c.serveV0(ctx, version), r)
}

// Advertise writes what a client reads before its first stateless request: the
// capabilities of protocol v2, or the refs of v0 and v1.
func (s *Server) Advertise(ctx context.Context, version int, w io.Writer) error {
	c := s.conn(eof{}, w)
	c.stateless = true
	if version >= 2 {
		c.advertiseV2()
		return c.flush()
	}
	return c.end(c.advertiseV0(ctx, version), eof{})
}

// Respond answers one stateless request (git's --stateless-rpc): in protocol v2
// one command, in v0 and v1 wants, all that was common in earlier rounds and some
// more haves. Errors are those of Serve.
func (s *Server) Respond(ctx context.Context, version int, r io.Reader, w io.Writer) error {
	c := s.conn(r, w)
	c.stateless = true
	if version >= 2 {
		_, err := c.command(ctx)
		return c.end(err, r)
	}
	return c.end(c.answerV0(ctx), r)
}

// eof is what a client sends to whom nothing is asked.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

func (s *Server) conn(r io.Reader, w io.Writer) *conn {
	c := &conn{
		Server: s,
		in:     pktline.NewReader(bufio.NewReaderSize(r, 64<<10)),
		direct: w,
		raw:    bufio.NewWriterSize(w, 64<<10),
	}
	c.out = pktline.NewWriter(c.raw)
	return c
}

// end sends what is left, or tells the client of err, and returns what went wrong.
func (c *conn) end(err error, r io.Reader) error {
	if err == nil {
		return c.flush()
	}
	if errors.Is(err, pktline.ErrLimit) {
		err = requestErrorf("the request has more than %d bytes", maxRequest)
	}
	if !c.muxed {
		// If the client has gone this fails as well; err says more.
		_ = c.out.ErrorLine(clientText(err))
		if c.flush() == nil {
			drain(r)
		}
	}
	return err
}

// After a refusal the rest of the request is read and dropped, within these
// bounds: a client that dies of a broken pipe does not show the reason.
const (
	drainBytes = 64 << 20
	drainTime  = 5 * time.Second
)

func drain(r io.Reader) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.CopyN(io.Discard, r, drainBytes) // the answer is out; nothing depends on this
	}()
	select {
	case <-done:
	case <-time.After(drainTime): // closing the session ends the goroutine
	}
}

// clientText returns what the client is told of err.
func clientText(err error) string {
	var re *RequestError
	switch {
	case errors.As(err, &re):
		return re.Text
	case errors.Is(err, pktline.ErrLength):
		return "malformed packet line"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the request ends too early"
	}
	return internalText
}

// conn is one client's conversation.
type conn struct {
	*Server
	in     *pktline.Reader
	direct io.Writer     // to the client; side bands write whole packets to it
	raw    *bufio.Writer // to the client, for everything else
	out    *pktline.Writer
	muxed  bool // side bands have begun: errors go to band 3

	stateless bool // this request is all of the conversation
}

func (c *conn) flush() error {
	if err := c.out.Err(); err != nil {
		return err
	}
	return c.raw.Flush()
}

func (c *conn) serveV2(ctx context.Context) error {
	c.advertiseV2()
	for {
		if err := c.flush(); err != nil {
			return err
		}
		if more, err := c.command(ctx); err != nil || !more {
			return err
		}
	}
}

func (c *conn) advertiseV2() {
	for _, line := range []string{
		"version 2",
		"agent=" + c.Agent,
		"ls-refs=unborn",
		"fetch=shallow wait-for-done filter ref-in-want",
		"server-option",
		"object-format=sha1",
		"object-info",
	} {
		_ = c.out.Line("%s", line) // the writer keeps its first error for flush
	}
	if c.SessionID != "" {
		_ = c.out.Line("session-id=%s", c.SessionID)
	}
	_ = c.out.Flush()
}

// command answers one command; more is false at the client's orderly end.
func (c *conn) command(ctx context.Context) (more bool, err error) {
	c.in.Limit(maxRequest)
	cmd, args, err := c.readCommand()
	if err != nil || cmd == "" {
		return false, err
	}
	switch cmd {
	case "ls-refs":
		err = c.lsRefs(ctx, args)
	case "fetch":
		err = c.fetchV2(ctx, args)
	case "object-info":
		err = c.objectInfo(ctx, args)
	default:
		err = requestErrorf("unknown command %q", clip(cmd))
	}
	return true, err
}

// clientSession passes on what a client calls its session, as far as a log can have it.
func (s *Server) clientSession(id string) {
	if s.ClientSession != nil && id != "" {
		s.ClientSession(clip(id))
	}
}

// Bounds of one request. They are far above what a client needs (a lazy fetch
// may want every part of a large table at once) and keep a hostile one small.
const (
	maxCapabilities = 256
	maxArguments    = 1 << 20
	maxRequest      = 64 << 20 // bytes: as many wants as there may be lines
)

// readCommand reads a v2 request up to its flush packet. An empty command is
// the client's orderly end.
func (c *conn) readCommand() (string, []string, error) {
	kind, line, err := c.in.Line()
	if err == io.EOF || err == nil && kind == pktline.Flush {
		return "", nil, nil
	}
	cmd := ""
	for n := 0; ; n++ {
		if err != nil {
			return "", nil, err
		}
		if kind != pktline.Data {
			break
		}
		if n == maxCapabilities {
			return "", nil, requestErrorf("more than %d capability lines", maxCapabilities)
		}
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "command":
			if cmd != "" || value == "" {
				return "", nil, requestErrorf("a request needs exactly one command")
			}
			cmd = value
		case "agent", "server-option":
		case "session-id":
			c.clientSession(value)
		case "object-format":
			if value != "sha1" {
				return "", nil, requestErrorf("object format %q is not offered; this server speaks sha1", clip(value))
			}
		default:
			return "", nil, requestErrorf("unknown capability %q", clip(key))
		}
		kind, line, err = c.in.Line()
	}
	if cmd == "" {
		return "", nil, requestErrorf("no command requested")
	}
	if kind == pktline.Flush {
		return cmd, nil, nil
	}
	if kind != pktline.Delim {
		return "", nil, requestErrorf("unexpected %s packet", kind)
	}
	args, err := readArguments(c.in)
	return cmd, args, err
}

func readArguments(in *pktline.Reader) ([]string, error) {
	var args []string
	for {
		kind, line, err := in.Line()
		if err != nil {
			return nil, err
		}
		switch {
		case kind == pktline.Flush:
			return args, nil
		case kind != pktline.Data:
			return nil, requestErrorf("unexpected %s packet", kind)
		case len(args) == maxArguments:
			return nil, requestErrorf("more than %d lines in one request", maxArguments)
		}
		args = append(args, line)
	}
}

// hidden reports whether name is in a hidden namespace.
func (s *Server) hidden(name string) bool {
	return slices.ContainsFunc(s.Hidden, func(ns string) bool { return strings.HasPrefix(name, ns) })
}

// reachesHidden reports whether a prefix names something inside a hidden namespace.
func (s *Server) reachesHidden(prefix string) bool {
	return slices.ContainsFunc(s.Hidden, func(ns string) bool {
		return len(prefix) > len(ns) && strings.HasPrefix(prefix, ns)
	})
}
