package sandbox

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/protocol"
)

// What programs do on their own while they start is no violation: the record
// begins with the sandbox, and that of an honest function is empty.
func TestStartsHaveNoViolations(t *testing.T) {
	check := func(m *Manager, name string, job Job, warm bool) {
		t.Helper()
		if warm {
			awaitWarm(t, m, job)
		}
		r, err := do(t, m, job)
		if err != nil || r.Answer == nil || r.Answer.Error != nil {
			t.Fatalf("%s: %+v, %v\n%s", name, r.Report, err, r.log)
		}
		if len(r.Violations) > 0 || warm && !r.Warm {
			t.Errorf("%s: violations %v, warm %t", name, r.Violations, r.Warm)
		}
	}
	real := func(warmPython int, in ...Interpreter) *Manager {
		cfg := withPython(t, in...)
		cfg.PythonSDK = filepath.Join("..", "..", "sdk", "python")
		cfg.Worker = filepath.Join("..", "..", "bin", "headgate-worker")
		cfg.WarmWorkers, cfg.WarmPython = 1, warmPython
		return open(t, cfg)
	}
	declare := &protocol.Order{Op: protocol.OpDeclare}
	m := real(-1, interpreters(t)...)
	check(m, "worker", Job{Kind: KindWorker, Order: &protocol.Order{Op: protocol.OpTables, Queries: []protocol.Query{{Name: "t", SQL: "SELECT 1"}}}}, true)
	for _, in := range m.cfg.Interpreters {
		check(m, in.Path, Job{Kind: KindPython, Python: in.Version, Order: declare}, false)
	}
	path := os.Getenv("HEADGATE_PYTHON")
	if path == "" {
		t.Skip("HEADGATE_PYTHON names no interpreter with packages; make unit does")
	}
	own, err := Discover(context.Background(), []string{path})
	if err != nil {
		t.Fatal(err)
	}
	m = real(1, own...)
	environment := Job{Kind: KindPython, Order: declare, Packages: filepath.Join(own[0].Prefix, "lib", "python"+own[0].Version, "site-packages")}
	check(m, "an environment", environment, false)
	check(m, "an environment that is imported ahead of time", environment, true)
	check(m, "an interpreter's packages that are imported ahead of time", Job{Kind: KindPython, Order: declare}, true)
}

// awaitWarm returns when a sandbox waits for such a job.
func awaitWarm(t *testing.T, m *Manager, job Job) {
	t.Helper()
	prog, err := m.program(job)
	if err != nil {
		t.Fatal(err)
	}
	sh := m.shapeOf(prog, DefaultLimits)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		m.mu.Lock()
		s := m.shelves[sh]
		waits := s != nil && len(s.boxes) > 0 && s.boxes[0].isReady()
		m.mu.Unlock()
		if waits {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no sandbox of %s was started ahead of time", sh)
		}
	}
}

// starting is a job whose packages run code when the interpreter starts.
func starting(t *testing.T, code string) Job {
	t.Helper()
	packages := t.TempDir()
	if err := os.WriteFile(filepath.Join(packages, "sitecustomize.py"), []byte(code), 0o444); err != nil {
		t.Fatal(err)
	}
	return Job{Kind: KindPython, Packages: packages, Order: &protocol.Order{SQL: "out = 1"}}
}

// What a package tries before the order comes is on the record of the function
// that gets the order, whether the sandbox waited for it or not.
func TestRecordBeginsWithTheStart(t *testing.T) {
	cfg := withPython(t, interpreters(t)[0])
	cfg.WarmPython = 1
	m := open(t, cfg)
	job := starting(t, `
import os, socket, threading, time
def attempt(f, *args):
    try:
        f(*args)
    except OSError:
        pass
def connect(host):
    attempt(lambda: socket.create_connection((host, 443), 1))
connect("1.1.1.1")
attempt(os.execv, "/bin/sh", ["sh", "-c", "id"])
attempt(lambda: open("/etc/passwd", "a"))
def wait():
    while True:
        connect("9.9.9.9")
        time.sleep(0.01)
threading.Thread(target=wait, daemon=True).start()
`)
	want := []string{"connect 1.1.1.1:443", "connect 9.9.9.9:443", "exec sh -c id", "write /etc/passwd"}
	for _, warm := range []bool{false, true} {
		if warm {
			awaitWarm(t, m, job)
		}
		r, err := do(t, m, job)
		if err != nil || r.out() != "1" || r.Warm != warm {
			t.Fatalf("warm %t: %+v, %v\n%s", warm, r.Report, err, r.log)
		}
		var got []string
		for _, v := range r.Violations {
			got = append(got, v.Kind+" "+v.Detail)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("warm %t: violations %q, want %q", warm, got, want)
		}
	}
	// It stays with that sandbox.
	if r := python(t, m, "out = 1"); len(r.Violations) > 0 {
		t.Errorf("an honest function has violations: %v", r.Violations)
	}
}

// Packages that keep a function from being called are its failure, with all that
// they tried, and no fault of the server's.
func TestPackagesThatKeepAFunctionFromBeingCalled(t *testing.T) {
	cfg := withPython(t, interpreters(t)[0])
	cfg.WarmPython = 1
	m := open(t, cfg)
	m.patience = 5 * time.Second
	const try = "import os, socket, sys, time\nsocket.socket().connect_ex(('1.1.1.1', 443))\nprint('at the start', file=sys.stderr, flush=True)\n"
	forged := "os.write(1, b'A\\0\\0\\0\\x02{}')\n"
	for _, c := range []struct {
		name, code string
		late       bool
		exit       int
	}{
		{"ends", try + "os._exit(3)", false, 3},
		{"answers", try + forged + "os._exit(0)", false, 0},
		{"hangs", try + "time.sleep(600)", true, -1},
		{"is killed", try + "os.kill(os.getpid(), 11)", false, -1},
	} {
		r, err := do(t, m, starting(t, c.code))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if !r.Unready || r.Answer != nil || r.TimedOut != c.late || r.ExitCode != c.exit || !strings.Contains(r.log, "at the start") ||
			!slices.Equal(r.Violations, []Violation{{ViolationConnect, "1.1.1.1:443", 1}}) {
			t.Errorf("%s: %+v\n%s", c.name, r.Report, r.log)
		}
	}
	greedy := starting(t, "held = b'x' * (1 << 30)")
	greedy.Limits.Memory = 200 << 20
	if r, err := do(t, m, greedy); err != nil || r.Answer != nil || !m.rootless && !r.OOM {
		t.Errorf("too much memory: %+v, %v", r.Report, err)
	}
}

// A sandbox that waits has the packages that it was started with: if they have gone,
// and others are at their path, nobody gets it.
func TestPackagesMadeAgainAreOthers(t *testing.T) {
	cfg := withPython(t, interpreters(t)[0])
	cfg.WarmPython = 1
	m := open(t, cfg)
	packages := filepath.Join(t.TempDir(), "env")
	put := func(answer string) {
		t.Helper()
		if err := os.Mkdir(packages, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(packages, "only.py"), []byte("answer = '"+answer+"'\n"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	job := Job{Kind: KindPython, Packages: packages, Order: &protocol.Order{SQL: "import only\nout = only.answer"}}
	for _, want := range []string{"first", "second"} {
		put(want)
		if r, err := do(t, m, job); err != nil || r.out() != want {
			t.Fatalf("%+v, %v, want %s: %q, %q", r.Report, err, want, r.out(), r.userError())
		}
		awaitWarm(t, m, job)
		if err := os.Rename(packages, packages+want); err != nil { // as a collector does
			t.Fatal(err)
		}
		if err := os.RemoveAll(packages + want); err != nil {
			t.Fatal(err)
		}
	}
}
