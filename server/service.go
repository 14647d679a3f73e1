package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/server/pktline"
	"github.com/headgate/headgate/server/receivepack"
	"github.com/headgate/headgate/server/uploadarchive"
	"github.com/headgate/headgate/server/uploadpack"
)

// git runs a git service on the lake that its one argument names.
func (c *session) git(words []string, serve func(l lake.Name) int) int {
	if len(words) != 2 {
		return c.usage("%s takes the path of a lake and nothing else", words[0])
	}
	name, err := lake.ParseName(words[1])
	if err != nil {
		return c.refuse("%v", err)
	}
	return serve(name)
}

// refuse tells a git client in the protocol's own way, in place of the
// advertisement; git prints it as "fatal: remote error: ...".
func (c *session) refuse(format string, args ...any) int {
	// If this fails, the client has gone.
	_ = pktline.NewWriter(c.out).ErrorLine(fmt.Sprintf(format, args...))
	return exitFail
}

func (c *session) uploadPack(name lake.Name) int {
	l, err := c.toFetch(name)
	if err != nil {
		return c.refuse("%v", err)
	}
	return c.served(name, c.uploader(l).Serve(c.client, c.protocol(), c.in, c.out))
}

func (c *session) uploadArchive(name lake.Name) int {
	l, err := c.toFetch(name)
	if err != nil {
		return c.refuse("%v", err)
	}
	return c.served(name, c.archiver(l).Serve(c.client, c.in, c.out))
}

func (c *session) receivePack(name lake.Name) int {
	l, err := c.toPush(name, true)
	if err != nil {
		return c.refuse("%v", err)
	}
	defer l.Upkeep()
	// A run goes on when its pusher has gone, so a push has the server's lifetime.
	return c.served(name, c.receiver(l).Serve(c.lifetime, c.protocol(), c.in, c.out))
}

// What follows is the same over SSH and HTTP: who may do what, and with which lake.

func (c *session) uploader(l *lake.Lake) *uploadpack.Server {
	l.Upkeep() // of a lake that has none yet, or grew while nobody looked
	return &uploadpack.Server{
		Objects: l.Objects, Refs: c.visibleRefs(l), Head: refs.Name("refs/heads/" + c.cfg.Head),
		Agent: "headgate/" + c.cfg.Version, Hidden: append(slices.Clone(hiddenRefs), postedRefs...), KeepAlive: c.cfg.KeepAlive,
		SessionID: c.id, ClientSession: c.clientSession,
	}
}

func (c *session) archiver(l *lake.Lake) *uploadarchive.Server {
	return &uploadarchive.Server{Objects: l.Objects, Refs: c.visibleRefs(l), Head: refs.Name("refs/heads/" + c.cfg.Head), KeepAlive: c.cfg.KeepAlive}
}

func (c *session) receiver(l *lake.Lake) *receivepack.Server {
	return &receivepack.Server{
		Lake: l, Who: c.who, Gate: c.cfg.Gate, Agent: "headgate/" + c.cfg.Version,
		Hidden: hiddenRefs, Posted: postedRefs, Limits: c.cfg.Limits, Staging: c.cfg.Staging, Pace: c.cfg.Pace, KeepAlive: c.cfg.KeepAlive, Logger: c.log,
		SessionID: c.id, ClientSession: c.clientSession,
	}
}

// clientSession logs what the client calls the session in its own traces.
func (c *session) clientSession(id string) { c.log.Info("client's session", "client", id) }

// denial is why a lake is not opened, for the client.
type denial struct {
	status int // of HTTP
	text   string
}

func (e *denial) Error() string { return e.text }

func deny(status int, format string, args ...any) error {
	return &denial{status, fmt.Sprintf(format, args...)}
}

// within returns nil if the session's scope allows to read a lake, or to write to
// it. It is asked before the lake is looked for, so that it tells nothing of others.
func (c *session) within(name lake.Name, write bool) error {
	switch {
	case c.scope.Lake != "" && c.scope.Lake != name:
		return deny(http.StatusForbidden, "this token is for lake %q and no other", c.scope.Lake)
	case write && c.scope.ReadOnly:
		return deny(http.StatusForbidden, "this token only reads; make one that may push with: %s token create", c.cfg.SSH)
	}
	return nil
}

// toFetch opens a lake to be read. Its error is a *denial.
func (c *session) toFetch(name lake.Name) (*lake.Lake, error) {
	if err := c.within(name, false); err != nil {
		return nil, err
	}
	l, err := c.cfg.Lakes.Open(c.client, name)
	if errors.Is(err, lake.ErrNotFound) {
		return nil, deny(http.StatusNotFound, "lake %q does not exist; %s lake ls lists those that do", name, c.cfg.SSH)
	}
	return l, c.fault("opened", name, err)
}

// fault logs that a lake could not be opened or created, and returns the denial.
func (c *session) fault(what string, name lake.Name, err error) error {
	if err == nil {
		return nil
	}
	c.log.Error("lake cannot be "+what, "lake", name, "err", err)
	return deny(http.StatusInternalServerError, "lake %q cannot be %s; the server's log says why", name, what)
}

// toPush opens a lake to be written to. An administrator's push creates it, and
// before that, with create false, there is nil for it. Its error is a *denial.
func (c *session) toPush(name lake.Name, create bool) (*lake.Lake, error) {
	if err := c.within(name, true); err != nil {
		return nil, err
	}
	l, err := c.cfg.Lakes.Open(c.lifetime, name)
	switch {
	case !errors.Is(err, lake.ErrNotFound):
		return l, c.fault("opened", name, err)
	case !c.who.Admin:
		return nil, deny(http.StatusNotFound, "lake %q does not exist; ask an administrator to run: %s lake create %s", name, c.cfg.SSH, name)
	case !create:
		return nil, nil
	}
	l, err = c.cfg.Lakes.Create(c.lifetime, name)
	if errors.Is(err, lake.ErrExists) { // by another push, just now
		l, err = c.cfg.Lakes.Open(c.lifetime, name)
	} else if err == nil {
		c.log.Info("lake created", "lake", name)
		c.done(nil, "lake create", string(name))
		fmt.Fprintf(c.errw, "headgate: created lake %s\n", name)
	}
	return l, c.fault("created", name, err)
}

// served turns the result of a git service into an exit code and a line of log.
func (c *session) served(name lake.Name, err error) int {
	var read *uploadpack.RequestError
	var write *receivepack.RequestError
	var archive *uploadarchive.RequestError
	var body *bodyError
	var slow *receivepack.SlowError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &read), errors.As(err, &write), errors.As(err, &archive), errors.As(err, &body), errors.As(err, &slow), errors.Is(err, pktline.ErrLength):
		c.log.Info("git request refused", "lake", name, "reason", err)
	case c.client.Err() != nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		c.log.Info("client hung up", "lake", name)
	default:
		c.log.Error("git session failed", "lake", name, "err", err)
	}
	return exitFail
}

// protocol returns the version of the git protocol that the client asks for in
// GIT_PROTOCOL, a list of key=value with colons between.
func (c *session) protocol() int { return protocolVersion(c.env) }

func protocolVersion(env []string) int {
	version := 0
	for _, kv := range env {
		list, ok := strings.CutPrefix(kv, "GIT_PROTOCOL=")
		if !ok {
			continue
		}
		for _, item := range strings.Split(list, ":") {
			if v, ok := strings.CutPrefix(item, "version="); ok {
				if n, err := strconv.Atoi(v); err == nil && n > version && n <= 2 {
					version = n
				}
			}
		}
	}
	return version
}
