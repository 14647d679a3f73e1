package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/server/pktline"
	"github.com/headgate/headgate/server/token"
)

// challenge makes git ask its user, or a credential helper.
const challenge = `Basic realm="headgate", charset="UTF-8"`

// webGit answers a request of git's smart HTTP protocol (gitprotocol-http(5)). All
// that can be said without knowing who asks is said first, and is the same whether
// or not there is such a lake.
func (s *Server) webGit(w http.ResponseWriter, r *http.Request, path gitPath) {
	if s.cfg.HTTP == "" || !secure(r) {
		// No challenge: a client must not be asked for what must not be sent.
		say(w, http.StatusForbidden, or(s.cfg.NoHTTP, "git over HTTP is off on this server; use "+s.cfg.URL))
		return
	}
	service, method := path.end, http.MethodPost
	if path.end == endRefs {
		service, method = theService(r), http.MethodGet
	}
	switch {
	case path.end == "" && strings.Contains(r.URL.Path, ".git/info/lfs"):
		say(w, http.StatusNotFound, "git lfs is not offered and not needed: large files are pushed and cloned as they are")
		return
	case path.end == "", service != endUpload && service != endReceive && path.end != endArchive:
		say(w, http.StatusForbidden, "this server speaks git's smart HTTP protocol and no other: use git 1.6.6 or later, with info/refs?service=git-upload-pack")
		return
	case r.Method != method:
		w.Header().Set("Allow", method)
		say(w, http.StatusMethodNotAllowed, "only "+method+" is answered here")
		return
	}
	who, tok, ok := s.logIn(w, r)
	if !ok {
		return
	}
	id := rand.Text()
	log := s.cfg.Logger.With("user", who.Name, "from", r.RemoteAddr, "token", tok.ID, "session", id)
	if !s.begin() {
		w.Header().Set("Retry-After", "5")
		say(w, http.StatusServiceUnavailable, "the server is shutting down; try again in a moment")
		return
	}
	defer s.finish()
	if !s.sessions.take(who.Name) {
		w.Header().Set("Retry-After", "5")
		say(w, http.StatusTooManyRequests, fmt.Sprintf("you have %d sessions under way, which is the limit; wait until some have ended", s.sessions.limit))
		return
	}
	defer s.sessions.give(who.Name)
	start := time.Now()
	status := s.webService(w, r, path, service, &session{
		Server: s, who: who, id: id, scope: tok.Scope, log: log, errw: io.Discard,
		env:      []string{"GIT_PROTOCOL=" + r.Header.Get("Git-Protocol")},
		lifetime: s.lifetime,
	})
	log.Info("http", "asked", path.end, "service", service, "lake", clipLine(path.lake), "status", status, "took", time.Since(start).Round(time.Millisecond))
}

// theService returns the service that info/refs is asked of, "" if not exactly one.
func theService(r *http.Request) string {
	if list := r.URL.Query()["service"]; len(list) == 1 {
		return list[0]
	}
	return ""
}

// logIn returns who asks and with which token. If ok is false, the client has its answer.
func (s *Server) logIn(w http.ResponseWriter, r *http.Request) (who hooks.Identity, tok token.Token, ok bool) {
	secret, given := credential(r)
	if !given {
		w.Header().Set("WWW-Authenticate", challenge)
		say(w, http.StatusUnauthorized, fmt.Sprintf("a token is needed; make one with: %s token create", s.cfg.SSH))
		return who, tok, false
	}
	now := time.Now()
	tok, err := s.cfg.Tokens.Verify(secret, now)
	reason := ""
	switch {
	case errors.Is(err, token.ErrUnknown):
		reason = "this is no token of this server, or it was revoked"
	case errors.Is(err, token.ErrExpired):
		reason = "this " + err.Error()
	case err != nil:
		s.cfg.Logger.Error("cannot read tokens", "err", err)
		say(w, http.StatusInternalServerError, "the server failed; its log says why")
		return who, tok, false
	default:
		key, err := gossh.ParsePublicKey(tok.Key)
		if err == nil {
			who, ok = s.cfg.Keys.Lookup(key)
		}
		if !ok {
			reason = "the SSH key that made this token is not authorized any more"
		}
	}
	if reason != "" {
		s.turnAway(w, r, tok.ID, fmt.Sprintf("%s; make another with: %s token create", reason, s.cfg.SSH))
		return who, tok, false
	}
	if err := s.cfg.Tokens.NoteUse(tok, now); err != nil {
		s.cfg.Logger.Error("cannot note the use of a token", "token", tok.ID, "err", err) // no reason to refuse it
	}
	who.From = r.RemoteAddr
	return who, tok, true
}

// turnAway answers a failed log-in, the later the more there were.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, id, reason string) {
	delay, done, ok := s.failed.fail(r.RemoteAddr, time.Now())
	if !ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(delay/time.Second)))
		say(w, http.StatusTooManyRequests, "too many log-ins failed from your address; wait a moment")
		return
	}
	defer done()
	s.cfg.Logger.Warn("http log-in refused", "from", r.RemoteAddr, "token", id, "reason", reason)
	if delay > 0 {
		ctx, cancel := s.request(r)
		defer cancel()
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
	w.Header().Set("WWW-Authenticate", challenge)
	say(w, http.StatusUnauthorized, reason)
}

// credential returns what a client gives for a token: the password of HTTP Basic,
// with any user name, or a bearer token (RFC 6750). given is false if there is no
// header; one that says neither or two things gives a token that nobody has.
func credential(r *http.Request) (secret string, given bool) {
	list := r.Header.Values("Authorization")
	if len(list) != 1 {
		return "", len(list) > 0
	}
	if _, password, ok := r.BasicAuth(); ok {
		return password, true
	}
	scheme, value, _ := strings.Cut(list[0], " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(value), true
	}
	return "", true
}

// webService carries out a request of a user who is known, and returns its status.
func (s *Server) webService(w http.ResponseWriter, r *http.Request, path gitPath, service string, c *session) int {
	fail := func(status int, text string) int {
		say(w, status, text)
		return status
	}
	name, err := path.name()
	if err != nil {
		return fail(http.StatusNotFound, err.Error())
	}
	var cancel context.CancelFunc
	c.client, cancel = s.request(r)
	defer cancel()
	var x *exchange
	if path.end == endRefs {
		x = newExchange(w, r, "application/x-"+service+"-advertisement", 0, s.cfg.IdleTimeout)
		x.ended = true // what a GET may bring along is not looked at
	} else {
		if got := r.Header.Get("Content-Type"); got != "application/x-"+service+"-request" {
			return fail(http.StatusUnsupportedMediaType, fmt.Sprintf("the content type is %s, want application/x-%s-request", quoted(clipLine(got)), service))
		}
		limit := int64(0)
		if service != endReceive {
			limit = maxFetchRequest
		}
		x = newExchange(w, r, "application/x-"+service+"-result", limit, s.cfg.IdleTimeout)
		switch coding := strings.ToLower(r.Header.Get("Content-Encoding")); coding {
		case "", "identity":
		case "gzip", "x-gzip":
			x.compressed()
		default:
			w.Header().Set("Accept-Encoding", "gzip")
			return fail(http.StatusUnsupportedMediaType, fmt.Sprintf("the content encoding %s is not offered; use gzip or none", quoted(clipLine(coding))))
		}
	}
	c.in, c.out = x, x
	err = c.webSpeak(name, path.end, service)
	var denied *denial
	if errors.As(err, &denied) {
		return fail(denied.status, denied.text)
	}
	c.served(name, err)
	refused, err := x.finish(err)
	switch {
	case refused != nil:
		x.discard()
		return fail(refused.status, refused.text)
	case err != nil:
		c.log.Info("client hung up", "lake", name)
	}
	return http.StatusOK
}

// webSpeak lets the service of a lake speak. An error that is a *denial comes
// before anything is written.
func (c *session) webSpeak(name lake.Name, end, service string) error {
	if service != endReceive {
		l, err := c.toFetch(name)
		if err != nil {
			return err
		}
		if service == endArchive {
			return c.archiver(l).Serve(c.client, c.in, c.out)
		}
		up := c.uploader(l)
		if end == endRefs {
			if c.protocol() < 2 {
				announce(c.out, service)
			}
			return up.Advertise(c.client, c.protocol(), c.out)
		}
		return up.Respond(c.client, c.protocol(), c.in, c.out)
	}
	// A run goes on when its pusher has gone, so a push has the server's lifetime.
	l, err := c.toPush(name, end != endRefs)
	if err != nil {
		return err
	}
	if l != nil {
		defer l.Upkeep()
	}
	rp := c.receiver(l)
	if end == endRefs {
		announce(c.out, service)
		return rp.Advertise(c.lifetime, c.protocol(), c.out)
	}
	return rp.Respond(c.lifetime, c.in, c.out)
}

// announce writes what stands before an advertisement of protocol v0 and v1.
func announce(w io.Writer, service string) {
	pw := pktline.NewWriter(w)
	_ = pw.Line("# service=%s", service) // a client that has gone is noticed with what follows
	_ = pw.Flush()
}
