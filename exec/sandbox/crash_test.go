package sandbox

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/protocol"
)

// actAsServer is this test binary as a server: it runs SANDBOX_TEST_VERB and ends,
// or without one has two sandboxes wait and one run.
func actAsServer() int {
	verb, warm := os.Getenv("SANDBOX_TEST_VERB"), 2
	if verb != "" {
		warm = -1
	}
	m, err := New(context.Background(), Config{
		Dir: os.Getenv("SANDBOX_TEST_SERVER"), Runsc: os.Getenv("HEADGATE_BIN"), Worker: os.Getenv("SANDBOX_TEST_WORKER"),
		WarmWorkers: warm,
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := m.AwaitWarm(context.Background()); err != nil {
		fmt.Println(err)
		return 1
	}
	if verb != "" {
		r, err := m.Run(context.Background(), Job{
			Kind: KindWorker, Order: &protocol.Order{SQL: verb}, Limits: Limits{Memory: 512 << 20, Timeout: 20 * time.Second},
			Files: func(_ string, _ int64, body io.Reader) error {
				_, err := io.Copy(os.Stdout, body)
				return err
			},
			Log: os.Stdout,
		})
		if err == nil {
			fmt.Printf("\nviolations %v, answer %t, out of time %t\n", r.Violations, r.Answer != nil, r.TimedOut)
			err = m.Close()
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
		return 0
	}
	_, err = m.Run(context.Background(), Job{Kind: KindWorker, Order: &protocol.Order{SQL: "loop"}, Log: os.Stdout})
	fmt.Println(err)
	return 1
}

// processesOf lists the processes whose command line or root speaks of dir.
func processesOf(tb testing.TB, dir string) []string {
	tb.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		tb.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && strings.Contains(string(line), dir) {
			list = append(list, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return list
}

func TestKilledServerLeavesNothingRunning(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	server := exec.Command("/proc/self/exe")
	server.Env = append(os.Environ(), "SANDBOX_TEST_SERVER="+dir, "HEADGATE_BIN="+runscBinary, "SANDBOX_TEST_WORKER="+probeBinary)
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "looping" {
		t.Fatalf("server says %q", lines.Text())
	}
	if n := len(processesOf(t, dir)); n < 6 { // at least runsc, sentry and gofer of two
		t.Fatalf("%d sandbox processes before the kill", n)
	}
	var cfg = quiet(t)
	cfg.Dir = dir
	if _, err := New(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "in use by another server") {
		t.Errorf("second server in the same directory: %v", err)
	}
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait()
	deadline := time.Now().Add(5 * time.Second)
	for tick := time.Tick(10 * time.Millisecond); ; <-tick {
		left := processesOf(t, dir)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("these survive: %q", left)
		}
	}

	// What it left on disk, of mounts and in cgroups is swept by the next server.
	group := groupDirs(t, dir)
	if len(group) == 0 {
		t.Fatal("no cgroups of the killed server")
	}
	mounts, err := mountsBelow(dir)
	if err != nil || len(mounts) == 0 {
		t.Fatalf("no mounts of the killed server: %v", err)
	}
	old, err := os.ReadDir(filepath.Join(dir, "boxes"))
	if err != nil || len(old) < 2 {
		t.Fatalf("directories of the killed server: %v, %v", old, err)
	}
	m, err := New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r := must(t, m, "echo again"); r.out() != "again" {
		t.Errorf("next server: %q", r.out())
	}
	for _, d := range group {
		if _, err := os.Stat(d); err == nil {
			t.Errorf("cgroup %s is still there", d)
		}
	}
	for _, e := range old {
		if _, err := os.Stat(filepath.Join(dir, "boxes", e.Name())); err == nil {
			t.Errorf("directory %s is still there", e.Name())
		}
	}
	// And one that ends leaves its lock file, and nothing else.
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("processes left: %q", left)
	}
	if mounts, err = mountsBelow(dir); err != nil || len(mounts) > 0 {
		t.Errorf("mounts left: %q, %v", mounts, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "lock" {
		t.Errorf("files left: %v, %v", left, err)
	}
	for _, d := range group {
		if _, err := os.Stat(filepath.Dir(d)); err == nil {
			t.Errorf("cgroup %s is still there", filepath.Dir(d))
		}
	}
}

// groupDirs lists the cgroups of the sandboxes of dir.
func groupDirs(tb testing.TB, dir string) []string {
	tb.Helper()
	c, err := openCgroups(groupName(dir))
	if err != nil {
		tb.Fatal(err)
	}
	var list []string
	for _, d := range c.dirs {
		sub, err := filepath.Glob(filepath.Join(d, "*", "tasks"))
		if err != nil {
			tb.Fatal(err)
		}
		for _, s := range sub {
			list = append(list, filepath.Dir(s))
		}
	}
	return list
}

// A sentry that dies without a word is a breakdown: nobody knows what the
// program had done.
func TestDeadSentryIsNotAResult(t *testing.T) {
	m := open(t, quiet(t))
	log := writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "looping") {
			for _, dir := range groupDirs(t, m.cfg.Dir) {
				b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
				if err != nil {
					continue // another sandbox, just gone
				}
				for _, f := range strings.Fields(string(b)) {
					pid, _ := strconv.Atoi(f)
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
		return len(p), nil
	})
	r, err := m.Run(context.Background(), Job{Kind: KindWorker, Order: &protocol.Order{SQL: "loop"}, Log: log})
	if err == nil || !strings.Contains(err.Error(), "broke down") {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no directory":     {func(c *Config) { c.Dir = "" }, "no state directory"},
		"comma":            {func(c *Config) { c.Dir += ",x" }, "comma"},
		"no worker":        {func(c *Config) { c.Worker = "" }, "no headgate-worker"},
		"missing worker":   {func(c *Config) { c.Worker = "/nonexistent/worker" }, "worker binary"},
		"missing runsc":    {func(c *Config) { c.Runsc = "/nonexistent/runsc" }, "start sandbox"},
		"not runsc":        {func(c *Config) { c.Runsc = "/bin/false" }, "did not start (exit status 1)"},
		"no worker at all": {func(c *Config) { c.Worker = "/etc/hostname" }, "self-test"},
		"no SDK":           {func(c *Config) { c.Interpreters = []Interpreter{{Version: "3.11"}} }, "no directory of its SDK"},
		"wrong SDK": {func(c *Config) {
			c.Interpreters, c.PythonSDK = []Interpreter{{Version: "3.11"}}, t.TempDir()
		}, "no package headgate"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := quiet(t)
			c.change(&cfg)
			m, err := New(context.Background(), cfg)
			if err == nil {
				t.Error("no error", m.Close())
			} else if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestLongStateDirectory(t *testing.T) {
	cfg := quiet(t)
	cfg.Dir = filepath.Join(t.TempDir(), strings.Repeat("long-name/", 12), "with blank")
	m := open(t, cfg)
	if r := must(t, m, "echo x"); r.out() != "x" {
		t.Errorf("%q", r.out())
	}
}
