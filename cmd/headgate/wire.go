package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/sdk"
	"github.com/headgate/headgate/server"
	"github.com/headgate/headgate/server/token"
)

// runServe builds the server from cfg, announces it and serves until ctx ends.
// The order of ending is the reverse of the order of building: no more
// connections, runs end, sandboxes end, lakes close.
func runServe(ctx context.Context, cfg serveConfig) (err error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(cfg.Log, &slog.HandlerOptions{Level: level}))
	closing := func(what string, f func() error) {
		if cerr := f(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", what, cerr))
		}
	}
	for _, dir := range []string{"keys", "tmp", "sandbox"} {
		if err := os.MkdirAll(filepath.Join(cfg.Data, dir), 0o700); err != nil {
			return err
		}
	}
	hostKey, err := server.LoadHostKey(filepath.Join(cfg.Data, "keys", "host_ed25519"))
	if err != nil {
		return err
	}
	signer, err := hooks.LoadSigner(filepath.Join(cfg.Data, "keys", "gate_ed25519"))
	if err != nil {
		return err
	}
	keys, err := server.NewKeyFile(cfg.AuthorizedKeys, administrators(cfg.Admins), log)
	if err != nil {
		return err
	}

	var certificates *server.Certificates
	if cfg.TLSCert != "" {
		if certificates, err = server.LoadCertificates(cfg.TLSCert, cfg.TLSKey, log); err != nil {
			return err
		}
	}

	boxes, env, err := startSandboxes(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer closing("stop sandboxes", boxes.Close)
	defer collectPackages(ctx, env.Packages, cfg.KeepPackages, log)()
	secrets, err := lake.LoadSecretsKey(filepath.Join(cfg.Data, "keys", "secrets_key"))
	if err != nil {
		return err
	}
	lakes, err := lake.OpenDirectory(filepath.Join(cfg.Data, "lakes"), secrets, log)
	if err != nil {
		return err
	}
	defer closing("close lakes", lakes.Close)
	tokens, err := token.Open(filepath.Join(cfg.Data, "tokens.db"))
	if err != nil {
		return err
	}
	defer closing("close tokens", tokens.Close)
	gate := hooks.New(hooks.Config{
		Runtime: exec.New(boxes, env, cfg.Budget, log), Signer: signer, Logger: log, People: keys.People,
		TempDir: filepath.Join(cfg.Data, "tmp"), Ceiling: cfg.Ceiling, Versions: versions(cfg.Worker, env),
	})
	house, err := lakes.House()
	if err != nil {
		return err
	}
	if err := recoverRuns(ctx, gate, lakes); err != nil {
		return err
	}

	defer lookAfter(ctx, cfg.Care, lakes, log)()

	sshListener, err := net.Listen("tcp", cfg.SSHAddr)
	if err != nil {
		return fmt.Errorf("listen for ssh: %w", err)
	}
	defer sshListener.Close()
	httpListener, err := net.Listen("tcp", cfg.HTTPAddr)
	if err != nil {
		return fmt.Errorf("listen for http: %w", err)
	}
	defer httpListener.Close()
	host, port := reachable(sshListener.Addr().String())
	overHTTP, noHTTP := webURL(httpListener.Addr(), certificates != nil)
	if noHTTP != "" {
		log.Warn("git over HTTP is off", "reason", noHTTP)
	}
	srv, err := server.New(server.Config{
		HostKey: hostKey, Keys: keys, Lakes: lakes, Gate: gate, Querier: gate, Differ: gate, Runs: gate, Replayer: gate, Policies: gate, Tokens: tokens, Audit: gate, House: house, Logger: log, Version: cfg.Version,
		URL: "ssh://" + net.JoinHostPort(host, port) + "/", SSH: "ssh -p " + port + " " + host, GateKey: signer.AllowedSigners(),
		HTTP: overHTTP, NoHTTP: noHTTP,
		Limits: cfg.Pushes.Limits, Staging: cfg.Pushes.Staging, Pace: cfg.Pushes.Pace,
	})
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- srv.Serve(sshListener) }()
	go func() { failed <- srv.ServeWeb(httpListener, certificates) }()

	if err := cfg.announce(readiness{
		SSHAddr: sshListener.Addr().String(), HTTPAddr: httpListener.Addr().String(), HTTPURL: overHTTP, NoHTTP: noHTTP,
		TLS: certificates != nil, PID: os.Getpid(), Version: cfg.Version,
		HostKey: strings.TrimSpace(string(gossh.MarshalAuthorizedKey(hostKey.PublicKey()))), GateKey: signer.AllowedSigners(),
	}); err != nil {
		return errors.Join(err, drain(srv, gate, cfg.DrainTimeout))
	}
	defer cfg.withdraw()
	select {
	case <-ctx.Done():
		log.Info("draining: runs under way may end", "within", cfg.DrainTimeout)
	case err = <-failed:
	}
	return errors.Join(err, drain(srv, gate, cfg.DrainTimeout))
}

// drain lets pushes and runs under way end, within the time given. What is
// stopped after that leaves main where it was.
func drain(srv *server.Server, gate *hooks.Gate, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return errors.Join(srv.Shutdown(ctx), gate.Wait(ctx))
}

func administrators(own []adminKey) []server.AuthorizedKey {
	keys := make([]server.AuthorizedKey, 0, len(own))
	for _, a := range own {
		name, _, _ := strings.Cut(a.Comment, "@")
		keys = append(keys, server.AuthorizedKey{Key: a.Key, Who: hooks.Identity{Name: name, Admin: true, Fingerprint: gossh.FingerprintSHA256(a.Key)}})
	}
	return keys
}

// startSandboxes finds what functions run in and starts the sandboxes, whose
// self-test must pass: there is no other way to run a function.
func startSandboxes(ctx context.Context, cfg serveConfig, log *slog.Logger) (*sandbox.Manager, exec.Environments, error) {
	var env exec.Environments
	library, err := sdk.Unpack(filepath.Join(cfg.Data, "sdk"))
	if err != nil {
		return nil, env, err
	}
	interpreters, err := sandbox.Discover(ctx, cfg.Pythons)
	if err != nil {
		return nil, env, err
	}
	if env, err = exec.NewEnvironments(ctx, cfg.Worker, library, interpreters); err != nil {
		return nil, env, err
	}
	if env.Packages, err = openPackages(cfg, interpreters, log); err != nil {
		return nil, env, err
	}
	warm := cfg.Warm
	switch {
	case warm < 0:
		warm = 0 // the manager's own default
	case warm == 0:
		warm = -1 // none
	}
	boxes, err := sandbox.New(ctx, sandbox.Config{
		Dir: filepath.Join(cfg.Data, "sandbox"), Worker: cfg.Worker, PythonSDK: library, Interpreters: interpreters,
		WarmWorkers: warm, WarmPython: warm, Logger: log,
	})
	return boxes, env, err
}

// openPackages opens what environments of packages are made of, with uv if there is one.
func openPackages(cfg serveConfig, interpreters []sandbox.Interpreter, log *slog.Logger) (*pyenv.Store, error) {
	uv := &pyenv.UV{Path: cfg.UV, Python: func(version string) string {
		for _, in := range interpreters {
			if in.Version == version {
				return in.Path
			}
		}
		return ""
	}}
	if uv.Path == "" {
		var paths []string
		for _, in := range interpreters {
			paths = append(paths, in.Path)
		}
		uv.Path = pyenv.FindUV(paths...)
	}
	if uv.Path == "" && len(interpreters) > 0 {
		log.Info("there is no uv: functions that declare packages will not run, unless their environments are here already; install it, or name it with --uv")
	}
	dir := cfg.Packages
	if dir == "" {
		dir = filepath.Join(cfg.Data, "python")
	}
	store, err := pyenv.OpenStore(dir, uv)
	if err != nil {
		return nil, fmt.Errorf("packages of Python: %w", err)
	}
	return store, nil
}

// recoverRuns ends the runs that an earlier server left under way.
func recoverRuns(ctx context.Context, gate *hooks.Gate, lakes *lake.Directory) error {
	names, err := lakes.List(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		l, err := lakes.Open(ctx, name)
		if err != nil {
			return err
		}
		if err := gate.Recover(ctx, l); err != nil {
			return err
		}
		if err := gate.Seal(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// webURL is what users put before a lake's name over HTTP, or why they cannot.
func webURL(addr net.Addr, tls bool) (url, refused string) {
	if err := server.HTTPAllowed(addr, tls); err != nil {
		return "", "git over HTTP is off: " + err.Error()
	}
	scheme := "http"
	if tls {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(reachable(addr.String())) + "/", ""
}

// reachable is the address that the operator can use, from the one listened at.
func reachable(addr string) (host, port string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, "22"
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "localhost"
	}
	return host, port
}
