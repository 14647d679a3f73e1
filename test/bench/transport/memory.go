package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/test/wire"
)

// memoryTarget is what the server may have resident, whatever clients do.
const memoryTarget = 256

// manyAtOnce measures the server's peak memory while clones and pushes of b.size
// each run at once. The pushes are of the wire-level client, which makes its
// parts up as it sends them; the clones are of stock git and are thrown away.
func (b *bench) manyAtOnce(ctx context.Context, w *world) error {
	c, err := w.dial(ctx, w.ours)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // everything was answered
	if err := pushParts(c, "crowd", "refs/heads/"+branch, b.size, parts, 1); err != nil {
		return err
	}
	// As in use for a while, but without what earlier measurements left.
	if err := w.restart(ctx); err != nil {
		return err
	}
	pid := w.ours.pid()
	if err := forget(pid); err != nil {
		return err
	}
	before, err := cpuOf(pid)
	if err != nil {
		return err
	}
	start := time.Now()
	var g errgroup.Group
	for i := range b.crowd {
		g.Go(func() error {
			dir := filepath.Join(w.dir, fmt.Sprintf("crowd%d", i))
			_, err := command(ctx, w.dir, w.env, "git", "clone", "-q", "--bare", "-b", branch, w.ours.url("crowd"), dir)
			return errors.Join(err, os.RemoveAll(dir))
		})
		g.Go(func() error {
			c, err := w.dial(ctx, w.ours)
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }() // everything was answered
			return pushParts(c, "crowd", fmt.Sprintf("refs/heads/bench-%d", i), b.size, parts, uint64(2+i))
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	wall := time.Since(start)
	after, err := cpuOf(pid)
	if err != nil {
		return err
	}
	peak, err := peakOf(pid)
	if err != nil {
		return err
	}
	b.add(figure{
		Name: fmt.Sprintf("server memory, %d clones and %d pushes at once", b.crowd, b.crowd), Ours: float64(peak) / mib, Unit: "MiB", Of: "value", Target: memoryTarget,
		Detail: fmt.Sprintf("%.1f GiB in %.1f s, server CPU %.2f s", 2*float64(b.crowd)*b.gib(), wall.Seconds(), (after - before).Seconds()),
	})
	return w.removeLake(ctx, "crowd")
}

// pushParts pushes a commit of n blobs of incompressible bytes, in stored blocks
// as a client with core.compression=0 sends them.
func pushParts(c *wire.Client, lake, ref string, size int64, n int, seed uint64) error {
	tip, write := wire.Parts(size, n, func(i int) io.Reader { return wire.Noise(seed<<16 + uint64(i)) }, 0)
	return c.Push(lake, []wire.Command{{Ref: ref, New: tip}}, write)
}

// underLimit pushes packs of b.single bytes to a server that may not use more
// memory than the target, its page cache included: many parts in one pack, one
// object of more than 4 GiB if b.single is, and zeros that deflate to nothing.
func (b *bench) underLimit(ctx context.Context, w *world) error {
	for _, load := range []struct {
		name  string
		n     int
		level int
		data  func(int) io.Reader
	}{
		{"in 64 parts", 64, 0, func(i int) io.Reader { return wire.Noise(1000 + uint64(i)) }},
		{"in one object", 1, 0, func(int) io.Reader { return wire.Noise(2000) }},
		{"of zeros, deflated", 4, 1, func(int) io.Reader { return wire.Zeros() }},
	} {
		if err := w.restart(ctx); err != nil {
			return err
		}
		limit, err := newMemoryLimit(memoryTarget*mib, w.ours.pid())
		if err != nil {
			return err
		}
		if err := forget(w.ours.pid()); err != nil {
			return errors.Join(err, limit.remove())
		}
		start := time.Now()
		c, err := w.dial(ctx, w.ours)
		if err != nil {
			return errors.Join(err, limit.remove())
		}
		tip, write := wire.Parts(b.single+1, load.n, load.data, load.level)
		err = errors.Join(c.Push("single", []wire.Command{{Ref: "refs/heads/" + branch, New: tip}}, write), c.Close())
		wall := time.Since(start)
		peak, peakErr := peakOf(w.ours.pid())
		if err = errors.Join(err, peakErr, w.removeLake(ctx, "single"), limit.remove()); err != nil {
			return fmt.Errorf("%s: %w", load.name, err)
		}
		b.add(figure{
			Name: fmt.Sprintf("server memory, push of %.2f GiB %s", float64(b.single)/(1<<30), load.name), Ours: float64(peak) / mib, Unit: "MiB", Of: "value", Target: memoryTarget,
			Detail: fmt.Sprintf("in %.1f s, %s", wall.Seconds(), limit.what),
		})
	}
	return nil
}

// memoryLimit is a cgroup that a process has been moved into. Without root, or
// without the memory controller, there is none, and only the peak is measured.
type memoryLimit struct{ dir, what string }

func newMemoryLimit(bytes int64, pid int) (memoryLimit, error) {
	for _, version := range []struct{ mount, file string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max"},
	} {
		dir := filepath.Join(version.mount, fmt.Sprintf("headgate-bench-%d", pid))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		err := errors.Join(
			os.WriteFile(filepath.Join(dir, version.file), []byte(strconv.FormatInt(bytes, 10)), 0),
			os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0))
		if err == nil {
			return memoryLimit{dir, fmt.Sprintf("in a cgroup of %d MiB, page cache included", bytes/mib)}, nil
		}
		_ = os.Remove(dir) // the controller is not this mount's
	}
	return memoryLimit{what: "without a limit: no cgroup could be made"}, nil
}

// remove gives the process back to the parent.
func (l *memoryLimit) remove() error {
	if l.dir == "" {
		return nil
	}
	procs, err := os.ReadFile(filepath.Join(l.dir, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(procs)) {
		err = errors.Join(err, os.WriteFile(filepath.Join(filepath.Dir(l.dir), "cgroup.procs"), []byte(pid), 0))
	}
	if err != nil {
		return err
	}
	// The kernel lets go of a cgroup a moment after its last process.
	for range 50 {
		if err = os.Remove(l.dir); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}
