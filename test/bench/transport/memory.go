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

// manyAtOnce measures the server's peak memory while b.crowd clones and as many
// pushes of b.size each run at once.
func (b *bench) manyAtOnce(ctx context.Context, w *world) error {
	start := time.Now()
	peak, cpu, err := w.crowd(ctx, b.crowd, b.size)
	if err != nil {
		return err
	}
	b.add(figure{
		Name: fmt.Sprintf("server memory, %d clones and %d pushes at once", b.crowd, b.crowd), Ours: float64(peak) / mib, Unit: "MiB", Of: "value", Target: memoryTarget,
		Detail: fmt.Sprintf("%.1f GiB in %.1f s, server CPU %.2f s", 2*float64(b.crowd)*b.gib(), time.Since(start).Seconds(), cpu.Seconds()),
	})
	return w.removeLake(ctx, "crowd")
}

// crowd runs n clones and n pushes of size bytes at once. The pushes are of the
// wire-level client, which makes its parts up as it sends them; the clones are of
// stock git and are thrown away.
func (w *world) crowd(ctx context.Context, n int, size int64) (peak int64, cpu time.Duration, err error) {
	c, err := w.dial(ctx, w.ours)
	if err != nil {
		return 0, 0, err
	}
	if err := errors.Join(pushParts(c, "crowd", "refs/heads/"+branch, size, parts, 1), c.Close()); err != nil {
		return 0, 0, err
	}
	// As in use for a while, but without what earlier measurements left.
	if err := w.restart(ctx); err != nil {
		return 0, 0, err
	}
	pid := w.ours.pid()
	if err := forget(pid); err != nil {
		return 0, 0, err
	}
	before, err := cpuOf(pid)
	if err != nil {
		return 0, 0, err
	}
	var g errgroup.Group
	for i := range n {
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
			return errors.Join(pushParts(c, "crowd", fmt.Sprintf("refs/heads/bench-%d", i), size, parts, uint64(2+i)), c.Close())
		})
	}
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	after, err := cpuOf(pid)
	if err != nil {
		return 0, 0, err
	}
	peak, err = peakOf(pid)
	return peak, after - before, err
}

// pushParts pushes a commit of n blobs of incompressible bytes, in stored blocks
// as a client with core.compression=0 sends them.
func pushParts(c *wire.Client, lake, ref string, size int64, n int, seed uint64) error {
	tip, write := wire.Parts(size, n, func(i int) io.Reader { return wire.Noise(seed<<16 + uint64(i)) }, 0)
	return c.Push(lake, []wire.Command{{Ref: ref, New: tip}}, write)
}

// load is a pack that a server might be tempted to hold in memory.
type load struct {
	name  string
	n     int // parts
	level int // of zlib
	data  func(int) io.Reader
}

// loads are packs of many parts, of one object, which is of more than 4 GiB if the
// size is, and of parts that deflate to a fiftieth.
var loads = []load{
	{"in 64 parts", 64, 0, func(i int) io.Reader { return wire.Noise(1000 + uint64(i)) }},
	{"in one object", 1, 0, func(int) io.Reader { return wire.Noise(2000) }},
	{"in 4 parts, deflated to a fiftieth", 4, 1, func(i int) io.Reader { return wire.Sparse(3000 + uint64(i)) }},
}

// push pushes a load of size bytes to a new server in a cgroup of memoryTarget and
// returns the most memory that the server had resident, and what the limit was.
func (w *world) push(ctx context.Context, lake string, l load, size int64) (peak int64, limited string, err error) {
	if err := w.restart(ctx); err != nil {
		return 0, "", err
	}
	limit, err := newMemoryLimit(memoryTarget*mib, w.ours.pid())
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, limit.remove()) }()
	if err := forget(w.ours.pid()); err != nil {
		return 0, "", err
	}
	c, err := w.dial(ctx, w.ours)
	if err != nil {
		return 0, "", err
	}
	tip, write := wire.Parts(size, l.n, l.data, l.level)
	if err := errors.Join(c.Push(lake, []wire.Command{{Ref: "refs/heads/" + branch, New: tip}}, write), c.Close()); err != nil {
		return 0, "", err
	}
	peak, err = peakOf(w.ours.pid())
	return peak, limit.what, err
}

// underLimit measures pushes of b.single bytes to a server that may not use more
// memory than the target, its page cache included.
func (b *bench) underLimit(ctx context.Context, w *world) error {
	for _, l := range loads {
		start := time.Now()
		peak, limited, err := w.push(ctx, "single", l, b.single+1)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		b.add(figure{
			Name: fmt.Sprintf("server memory, push of %.2f GiB %s", float64(b.single)/(1<<30), l.name), Ours: float64(peak) / mib, Unit: "MiB", Of: "value", Target: memoryTarget,
			Detail: fmt.Sprintf("in %.1f s, %s", time.Since(start).Seconds(), limited),
		})
		if err := w.removeLake(ctx, "single"); err != nil {
			return err
		}
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
