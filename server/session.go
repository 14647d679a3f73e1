package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gliderlabs/ssh"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/server/token"
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
	who   hooks.Identity
	id    string      // of the session, in the log and as git's session-id
	key   []byte      // that authenticated, in SSH wire format; nil over HTTP
	scope token.Scope // what it is limited to; over SSH, to nothing
	log   *slog.Logger
	in    io.Reader
	out   io.Writer
	errw  io.Writer
	env   []string

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
	who, key, err := s.identify(sess)
	if err != nil {
		s.cfg.Logger.Warn("session refused", "from", sess.RemoteAddr(), "err", err)
		fmt.Fprintln(sess.Stderr(), "headgate: "+err.Error())
		return
	}
	who.From = sess.RemoteAddr().String()
	if !s.sessions.take(who.Name) {
		fmt.Fprintf(sess.Stderr(), "headgate: you have %d sessions under way, which is the limit; wait until some have ended\n", s.sessions.limit)
		return
	}
	defer s.sessions.give(who.Name)
	// A session ends with its connection or, if the server must stop, with it.
	client, cancel := context.WithCancel(sess.Context())
	defer cancel()
	defer context.AfterFunc(s.lifetime, cancel)()
	id := rand.Text()
	c := &session{
		Server: s, who: who, key: key.Marshal(), id: id,
		log: s.cfg.Logger.With("user", who.Name, "from", sess.RemoteAddr().String(), "session", id),
		in:  sess, out: sess, errw: sess.Stderr(), env: sess.Environ(),
		client: client, lifetime: s.lifetime,
	}
	start := time.Now()
	code = c.run(sess.RawCommand())
	c.log.Info("session", "command", loggable(sess.RawCommand()), "exit", code, "took", time.Since(start).Round(time.Millisecond))
}

var anyToken = regexp.MustCompile(token.Prefix + `[0-9A-Za-z]+`)

// loggable returns what the log may have of a command. Whoever gives a secret or
// a token as an argument, where it does not belong, must not find it there.
func loggable(line string) string {
	line = anyToken.ReplaceAllString(line, token.Prefix+"...")
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

// unanswered ends a command whose question has no answer: it says what is wrong with
// the question, or that the server failed.
func (c *session) unanswered(what string, err error) int {
	var asked *hooks.QueryError
	if errors.As(err, &asked) {
		return c.fail("%s", printable(asked.Text))
	}
	return c.broken(what+" failed", err)
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
