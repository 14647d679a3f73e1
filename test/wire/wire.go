// Package wire is a git client without git: it speaks the wire protocols over
// one SSH connection and writes packs as a stream. Tests and benchmarks use it
// for what the git client cannot do: hundreds of pushes over one connection, and
// objects of any size that exist nowhere but on the wire.
package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/server/pktline"
)

// Client is an SSH connection to a server. It is safe for concurrent use; the
// server bounds how many sessions one connection may have at once.
type Client struct{ conn *ssh.Client }

// Dial connects to addr and authenticates with key. hostKey is the one key that
// the server may have; nil takes any, for servers that the caller has just
// started itself on a loopback address.
func Dial(ctx context.Context, addr string, key ssh.Signer, hostKey ssh.PublicKey) (*Client, error) {
	check := ssh.InsecureIgnoreHostKey()
	if hostKey != nil {
		check = ssh.FixedHostKey(hostKey)
	}
	cfg := &ssh.ClientConfig{
		User: "git", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: check, Timeout: 30 * time.Second,
		// What a client on a machine with AES instructions should ask for.
		Config: ssh.Config{Ciphers: []string{ssh.CipherAES128GCM, ssh.CipherChaCha20Poly1305}},
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, addr, cfg)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &Client{ssh.NewClient(c, chans, reqs)}, nil
}

// Close ends the connection and all its sessions.
func (c *Client) Close() error { return c.conn.Close() }

// Run runs a command of the server's own and returns what it printed.
func (c *Client) Run(command string) (string, error) {
	s, err := c.conn.NewSession()
	if err != nil {
		return "", err
	}
	defer func() { _ = s.Close() }() // ended already, if all went well
	var errs strings.Builder
	s.Stderr = &errs
	out, err := s.Output(command)
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(errs.String()))
	}
	return string(out), err
}

// Session is one git service under way on one lake.
type Session struct {
	In  *pktline.Reader // what the server says
	Out io.WriteCloser  // to the server; not buffered

	raw  *bufio.Reader // below In
	ssh  *ssh.Session
	errs strings.Builder
}

// Start begins a service, git-upload-pack or git-receive-pack, on a repository.
// version is the protocol to ask for.
func (c *Client) Start(service, path string, version int) (*Session, error) {
	sess, err := c.conn.NewSession()
	if err != nil {
		return nil, err
	}
	s := &Session{ssh: sess}
	fail := func(err error) (*Session, error) { return nil, errors.Join(err, sess.Close()) }
	out, err := sess.StdoutPipe()
	if err != nil {
		return fail(err)
	}
	if s.Out, err = sess.StdinPipe(); err != nil {
		return fail(err)
	}
	sess.Stderr = &s.errs
	if version > 0 {
		if err := sess.Setenv("GIT_PROTOCOL", fmt.Sprintf("version=%d", version)); err != nil {
			return fail(err)
		}
	}
	if err := sess.Start(service + " '" + path + "'"); err != nil {
		return fail(err)
	}
	s.raw = bufio.NewReaderSize(out, 64<<10)
	s.In = pktline.NewReader(s.raw)
	return s, nil
}

// Close ends the session, whatever its state.
func (s *Session) Close() error {
	if err := s.ssh.Close(); err != nil && err != io.EOF {
		return err
	}
	return nil
}

// Wait returns when the service has ended. The error has what it wrote to
// standard error, if it failed.
func (s *Session) Wait() error {
	err := s.ssh.Wait()
	if err != nil && s.errs.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(s.errs.String()))
	}
	return err
}

// section reads packets up to the next flush packet.
func (s *Session) section() ([]string, error) {
	var lines []string
	for {
		kind, line, err := s.In.Line()
		if err != nil {
			return nil, err
		}
		if kind == pktline.Flush {
			return lines, nil
		}
		if msg, isErr := strings.CutPrefix(line, "ERR "); isErr {
			return nil, fmt.Errorf("remote: %s", msg)
		}
		lines = append(lines, line)
	}
}

// Command is one ref update of a push; zero oids stand for "no ref".
type Command struct {
	Ref      string
	Old, New objects.OID
}

// Push sends commands and the pack that write makes, nil if none is needed, and
// returns an error unless every command was carried out.
func (c *Client) Push(path string, commands []Command, write func(io.Writer) error) (err error) {
	s, err := c.Start("git-receive-pack", path, 0)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if _, err := s.section(); err != nil {
		return fmt.Errorf("advertisement: %w", err)
	}
	out := bufio.NewWriterSize(s.Out, 32<<10)
	lines := pktline.NewWriter(out)
	for i, cmd := range commands {
		caps := ""
		if i == 0 {
			caps = "\x00report-status side-band-64k object-format=sha1 agent=wire"
		}
		_ = lines.Packet([]byte(fmt.Sprintf("%s %s %s%s", cmd.Old, cmd.New, cmd.Ref, caps))) // the writer keeps its first error
	}
	if err := errors.Join(lines.Flush(), out.Flush()); err != nil {
		return err
	}
	reports := make(chan error, 1)
	go func() { reports <- s.report(len(commands)) }()
	if write != nil {
		if err := errors.Join(write(out), out.Flush()); err != nil {
			// The server's reason, if it gave one, says more than a broken pipe.
			select {
			case reason := <-reports:
				err = errors.Join(reason, err)
			case <-time.After(time.Second):
			}
			return fmt.Errorf("send pack: %w", err)
		}
	}
	if err := <-reports; err != nil {
		return err
	}
	return s.Wait()
}

// report reads the side-band stream of a push to its end.
func (s *Session) report(want int) error {
	var text strings.Builder
	for {
		kind, p, err := s.In.Next()
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		if kind == pktline.Flush {
			break
		}
		if len(p) > 0 && pktline.Band(p[0]) == pktline.BandData {
			text.Write(p[1:])
		}
		if len(p) > 0 && pktline.Band(p[0]) == pktline.BandError {
			return fmt.Errorf("remote: %s", p[1:])
		}
	}
	inner := pktline.NewReader(strings.NewReader(text.String()))
	done := 0
	for {
		kind, line, err := inner.Line()
		switch {
		case err != nil:
			return fmt.Errorf("report: %w", err)
		case kind == pktline.Flush && done == want:
			return nil
		case kind == pktline.Flush:
			return fmt.Errorf("report: %d of %d commands", done, want)
		case line == "unpack ok":
		case strings.HasPrefix(line, "ok "):
			done++
		default:
			return fmt.Errorf("remote: %s", line)
		}
	}
}

// Fetcher is a session of upload-pack in protocol version 2, ready for requests.
type Fetcher struct {
	*Session
	out *bufio.Writer
}

// Fetcher starts upload-pack and reads its capabilities.
func (c *Client) Fetcher(path string) (*Fetcher, error) {
	s, err := c.Start("git-upload-pack", path, 2)
	if err != nil {
		return nil, err
	}
	caps, err := s.section()
	if err == nil && (len(caps) == 0 || caps[0] != "version 2") {
		err = fmt.Errorf("the server does not speak version 2: %q", caps)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &Fetcher{s, bufio.NewWriter(s.Out)}, nil
}

// request sends one command with its arguments.
func (f *Fetcher) request(command string, args ...string) error {
	w := pktline.NewWriter(f.out)
	_ = w.Line("command=%s", command) // the writer keeps its first error
	_ = w.Line("object-format=sha1")
	_ = w.Delim()
	for _, arg := range args {
		_ = w.Line("%s", arg)
	}
	_ = w.Flush()
	return errors.Join(w.Err(), f.out.Flush())
}

// LsRefs lists the refs whose names start with prefix, one line each, as git
// ls-remote asks for them.
func (f *Fetcher) LsRefs(prefix string) ([]string, error) {
	if err := f.request("ls-refs", "peel", "symrefs", "ref-prefix "+prefix); err != nil {
		return nil, err
	}
	return f.section()
}

// End ends the session in the protocol's own way.
func (f *Fetcher) End() error {
	if _, err := io.WriteString(f.Out, "0000"); err != nil {
		return err
	}
	return errors.Join(f.Out.Close(), f.Wait())
}
