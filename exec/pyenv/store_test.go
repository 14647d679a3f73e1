package pyenv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// local is a store whose uv knows one directory of wheels and no index.
func local(t testing.TB, wheels ...aWheel) (*Store, string) {
	t.Helper()
	path := os.Getenv("HEADGATE_UV")
	if path == "" {
		path = filepath.Join("..", "..", ".cache", "venv", "bin", "uv")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("no uv; make venv installs it, and make unit names it by HEADGATE_UV")
	}
	dir := t.TempDir()
	for _, w := range wheels {
		w.in(t, dir)
	}
	config := filepath.Join(t.TempDir(), "uv.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "no-index = true\nfind-links = [%q]\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("UV_CONFIG_FILE", config)
	s, err := OpenStore(t.TempDir(), &UV{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func python311(packages ...string) Spec {
	s := NewSpec("3.11", map[string]string{})
	for i := 0; i < len(packages); i += 2 {
		s.Packages[packages[i]] = packages[i+1]
	}
	return s
}

func arrow(version string) aWheel {
	return aWheel{pkg: "pyarrow", version: version, files: map[string]string{"pyarrow/__init__.py": "v = '" + version + "'"}}
}

func TestResolveAndMake(t *testing.T) {
	s, dir := local(t, arrow("20.0.0"),
		aWheel{pkg: "tool", version: "1.0", requires: []string{"dep>=2"}, files: map[string]string{"tool.py": "import dep", "shared/__init__.py": ""}},
		aWheel{pkg: "tool", version: "2.0", files: map[string]string{"tool.py": ""}},
		aWheel{pkg: "dep", version: "2.5", files: map[string]string{"dep.py": "y = 2", "shared/__init__.py": ""}},
	)
	spec := python311("tool", "==1.0")
	e, err := s.Resolve(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Summary(); got != "tool 1.0, dep 2.5, pyarrow 20.0.0" {
		t.Errorf("resolved to %q", got)
	}
	if s.Ready(e) {
		t.Error("it is ready before it is made")
	}
	// Many runs want it at once: it is made once.
	var wait sync.WaitGroup
	made := make([]Made, 8)
	for i := range made {
		wait.Go(func() {
			var err error
			if made[i], err = s.Make(t.Context(), e, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	fetched := 0
	for _, m := range made {
		fetched += m.Wheels
		if m.Dir != made[0].Dir {
			t.Errorf("directories %q and %q", m.Dir, made[0].Dir)
		}
	}
	if fetched != 3 {
		t.Errorf("%d wheels fetched, want 3", fetched)
	}
	if text, err := os.ReadFile(filepath.Join(made[0].Dir, "dep.py")); string(text) != "y = 2" {
		t.Errorf("dep.py: %q, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(made[0].Dir, "pyarrow", "__init__.py")); err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("a file of an environment: %v, %v", info.Mode(), err)
	}
	// With no index any more, what is there is used.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	reopened, err := OpenStore(s.dir, &UV{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := reopened.Make(t.Context(), e, nil); err != nil || m.Dir != made[0].Dir || m.Wheels != 0 {
		t.Errorf("made again: %+v, %v", m, err)
	}
}

func TestKnownClashesAreKeptApart(t *testing.T) {
	s, _ := local(t, arrow("15.0.0"), arrow("25.0.1"), arrow("26.0.1"),
		aWheel{pkg: "pandas", version: "1.5.3", requires: []string{"numpy>=1.20"}},
		aWheel{pkg: "pandas", version: "2.2.2", requires: []string{"numpy>=1.20"}},
		aWheel{pkg: "numpy", version: "1.26.4"}, aWheel{pkg: "numpy", version: "2.4.0"},
	)
	for _, c := range []struct {
		declared []string
		want     string
	}{
		{[]string{"pandas", "==1.5.3"}, "pandas 1.5.3, numpy 1.26.4, pyarrow 25.0.1"},
		{[]string{"pandas", "==2.2.2"}, "pandas 2.2.2, numpy 2.4.0, pyarrow 26.0.1"},
		{[]string{"pandas", "==1.5.3", "numpy", "==2.4.0"}, "numpy 2.4.0, pandas 1.5.3, pyarrow 26.0.1"},
		{[]string{"pandas", "==1.5.3", "pyarrow", "==26.0.1"}, "pandas 1.5.3, pyarrow 26.0.1, numpy 1.26.4"},
		{[]string{"numpy", "==1.26.4"}, "numpy 1.26.4, pyarrow 25.0.1"},
		{[]string{"pandas", "==2.2.2", "pyarrow", "==15.0.0"}, "pandas 2.2.2, pyarrow 15.0.0, numpy 1.26.4"},
	} {
		e, err := s.Resolve(t.Context(), python311(c.declared...))
		if err != nil || e.Summary() != c.want {
			t.Errorf("%q: %v, %v; want %s", c.declared, e, err, c.want)
		}
	}
}

func TestWhatCannotBeHad(t *testing.T) {
	s, dir := local(t, arrow("20.0.0"), aWheel{pkg: "tool", version: "1.0"},
		aWheel{pkg: "pandas", version: "2.0", tag: "cp310-cp310-manylinux_2_17_x86_64"})
	if err := os.WriteFile(filepath.Join(dir, "builds-itself-1.0.tar.gz"), []byte("setup.py would run"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		spec []string
		want []string
	}{
		{[]string{"tool", "==2.0"}, []string{"no version of tool==2.0"}},
		{[]string{"toool", "==1.0"}, []string{"toool was not found"}},
		{[]string{"pandas", "==2.0"}, []string{"pandas==2.0 has no wheels with a matching Python ABI tag"}},
		{[]string{"builds-itself", "==1.0"}, []string{"builds-itself==1.0 has no usable wheels", "not allowed"}},
	} {
		_, err := s.Resolve(t.Context(), python311(c.spec...))
		var refused *Error
		if !errors.As(err, &refused) {
			t.Errorf("%q: %v, want a refusal", c.spec, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(refused.Text, want) || strings.Contains(refused.Text, "\n") {
				t.Errorf("%q: %q, want one line with %q", c.spec, refused.Text, want)
			}
		}
	}
	var lacking *UnavailableError
	if _, err := (&UV{}).Resolve(t.Context(), python311()); !errors.As(err, &lacking) || !strings.Contains(lacking.Text, "--uv PATH") {
		t.Errorf("without uv: %v", err)
	}
	// An index that is not there is no verdict on the packages.
	t.Setenv("UV_CONFIG_FILE", os.DevNull)
	t.Setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")
	t.Setenv("UV_HTTP_RETRIES", "0")
	if _, err := s.Resolve(t.Context(), python311("tool", "==1.0")); !errors.As(err, &lacking) || !strings.Contains(lacking.Text, "could not be asked") {
		t.Errorf("without an index: %v", err)
	}
}

// A lock is held against the index before anything of it is used.
func TestLockedEnvironmentsAreHeldAgainstTheIndex(t *testing.T) {
	s, _ := local(t, arrow("20.0.0"), aWheel{pkg: "tool", version: "1.0", requires: []string{"dep"}}, aWheel{pkg: "dep", version: "1.0"},
		aWheel{pkg: "dep", version: "2.0"}, aWheel{pkg: "evil", version: "1.0"})
	good, err := s.Resolve(t.Context(), python311("tool", "==1.0"))
	if err != nil {
		t.Fatal(err)
	}
	evil, err := s.Resolve(t.Context(), python311("evil", "==1.0"))
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(e *Environment)) *Environment {
		e := &Environment{Spec: good.Spec, Wheels: append([]Wheel{}, good.Wheels...)}
		f(e)
		return e
	}
	for _, c := range []struct {
		name string
		e    *Environment
		want string
	}{
		{"another hash", change(func(e *Environment) { e.Wheels[0].SHA256 = sumA }), "has sha256 " + sumA + ", the index has dep-2.0"},
		{"another size", change(func(e *Environment) { e.Wheels[0].Size++ }), "bytes, the index says"},
		{"one more package", change(func(e *Environment) { e.Wheels = append(e.Wheels, evil.Wheels[0]) }), `package "evil"`},
		{"one less", change(func(e *Environment) { e.Wheels = e.Wheels[1:] }), `lacks package "dep"`},
		{"a version that is not there", change(func(e *Environment) { e.Wheels[0].Version, e.Wheels[0].File = "3.0", "dep-3.0-py3-none-any.whl" }), "does not hold"},
		{"another machine's wheel", change(func(e *Environment) { e.Wheels[0].File = "dep-2.0-cp312-cp312-win_amd64.whl" }), "not for Linux"},
	} {
		_, err := s.Make(t.Context(), c.e, nil)
		var refused *Error
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a refusal with %q", c.name, err, c.want)
		}
		if s.Ready(c.e) {
			t.Errorf("%s: it is ready all the same", c.name)
		}
	}
	// What holds is used as it is, although a newer version is there.
	old := change(func(e *Environment) {})
	older, err := s.Resolve(t.Context(), python311("dep", "==1.0"))
	if err != nil {
		t.Fatal(err)
	}
	old.Wheels[0] = older.Wheels[0]
	if m, err := s.Make(t.Context(), old, nil); err != nil || !s.Ready(old) || m.Dir != s.envDir(old) {
		t.Errorf("dep 1.0: %+v, %v", m, err)
	}
}

func TestBadWheelsAreRefused(t *testing.T) {
	s, _ := local(t, arrow("20.0.0"),
		aWheel{pkg: "bomb", version: "1.0", files: map[string]string{"zeros": strings.Repeat("\x00", 64<<20)}},
		aWheel{pkg: "one", version: "1.0", files: map[string]string{"same.py": "1"}},
		aWheel{pkg: "two", version: "1.0", files: map[string]string{"same.py": "2"}},
		aWheel{pkg: "three", version: "1.0", files: map[string]string{"same.py/x.py": "3"}},
	)
	for want, spec := range map[string]Spec{
		"wheel bomb-1.0-py3-none-any.whl unpacks from":                                python311("bomb", "==1.0"),
		`packages one and two cannot be in one environment: both have a file "same`:   python311("one", "==1.0", "two", "==1.0"),
		`packages one and three cannot be in one environment: "same.py" is a file of`: python311("one", "==1.0", "three", "==1.0"),
	} {
		e, err := s.Resolve(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Make(t.Context(), e, nil)
		var refused *Error
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want a refusal with %q", spec, err, want)
		}
	}
	if left, err := os.ReadDir(s.tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if envs, err := os.ReadDir(filepath.Join(s.dir, "envs")); err != nil || len(envs) > 0 {
		t.Errorf("environments of bad wheels: %v, %v", envs, err)
	}
}

// An index need not tell sizes: then what comes counts.
func TestAnEnvironmentIsBoundedAsAWhole(t *testing.T) {
	s, dir := local(t)
	page := ""
	for _, w := range []aWheel{arrow("20.0.0"), {pkg: "tool", version: "1.0"}} {
		page += fmt.Sprintf("<a href=\"%s#sha256=%s\">%s</a>\n", w.name(), w.in(t, dir), w.name())
	}
	mux := http.NewServeMux()
	mux.Handle("/wheels/", http.StripPrefix("/wheels/", http.FileServer(http.Dir(dir))))
	mux.HandleFunc("/wheels/{$}", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		_, _ = rw.Write([]byte(page))
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	config := fmt.Appendf(nil, "no-index = true\nfind-links = [%q]\n", srv.URL+"/wheels/")
	if err := os.WriteFile(os.Getenv("UV_CONFIG_FILE"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := s.Resolve(t.Context(), python311("tool", "==1.0"))
	if err != nil {
		t.Fatal(err)
	}
	if e.Wheels[0].Size != 0 || e.Wheels[1].Size != 0 {
		t.Fatalf("the index tells sizes: %+v", e.Wheels)
	}
	s.most = 1000
	var refused *Error
	if _, err := s.Make(t.Context(), e, nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), "together") {
		t.Errorf("error %v", err)
	}
	s.most = maxEnvironment
	if _, err := s.Make(t.Context(), e, nil); err != nil {
		t.Error(err)
	}
}

func TestFetch(t *testing.T) {
	w := aWheel{pkg: "foo", version: "1.0"}
	dir := t.TempDir()
	sum := w.in(t, dir)
	data := w.bytes(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(data) })
	mux.HandleFunc("/more", func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = rw.Write(data)
		for range 1 << 10 {
			if _, err := rw.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
		t.Error("all of an endless wheel was read")
	})
	mux.HandleFunc("/other", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(make([]byte, len(data))) })
	mux.HandleFunc("/cut", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = rw.Write(data[:10])
	})
	mux.HandleFunc("/secret", func(rw http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "word" {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = rw.Write(data)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	var refused *Error
	var lacking *UnavailableError
	for _, c := range []struct {
		path, want string
		is         any
	}{
		{"/good", "", nil},
		{"/more", "other bytes", &refused},
		{"/other", "other bytes", &refused},
		{"/cut", "broke off", &lacking},
		{"/none", "404", &lacking},
		{"/secret", "UV_DEFAULT_INDEX", &lacking},
	} {
		to := filepath.Join(t.TempDir(), "wheel")
		n, err := fetch(t.Context(), found{Wheel: Wheel{File: w.name(), Size: int64(len(data)), SHA256: sum}, source: srv.URL + c.path}, to)
		if c.is == nil {
			if err != nil || n != int64(len(data)) {
				t.Errorf("%s: %d, %v", c.path, n, err)
			}
			continue
		}
		if err == nil || !errors.As(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %T with %q", c.path, err, c.is, c.want)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(to), "*")); len(left) > 0 {
			t.Errorf("%s: left behind %q", c.path, left)
		}
	}
	t.Setenv("UV_DEFAULT_INDEX", "mine="+strings.Replace(srv.URL, "http://", "http://me:word@", 1)+"/simple")
	if _, err := fetch(t.Context(), found{Wheel: Wheel{File: w.name(), SHA256: sum}, source: srv.URL + "/secret"}, filepath.Join(t.TempDir(), "wheel")); err != nil {
		t.Errorf("with the index's credentials: %v", err)
	}
	srv.Close()
	if _, err := fetch(t.Context(), found{Wheel: Wheel{File: w.name(), SHA256: sum}, source: srv.URL + "/good"}, filepath.Join(t.TempDir(), "wheel")); !errors.As(err, &lacking) {
		t.Errorf("from a server that is gone: %v", err)
	}
}

func TestOpenStoreSweepsWhatWasUnderWay(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "tmp", "wheel-1", "root")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(dir, &UV{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a killed server left is still there: %v", err)
	}
	if _, err := OpenStore(dir, &UV{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.tmp); err != nil {
		t.Errorf("what another process works in: %v", err)
	}
}

// A process that has made its directory and not locked it yet is not swept.
func TestOpenStoreWaitsForAnother(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenStore(dir, &UV{}); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(filepath.Join(dir, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(filepath.Join(dir, "tmp"), "process-")
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		_, err := OpenStore(dir, &UV{})
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("opened while another opens: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	own, err := os.Open(fresh)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := errors.Join(unix.Flock(int(own.Fd()), unix.LOCK_EX), unix.Flock(int(other.Fd()), unix.LOCK_UN), <-opened); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Error(err)
	}
}

func TestResolveEndsWithItsCaller(t *testing.T) {
	s, _ := local(t, arrow("20.0.0"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Resolve(ctx, python311()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// A run that waits for what another makes, or unpacks and composes, can be cancelled.
func TestMakeEndsWithItsCaller(t *testing.T) {
	s, dir := local(t, arrow("20.0.0"))
	e, err := s.Resolve(t.Context(), python311())
	if err != nil {
		t.Fatal(err)
	}
	done, err := s.hold(t.Context(), "env "+e.Digest())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := s.Make(ctx, e, nil)
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for another although its caller has gone")
	}
	done()
	if _, err := s.Make(t.Context(), e, nil); err != nil {
		t.Error(err)
	}
	if len(s.making) != 0 {
		t.Errorf("%d names are kept of what has been made", len(s.making))
	}
	if err := unpackFile(ctx, filepath.Join(dir, e.Wheels[0].File), "pyarrow", filepath.Join(t.TempDir(), "root"), &room{left: environmentBounds}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("unpack: %v", err)
	}
	if err := os.RemoveAll(s.envDir(e)); err != nil {
		t.Fatal(err)
	}
	if err := s.compose(ctx, e, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("compose: %v", err)
	}
}

// What a function pays for an environment that is there: the target is 5 ms.
func BenchmarkReady(b *testing.B) {
	s, _ := local(b, arrow("20.0.0"), aWheel{pkg: "tool", version: "1.0"})
	e, err := s.Resolve(b.Context(), python311("tool", "==1.0"))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Make(b.Context(), e, nil); err != nil {
		b.Fatal(err)
	}
	lock := twoEnvironments()
	lock.Put(e)
	text := lock.Encode()
	for b.Loop() {
		l, err := ParseLock(text)
		if err != nil {
			b.Fatal(err)
		}
		if !s.Ready(l.Find(e.Spec)) {
			b.Fatal("it is not there")
		}
	}
	runtime.KeepAlive(lock)
}
