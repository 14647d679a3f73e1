package sandbox

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Interpreter is one Python that functions can run in.
type Interpreter struct {
	Version     string   // "3.11"
	Path        string   // the executable as it is called: that of a virtual environment stays one
	Prefix      string   // sys.prefix
	BasePrefix  string   // sys.base_prefix
	Paths       []string // what of the host is bound read-only: directories, files, and links to make again
	LibraryPath []string // of Paths, directories of shared libraries that the loader does not know
	Bare        Bare
}

// Bare is an interpreter with its standard library and no package: what a
// function runs in that brings its packages along (Job.Packages). Of a virtual
// environment it is the interpreter below.
type Bare struct {
	Path        string
	Paths       []string // as Interpreter.Paths
	LibraryPath []string // as Interpreter.LibraryPath
	Hidden      []string // directories of packages within Paths, to be covered by an empty one
}

// probeTimeout bounds one question to an interpreter.
const probeTimeout = 20 * time.Second

// oldestPython is the oldest version that the SDK runs on.
const oldestPython = 9

// Discover asks Python interpreters what they are and what they need to run.
// These are extra, the operator's choice, each of which must work; if there is
// none, those that PATH, pyenv and uv offer, the default one of PATH first. Of two
// with the same version the first counts. It runs them, and ldd, on the host:
// they belong to the operator.
func Discover(ctx context.Context, extra []string) ([]Interpreter, error) {
	chosen := len(extra) > 0
	candidates := extra
	if !chosen {
		candidates = offered()
	}
	answers := make([]*Interpreter, len(candidates))
	failures := make([]error, len(candidates))
	var asking errgroup.Group
	asking.SetLimit(runtime.NumCPU())
	for i, path := range candidates {
		asking.Go(func() error {
			answers[i], failures[i] = inspect(ctx, path)
			return nil
		})
	}
	_ = asking.Wait() // each has an error of its own
	var found []Interpreter
	have := make(map[string]bool)
	for i, path := range candidates {
		in, err := answers[i], failures[i]
		if err != nil {
			if chosen || ctx.Err() != nil {
				return nil, fmt.Errorf("python interpreter %q: %w", path, err)
			}
			continue // a shim without its version, a broken installation
		}
		if have[in.Version] {
			if chosen {
				return nil, fmt.Errorf("python interpreter %q: a Python %s comes before it", path, in.Version)
			}
			continue
		}
		have[in.Version] = true
		found = append(found, *in)
	}
	return found, nil
}

// offered lists interpreters by name, best first.
func offered() []string {
	var list []string
	path := filepath.SplitList(os.Getenv("PATH"))
	for _, dir := range path {
		if p := filepath.Join(dir, "python3"); executable(p) {
			list = append(list, p)
		}
	}
	home, _ := os.UserHomeDir()
	root := os.Getenv("PYENV_ROOT")
	if root == "" && home != "" {
		root = filepath.Join(home, ".pyenv")
	}
	patterns := make([]string, 0, len(path)+1)
	for _, dir := range path {
		patterns = append(patterns, filepath.Join(dir, "python3.[0-9]*"))
	}
	if root != "" {
		patterns = append(patterns, filepath.Join(root, "versions", "3.*", "bin", "python3"))
	}
	if root = uvPythons(home); root != "" {
		patterns = append(patterns, filepath.Join(root, "cpython-3.*-linux-*", "bin", "python3"))
	}
	for _, pattern := range patterns {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue // a directory whose name is no pattern
		}
		for _, p := range matches {
			// Not python3.11-config and the like.
			if strings.Trim(filepath.Base(p), "python.0123456789") == "" && executable(p) {
				list = append(list, p)
			}
		}
	}
	return list
}

// uvPythons is where uv keeps the interpreters that it installs.
func uvPythons(home string) string {
	if dir := os.Getenv("UV_PYTHON_INSTALL_DIR"); dir != "" {
		return dir
	}
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" && home != "" {
		data = filepath.Join(home, ".local", "share")
	}
	if data == "" {
		return ""
	}
	return filepath.Join(data, "uv", "python")
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// probeScript prints one JSON document. It imports nothing but the standard library.
const probeScript = `
import glob, json, os, site, sys, sysconfig
libs = []
for d in sys.path:
    libs += sorted(glob.glob(os.path.join(glob.escape(d), "*.so"))) if d.endswith("lib-dynload") else []
print(json.dumps({
    "major": sys.version_info[0], "minor": sys.version_info[1],
    "executable": sys.executable, "prefix": sys.prefix, "base_prefix": sys.base_prefix,
    "base_executable": getattr(sys, "_base_executable", None) or sys.executable,
    "path": [p for p in sys.path if p and os.path.isdir(p)] + [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")],
    "site": site.getsitepackages([sys.prefix, sys.exec_prefix, sys.base_prefix]) + [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")],
    "libs": libs,
}))
`

type probed struct {
	Major          int      `json:"major"`
	Minor          int      `json:"minor"`
	Executable     string   `json:"executable"`
	BaseExecutable string   `json:"base_executable"`
	Prefix         string   `json:"prefix"`
	BasePrefix     string   `json:"base_prefix"`
	Path           []string `json:"path"`
	Site           []string `json:"site"`
	Libs           []string `json:"libs"`
}

func probe(ctx context.Context, path string, flags ...string) (*probed, error) {
	out, err := ask(ctx, path, append(flags, "-c", probeScript)...)
	if err != nil {
		return nil, err
	}
	var p probed
	if err := json.Unmarshal(out, &p); err != nil {
		return nil, fmt.Errorf("unexpected answer: %w", err)
	}
	if p.Major != 3 || p.Minor < oldestPython {
		return nil, fmt.Errorf("is Python %d.%d, functions need 3.%d or later", p.Major, p.Minor, oldestPython)
	}
	return &p, nil
}

func inspect(ctx context.Context, path string) (*Interpreter, error) {
	p, err := probe(ctx, path, "-I")
	if err != nil {
		return nil, err
	}
	in := &Interpreter{
		Version: fmt.Sprintf("%d.%d", p.Major, p.Minor),
		Path:    p.Executable, Prefix: p.Prefix, BasePrefix: p.BasePrefix,
	}
	e := newExposure()
	for _, prefix := range []string{p.Prefix, p.BasePrefix} {
		if !shared[prefix] {
			if err := e.add(prefix, false); err != nil {
				return nil, err
			}
		}
	}
	files := append([]string{p.Executable}, p.Libs...)
	libraries, err := needed(ctx, files)
	if err != nil {
		return nil, err
	}
	if in.LibraryPath, err = e.interpreter(p, libraries); err != nil {
		return nil, err
	}
	in.Paths = e.list()

	below, err := probe(ctx, p.BaseExecutable, "-I", "-S")
	if err != nil {
		return nil, err
	}
	if other := append([]string{below.Executable}, below.Libs...); !slices.Equal(other, files) {
		if libraries, err = needed(ctx, other); err != nil {
			return nil, err
		}
	}
	in.Bare, err = bare(below, libraries)
	return in, err
}

// bare is the interpreter that answered p when it was asked with -S, which leaves
// sys.path with its standard library.
func bare(p *probed, libraries []string) (_ Bare, err error) {
	b := Bare{Path: p.Executable}
	e := newExposure()
	if b.LibraryPath, err = e.interpreter(p, libraries); err != nil {
		return Bare{}, err
	}
	b.Paths = e.list()
	for _, site := range p.Site {
		dir, err := filepath.EvalSymlinks(site)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Bare{}, err
		}
		if e.real[dir] {
			return Bare{}, fmt.Errorf("its standard library is in %s, among packages", dir)
		}
		if e.covered(dir) && !slices.Contains(b.Hidden, dir) {
			b.Hidden = append(b.Hidden, dir)
		}
	}
	return b, nil
}

// interpreter adds what an interpreter needs, and returns the directories of its
// libraries that the loader does not know.
func (e *exposure) interpreter(p *probed, libraries []string) (libraryPath []string, err error) {
	for _, dir := range p.Path {
		// A zip file of the standard library, or a directory that is not there.
		if err := e.add(dir, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if err := e.add(p.Executable, false); err != nil {
		return nil, err
	}
	for _, lib := range libraries {
		if err := e.add(lib, true); err != nil {
			return nil, err
		}
		if dir := filepath.Dir(lib); !loaderKnows(dir) && !slices.Contains(libraryPath, dir) {
			libraryPath = append(libraryPath, dir)
		}
	}
	if err := e.add("/usr/share/zoneinfo", false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return libraryPath, nil
}

func ask(ctx context.Context, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if text := strings.TrimSpace(string(exit.Stderr)); text != "" {
			return nil, fmt.Errorf("%w: %q", err, printable(text))
		}
	}
	return nil, err
}

// needed lists the shared libraries of ELF files, the loader among them.
func needed(ctx context.Context, files []string) ([]string, error) {
	real, err := filepath.EvalSymlinks(files[0])
	if err != nil {
		return nil, err
	}
	files = distinct(append([]string{real}, files[1:]...))
	out, err := ask(ctx, "ldd", files...)
	if err != nil && len(out) == 0 {
		// One file that is not dynamic makes ldd fail; it printed the others.
		if out, err = ask(ctx, "ldd", real); err != nil {
			return nil, fmt.Errorf("find its shared libraries: %w", err)
		}
	}
	var list []string
	for _, line := range bytes.Split(out, []byte("\n")) {
		// "libc.so.6 => /lib/libc.so.6 (0x...)" and "/lib64/ld-linux-x86-64.so.2 (0x...)"
		text, _, ok := strings.Cut(strings.TrimSpace(string(line)), " (0x")
		if _, path, arrow := strings.Cut(text, " => "); arrow {
			text = path
		}
		if ok && filepath.IsAbs(text) && !slices.Contains(list, text) {
			list = append(list, filepath.Clean(text))
		}
	}
	return list, nil
}

// distinct leaves of ELF files those that need a library which none before them
// needs: asking ldd about one takes 20 ms, and there are some seventy.
func distinct(files []string) []string {
	seen := make(map[string]bool)
	var list []string
	for i, path := range files {
		names, err := imported(path)
		if err != nil && i > 0 {
			continue // a module that the interpreter could not load either
		}
		fresh := i == 0
		for _, name := range names {
			fresh = fresh || !seen[name]
			seen[name] = true
		}
		if fresh {
			list = append(list, path)
		}
	}
	return list
}

func imported(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ImportedLibraries()
}

// loaderKnows reports whether the dynamic loader searches dir without its cache.
func loaderKnows(dir string) bool {
	for _, known := range []string{"/lib", "/usr/lib", "/lib64", "/usr/lib64"} {
		if dir == known || filepath.Dir(dir) == known && strings.Contains(filepath.Base(dir), "-linux-") {
			return true
		}
	}
	return false
}

// shared are directories that hold more than an interpreter: of these only what
// is needed is bound.
var shared = map[string]bool{
	"/": true, "/usr": true, "/usr/local": true, "/usr/bin": true, "/usr/local/bin": true, "/bin": true,
	"/etc": true, "/root": true, "/home": true, "/opt": true, "/tmp": true, "/var": true, "/proc": true, "/sys": true, "/dev": true,
}

// exposure collects what a sandbox sees of the host.
type exposure struct {
	real  map[string]bool // directories and files
	links map[string]bool
}

func newExposure() *exposure {
	return &exposure{real: make(map[string]bool), links: make(map[string]bool)}
}

// add makes path usable: every link on the way to it, and what it is in the end,
// or for a library its whole directory, since packages bring needs of their own.
func (e *exposure) add(path string, library bool) error {
	path = filepath.Clean(path)
	for range 40 {
		link, err := firstLink(path)
		if err != nil {
			return fmt.Errorf("find what it needs: %w", err)
		}
		if link == "" {
			if dir := filepath.Dir(path); library && !shared[dir] {
				path = dir
			}
			if shared[path] {
				return fmt.Errorf("it needs all of %s, which is not for a sandbox to see", path)
			}
			e.real[path] = true
			return nil
		}
		e.links[link] = true
		target, err := os.Readlink(link)
		if err != nil {
			return fmt.Errorf("find what it needs: %w", err)
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		path = filepath.Join(target, strings.TrimPrefix(path, link))
	}
	return fmt.Errorf("find what it needs: too many links at %q", path)
}

// firstLink is the first symbolic link on the way to path, itself included.
func firstLink(path string) (string, error) {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		info, err := os.Lstat(path[:i])
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return path[:i], nil
		}
	}
	return "", nil
}

// list is what to bind, without what lies in a directory that is bound anyway.
func (e *exposure) list() []string {
	var all []string
	for _, set := range []map[string]bool{e.real, e.links} {
		for p := range set {
			if !e.covered(p) {
				all = append(all, p)
			}
		}
	}
	sort.Strings(all)
	return all
}

func (e *exposure) covered(path string) bool {
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if e.real[dir] {
			return true
		}
	}
	return false
}
