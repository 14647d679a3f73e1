package lake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/refs"
)

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("lake does not exist")
	ErrExists   = errors.New("lake exists already")
)

// Directory holds all lakes of a server. It is safe for concurrent use by one process.
type Directory struct {
	root string
	key  *SecretsKey
	log  *slog.Logger

	mu   sync.Mutex
	open map[Name]*Lake
}

// Prefixes of directories that are not lakes; a lake's own name cannot start with a dot.
const (
	newPrefix   = ".new-"
	trashPrefix = ".trash-"
	houseLake   = Name(".server") // a lake, and no lake's name
)

// OpenDirectory opens or creates the directory and removes what a killed server
// left half-made or half-removed. key encrypts the lakes' secrets.
func OpenDirectory(root string, key *SecretsKey, log *slog.Logger) (*Directory, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) || strings.HasPrefix(e.Name(), trashPrefix) {
			if err := os.RemoveAll(filepath.Join(root, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	return &Directory{root: root, key: key, log: log, open: make(map[Name]*Lake)}, nil
}

// path is flat: "team/flights" becomes "team%2Fflights", so no lake is inside another.
func (d *Directory) path(n Name) string {
	return filepath.Join(d.root, url.PathEscape(string(n)))
}

// Open returns the lake, or an error wrapping ErrNotFound.
func (d *Directory) Open(_ context.Context, n Name) (*Lake, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.openLocked(n)
}

func (d *Directory) openLocked(n Name) (*Lake, error) {
	if l, ok := d.open[n]; ok {
		return l, nil
	}
	dir := d.path(n)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lake %q: %w", n, ErrNotFound)
	} else if err != nil {
		return nil, err
	}
	l, err := openLake(dir, n, d.key, d.log)
	if err != nil {
		return nil, fmt.Errorf("open lake %q: %w", n, err)
	}
	d.open[n] = l
	return l, nil
}

func openLake(dir string, n Name, key *SecretsKey, log *slog.Logger) (_ *Lake, err error) {
	l := &Lake{Name: n, upkeep: newUpkeep(log.With("lake", string(n)))}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	b, err := backend.NewLocal(filepath.Join(dir, "objects"))
	if err != nil {
		return nil, err
	}
	opt := objects.Options{Logger: log.With("lake", string(n)), AutoRepack: true}
	if l.Objects, err = objects.OpenStore(b, filepath.Join(dir, "quarantine"), opt); err != nil {
		return nil, err
	}
	if l.Refs, err = refs.OpenBolt(filepath.Join(dir, "refs.db")); err != nil {
		return nil, err
	}
	if l.Actions, err = exec.OpenCache(filepath.Join(dir, "actions.db")); err != nil {
		return nil, err
	}
	if l.Runs, err = OpenJournal(filepath.Join(dir, "runs.db")); err != nil {
		return nil, err
	}
	if l.Secrets, err = OpenSecrets(filepath.Join(dir, "secrets.db"), n, key); err != nil {
		return nil, err
	}
	return l, nil
}

// House opens the lake that is the server's own, and makes it if need be. It has no
// name, so nobody can push to it, and it is in no list: the server's audit log is in it.
func (d *Directory) House() (*Lake, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l, ok := d.open[houseLake]; ok {
		return l, nil
	}
	dir := filepath.Join(d.root, string(houseLake))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := openLake(dir, houseLake, d.key, d.log)
	if err != nil {
		return nil, fmt.Errorf("open the server's own lake: %w", err)
	}
	d.open[houseLake] = l
	return l, syncDir(d.root)
}

// Create makes an empty lake: all of it or nothing. An existing one is an error
// wrapping ErrExists.
func (d *Directory) Create(_ context.Context, n Name) (*Lake, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := os.Stat(d.path(n)); err == nil {
		return nil, fmt.Errorf("lake %q: %w", n, ErrExists)
	}
	tmp, err := os.MkdirTemp(d.root, newPrefix)
	if err != nil {
		return nil, err
	}
	l, err := openLake(tmp, n, d.key, d.log)
	if err == nil {
		err = l.close()
	}
	if err == nil {
		err = os.Rename(tmp, d.path(n))
	}
	if err == nil {
		err = syncDir(d.root)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create lake %q: %w", n, err), os.RemoveAll(tmp))
	}
	return d.openLocked(n)
}

// Remove deletes a lake with everything in it. Whoever still uses it gets errors.
func (d *Directory) Remove(_ context.Context, n Name) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := os.Stat(d.path(n)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lake %q: %w", n, ErrNotFound)
	}
	// The rename is the removal: after a crash the sweep in OpenDirectory ends it.
	trash, err := os.MkdirTemp(d.root, trashPrefix)
	if err != nil {
		return err
	}
	if err := os.Rename(d.path(n), filepath.Join(trash, "lake")); err != nil {
		return err
	}
	if err := syncDir(d.root); err != nil {
		return err
	}
	var errs []error
	if l, ok := d.open[n]; ok {
		delete(d.open, n)
		errs = append(errs, l.close())
	}
	return errors.Join(append(errs, os.RemoveAll(trash))...)
}

// List returns the names of all lakes, sorted.
func (d *Directory) List(context.Context) ([]Name, error) { return ListNames(d.root) }

// ListNames returns the names of all lakes in a directory that need not be open, sorted.
func ListNames(root string) ([]Name, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	var names []Name
	for _, e := range entries {
		text, err := url.PathUnescape(e.Name())
		if err != nil || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if n, err := ParseName(text); err == nil {
			names = append(names, n)
		}
	}
	sort.Slice(names, func(i, j int) bool { return names[i] < names[j] })
	return names, nil
}

// Close closes all open lakes.
func (d *Directory) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for n, l := range d.open {
		errs = append(errs, l.close())
		delete(d.open, n)
	}
	return errors.Join(errs...)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
