package receivepack

import (
	"fmt"
	"io"
	"strings"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/server/pktline"
)

// Bounds of one push, far above what people push and small for a hostile one.
const (
	maxCommands = 1 << 15
	maxShallow  = 1 << 16
	maxOptions  = 256
	maxOption   = 4096 // bytes
	maxQuoted   = 200  // bytes of foreign text in an error

	maxRequest = 16 << 20 // bytes of all that comes ahead of the pack
)

// RequestError is a malformed push. Its text is for the client.
type RequestError struct{ Text string }

func (e *RequestError) Error() string { return e.Text }

func requestErrorf(format string, args ...any) error {
	return &RequestError{Text: fmt.Sprintf(format, args...)}
}

// request is what a client sends ahead of the pack.
type request struct {
	commands []*command
	shallow  []objects.OID
	options  []string

	status, statusV2 bool
	sideBand         bool
	atomic           bool
	pushOptions      bool
	session          string // what the client calls it
}

// command asks to move one ref.
type command struct {
	name     string // as sent
	ref      refs.Name
	old, new objects.OID

	err    error       // why it was refused; nil is ok
	newOID objects.OID // what the gate made of it, if not new
}

// needsPack reports whether a pack follows: it does unless all is deletion.
func (r *request) needsPack() bool {
	for _, c := range r.commands {
		if !c.new.IsZero() {
			return true
		}
	}
	return false
}

// readRequest reads commands, shallow lines and push options. No commands is a
// client with nothing to push. A command that is well-formed but cannot be
// carried out, such as one for an invalid ref name, is returned with its error.
func readRequest(in *pktline.Reader) (*request, error) {
	req := &request{}
	in.Limit(maxRequest)
	defer in.Limit(0)
	seen := map[string]*command{}
	first := true // of the commands; shallow lines may come before
	for n := 0; ; n++ {
		kind, line, err := in.Line()
		if n == 0 && err == io.EOF {
			return req, nil // it has seen the advertisement and is content
		}
		if err != nil {
			return nil, err
		}
		if kind == pktline.Flush {
			break
		}
		if kind != pktline.Data {
			return nil, requestErrorf("unexpected %s packet among the commands", kind)
		}
		if hex, ok := strings.CutPrefix(line, "shallow "); ok {
			oid, err := objects.ParseOID(hex)
			if err != nil || len(req.shallow) == maxShallow {
				return nil, requestErrorf("bad shallow line %s", quote(line))
			}
			req.shallow = append(req.shallow, oid)
			continue
		}
		if first {
			first = false
			text, caps, _ := strings.Cut(line, "\x00")
			line = text
			if err := req.capabilities(caps); err != nil {
				return nil, err
			}
		}
		if strings.HasPrefix(line, "push-cert") {
			return nil, requestErrorf("signed pushes are not offered by this server")
		}
		if len(req.commands) == maxCommands {
			return nil, requestErrorf("more than %d refs in one push", maxCommands)
		}
		c, err := parseCommand(line)
		if err != nil {
			return nil, err
		}
		if other := seen[c.name]; other != nil {
			other.err = fmt.Errorf("multiple updates for ref %s", quote(c.name))
			c.err = other.err
		}
		seen[c.name] = c
		req.commands = append(req.commands, c)
	}
	if !req.pushOptions || len(req.commands) == 0 {
		return req, nil
	}
	return req, req.readOptions(in)
}

// parseCommand reads "<old> <new> <ref>".
func parseCommand(line string) (*command, error) {
	const hex = 40
	if len(line) < 2*hex+3 || line[hex] != ' ' || line[2*hex+1] != ' ' {
		return nil, requestErrorf("expected old, new and ref, got %s", quote(line))
	}
	var c command
	var err error
	if c.old, err = objects.ParseOID(line[:hex]); err != nil {
		return nil, requestErrorf("expected old, new and ref, got %s", quote(line))
	}
	if c.new, err = objects.ParseOID(line[hex+1 : 2*hex+1]); err != nil {
		return nil, requestErrorf("expected old, new and ref, got %s", quote(line))
	}
	c.name = line[2*hex+2:]
	if strings.ContainsAny(c.name, "\x00\n") {
		return nil, requestErrorf("bad ref name %s", quote(c.name))
	}
	if c.ref, err = refs.Parse(c.name); err != nil {
		c.err = err
	}
	return &c, nil
}

func (r *request) capabilities(caps string) error {
	for _, f := range strings.Fields(caps) {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "report-status":
			r.status = true
		case "report-status-v2":
			r.statusV2 = true
		case "side-band-64k":
			r.sideBand = true
		case "atomic":
			r.atomic = true
		case "push-options":
			r.pushOptions = true
		case "session-id":
			r.session = value
		case "object-format":
			if value != "sha1" {
				return requestErrorf("object format %s is not offered; this server speaks sha1", quote(value))
			}
		}
		// Others, such as agent and quiet, ask for nothing.
	}
	return nil
}

func (r *request) readOptions(in *pktline.Reader) error {
	for {
		kind, line, err := in.Line()
		switch {
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case kind == pktline.Flush:
			return nil
		case kind != pktline.Data:
			return requestErrorf("unexpected %s packet among the push options", kind)
		case len(r.options) == maxOptions:
			return requestErrorf("more than %d push options", maxOptions)
		case len(line) > maxOption:
			return requestErrorf("push option of %d bytes; the limit is %d", len(line), maxOption)
		}
		r.options = append(r.options, line)
	}
}

func quote(s string) string {
	if len(s) > maxQuoted {
		s = s[:maxQuoted]
	}
	return fmt.Sprintf("%q", s)
}
