package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/test/wire"
)

// pushCommit pushes one commit of one small file and returns its oid.
func pushCommit(c *wire.Client, path, ref, message string) (objects.OID, error) {
	tip, write := smallCommit(message)
	return tip, c.Push(path, []wire.Command{{Ref: ref, New: tip}}, write)
}

// smallCommit is a commit, a tree and a blob that nothing else has.
func smallCommit(message string) (objects.OID, func(io.Writer) error) {
	fill := func(w io.Writer) (objects.OID, error) {
		p := wire.NewPack(w, 3)
		blob := p.Object(objects.Blob, int64(len(message)), strings.NewReader(message), 1)
		tip := p.Commit(p.Tree([]string{"note"}, []objects.OID{blob}), message)
		return tip, p.Close()
	}
	tip, err := fill(nil)
	return tip, func(w io.Writer) error {
		if err != nil {
			return err
		}
		_, err := fill(w)
		return err
	}
}

// listRefs measures ls-refs with a prefix of ten among b.refs refs, over a
// session that is open already: what it costs besides the server is one round
// trip on loopback.
func (b *bench) listRefs(ctx context.Context, w *world) error {
	c, err := w.dial(ctx, w.ours)
	if err != nil {
		return err
	}
	tip, err := pushCommit(c, "many", "refs/heads/first", "first")
	if err = errors.Join(err, c.Close()); err != nil {
		return err
	}
	if err := w.stockRepo(ctx, "many", true); err != nil {
		return err
	}
	if c, err = w.dial(ctx, w.stock); err != nil {
		return err
	}
	_, err = pushCommit(c, "many", "refs/heads/first", "first")
	if err = errors.Join(err, c.Close()); err != nil {
		return err
	}
	// The refs come by the doors of their stores; how fast is measured elsewhere.
	if err := w.ours.stop(); err != nil {
		return err
	}
	w.ours = nil
	name := func(i int) string { return fmt.Sprintf("refs/heads/agent/%06d", i) }
	store, err := refs.OpenBolt(filepath.Join(w.lakeDir("many"), "refs.db"))
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	packed.WriteString("# pack-refs with: peeled fully-peeled sorted \n")
	var updates []refs.Update
	for i := range b.refs {
		updates = append(updates, refs.Update{Name: refs.Name(name(i)), New: tip})
		fmt.Fprintf(&packed, "%s %s\n", tip, name(i))
		if len(updates) == 1000 || i == b.refs-1 {
			if err := store.Apply(ctx, updates, refs.Cause{Who: "bench", Why: "bench"}); err != nil {
				return err
			}
			updates = updates[:0]
		}
	}
	if err := store.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(w.repos, "many", "packed-refs"), packed.Bytes(), 0o644); err != nil {
		return err
	}
	if err := w.restart(ctx); err != nil {
		return err
	}
	prefix, want := name(b.refs / 2)[:len(name(0))-1], 10
	ours, err := w.timeListing(ctx, w.ours, prefix, want)
	if err != nil {
		return err
	}
	stock, err := w.timeListing(ctx, w.stock, prefix, want)
	if err != nil {
		return err
	}
	b.add(figure{Name: fmt.Sprintf("ls-refs, 10 of %d refs by prefix", b.refs), Ours: ours.Seconds() * 1e3, Other: stock.Seconds() * 1e3, Than: "upload-pack, packed-refs", Unit: "ms", Of: "value", Target: 5, Detail: "median of 101, one round trip included"})
	return w.removeLake(ctx, "many")
}

func (w *world) timeListing(ctx context.Context, d *daemon, prefix string, want int) (time.Duration, error) {
	c, err := w.dial(ctx, d)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }() // everything was answered
	f, err := c.Fetcher("many")
	if err != nil {
		return 0, err
	}
	var times []time.Duration
	for range 101 {
		start := time.Now()
		lines, err := f.LsRefs(prefix)
		if err != nil {
			return 0, err
		}
		if len(lines) != want {
			return 0, fmt.Errorf("%s: %d refs, want %d", d.name, len(lines), want)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times[len(times)/2], f.End()
}

// applyRefs measures durable creations of refs inside the server: 256 writers,
// each of which waits for one before it asks for the next.
func (b *bench) applyRefs(ctx context.Context, w *world) error {
	const writers, lasting = 256, 3 * time.Second
	best, disk := 0.0, 0.0
	for turn := range b.rounds {
		rate, err := w.syncRate()
		if err != nil {
			return err
		}
		disk = max(disk, rate)
		path := filepath.Join(w.dir, fmt.Sprintf("refs%d.db", turn))
		store, err := refs.OpenBolt(path)
		if err != nil {
			return err
		}
		var count atomic.Int64
		until := time.Now().Add(lasting)
		start := time.Now()
		var g errgroup.Group
		for i := range writers {
			g.Go(func() error {
				var oid refs.OID
				for n := 0; time.Now().Before(until); n++ {
					binary.BigEndian.PutUint64(oid[:], uint64(n+1))
					u := refs.Update{Name: refs.Name(fmt.Sprintf("refs/heads/agent/%03d/%06d", i, n)), New: oid}
					if err := store.Apply(ctx, []refs.Update{u}, refs.Cause{Who: "bench", Why: "push"}); err != nil {
						return err
					}
					count.Add(1)
				}
				return nil
			})
		}
		err = g.Wait()
		best = max(best, float64(count.Load())/time.Since(start).Seconds())
		if err = errors.Join(err, store.Close(), os.Remove(path)); err != nil {
			return err
		}
	}
	b.add(figure{Name: "durable ref creations, 256 writers", Ours: best, Unit: "/s", Of: "value", Target: 20_000, AtLeast: true,
		Detail: fmt.Sprintf("two fdatasyncs a commit, of which this disk does %.0f a second", disk)})
	return nil
}

// syncRate returns how many pages of 4 KiB a second the disk makes durable one
// after another: what any store of refs is bound by.
func (w *world) syncRate() (float64, error) {
	f, err := os.CreateTemp(w.dir, "sync-")
	if err != nil {
		return 0, err
	}
	page, n := make([]byte, 4096), 0
	start := time.Now()
	for err == nil && time.Since(start) < time.Second {
		if _, err = f.WriteAt(page, int64(n%256)*4096); err == nil {
			err = syscall.Fdatasync(int(f.Fd()))
		}
		n++
	}
	rate := float64(n) / time.Since(start).Seconds()
	return rate, errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// smallPushes measures whole pushes of one new commit each to a new branch, over
// connections that are open: sessions of a multiplexed connection, as with
// OpenSSH's ControlMaster.
func (b *bench) smallPushes(ctx context.Context, w *world) error {
	if err := w.stockRepo(ctx, "small", true); err != nil {
		return err
	}
	ours, cpu, err := b.pushRate(ctx, w, w.ours)
	if err != nil {
		return err
	}
	stock, stockCPU, err := b.pushRate(ctx, w, w.stock)
	if err != nil {
		return err
	}
	b.add(figure{Name: "pushes of one commit, open connections", Ours: ours, Other: stock, Than: "receive-pack", Unit: "/s", Of: "value", Target: 300, AtLeast: true,
		Detail: fmt.Sprintf("server CPU per push %.2f ms, stock %.2f ms", cpu*1e3, stockCPU*1e3)})
	return w.removeLake(ctx, "small")
}

// pushRate returns pushes per second and the server's processor seconds for each.
func (b *bench) pushRate(ctx context.Context, w *world, d *daemon) (rate, cpu float64, err error) {
	// Half of what the server lets a connection have: a session counts until the
	// server has seen its end, a moment after the client has.
	const connections, sessions, lasting = 8, 4, 5 * time.Second
	before, err := cpuOf(d.pid())
	if err != nil {
		return 0, 0, err
	}
	var count atomic.Int64
	var g errgroup.Group
	var clients []*wire.Client
	defer func() {
		for _, c := range clients {
			err = errors.Join(err, c.Close())
		}
	}()
	for range connections {
		c, err := w.dial(ctx, d)
		if err != nil {
			return 0, 0, err
		}
		clients = append(clients, c)
	}
	if _, err := pushCommit(clients[0], "small", "refs/heads/first", "first"); err != nil {
		return 0, 0, err
	}
	start := time.Now()
	until := start.Add(lasting)
	for i := range connections * sessions {
		g.Go(func() error {
			for n := 0; time.Now().Before(until); n++ {
				ref := fmt.Sprintf("refs/heads/agent/%d/%d", i, n)
				if _, err := pushCommit(clients[i%connections], "small", ref, ref); err != nil {
					return err
				}
				count.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	rate = float64(count.Load()) / time.Since(start).Seconds()
	time.Sleep(100 * time.Millisecond)
	after, err := cpuOf(d.pid())
	return rate, (after - before).Seconds() / float64(count.Load()), err
}
