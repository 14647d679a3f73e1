package uploadpack

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
)

// infiniteDepth is what git sends for "fetch --unshallow".
const infiniteDepth = 0x7fffffff

// maxShallow bounds the lines that make the server walk history before it knows
// whether it will send anything.
const maxShallow = 1 << 16

// fetchRequest is the union of what v0 and v2 clients can ask.
type fetchRequest struct {
	wants    []objects.OID
	wantRefs []string
	haves    []objects.OID
	shallow  []objects.OID // commits the client has without their parents
	depth    int           // 0: no deepening
	since    int64         // seconds; 0: none
	not      []string      // refs whose history is left out
	relative bool          // depth counts from the client's shallow boundary
	filter   Filter

	done, waitForDone      bool
	noProgress, includeTag bool

	thin     bool // deltas may have bases that the client has
	ofsDelta bool // deltas may name their base by its distance
}

func newFetchRequest() *fetchRequest { return &fetchRequest{filter: noFilter()} }

// deepens reports whether the request changes the client's shallow boundary.
func (q *fetchRequest) deepens() bool { return q.depth > 0 || q.since != 0 || len(q.not) > 0 }

// argument reads one line that v0 and v2 have in common. ok is false if it is none.
func (q *fetchRequest) argument(line string) (ok bool, err error) {
	key, value, _ := strings.Cut(line, " ")
	switch key {
	case "want":
		return true, appendOID(&q.wants, key, value)
	case "have":
		return true, appendOID(&q.haves, key, value)
	case "shallow":
		if len(q.shallow) == maxShallow {
			return true, requestErrorf("more than %d shallow commits", maxShallow)
		}
		return true, appendOID(&q.shallow, key, value)
	case "deepen":
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n <= 0 {
			return true, requestErrorf("invalid depth %q", clip(value))
		}
		q.depth = int(n)
	case "deepen-since":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n <= 0 || n == math.MaxInt64 {
			return true, requestErrorf("invalid deepen-since %q", clip(value))
		}
		q.since = n
	case "deepen-not":
		if value == "" || len(q.not) == maxPrefixes {
			return true, requestErrorf("invalid deepen-not %q", clip(value))
		}
		q.not = append(q.not, value)
	case "filter":
		f, err := ParseFilter(value)
		if err != nil {
			return true, err
		}
		q.filter = f
	default:
		return false, nil
	}
	return true, nil
}

func appendOID(list *[]objects.OID, key, value string) error {
	oid, err := objects.ParseOID(value)
	if err != nil {
		return requestErrorf("malformed %s line: %q", key, clip(value))
	}
	*list = append(*list, oid)
	return nil
}

// check refuses what cannot be combined.
func (q *fetchRequest) check() error {
	if q.depth > 0 && (q.since != 0 || len(q.not) > 0) {
		return requestErrorf("deepen and deepen-since (or deepen-not) cannot be used together")
	}
	return nil
}

// parseFetch reads the arguments of a v2 fetch.
func parseFetch(args []string) (*fetchRequest, error) {
	q := newFetchRequest()
	for _, line := range args {
		ok, err := q.argument(line)
		if err != nil {
			return nil, err
		}
		if ok {
			continue
		}
		switch line {
		case "done":
			q.done = true
		case "wait-for-done":
			q.waitForDone = true
		case "no-progress":
			q.noProgress = true
		case "include-tag":
			q.includeTag = true
		case "deepen-relative":
			q.relative = true
		case "thin-pack":
			q.thin = true
		case "ofs-delta":
			q.ofsDelta = true
		default:
			name, isRef := strings.CutPrefix(line, "want-ref ")
			if !isRef {
				return nil, requestErrorf("unexpected line in fetch: %q", clip(line))
			}
			q.wantRefs = append(q.wantRefs, name)
		}
	}
	return q, q.check()
}

func (c *conn) fetchV2(ctx context.Context, args []string) error {
	q, err := parseFetch(args)
	if err != nil {
		return err
	}
	wanted, err := c.resolveWantRefs(ctx, q)
	if err != nil {
		return err
	}
	if len(q.wants) == 0 && !q.waitForDone {
		return nil // as git: nothing was wanted
	}
	g := newGraph(ctx, c.Objects)
	if err := c.checkWants(ctx, g, q.wants); err != nil {
		return err
	}
	n := newNegotiation(g, q.wants)
	var acks []objects.OID
	for _, oid := range q.haves {
		ok, err := n.have(ctx, oid)
		if err != nil {
			return err
		}
		if ok {
			acks = append(acks, oid)
		}
	}
	if len(q.haves) > 0 && !q.done {
		_ = c.out.Line("acknowledgments")
		for _, oid := range acks {
			_ = c.out.Line("ACK %s", oid)
		}
		if len(acks) == 0 {
			_ = c.out.Line("NAK")
		}
		ready := false
		if !q.waitForDone {
			if ready, err = n.ready(ctx); err != nil {
				return err
			}
		}
		if !ready {
			return c.out.Flush()
		}
		_ = c.out.Line("ready")
		_ = c.out.Delim()
	}
	if len(q.wants) == 0 {
		return c.out.Flush()
	}

	cut, err := c.shallowPlan(ctx, g, q)
	if err != nil {
		return err
	}
	if q.deepens() || len(q.shallow) > 0 {
		_ = c.out.Line("shallow-info")
		c.writeShallow(cut)
		_ = c.out.Delim()
	}
	if len(wanted) > 0 {
		_ = c.out.Line("wanted-refs")
		for _, ref := range wanted {
			_ = c.out.Line("%s %s", ref.oid, ref.name)
		}
		_ = c.out.Delim()
	}
	_ = c.out.Line("packfile")
	if err := c.flush(); err != nil {
		return err
	}
	return c.sendPack(ctx, g, q, n, cut, bandWide)
}

// wantedRef is a ref that a client wants by name, and what it points at.
type wantedRef struct {
	name string
	oid  objects.OID
}

// resolveWantRefs adds what the wanted refs point at to the wants.
func (c *conn) resolveWantRefs(ctx context.Context, q *fetchRequest) ([]wantedRef, error) {
	var out []wantedRef
	for _, text := range q.wantRefs {
		name, err := c.Head, error(nil)
		if text != "HEAD" {
			if name, err = refs.Parse(text); err != nil {
				return nil, requestErrorf("unknown ref %q", clip(text))
			}
		}
		oid, err := c.Refs.Get(ctx, name)
		if errors.Is(err, refs.ErrNotFound) {
			return nil, requestErrorf("unknown ref %q", clip(text))
		} else if err != nil {
			return nil, err
		}
		out = append(out, wantedRef{name: text, oid: oid})
		q.wants = append(q.wants, oid)
	}
	return out, nil
}

// checkWants refuses a request for what is not there or not allowed. The words
// are git's, which clients know.
func (c *conn) checkWants(ctx context.Context, g *graph, wants []objects.OID) error {
	for _, oid := range wants {
		if _, ok, err := g.stat(ctx, oid); err != nil {
			return err
		} else if !ok {
			return requestErrorf("upload-pack: not our ref %s", oid)
		}
		if c.AllowWant != nil {
			if err := c.AllowWant(ctx, oid); err != nil {
				return requestErrorf("%v", err)
			}
		}
	}
	return nil
}

// negotiation is what is known of the client's history so far.
type negotiation struct {
	g       *graph
	wants   []objects.OID
	common  []objects.OID            // haves that the store has too, in order, each once
	given   map[objects.OID]struct{} // the same
	theirs  map[objects.OID]struct{} // those and their parents
	oldest  int64                    // date of the oldest common commit
	settled bool                     // the answer of ready still holds
	give    bool                     // that answer
}

func newNegotiation(g *graph, wants []objects.OID) *negotiation {
	return &negotiation{g: g, wants: wants, given: map[objects.OID]struct{}{}, theirs: map[objects.OID]struct{}{}, oldest: math.MaxInt64}
}

// have takes one oid of the client's and reports whether the store has it too.
func (n *negotiation) have(ctx context.Context, oid objects.OID) (bool, error) {
	info, ok, err := n.g.stat(ctx, oid)
	if err != nil || !ok {
		return false, err
	}
	if _, again := n.given[oid]; again {
		return true, nil // a client may say it without end
	}
	n.given[oid] = struct{}{}
	// Git drops a have that is the parent of another. It is kept here, because to
	// a shallow client the one does not imply the other.
	n.common = append(n.common, oid)
	n.theirs[oid] = struct{}{}
	n.settled = n.give // more in common cannot turn a yes into a no
	if info.Type == objects.Commit {
		c, err := n.g.load(ctx, oid)
		if err != nil {
			return false, err
		}
		n.oldest = min(n.oldest, c.date)
		for _, p := range c.parents {
			n.theirs[p] = struct{}{}
		}
	}
	return true, nil
}

// ready reports whether every want leads to something common, so that more
// haves would change little.
func (n *negotiation) ready(ctx context.Context) (bool, error) {
	if n.settled || len(n.common) == 0 {
		return n.give, nil
	}
	var err error
	n.give, err = n.g.reachAny(ctx, n.wants, n.theirs, n.oldest)
	n.settled = err == nil
	return n.give, err
}
