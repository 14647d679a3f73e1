package server_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/server"
)

func TestCommands(t *testing.T) {
	s := newSite(t)
	l, err := s.lakes.Create(t.Context(), "flights")
	check(t, err)
	check(t, l.Runs.Put(lake.Run{
		ID: "01ABC", State: lake.Rejected, Target: "refs/heads/main", Who: "ada",
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Ended: time.Date(2026, 1, 2, 3, 4, 7, 0, time.UTC),
		Reason: "verifier no_future: 3 violating rows\x1b[31m",
	}))
	tests := []struct {
		user, line string
		code       int
		out        []string // each is in stdout or stderr
	}{
		{"admin", "", 0, []string{"Hi root, administrator!", "git clone ssh://test/flights"}},
		{"user", "", 0, []string{"Hi ada!"}},
		{"user", "whoami", 0, []string{"ada (user) SHA256:"}},
		{"admin", "whoami", 0, []string{"root (administrator) SHA256:"}},
		{"user", "whoami --help", 0, []string{"usage: ssh test whoami"}},
		{"user", "whoami extra", 2, []string{"whoami takes no arguments"}},
		{"user", "help", 0, []string{"lake ls", "run show <lake> <run>", "query <lake> '<sql>'"}},
		{"user", "help run ls", 0, []string{"usage: ssh test run ls <lake> [--json] [--limit N]"}},
		{"user", "--help", 0, []string{"exit codes"}},
		{"user", "lake", 2, []string{"lake is one of", "lake create"}},
		{"user", "lake ls", 0, []string{"flights\n"}},
		{"user", "lake ls --json", 0, []string{`["flights"]`}},
		{"user", "lake create mine", 1, []string{"is for administrators; you are ada"}},
		{"user", "lake rm flights --force", 1, []string{"is for administrators"}},
		{"admin", "lake create team/new", 0, []string{"created team/new"}},
		{"admin", "lake create flights", 1, []string{"exists already"}},
		{"admin", "lake create ../x", 2, []string{"is not a lake name"}},
		{"admin", "lake rm absent --force", 1, []string{"does not exist"}},
		{"admin", "lake rm team/new", 2, []string{"if you mean it"}},
		{"admin", "lake rm --force team/new", 0, []string{"removed team/new"}},
		{"user", "run ls flights", 0, []string{"01ABC", "rejected", "main", "ada", "2s", "3 violating rows[31m"}},
		{"user", "run ls flights --json --limit 1", 0, []string{`"id":"01ABC"`}},
		{"user", "run ls flights --bogus", 2, []string{"flag provided but not defined"}},
		{"user", "lake fsck flights", 1, []string{"lake fsck is for administrators"}},
		{"admin", "lake fsck flights", 0, []string{"flights: 0 objects", "sound"}},
		{"admin", "lake fsck flights --json", 0, []string{`"faults":[]`}},
		{"admin", "lake fsck absent", 1, []string{"does not exist"}},
		{"user", "run ls absent", 1, []string{"lake \"absent\" does not exist"}},
		{"user", "run show flights 01ABC", 0, []string{"state", "rejected", "git fetch origin refs/runs/01ABC"}},
		{"user", "run show flights 01ABC --json", 0, []string{`"state":"rejected"`}},
		{"user", "run show flights 01XYZ", 1, []string{"has no run \"01XYZ\""}},
		{"user", "query flights 'SELECT 1' --ref x --format csv", 0, []string{"flights|SELECT 1|x|csv"}},
		{"user", `query --format=json flights "SELECT '"'a'"'"`, 0, []string{"flights|SELECT 'a'||json"}},
		{"user", "query flights -- '--SELECT'", 0, []string{"flights|--SELECT||table"}},
		{"user", "lineage flights tables/ns/daily/ --ref v1", 0, []string{"flights/ns.daily/v1@1  source"}},
		{"user", "lineage flights daily --json", 0, []string{`"table":"daily"`, `"format":1`}},
		{"user", "lineage flights daily --dot", 0, []string{`digraph "daily"`}},
		{"user", "lineage flights daily --dot --json", 2, []string{"two forms"}},
		{"user", "lineage flights nix", 1, []string{"there is no table"}},
		{"user", "lineage flights", 2, []string{"lineage takes 2 arguments"}},
		{"user", "query flights 'SELECT FRMO'", 1, []string{"syntax error"}},
		{"user", "query flights 'SELECT 1' --format xml", 2, []string{"there is no format"}},
		{"user", "diff flights main agent/x", 0, []string{"flights|main|agent/x|false|[]|text|1000|false"}},
		{"user", "diff flights main..agent/x a tables/ns/b --stat", 0, []string{"flights|main|agent/x|false|[a tables/ns/b]|stat|1000|false"}},
		{"user", "diff flights main...agent/x --json", 0, []string{"flights|main|agent/x|true|[]|json|0|false"}},
		{"user", "diff flights ..x --limit 7 --color", 0, []string{"flights||x|false|[]|text|7|true"}},
		{"user", "diff flights v1 v2 -- t", 0, []string{"flights|v1|v2|false|[t]|text|1000|false"}},
		{"user", "diff flights main", 2, []string{"two revisions", "usage: ssh test diff <lake>"}},
		{"user", "diff flights", 2, []string{"diff takes"}},
		{"user", "diff flights a b --stat --json", 2, []string{"exclude each other"}},
		{"user", "diff flights a b --limit -1", 2, []string{"want a number of rows, 0 for all"}},
		{"user", "diff nowhere a b", 1, []string{"does not exist"}},
		{"user", "diff flights main nowhere", 1, []string{"there is no branch"}},
		{"user", "help diff", 0, []string{"usage: ssh test diff", "--limit N"}},
		{"user", "run replay flights", 0, []string{"flights||[]|false", "0 of 0 output(s) equal"}},
		{"user", "run replay flights 01J9ZQ4T3N8Y6W2K5D7F0H1M9C --table a --table=b --verify", 0, []string{"flights|01J9ZQ4T3N8Y6W2K5D7F0H1M9C|[a b]|true"}},
		{"user", "run replay flights --json", 0, []string{`"equal":true`}},
		{"user", "run replay flights forged", 1, []string{"the replay is not what the commit says"}},
		{"user", "run replay flights proposal", 1, []string{"it is no gate commit"}},
		{"user", "run replay nowhere", 1, []string{"does not exist"}},
		{"user", "run replay flights a b", 2, []string{"run replay takes 1 to 2 arguments"}},
		{"user", "query flights", 2, []string{"query takes 2 arguments"}},
		{"user", "query flights 'SELECT", 2, []string{"a quote is not closed"}},
		{"user", "query flights PANIC", 1, nil},
		{"user", "rm -rf /", 2, []string{`there is no command "rm"`}},
		{"user", "git-upload-pack", 2, []string{"takes the path of a lake"}},
		{"user", "git-upload-pack '/../etc/passwd'", 1, []string{"is not a lake name"}},
		{"user", "git-upload-archive flights", 1, []string{"NACK the request ends too early"}},
		{"user", "whoami", 0, []string{"ada"}}, // after all of that, and a panic
	}
	for _, tt := range tests {
		out, errText, code := s.ssh(tt.user, tt.line)
		if code != tt.code {
			t.Errorf("%s: exit %d, want %d\n%s%s", tt.line, code, tt.code, out, errText)
		}
		for _, want := range tt.out {
			if !strings.Contains(out+errText, want) {
				t.Errorf("%s: no %q in\n%s%s", tt.line, want, out, errText)
			}
		}
		if strings.Contains(out+errText, "\x1b") {
			t.Errorf("%s: a control character reaches the terminal", tt.line)
		}
	}
	if !strings.Contains(s.log.String(), "as asked") {
		t.Error("the panic is not in the log")
	}
}

func TestKeysAreReadAgain(t *testing.T) {
	s := newSite(t)
	if out, _, code := s.ssh("user", "whoami"); code != 0 || !strings.HasPrefix(out, "ada ") {
		t.Fatalf("exit %d: %s", code, out)
	}
	stranger := s.newKey("stranger")
	if _, errText, code := s.ssh("stranger", "whoami"); code != 255 || !strings.Contains(errText, "Permission denied") {
		t.Fatalf("a stranger got in: exit %d, %s", code, errText)
	}
	s.write(s.keyFile, `user="eve",restrict `+stranger+"\n")
	if out, _, code := s.ssh("stranger", "whoami"); code != 0 || !strings.HasPrefix(out, "eve (user)") {
		t.Errorf("a new key: exit %d, %s", code, out)
	}
	if _, _, code := s.ssh("user", "whoami"); code != 255 {
		t.Errorf("a removed key: exit %d", code)
	}
}

// dial connects with Go's client and the given signers.
func (s *site) dial(signers ...gossh.Signer) (*gossh.Client, error) {
	return gossh.Dial("tcp", s.addr, &gossh.ClientConfig{
		User: "git", Auth: []gossh.AuthMethod{gossh.PublicKeys(signers...)}, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
	})
}

func (s *site) signer(name string) gossh.Signer {
	s.t.Helper()
	pem, err := os.ReadFile(filepath.Join(s.home, name))
	check(s.t, err)
	signer, err := gossh.ParsePrivateKey(pem)
	check(s.t, err)
	return signer
}

// A removed key opens no session on a connection that it has authenticated before.
func TestIdentityIsCheckedInTheSession(t *testing.T) {
	s := newSite(t)
	client, err := s.dial(s.signer("user"))
	check(t, err)
	defer client.Close()
	run := func() (string, error) {
		sess, err := client.NewSession()
		check(t, err)
		defer sess.Close()
		out, err := sess.CombinedOutput("whoami")
		return string(out), err
	}
	if out, err := run(); err != nil || !strings.HasPrefix(out, "ada ") {
		t.Fatalf("%v: %s", err, out)
	}
	s.write(s.keyFile, "# nobody\n")
	if out, err := run(); err == nil || !strings.Contains(out, "not authorized") {
		t.Fatalf("%v: %s", err, out)
	}
}

// wrongSigner offers an administrator's key and signs with another one.
type wrongSigner struct {
	gossh.Signer
	offered gossh.PublicKey
}

func (w wrongSigner) PublicKey() gossh.PublicKey { return w.offered }

// The attack of CVE-2024-45337: a client offers somebody else's public key, then
// proves that it owns its own. It is itself and nobody else.
func TestOfferedKeyIsNotIdentity(t *testing.T) {
	s := newSite(t)
	admin, user := s.signer("admin"), s.signer("user")
	if _, err := s.dial(wrongSigner{user, admin.PublicKey()}); err == nil {
		t.Fatal("a signature by another key was taken")
	}
	client, err := s.dial(wrongSigner{user, admin.PublicKey()}, user)
	if err != nil {
		return // the client gave up after the first refusal: no session, no harm
	}
	defer client.Close()
	sess, err := client.NewSession()
	check(t, err)
	out, _ := sess.CombinedOutput("whoami")
	if strings.Contains(string(out), "root") {
		t.Fatalf("the user is taken for the administrator: %s", out)
	}
}

func TestNothingButSessions(t *testing.T) {
	s := newSite(t)
	client, err := s.dial(s.signer("user"))
	check(t, err)
	defer client.Close()
	if _, err := client.Dial("tcp", s.addr); err == nil {
		t.Error("port forwarding is open")
	}
	if _, err := client.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("reverse forwarding is open")
	}
	sess, err := client.NewSession()
	check(t, err)
	defer sess.Close()
	if err := sess.RequestPty("xterm", 80, 24, nil); err == nil {
		t.Error("a terminal is given")
	}
	if err := sess.RequestSubsystem("sftp"); err == nil {
		t.Error("sftp is open")
	}
	_, err = gossh.Dial("tcp", s.addr, &gossh.ClientConfig{
		User: "git", Auth: []gossh.AuthMethod{gossh.Password("x")}, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
	})
	if err == nil || !strings.Contains(err.Error(), "[none]") {
		t.Errorf("password: %v", err)
	}
}

func TestHealth(t *testing.T) {
	s := newSite(t)
	get := func() (int, string) {
		rec := httptest.NewRecorder()
		s.server.HTTPHandler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		return rec.Code, strings.TrimSpace(rec.Body.String())
	}
	s.ssh("user", "whoami") // it is serving by now
	if code, text := get(); code != 200 || text != "ready" {
		t.Errorf("serving: %d %s", code, text)
	}
	check(t, s.server.Shutdown(context.Background()))
	if code, text := get(); code != 503 || text != "draining" {
		t.Errorf("after shutdown: %d %s", code, text)
	}
	if _, err := s.dial(s.signer("user")); err == nil {
		t.Error("a connection was taken after shutdown")
	}
}

func TestHostKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "host_key")
	first, err := server.LoadHostKey(path)
	check(t, err)
	if first.PublicKey().Type() != gossh.KeyAlgoED25519 {
		t.Errorf("key type %s", first.PublicKey().Type())
	}
	again, err := server.LoadHostKey(path)
	check(t, err)
	if gossh.FingerprintSHA256(first.PublicKey()) != gossh.FingerprintSHA256(again.PublicKey()) {
		t.Error("a restart changes the key")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	check(t, os.Chmod(path, 0o644))
	if _, err := server.LoadHostKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that all can read: %v", err)
	}
	check(t, os.WriteFile(path, []byte("junk"), 0o600))
	check(t, os.Chmod(path, 0o600))
	if _, err := server.LoadHostKey(path); err == nil {
		t.Error("a broken key was taken, or replaced")
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

const testKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"

func TestParseAuthorizedKeys(t *testing.T) {
	t.Parallel()
	tests := []struct {
		line, name string
		admin      bool
		bad        string
	}{
		{line: testKey + " ada@laptop", name: "ada"},
		{line: testKey + " ada", name: "ada"},
		{line: testKey, name: "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"},
		{line: testKey + " Ada Lovelace@x", name: "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"},
		{line: `user="bob" ` + testKey + " ada@x", name: "bob"},
		{line: `admin,user="bob",restrict,no-pty ` + testKey, name: "bob", admin: true},
		{line: "admin " + testKey + " ada@x", name: "ada", admin: true},
		{line: `user="b ob" ` + testKey, bad: "is not a name"},
		{line: `user="" ` + testKey, bad: "is not a name"},
		{line: `from="10.0.0.0/8" ` + testKey, bad: `option "from" is not supported`},
		{line: `command="true" ` + testKey, bad: `option "command" is not supported`},
		{line: "cert-authority " + testKey, bad: "is not supported"},
		{line: "ssh-ed25519 AAAA ada@x", bad: "not a public key"},
		{line: "hello", bad: "not a public key"},
	}
	for _, tt := range tests {
		keys, bad := server.ParseAuthorizedKeys([]byte("# comment\n\n" + tt.line + "\r\n"))
		if tt.bad != "" {
			if len(keys) != 0 || len(bad) != 1 || bad[0].Line != 3 || !strings.Contains(bad[0].Error(), tt.bad) {
				t.Errorf("%s: %v, %v", tt.line, keys, bad)
			}
			continue
		}
		if len(bad) != 0 || len(keys) != 1 || keys[0].Who.Name != tt.name || keys[0].Who.Admin != tt.admin {
			t.Errorf("%s: %+v, %v", tt.line, keys, bad)
		}
	}
}

// A list that cannot be read lets nobody in but the fixed keys.
func TestUnreadableKeysFailClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "keys")
	check(t, os.WriteFile(path, []byte(testKey+" ada\n"), 0o600))
	k, err := server.NewKeyFile(path, nil, slog.New(slog.DiscardHandler))
	check(t, err)
	key, _, _, _, err := gossh.ParseAuthorizedKey([]byte(testKey))
	check(t, err)
	if _, ok := k.Lookup(key); !ok {
		t.Fatal("the key is not known")
	}
	check(t, os.Remove(path))
	check(t, os.Mkdir(path, 0o700)) // not a file
	if who, ok := k.Lookup(key); ok {
		t.Errorf("%s is let in", who.Name)
	}
	// A line further down makes nobody more than the first one does.
	twice := filepath.Join(dir, "twice")
	check(t, os.WriteFile(twice, []byte(testKey+" ada\nadmin "+testKey+" eve\n"), 0o600))
	if k, err = server.NewKeyFile(twice, nil, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if who, ok := k.Lookup(key); !ok || who.Name != "ada" || who.Admin {
		t.Errorf("a key that is there twice is %+v", who)
	}
	fixed := []server.AuthorizedKey{{Key: key, Who: hooks.Identity{Name: "me", Admin: true}}}
	k, err = server.NewKeyFile("", fixed, slog.New(slog.DiscardHandler))
	check(t, err)
	if who, ok := k.Lookup(key); !ok || who.Name != "me" || k.Len() != 1 {
		t.Errorf("fixed key: %v %v", who, ok)
	}
}

// A replay costs what a run costs, so nobody has two at a time; others do.
func TestOneReplayAtATime(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	s := newSite(t, func(cfg *server.Config) { cfg.Replayer = echo{started, release} })
	_, err := s.lakes.Create(t.Context(), "flights")
	check(t, err)
	codes := make(chan int, 3)
	replay := func(user string) {
		_, _, code := s.ssh(user, "run replay flights")
		codes <- code
	}
	go replay("user")
	<-started
	if _, text, code := s.ssh("user", "run replay flights"); code != 1 || !strings.Contains(text, "you have a replay under way") {
		t.Errorf("a second replay: exit %d, %q", code, text)
	}
	go replay("admin")
	<-started
	release <- struct{}{}
	release <- struct{}{}
	for range 2 {
		if code := <-codes; code != 0 {
			t.Errorf("exit %d, want 0", code)
		}
	}
	go replay("user")
	<-started
	release <- struct{}{}
	if code := <-codes; code != 0 {
		t.Errorf("after the first has ended: exit %d, want 0", code)
	}
}

// TestCipher: OpenSSH's own order begins with ChaCha20, and the server's choice is
// another; but who insists on one gets that.
func TestCipher(t *testing.T) {
	s := newSite(t)
	for _, test := range []struct{ insist, want string }{
		{"", "aes128-gcm@openssh.com"},
		{"chacha20-poly1305@openssh.com", "chacha20-poly1305@openssh.com"},
		{"aes256-ctr", "aes256-ctr"},
	} {
		args := s.sshArgs("user")
		if test.insist != "" {
			args = append(args, "-c", test.insist)
		}
		for i, arg := range args {
			if arg == "LogLevel=ERROR" { // the first of two counts
				args[i] = "LogLevel=DEBUG1"
			}
		}
		cmd := exec.Command(args[0], append(args[1:], "--", "127.0.0.1", "whoami")...)
		cmd.Env = s.env("user")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if want := "server->client cipher: " + test.want; !strings.Contains(string(out), want) {
			t.Errorf("insisting on %q: no %q in\n%s", test.insist, want, out)
		}
	}
}
