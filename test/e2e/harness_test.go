package e2e

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"
)

// users have a key each; the first is the administrator, and "stranger" is in
// no keys file.
var users = []string{"admin", "ada", "bob", "stranger"}

const (
	// startLimit is far above what a start takes (half a second) and below go
	// test's patience.
	startLimit = time.Minute
	untilLimit = 30 * time.Second
)

// server is the one server of a script.
type server struct {
	cmd     *exec.Cmd
	flags   []string
	sshAddr string // where it listened last: a restart listens there again
	log     *os.File
}

type serverKey struct{}

// reachesIndex matches the variables by which a machine says where packages come
// from; a client that replays needs them as the server does.
var reachesIndex = regexp.MustCompile(`^(UV_|PIP_)|(?i:_PROXY)$|^(SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE)$`)

// setup gives a script its users, a git configuration of its own, and paths.
func (tl *tools) setup(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	keys := filepath.Join(env.WorkDir, "keys")
	for _, dir := range []string{home, keys} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	var authorized bytes.Buffer
	for _, user := range users {
		line, err := makeKey(filepath.Join(keys, user))
		if err != nil {
			return err
		}
		options := fmt.Sprintf("user=%q", user)
		switch user {
		case "admin":
			options += ",admin"
		case "stranger":
			continue
		}
		fmt.Fprintf(&authorized, "%s %s\n", options, line)
	}
	if err := os.WriteFile(filepath.Join(keys, "authorized_keys"), authorized.Bytes(), 0o600); err != nil {
		return err
	}
	config := "[user]\n\tname = Test\n\temail = test@example.com\n[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n[advice]\n\tdetachedHead = false\n"
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o600); err != nil {
		return err
	}
	// ssh takes its home from the password file, so everything is said outright.
	wrapper := "#!/bin/sh\nexec ssh -F none -i \"$HG_KEY\" -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=yes" +
		" -o UserKnownHostsFile=\"$HG_KNOWN_HOSTS\" -o GlobalKnownHostsFile=none \"$@\"\n"
	if err := os.WriteFile(filepath.Join(home, "hgssh"), []byte(wrapper), 0o700); err != nil {
		return err
	}
	asked := "#!/bin/sh\nexec hgssh -p \"$HG_PORT\" 127.0.0.1 \"$@\"\n"
	if err := os.WriteFile(filepath.Join(home, "ask"), []byte(asked), 0o700); err != nil {
		return err
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	env.Setenv("HOME", home)
	env.Setenv("PATH", home+string(filepath.ListSeparator)+tl.bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
	env.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	env.Setenv("GIT_TERMINAL_PROMPT", "0")
	env.Setenv("GIT_SSH_COMMAND", "hgssh")
	env.Setenv("GIT_SSH_VARIANT", "ssh") // git cannot tell from the name
	env.Setenv("HG_KNOWN_HOSTS", filepath.Join(home, "known_hosts"))
	env.Setenv("HG_KEY", filepath.Join(keys, "admin"))
	env.Setenv("HEADGATE_BIN", tl.bin)
	env.Setenv("HEADGATE_PYTHON", tl.python)
	env.Setenv("HEADGATE_UV", tl.uv)
	env.Setenv("OTHER_PYTHON", tl.otherPython)
	env.Setenv("KEYS", keys)
	env.Setenv("DATA", filepath.Join(env.WorkDir, "data"))
	env.Setenv("EXAMPLES", filepath.Join(root, "examples"))
	env.Setenv("SDK", filepath.Join(root, "sdk", "python"))
	env.Setenv("LC_ALL", "C.UTF-8")
	for _, kv := range os.Environ() {
		if name, value, _ := strings.Cut(kv, "="); reachesIndex.MatchString(name) {
			env.Setenv(name, value)
		}
	}
	s := &server{}
	env.Values[serverKey{}] = s
	env.Defer(func() {
		s.kill()
		if t, ok := env.T().(interface{ Failed() bool }); ok && t.Failed() && s.log != nil {
			if log, err := os.ReadFile(s.log.Name()); err == nil {
				env.T().Log("the server's log:\n" + string(log[max(0, len(log)-20_000):]))
			}
		}
	})
	return nil
}

// makeKey writes an ed25519 key pair and returns the public line.
func makeKey(path string) (string, error) {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return "", err
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + filepath.Base(path) + "@test"
	return line, os.WriteFile(path+".pub", []byte(line+"\n"), 0o600)
}

func serverOf(ts *testscript.TestScript) *server { return ts.Value(serverKey{}).(*server) }

// cmdServer is: server start [flags] | stop | kill | restart [flags].
func cmdServer(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: server start|stop|kill|restart [flags]")
	}
	s := serverOf(ts)
	var err error
	switch args[0] {
	case "start":
		s.flags = args[1:]
		err = s.start(ts, "127.0.0.1:0")
	case "stop":
		err = s.stop()
	case "kill":
		s.kill()
	case "restart":
		if s.cmd != nil {
			err = s.stop()
		}
		if len(args) > 1 {
			s.flags = args[1:]
		}
		if err == nil {
			err = s.start(ts, s.sshAddr)
		}
	default:
		ts.Fatalf("server %s: no such word", args[0])
	}
	if neg && err == nil {
		ts.Fatalf("server %s worked", args[0])
	}
	if !neg && err != nil {
		ts.Fatalf("server %s: %v", args[0], err)
	}
}

// start starts the server and returns when it says that it is ready.
func (s *server) start(ts *testscript.TestScript, sshAddr string) error {
	if s.cmd != nil {
		return errors.New("it runs already")
	}
	if s.log == nil {
		log, err := os.OpenFile(ts.MkAbs("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		s.log = log
	}
	args := []string{"serve", "--data", ts.Getenv("DATA"), "--ssh-addr", sshAddr, "--http-addr", "127.0.0.1:0",
		"--authorized-keys", filepath.Join(ts.Getenv("KEYS"), "authorized_keys"), "--python", ts.Getenv("HEADGATE_PYTHON"), "--warm", "0"}
	cmd := exec.Command(filepath.Join(ts.Getenv("HEADGATE_BIN"), "headgate"), append(args, s.flags...)...)
	cmd.Stderr = s.log
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C on go test is the harness's to handle
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ready := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.HasSuffix(lines.Text(), "is ready") {
				ready <- nil
				_, _ = io.Copy(io.Discard, out)
				return
			}
		}
		ready <- errors.New("it ended before it was ready")
	}()
	select {
	case err = <-ready:
	case <-time.After(startLimit):
		err = fmt.Errorf("not ready within %s", startLimit)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log, _ := os.ReadFile(s.log.Name())
		return fmt.Errorf("%w; its log:\n%s", err, log)
	}
	s.cmd = cmd
	return s.learn(ts)
}

// learn takes the addresses and the host key from server.json.
func (s *server) learn(ts *testscript.TestScript) error {
	doc, err := os.ReadFile(filepath.Join(ts.Getenv("DATA"), "server.json"))
	if err != nil {
		return err
	}
	var ready struct {
		SSHAddr  string `json:"ssh_addr"`
		HTTPAddr string `json:"http_addr"`
		HTTPURL  string `json:"http_url"`
		HostKey  string `json:"host_key"`
		GateKey  string `json:"gate_key"`
	}
	if err := json.Unmarshal(doc, &ready); err != nil {
		return err
	}
	s.sshAddr = ready.SSHAddr
	host, port, err := net.SplitHostPort(ready.SSHAddr)
	if err != nil {
		return err
	}
	ts.Setenv("HG_PORT", port)
	ts.Setenv("HEADGATE_URL", "ssh://"+net.JoinHostPort(host, port))
	ts.Setenv("HEADGATE_HTTP", strings.TrimSuffix(ready.HTTPURL, "/"))
	known := fmt.Sprintf("[%s]:%s %s\n", host, port, strings.TrimSpace(ready.HostKey))
	if err := os.WriteFile(ts.Getenv("HG_KNOWN_HOSTS"), []byte(known), 0o600); err != nil {
		return err
	}
	signers := strings.TrimSpace(ready.GateKey) + "\n"
	return os.WriteFile(filepath.Join(ts.Getenv("HOME"), "allowed_signers"), []byte(signers), 0o600)
}

// stop asks the server to end and wants exit code 0.
func (s *server) stop() error {
	if s.cmd == nil {
		return errors.New("it does not run")
	}
	cmd := s.cmd
	s.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(startLimit):
		_ = cmd.Process.Kill()
		return errors.Join(errors.New("it did not end after SIGTERM"), <-done)
	}
}

// kill ends the server as a power cut would.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}
