package conformance

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// request is one thing that a client is asked to do. A client that is a program
// of another language gets it as a line of JSON.
type request struct {
	Op       string   `json:"op"` // "refs", "clone", "fetch", "push", "checkout"
	URL      string   `json:"url"`
	Dir      string   `json:"dir,omitempty"`
	Branch   string   `json:"branch,omitempty"`   // clone: what is checked out; "" is what HEAD says
	Bare     bool     `json:"bare,omitempty"`     // clone
	Refspecs []string `json:"refspecs,omitempty"` // fetch, push
	Tags     bool     `json:"tags,omitempty"`     // fetch: all tags too
	Atomic   bool     `json:"atomic,omitempty"`   // push
	Depth    int      `json:"depth,omitempty"`    // clone, fetch: 0 is all that is asked for now
	Filter   string   `json:"filter,omitempty"`   // clone

	// The user's name and password, over HTTP only.
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
}

// unshallow is the depth that stands for all of history, as in git.
const unshallow = 0x7fffffff

// reply is what came of it.
type reply struct {
	Error    string            `json:"error"`    // why the whole of it failed; "" if it did not
	Refs     map[string]string `json:"refs"`     // of "refs": name to oid
	Rejected map[string]string `json:"rejected"` // of "push": the refs that did not move, and why
}

// failure returns why a request failed, whoever said so.
func (r reply) failure() string {
	text := r.Error
	for name, reason := range r.Rejected {
		text += fmt.Sprintf(" %s: %s", name, reason)
	}
	return text
}

// client does requests. Only a client that breaks returns an error; that a
// server refuses is a reply.
type client interface {
	Do(request) (reply, error)
	Close() error
}

// subject is a client under test, and what it cannot do.
type subject struct {
	name   string
	column string // its head in docs/conformance.md
	open   func(t testing.TB, s *site) client
	lacks  map[ability]string // and why
}

// Reasons that more than one client has.
const (
	noPartial = "the library has no partial clone"
	noLazy    = "the library does not fetch what is missing"
	noAtomic  = "the library cannot ask for an atomic push"
	noShallow = "the library has no shallow clone before 1.7"
)

var subjects = []subject{
	{"git-v0", "git, v0", openGit(0), nil},
	{"git-v1", "git, v1", openGit(1), nil},
	{"git-v2", "git, v2", openGit(2), nil},
	{"go-git", "go-git 5", openGoGit, map[ability]string{
		deepen:  "the library wants nothing if it has the tip, whatever the depth",
		partial: noPartial, treeless: noPartial, lazy: noPartial,
	}},
	{"dulwich", "dulwich 0.21", openDriver("/usr/bin/python3", "testdata/dulwich_client.py"), map[ability]string{
		atomic:  noAtomic,
		partial: noPartial, treeless: noPartial, lazy: noPartial,
	}},
	{"pygit2", "libgit2 1.5", openDriver("/usr/bin/python3", "testdata/pygit2_client.py"), map[ability]string{
		atomic:  noAtomic,
		shallow: noShallow, deepen: noShallow,
		partial: noPartial, treeless: noPartial, lazy: noPartial,
	}},
	{"jgit", "JGit 7", openJGit, map[ability]string{
		treeless: "the library's clone reads the trees that it left out",
		lazy:     noLazy,
	}},
}

// driver is a client in a process of its own, which answers each line with one.
type driver struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func openDriver(program string, args ...string) func(testing.TB, *site) client {
	return func(t testing.TB, s *site) client {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Env = s.env
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatalf("%v; run: make conformance", err)
		}
		return &driver{cmd, in, bufio.NewReader(out)}
	}
}

// openJGit runs the Java source as it is, with the jars that make conformance has put there.
func openJGit(t testing.TB, s *site) client {
	t.Helper()
	jars := os.Getenv("HEADGATE_JGIT")
	if jars == "" {
		jars = filepath.Join("..", "..", ".cache", "jgit")
	}
	found, err := filepath.Glob(filepath.Join(jars, "*.jar"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no jars in %s (%v); run: make conformance", jars, err)
	}
	return openDriver("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m",
		"-cp", strings.Join(found, string(filepath.ListSeparator)), "testdata/JGitClient.java")(t, s)
}

func (d *driver) Do(r request) (reply, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return reply{}, err
	}
	if _, err := d.in.Write(append(line, '\n')); err != nil {
		return reply{}, fmt.Errorf("the client has ended: %w", err)
	}
	answer, err := d.out.ReadBytes('\n')
	if err != nil {
		return reply{}, fmt.Errorf("the client has ended: %w", err)
	}
	var out reply
	if err := json.Unmarshal(answer, &out); err != nil {
		return reply{}, fmt.Errorf("the client says %q: %w", answer, err)
	}
	return out, nil
}

func (d *driver) Close() error { return errors.Join(d.in.Close(), d.cmd.Wait()) }
