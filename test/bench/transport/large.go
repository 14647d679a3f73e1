package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/test/wire"
)

const (
	parts = 16
	// branch is ungated, so a push is git's part alone.
	branch = "bench"
)

// sourceRepo makes a work tree with the settings that headgate init writes and
// size bytes of incompressible parts. init is what a user runs, so a setting
// that it forgets is missed here too.
func (w *world) sourceRepo(ctx context.Context, name string, size int64, n int, seed uint64) (string, error) {
	dir := filepath.Join(w.dir, name)
	if _, err := command(ctx, w.dir, w.env, filepath.Join(w.bin, "headgate"), "init", dir); err != nil {
		return "", err
	}
	table := filepath.Join(dir, "tables", "t")
	if err := os.MkdirAll(table, 0o755); err != nil {
		return "", err
	}
	for i := range n {
		f, err := os.Create(filepath.Join(table, fmt.Sprintf("%04d.parquet", i)))
		if err != nil {
			return "", err
		}
		_, err = io.CopyN(f, wire.Noise(seed<<16+uint64(i)), size/int64(n))
		if err = errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
	for _, args := range [][]string{{"add", "-A"}, {"commit", "-q", "-m", "Parts"}, {"branch", "-f", branch}} {
		if _, err := command(ctx, dir, w.env, "git", args...); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// packFloor is what a push costs its client without any server.
func (w *world) packFloor(ctx context.Context, dir string, out io.Writer) (cost, error) {
	return pipe(ctx, dir, w.env, strings.NewReader(branch+"\n"), out, "git", "pack-objects", "--revs", "--stdout", "-q", "--thin", "--delta-base-offset")
}

// cloneFloor is what a clone costs its client without any server: taking the
// same pack from a local file, and the checkout.
func (w *world) cloneFloor(ctx context.Context, pack, dir, tip string) (cost, error) {
	if err := os.RemoveAll(dir); err != nil {
		return cost{}, err
	}
	if _, err := command(ctx, w.dir, w.env, "git", "init", "-q", "-b", branch, dir); err != nil {
		return cost{}, err
	}
	f, err := os.Open(pack)
	if err != nil {
		return cost{}, err
	}
	defer f.Close()
	c, err := pipe(ctx, dir, w.env, f, nil, "git", "index-pack", "--stdin", "--fix-thin", "--check-self-contained-and-connected")
	if err != nil {
		return cost{}, err
	}
	out, err := command(ctx, dir, w.env, "git", "checkout", "-q", tip)
	c.wall += out.wall
	c.cpu += out.cpu
	return c, err
}

// large measures pushes and clones of b.size in 16 parts.
func (b *bench) large(ctx context.Context, w *world) error {
	src, err := w.sourceRepo(ctx, "source", b.size, parts, 1)
	if err != nil {
		return err
	}
	defer os.RemoveAll(src)
	tip, err := command(ctx, src, w.env, "git", "rev-parse", branch)
	if err != nil {
		return err
	}
	head := strings.TrimSpace(string(tip.output))
	pack := filepath.Join(w.dir, "source.pack")
	f, err := os.Create(pack)
	if err != nil {
		return err
	}
	_, err = w.packFloor(ctx, src, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	defer os.Remove(pack)

	var packed, indexed, push, stockPush, clone, stockClone, send, take cost
	copyDir := filepath.Join(w.dir, "clone")
	for i := range b.rounds {
		lake := fmt.Sprintf("large%d", i)
		if err := w.stockRepo(ctx, lake, true); err != nil {
			return err
		}
		c, err := w.packFloor(ctx, src, io.Discard)
		if err != nil {
			return err
		}
		packed.less(c)
		for _, side := range []struct {
			d           *daemon
			push, clone *cost
		}{{w.ours, &push, &clone}, {w.stock, &stockPush, &stockClone}} {
			if c, err = w.client(ctx, side.d, src, "push", "-q", side.d.url(lake), branch+":"+branch); err != nil {
				return err
			}
			side.push.less(c)
			if err := os.RemoveAll(copyDir); err != nil {
				return err
			}
			if c, err = w.client(ctx, side.d, w.dir, "clone", "-q", "-b", branch, side.d.url(lake), copyDir); err != nil {
				return err
			}
			side.clone.less(c)
		}
		if c, err = w.cloneFloor(ctx, pack, copyDir, head); err != nil {
			return err
		}
		indexed.less(c)
		sent, taken, err := w.transport(ctx, pack)
		if err != nil {
			return err
		}
		send.less(sent)
		take.less(taken)
		if err := w.removeLake(ctx, lake); err != nil {
			return err
		}
	}
	detail := func(c, floor cost) string {
		return fmt.Sprintf("CPU: client %.2f s (floor %.2f s), server %.2f s", c.cpu.Seconds(), floor.cpu.Seconds(), c.server.Seconds())
	}
	b.add(figure{Name: "clone, against the client's floor", Ours: clone.wall.Seconds(), Other: indexed.wall.Seconds(), Than: "index-pack + checkout", Unit: "s", Of: "ratio", Target: 1.15, Detail: detail(clone, indexed)})
	b.add(figure{Name: "clone, against stock git tuned", Ours: clone.wall.Seconds(), Other: stockClone.wall.Seconds(), Than: "upload-pack, no deltas, level 0", Unit: "s", Of: "ratio", Detail: detail(stockClone, indexed)})
	b.add(figure{Name: "push, against the client's floor", Ours: push.wall.Seconds(), Other: packed.wall.Seconds(), Than: "pack-objects > /dev/null", Unit: "s", Of: "ratio", Target: 1.15, Detail: detail(push, packed)})
	b.add(figure{Name: "push, against stock git tuned", Ours: push.wall.Seconds(), Other: stockPush.wall.Seconds(), Than: "receive-pack that keeps packs", Unit: "s", Of: "ratio", Detail: detail(stockPush, packed)})
	// SSH costs both sides the same and is the library's; what git costs is ours.
	perGiB := func(name string, ours, stock, ssh cost, than string, target float64) {
		b.add(figure{Name: name, Ours: (ours.server - ssh.server).Seconds() / b.gib(), Other: (stock.server - ssh.server).Seconds() / b.gib(), Than: than, Unit: "s", Of: "value", Target: target,
			Detail: fmt.Sprintf("and %.2f s for SSH: %.2f s together", ssh.server.Seconds()/b.gib(), ours.server.Seconds()/b.gib())})
	}
	perGiB("server CPU per GiB served, without SSH", clone, stockClone, send, "upload-pack tuned", 1.6)
	perGiB("server CPU per GiB ingested, without SSH", push, stockPush, take, "receive-pack tuned", 3.2)
	if !b.slow {
		return nil
	}
	return b.defaults(ctx, w, src, clone, push)
}

// partSize is of a part as snapshots have them; git add keeps each in a file of its
// own, deflated at the level that headgate init sets, and a push opens them one by one.
const partSize = 512 << 10

// small measures a push of b.size in parts of the size that tables have.
func (b *bench) small(ctx context.Context, w *world) error {
	n := int(b.size / partSize)
	src, err := w.sourceRepo(ctx, "source", b.size, n, 2)
	if err != nil {
		return err
	}
	defer os.RemoveAll(src)
	var packed, push cost
	for i := range b.rounds {
		c, err := w.packFloor(ctx, src, io.Discard)
		if err != nil {
			return err
		}
		packed.less(c)
		lake := fmt.Sprintf("parts%d", i)
		if c, err = w.client(ctx, w.ours, src, "push", "-q", w.ours.url(lake), branch+":"+branch); err != nil {
			return err
		}
		push.less(c)
		if err := w.removeLake(ctx, lake); err != nil {
			return err
		}
	}
	b.add(figure{
		Name: fmt.Sprintf("push in %d parts, against the client's floor", n), Ours: push.wall.Seconds(), Other: packed.wall.Seconds(), Than: "pack-objects > /dev/null", Unit: "s", Of: "ratio", Target: 1.15,
		Detail: fmt.Sprintf("CPU: client %.2f s (floor %.2f s), server %.2f s", push.cpu.Seconds(), packed.cpu.Seconds(), push.server.Seconds()),
	})
	return nil
}

// defaults measures stock git as it comes, once: a client that searches for
// deltas and deflates, and a server that unpacks and does the same again.
func (b *bench) defaults(ctx context.Context, w *world, src string, clone, push cost) error {
	if err := w.stockRepo(ctx, "default", false); err != nil {
		return err
	}
	plain := filepath.Join(w.dir, "plain")
	defer os.RemoveAll(plain)
	if _, err := command(ctx, w.dir, w.env, "git", "init", "-q", "-b", branch, plain); err != nil {
		return err
	}
	if _, err := command(ctx, plain, w.env, "cp", "-r", filepath.Join(src, "tables"), "."); err != nil {
		return err
	}
	for _, args := range [][]string{{"add", "-A"}, {"commit", "-q", "-m", "Parts"}} {
		if _, err := command(ctx, plain, w.env, "git", args...); err != nil {
			return err
		}
	}
	slowPush, err := w.client(ctx, w.stock, plain, "push", "-q", w.stock.url("default"), branch)
	if err != nil {
		return err
	}
	copyDir := filepath.Join(w.dir, "clone")
	defer os.RemoveAll(copyDir)
	if err := os.RemoveAll(copyDir); err != nil {
		return err
	}
	slowClone, err := w.client(ctx, w.stock, w.dir, "clone", "-q", "-b", branch, w.stock.url("default"), copyDir)
	if err != nil {
		return err
	}
	detail := func(c cost) string {
		return fmt.Sprintf("stock CPU: client %.1f s, server %.1f s", c.cpu.Seconds(), c.server.Seconds())
	}
	b.add(figure{Name: "clone, against stock git as it comes", Ours: clone.wall.Seconds(), Other: slowClone.wall.Seconds(), Than: "default upload-pack", Unit: "s", Of: "speedup", Target: 20, AtLeast: true, Detail: detail(slowClone)})
	b.add(figure{Name: "push, against stock git as it comes", Ours: push.wall.Seconds(), Other: slowPush.wall.Seconds(), Than: "default client, receive-pack", Unit: "s", Of: "speedup", Detail: detail(slowPush)})
	return os.RemoveAll(filepath.Join(w.repos, "default"))
}

// removeLake frees the disk of a measurement, on both servers.
func (w *world) removeLake(ctx context.Context, lake string) error {
	c, err := w.dial(ctx, w.ours)
	if err != nil {
		return err
	}
	_, err = c.Run("lake rm --force " + lake)
	return errors.Join(err, c.Close(), os.RemoveAll(filepath.Join(w.repos, lake)))
}
