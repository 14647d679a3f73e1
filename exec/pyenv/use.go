package pyenv

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnfinished is what a finish function returns (see Make) that could not do its
// work, where the environment does without.
var ErrUnfinished = errors.New("the environment is usable, but not finished")

// An environment that is not finished is tried again, after a wait that doubles.
const (
	firstRetry = 10 * time.Minute
	lastRetry  = 24 * time.Hour
)

// plain is the end of the name of an environment's directory that is not finished.
const plain = ".plain"

// use holds an environment, in whatever state it is, so that no collector of any
// process removes it until done is called.
func (s *Store) use(digest string) (done func(), err error) {
	f, err := lockFile(filepath.Join(s.dir, "uses", digest), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	touch := func() error { return os.Chtimes(f.Name(), time.Time{}, time.Now()) }
	if err := touch(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		// Its time decides when it is removed, no sooner and no later; and nobody can
		// remove it yet, so that the name is that of the open file.
		_ = touch()
		_ = f.Close()
	}, nil
}

// lockFile opens path, makes it if it is not there, and locks it. Whoever removes
// such a file holds it exclusively: one that is not at its path any more when the
// lock is had is nobody's, and the next one is taken.
func lockFile(path string, how int) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		if err := flock(f, how); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		held, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(held, there) {
			return f, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, f.Close())
		}
		_ = f.Close()
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// place is where an environment is that is there; finished says whether nothing is
// left to be done to it, for now.
func (s *Store) place(e *Environment) (dir string, finished bool) {
	if dir := s.envDir(e); exists(dir) {
		return dir, true
	}
	if dir := s.envDir(e) + plain; exists(dir) {
		n, last := s.failures(e)
		return dir, time.Since(last) < retryAfter(n)
	}
	return "", false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func retryAfter(failures int) time.Duration {
	wait := firstRetry
	for n := 1; n < failures && wait < lastRetry; n++ {
		wait *= 2
	}
	return min(wait, lastRetry)
}

func (s *Store) failuresFile(e *Environment) string {
	return filepath.Join(s.dir, "unfinished", e.Digest())
}

// failures tells how often an environment could not be finished, and when last.
func (s *Store) failures(e *Environment) (n int, last time.Time) {
	info, err := os.Stat(s.failuresFile(e))
	if err != nil {
		return 0, time.Time{} // try at once
	}
	if text, err := os.ReadFile(s.failuresFile(e)); err == nil {
		n, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	return n, info.ModTime()
}

func (s *Store) failed(e *Environment) error {
	n, _ := s.failures(e)
	return os.WriteFile(s.failuresFile(e), []byte(strconv.Itoa(n+1)+"\n"), 0o644)
}

// finishLater makes what is in plainDir once more, and gives finish another try. It
// needs no wheel and no index. Whatever fails, plainDir is as good as before.
func (s *Store) finishLater(e *Environment, plainDir string, finish func(root string) error) (dir string, err error) {
	tmp, err := os.MkdirTemp(s.tmp, "env-")
	if err != nil {
		return plainDir, err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	made := map[string]bool{filepath.Dir(root): true}
	err = filepath.WalkDir(plainDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(plainDir, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "__pycache__":
			return fs.SkipDir // of wheels there is none: these are what finish made
		case d.IsDir():
			return makeDirs(filepath.Join(root, rel), made)
		}
		return os.Link(path, filepath.Join(root, rel))
	})
	if err == nil {
		err = finish(root)
	}
	if err == nil {
		err = s.publish(root, s.envDir(e))
	}
	switch {
	case err == nil:
		_ = os.Remove(s.failuresFile(e)) // nobody asks for it any more
		return s.envDir(e), nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return plainDir, err // that says nothing about the environment
	}
	return plainDir, errors.Join(err, s.failed(e))
}
