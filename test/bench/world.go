package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// world is a server, a user and a work tree, all in one temporary directory.
type world struct {
	dir, tree string
	bin       string
	python    string
	env       []string
	server    *exec.Cmd
}

// sample is what one push took.
type sample struct {
	push, run, start, work float64 // seconds; work is the functions' summed time
	models, cached         int
	sandboxes, warm        int
}

func newWorld(ctx context.Context, lake string) (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.bin = os.Getenv("HEADGATE_BIN"); w.bin == "" {
		w.bin = "bin"
	}
	if w.bin, err = filepath.Abs(w.bin); err != nil {
		return nil, err
	}
	if w.python = os.Getenv("HEADGATE_PYTHON"); w.python == "" {
		return nil, errors.New("HEADGATE_PYTHON is not set; run: make bench")
	}
	if w.dir, err = os.MkdirTemp("", "headgate-bench-"); err != nil {
		return nil, err
	}
	w.tree = filepath.Join(w.dir, "tree")
	ssh := filepath.Join(w.dir, ".ssh")
	if err := os.Mkdir(ssh, 0o700); err != nil {
		return nil, err
	}
	key := filepath.Join(ssh, "id_ed25519")
	if err := command(ctx, "", os.Environ(), nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench@test", "-f", key); err != nil {
		return nil, err
	}
	w.env = append(os.Environ(), "HOME="+w.dir, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Bench", "GIT_AUTHOR_EMAIL=bench@example.com", "GIT_COMMITTER_NAME=Bench", "GIT_COMMITTER_EMAIL=bench@example.com",
		fmt.Sprintf("GIT_SSH_COMMAND=ssh -F none -i %s -o IdentitiesOnly=yes -o UserKnownHostsFile=%s", key, filepath.Join(ssh, "known_hosts")))
	port, err := w.serve()
	if err != nil {
		return nil, err
	}
	if err := command(ctx, "", w.env, nil, "cp", "-r", lake, w.tree); err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"remote", "add", "origin", "ssh://127.0.0.1:" + port + "/bench"},
		{"add", "-A"},
		{"commit", "-q", "-m", "First state"},
	} {
		if err := w.git(ctx, nil, args...); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// serve starts the server as a user would, with its warm sandboxes, and returns its port.
func (w *world) serve() (port string, err error) {
	log, err := os.Create(filepath.Join(w.dir, "server.log"))
	if err != nil {
		return "", err
	}
	defer log.Close()
	data := filepath.Join(w.dir, "data")
	cmd := exec.Command(filepath.Join(w.bin, "headgate"), "serve", "--data", data, "--ssh-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--python", w.python)
	cmd.Env, cmd.Stderr = w.env, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	banner, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	w.server = cmd
	lines := bufio.NewScanner(banner)
	for lines.Scan() && !strings.HasSuffix(lines.Text(), "is ready") {
	}
	go func() { _, _ = io.Copy(io.Discard, banner) }()
	doc, err := os.ReadFile(filepath.Join(data, "server.json"))
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return "", fmt.Errorf("the server did not start: %w\n%s", err, text)
	}
	var ready struct {
		SSHAddr string `json:"ssh_addr"`
		HostKey string `json:"host_key"`
	}
	if err := json.Unmarshal(doc, &ready); err != nil {
		return "", err
	}
	_, port, err = net.SplitHostPort(ready.SSHAddr)
	if err != nil {
		return "", err
	}
	known := fmt.Sprintf("[127.0.0.1]:%s %s\n", port, strings.TrimSpace(ready.HostKey))
	return port, os.WriteFile(filepath.Join(w.dir, ".ssh", "known_hosts"), []byte(known), 0o600)
}

func (w *world) close() {
	if w.server != nil {
		_ = w.server.Process.Signal(syscall.SIGTERM)
		_ = w.server.Wait()
	}
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}

func command(ctx context.Context, dir string, env []string, out io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, out, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return nil
}

func (w *world) git(ctx context.Context, out io.Writer, args ...string) error {
	return command(ctx, w.tree, w.env, out, "git", args...)
}

// changeSource changes one row of flights, so that everything below it changes.
func (w *world) changeSource(ctx context.Context, round int) error {
	const code = `import duckdb, glob, os, sys
[old] = glob.glob("tables/flights/*.parquet")
duckdb.sql(f"SELECT * REPLACE (CASE WHEN flight_id = {1 + int(sys.argv[1])} THEN delay + 1 ELSE delay END AS delay) FROM '{old}'").write_parquet("tables/flights/next.parquet")
os.remove(old)
if os.path.exists("tables/flights/table.json"):
    os.remove("tables/flights/table.json")
`
	if err := command(ctx, w.tree, w.env, nil, w.python, "-c", code, fmt.Sprint(round)); err != nil {
		return err
	}
	if err := w.git(ctx, nil, "add", "-A"); err != nil {
		return err
	}
	return w.git(ctx, nil, "commit", "-q", "-m", fmt.Sprintf("Change %d", round))
}

// push publishes HEAD, takes the time, reads the run record, and pulls.
func (w *world) push(ctx context.Context) (sample, error) {
	started := time.Now()
	if err := w.git(ctx, nil, "push", "-q", "origin", "HEAD:main"); err != nil {
		return sample{}, err
	}
	s := sample{push: time.Since(started).Seconds()}
	if err := w.git(ctx, nil, "pull", "-q", "--ff-only", "origin", "main"); err != nil {
		return s, err
	}
	var id, doc bytes.Buffer
	if err := w.git(ctx, &id, "log", "-1", "--format=%(trailers:key=Run-Id,valueonly)"); err != nil {
		return s, err
	}
	if err := w.git(ctx, nil, "fetch", "-q", "origin", "refs/runs/"+strings.TrimSpace(id.String())); err != nil {
		return s, err
	}
	if err := w.git(ctx, &doc, "show", "FETCH_HEAD:run.json"); err != nil {
		return s, err
	}
	return s, s.add(doc.Bytes())
}

// add takes the run's own times from its record.
func (s *sample) add(doc []byte) error {
	type cost struct {
		Cached    bool    `json:"cached"`
		Seconds   float64 `json:"seconds"`
		Start     float64 `json:"start_seconds"`
		Sandboxes int     `json:"sandboxes"`
		Warm      int     `json:"warm"`
	}
	var rec struct {
		Started   time.Time `json:"started"`
		Ended     time.Time `json:"ended"`
		Models    []cost    `json:"models"`
		Verifiers []cost    `json:"verifiers"`
	}
	if err := json.Unmarshal(doc, &rec); err != nil {
		return fmt.Errorf("run.json: %w", err)
	}
	s.run = rec.Ended.Sub(rec.Started).Seconds()
	s.models = len(rec.Models)
	for _, c := range rec.Models {
		if c.Cached {
			s.cached++
		}
	}
	for _, c := range append(rec.Models, rec.Verifiers...) {
		s.start += c.Start
		s.work += c.Seconds
		s.sandboxes += c.Sandboxes
		s.warm += c.Warm
	}
	return nil
}
