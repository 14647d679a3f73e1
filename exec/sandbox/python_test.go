package sandbox

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/protocol"
)

var discover = sync.OnceValues(func() ([]Interpreter, error) { return Discover(context.Background(), nil) })

// interpreters are those of this machine; there must be one.
func interpreters(tb testing.TB) []Interpreter {
	tb.Helper()
	found, err := discover()
	if err != nil {
		tb.Fatal(err)
	}
	if len(found) == 0 {
		tb.Fatal("this machine has no Python 3 to test with")
	}
	return found
}

func withPython(tb testing.TB, in ...Interpreter) Config {
	cfg := quiet(tb)
	cfg.Interpreters, cfg.PythonSDK = in, filepath.Join("testdata", "sdk")
	return cfg
}

func python(tb testing.TB, m *Manager, code string, inputs ...Input) *result {
	tb.Helper()
	r, err := do(tb, m, Job{Kind: KindPython, Order: &protocol.Order{SQL: code}, Inputs: inputs})
	if err != nil {
		tb.Fatalf("%s: %v\n%s", code, err, r.log)
	}
	if r.Answer == nil {
		tb.Fatalf("%s: no answer: %+v\n%s", code, r.Report, r.log)
	}
	return r
}

func TestPython(t *testing.T) {
	in := interpreters(t)[0]
	cfg := withPython(t, in)
	cfg.WarmPython = 1
	m := open(t, cfg)

	r := python(t, m, "import sys, ssl, sqlite3, ctypes, zoneinfo, os\nprint('to the log')\nout = open('/in/a').read(), '%d.%d' % sys.version_info[:2], os.getuid(), hash('x') == hash('x'), dict(os.environ).get('PYTHONHASHSEED')",
		content("a", "input"))
	if want := "('input', '" + in.Version + "', 65534, True, '0')"; r.out() != want || r.userError() != "" || !strings.Contains(r.log, "to the log") {
		t.Errorf("out %q, error %q, log %q", r.out(), r.userError(), r.log)
	}
	if len(r.Violations) > 0 {
		t.Errorf("an honest function has violations: %v", r.Violations)
	}

	// Of the host there is what the interpreter needs, and that is read-only.
	r = python(t, m, "import os\nout = sorted(os.listdir('/')), os.listdir('/etc'), os.listdir('/tmp'), os.path.exists("+
		"'"+filepath.ToSlash(m.cfg.Dir)+"')")
	if strings.Contains(r.out(), "'home'") || strings.Contains(r.out(), "shadow") || strings.Contains(r.out(), "'work'") || !strings.HasSuffix(r.out(), "[], False)") {
		t.Errorf("a function sees %s", r.out())
	}
	stdlib := filepath.Join(in.BasePrefix, "lib", "python"+in.Version, "os.py")
	r = python(t, m, "open('"+stdlib+"', 'a')")
	if !strings.Contains(r.userError(), "OSError") && !strings.Contains(r.userError(), "PermissionError") ||
		len(r.Violations) != 1 || r.Violations[0] != (Violation{ViolationWrite, stdlib, 1}) {
		t.Errorf("writing to the interpreter: %q, %v", r.userError(), r.Violations)
	}

	r = python(t, m, "import urllib.request\nurllib.request.urlopen('http://example.com/', timeout=5)")
	if !strings.Contains(r.userError(), "URLError") || len(r.Violations) == 0 || r.Violations[0].Detail != "127.0.0.1:53 (name lookup)" {
		t.Errorf("urlopen: %q, %v", r.userError(), r.Violations)
	}
	r = python(t, m, "import socket\nsocket.create_connection(('93.184.215.14', 443), 5)")
	if !strings.Contains(r.userError(), "unreachable") || len(r.Violations) != 1 || r.Violations[0] != (Violation{ViolationConnect, "93.184.215.14:443", 1}) {
		t.Errorf("connect: %q, %v", r.userError(), r.Violations)
	}
	r = python(t, m, "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'pip', 'install', '--retries=0', 'headgate-nothing'], check=True)")
	found := false
	for _, v := range r.Violations {
		found = found || v.Kind == ViolationExec && strings.HasSuffix(v.Detail, " -m pip install --retries=0 headgate-nothing")
	}
	if !found || r.userError() == "" {
		t.Errorf("pip: %q, %v", r.userError(), r.Violations)
	}
	r = python(t, m, "import os\nos.system('curl http://example.com')\nout = os.path.exists('/bin/sh')")
	if r.out() != "False" || len(r.Violations) != 1 || r.Violations[0].Kind != ViolationExec || !strings.Contains(r.Violations[0].Detail, "curl http://example.com") {
		t.Errorf("shell: %q, %v", r.out(), r.Violations)
	}
}

func TestVirtualEnvironment(t *testing.T) {
	base := interpreters(t)[0]
	env := filepath.Join(t.TempDir(), "venv")
	if out, err := exec.Command(base.Path, "-m", "venv", "--without-pip", env).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	site := filepath.Join(env, "lib", "python"+base.Version, "site-packages")
	if err := os.WriteFile(filepath.Join(site, "only_here.py"), []byte("answer = 42\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	found, err := Discover(context.Background(), []string{filepath.Join(env, "bin", "python")})
	if err != nil || len(found) != 1 || found[0].Prefix != env || found[0].BasePrefix != base.BasePrefix {
		t.Fatalf("%+v, %v", found, err)
	}
	cfg := withPython(t, found...)
	cfg.WarmPython = 1
	m := open(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.AwaitWarm(ctx); err != nil {
		t.Fatal(err)
	}
	r := python(t, m, "import only_here, sys\nout = only_here.answer, sys.prefix")
	if want := "(42, '" + env + "')"; r.out() != want || !r.Warm {
		t.Errorf("%q, error %q, warm %t", r.out(), r.userError(), r.Warm)
	}
}

// An interpreter may be installed below /tmp, and reached through a link there. A
// sandbox's own /tmp then has the way to it, and nothing that was made at run time.
func TestInterpreterBelowTmp(t *testing.T) {
	base := interpreters(t)[0]
	dir, err := os.MkdirTemp("/tmp", "headgate-interpreter-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	env, link := filepath.Join(dir, "venv"), filepath.Join(dir, "link")
	if out, err := exec.Command(base.Path, "-m", "venv", "--without-pip", env).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Symlink(env, link); err != nil {
		t.Fatal(err)
	}
	found, err := Discover(context.Background(), []string{filepath.Join(link, "bin", "python")})
	if err != nil || len(found) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	m := open(t, withPython(t, found...))
	tmp := m.programs[program{kind: KindPython, python: found[0].Version}].tmp()
	tree := func() (list []string) {
		if err := filepath.WalkDir(tmp, func(path string, _ os.DirEntry, err error) error {
			list = append(list, path)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return list
	}
	before := tree()
	r := python(t, m, "import os, sys\nopen('/tmp/mine', 'w').close()\nout = os.path.realpath(sys.executable) != '', sorted(os.listdir('/tmp'))")
	if want := "(True, ['" + filepath.Base(dir) + "', 'mine'])"; r.out() != want {
		t.Errorf("a function sees %q, want %q; error %q", r.out(), want, r.userError())
	}
	if after := tree(); !slices.Equal(before, after) {
		t.Errorf("the host's side of /tmp was %q and is %q", before, after)
	}
}

// With packages of its own a function has these and the standard library: none
// of what the server's interpreter, or the one below its virtual environment, has.
func TestPackages(t *testing.T) {
	base := interpreters(t)[0]
	env := filepath.Join(t.TempDir(), "venv")
	if out, err := exec.Command(base.Path, "-m", "venv", "--without-pip", env).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	packages := t.TempDir()
	site := filepath.Join(env, "lib", "python"+base.Version, "site-packages")
	for path, text := range map[string]string{
		filepath.Join(site, "only_interpreter.py"): "",
		filepath.Join(packages, "only_env.py"):     "answer = 42\n",
		filepath.Join(packages, "pandas.py"):       "",
		filepath.Join(packages, "numpy", "x"):      "",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Discover(context.Background(), []string{filepath.Join(env, "bin", "python")})
	if err != nil {
		t.Fatal(err)
	}
	m := open(t, withPython(t, found...))
	with := func(code string) *result {
		t.Helper()
		r, err := do(t, m, Job{Kind: KindPython, Packages: packages, Order: &protocol.Order{SQL: code}})
		if err != nil || r.Answer == nil {
			t.Fatalf("%s: %+v, %v\n%s", code, r.Report, err, r.log)
		}
		return r
	}
	r := with("import only_env, headgate, ssl, sqlite3, ctypes, zoneinfo, os, sys\nout = only_env.answer, only_env.__file__, sys.version_info[:2]")
	if want := "(42, '/env/only_env.py', (3, " + strings.TrimPrefix(base.Version, "3.") + "))"; r.out() != want {
		t.Errorf("%q, want %q; error %q", r.out(), want, r.userError())
	}
	for _, name := range []string{"only_interpreter", "pip", "setuptools"} {
		if r := with("import " + name); !strings.Contains(r.userError(), "ModuleNotFoundError") {
			t.Errorf("import of %s, which is not in the environment: error %q", name, r.userError())
		}
	}
	// Nor can a package be read: the directories are empty or not there.
	r = with("import glob, sys\nout = glob.glob('" + site + "/*') + glob.glob('" + base.BasePrefix + "/**/*-packages/*', recursive=True) + glob.glob('/usr/lib/python3*/*-packages/*')\nout = out[:9]")
	if r.out() != "[]" {
		t.Errorf("packages that can be read: %s", r.out())
	}
	for _, path := range []string{"/env/only_env.py", "/env/new.py"} {
		if r := with("open('" + path + "', 'w')"); r.userError() == "" || len(r.Violations) != 1 {
			t.Errorf("writing %s: error %q, violations %v", path, r.userError(), r.Violations)
		}
	}
	// And without packages the interpreter has its own, and no environment.
	r = python(t, m, "import only_interpreter, os\nout = os.listdir('/env')")
	if r.out() != "[]" || r.userError() != "" {
		t.Errorf("without packages: %q, error %q", r.out(), r.userError())
	}
	for _, bad := range []string{"relative", filepath.Join(packages, "none"), filepath.Join(packages, "only_env.py")} {
		if _, err := do(t, m, Job{Kind: KindPython, Packages: bad, Order: &protocol.Order{SQL: "out = 1"}}); err == nil {
			t.Errorf("packages %q are taken", bad)
		}
	}
}

// What PyPI has for Linux runs from /env in each interpreter's bare form.
func TestPyarrowFromPackages(t *testing.T) {
	path := os.Getenv("HEADGATE_PYTHON")
	if path == "" {
		t.Skip("HEADGATE_PYTHON names no interpreter with pyarrow; make unit does")
	}
	found, err := Discover(context.Background(), []string{path})
	if err != nil {
		t.Fatal(err)
	}
	m := open(t, withPython(t, found...))
	packages := filepath.Join(found[0].Prefix, "lib", "python"+found[0].Version, "site-packages")
	r, err := do(t, m, Job{Kind: KindPython, Packages: packages, Order: &protocol.Order{
		SQL: "import pyarrow.parquet, pandas, polars, duckdb, importlib.metadata as m\nout = pyarrow.__file__, pandas.DataFrame({'a': [1]}).a.sum(), m.version('pyarrow') == pyarrow.__version__",
	}})
	if err != nil || r.out() != "('/env/pyarrow/__init__.py', np.int64(1), True)" {
		t.Errorf("%q, error %q, %v\n%s", r.out(), r.userError(), err, r.log)
	}
}

// Interpreters are looked for on PATH, in pyenv and where uv installs them, in this order.
func TestOfferedInterpreters(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for _, path := range []string{
		"bin/python3", "bin/python3.12", ".pyenv/versions/3.10.13/bin/python3", ".local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/bin/python3",
		"bin/python3.12-config", ".pyenv/versions/2.7.18/bin/python3", ".local/share/uv/python/cpython-3.13.1-macos-aarch64-none/bin/python3",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
		want = append(want, path)
	}
	want = want[:4]
	t.Setenv("PATH", filepath.Join(dir, "bin"))
	t.Setenv("HOME", dir)
	for _, name := range []string{"PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "XDG_DATA_HOME"} {
		t.Setenv(name, "")
	}
	if got := offered(); !slices.Equal(got, want) {
		t.Errorf("offered %q, want %q", got, want)
	}
	t.Setenv("UV_PYTHON_INSTALL_DIR", filepath.Join(dir, "elsewhere"))
	if got := offered(); !slices.Equal(got, want[:3]) {
		t.Errorf("with another directory of uv's: offered %q, want %q", got, want[:3])
	}
}

func TestDiscoverErrors(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		path []string
		want string
	}{
		{[]string{filepath.Join(dir, "none")}, "no such file"},
		{[]string{script("broken", "echo broken >&2; exit 3")}, `exit status 3: "broken"`},
		{[]string{script("chatty", "echo hello")}, "unexpected answer"},
		{[]string{script("old", `echo '{"major": 3, "minor": 6}'`)}, "is Python 3.6"},
		{[]string{script("greedy", `echo '{"major": 3, "minor": 12, "prefix": "/nonexistent"}'`)}, "no such file"},
		{[]string{interpreters(t)[0].Path, interpreters(t)[0].Path}, "comes before it"},
	} {
		if _, err := Discover(context.Background(), c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.path, err, c.want)
		}
	}
}

func TestPythonWanted(t *testing.T) {
	m := open(t, quiet(t))
	if _, err := do(t, m, Job{Kind: KindPython, Order: &protocol.Order{}}); err == nil || !strings.Contains(err.Error(), "no Python interpreter") {
		t.Errorf("%v", err)
	}
	in := interpreters(t)[0]
	m = open(t, withPython(t, in))
	if _, err := do(t, m, Job{Kind: KindPython, Python: "3.99", Order: &protocol.Order{}}); err == nil || !strings.Contains(err.Error(), `no Python "3.99"`) {
		t.Errorf("%v", err)
	}
}

func TestExposure(t *testing.T) {
	root := t.TempDir()
	mk := func(path string) string {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(target, path string) string {
		path = filepath.Join(root, path)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	lib := mk("usr/lib/arch")
	if err := os.WriteFile(filepath.Join(lib, "libc.so"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	toLib := link("usr/lib", "lib")
	inner := link("libc.so", "usr/lib/arch/libc.so.6")
	loop := link("loop", "loop")
	e := newExposure()
	if err := e.add(filepath.Join(root, "lib/arch/libc.so.6"), true); err != nil {
		t.Fatal(err)
	}
	want := []string{toLib, lib} // the inner link comes with its directory
	if got := e.list(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%q, want %q (and not %q)", got, want, inner)
	}
	if err := e.add(loop, false); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("a loop: %v", err)
	}
	for _, path := range []string{"/", "/etc", "/root"} {
		if err := e.add(path, false); err == nil {
			t.Errorf("%s is exposed", path)
		}
	}
}

// BenchmarkPython is the time from order to answer in an interpreter that
// waited; BenchmarkPythonCold has the start and the harness's imports in it.
func BenchmarkPython(b *testing.B)     { benchmarkPython(b, 1) }
func BenchmarkPythonCold(b *testing.B) { benchmarkPython(b, -1) }

func benchmarkPython(b *testing.B, warm int) {
	cfg := withPython(b, interpreters(b)[0])
	cfg.WarmPython = warm
	m := open(b, cfg)
	var total time.Duration
	for b.Loop() {
		if warm > 0 {
			if err := m.AwaitWarm(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
		total += python(b, m, "out = 1").Total
	}
	b.ReportMetric(float64(total.Microseconds())/float64(b.N)/1e3, "ms-total")
}
