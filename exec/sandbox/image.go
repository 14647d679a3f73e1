package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	nobody = 65534 // user and group of every program

	inDir   = "/in"
	sdkPath = "/sdk"
	envPath = "/env"

	// maxOpenFiles is inside; every open file holds a descriptor of the sentry.
	maxOpenFiles = 4096
	// shmSize bounds /dev/shm, which is memory and counts as such.
	shmSize = "64m"
)

// image is the root directory of a program with what is bound into it, shared
// read-only by all sandboxes of that program.
type image struct {
	root     string
	args     []string
	env      []string
	binds    []string // host directories and files, seen at the same path inside
	hidden   []string // directories inside that are covered by an empty one
	sdk      string   // host directory seen at /sdk, if any
	packages string   // host directory seen at /env, if any
	ahead    []string // environment of those that are started ahead of time
}

// image is what prog is started from. One with packages of its own needs no
// directory: it is the bare interpreter with one more bind.
func (m *Manager) image(prog program) *image {
	if prog.packages == "" {
		return m.programs[prog]
	}
	bare := m.bare[prog.python]
	if bare == nil {
		return nil
	}
	img := *bare
	img.packages = prog.packages
	var known []string
	for _, name := range slowImports {
		if _, err := os.Stat(filepath.Join(prog.packages, name)); err == nil {
			known = append(known, name)
		}
	}
	img.ahead = []string{"HEADGATE_PREIMPORT=" + strings.Join(known, ",")}
	return &img
}

// slowImports are packages that take 100 ms and more to import and are likely to
// be used where they are. The harness imports pyarrow by itself.
var slowImports = []string{"numpy", "pandas", "polars", "duckdb"}

// buildImages makes the root directories. They hold mount points, a handful of
// synthetic files in /etc, and the worker.
func (m *Manager) buildImages() error {
	m.programs, m.bare = make(map[program]*image), make(map[string]*image)
	base := filepath.Join(m.cfg.Dir, "rootfs")
	worker := &image{root: filepath.Join(base, "worker"), args: []string{"/headgate-worker"}}
	if err := worker.build(); err != nil {
		return err
	}
	if err := place(m.cfg.Worker, filepath.Join(worker.root, "headgate-worker")); err != nil {
		return fmt.Errorf("worker binary: %w", err)
	}
	m.programs[program{kind: KindWorker}] = worker
	for _, in := range m.cfg.Interpreters {
		p := program{kind: KindPython, python: in.Version}
		if m.programs[p] != nil {
			return fmt.Errorf("two interpreters of Python %s are configured", in.Version)
		}
		sdk, err := filepath.Abs(m.cfg.PythonSDK)
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(sdk, "headgate")); err != nil {
			return fmt.Errorf("the Python SDK directory has no package headgate: %w", err)
		}
		img := pythonImage(filepath.Join(base, "python-"+in.Version), sdk, in.Path, in.Paths, in.LibraryPath, sdkPath)
		// Where somebody waits, only what is needed is imported; ahead of time,
		// what is slow and likely.
		img.ahead = []string{"HEADGATE_PREIMPORT=pandas"}
		bare := pythonImage(filepath.Join(base, "bare-"+in.Version), sdk, in.Bare.Path, in.Bare.Paths, in.Bare.LibraryPath, sdkPath+":"+envPath)
		bare.hidden = in.Bare.Hidden
		m.programs[p], m.bare[in.Version] = img, bare
		if err := errors.Join(img.build(), bare.build()); err != nil {
			return err
		}
	}
	return nil
}

func pythonImage(root, sdk, interpreter string, binds, libraryPath []string, path string) *image {
	img := &image{
		root:  root,
		args:  []string{interpreter, "-m", "headgate._sandbox"},
		binds: binds,
		sdk:   sdk,
		env: []string{
			"PYTHONPATH=" + path,
			"PYTHONHASHSEED=0",
			"PYTHONDONTWRITEBYTECODE=1",
			"PYTHONNOUSERSITE=1",
			"PYTHONSAFEPATH=1",
			"PYTHONUNBUFFERED=1",
			"PYTHONUTF8=1",
			"ARROW_DEFAULT_MEMORY_POOL=system",
		},
	}
	if len(libraryPath) > 0 {
		img.env = append(img.env, "LD_LIBRARY_PATH="+strings.Join(libraryPath, ":"))
	}
	return img
}

// etc is all of /etc. The name server is one that nobody listens on: lookups
// fail at once, and are seen.
var etc = map[string]string{
	"passwd":        "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/tmp:/sbin/nologin\n",
	"group":         "root:x:0:\nnogroup:x:65534:\n",
	"hosts":         "127.0.0.1 localhost sandbox\n::1 localhost\n",
	"resolv.conf":   "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n",
	"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

func (img *image) build() error {
	dirs := []string{"dev", "dev/shm", "proc", "sys", "tmp", "in", "etc"}
	if img.sdk != "" {
		dirs = append(dirs, sdkPath, envPath)
	}
	var files []string
	for _, b := range img.binds {
		info, err := os.Lstat(b)
		switch {
		case err != nil:
			return fmt.Errorf("interpreter: %w", err)
		case info.IsDir():
			dirs = append(dirs, b)
		case info.Mode()&fs.ModeSymlink != 0:
			// A link such as /lib64 -> usr/lib64 is made again inside; what it
			// points to is bound on its own.
			target, err := os.Readlink(b)
			if err != nil {
				return fmt.Errorf("interpreter: %w", err)
			}
			link := filepath.Join(img.root, b)
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
				return fmt.Errorf("root directory: %w", err)
			}
			if err := os.Symlink(target, link); err != nil {
				return fmt.Errorf("root directory: %w", err)
			}
		default:
			files = append(files, b)
		}
	}
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(img.root, d), 0o755); err != nil {
			return fmt.Errorf("root directory: %w", err)
		}
	}
	for _, f := range files {
		if err := os.MkdirAll(filepath.Join(img.root, filepath.Dir(f)), 0o755); err != nil {
			return fmt.Errorf("root directory: %w", err)
		}
		if err := os.WriteFile(filepath.Join(img.root, f), nil, 0o755); err != nil {
			return fmt.Errorf("root directory: %w", err)
		}
	}
	for name, text := range etc {
		if err := os.WriteFile(filepath.Join(img.root, "etc", name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("root directory: %w", err)
		}
	}
	if err := os.Chmod(img.tmp(), 0o777|fs.ModeSticky); err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	return nil
}

// tmp is the host directory below each sandbox's /tmp, whose changes go to a file
// of the sandbox's own. It is the root's, which has the mount points and links of an
// interpreter that is installed below /tmp: gVisor would make those that are
// missing, in what all sandboxes see.
func (img *image) tmp() string { return filepath.Join(img.root, "tmp") }

// place puts a copy of an executable at path. A copy, because a hard link would
// change under us when somebody rebuilds the binary in place.
func place(from, path string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	if err := out.Chmod(0o755); err != nil { // whatever the umask is
		return errors.Join(err, out.Close())
	}
	return out.Close()
}

// specParams are what differs from sandbox to sandbox of one image.
type specParams struct {
	in           string // host directory
	nothing      string // host directory, empty
	env          []string
	pids         int
	addressSpace int64 // RLIMIT_AS, 0 for none
	fileSize     int64 // RLIMIT_FSIZE
}

// spec is the OCI configuration of one sandbox.
func (img *image) spec(p specParams) ([]byte, error) {
	bind := func(source, destination string, write bool) specs.Mount {
		mode := "ro"
		if write {
			mode = "rw"
		}
		return specs.Mount{Type: "bind", Source: source, Destination: destination, Options: []string{"bind", mode, "nosuid", "nodev"}}
	}
	mounts := []specs.Mount{
		{Type: "proc", Source: "proc", Destination: "/proc"},
		{Type: "tmpfs", Source: "tmpfs", Destination: "/dev/shm", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=" + shmSize}},
		bind(img.tmp(), "/tmp", true),
		bind(p.in, inDir, false),
	}
	for _, b := range img.binds {
		if info, err := os.Lstat(b); err != nil {
			return nil, fmt.Errorf("interpreter: %w", err)
		} else if info.Mode()&fs.ModeSymlink == 0 {
			mounts = append(mounts, bind(b, b, false))
		}
	}
	for _, dir := range img.hidden {
		mounts = append(mounts, bind(p.nothing, dir, false))
	}
	if img.sdk != "" {
		mounts = append(mounts, bind(img.sdk, sdkPath, false))
	}
	if img.packages != "" {
		mounts = append(mounts, bind(img.packages, envPath, false))
	}
	limit := func(kind string, n int64) specs.POSIXRlimit {
		return specs.POSIXRlimit{Type: kind, Soft: uint64(n), Hard: uint64(n)}
	}
	rlimits := []specs.POSIXRlimit{
		limit("RLIMIT_NPROC", int64(p.pids)),
		limit("RLIMIT_NOFILE", maxOpenFiles),
		limit("RLIMIT_FSIZE", p.fileSize),
		limit("RLIMIT_CORE", 0),
	}
	if p.addressSpace > 0 {
		rlimits = append(rlimits, limit("RLIMIT_AS", p.addressSpace))
	}
	env := append([]string{
		"PATH=/usr/local/bin:/usr/bin:/bin",
		"HOME=/tmp",
		"TMPDIR=/tmp",
		"LANG=C.UTF-8",
		"TZ=UTC",
		// One thread unless a function asks for more: parallel sums of floats are
		// not repeatable, and the CPU limit makes more threads slower.
		"OMP_NUM_THREADS=1",
		"OPENBLAS_NUM_THREADS=1",
		"MKL_NUM_THREADS=1",
	}, append(img.env[:len(img.env):len(img.env)], p.env...)...)
	oomScore := 500
	return json.Marshal(&specs.Spec{
		Version:  specs.Version,
		Hostname: "sandbox",
		Root:     &specs.Root{Path: img.root, Readonly: true},
		Process: &specs.Process{
			User:            specs.User{UID: nobody, GID: nobody},
			Args:            img.args,
			Env:             env,
			Cwd:             "/tmp",
			Capabilities:    &specs.LinuxCapabilities{},
			Rlimits:         rlimits,
			NoNewPrivileges: true,
			OOMScoreAdj:     &oomScore,
		},
		Mounts: mounts,
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
		}},
	})
}

// stage places inputs below dir. Names come from our own callers, but a bad one
// must not write outside.
func stage(dir string, inputs []Input) error {
	made := make(map[string]bool)
	for _, in := range inputs {
		if !filepath.IsLocal(in.Path) || strings.Contains(in.Path, "\x00") {
			return fmt.Errorf("input path %q is not below %s", in.Path, inDir)
		}
		path := filepath.Join(dir, in.Path)
		if parent := filepath.Dir(path); !made[parent] {
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return fmt.Errorf("stage input %q: %w", in.Path, err)
			}
			made[parent] = true
		}
		if err := in.Link(path); err != nil {
			return fmt.Errorf("stage input %q: %w", in.Path, err)
		}
	}
	return nil
}
