package server

import (
	"bytes"
	"errors"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/hooks"
)

// keyExtension carries the key that authenticated, in wire format, from the
// handshake into its sessions.
const keyExtension = "headgate-key"

// sshVersion names the program in the protocol's first line.
const sshVersion = "Headgate"

// contextKey is the type of this package's keys in a connection's context.
type contextKey struct{ name string }

var guardKey = &contextKey{"guard"}

// endpoint sets up the SSH side: public keys only, sessions only, no terminal,
// no forwarding, no subsystems.
func (s *Server) endpoint() *ssh.Server {
	return &ssh.Server{
		HostSigners:      []ssh.Signer{s.cfg.HostKey},
		Version:          sshVersion,
		Handler:          s.handle,
		PublicKeyHandler: s.authenticate,
		PtyCallback:      func(ssh.Context, ssh.Pty) bool { return false },
		IdleTimeout:      s.cfg.IdleTimeout,
		ConnCallback: func(ctx ssh.Context, conn net.Conn) net.Conn {
			// Here and not in the next callback, which the library calls with a lock
			// that all connections want.
			g := conn.(*guard) // as connection made it
			p, err := prefer(g.Conn, "SSH-2.0-"+sshVersion, g.until)
			if err != nil {
				return nil // the client has gone; the library closes conn
			}
			g.Conn, g.ciphers = p, p.ciphers
			ctx.SetValue(guardKey, g)
			return g
		},
		ServerConfigCallback: func(ctx ssh.Context) *gossh.ServerConfig {
			cfg := &gossh.ServerConfig{MaxAuthTries: maxAuthTries}
			if g, ok := ctx.Value(guardKey).(*guard); ok {
				cfg.Ciphers = g.ciphers
			}
			return cfg
		},
		ConnectionFailedCallback: func(conn net.Conn, err error) {
			s.cfg.Logger.Debug("handshake failed", "from", conn.RemoteAddr(), "err", err)
		},
		ChannelHandlers:   map[string]ssh.ChannelHandler{"session": s.session},
		RequestHandlers:   map[string]ssh.RequestHandler{},
		SubsystemHandlers: map[string]ssh.SubsystemHandler{},
	}
}

// authenticate is called for every key that a client offers, before it has
// proved to own it. Each gets Permissions of its own, because those of the key
// that is proved in the end are the connection's: a value shared between the
// calls would hold the last key offered, which need not be that one (CVE-2024-45337).
func (s *Server) authenticate(ctx ssh.Context, key ssh.PublicKey) bool {
	perms := &gossh.Permissions{}
	ctx.Permissions().Permissions = perms
	if _, ok := s.cfg.Keys.Lookup(key); !ok {
		return false
	}
	perms.Extensions = map[string]string{keyExtension: string(key.Marshal())}
	return true
}

var errUnknownKey = errors.New("the key of this connection is not authorized")

// identify returns the user of a session by the key that authenticated the
// connection, as the list of keys is now: a key that was removed meanwhile opens nothing.
func (s *Server) identify(sess ssh.Session) (hooks.Identity, gossh.PublicKey, error) {
	conn, ok := sess.Context().Value(ssh.ContextKeyConn).(*gossh.ServerConn)
	if !ok || conn.Permissions == nil {
		return hooks.Identity{}, nil, errUnknownKey
	}
	key, err := gossh.ParsePublicKey([]byte(conn.Permissions.Extensions[keyExtension]))
	if err != nil {
		return hooks.Identity{}, nil, errUnknownKey
	}
	// The library's own idea of the key must be the same; else one of the two is wrong.
	if last := sess.PublicKey(); last == nil || !bytes.Equal(last.Marshal(), key.Marshal()) {
		return hooks.Identity{}, nil, errUnknownKey
	}
	who, ok := s.cfg.Keys.Lookup(key)
	if !ok {
		return hooks.Identity{}, nil, errUnknownKey
	}
	return who, key, nil
}

// session takes a session channel. It runs in a goroutine of the library's, so
// it recovers by itself.
func (s *Server) session(srv *ssh.Server, conn *gossh.ServerConn, channel gossh.NewChannel, ctx ssh.Context) {
	defer s.recovered("session", conn.RemoteAddr())
	g, ok := ctx.Value(guardKey).(*guard)
	if !ok || !g.open() {
		// A failed reject means that the client has gone.
		_ = channel.Reject(gossh.ResourceShortage, "too many sessions on one connection")
		return
	}
	defer g.close()
	if !g.hold(s.userOf(conn)) {
		_ = channel.Reject(gossh.ResourceShortage, "you have too many connections; close some")
		return
	}
	ssh.DefaultSessionHandler(srv, conn, gatedChannel{channel, g.begin}, ctx)
}

// userOf is the name of a connection's user, "" if the key is not authorized any
// more, which its sessions will be told.
func (s *Server) userOf(conn *gossh.ServerConn) string {
	if conn.Permissions == nil {
		return ""
	}
	key, err := gossh.ParsePublicKey([]byte(conn.Permissions.Extensions[keyExtension]))
	if err != nil {
		return ""
	}
	who, _ := s.cfg.Keys.Lookup(key)
	return who.Name
}

// guard bounds a connection until its first command has come, the number of its
// sessions, and those of its kind. The library sets a deadline at each read and
// write; the guard's wins.
type guard struct {
	net.Conn
	ciphers []string // to offer; nil is the library's choice
	server  *Server

	mu       sync.Mutex
	until    time.Time // zero once a command has come
	sessions int
	user     string // whose share of connections it is in; "" is nobody's so far
	ended    bool   // nothing may be taken any more
}

func (s *Server) newGuard(conn net.Conn) *guard {
	return &guard{Conn: conn, server: s, until: time.Now().Add(s.cfg.HandshakeTimeout)}
}

func (g *guard) SetDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.until.IsZero() && (t.IsZero() || t.After(g.until)) {
		t = g.until
	}
	return g.Conn.SetDeadline(t)
}

// open counts a session in.
func (g *guard) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sessions == maxSessions {
		return false
	}
	g.sessions++
	return true
}

func (g *guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sessions--
}

// hold puts the connection into its user's share, at its first session.
func (g *guard) hold(user string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.user != "" || user == "" {
		return true
	}
	if g.ended || !g.server.holders.take(user) {
		return false
	}
	g.user = user
	return true
}

// begin is called when a command has come: from now on the connection may be idle
// for longer, and its address may make others.
func (g *guard) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.until.IsZero() {
		return
	}
	g.until = time.Time{}
	g.server.knocking.give(network(g.RemoteAddr().String()))
	// The reader is waiting under the old deadline already. A failure shows at the
	// next read or write.
	_ = g.Conn.SetDeadline(time.Now().Add(g.server.cfg.IdleTimeout))
}

// end gives back what the connection holds.
func (g *guard) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	if !g.until.IsZero() {
		g.server.knocking.give(network(g.RemoteAddr().String()))
		g.until = time.Time{}
	}
	if g.user != "" {
		g.server.holders.give(g.user)
	}
}

func stack() string { return string(debug.Stack()) }
