package uploadpack

import (
	"context"
	"strings"

	"github.com/headgate/headgate/objects"
)

// objectInfoRequest asks what is known of objects without fetching them.
type objectInfoRequest struct {
	size bool
	oids []objects.OID
}

func parseObjectInfo(args []string) (objectInfoRequest, error) {
	var req objectInfoRequest
	for _, arg := range args {
		if arg == "size" {
			req.size = true
			continue
		}
		hex, ok := strings.CutPrefix(arg, "oid ")
		if !ok {
			return req, requestErrorf("unexpected line in object-info: %q", clip(arg))
		}
		if err := appendOID(&req.oids, "oid", hex); err != nil {
			return req, err
		}
	}
	return req, nil
}

// objectInfo answers the command object-info: a client that left parts out
// learns their sizes before it decides to fetch them. Of an object that is not
// there, or that the client may not have, the line ends after the blank.
func (c *conn) objectInfo(ctx context.Context, args []string) error {
	req, err := parseObjectInfo(args)
	if err != nil {
		return err
	}
	if req.size && len(req.oids) > 0 {
		_ = c.out.Line("size") // the writer keeps its first error for flush
	}
	g := newGraph(ctx, c.Objects)
	for _, oid := range req.oids {
		if !req.size {
			_ = c.out.Line("%s", oid)
			continue
		}
		info, ok, err := g.stat(ctx, oid)
		if err != nil {
			return err
		}
		if ok && c.AllowWant != nil {
			ok = c.AllowWant(ctx, oid) == nil
		}
		if !ok {
			_ = c.out.Line("%s ", oid)
			continue
		}
		_ = c.out.Line("%s %d", oid, info.Size)
	}
	return c.out.Flush()
}
