// Package server is the endpoint for SSH and HTTP: it authenticates by public key,
// or by a token that stands for one, speaks the git protocols for clone, fetch and
// push, and, over SSH, runs a handful of commands.
// What a push may do is the gate's business; how lakes are kept is not known here.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/lineage"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/server/receivepack"
	"github.com/headgate/headgate/server/token"
)

// Keys says whose a public key is.
type Keys interface {
	Lookup(key gossh.PublicKey) (hooks.Identity, bool)
}

// Lakes is the directory of lakes. Errors wrap lake.ErrNotFound and lake.ErrExists.
type Lakes interface {
	Open(ctx context.Context, name lake.Name) (*lake.Lake, error)
	Create(ctx context.Context, name lake.Name) (*lake.Lake, error)
	Remove(ctx context.Context, name lake.Name) error
	List(ctx context.Context) ([]lake.Name, error)
}

// Querier answers questions about a lake. An error for the asker is a *hooks.QueryError.
type Querier interface {
	Query(ctx context.Context, l *lake.Lake, q hooks.Question, w io.Writer) error
	// Lineage draws what a table was made from.
	Lineage(ctx context.Context, l *lake.Lake, q hooks.LineageQuestion) (*lineage.Graph, error)
}

// Differ compares two states of a lake's tables. An error for the asker is a *hooks.QueryError.
type Differ interface {
	Diff(ctx context.Context, l *lake.Lake, q hooks.DiffQuestion, w io.Writer) error
}

// Runs lets others than its pusher see a run and end it. Errors of runs that are
// over wrap hooks.ErrNotUnderWay.
type Runs interface {
	// Newest returns the id of the run under way that began last, "" if there is none.
	Newest(l *lake.Lake) string
	// Watch writes what a run says until it ends, and returns its last state.
	Watch(ctx context.Context, l *lake.Lake, id string, w io.Writer) (lake.State, error)
	// Cancel ends a run and returns when it is over. An error for the asker is a *hooks.CancelError.
	Cancel(ctx context.Context, l *lake.Lake, id string, who hooks.Identity) error
}

// Replayer replays gate commits. An error for the asker is a *hooks.QueryError.
type Replayer interface {
	Replay(ctx context.Context, l *lake.Lake, q hooks.ReplayQuestion) (*hooks.ReplayReport, error)
}

// Policies explains who may do what. An error for the asker is a *hooks.QueryError.
type Policies interface {
	TestPolicy(ctx context.Context, l *lake.Lake, asker hooks.Identity, asked hooks.PolicyAsked) (*hooks.PolicyReport, error)
}

// Tokens are what stands for a key over HTTP. Errors wrap token.ErrUnknown and
// token.ErrExpired; one for the asker is a *token.Error.
type Tokens interface {
	Create(t token.Token, now time.Time) (secret string, made token.Token, err error)
	Verify(secret string, now time.Time) (token.Token, error)
	NoteUse(t token.Token, now time.Time) error
	List() ([]token.Token, error)
	Revoke(id string) error
}

// Config is what a Server is made of. All fields without a default are needed.
type Config struct {
	HostKey  gossh.Signer
	Keys     Keys
	Lakes    Lakes
	Gate     receivepack.Gate
	Querier  Querier
	Differ   Differ
	Replayer Replayer
	Policies Policies
	Runs     Runs
	Tokens   Tokens
	Audit    AuditLog   // nil keeps none
	House    *lake.Lake // whose audit log is the server's own; nil if there is none
	Logger   *slog.Logger

	Version string           // of the program
	URL     string           // what users put before a lake's name: "ssh://host:2222/"
	SSH     string           // how users call the server: "ssh -p 2222 host"
	HTTP    string           // what they put there over HTTP: "https://host:8080/"; "" speaks no git over HTTP
	NoHTTP  string           // why HTTP is "", for those who try
	GateKey string           // the allowed-signers line that gate commits verify with
	Head    string           // the branch that HEAD names; default "main"
	Limits  objects.Limits   // of one push; zero fields take their defaults
	Staging *objects.Staging // the disk that pushes on their way in may take together; nil is no bound
	Pace    receivepack.Pace // how slowly a push may come; zero fields take their defaults

	MaxConnections   int           // at once, over SSH and over HTTP each; default 512. Nobody has more than half of them
	MaxUserSessions  int           // of one user at once, commands and HTTP requests; default 256
	HandshakeTimeout time.Duration // until a session has begun; default 30 s
	IdleTimeout      time.Duration // without a byte in either direction; default 15 min
	KeepAlive        time.Duration // of silence in a git session before an empty packet; default 5 s
}

// hiddenRefs are served when asked for by name, never advertised, and written
// by the server only.
var hiddenRefs = []string{"refs/scratch/", "refs/runs/", auditRefs}

// postedRefs are pushed to, and written by the server only.
var postedRefs = []string{"refs/approvals/"}

// maxSessions bounds the sessions of one connection, as sshd's MaxSessions does.
const maxSessions = 10

// maxAuthTries is above sshd's 6: agents with many keys are common, and an
// offered key costs one look-up.
const maxAuthTries = 20

// Server serves lakes over SSH and HTTP. It is safe for concurrent use.
type Server struct {
	cfg Config
	ssh *ssh.Server
	web *http.Server

	failed   throttle              // log-ins over HTTP
	sessions *shares[string]       // of users, over SSH and HTTP
	holders  *shares[string]       // users, of SSH connections
	knocking *shares[netip.Prefix] // addresses, of SSH connections without a session so far

	// lifetime ends when Shutdown has run out of patience. Pushes live in it,
	// not in their client's connection.
	lifetime context.Context
	end      context.CancelFunc

	mu        sync.Mutex
	phase     phase
	listeners map[net.Listener]struct{}
	conns     map[net.Conn]struct{}
	replaying map[string]bool // users with a replay under way
	active    int             // sessions being handled
	idle      chan struct{}   // closed when draining and active is 0
}

type phase int

const (
	starting phase = iota
	ready
	draining
)

func (p phase) String() string { return [...]string{"starting", "ready", "draining"}[p] }

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("server is closed")

// New returns a server that is not listening yet.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.HostKey == nil, cfg.Keys == nil, cfg.Lakes == nil, cfg.Gate == nil, cfg.Querier == nil, cfg.Differ == nil, cfg.Replayer == nil, cfg.Policies == nil, cfg.Runs == nil,
		cfg.Tokens == nil, cfg.Logger == nil:
		return nil, errors.New("server: a host key, keys, lakes, a gate, a querier, a differ, a replayer, runs, tokens and a logger are needed")
	}
	cfg.Version = or(cfg.Version, "unknown")
	cfg.URL = or(cfg.URL, "ssh://<this host>/")
	cfg.SSH = or(cfg.SSH, "ssh <this host>")
	cfg.Head = or(cfg.Head, "main")
	cfg.MaxConnections = or(cfg.MaxConnections, 512)
	cfg.MaxUserSessions = or(cfg.MaxUserSessions, 256)
	cfg.HandshakeTimeout = or(cfg.HandshakeTimeout, 30*time.Second)
	cfg.IdleTimeout = or(cfg.IdleTimeout, 15*time.Minute)
	cfg.KeepAlive = or(cfg.KeepAlive, 5*time.Second)
	s := &Server{
		cfg:       cfg,
		listeners: map[net.Listener]struct{}{},
		conns:     map[net.Conn]struct{}{},
		replaying: map[string]bool{},
		idle:      make(chan struct{}),
	}
	half := max(1, cfg.MaxConnections/2)
	s.sessions, s.holders, s.knocking = newShares[string](cfg.MaxUserSessions), newShares[string](half), newShares[netip.Prefix](half)
	s.lifetime, s.end = context.WithCancel(context.Background())
	s.ssh = s.endpoint()
	s.web = s.newWeb()
	return s, nil
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Serve takes connections from l until Shutdown. It closes l and always returns
// an error, ErrClosed after Shutdown.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.phase == draining {
		s.mu.Unlock()
		return ErrClosed
	}
	s.phase = ready
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	for {
		conn, err := l.Accept()
		if err != nil {
			if s.state() == draining {
				return ErrClosed
			}
			if retryable(err) {
				// Out of file descriptors, say: a full server must not become a dead one.
				s.cfg.Logger.Warn("cannot accept", "err", err)
				select {
				case <-time.After(100 * time.Millisecond):
				case <-s.lifetime.Done():
				}
				continue
			}
			return fmt.Errorf("accept: %w", err)
		}
		if !s.admit(conn) {
			conn.Close()
			continue
		}
		go s.connection(conn)
	}
}

// retryable tells a failure of one accept from the end of the listener.
func retryable(err error) bool { return !errors.Is(err, net.ErrClosed) }

func (s *Server) admit(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != ready {
		return false
	}
	if len(s.conns) >= s.cfg.MaxConnections {
		s.cfg.Logger.Warn("connection refused: too many", "limit", s.cfg.MaxConnections, "from", conn.RemoteAddr())
		return false
	}
	if !s.knocking.take(network(conn.RemoteAddr().String())) {
		s.cfg.Logger.Warn("connection refused: too many from one address that have not logged in", "limit", s.knocking.limit, "from", conn.RemoteAddr())
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *Server) connection(conn net.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	defer s.recovered("connection", conn.RemoteAddr())
	g := s.newGuard(conn)
	defer g.end()
	defer conn.Close()
	s.ssh.HandleConn(g)
}

// begin counts a session in; it is refused while the server drains.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != ready {
		return false
	}
	s.active++
	return true
}

func (s *Server) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	if s.phase == draining && s.active == 0 {
		close(s.idle)
	}
}

func (s *Server) state() phase {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase
}

// afterEnd is how long sessions that were told to stop are waited for, so that
// the stores they use are not closed under them.
const afterEnd = 10 * time.Second

// Shutdown takes no more connections and sessions, lets those in flight end, the
// runs of pushers who have gone included, and closes all connections. When ctx
// is done it stops what is left and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	var errs []error
	if s.phase != draining {
		s.phase = draining
		if s.active == 0 {
			close(s.idle)
		}
	}
	for l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
		delete(s.listeners, l)
	}
	s.mu.Unlock()

	select {
	case <-s.idle:
	case <-ctx.Done():
		errs = append(errs, ctx.Err())
	}
	s.end()
	s.mu.Lock()
	for conn := range s.conns {
		conn.Close() // the client has its answer, or is not going to get one
	}
	s.mu.Unlock()
	if err := s.web.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		errs = append(errs, err)
	}
	select {
	case <-s.idle:
	case <-time.After(afterEnd):
		errs = append(errs, errors.New("some sessions did not stop"))
	}
	return errors.Join(errs...)
}

// recovered is deferred around everything that handles foreign bytes: a defect
// met by one client is not the end of the others.
func (s *Server) recovered(what string, from net.Addr) {
	if v := recover(); v != nil {
		s.cfg.Logger.Error("panic", "in", what, "from", from, "value", v, "stack", stack())
	}
}
