package abuse

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/sdk"
)

// laboratory is a server's sandboxes, and a host around them that has something
// to lose.
type laboratory struct {
	dir   string
	boxes *sandbox.Manager
	host  map[string]string // what attackers are told of it

	packages string // a directory of packages, pyarrow among them
}

var lab *laboratory

// secretVariable is in the environment of this process, which is the server here.
const secretVariable = "HEADGATE_ABUSE_SECRET"

// secret is in every file and variable that nobody may read.
const secret = "a-secret-of-the-host"

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if lab, err = open(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if err := lab.close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

// open starts sandboxes as the server does, with the built programs, Python and
// its library, and puts something to steal beside them.
func open() (*laboratory, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the abuse suite needs root: memory limits are cgroups")
	}
	python := os.Getenv("HEADGATE_PYTHON")
	if python == "" {
		return nil, errors.New("HEADGATE_PYTHON names no interpreter with pyarrow; run make unit")
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		return nil, err
	}
	if err := os.Setenv(secretVariable, secret); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "headgate-abuse-")
	if err != nil {
		return nil, err
	}
	l := &laboratory{dir: dir, host: map[string]string{"pid": strconv.Itoa(os.Getpid()), "variable": secretVariable, "secret": secret, "state": filepath.Join(dir, "sandbox")}}
	for name, path := range map[string]string{
		"canary": "canary", "host_key": "ssh_host_ed25519_key", "gate_key": "gate_key", "lake": "lakes/other/objects/pack/pack-1.pack",
	} {
		l.host[name] = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(l.host[name]), 0o755); err != nil {
			return nil, err
		}
		// Readable by everybody: it is not the mode that protects it.
		if err := os.WriteFile(l.host[name], []byte(secret), 0o644); err != nil {
			return nil, err
		}
	}
	ctx := context.Background()
	interpreters, err := sandbox.Discover(ctx, []string{python})
	if err != nil {
		return nil, err
	}
	library, err := sdk.Unpack(filepath.Join(dir, "sdk"))
	if err != nil {
		return nil, err
	}
	l.host["interpreter"], l.host["library"] = interpreters[0].Path, library
	l.packages = filepath.Join(interpreters[0].Prefix, "lib", "python"+interpreters[0].Version, "site-packages")
	l.boxes, err = sandbox.New(ctx, sandbox.Config{
		Dir: l.host["state"], Runsc: filepath.Join(bin, "headgate"), Worker: filepath.Join(bin, "headgate-worker"),
		PythonSDK: library, Interpreters: interpreters, WarmWorkers: -1, WarmPython: -1, Scratch: 256 << 20,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return nil, err
	}
	l.host["object"] = filepath.Join(dir, "object.parquet")
	table, err := l.query("SELECT range AS n FROM range(1000)", "parquet")
	if err != nil {
		return nil, err
	}
	return l, os.WriteFile(l.host["object"], table, 0o666)
}

func (l *laboratory) close() error {
	err := l.boxes.Close()
	if left := l.processes(); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("processes are left: %q", left))
	}
	return errors.Join(err, os.RemoveAll(l.dir))
}

// patience is how long an honest function may take that takes a third of a second
// on an idle machine: starved it would take for ever.
const patience = 30 * time.Second

// query runs SQL on the input in a sandbox of its own and returns the rows.
func (l *laboratory) query(sql, format string) ([]byte, error) {
	job := sandbox.Job{Kind: sandbox.KindWorker, Order: &protocol.Order{Op: protocol.OpQuery, SQL: sql, Format: format}}
	if _, err := os.Stat(l.host["object"]); err == nil {
		job.Order.Inputs = l.order("").Inputs
		job.Inputs = l.inputs()
	}
	var rows []byte
	job.Files = func(_ string, _ int64, r io.Reader) (err error) {
		rows, err = io.ReadAll(r)
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := l.boxes.Run(ctx, job)
	switch {
	case err != nil:
		return nil, err
	case r.Answer == nil:
		return nil, fmt.Errorf("no answer: %+v", r)
	case r.Answer.Error != nil:
		return nil, r.Answer.Error
	case len(r.Violations) > 0:
		return nil, fmt.Errorf("an honest function has violations: %v", r.Violations)
	}
	return rows, nil
}

// neighbour is an honest function.
func (l *laboratory) neighbour() error {
	got, err := l.query("SELECT count(*) AS rows, sum(n) AS total FROM t", "csv")
	if err == nil && string(got) != "rows,total\n1000,499500\n" {
		err = fmt.Errorf("its result is %q", got)
	}
	return err
}

// look describes what of the host an attack might change.
func (l *laboratory) look(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"canary", "host_key", "gate_key", "lake", "object", "interpreter"} {
		data, err := os.ReadFile(l.host[name])
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(l.host[name])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %x %s %s\n", name, sha256.Sum256(data), info.Mode(), info.ModTime())
	}
	err := filepath.WalkDir(l.host["library"], func(path string, d os.DirEntry, err error) error {
		if err == nil {
			fmt.Fprintln(&b, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "sandbox", "sandbox/boxes", "sandbox/scratch", "sandbox/rootfs", "sandbox/rootfs/worker/tmp"} {
		entries, err := os.ReadDir(filepath.Join(l.dir, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			fmt.Fprintf(&b, "%s/%s\n", dir, e.Name())
		}
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, l.dir) { // others mount and unmount what they like
			b.WriteString(line)
		}
	}
	// What attacks leave outside of their sandbox, if they can, has this name.
	left, err := filepath.Glob("/*/pwned*")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "host %s, %q\n", host, left)
	return b.String()
}

// settled waits until nothing of the sandboxes runs any more.
func (l *laboratory) settled(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.Tick(5 * time.Millisecond); ; <-tick {
		left := l.processes()
		boxes, err := os.ReadDir(filepath.Join(l.host["state"], "boxes"))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 && len(boxes) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left of the sandboxes: %q, %v", left, boxes)
		}
	}
}

// processes lists those that descend from this one or speak of its sandboxes.
func (l *laboratory) processes() []string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		panic(err)
	}
	var list []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // gone
		}
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		fields := strings.Fields(string(rest))
		child := len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) && fields[0] != "Z"
		if child || bytes.Contains(line, []byte(l.dir)) {
			list = append(list, fmt.Sprintf("%d %s", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return list
}
