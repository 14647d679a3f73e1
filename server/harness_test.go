package server_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/lineage"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/server"
	"github.com/headgate/headgate/server/token"
)

// acceptAll is a gate that lets every push through, and remembers it.
type acceptAll struct {
	mu     sync.Mutex
	pushes []*hooks.Push
	before func(ctx context.Context, p *hooks.Push) // if set, runs first
	slow   time.Duration                            // how long it takes besides
}

// blockUntil is a gate's before: it says that it has begun and waits to go on.
func blockUntil(begun, goOn chan struct{}) func(context.Context, *hooks.Push) {
	return func(context.Context, *hooks.Push) {
		close(begun)
		<-goOn
	}
}

func (g *acceptAll) Receive(ctx context.Context, p *hooks.Push) []hooks.Outcome {
	g.mu.Lock()
	g.pushes = append(g.pushes, p)
	before := g.before
	g.mu.Unlock()
	time.Sleep(g.slow)
	if before != nil {
		before(ctx, p)
	}
	out := make([]hooks.Outcome, len(p.Updates))
	err := p.Objects.Migrate(ctx)
	if err == nil && p.Atomic {
		err = p.Lake.Refs.Apply(ctx, p.Updates, refs.Cause{Who: p.Who.Name, Why: "push"})
	}
	for i, u := range p.Updates {
		out[i] = hooks.Outcome{Name: u.Name, Err: err}
		if err == nil && !p.Atomic {
			out[i].Err = p.Lake.Refs.Apply(ctx, []refs.Update{u}, refs.Cause{Who: p.Who.Name, Why: "push"})
		}
	}
	return out
}

func (g *acceptAll) last(t *testing.T) *hooks.Push {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.pushes) == 0 {
		t.Fatal("the gate saw no push")
	}
	return g.pushes[len(g.pushes)-1]
}

// echo answers every query with the query.
type echo struct{ started, release chan struct{} }

func (echo) Lineage(_ context.Context, l *lake.Lake, q hooks.LineageQuestion) (*lineage.Graph, error) {
	if q.Table == "nix" {
		return nil, &hooks.QueryError{Text: "there is no table \x1b[31m"}
	}
	return &lineage.Graph{Format: lineage.Format, Table: q.Table, Nodes: []*lineage.Node{{ID: "t@1", Table: string(l.Name) + "/" + q.Table + "/" + q.Ref, Snapshot: "1", Kind: "source"}}}, nil
}

func (echo) Query(_ context.Context, l *lake.Lake, q hooks.Question, w io.Writer) error {
	if strings.Contains(q.SQL, "FRMO") {
		return &hooks.QueryError{Text: "syntax error at or near \"FRMO\""}
	}
	if strings.Contains(q.SQL, "PANIC") {
		panic("as asked")
	}
	_, err := fmt.Fprintf(w, "%s|%s|%s|%s\n", l.Name, q.SQL, q.Ref, q.Format)
	return err
}

// Diff answers with the question, too.
func (echo) Diff(_ context.Context, l *lake.Lake, q hooks.DiffQuestion, w io.Writer) error {
	if q.New == "nowhere" {
		return &hooks.QueryError{Text: "there is no branch \"nowhere\x1b\""}
	}
	_, err := fmt.Fprintf(w, "%s|%s|%s|%v|%v|%s|%d|%v\n", l.Name, q.Old, q.New, q.Fork, q.Tables, q.Format, q.Limit, q.Color)
	return err
}

func (echo) TestPolicy(_ context.Context, l *lake.Lake, asker hooks.Identity, q hooks.PolicyAsked) (*hooks.PolicyReport, error) {
	if q.Of == "nowhere" {
		return nil, &hooks.QueryError{Text: "there is no branch"}
	}
	return &hooks.PolicyReport{Branch: string(l.Name) + "|" + asker.Name + "|" + q.Who + "|" + q.Branch + "|" + q.Of, Gate: "required",
		Users: []hooks.PolicyAnswers{{Actions: []hooks.PolicyAnswer{{What: "propose", Allowed: q.Who == ""}}}}}, nil
}

// noRuns is a gate without runs under way.
type noRuns struct{}

func (noRuns) Newest(*lake.Lake) string { return "" }

func (noRuns) Watch(_ context.Context, _ *lake.Lake, id string, _ io.Writer) (lake.State, error) {
	return "", fmt.Errorf("run %q: %w", id, hooks.ErrNotUnderWay)
}

func (noRuns) Cancel(_ context.Context, _ *lake.Lake, id string, _ hooks.Identity) error {
	return fmt.Errorf("run %q: %w", id, hooks.ErrNotUnderWay)
}

// Replay tells what it is asked, and finds a difference in what is called "forged".
// It waits for release, if there is one.
func (e echo) Replay(_ context.Context, l *lake.Lake, q hooks.ReplayQuestion) (*hooks.ReplayReport, error) {
	if q.Of == "proposal" {
		return nil, &hooks.QueryError{Text: "it is no gate commit"}
	}
	if q.Progress != nil {
		q.Progress(fmt.Sprintf("%s|%s|%s|%t", l.Name, q.Of, q.Tables, q.Verifiers))
	}
	if e.started != nil {
		e.started <- struct{}{}
		<-e.release
	}
	report := &hooks.ReplayReport{Format: 1, Equal: true, Models: []hooks.ReplayedModel{}}
	if q.Of == "forged" {
		report.Equal = false
		report.Models = append(report.Models, hooks.ReplayedModel{Name: "daily", Status: hooks.ReplayDiffers})
	}
	return report, nil
}

// site is a running server and a client's home directory.
type site struct {
	t       *testing.T
	gate    *acceptAll
	lakes   *lake.Directory
	server  *server.Server
	keyFile string
	data    string // the server's directory
	home    string
	addr    string
	web     string // base URL: "http://127.0.0.1:1234"
	log     *lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newSite(t *testing.T, tweak ...func(*server.Config)) *site {
	t.Helper()
	return newSiteTLS(t, nil, tweak...)
}

// newSiteTLS is newSite with HTTPS, if there are certificates.
func newSiteTLS(t *testing.T, certificates *server.Certificates, tweak ...func(*server.Config)) *site {
	t.Helper()
	t.Parallel() // most of a test is waiting for git and ssh
	s := &site{t: t, gate: &acceptAll{}, home: t.TempDir(), log: &lockedBuffer{}}
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	data := t.TempDir()
	s.data = data
	s.keyFile = filepath.Join(data, "authorized_keys")
	admin, user := s.newKey("admin"), s.newKey("user")
	s.write(s.keyFile, `user="root",admin `+admin+` r@x`+"\n"+user+" ada@laptop\n")
	keys, err := server.NewKeyFile(s.keyFile, nil, log)
	check(t, err)
	host, err := server.LoadHostKey(filepath.Join(data, "host_key"))
	check(t, err)
	key, err := lake.LoadSecretsKey(filepath.Join(data, "secrets_key"))
	check(t, err)
	s.lakes, err = lake.OpenDirectory(filepath.Join(data, "lakes"), key, log)
	check(t, err)
	tokens, err := token.Open(filepath.Join(data, "tokens.db"))
	check(t, err)
	cfg := server.Config{
		HostKey: host, Keys: keys, Lakes: s.lakes, Gate: s.gate, Querier: echo{}, Differ: echo{}, Runs: noRuns{}, Replayer: echo{}, Policies: echo{}, Tokens: tokens, Logger: log,
		Version: "1.2", URL: "ssh://test/", SSH: "ssh test", KeepAlive: 50 * time.Millisecond,
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	scheme := "http"
	if certificates != nil {
		scheme = "https"
	}
	s.web = scheme + "://" + web.Addr().String()
	cfg.HTTP = s.web + "/"
	for _, f := range tweak {
		f(&cfg)
	}
	s.server, err = server.New(cfg)
	check(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s.addr = l.Addr().String()
	served := make(chan error, 2)
	go func() { served <- s.server.Serve(l) }()
	go func() { served <- s.server.ServeWeb(web, certificates) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		for range cap(served) {
			if err := <-served; !errors.Is(err, server.ErrClosed) {
				t.Errorf("serve: %v", err)
			}
		}
		check(t, s.lakes.Close())
		check(t, tokens.Close())
		if t.Failed() {
			t.Logf("server log:\n%s", s.log)
		}
	})
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newKey makes a key pair for the ssh client and returns the public half.
func (s *site) newKey(name string) string {
	s.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(s.t, err)
	block, err := gossh.MarshalPrivateKey(private, "")
	check(s.t, err)
	check(s.t, os.WriteFile(filepath.Join(s.home, name), pem.EncodeToMemory(block), 0o600))
	key, err := gossh.NewPublicKey(public)
	check(s.t, err)
	return strings.TrimSpace(string(gossh.MarshalAuthorizedKey(key)))
}

func (s *site) write(path, text string) {
	s.t.Helper()
	check(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(s.t, os.WriteFile(path, []byte(text), 0o644))
}

// sshArgs is the ssh command line of a user, without a command.
func (s *site) sshArgs(user string) []string {
	_, port, _ := net.SplitHostPort(s.addr)
	return []string{"ssh", "-F", "none", "-p", port, "-i", filepath.Join(s.home, user), "-o", "IdentitiesOnly=yes",
		"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}
}

// foreign are variables of the machine that would lead git elsewhere, or let it trust others.
var foreign = regexp.MustCompile(`(?i)^(GIT_|SSL_CERT_|CURL_CA_|[a-z]+_PROXY=)`)

func (s *site) env(user string) []string {
	return append(slices.DeleteFunc(os.Environ(), foreign.MatchString),
		"HOME="+s.home, "XDG_CONFIG_HOME="+s.home, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C", "SSH_AUTH_SOCK=",
		"GIT_SSH_COMMAND="+strings.Join(s.sshArgs(user), " "),
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@x", "GIT_COMMITTER_NAME=C", "GIT_COMMITTER_EMAIL=c@x",
		"GIT_CONFIG_COUNT=3", "GIT_CONFIG_KEY_0=init.defaultBranch", "GIT_CONFIG_VALUE_0=main",
		"GIT_CONFIG_KEY_1=gc.auto", "GIT_CONFIG_VALUE_1=0", "GIT_CONFIG_KEY_2=advice.detachedHead", "GIT_CONFIG_VALUE_2=false")
}

// ssh runs a command on the server and returns stdout, stderr and exit code.
func (s *site) ssh(user, line string) (out, errText string, code int) {
	s.t.Helper()
	return s.sshWith(user, line, "")
}

// sshWith is ssh with standard input.
func (s *site) sshWith(user, line, stdin string) (out, errText string, code int) {
	s.t.Helper()
	args := append(s.sshArgs(user), "--", "127.0.0.1")
	if line != "" {
		args = append(args, line)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = s.env(user)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func (s *site) url(name string) string { return "ssh://127.0.0.1/" + name }

// clone is a work tree.
type clone struct {
	*site
	dir   string
	user  string
	extra []string // environment
}

func (s *site) repo(user string) *clone {
	c := &clone{site: s, dir: s.t.TempDir(), user: user}
	c.git("init", "-q")
	return c
}

func (c *clone) command(args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = c.dir, append(c.env(c.user), c.extra...)
	return cmd
}

// try runs git and returns all it printed.
func (c *clone) try(args ...string) (string, error) {
	out, err := c.command(args...).CombinedOutput()
	return string(out), err
}

// git runs git, which must succeed, and returns its trimmed output.
func (c *clone) git(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// refused runs git, which must fail and say why.
func (c *clone) refused(why string, args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err == nil || !strings.Contains(out, why) {
		c.t.Fatalf("git %s: %v, want a failure with %q\n%s", strings.Join(args, " "), err, why, out)
	}
	return out
}

// commit writes files and commits them.
func (c *clone) commit(message string, files map[string]string) string {
	c.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		c.write(filepath.Join(c.dir, name), files[name])
	}
	c.git("add", "-A")
	c.git("commit", "-q", "--allow-empty", "-m", message)
	return c.git("rev-parse", "HEAD")
}

// objects returns the sorted oids of all objects that a repository has.
func (c *clone) objects() []string {
	c.t.Helper()
	out, err := c.command("cat-file", "--batch-all-objects", "--batch-check=%(objectname)", "--unordered").Output()
	check(c.t, err)
	list := strings.Fields(string(out))
	slices.Sort(list)
	return slices.Compact(list)
}

// fsck checks a clone as strictly as git can.
func (c *clone) fsck() {
	c.t.Helper()
	c.git("fsck", "--strict", "--full")
}

// from clones a lake.
func (s *site) from(url string, args ...string) *clone {
	s.t.Helper()
	c := &clone{site: s, dir: filepath.Join(s.t.TempDir(), "c"), user: "user"}
	cmd := exec.Command("git", slices.Concat([]string{"clone", "-q"}, args, []string{url, c.dir})...)
	cmd.Env = s.env(c.user)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("git clone %v: %v\n%s", args, err, out)
	}
	return c
}

// pushedLake makes a lake with some history and returns the work tree it came from.
func (s *site) pushedLake(name string) *clone {
	s.t.Helper()
	c := s.repo("admin")
	history(c)
	c.git("remote", "add", "origin", s.url(name))
	c.git("push", "-q", "origin", "--all")
	c.git("push", "-q", "origin", "--tags")
	return c
}

// history makes commits with merges, tags of every kind, shared and nested
// trees, and blobs of several sizes.
func history(c *clone) {
	day := 0
	commit := func(message string, files map[string]string) {
		day++
		when := fmt.Sprintf("2024-01-%02dT12:00:00Z", day)
		c.extra = []string{"GIT_AUTHOR_DATE=" + when, "GIT_COMMITTER_DATE=" + when}
		c.commit(message, files)
	}
	commit("one", map[string]string{"headgate.yaml": "branches:\n", "tables/a/p1": strings.Repeat("1", 100), "tables/a/p2": strings.Repeat("2", 70_000)})
	commit("two", map[string]string{"tables/b/p1": strings.Repeat("1", 100), "models/x.sql": "select 1"})
	c.git("tag", "light")
	c.git("tag", "-a", "-m", "tag", "v1")
	c.git("tag", "-a", "-m", "tag of tag", "vv1", "v1")
	commit("three", map[string]string{"tables/a/p3": "three", "models/deep/er/y.sql": "select 2"})
	c.git("checkout", "-q", "-b", "side", "HEAD~1")
	commit("side one", map[string]string{"side/s1": "s1"})
	commit("side two", map[string]string{"side/s2": "s2", "tables/b/p2": strings.Repeat("b", 2000)})
	c.git("checkout", "-q", "main")
	day++
	c.extra = []string{fmt.Sprintf("GIT_COMMITTER_DATE=2024-01-%02dT12:00:00Z", day)}
	c.git("merge", "-q", "--no-ff", "-m", "merge side", "side")
	commit("four", map[string]string{"models/x.sql": "select 4"})
	commit("revert to two", map[string]string{"models/x.sql": "select 1"})
	c.git("tag", "-a", "-m", "on a tree", "onatree", "HEAD^{tree}")
	c.git("tag", "onablob", "HEAD:models/x.sql")
	commit("five", map[string]string{"tables/a/p4": strings.Repeat("4", 40_000)})
	c.extra = nil
}
