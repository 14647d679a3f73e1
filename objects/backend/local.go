package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Local is a Backend on a directory: each key is a read-only file at its path.
type Local struct {
	dir string
}

// tmpDir holds files that are being written. It starts with a dot, which no key may.
const tmpDir = ".tmp"

// staleTemp is the age from which a temporary file belongs to nobody: its
// writer was killed. A live one is touched with every write.
const staleTemp = 24 * time.Hour

// NewLocal makes the directory if need be, and removes what killed writers left.
func NewLocal(dir string) (*Local, error) {
	l := &Local{dir: dir}
	tmp := filepath.Join(dir, tmpDir)
	if err := mkdirAll(tmp); err != nil {
		return nil, err
	}
	left, err := os.ReadDir(tmp)
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < staleTemp {
			continue
		}
		if err := os.Remove(filepath.Join(tmp, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return l, nil
}

func (l *Local) path(key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	return filepath.Join(l.dir, filepath.FromSlash(key)), nil
}

// Put implements Backend: a temporary file, fsync, rename, fsync of the directory.
func (l *Local) Put(ctx context.Context, key string, r io.Reader) (err error) {
	dst, err := l.path(key)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Join(l.dir, tmpDir), "put-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("put %s: %w", key, errors.Join(err, f.Close(), os.Remove(f.Name())))
		}
	}()
	if _, err = io.Copy(f, ctxReader{ctx, r}); err != nil {
		return err
	}
	if err = f.Chmod(0o444); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = mkdirAll(filepath.Dir(dst)); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), dst); err != nil {
		return err
	}
	// From here on there is no temporary file to remove.
	if err := f.Close(); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return syncDir(filepath.Dir(dst))
}

// Adopt implements Adopter. Renames come first and then one fsync for each
// directory: a push of many parts touches at most 256 directories.
func (l *Local) Adopt(ctx context.Context, files []Adoption) error {
	dirs := make(map[string]bool)
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		dst, err := l.path(file.Key)
		if err != nil {
			return err
		}
		dir := filepath.Dir(dst)
		if !dirs[dir] {
			if err := mkdirAll(dir); err != nil {
				return err
			}
			dirs[dir] = true
		}
		if err := os.Rename(file.Path, dst); err != nil {
			return fmt.Errorf("adopt %s: %w", file.Key, err)
		}
	}
	for dir := range dirs {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// OpenAt implements Opener.
func (l *Local) OpenAt(ctx context.Context, key string) (ReadAtCloser, error) {
	return l.open(ctx, key)
}

// Map implements Mapper.
func (l *Local) Map(ctx context.Context, key string) (data []byte, unmap func() error, err error) {
	f, err := l.open(ctx, key)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }() // the mapping outlives it
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if st.Size() == 0 {
		return nil, func() error { return nil }, nil // which cannot be mapped
	}
	data, err = syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map %s: %w", key, err)
	}
	return data, func() error { return syscall.Munmap(data) }, nil
}

func (l *Local) open(ctx context.Context, key string) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := l.path(key)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if err != nil {
		return nil, notFound(key, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = notFound(key, fs.ErrNotExist)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Get implements Backend.
func (l *Local) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if off < 0 {
		return nil, fmt.Errorf("get %s: negative offset %d", key, off)
	}
	f, err := l.open(ctx, key)
	if err != nil {
		return nil, err
	}
	if off > 0 {
		if _, err := f.Seek(off, io.SeekStart); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if n < 0 {
		return f, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, n), f}, nil
}

// Stat implements Backend.
func (l *Local) Stat(ctx context.Context, key string) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	p, err := l.path(key)
	if err != nil {
		return Info{}, err
	}
	st, err := os.Lstat(p)
	if err == nil && !st.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Info{}, notFound(key, err)
	}
	return Info{Key: key, Size: st.Size(), Modified: st.ModTime()}, nil
}

// Delete implements Backend.
func (l *Local) Delete(ctx context.Context, key string) error {
	return l.DeleteAll(ctx, []string{key})
}

// DeleteAll implements BatchDeleter, with one fsync for each directory.
func (l *Local) DeleteAll(ctx context.Context, keys []string) error {
	dirs := make(map[string]bool)
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, err := l.path(key)
		if err != nil {
			return err
		}
		err = os.Remove(p)
		switch {
		case err == nil:
			dirs[filepath.Dir(p)] = true
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	for dir := range dirs {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// List implements Backend.
func (l *Local) List(ctx context.Context, prefix string, fn func(Info) error) error {
	start := l.dir
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		p, err := l.path(prefix[:i])
		if err != nil {
			return err
		}
		start = p
	}
	return filepath.WalkDir(start, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // nothing below the prefix, or deleted meanwhile
			}
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(l.dir, p)
		if err != nil {
			return err
		}
		key := filepath.ToSlash(rel)
		if e.IsDir() {
			if path.Base(key) == tmpDir || !overlaps(key, prefix) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasPrefix(key, prefix) || CheckKey(key) != nil || !e.Type().IsRegular() {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		return fn(Info{Key: key, Size: info.Size(), Modified: info.ModTime()})
	})
}

// overlaps tells whether keys below dir can start with prefix.
func overlaps(dir, prefix string) bool {
	if dir == "." {
		return true
	}
	dir += "/"
	return strings.HasPrefix(dir, prefix) || strings.HasPrefix(prefix, dir)
}

// Link implements Linker.
func (l *Local) Link(ctx context.Context, key, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := l.path(key)
	if err != nil {
		return err
	}
	if err := os.Link(p, path); err != nil {
		// Tell a missing key from a missing target directory.
		if _, statErr := os.Lstat(p); statErr != nil {
			return notFound(key, statErr)
		}
		return err
	}
	return nil
}

func notFound(key string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%w: %s", ErrNotFound, key)
	}
	return err
}

// mkdirAll makes dir and its parents; those that it makes are durable.
func mkdirAll(dir string) error {
	err := os.Mkdir(dir, 0o755)
	switch {
	case err == nil:
		return syncDir(filepath.Dir(dir))
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir:
		if err := mkdirAll(filepath.Dir(dir)); err != nil {
			return err
		}
		return mkdirAll(dir)
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
