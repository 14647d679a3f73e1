package pyenv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Store keeps unpacked wheels and the environments composed of them, below one
// directory:
//
//	wheels/<sha256>/   one wheel, unpacked
//	envs/<digest>/     hard links to the files of its wheels, and what finished it
//	envs/<digest>.plain/  the same, of one that could not be finished
//	unfinished/<digest>   how often, and by its time when last
//	uses/<digest>      by its time when it was used last; locked while it is used
//	locked/<digest>    this locked environment was held against the index; holds its digest
//	uv/                uv's cache
//	tmp/<process>/     what is under way, locked by its process; OpenStore removes others
//
// What is in wheels and envs was renamed there whole and never changes until Collect
// removes it whole. It is safe for concurrent use, also by several processes.
type Store struct {
	dir  string
	tmp  string
	lock *os.File // on tmp, held as long as the process lives
	uv   *UV

	most     int64         // bytes of all wheels of an environment
	unpacked bounds        // of them unpacked: bytes and files
	least    time.Duration // what was used since is never removed

	mu     sync.Mutex
	making map[string]*making // by what is made, as long as somebody makes it or waits
}

// making is the right to make something.
type making struct {
	turn  chan struct{} // full while somebody has it
	users int           // who have it or wait for it
}

// OpenStore opens or creates the store in dir, which must be on one file system,
// and takes uv for what is not there yet. uv.Cache is set to be in the store.
func OpenStore(dir string, uv *UV) (*Store, error) {
	for _, name := range []string{"", "wheels", "envs", "unfinished", "uses", "locked", "uv", "tmp"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
		// Sandboxes read as nobody, whatever the umask of the server.
		if err := os.Chmod(path, 0o755); err != nil {
			return nil, err
		}
	}
	uv.Cache = filepath.Join(dir, "uv")
	s := &Store{dir: dir, uv: uv, most: maxEnvironment, unpacked: environmentBounds, least: leastAge, making: make(map[string]*making)}
	// Nobody may sweep a directory that its process has made and not yet locked.
	all, err := os.Open(filepath.Join(dir, "tmp"))
	if err != nil {
		return nil, err
	}
	defer all.Close()
	if err := unix.Flock(int(all.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	if err := s.sweep(); err != nil {
		return nil, err
	}
	if s.tmp, err = os.MkdirTemp(filepath.Join(dir, "tmp"), "process-"); err != nil {
		return nil, err
	}
	if s.lock, err = os.Open(s.tmp); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	return s, s.adopt()
}

// adopt lets what somebody left who kept no account of uses be used last now.
func (s *Store) adopt() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "envs"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		f, err := os.OpenFile(filepath.Join(s.dir, "uses", strings.TrimSuffix(e.Name(), plain)), os.O_RDONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what processes that have ended left under way.
func (s *Store) sweep() error {
	left, err := filepath.Glob(filepath.Join(s.dir, "tmp", "*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		f, err := os.Open(path)
		if err != nil {
			continue // another process sweeps, too
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			err = os.RemoveAll(path)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Resolve finds the wheels for a Spec; it downloads none of them.
func (s *Store) Resolve(ctx context.Context, spec Spec) (*Environment, error) {
	return s.uv.Resolve(ctx, spec)
}

// Ready reports whether an environment is there that was found to be what its Spec
// asks for. A collector may remove it before it is used: only Make is a promise.
func (s *Store) Ready(e *Environment) bool {
	dir, _ := s.place(e)
	return dir != "" && exists(s.lockedFile(e))
}

func (s *Store) envDir(e *Environment) string { return filepath.Join(s.dir, "envs", e.Digest()) }

// lockedFile is named by everything that was held against the index.
func (s *Store) lockedFile(e *Environment) string {
	l := &Lock{}
	l.Put(e)
	sum := sha256.Sum256(l.Encode())
	return filepath.Join(s.dir, "locked", hex.EncodeToString(sum[:]))
}

// Made tells what Make did.
type Made struct {
	Dir    string
	Wheels int   // fetched; the others were there
	Bytes  int64 // downloaded
	// Release ends the use of Dir, which may be removed from then on. It must be
	// called once if Make succeeded.
	Release func()
}

// Make returns the environment's directory. If it is not there it is made: the
// index is asked for exactly the wheels of e, they are fetched, checked, unpacked
// and composed. finish, unless it is nil, may add files to the directory before
// it is visible. If it returns ErrUnfinished, the directory is given all the same, and a
// later Make calls finish again, on another one.
func (s *Store) Make(ctx context.Context, e *Environment, finish func(root string) error) (made Made, err error) {
	if made.Release, err = s.use(e.Digest()); err != nil {
		return made, err
	}
	defer func() {
		if err != nil {
			made.Release()
		}
	}()
	dir, finished := s.place(e)
	checked := exists(s.lockedFile(e))
	if dir == "" || !finished || !checked {
		done, err := s.hold(ctx, "env "+e.Digest())
		if err != nil {
			return made, err
		}
		defer done()
		dir, finished = s.place(e)
		checked = exists(s.lockedFile(e))
	}
	if dir == "" || !checked {
		if err := s.make(ctx, e, finish, &made); err != nil {
			return made, err
		}
		made.Dir, _ = s.place(e)
		return made, os.WriteFile(s.lockedFile(e), []byte(e.Digest()+"\n"), 0o644)
	}
	if !finished && finish != nil {
		if dir, err = s.finishLater(e, dir, finish); err != nil && ctx.Err() != nil {
			return made, err
		}
	}
	made.Dir = dir
	// By its time it is kept; one that has gone meanwhile costs one question to the index.
	now := time.Now()
	_ = os.Chtimes(s.lockedFile(e), now, now)
	return made, nil
}

// make holds e against the index and composes it. The caller has the right to.
func (s *Store) make(ctx context.Context, e *Environment, finish func(root string) error, made *Made) error {
	for _, w := range e.Wheels {
		_, _, t, err := parseName(w.File)
		if err == nil {
			err = t.runs(e.Spec)
		}
		if err != nil {
			return refusef("wheel %s: %v", w.File, err)
		}
	}
	at, err := s.uv.locate(ctx, e)
	if err != nil {
		return err
	}
	large := refusef("%s needs wheels of more than %d MiB together, which is the limit", e.Spec, s.most>>20)
	var total int64
	for _, f := range at {
		if total += f.Size; total > s.most {
			return large
		}
	}
	// What is fetched and unpacked stays until it is composed.
	wheels, err := lockDir(filepath.Join(s.dir, "wheels"), unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer wheels.Close()
	room := &room{spec: e.Spec, left: s.unpacked}
	var mu sync.Mutex
	fetching, gctx := errgroup.WithContext(ctx)
	fetching.SetLimit(4)
	for _, f := range at {
		fetching.Go(func() error {
			n, err := s.wheel(gctx, f, room)
			mu.Lock()
			defer mu.Unlock()
			if n > 0 {
				made.Wheels++
				made.Bytes += n
			}
			if err == nil && made.Bytes > s.most { // the index need not tell sizes
				err = large
			}
			return err
		})
	}
	if err := fetching.Wait(); err != nil {
		return err
	}
	return s.compose(ctx, e, finish)
}

// room is what the wheels of one environment may still take, unpacked.
type room struct {
	spec Spec
	mu   sync.Mutex
	left bounds
}

// take claims room for so many files and directories, and bytes.
func (r *room) take(files int, bytes int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left.files -= files
	r.left.bytes -= bytes
	if r.left.files < 0 || r.left.bytes < 0 {
		return refusef("does not fit beside the other wheels of %s: together they unpack to more than the limit of %d MiB, or of %d files",
			r.spec, environmentBounds.bytes>>20, environmentBounds.files)
	}
	return nil
}

func lockDir(path string, how int) (*os.File, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := flock(d, how); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// hold gives the caller alone the right to make name, until it calls done. It
// fails when ctx ends before that.
func (s *Store) hold(ctx context.Context, name string) (done func(), err error) {
	s.mu.Lock()
	m := s.making[name]
	if m == nil {
		m = &making{turn: make(chan struct{}, 1)}
		s.making[name] = m
	}
	m.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if m.users--; m.users == 0 {
			delete(s.making, name)
		}
	}
	select {
	case m.turn <- struct{}{}:
		return func() { <-m.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

func (s *Store) wheelDir(w Wheel) string { return filepath.Join(s.dir, "wheels", w.SHA256) }

// wheel makes sure that a wheel is unpacked, and returns how many bytes it had to fetch.
func (s *Store) wheel(ctx context.Context, f found, room *room) (int64, error) {
	done, err := s.hold(ctx, "wheel "+f.SHA256)
	if err != nil {
		return 0, err
	}
	defer done()
	dir := s.wheelDir(f.Wheel)
	if _, err := os.Stat(dir); err == nil {
		return 0, nil
	}
	tmp, err := os.MkdirTemp(s.tmp, "wheel-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, "wheel")
	n, err := fetch(ctx, f, file)
	if err != nil {
		return n, err
	}
	root := filepath.Join(tmp, "root")
	if err := unpackFile(ctx, file, f.Package, root, room); err != nil {
		var bad *Error
		if errors.As(err, &bad) {
			return n, refusef("wheel %s %s", f.File, bad.Text)
		}
		return n, fmt.Errorf("unpack %s: %w", f.File, err)
	}
	return n, s.publish(root, dir)
}

// publish makes root durable and visible as dir. If another process was faster
// dir has the same content, and stays.
func (s *Store) publish(root, dir string) error {
	// One flush of the file system costs less than one of each of a thousand files.
	d, err := os.Open(root)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Syncfs(int(d.Fd())), d.Close()); err != nil {
		return err
	}
	if err := os.Rename(root, dir); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

func unpackFile(ctx context.Context, file, pkg, root string, room *room) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := makeDir(root); err != nil {
		return err
	}
	made := map[string]bool{root: true}
	return unpack(f, info.Size(), pkg, wheelBounds, room.take, func(name string) (io.WriteCloser, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := makeDirs(filepath.Dir(path), made); err != nil {
			return nil, err
		}
		out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
		if err != nil {
			return nil, err
		}
		if err := out.Chmod(0o444); err != nil {
			return nil, errors.Join(err, out.Close())
		}
		return out, nil
	})
}

// makeDirs makes a directory and those above it up to one that is in made.
func makeDirs(dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := makeDirs(filepath.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return makeDir(dir)
}

func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// compose links the files of all wheels into the environment's directory.
func (s *Store) compose(ctx context.Context, e *Environment, finish func(root string) error) error {
	dir := s.envDir(e)
	if there, _ := s.place(e); there != "" {
		return nil // of another lock, or made by another process
	}
	tmp, err := os.MkdirTemp(s.tmp, "env-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	if err := makeDir(root); err != nil {
		return err
	}
	made := map[string]bool{root: true}
	from := make(map[string]string) // path -> package
	room := &room{spec: e.Spec, left: s.unpacked}
	now := time.Now()
	for _, w := range e.Wheels {
		top := s.wheelDir(w)
		if err := os.Chtimes(top, now, now); err != nil { // its time tells when it was used
			return err
		}
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err = errors.Join(err, ctx.Err()); err != nil || path == top {
				return err
			}
			rel, err := filepath.Rel(top, path)
			if err != nil {
				return err
			}
			to := filepath.Join(root, rel)
			info, err := d.Info()
			if err != nil {
				return err
			}
			var size int64
			if !d.IsDir() {
				size = info.Size()
			}
			if err := room.take(1, size); err != nil {
				return refusef("wheel %s %v", w.File, err)
			}
			if d.IsDir() {
				if owner := from[rel]; owner != "" {
					return refusef("packages %s and %s cannot be in one environment: %q is a file of the one and a directory of the other", owner, w.Package, rel)
				}
				return makeDirs(to, made)
			}
			if made[to] {
				return refusef("package %s cannot be in one environment with another: its file %q is a directory there", w.Package, rel)
			}
			if owner, there := from[rel]; there {
				same, err := sameContent(path, to)
				if err == nil && !same {
					err = refusef("packages %s and %s cannot be in one environment: both have a file %q, with different content", owner, w.Package, rel)
				}
				return err
			}
			from[rel] = w.Package
			return os.Link(path, to)
		})
		if err != nil {
			return err
		}
	}
	if finish != nil {
		if err := finish(root); errors.Is(err, ErrUnfinished) {
			return errors.Join(s.publish(root, dir+plain), s.failed(e))
		} else if err != nil {
			return err
		}
	}
	return s.publish(root, dir)
}

func sameContent(a, b string) (bool, error) {
	sa, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	sb, err := os.Stat(b)
	if err != nil || sa.Size() != sb.Size() {
		return false, err
	}
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	pa, pb := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(fa, pa)
		m, err2 := io.ReadFull(fb, pb)
		if !bytes.Equal(pa[:n], pb[:m]) {
			return false, nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return err2 == err, nil
		}
		if err = errors.Join(err, err2); err != nil {
			return false, err
		}
	}
}
