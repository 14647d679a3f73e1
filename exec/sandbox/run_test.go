package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/protocol"
)

func TestProgramSeesOnlyItsOrder(t *testing.T) {
	m := open(t, quiet(t))
	r := must(t, m, "id")
	if got := r.out(); got != "65534 65534 sandbox" {
		t.Errorf("identity %q", got)
	}
	if r.ExitCode != 0 || r.Warm || r.Start <= 0 || r.Total < r.Start || r.PeakMemory <= 0 || r.Malformed != nil {
		t.Errorf("report %+v", r.Report)
	}
	status := must(t, m, "status").out()
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Uid:\t65534\t65534\t65534\t65534"} {
		if !strings.Contains(status, want) {
			t.Errorf("status lacks %q:\n%s", want, status)
		}
	}
	t.Setenv("HEADGATE_SECRET", "x")
	env := must(t, m, "env").out()
	if strings.Contains(env, "SECRET") || !strings.Contains(env, "TZ=UTC") || !strings.Contains(env, "HOME=/tmp") {
		t.Errorf("environment:\n%s", env)
	}
	// The whole file system, but for /proc, /dev and /sys.
	want := "/\n/dev\n/etc\n/etc/group\n/etc/hosts\n/etc/nsswitch.conf\n/etc/passwd\n/etc/resolv.conf\n/headgate-worker\n/in\n/in/a\n/in/a/b.txt\n/proc\n/sys\n/tmp\n"
	if got := must(t, m, "list /", content("a/b.txt", "hello")).out(); got != want {
		t.Errorf("file system:\n%s", got)
	}
	if got := must(t, m, "read /in/a/b.txt", content("a/b.txt", "hello")).out(); got != "hello" {
		t.Errorf("input holds %q", got)
	}
}

func TestHostIsOutOfReach(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := open(t, quiet(t))
	paths := []string{secret, "/etc/shadow", "/root", "/home", "/proc/1/root" + secret, "/proc/self/root" + secret,
		fmt.Sprintf("/proc/%d/status", os.Getpid()), "/in/../.." + secret, "/sys/fs/cgroup/memory", "/dev/vda", "/dev/mem", "/var/run"}
	r := must(t, m, "try "+strings.Join(paths, " "))
	for _, line := range strings.Split(strings.TrimSpace(r.out()), "\n") {
		if !strings.Contains(line, "no such file") && !strings.Contains(line, "permission denied") && !strings.Contains(line, "is a directory") {
			t.Errorf("a program got at the host: %s", line)
		}
	}
	if r := must(t, m, "symlink "+secret); r.out() != "" || !strings.Contains(r.userError(), "no such file") {
		t.Errorf("through a link: %q, %q", r.out(), r.userError())
	}
	// The link that a program makes is in its sandbox, and nowhere else.
	entries, err := os.ReadDir(m.programs[program{kind: KindWorker}].tmp())
	if err != nil || len(entries) > 0 {
		t.Errorf("host side of /tmp: %v, %v", entries, err)
	}
}

func TestInputsCannotBeChanged(t *testing.T) {
	m := open(t, quiet(t))
	object := filepath.Join(t.TempDir(), "object")
	if err := os.WriteFile(object, []byte("hello"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(object, 0o666); err != nil { // even if everybody may write it
		t.Fatal(err)
	}
	link := func(path string) Input {
		return Input{Path: path, Link: func(host string) error { return os.Link(object, host) }}
	}
	for _, verb := range []string{"write /in/0/x", "overwrite /in/0/x", "remove /in/0/x", "chmod /in/0/x", "write /in/new", "overwrite /headgate-worker", "write /etc/passwd", "write /new"} {
		r := must(t, m, verb, link("0/x"))
		if e := r.userError(); !strings.Contains(e, "read-only file system") && !strings.Contains(e, "permi") {
			t.Errorf("%s: %q", verb, r.userError())
		}
		// To remove, Go tries unlink and then rmdir.
		if _, path, _ := strings.Cut(verb, " "); len(r.Violations) != 1 || r.Violations[0].Kind != ViolationWrite || r.Violations[0].Detail != path {
			t.Errorf("%s: violations %v", verb, r.Violations)
		}
	}
	if b, err := os.ReadFile(object); err != nil || string(b) != "hello" {
		t.Errorf("the object became %q, %v", b, err)
	}
	if r := must(t, m, "write /tmp/x"); r.userError() != "" || len(r.Violations) > 0 {
		t.Errorf("/tmp: %q, %v", r.userError(), r.Violations)
	}
}

func TestInputPaths(t *testing.T) {
	m := open(t, quiet(t))
	for _, path := range []string{"../x", "/x", "a/../../x", "", "a\x00b"} {
		_, err := do(t, m, Job{Order: &protocol.Order{SQL: "id"}, Inputs: []Input{content(path, "x")}})
		if err == nil || !strings.Contains(err.Error(), "is not below") {
			t.Errorf("%q: %v", path, err)
		}
	}
	broken := errors.New("disk on fire")
	_, err := do(t, m, Job{Order: &protocol.Order{SQL: "id"}, Inputs: []Input{{Path: "x", Link: func(string) error { return broken }}}})
	if !errors.Is(err, broken) {
		t.Errorf("failed link: %v", err)
	}
}

func TestNetworkAttemptsFailAndAreSeen(t *testing.T) {
	m := open(t, quiet(t))
	for _, c := range []struct{ verb, fails, kind, detail string }{
		{"connect tcp 1.1.1.1:443", "network is unreachable", ViolationConnect, "1.1.1.1:443"},
		{"connect tcp [2606:4700::1111]:443", "network is unreachable", ViolationConnect, "[2606:4700::1111]:443"},
		{"connect tcp 127.0.0.1:22", "connection refused", ViolationConnect, "127.0.0.1:22"},
		{"connect tcp 169.254.169.254:80", "network is unreachable", ViolationConnect, "169.254.169.254:80"},
		{"connect tcp example.com:80", "lookup example.com", ViolationConnect, "127.0.0.1:53 (name lookup)"},
		{"connect udp 8.8.8.8:53", "network is unreachable", ViolationConnect, "8.8.8.8:53 (name lookup)"},
		{"connect unix /var/run/docker.sock", "no such file", ViolationConnect, "unix:/var/run/docker.sock"},
		{"sendto 8.8.8.8:9", "unreachable", ViolationSend, "8.8.8.8:9"},
		{"exec /usr/bin/curl http://example.com", "no such file", ViolationExec, "/usr/bin/curl http://example.com"},
		{"exec pip install requests", "no such file", ViolationExec, "pip install requests"},
	} {
		r := must(t, m, c.verb)
		if !strings.Contains(r.userError(), c.fails) {
			t.Errorf("%s: %q", c.verb, r.userError())
		}
		found := false
		for _, v := range r.Violations {
			found = found || v.Kind == c.kind && v.Detail == c.detail && v.Count > 0
		}
		if !found {
			t.Errorf("%s: violations %v", c.verb, r.Violations)
		}
	}
}

func TestViolationsAreBounded(t *testing.T) {
	m := open(t, quiet(t))
	r := must(t, m, "connects 5000")
	if len(r.Violations) != maxViolations {
		t.Fatalf("%d entries", len(r.Violations))
	}
	total := 0
	for _, v := range r.Violations {
		total += v.Count
	}
	if last := r.Violations[maxViolations-1]; last.Kind != ViolationMore || total != 5000 {
		t.Errorf("%d attempts counted, last entry %v", total, last)
	}
}

func TestForkBomb(t *testing.T) {
	m := open(t, quiet(t))
	r := must(t, m, "fork")
	var n int
	if _, err := fmt.Sscan(r.out(), &n); err != nil || n < 10 || n > DefaultLimits.Pids || !strings.Contains(r.userError(), "resource temporarily unavailable") {
		t.Errorf("%d children, then %q (%v)", n, r.userError(), err)
	}
	if r := must(t, m, "id"); r.out() == "" {
		t.Error("the next sandbox does not work")
	}
}

func TestMemoryLimit(t *testing.T) {
	m := open(t, quiet(t))
	for _, verb := range []string{"memory 2000", "shm"} {
		r, err := do(t, m, Job{Order: &protocol.Order{SQL: verb}, Limits: Limits{Memory: 48 << 20}})
		if err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
		if verb == "shm" && r.Answer != nil && strings.Contains(r.userError(), "no space left") {
			continue // its size limit comes first
		}
		if r.Answer != nil || !r.OOM || r.TimedOut || r.OutputExceeded || r.ExitCode != -1 || r.Total > 30*time.Second {
			t.Errorf("%s: %+v", verb, r.Report)
		}
	}
	r, err := do(t, m, Job{Order: &protocol.Order{SQL: "memory 200"}, Limits: Limits{Memory: 400 << 20}})
	if err != nil || r.Answer == nil || r.OOM || r.PeakMemory < 200<<20 {
		t.Errorf("within its limit: %+v, %v", r.Report, err)
	}
}

func TestScratchIsOnDiskAndBounded(t *testing.T) {
	cfg := quiet(t)
	cfg.Scratch = 512 << 20
	m := open(t, cfg)
	// Far more than the memory limit.
	r, err := do(t, m, Job{Order: &protocol.Order{SQL: "disk 400"}, Limits: Limits{Memory: 96 << 20}})
	if err != nil || r.Answer == nil || r.userError() != "" || r.out() != "400" {
		t.Errorf("spill: %+v %v %v", r.Report, r.Answer, err)
	}
	r = must(t, m, "disk 600")
	if !strings.Contains(r.userError(), "no space left") && !strings.Contains(r.userError(), "file too large") {
		t.Errorf("over the limit: %q after %s MiB", r.userError(), r.out())
	}
}

// Names and inodes are the sandbox's own memory, and what they hold is one file of
// the host: a program cannot make the host hold more of them.
func TestManyFilesAreTheProgramsOwnMemory(t *testing.T) {
	m := open(t, quiet(t))
	most, stop := make(chan int, 1), make(chan struct{})
	go func() {
		n := 0
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			entries, _ := os.ReadDir(filepath.Join(m.cfg.Dir, "scratch"))
			tmp, _ := os.ReadDir(m.programs[program{kind: KindWorker}].tmp())
			n = max(n, len(entries)+len(tmp))
			select {
			case <-tick.C:
			case <-stop:
				most <- n
				return
			}
		}
	}()
	r, err := do(t, m, Job{Order: &protocol.Order{SQL: "files 10000000"}, Limits: Limits{Memory: 64 << 20, Timeout: time.Minute}})
	close(stop)
	if err != nil || r.Answer != nil || !r.OOM {
		t.Errorf("ten million files: %+v, %v, %v", r.Report, r.userError(), err)
	}
	if n := <-most; n > 2 { // one for each mount that can be written
		t.Errorf("the host held %d files for one sandbox", n)
	}
	if r := must(t, m, "files 1000"); r.out() != "1000" {
		t.Errorf("a thousand files: %q after %s", r.userError(), r.out())
	}
}

func TestOutputQuota(t *testing.T) {
	m := open(t, quiet(t))
	discard := func(_ string, _ int64, body io.Reader) error {
		_, err := io.Copy(io.Discard, body)
		return err
	}
	r, err := do(t, m, Job{Order: &protocol.Order{SQL: "output 3"}, Limits: Limits{Output: 2 << 20}, Files: discard})
	var over *protocol.LimitError
	if err != nil || !r.OutputExceeded || r.Answer != nil || !errors.As(r.Malformed, &over) || over.Limit != 2<<20 {
		t.Errorf("over: %+v, %v", r.Report, err)
	}
	r, err = do(t, m, Job{Order: &protocol.Order{SQL: "output 64"}, Files: discard})
	if err != nil || r.OutputExceeded || r.Answer == nil {
		t.Errorf("within: %+v, %v", r.Report, err)
	}
	broken := errors.New("disk full")
	_, err = do(t, m, Job{Order: &protocol.Order{SQL: "output 1"}, Files: func(string, int64, io.Reader) error { return broken }})
	if !errors.Is(err, broken) {
		t.Errorf("a sink that fails: %v", err)
	}
}

// A file that a function may not send is its own fault, and no breakdown.
func TestUnwelcomeFile(t *testing.T) {
	m := open(t, quiet(t))
	unwelcome := &protocol.FormatError{Reason: "a second file"}
	r, err := do(t, m, Job{Order: &protocol.Order{SQL: "output 1"}, Files: func(string, int64, io.Reader) error { return unwelcome }})
	if err != nil || r.Answer != nil || !errors.Is(r.Malformed, unwelcome) {
		t.Errorf("%+v, %v", r.Report, err)
	}
}

func TestMalformedOutput(t *testing.T) {
	m := open(t, quiet(t))
	r, err := do(t, m, Job{Order: &protocol.Order{SQL: "garbage"}})
	var format *protocol.FormatError
	if err != nil || r.Answer != nil || !errors.As(r.Malformed, &format) {
		t.Errorf("garbage: %+v, %v", r.Report, err)
	}
	r, err = do(t, m, Job{Order: &protocol.Order{SQL: "exit 7"}})
	if err != nil || r.Answer != nil || r.ExitCode != 7 || r.OOM || r.TimedOut || !errors.Is(r.Malformed, protocol.ErrNoAnswer) {
		t.Errorf("exit: %+v, %v", r.Report, err)
	}
	// A child that holds the output open does not hold up the answer.
	begin := time.Now()
	if r := must(t, m, "orphan"); r.userError() != "" || time.Since(begin) > 20*time.Second {
		t.Errorf("orphan: %q after %s", r.userError(), time.Since(begin))
	}
}

func TestLogIsCut(t *testing.T) {
	m := open(t, quiet(t))
	r, err := do(t, m, Job{Order: &protocol.Order{SQL: "log 64"}, Limits: Limits{LogBytes: 1000}})
	if err != nil || r.Answer == nil {
		t.Fatalf("%+v, %v", r.Report, err)
	}
	if !strings.HasPrefix(r.log, "log log\n") || !strings.Contains(r.log, "[log cut at its limit of 1000 bytes]") || len(r.log) > 1100 {
		t.Errorf("log of %d bytes ends with %q", len(r.log), r.log[max(0, len(r.log)-60):])
	}
}

func TestNotes(t *testing.T) {
	m := open(t, quiet(t))
	var notes []string
	_, err := do(t, m, Job{Order: &protocol.Order{SQL: "note half way"}, Note: func(s string) { notes = append(notes, s) }})
	if err != nil || len(notes) != 1 || notes[0] != "half way" {
		t.Errorf("%q, %v", notes, err)
	}
}

func TestTimeout(t *testing.T) {
	m := open(t, quiet(t))
	begin := time.Now()
	r, err := do(t, m, Job{Order: &protocol.Order{SQL: "loop"}, Limits: Limits{Timeout: 300 * time.Millisecond}})
	if err != nil || !r.TimedOut || r.Answer != nil || r.OOM || r.ExitCode != -1 || !strings.Contains(r.log, "looping") {
		t.Errorf("%+v, %v, log %q", r.Report, err, r.log)
	}
	if over := time.Since(begin) - r.Start - 300*time.Millisecond; over > time.Second {
		t.Errorf("ended %s after its time", over)
	}
}

func TestCancel(t *testing.T) {
	m := open(t, quiet(t))
	ctx, cancel := context.WithCancel(context.Background())
	looping := writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "looping") {
			cancel()
		}
		return len(p), nil
	})
	_, err := m.Run(ctx, Job{Kind: KindWorker, Order: &protocol.Order{SQL: "loop"}, Log: looping})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := m.Run(ctx, Job{Kind: KindWorker, Order: &protocol.Order{SQL: "id"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a dead context: %v", err)
	}
}

// Cancelling a run ends its sandboxes within a second, with every process of theirs.
func TestCancelKillsWithinASecond(t *testing.T) {
	cfg := quiet(t)
	cfg.WarmWorkers = 2
	m := open(t, cfg)
	if err := m.AwaitWarm(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const jobs = 4 // two of them cold
	var looping atomic.Int32
	ended := make(chan error, jobs)
	all := make(chan struct{})
	for range jobs {
		log := writerFunc(func(p []byte) (int, error) {
			if strings.Contains(string(p), "looping") && looping.Add(1) == jobs {
				close(all)
			}
			return len(p), nil
		})
		go func() {
			_, err := m.Run(ctx, Job{Kind: KindWorker, Order: &protocol.Order{SQL: "loop"}, Log: log})
			ended <- err
		}()
	}
	select {
	case <-all:
	case <-time.After(time.Minute):
		t.Fatalf("%d of %d functions run", looping.Load(), jobs)
	}
	m.mu.Lock()
	m.cfg.WarmMemory = 1 // nothing new is started, and what waits goes
	m.signal()
	m.mu.Unlock()
	begin := time.Now()
	cancel()
	for range jobs {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
	for tick := time.Tick(5 * time.Millisecond); len(processesOf(t, cfg.Dir)) > 0; <-tick {
		if time.Since(begin) > time.Second {
			t.Fatalf("a second later these live: %q", processesOf(t, cfg.Dir))
		}
	}
	t.Logf("all gone after %s", time.Since(begin))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestCPULimit(t *testing.T) {
	m := open(t, quiet(t))
	run := func(cpus float64) time.Duration {
		r, err := do(t, m, Job{Order: &protocol.Order{SQL: "burn 100"}, Limits: Limits{CPUs: cpus}})
		if err != nil || r.Answer == nil {
			t.Fatalf("%+v, %v", r.Report, err)
		}
		return r.Total - r.Start
	}
	if full, tenth := run(1), run(0.1); tenth < 3*full {
		t.Errorf("the same work took %s with one processor and %s with a tenth", full, tenth)
	}
}

func TestCloseEndsJobs(t *testing.T) {
	cfg := quiet(t)
	m, err := New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	log := writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "looping") {
			go func() { closed <- m.Close() }()
		}
		return len(p), nil
	})
	if _, err := m.Run(context.Background(), Job{Kind: KindWorker, Order: &protocol.Order{SQL: "loop"}, Log: log}); !errors.Is(err, ErrClosed) {
		t.Errorf("running job: %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := m.Run(context.Background(), Job{Kind: KindWorker, Order: &protocol.Order{SQL: "id"}}); !errors.Is(err, ErrClosed) {
		t.Errorf("later job: %v", err)
	}
	left, err := os.ReadDir(cfg.Dir)
	if err != nil || len(left) != 1 || left[0].Name() != "lock" {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
