package uploadpack

import (
	"context"
	"io"
	"strings"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/server/pktline"
)

// ackMode is how a v0 client wants its haves acknowledged.
type ackMode uint8

const (
	ackOnce     ackMode = iota // the first common commit only
	ackMulti                   // multi_ack
	ackDetailed                // multi_ack_detailed
)

// v0Request is the first part of a v0 conversation, up to the first have.
type v0Request struct {
	*fetchRequest
	acks    ackMode
	bands   bandMode
	session string // what the client calls it
	noDone  bool   // the pack may follow the first ready; stateless only
}

func (c *conn) serveV0(ctx context.Context, version int) error {
	if err := c.advertiseV0(ctx, version); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	return c.answerV0(ctx)
}

// answerV0 is the conversation after the advertisement.
func (c *conn) answerV0(ctx context.Context) error {
	c.in.Limit(maxRequest)
	req, err := readV0Request(c.in)
	c.in.Limit(0) // what follows is answered line by line, and not kept
	if err != nil || len(req.wants) == 0 {
		return err
	}
	c.clientSession(req.session)
	g := newGraph(ctx, c.Objects)
	if err := c.checkWants(ctx, g, req.wants); err != nil {
		return err
	}
	plan, err := c.shallowPlan(ctx, g, req.fetchRequest)
	if err != nil {
		return err
	}
	if req.deepens() {
		c.writeShallow(plan)
		_ = c.out.Flush()
		if err := c.flush(); err != nil {
			return err
		}
	}
	n := newNegotiation(g, req.wants)
	gone, err := c.negotiateV0(ctx, n, req)
	if err != nil || gone {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	return c.sendPack(ctx, g, req.fetchRequest, n, plan, req.bands)
}

// readV0Request reads wants, shallow lines, deepening and filter. No wants is a
// client that has seen the advertisement and needs no more.
func readV0Request(in *pktline.Reader) (*v0Request, error) {
	req := &v0Request{fetchRequest: newFetchRequest()}
	for n := 0; ; n++ {
		kind, line, err := in.Line()
		if n == 0 && err == io.EOF {
			return req, nil
		}
		if err != nil {
			return nil, err
		}
		if kind == pktline.Flush {
			return req, req.check()
		}
		if kind != pktline.Data {
			return nil, requestErrorf("unexpected %s packet", kind)
		}
		if n == maxArguments {
			return nil, requestErrorf("more than %d lines in one request", maxArguments)
		}
		if n == 0 {
			want, caps, _ := cutCapabilities(line)
			line = want
			if err := req.capabilities(caps); err != nil {
				return nil, err
			}
		}
		if ok, err := req.argument(line); err != nil {
			return nil, err
		} else if !ok || strings.HasPrefix(line, "have ") {
			return nil, requestErrorf("unexpected line in request: %q", clip(line))
		}
	}
}

// cutCapabilities splits the first want line: "want <oid> cap cap".
func cutCapabilities(line string) (want, caps string, ok bool) {
	const n = len("want ") + 40
	if len(line) <= n {
		return line, "", false
	}
	return line[:n], line[n:], true
}

func (r *v0Request) capabilities(caps string) error {
	for _, c := range strings.Fields(caps) {
		key, value, _ := strings.Cut(c, "=")
		switch key {
		case "multi_ack":
			r.acks = max(r.acks, ackMulti)
		case "multi_ack_detailed":
			r.acks = ackDetailed
		case "side-band":
			r.bands = max(r.bands, bandNarrow)
		case "side-band-64k":
			r.bands = bandWide
		case "no-progress":
			r.noProgress = true
		case "no-done":
			r.noDone = true
		case "include-tag":
			r.includeTag = true
		case "thin-pack":
			r.thin = true
		case "ofs-delta":
			r.ofsDelta = true
		case "deepen-relative":
			r.relative = true
		case "session-id":
			r.session = value
		case "object-format":
			if value != "sha1" {
				return requestErrorf("object format %q is not offered; this server speaks sha1", clip(value))
			}
		}
		// Others are ignored, as in git: agent, shallow, filter.
	}
	return nil
}

// negotiateV0 reads haves until the client is done and answers each flush, as
// git's upload-pack does. gone means that the client left instead, or, of a
// stateless one, that the rest is in its next request.
func (c *conn) negotiateV0(ctx context.Context, n *negotiation, req *v0Request) (gone bool, err error) {
	mode := req.acks
	var last objects.OID
	gotCommon, gotOther, sentReady := false, false, false
	for {
		kind, line, err := c.in.Line()
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if kind == pktline.Flush {
			if mode == ackDetailed && gotCommon && !gotOther {
				ready, err := n.ready(ctx)
				if err != nil {
					return false, err
				}
				if ready {
					_ = c.out.Line("ACK %s ready", last)
					sentReady = true
				}
			}
			if len(n.common) == 0 || mode != ackOnce {
				_ = c.out.Line("NAK")
			}
			if c.stateless && req.noDone && sentReady {
				_ = c.out.Line("ACK %s", last) // stands for the answer to a done that does not come
				return false, nil
			}
			if err := c.flush(); err != nil || c.stateless {
				return true, err
			}
			gotCommon, gotOther = false, false
			continue
		}
		if line == "done" {
			if len(n.common) == 0 {
				_ = c.out.Line("NAK")
			} else if mode != ackOnce {
				_ = c.out.Line("ACK %s", last)
			}
			return false, nil
		}
		hex, isHave := strings.CutPrefix(line, "have ")
		if kind != pktline.Data || !isHave {
			return false, requestErrorf("expected a have line or done, got %q", clip(line))
		}
		oid, err := objects.ParseOID(hex)
		if err != nil {
			return false, requestErrorf("malformed have line: %q", clip(hex))
		}
		before := len(n.common)
		ok, err := n.have(ctx, oid)
		if err != nil {
			return false, err
		}
		if !ok {
			gotOther = true
			if mode == ackOnce {
				continue
			}
			ready, err := n.ready(ctx)
			if err != nil {
				return false, err
			}
			if ready {
				c.ack(mode, oid, "ready")
				sentReady = mode == ackDetailed
			}
			continue
		}
		gotCommon, last = true, oid
		if mode != ackOnce {
			c.ack(mode, oid, "common")
		} else if before == 0 && len(n.common) == 1 {
			_ = c.out.Line("ACK %s", oid)
		}
	}
}

// ack acknowledges with the detail that the client understands.
func (c *conn) ack(mode ackMode, oid objects.OID, detail string) {
	if mode != ackDetailed {
		detail = "continue"
	}
	_ = c.out.Line("ACK %s %s", oid, detail)
}
