package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/headgate/headgate/test/daemon"
)

// users have a key each; the first is the administrator, and "stranger" is in
// no keys file.
var users = []string{"admin", "ada", "bob", "lea", "bot", "stranger"}

const untilLimit = 30 * time.Second

// server is the one server of a script.
type server struct {
	running *daemon.Daemon // nil if it does not run
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
		line, err := daemon.MakeKey(filepath.Join(keys, user))
		if err != nil {
			return err
		}
		options := fmt.Sprintf("user=%q", user)
		switch user {
		case "admin":
			options += ",admin"
		case "lea":
			options += `,groups="leads"`
		case "bot":
			options += `,groups="agents"`
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
	env.Setenv("DOCS", filepath.Join(root, "docs"))
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
		if s.running != nil {
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
	if s.running != nil {
		return errors.New("it runs already")
	}
	if s.log == nil {
		log, err := os.OpenFile(ts.MkAbs("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		s.log = log
	}
	d, err := daemon.Start(daemon.Options{
		Bin: ts.Getenv("HEADGATE_BIN"), Data: ts.Getenv("DATA"), SSHAddr: sshAddr,
		AuthorizedKeys: filepath.Join(ts.Getenv("KEYS"), "authorized_keys"),
		Python:         ts.Getenv("HEADGATE_PYTHON"),
		Flags:          append([]string{"--warm", "0"}, s.flags...),
		Env:            []string{"HOME=" + ts.Getenv("HOME")},
		Log:            s.log,
	})
	if err != nil {
		return err
	}
	s.running = d
	return s.learn(ts)
}

// learn gives the script the server's addresses and keys.
func (s *server) learn(ts *testscript.TestScript) error {
	s.sshAddr = s.running.SSHAddr
	_, port, err := net.SplitHostPort(s.sshAddr)
	if err != nil {
		return err
	}
	ts.Setenv("HG_PORT", port)
	ts.Setenv("HEADGATE_URL", "ssh://"+s.sshAddr)
	ts.Setenv("HEADGATE_HTTP", strings.TrimSuffix(s.running.HTTPURL, "/"))
	known, err := s.running.KnownHosts()
	if err != nil {
		return err
	}
	if err := os.WriteFile(ts.Getenv("HG_KNOWN_HOSTS"), []byte(known), 0o600); err != nil {
		return err
	}
	signers := strings.TrimSpace(s.running.GateKey) + "\n"
	return os.WriteFile(filepath.Join(ts.Getenv("HOME"), "allowed_signers"), []byte(signers), 0o600)
}

// stop asks the server to end and wants exit code 0.
func (s *server) stop() error {
	if s.running == nil {
		return errors.New("it does not run")
	}
	d := s.running
	s.running = nil
	return d.Stop()
}

// kill ends the server as a power cut would.
func (s *server) kill() {
	if s.running != nil {
		s.running.Kill()
		s.running = nil
	}
}
