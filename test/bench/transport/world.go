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

	"golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/test/wire"
)

// world is the two servers, a user and the files of a run, all in one directory
// that is removed in the end.
type world struct {
	dir, bin string
	env      []string
	sshArgs  []string // the client's command line, without a host
	key      ssh.Signer
	keyFile  string
	ours     *daemon
	stock    *daemon
	repos    string // directory of the repositories that stock git serves
}

// daemon is a server under way.
type daemon struct {
	name string
	cmd  *exec.Cmd
	addr string
}

func (d *daemon) url(path string) string { return "ssh://git@" + d.addr + "/" + path }

// newWorld starts our server; stock git's is started by who compares.
func newWorld(ctx context.Context, b *bench) (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.bin, err = filepath.Abs(b.bin); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(w.bin, "headgate")); err != nil {
		return nil, fmt.Errorf("%w; run: make bench-transport", err)
	}
	cache, err := filepath.Abs(b.cache)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	if w.dir, err = os.MkdirTemp(cache, "transport-"); err != nil {
		return nil, err
	}
	w.repos = filepath.Join(w.dir, "repos")
	home := filepath.Join(w.dir, ".ssh")
	if err := errors.Join(os.Mkdir(w.repos, 0o755), os.Mkdir(home, 0o700)); err != nil {
		return nil, err
	}
	keyFile := filepath.Join(home, "id_ed25519")
	if _, err := command(ctx, "", os.Environ(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench@test", "-f", keyFile); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	if w.key, err = ssh.ParsePrivateKey(text); err != nil {
		return nil, err
	}
	w.sshArgs = []string{"ssh", "-F", "none", "-i", keyFile, "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}
	w.env = append(os.Environ(), "HOME="+w.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "SSH_AUTH_SOCK=",
		"GIT_AUTHOR_NAME=Bench", "GIT_AUTHOR_EMAIL=bench@example.com", "GIT_COMMITTER_NAME=Bench", "GIT_COMMITTER_EMAIL=bench@example.com",
		"GIT_SSH_COMMAND="+strings.Join(w.sshArgs, " "))
	w.keyFile = keyFile
	return w, w.restart(ctx)
}

// startStock starts this program as the endpoint of stock git.
func (w *world) startStock(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	addrFile := filepath.Join(w.dir, "stock.addr")
	cmd := exec.Command(self, stockWord, w.repos, w.keyFile, addrFile)
	cmd.Env, cmd.Stderr = w.env, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	d := &daemon{name: "stock", cmd: cmd}
	for range 500 {
		if addr, err := os.ReadFile(addrFile); err == nil {
			d.addr = string(addr)
			w.stock = d
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), d.stop())
		}
	}
	return errors.Join(errors.New("the stock endpoint does not start"), d.stop())
}

// restart starts the server as a user would, and ends the one before. No sandbox
// waits in its pool: none is used here, and their start would be counted.
func (w *world) restart(ctx context.Context) error {
	if w.ours != nil {
		if err := w.ours.stop(); err != nil {
			return err
		}
		w.ours = nil
	}
	log, err := os.OpenFile(filepath.Join(w.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"serve", "--data", w.data(), "--ssh-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--warm", "0"}
	if python := os.Getenv("HEADGATE_PYTHON"); python != "" {
		args = append(args, "--python", python)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(w.bin, "headgate"), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env, cmd.Stderr = w.env, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	banner, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	w.ours = &daemon{name: "headgate", cmd: cmd}
	lines := bufio.NewScanner(banner)
	for lines.Scan() && !strings.HasSuffix(lines.Text(), "is ready") {
	}
	go func() { _, _ = io.Copy(io.Discard, banner) }()
	doc, err := os.ReadFile(filepath.Join(w.data(), "server.json"))
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("the server did not start: %w\n%s", err, text)
	}
	var ready struct {
		SSHAddr string `json:"ssh_addr"`
	}
	if err := json.Unmarshal(doc, &ready); err != nil {
		return err
	}
	w.ours.addr = ready.SSHAddr
	return nil
}

func (w *world) data() string { return filepath.Join(w.dir, "data") }

// lakeDir is where the server keeps a lake.
func (w *world) lakeDir(lake string) string { return filepath.Join(w.data(), "lakes", lake) }

// dial opens a connection to the server for the wire-level client.
func (w *world) dial(ctx context.Context, d *daemon) (*wire.Client, error) {
	return wire.Dial(ctx, d.addr, w.key, nil)
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

func (d *daemon) stop() error {
	if d.name == "stock" {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait() // killed, as asked
		return nil
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return d.cmd.Wait()
}

func (w *world) close() {
	for _, d := range []*daemon{w.ours, w.stock} {
		if d == nil {
			continue
		}
		if err := d.stop(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", d.name, err)
		}
	}
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}

// stockRepo makes a repository that stock git serves, with its defaults or with
// what serves large files best: packs are kept as they come, nothing is deflated
// or searched for deltas.
func (w *world) stockRepo(ctx context.Context, name string, tuned bool) error {
	dir := filepath.Join(w.repos, name)
	if _, err := command(ctx, w.repos, w.env, "git", "init", "-q", "--bare", "-b", branch, dir); err != nil {
		return err
	}
	settings := [][2]string{{"gc.auto", "0"}, {"receive.autogc", "false"}}
	if tuned {
		settings = append(settings, [][2]string{
			{"receive.unpackLimit", "1"}, {"core.compression", "0"}, {"pack.window", "0"}, {"core.bigFileThreshold", "1m"},
		}...)
	}
	for _, s := range settings {
		if _, err := command(ctx, dir, w.env, "git", "config", s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// cost is what a command, or a server meanwhile, took.
type cost struct {
	wall, cpu time.Duration
	server    time.Duration // processor time of the server, if one took part
	output    []byte
}

// less keeps the best of several turns: each figure by itself, since noise only adds.
func (c *cost) less(other cost) {
	if c.wall == 0 {
		*c = other
		return
	}
	c.wall, c.cpu, c.server = min(c.wall, other.wall), min(c.cpu, other.cpu), min(c.server, other.server)
}

// command runs a program. Its processor time is that of all it waited for.
func command(ctx context.Context, dir string, env []string, name string, args ...string) (cost, error) {
	return pipe(ctx, dir, env, nil, nil, name, args...)
}

// pipe is command with standard input and output; without out, the output is kept.
func pipe(ctx context.Context, dir string, env []string, in io.Reader, out io.Writer, name string, args ...string) (cost, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, env, in, &stdout, &stderr
	if out != nil {
		cmd.Stdout = out
	}
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return cost{}, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	state := cmd.ProcessState
	return cost{wall: time.Since(start), cpu: state.UserTime() + state.SystemTime(), output: stdout.Bytes()}, nil
}

// client runs git against a server and counts the server's processor time too.
func (w *world) client(ctx context.Context, d *daemon, dir string, args ...string) (cost, error) {
	return counted(d, func() (cost, error) { return command(ctx, dir, w.env, "git", args...) })
}

func counted(d *daemon, run func() (cost, error)) (cost, error) {
	before, err := cpuOf(d.pid())
	if err != nil {
		return cost{}, err
	}
	c, err := run()
	if err != nil {
		return cost{}, err
	}
	// A child of the stock endpoint is counted when it has been waited for; our
	// server removes the quarantine after the report.
	time.Sleep(100 * time.Millisecond)
	after, err := cpuOf(d.pid())
	c.server = after - before
	return c, err
}

// transport measures SSH alone: as many bytes as the file has, sent by the
// endpoint to nobody, and taken by it.
func (w *world) transport(ctx context.Context, file string) (send, take cost, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return send, take, err
	}
	host, port, err := net.SplitHostPort(w.stock.addr)
	if err != nil {
		return send, take, err
	}
	ssh := func(in io.Reader, words string) (cost, error) {
		return counted(w.stock, func() (cost, error) {
			return pipe(ctx, w.dir, w.env, in, io.Discard, w.sshArgs[0], append(append([]string{}, w.sshArgs[1:]...), "-p", port, "git@"+host, words)...)
		})
	}
	if send, err = ssh(nil, fmt.Sprintf("%s %d", sendWord, info.Size())); err != nil {
		return send, take, err
	}
	f, err := os.Open(file)
	if err != nil {
		return send, take, err
	}
	defer f.Close()
	take, err = ssh(f, takeWord+" all")
	return send, take, err
}
