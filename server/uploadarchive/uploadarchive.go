// Package uploadarchive serves git archive --remote: git's upload-archive over
// a stateful connection. It streams the tree of a ref as tar, tar.gz or zip, a
// tar byte for byte as git archive writes it, and changes nothing; who may read
// is decided before it is called.
//
// The protocol is that of git's builtin/upload-archive.c, which no document
// describes: "argument" packets and a flush; "ACK", or "NACK" and a reason, and
// a flush; then side bands and a flush.
package uploadarchive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/server/pktline"
)

// Refs is what is read of a lake's refs.
type Refs interface {
	Get(ctx context.Context, name refs.Name) (refs.OID, error)
}

// Server serves archives of one lake. Its fields are not changed after the
// first Serve; it is safe for concurrent use.
type Server struct {
	Objects objects.Reader
	Refs    Refs
	Head    refs.Name // what HEAD is a symbolic ref to

	KeepAlive time.Duration // of silence before an empty packet is sent; 5 s if zero
}

const defaultKeepAlive = 5 * time.Second

// RequestError is a request that is refused. Its text is for the client.
type RequestError struct{ Text string }

func (e *RequestError) Error() string { return e.Text }

func requestErrorf(format string, args ...any) error {
	return &RequestError{Text: fmt.Sprintf(format, args...)}
}

// Bounds of one request: git's own number of arguments, and far above what a
// path is long.
const (
	maxArguments = 64
	maxArgument  = 16 << 10 // bytes
	maxQuoted    = 200      // bytes of foreign text in an error
)

// Serve speaks with one client. A refusal is sent to the client and returned as
// a *RequestError; for any other error the client gets a safe sentence. All that
// can be refused is refused before the first byte of the archive.
func (s *Server) Serve(ctx context.Context, r io.Reader, w io.Writer) error {
	out := pktline.NewWriter(w)
	args, err := readArguments(pktline.NewReader(bufio.NewReader(r)))
	var req *request
	if err == nil {
		req, err = parseArguments(args)
	}
	var a *archive
	if err == nil && !req.list {
		a, err = s.prepare(ctx, req)
	}
	if err != nil {
		_ = out.Line("NACK %s", clientText(err)) // the writer keeps its first error; err says more
		_ = out.Flush()
		return err
	}
	_ = out.Line("ACK")
	if err := out.Flush(); err != nil {
		return err
	}
	mux := pktline.NewMux(w, pktline.MaxBand64k)
	keepAlive := s.KeepAlive
	if keepAlive == 0 {
		keepAlive = defaultKeepAlive
	}
	stop := mux.KeepAlive(pktline.BandData, keepAlive)
	defer stop()
	data := bufio.NewWriterSize(mux.Band(pktline.BandData), pktline.MaxBand64k)
	if req.list {
		_, err = data.WriteString(strings.Join(formatNames, "\n") + "\n")
	} else {
		err = a.write(ctx, data, mux.Band(pktline.BandProgress))
	}
	if err = errors.Join(err, data.Flush()); err != nil {
		// The client stops with a failure at this; if it has gone, err says more.
		_, _ = mux.Write(pktline.BandError, []byte(clientText(err)+"\n"))
		return err
	}
	stop()
	return mux.Flush()
}

func clientText(err error) string {
	var re *RequestError
	switch {
	case errors.As(err, &re):
		return re.Text
	case errors.Is(err, pktline.ErrLength):
		return "malformed packet line"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the request ends too early"
	}
	return "the server could not read its store; its log says why"
}

func readArguments(in *pktline.Reader) ([]string, error) {
	var args []string
	for {
		kind, line, err := in.Line()
		switch {
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case kind == pktline.Flush:
			return args, nil
		case kind != pktline.Data:
			return nil, requestErrorf("unexpected %s packet", kind)
		case len(args) == maxArguments:
			return nil, requestErrorf("more than %d arguments", maxArguments)
		}
		arg, ok := strings.CutPrefix(line, "argument ")
		if !ok || len(arg) > maxArgument || strings.IndexByte(arg, 0) >= 0 {
			return nil, requestErrorf("expected an argument, got %s", quote(line))
		}
		args = append(args, arg)
	}
}

func quote(s string) string {
	if len(s) > maxQuoted {
		s = s[:maxQuoted]
	}
	return fmt.Sprintf("%q", s)
}
