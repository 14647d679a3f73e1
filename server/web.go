package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Bounds of one HTTP connection. While a git service has it, Config.IdleTimeout
// holds for each read and write instead.
const (
	webHeaderTimeout = 10 * time.Second // of the TLS handshake, and of the header
	webBodyTimeout   = 10 * time.Second // of a body that nobody reads
	webWriteTimeout  = time.Minute      // of an answer that is no git service's
	webIdleTimeout   = 2 * time.Minute  // between two requests
	webMaxHeader     = 32 << 10
	webMaxStreams    = 32 // of one HTTP/2 connection
)

// HTTPAllowed returns nil if git may be spoken over HTTP at an address, else why
// not: without TLS, whoever is on the way reads tokens and tables.
func HTTPAllowed(addr net.Addr, tls bool) error {
	if tls {
		return nil
	}
	if ap, err := netip.ParseAddrPort(addr.String()); err == nil && ap.Addr().Unmap().IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s is not a loopback address, and without TLS everybody on the way could read tokens: give --tls-cert and --tls-key, or listen at 127.0.0.1", addr)
}

// secure reports whether nobody is on the way of a request. HTTPAllowed has asked
// before; this is the second lock on the same door.
func secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && HTTPAllowed(local, false) == nil && network(r.RemoteAddr).Addr().IsLoopback()
}

// newWeb sets up the HTTP side.
func (s *Server) newWeb() *http.Server {
	return &http.Server{
		Handler:           s.HTTPHandler(),
		ReadHeaderTimeout: webHeaderTimeout,
		IdleTimeout:       webIdleTimeout,
		MaxHeaderBytes:    webMaxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: webMaxStreams},
		ErrorLog:          log.New(debugLog{s.cfg.Logger}, "", 0),
	}
}

// debugLog takes what net/http has to say of its clients: failed handshakes, mostly.
type debugLog struct{ log *slog.Logger }

func (d debugLog) Write(p []byte) (int, error) {
	d.log.Debug("http", "said", string(p))
	return len(p), nil
}

// ServeWeb takes HTTP requests from l, with TLS if certificates are given, until
// Shutdown is over. It closes l and always returns an error, ErrClosed after
// Shutdown. It is called once.
func (s *Server) ServeWeb(l net.Listener, certificates *Certificates) error {
	bounded := &boundedListener{Listener: l, limit: s.cfg.MaxConnections, each: newShares[netip.Prefix](max(1, s.cfg.MaxConnections/2)), log: s.cfg.Logger}
	var err error
	if certificates == nil {
		err = s.web.Serve(bounded)
	} else {
		s.web.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificates.Get}
		err = s.web.ServeTLS(bounded, "", "")
	}
	if errors.Is(err, http.ErrServerClosed) {
		return ErrClosed
	}
	return err
}

// HTTPHandler answers GET /healthz: 200 when the server takes connections, 503
// while it starts or drains. Below the lakes' names it speaks git's smart HTTP
// protocol. Every other path is not found.
func (s *Server) HTTPHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				s.cfg.Logger.Error("panic", "in", "http request", "from", r.RemoteAddr, "value", v, "stack", stack())
				panic(http.ErrAbortHandler) // the client must not take what it has for the whole
			}
		}()
		ctl := http.NewResponseController(w)
		// Failures are of test recorders, which have no connection.
		_ = ctl.SetWriteDeadline(time.Now().Add(webWriteTimeout))
		if r.Body != nil && r.Body != http.NoBody {
			_ = ctl.SetReadDeadline(time.Now().Add(webBodyTimeout))
			// Unless all of the body is read: what is left of one that is refused must
			// not be taken for a request.
			w.Header().Set("Connection", "close")
		}
		if r.URL.Path == "/healthz" {
			s.health(w, r)
			return
		}
		if path, ok := parseGitPath(r.URL.EscapedPath()); ok {
			s.webGit(w, r, path)
			return
		}
		say(w, http.StatusNotFound, "there is nothing here")
	})
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		say(w, http.StatusMethodNotAllowed, "only GET is answered here")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	state := s.state()
	if state != ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = io.WriteString(w, state.String()+"\n") // the prober has gone; nothing to do
}

// say answers with one sentence, which git shows as "remote: ...".
func say(w http.ResponseWriter, status int, text string) {
	noCache(w.Header())
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, printable(text)+"\n") // a client that has gone is told nothing
}

// noCache sets the header of git's own server.
func noCache(h http.Header) {
	h.Set("Expires", "Fri, 01 Jan 1980 00:00:00 GMT")
	h.Set("Pragma", "no-cache")
	h.Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
}

// boundedListener closes connections beyond a number of open ones, of all and of
// each address.
type boundedListener struct {
	net.Listener
	limit int
	each  *shares[netip.Prefix]
	log   *slog.Logger

	mu   sync.Mutex
	open int
}

// Accept returns the next connection that there is room for.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := network(conn.RemoteAddr().String())
		if l.take(from) {
			return &countedConn{Conn: conn, done: sync.OnceFunc(func() { l.give(from) })}, nil
		}
		l.log.Warn("http connection refused: too many", "limit", l.limit, "each", l.each.limit, "from", conn.RemoteAddr())
		_ = conn.Close() // it was never anybody's
	}
}

func (l *boundedListener) take(from netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.limit || !l.each.take(from) {
		return false
	}
	l.open++
	return true
}

func (l *boundedListener) give(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.each.give(from)
}

type countedConn struct {
	net.Conn
	done func()
}

// Close closes the connection and makes room for another.
func (c *countedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}

// request returns the context of a request that ends with its client or, if the
// server must stop, with it.
func (s *Server) request(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(s.lifetime, cancel)
	return ctx, func() { stop(); cancel() }
}
