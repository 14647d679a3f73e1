package uploadpack

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
)

// maxPrefixes bounds the ref-prefix lines that are honoured; with more, all
// refs are listed, as the protocol allows and git does.
const maxPrefixes = 4096

// maxLookups is the number of prefixes from which one listing of everything is
// cheaper than one for each prefix.
const maxLookups = 64

type lsRefsRequest struct {
	symrefs, peel, unborn bool
	prefixes              []string
}

func parseLsRefs(args []string) (lsRefsRequest, error) {
	var req lsRefsRequest
	tooMany := false
	for _, arg := range args {
		switch {
		case arg == "symrefs":
			req.symrefs = true
		case arg == "peel":
			req.peel = true
		case arg == "unborn":
			req.unborn = true
		case strings.HasPrefix(arg, "ref-prefix "):
			if tooMany = tooMany || len(req.prefixes) == maxPrefixes; !tooMany {
				req.prefixes = append(req.prefixes, strings.TrimPrefix(arg, "ref-prefix "))
			}
		default:
			return req, requestErrorf("unexpected line in ls-refs: %q", clip(arg))
		}
	}
	if tooMany {
		req.prefixes = nil
	}
	return req, nil
}

func (c *conn) lsRefs(ctx context.Context, args []string) error {
	req, err := parseLsRefs(args)
	if err != nil {
		return err
	}
	if matchesAny("HEAD", req.prefixes) {
		oid, err := c.Refs.Get(ctx, c.Head)
		switch {
		case errors.Is(err, refs.ErrNotFound):
			if req.unborn {
				_ = c.out.Line("unborn HEAD symref-target:%s", c.Head)
			}
		case err != nil:
			return err
		case req.symrefs:
			_ = c.out.Line("%s HEAD symref-target:%s", oid, c.Head)
		default:
			_ = c.out.Line("%s HEAD", oid)
		}
	}
	list, err := c.listRefs(ctx, req.prefixes)
	if err != nil {
		return err
	}
	g := newGraph(ctx, c.Objects)
	for _, ref := range list {
		if req.peel {
			tags, target, _, err := g.peel(ctx, ref.OID)
			if err != nil {
				return err
			}
			if len(tags) > 0 {
				_ = c.out.Line("%s %s peeled:%s", ref.OID, ref.Name, target)
				continue
			}
		}
		_ = c.out.Line("%s %s", ref.OID, ref.Name)
	}
	return c.out.Flush()
}

// listRefs returns the refs that match any of the prefixes (all if there are
// none), sorted by name, without those that are hidden from such a request.
func (s *Server) listRefs(ctx context.Context, prefixes []string) ([]refs.Ref, error) {
	var open, deep []string
	for _, p := range prefixes {
		if s.reachesHidden(p) {
			deep = append(deep, p)
		} else {
			open = append(open, p)
		}
	}
	open, deep = disjoint(open), disjoint(deep)
	if len(prefixes) == 0 || len(open)+len(deep) > maxLookups {
		// One listing in order, and a filter.
		all, err := s.Refs.List(ctx, "refs/")
		if err != nil {
			return nil, err
		}
		return slices.DeleteFunc(all, func(r refs.Ref) bool {
			name := string(r.Name)
			if s.hidden(name) {
				return len(deep) == 0 || !matchesAny(name, deep)
			}
			return len(prefixes) > 0 && (len(open) == 0 || !matchesAny(name, open))
		}), nil
	}
	var out []refs.Ref
	for _, p := range open {
		if s.hidden(p) {
			continue // a namespace itself: not deep enough
		}
		list, err := s.Refs.List(ctx, p)
		if err != nil {
			return nil, err
		}
		out = append(out, slices.DeleteFunc(list, func(r refs.Ref) bool { return s.hidden(string(r.Name)) })...)
	}
	for _, p := range deep {
		list, err := s.Refs.List(ctx, p)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	slices.SortFunc(out, func(a, b refs.Ref) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return out, nil
}

// disjoint sorts prefixes and drops those that another one covers.
func disjoint(prefixes []string) []string {
	slices.Sort(prefixes)
	out := prefixes[:0]
	for _, p := range prefixes {
		if len(out) == 0 || !strings.HasPrefix(p, out[len(out)-1]) {
			out = append(out, p)
		}
	}
	return out
}

// matchesAny reports whether name starts with one of the prefixes; no prefixes match all.
func matchesAny(name string, prefixes []string) bool {
	return len(prefixes) == 0 ||
		slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// tagRefs returns the annotated tags under refs/tags/, for include-tag.
func (s *Server) tagRefs(ctx context.Context, g *graph) ([]tagRef, error) {
	list, err := s.Refs.List(ctx, "refs/tags/")
	if err != nil {
		return nil, err
	}
	var out []tagRef
	for _, ref := range list {
		if s.hidden(string(ref.Name)) {
			continue
		}
		chain, target, _, err := g.peel(ctx, ref.OID)
		if err != nil {
			return nil, err
		}
		if len(chain) > 0 {
			out = append(out, tagRef{chain: chain, target: target})
		}
	}
	return out, nil
}

// advertiseV0 writes the ref advertisement of protocol v0 and v1.
func (c *conn) advertiseV0(ctx context.Context, version int) error {
	if version == 1 {
		_ = c.out.Line("version 1")
	}
	caps := "multi_ack thin-pack side-band side-band-64k ofs-delta shallow deepen-since deepen-not" +
		" deepen-relative no-progress include-tag multi_ack_detailed" +
		" allow-tip-sha1-in-want allow-reachable-sha1-in-want filter object-format=sha1"
	if c.stateless {
		caps += " no-done"
	}
	list, err := c.listRefs(ctx, nil)
	if err != nil {
		return err
	}
	head, err := c.Refs.Get(ctx, c.Head)
	switch {
	case err == nil:
		caps += " symref=HEAD:" + string(c.Head)
		list = slices.Insert(list, 0, refs.Ref{Name: "HEAD", OID: head})
	case !errors.Is(err, refs.ErrNotFound):
		return err
	}
	caps += " agent=" + c.Agent
	if c.SessionID != "" {
		caps += " session-id=" + c.SessionID
	}
	if len(list) == 0 {
		_ = c.out.Line("%s capabilities^{}\x00%s", objects.OID{}, caps)
		return c.out.Flush()
	}
	g := newGraph(ctx, c.Objects)
	for i, ref := range list {
		if i == 0 {
			_ = c.out.Line("%s %s\x00%s", ref.OID, ref.Name, caps)
		} else {
			_ = c.out.Line("%s %s", ref.OID, ref.Name)
		}
		tags, target, _, err := g.peel(ctx, ref.OID)
		if err != nil {
			return err
		}
		if len(tags) > 0 {
			_ = c.out.Line("%s %s^{}", target, ref.Name)
		}
	}
	return c.out.Flush()
}
