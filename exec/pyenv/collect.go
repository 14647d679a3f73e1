package pyenv

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// leastAge is how long anything is kept after its last use, however little room
// there is: what is about to be used again is worth more.
const leastAge = time.Hour

// Keep says what of a Store stays that nobody uses. What is used stays in any case.
type Keep struct {
	Age   time.Duration // since the last use; 0 sets no limit
	Bytes int64         // of all that is there, on disk; what was used longest ago goes first. 0 sets no limit
}

// Collected tells what Collect removed.
type Collected struct {
	Environments, Wheels, Locks int
	Freed                       int64 // bytes on disk
	Left                        int64 // bytes on disk of what is there at the end
}

// Collect removes environments, wheels and marks of locks that were not used for
// longer than keep says, in this process or any other. It is safe beside Make, and
// may be killed at any time: the next OpenStore removes what it was removing. An
// environment that was removed is made again when a function needs it.
func (s *Store) Collect(ctx context.Context, keep Keep) (Collected, error) {
	c := collector{store: s, keep: keep, now: time.Now()}
	err := c.run(ctx)
	return c.done, err
}

// LogValue implements slog.LogValuer.
func (c Collected) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("environments", c.Environments), slog.Int("wheels", c.Wheels), slog.Int("locks", c.Locks),
		slog.Int64("freed_bytes", c.Freed), slog.Int64("left_bytes", c.Left))
}

type collector struct {
	store *Store
	keep  Keep
	now   time.Time
	done  Collected
}

// kept is something that may be removed.
type kept struct {
	name string // of an environment its digest
	used time.Time
	size int64 // bytes on disk of its files that nothing else links to
	free bool  // of a wheel: no file of it is linked from elsewhere
	dirs int   // of an environment: how many directories it has
}

func (c *collector) run(ctx context.Context) error {
	envs, err := c.environments(ctx)
	if err != nil {
		return err
	}
	for i, e := range envs {
		var err error
		switch {
		case e.dirs == 0 && c.unused(e, 0), e.dirs > 0 && c.keep.Age > 0 && c.unused(e, c.keep.Age):
			envs[i].name = "" // not looked at again, though it may turn out to be in use
			err = c.removeEnvironment(ctx, e)
		case e.dirs == 2:
			err = c.removePlain(ctx, e)
		}
		if err != nil {
			return err
		}
	}
	wheels, total, err := c.wheels(ctx)
	if err != nil {
		return err
	}
	left := wheels[:0]
	for _, w := range wheels {
		if c.keep.Age > 0 && w.free && c.unused(w, c.keep.Age) {
			removed, err := c.removeWheel(ctx, w)
			if err != nil {
				return err
			}
			if removed {
				total -= w.size
				continue
			}
		}
		left = append(left, w)
	}
	for _, e := range envs {
		if e.name != "" {
			total += e.size
		}
	}
	if total, err = c.shrink(ctx, left, envs, total); err != nil {
		return err
	}
	c.done.Left = total
	return c.locks(ctx)
}

// unused reports whether k was not used for so long.
func (c *collector) unused(k kept, age time.Duration) bool {
	return c.now.Sub(k.used) > max(age, c.store.least)
}

// shrink removes what was used longest ago until no more than keep.Bytes are left:
// wheels that are in no environment, then an environment, then what it leaves.
func (c *collector) shrink(ctx context.Context, wheels, envs []kept, total int64) (int64, error) {
	for c.keep.Bytes > 0 && total > c.keep.Bytes {
		slices.SortFunc(wheels, oldest)
		for _, w := range wheels {
			if total <= c.keep.Bytes {
				return total, nil
			}
			if !w.free || !c.unused(w, 0) {
				continue
			}
			removed, err := c.removeWheel(ctx, w)
			if err != nil {
				return total, err
			}
			if removed {
				total -= w.size
			}
		}
		i := slices.IndexFunc(envs, func(e kept) bool { return e.name != "" && e.dirs > 0 && c.unused(e, 0) })
		if i < 0 || total <= c.keep.Bytes {
			break
		}
		e := envs[i]
		envs = envs[i+1:]
		before := c.done.Environments
		if err := c.removeEnvironment(ctx, e); err != nil {
			return total, err
		}
		if c.done.Environments == before {
			continue // in use
		}
		total -= e.size
		var err error
		if wheels, _, err = c.wheels(ctx); err != nil {
			return total, err
		}
	}
	return total, nil
}

// environments lists what is composed, and what somebody meant to.
func (c *collector) environments(ctx context.Context) ([]kept, error) {
	found := make(map[string]*kept)
	for _, kind := range []string{"uses", "envs"} {
		entries, err := os.ReadDir(filepath.Join(c.store.dir, kind))
		if err != nil {
			return nil, err
		}
		for _, d := range entries {
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // another process removes it
			}
			if err != nil {
				return nil, err
			}
			digest := strings.TrimSuffix(d.Name(), plain)
			e := found[digest]
			if e == nil {
				e = &kept{name: digest, used: info.ModTime()}
				found[digest] = e
			}
			if kind == "uses" {
				continue
			}
			own, _, err := measure(ctx, filepath.Join(c.store.dir, "envs", d.Name()))
			if err != nil {
				return nil, err
			}
			e.dirs++
			e.size += own
		}
	}
	list := make([]kept, 0, len(found))
	for _, e := range found {
		list = append(list, *e)
	}
	slices.SortFunc(list, oldest)
	return list, nil
}

// oldest orders by the last use.
func oldest(a, b kept) int {
	return cmp.Or(a.used.Compare(b.used), strings.Compare(a.name, b.name))
}

// wheels lists what is unpacked, and adds up its size. An environment shares the
// files of its wheels, so that one that is composed of a wheel shows in its links.
func (c *collector) wheels(ctx context.Context) (list []kept, total int64, err error) {
	entries, err := os.ReadDir(filepath.Join(c.store.dir, "wheels"))
	if err != nil {
		return nil, 0, err
	}
	for _, d := range entries {
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		own, shared, err := measure(ctx, filepath.Join(c.store.dir, "wheels", d.Name()))
		if err != nil {
			return nil, 0, err
		}
		list = append(list, kept{name: d.Name(), used: info.ModTime(), size: own, free: shared == 0})
		total += own + shared
	}
	return list, total, nil
}

// measure adds up the bytes on disk of a directory's files: own are those that it
// alone has a link to.
func measure(ctx context.Context, dir string) (own, shared int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody else removes it
		}
		if err != nil || d.IsDir() {
			return errors.Join(err, ctx.Err())
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err == unix.ENOENT {
			return nil
		} else if err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		if st.Nlink == 1 {
			own += st.Blocks * 512
		} else {
			shared += max(1, st.Blocks*512)
		}
		return nil
	})
	return own, shared, err
}

// removeEnvironment removes an environment, unless somebody uses it.
func (c *collector) removeEnvironment(ctx context.Context, e kept) error {
	f, err := lockFile(filepath.Join(c.store.dir, "uses", e.name), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.ModTime().After(e.used) {
		return err // it was used since it was listed
	}
	var trash []string
	for _, name := range []string{e.name, e.name + plain} {
		to, err := c.discard("envs", name)
		if err != nil {
			return err
		}
		if to != "" {
			trash = append(trash, to)
		}
	}
	// Nobody has its lock but us: who waits for it sees that it is another file's.
	for _, path := range []string{filepath.Join(c.store.dir, "unfinished", e.name), f.Name()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if len(trash) > 0 {
		c.done.Environments++
	}
	return c.empty(ctx, trash)
}

// removePlain removes what was replaced by the environment when it was finished.
func (c *collector) removePlain(ctx context.Context, e kept) error {
	f, err := lockFile(filepath.Join(c.store.dir, "uses", e.name), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	to, err := c.discard("envs", e.name+plain)
	if err := errors.Join(err, f.Close()); err != nil || to == "" {
		return err
	}
	return c.empty(ctx, []string{to})
}

// removeWheel removes a wheel that no environment has, unless one is being made.
func (c *collector) removeWheel(ctx context.Context, w kept) (removed bool, err error) {
	all, err := lockDir(filepath.Join(c.store.dir, "wheels"), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer all.Close()
	if _, shared, err := measure(ctx, filepath.Join(c.store.dir, "wheels", w.name)); err != nil || shared > 0 {
		return false, err
	}
	to, err := c.discard("wheels", w.name)
	if err != nil || to == "" {
		return false, err
	}
	if err := all.Close(); err != nil {
		return false, err
	}
	c.done.Wheels++
	return true, c.empty(ctx, []string{to})
}

// discard moves a directory to where OpenStore sweeps, and returns its new path, ""
// if it is not there. It is durably gone before the first file of it is.
func (c *collector) discard(kind, name string) (string, error) {
	at, err := os.MkdirTemp(c.store.tmp, "gone-")
	if err != nil {
		return "", err
	}
	to := filepath.Join(at, "root")
	if err := os.Rename(filepath.Join(c.store.dir, kind, name), to); errors.Is(err, fs.ErrNotExist) {
		return "", os.Remove(at)
	} else if err != nil {
		return "", err
	}
	parent, err := os.Open(filepath.Join(c.store.dir, kind))
	if err != nil {
		return "", err
	}
	return at, errors.Join(parent.Sync(), parent.Close())
}

// empty removes what was discarded and counts it.
func (c *collector) empty(ctx context.Context, trash []string) error {
	for _, dir := range trash {
		own, _, err := measure(context.WithoutCancel(ctx), dir)
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			return err
		}
		c.done.Freed += own
	}
	return nil
}

// locks removes the marks of locks that were not used, or whose environment is gone.
func (c *collector) locks(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(c.store.dir, "locked"))
	if err != nil {
		return err
	}
	for _, d := range entries {
		path := filepath.Join(c.store.dir, "locked", d.Name())
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		old := c.keep.Age > 0 && c.unused(kept{used: info.ModTime()}, c.keep.Age)
		text, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		digest := strings.TrimSpace(string(text)) // earlier ones are empty
		dir := filepath.Join(c.store.dir, "envs", digest)
		if gone := digest != "" && !exists(dir) && !exists(dir+plain); !old && !gone {
			continue
		}
		// One that is made anew at this moment loses its mark, and asks the index again.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		c.done.Locks++
	}
	return nil
}
