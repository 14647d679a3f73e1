package uploadpack

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/headgate/headgate/objects/pack"
	"github.com/headgate/headgate/server/pktline"
)

// bandMode is how the pack is wrapped.
type bandMode uint8

const (
	bandNone   bandMode = iota // a bare pack, no progress
	bandNarrow                 // side-band
	bandWide                   // side-band-64k, and always in v2
)

// progressEvery keeps progress readable and cheap.
const progressEvery = 250 * time.Millisecond

// sendPack enumerates what the client lacks and sends it. The count stands in a
// pack's header, so nothing can be sent before all is enumerated.
func (c *conn) sendPack(ctx context.Context, g *graph, q *fetchRequest, n *negotiation, plan cut, mode bandMode) error {
	if mode == bandNone {
		list, err := c.selectObjects(ctx, g, q, n, plan, func(int) {})
		if err != nil {
			return err
		}
		_, err = c.writePack(ctx, c.raw, q, list)
		return err
	}
	limit := pktline.MaxBand64k
	if mode == bandNarrow {
		limit = pktline.MaxBand
	}
	mux := pktline.NewMux(c.direct, limit)
	c.muxed = true
	keepAlive := c.KeepAlive
	if keepAlive == 0 {
		keepAlive = defaultKeepAlive
	}
	stop := mux.KeepAlive(pktline.BandData, keepAlive)
	defer stop()
	err := c.sendBands(ctx, g, q, n, plan, mux, limit)
	if err != nil {
		_, _ = mux.Write(pktline.BandError, []byte(clientText(err)+"\n")) // err says more than a failure here
		return err
	}
	stop()
	return mux.Flush()
}

func (c *conn) sendBands(ctx context.Context, g *graph, q *fetchRequest, n *negotiation, plan cut, mux *pktline.Mux, limit int) error {
	progress := io.Discard
	if !q.noProgress {
		progress = mux.Band(pktline.BandProgress)
	}
	var last time.Time
	list, err := c.selectObjects(ctx, g, q, n, plan, func(count int) {
		if count%256 == 0 && time.Since(last) >= progressEvery {
			last = time.Now()
			fmt.Fprintf(progress, "Enumerating objects: %d\r", count)
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "Enumerating objects: %d, done.\n", list.Len())
	out := bufio.NewWriterSize(mux.Band(pktline.BandData), limit)
	deltas, err := c.writePack(ctx, out, q, list)
	if err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(progress, "Total %d (delta %d)\n", list.Len(), deltas)
	return nil
}

func (c *conn) selectObjects(ctx context.Context, g *graph, q *fetchRequest, n *negotiation, plan cut, tick func(int)) (*objectList, error) {
	sel := selection{
		wants:     slices.Concat(q.wants, plan.wants),
		haves:     slices.Concat(n.common, plan.haves),
		filter:    q.filter,
		haveTrees: len(g.grafts) > 0, walkAtMost: walkAtMost,
	}
	if q.includeTag {
		var err error
		if sel.tags, err = c.tagRefs(ctx, g); err != nil {
			return nil, err
		}
	}
	return enumerate(ctx, g, sel, tick)
}

// writePack returns how many objects were written as deltas.
func (c *conn) writePack(ctx context.Context, w io.Writer, q *fetchRequest, list *objectList) (deltas int, err error) {
	pw := pack.NewWriter(w, c.Objects, list.Len())
	// A client that left something out, now or ever, may lack what it should have.
	whole := q.filter == noFilter() && len(list.g.grafts) == 0
	pw.ReuseDeltas(list.placement(q.thin && whole), q.ofsDelta)
	for i := range list.Len() {
		oid := list.OID(i)
		if err := pw.WriteObject(ctx, oid); err != nil {
			return 0, fmt.Errorf("send %s: %w", oid, err)
		}
	}
	_, err = pw.Close()
	return pw.Deltas(), err
}
