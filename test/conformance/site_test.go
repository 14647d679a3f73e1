package conformance

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/test/daemon"
)

// site is one server, and a user whom it knows as administrator.
type site struct {
	*daemon.Daemon
	dir string
	bin string
	env []string // of every program that speaks with the server

	token string // stands for the user over HTTP
}

// knownHosts is where libgit2 looks for it, in the home directory.
const knownHosts = "home/.ssh/known_hosts"

// findBin takes HEADGATE_BIN, else what make builds.
func findBin(t testing.TB) string {
	t.Helper()
	bin := os.Getenv("HEADGATE_BIN")
	if bin == "" {
		root, err := filepath.Abs("../..")
		if err != nil {
			t.Fatal(err)
		}
		bin = filepath.Join(root, "bin")
	}
	for _, program := range []string{"headgate", "headgate-worker"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			t.Fatalf("%v; run: make build", err)
		}
	}
	return bin
}

// newSite starts a server that ends with the test; then what it has stored must
// pass headgate fsck.
func newSite(t testing.TB, flags ...string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), bin: findBin(t)}
	path := func(name string) string { return filepath.Join(s.dir, name) }
	if err := os.MkdirAll(path("home/.ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	line, err := daemon.MakeKey(path("key"))
	if err != nil {
		t.Fatal(err)
	}
	// ssh takes its home from the password file, so everything is said outright.
	// GIT_PROTOCOL is sent for clients that set it and do not know how to.
	wrapper := fmt.Sprintf("#!/bin/sh\nexec ssh -F none -i %q -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=yes"+
		" -o UserKnownHostsFile=%q -o GlobalKnownHostsFile=none -o SendEnv=GIT_PROTOCOL \"$@\"\n", path("key"), path(knownHosts))
	config := "[user]\n\tname = Test\n\temail = test@example.com\n[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n" +
		"[advice]\n\tdetachedHead = false\n[core]\n\tcompression = 1\n[protocol \"file\"]\n\tallow = always\n"
	for _, f := range []struct {
		name, content string
		mode          os.FileMode
	}{
		{"authorized_keys", "user=\"admin\",admin " + line + "\n", 0o600},
		{"ssh", wrapper, 0o700},
		{"home/.gitconfig", config, 0o600},
	} {
		if err := os.WriteFile(path(f.name), []byte(f.content), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(path("server.log"))
	if err != nil {
		t.Fatal(err)
	}
	options := daemon.Options{Bin: s.bin, Data: path("data"), AuthorizedKeys: path("authorized_keys"), Flags: append([]string{"--warm", "0"}, flags...), Log: log}
	if s.Daemon, err = daemon.Start(options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.end(t, log) })
	known, err := s.KnownHosts()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path(knownHosts), []byte(known), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kv := range os.Environ() {
		// Nothing of the caller's git reaches the clients.
		if !strings.HasPrefix(kv, "GIT_") && !strings.HasPrefix(kv, "HOME=") && !strings.HasPrefix(kv, "XDG_") {
			s.env = append(s.env, kv)
		}
	}
	s.env = append(s.env, "HOME="+path("home"), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C.UTF-8",
		"GIT_SSH="+path("ssh"), "GIT_SSH_COMMAND="+path("ssh"), "GIT_SSH_VARIANT=ssh")
	s.token = s.ask(t, "token", "create", "--name", "conformance")
	return s
}

// end stops the server and has headgate fsck read all that it stored.
func (s *site) end(t testing.TB, log *os.File) {
	if err := s.Stop(); err != nil {
		t.Errorf("the server's end: %v", err)
	}
	out, err := exec.Command(filepath.Join(s.bin, "headgate"), "fsck", "--data", filepath.Join(s.dir, "data")).CombinedOutput()
	if err != nil {
		t.Errorf("headgate fsck: %v\n%s", err, out)
	}
	if t.Failed() {
		if text, err := os.ReadFile(log.Name()); err == nil {
			t.Logf("the server's log ends with:\n%s", text[max(0, len(text)-20_000):])
		}
	}
	_ = log.Close()
}

// ask runs a command of the server's over ssh.
func (s *site) ask(t testing.TB, words ...string) string {
	t.Helper()
	address, err := url.Parse("ssh://" + s.SSHAddr)
	if err != nil {
		t.Fatal(err)
	}
	return s.run(t, s.dir, filepath.Join(s.dir, "ssh"), append([]string{"-p", address.Port(), address.Hostname()}, words...)...)
}

// git runs stock git in a directory and returns what it printed, without the last newline.
func (s *site) git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	return s.run(t, dir, "git", args...)
}

func (s *site) run(t testing.TB, dir, program string, args ...string) string {
	t.Helper()
	out, err := s.try(dir, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try is run for what may fail: the error holds what the program said.
func (s *site) try(dir, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = dir, s.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(program), strings.Join(args, " "), err, stdout.Bytes(), stderr.Bytes())
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// refsOf returns the refs of a repository or of a URL as stock git lists them,
// without HEAD and peeled tags.
func (s *site) refsOf(t testing.TB, where string) map[string]string {
	t.Helper()
	refs := make(map[string]string)
	for line := range strings.Lines(s.git(t, s.dir, "ls-remote", where)) {
		oid, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(name, "refs/") && !strings.HasSuffix(name, "^{}") {
			refs[name] = oid
		}
	}
	return refs
}

// objectsOf lists the objects that revisions of a repository lead to, sorted.
func (s *site) objectsOf(t testing.TB, dir string, revisions ...string) []string {
	t.Helper()
	list := strings.Fields(s.git(t, dir, append([]string{"rev-list", "--objects", "--no-object-names"}, revisions...)...))
	slices.Sort(list)
	return list
}

// sound checks a lake with two judges: stock git, on a fresh mirror, and the
// server itself. The mirror must have the refs that the lake lists.
func (s *site) sound(t testing.TB, lake, url string) {
	t.Helper()
	mirror := filepath.Join(t.TempDir(), "mirror")
	s.git(t, s.dir, "clone", "--quiet", "--mirror", url, mirror)
	s.git(t, mirror, "fsck", "--strict", "--full")
	if theirs, ours := s.refsOf(t, url), s.refsOf(t, mirror); !equal(theirs, ours) {
		t.Errorf("the lake lists %v, a mirror got %v", theirs, ours)
	}
	s.ask(t, "lake", "fsck", lake)
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}
