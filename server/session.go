package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gliderlabs/ssh"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/server/pktline"
	"github.com/headgate/headgate/server/receivepack"
	"github.com/headgate/headgate/server/uploadarchive"
	"github.com/headgate/headgate/server/uploadpack"
)

// Exit codes of a session.
const (
	exitOK    = 0
	exitFail  = 1 // refused, or failed
	exitUsage = 2 // the command line is wrong
)

// maxCommandLine bounds a command; a query's SQL is the longest part of one.
const maxCommandLine = 1 << 20

// session is one command of one user.
type session struct {
	*Server
	who  hooks.Identity
	log  *slog.Logger
	in   io.Reader
	out  io.Writer
	errw io.Writer
	env  []string

	// client ends when the connection does; lifetime only with the server.
	client, lifetime context.Context
}

// handle is what the SSH library calls for a session.
func (s *Server) handle(sess ssh.Session) {
	code := exitFail
	if !s.begin() {
		fmt.Fprintln(sess.Stderr(), "headgate: the server is shutting down; try again in a moment")
		_ = sess.Exit(exitFail) // the client has gone: nobody to tell
		return
	}
	defer s.finish()
	defer func() { _ = sess.Exit(code) }()
	defer s.recovered("command", sess.RemoteAddr())
	who, err := s.identify(sess)
	if err != nil {
		s.cfg.Logger.Warn("session refused", "from", sess.RemoteAddr(), "err", err)
		fmt.Fprintln(sess.Stderr(), "headgate: "+err.Error())
		return
	}
	// A session ends with its connection or, if the server must stop, with it.
	client, cancel := context.WithCancel(sess.Context())
	defer cancel()
	defer context.AfterFunc(s.lifetime, cancel)()
	c := &session{
		Server: s, who: who,
		log: s.cfg.Logger.With("user", who.Name, "from", sess.RemoteAddr().String()),
		in:  sess, out: sess, errw: sess.Stderr(), env: sess.Environ(),
		client: client, lifetime: s.lifetime,
	}
	start := time.Now()
	code = c.run(sess.RawCommand())
	c.log.Info("session", "command", loggable(sess.RawCommand()), "exit", code, "took", time.Since(start).Round(time.Millisecond))
}

// loggable returns what the log may have of a command. Whoever gives a secret as
// an argument, where it does not belong, must not find it there.
func loggable(line string) string {
	if words := strings.Fields(line); len(words) > 3 && words[0] == "secret" {
		line = strings.Join(words[:3], " ")
		if lake.ValidSecretName(words[3]) {
			line += " " + words[3]
		}
		if len(words) > 4 {
			line += " ..."
		}
	}
	return clipLine(line)
}

// clipLine shortens a command for the log.
func clipLine(line string) string {
	const limit = 200
	if len(line) > limit {
		return line[:limit] + "..."
	}
	return line
}

// run carries out one command line and returns the exit code.
func (c *session) run(line string) int {
	if len(line) > maxCommandLine {
		return c.usage("the command line has %d bytes, limit is %d", len(line), maxCommandLine)
	}
	words, ok := splitWords(line)
	if !ok {
		return c.usage("a quote is not closed in %s", quoted(clipLine(line)))
	}
	if len(words) == 0 {
		return c.greet()
	}
	if words[0] == "git" && len(words) > 1 {
		words = append([]string{"git-" + words[1]}, words[2:]...)
	}
	switch words[0] {
	case "git-upload-pack":
		return c.git(words, c.uploadPack)
	case "git-receive-pack":
		return c.git(words, c.receivePack)
	case "git-upload-archive":
		return c.git(words, c.uploadArchive)
	case "git-lfs-authenticate", "git-lfs-transfer":
		return c.fail("git lfs is not offered and not needed: large files are pushed and cloned as they are")
	}
	return c.command(words)
}

// fail writes one sentence for the user and returns the code of failure.
func (c *session) fail(format string, args ...any) int {
	fmt.Fprintf(c.errw, "headgate: "+format+"\n", args...)
	return exitFail
}

func (c *session) usage(format string, args ...any) int {
	fmt.Fprintf(c.errw, "headgate: "+format+"\n", args...)
	return exitUsage
}

// broken logs the cause of a fault of the server and tells the user only that
// there is one.
func (c *session) broken(what string, err error) int {
	if c.client.Err() != nil {
		return exitFail // nobody is listening; most likely that is the cause
	}
	c.log.Error(what, "err", err)
	return c.fail("the server failed; its log says why")
}

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

// openForFetch opens the lake. The client was told of any error.
func (c *session) openForFetch(name lake.Name) (*lake.Lake, error) {
	l, err := c.cfg.Lakes.Open(c.client, name)
	if errors.Is(err, lake.ErrNotFound) {
		c.refuse("lake %q does not exist; %s lake ls lists those that do", name, c.cfg.SSH)
	} else if err != nil {
		c.log.Error("cannot open lake", "lake", name, "err", err)
		c.refuse("lake %q cannot be opened; the server's log says why", name)
	}
	return l, err
}

func (c *session) uploadPack(name lake.Name) int {
	l, err := c.openForFetch(name)
	if err != nil {
		return exitFail
	}
	up := &uploadpack.Server{
		Objects: l.Objects, Refs: l.Refs, Head: refs.Name("refs/heads/" + c.cfg.Head),
		Agent: "headgate/" + c.cfg.Version, Hidden: hiddenRefs, KeepAlive: c.cfg.KeepAlive,
	}
	l.Upkeep() // of a lake that has none yet, or grew while nobody looked
	return c.served(name, up.Serve(c.client, c.protocol(), c.in, c.out))
}

func (c *session) uploadArchive(name lake.Name) int {
	l, err := c.openForFetch(name)
	if err != nil {
		return exitFail
	}
	ua := &uploadarchive.Server{Objects: l.Objects, Refs: l.Refs, Head: refs.Name("refs/heads/" + c.cfg.Head), KeepAlive: c.cfg.KeepAlive}
	return c.served(name, ua.Serve(c.client, c.in, c.out))
}

func (c *session) receivePack(name lake.Name) int {
	l, err := c.openForPush(name)
	if err != nil {
		return exitFail
	}
	rp := &receivepack.Server{
		Lake: l, Who: c.who, Gate: c.cfg.Gate, Agent: "headgate/" + c.cfg.Version,
		Hidden: hiddenRefs, Limits: c.cfg.Limits, KeepAlive: c.cfg.KeepAlive, Logger: c.log,
	}
	// A run goes on when its pusher has gone, so a push has the server's lifetime.
	defer l.Upkeep()
	return c.served(name, rp.Serve(c.lifetime, c.protocol(), c.in, c.out))
}

// openForPush opens the lake, and creates it for an administrator. The client
// was told of any error.
func (c *session) openForPush(name lake.Name) (*lake.Lake, error) {
	l, err := c.cfg.Lakes.Open(c.lifetime, name)
	if !errors.Is(err, lake.ErrNotFound) {
		if err != nil {
			c.log.Error("cannot open lake", "lake", name, "err", err)
			c.refuse("lake %q cannot be opened; the server's log says why", name)
		}
		return l, err
	}
	if !c.who.Admin {
		c.refuse("lake %q does not exist; ask an administrator to run: %s lake create %s", name, c.cfg.SSH, name)
		return nil, err
	}
	l, err = c.cfg.Lakes.Create(c.lifetime, name)
	if errors.Is(err, lake.ErrExists) { // by another push, just now
		return c.cfg.Lakes.Open(c.lifetime, name)
	}
	if err != nil {
		c.log.Error("cannot create lake", "lake", name, "err", err)
		c.refuse("lake %q cannot be created; the server's log says why", name)
		return nil, err
	}
	c.log.Info("lake created", "lake", name)
	fmt.Fprintf(c.errw, "headgate: created lake %s\n", name)
	return l, nil
}

// served turns the result of a git service into an exit code and a line of log.
func (c *session) served(name lake.Name, err error) int {
	var read *uploadpack.RequestError
	var write *receivepack.RequestError
	var archive *uploadarchive.RequestError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &read), errors.As(err, &write), errors.As(err, &archive):
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

// quoted renders foreign text for a message.
func quoted(text string) string { return strconv.Quote(text) }

// printable drops what could drive a terminal out of text that is of users' making.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, text)
}

// greet answers a login without a command.
func (c *session) greet() int {
	role := ""
	if c.who.Admin {
		role = ", administrator"
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "Hi %s%s! This is Headgate %s: git for tables. There is no shell here.\n\n", c.who.Name, role, c.cfg.Version)
	names, err := c.cfg.Lakes.List(c.client)
	if err != nil {
		return c.broken("cannot list lakes", err)
	}
	switch {
	case len(names) > 0:
		fmt.Fprintf(&b, "  git clone %s%s\n", c.cfg.URL, names[0])
	case c.who.Admin:
		fmt.Fprintf(&b, "  git push %smylake main     the first push creates the lake\n", c.cfg.URL)
	}
	fmt.Fprintf(&b, "  %s help\n", c.cfg.SSH)
	_, _ = c.out.Write(b.Bytes()) // a client that has gone is not greeted
	return exitOK
}

// lakeNames is the listing as text, one name a line.
func lakeNames(names []lake.Name) string {
	var b strings.Builder
	for _, n := range slices.Sorted(slices.Values(names)) {
		b.WriteString(string(n) + "\n")
	}
	return b.String()
}
