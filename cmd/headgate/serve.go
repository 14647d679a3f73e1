package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
	gossh "golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/hooks/lake"
)

type serveCmd struct {
	Data           string          `help:"Where everything is kept: lakes, keys, the state of sandboxes." default:"headgate-data" type:"path" placeholder:"DIR"`
	SSHAddr        string          `help:"Where git connects. Port 0 takes a free one (see DIR/server.json)." name:"ssh-addr" default:"127.0.0.1:2222" placeholder:"HOST:PORT"`
	HTTPAddr       string          `help:"Where git connects over HTTP, with tokens, and /healthz answers. Git needs TLS here, or a loopback address." name:"http-addr" default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
	TLSCert        string          `help:"The certificate chain of the HTTP address, PEM: it speaks HTTPS then. Read again when it changes." name:"tls-cert" type:"path" placeholder:"FILE"`
	TLSKey         string          `help:"The key of the certificate, PEM." name:"tls-key" type:"path" placeholder:"FILE"`
	AuthorizedKeys string          `help:"Who may connect: a file like sshd's, in which the options admin and user=\"NAME\" count. Read again when it changes. By default your own ~/.ssh/*.pub, as administrators." type:"path" placeholder:"FILE"`
	Config         kong.ConfigFlag `help:"A YAML file with these flags as keys (data: ..., ssh-addr: ...). Flags win." placeholder:"FILE"`
	Python         []string        `help:"An interpreter for Python models; may be given several times, the first is the default. A function that declares no packages has those of the interpreter. By default those on PATH, of pyenv and of uv." type:"path" sep:"none" placeholder:"PATH"`
	Warm           int             `help:"How many sandboxes of each kind wait started; -1 leaves it to the server." default:"-1" placeholder:"N"`
	FunctionCPUs   float64         `help:"Processors that all functions together may use at a time; 0 is all." name:"function-cpus" default:"0" placeholder:"N"`
	FunctionMemory string          `help:"Memory that all functions together may use at a time, such as 12GiB. By default three quarters of what the machine, or the server's cgroup, has." name:"function-memory" placeholder:"SIZE"`
	functionLimits
	packagesFlags
	pushLimits
	careFlags
	DrainTimeout time.Duration `help:"How long runs under way may take to end after SIGTERM." default:"5m" placeholder:"DURATION"`
	LogLevel     string        `help:"What goes to standard error: ${enum}." enum:"debug,info,warn,error" default:"info"`
	uvFlag
	workerFlag
}

// uvFlag is the flag that commands share which resolve packages.
type uvFlag struct {
	UV string `help:"The program uv, which resolves the packages that functions declare; by default the one beside the interpreters, else on PATH." name:"uv" type:"path" placeholder:"PATH" env:"HEADGATE_UV"`
}

// Help is shown below the command's flags.
func (serveCmd) Help() string {
	return `Examples:
  headgate serve
  headgate serve --data /srv/headgate --ssh-addr 0.0.0.0:2222 --authorized-keys /srv/headgate/keys
  headgate serve --http-addr 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem
  headgate serve --config /etc/headgate.yaml --python /opt/venv/bin/python

A line of the keys file:
  user="ada",admin ssh-ed25519 AAAA... ada@laptop

SIGTERM or Ctrl-C ends it: no new connections, runs under way finish, exit code 0.
DIR/server.json tells a program where a server that is ready listens.`
}

// serveConfig is what runServe needs, with every default filled in.
type serveConfig struct {
	Data           string
	SSHAddr        string
	HTTPAddr       string
	TLSCert        string     // a file; "" speaks plain HTTP
	TLSKey         string     // of it
	AuthorizedKeys string     // a file, or empty for Admins
	Admins         []adminKey // when there is no file
	Pythons        []string
	UV             string // "" looks for it
	Packages       string // directory of unpacked packages; "" is below Data
	KeepPackages   pyenv.Keep
	Care           lake.Care
	Worker         string
	Warm           int // of each kind; negative: the server's own choice
	Budget         exec.Budget
	Ceiling        sandbox.Limits // of one function
	Pushes         pushRules
	DrainTimeout   time.Duration
	LogLevel       string
	Version        string
	Banner         io.Writer // where the operator reads what to do first
	Log            io.Writer
}

// adminKey is a public key of the caller's.
type adminKey struct {
	Key     gossh.PublicKey
	Comment string
	File    string
}

// Run serves until ctx ends.
func (c *serveCmd) Run(ctx context.Context, std streams) error {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return usagef("--tls-cert and --tls-key go together")
	}
	defer raiseHeap()()
	worker, err := c.path()
	if err != nil {
		return err
	}
	cfg := serveConfig{
		Data: c.Data, SSHAddr: c.SSHAddr, HTTPAddr: c.HTTPAddr, TLSCert: c.TLSCert, TLSKey: c.TLSKey, AuthorizedKeys: c.AuthorizedKeys, Pythons: c.Python, UV: c.UV,
		Worker: worker, Warm: c.Warm, DrainTimeout: c.DrainTimeout, LogLevel: c.LogLevel,
		Version: version, Banner: std.out, Log: std.err,
	}
	if cfg.Budget, err = functionBudget(c.FunctionCPUs, c.FunctionMemory, os.DirFS("/")); err != nil {
		return err
	}
	if cfg.Ceiling, err = c.functionLimits.ceiling(cfg.Budget); err != nil {
		return err
	}
	if cfg.KeepPackages, err = c.packagesFlags.keep(); err != nil {
		return err
	}
	if cfg.Pushes, err = c.pushLimits.rules(); err != nil {
		return err
	}
	if cfg.Care, err = c.careFlags.care(); err != nil {
		return err
	}
	if c.AuthorizedKeys == "" {
		if cfg.Admins, err = ownKeys(); err != nil {
			return err
		}
	} else if _, err := os.Stat(c.AuthorizedKeys); err != nil {
		return fmt.Errorf("authorized keys: %w", err)
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return err
	}
	return runServe(ctx, cfg)
}

// ownKeys returns the caller's public keys.
func ownKeys() ([]adminKey, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(home, ".ssh", "*.pub"))
	if err != nil {
		return nil, err
	}
	sort.Strings(files)
	var keys []adminKey
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		key, comment, _, _, err := gossh.ParseAuthorizedKey(data)
		if err != nil || strings.Contains(key.Type(), "cert") {
			continue // a certificate, or somebody's notes
		}
		keys = append(keys, adminKey{key, comment, f})
	}
	if len(keys) == 0 {
		return nil, errors.New("nobody could connect: ~/.ssh has no *.pub file; make a key with ssh-keygen -t ed25519, or give --authorized-keys FILE")
	}
	return keys, nil
}

// readiness is what a server that is ready tells: serverFile as JSON, and the banner.
type readiness struct {
	SSHAddr  string `json:"ssh_addr"`
	HTTPAddr string `json:"http_addr"`
	HTTPURL  string `json:"http_url"` // what git puts before a lake's name over HTTP; "" if that is off
	NoHTTP   string `json:"-"`        // why it is off
	TLS      bool   `json:"-"`        // HTTPAddr speaks HTTPS
	PID      int    `json:"pid"`
	Version  string `json:"version"`
	HostKey  string `json:"host_key"` // one line of a public key file
	GateKey  string `json:"gate_key"` // the line of an allowed-signers file for git verify-commit
}

// serverFile is written into the data directory when the server is ready and
// removed when it has ended.
const serverFile = "server.json"

// announce writes DATA/server.json and the banner. runServe calls it when
// connections are accepted and the sandbox has passed its self-test.
func (cfg *serveConfig) announce(r readiness) error {
	doc, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(cfg.Data, serverFile)
	if err := os.WriteFile(path+".new", append(doc, '\n'), 0o644); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	_, err = io.WriteString(cfg.Banner, cfg.banner(r))
	return err
}

// withdraw removes what announce wrote.
func (cfg *serveConfig) withdraw() {
	_ = os.Remove(filepath.Join(cfg.Data, serverFile))
}

// banner is what the operator reads first.
func (cfg *serveConfig) banner(r readiness) string {
	host, port, err := net.SplitHostPort(r.SSHAddr)
	if err != nil {
		host, port = r.SSHAddr, "22"
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "localhost"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "headgate %s is ready\n\n", r.Version)
	fmt.Fprintf(&b, "  clone URL    ssh://%s/LAKE\n", net.JoinHostPort(host, port))
	if r.HTTPURL != "" {
		fmt.Fprintf(&b, "  over HTTP    %sLAKE     with a token as the password: ssh -p %s %s token create\n", r.HTTPURL, port, host)
	} else {
		fmt.Fprintf(&b, "  over HTTP    %s\n", r.NoHTTP)
	}
	scheme := "http"
	if r.TLS {
		scheme = "https"
	}
	fmt.Fprintf(&b, "  health       %s://%s/healthz\n", scheme, r.HTTPAddr)
	fmt.Fprintf(&b, "  data         %s\n", cfg.Data)
	if key, _, _, _, err := gossh.ParseAuthorizedKey([]byte(r.HostKey)); err == nil {
		fmt.Fprintf(&b, "  host key     %s\n", gossh.FingerprintSHA256(key))
	}
	if cfg.AuthorizedKeys != "" {
		fmt.Fprintf(&b, "  keys         %s\n", cfg.AuthorizedKeys)
	}
	for _, a := range cfg.Admins {
		fmt.Fprintf(&b, "  admin        %s %s\n", gossh.FingerprintSHA256(a.Key), a.File)
	}
	fmt.Fprintf(&b, `
First:
  headgate init my-lake && cd my-lake
  git add -A && git commit -m "A lake"
  git push ssh://%[1]s/my-lake HEAD:main       (an administrator's first push makes the lake)
  ssh -p %[2]s %[3]s help

`, net.JoinHostPort(host, port), port, host)
	return b.String()
}

// yamlFlags lets --config give flags in a YAML file. A key that is no flag is an error.
func yamlFlags(r io.Reader) (kong.Resolver, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(data, &values); err != nil {
		return nil, fmt.Errorf("config file: %w", err)
	}
	return &flagFile{values}, nil
}

type flagFile struct{ values map[string]any }

// Resolve returns a flag's value in the file, nil if it is not there.
func (f *flagFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	v, ok := f.values[flag.Name]
	if !ok {
		return nil, nil
	}
	return v, nil
}

// Validate refuses keys that are no flag of serve.
func (f *flagFile) Validate(app *kong.Application) error {
	known := make(map[string]bool)
	for _, cmd := range app.Leaves(true) {
		if cmd.Name == "serve" {
			for _, flag := range cmd.Flags {
				known[flag.Name] = true
			}
		}
	}
	for key := range f.values {
		if !known[key] {
			return fmt.Errorf("config file: unknown key %q; the keys are the flags of headgate serve --help", key)
		}
	}
	return nil
}
