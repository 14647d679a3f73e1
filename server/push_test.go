package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/refs"
	"github.com/headgate/headgate/server"
	"github.com/headgate/headgate/server/pktline"
)

// at returns what a ref of the lake points at, or "".
func (s *site) at(name, ref string) string {
	s.t.Helper()
	l, err := s.lakes.Open(context.Background(), lake.Name(name))
	check(s.t, err)
	oid, err := l.Refs.Get(context.Background(), refs.Name(ref))
	if err != nil {
		return ""
	}
	return oid.String()
}

func TestPush(t *testing.T) {
	for version := range 3 {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			s := newSite(t)
			c := s.repo("admin")
			c.git("config", "protocol.version", fmt.Sprint(version))
			c.git("remote", "add", "origin", s.url("team/flights.git"))
			one := c.commit("one", map[string]string{"a": "1", "big": strings.Repeat("x", 100_000)})
			out := c.git("push", "origin", "main", "main:refs/heads/x", "main:refs/tags/light")
			if !strings.Contains(out, "created lake team/flights") {
				t.Errorf("the creation of the lake is not mentioned: %s", out)
			}
			for _, ref := range []string{"refs/heads/main", "refs/heads/x", "refs/tags/light"} {
				if got := s.at("team/flights", ref); got != one {
					t.Errorf("%s is at %q, want %s", ref, got, one)
				}
			}
			two := c.commit("two", map[string]string{"a": "2"})
			c.git("push", "origin", "main")
			c.git("push", "origin", ":x")
			if got := s.at("team/flights", "refs/heads/x"); got != "" {
				t.Errorf("deleted ref is at %s", got)
			}
			c.git("commit", "-q", "--amend", "-m", "other two")
			c.refused("non-fast-forward", "push", "origin", "main")
			c.git("push", "--force-with-lease", "origin", "main")
			if got := s.at("team/flights", "refs/heads/main"); got == two {
				t.Error("the forced push did not move the ref")
			}
			if out := c.git("push", "origin", "main"); !strings.Contains(out, "up-to-date") {
				t.Errorf("nothing to push: %s", out)
			}
			s.from(s.url("team/flights")).fsck()
		})
	}
}

func TestPushTellsTheGate(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	tip := c.commit("new", map[string]string{"n": "n"})
	c.git("push", "-q", "--atomic", "-o", "param.day=1", "-o", "dry-run", "origin", "main", "main:copy")
	p := s.gate.last(t)
	if !p.Atomic || !slices.Equal(p.Options, []string{"param.day=1", "dry-run"}) || len(p.Updates) != 2 {
		t.Errorf("push %+v", p)
	}
	if p.Who.Name != "root" || !p.Who.Admin || !strings.HasPrefix(p.Who.Fingerprint, "SHA256:") || p.Lake.Name != "flights" {
		t.Errorf("identity %+v of lake %s", p.Who, p.Lake.Name)
	}
	if s.at("flights", "refs/heads/copy") != tip {
		t.Error("copy was not made")
	}
	c.user = "user"
	c.git("push", "-q", "origin", "main:ada")
	if p := s.gate.last(t); p.Who.Name != "ada" || p.Who.Admin {
		t.Errorf("identity %+v", p.Who)
	}
}

func TestPushProgressIsLive(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	seen := make(chan struct{})
	s.gate.before = func(_ context.Context, p *hooks.Push) {
		fmt.Fprintln(p.Progress, "model daily: running")
		<-seen // goes on only when the client has shown the line
		fmt.Fprintln(p.Progress, "model daily: done")
	}
	c.commit("new", map[string]string{"n": "n"})
	cmd := c.command("push", "origin", "main")
	stderr, err := cmd.StderrPipe()
	check(t, err)
	check(t, cmd.Start())
	var shown bytes.Buffer
	buf := make([]byte, 1024)
	for open := true; ; {
		n, err := stderr.Read(buf)
		shown.Write(buf[:n])
		if open && strings.Contains(shown.String(), "remote: model daily: running") {
			open = false
			close(seen)
		}
		if err != nil {
			break
		}
	}
	check(t, cmd.Wait())
	if !strings.Contains(shown.String(), "remote: model daily: done") {
		t.Errorf("shown: %s", shown.String())
	}
}

func TestGateRefuses(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	before := s.at("flights", "refs/heads/main")
	s.gate.before = func(ctx context.Context, p *hooks.Push) {
		// Somebody else wins the race after the checks.
		err := p.Lake.Refs.Apply(ctx, []refs.Update{{Name: p.Updates[0].Name, Old: p.Updates[0].Old}}, refs.Cause{Who: "other", Why: "race"})
		if err != nil {
			t.Error(err)
		}
	}
	c.commit("new", map[string]string{"n": "n"})
	out := c.refused("[remote rejected]", "push", "origin", "main")
	if !strings.Contains(out, "expected "+before) {
		t.Errorf("the reason is not shown: %s", out)
	}
}

func TestAtomicPushIsAllOrNothing(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	c.commit("new", map[string]string{"n": "n"})
	out := c.refused("atomic push failure", "push", "--atomic", "origin", "main:fresh", "main:refs/runs/x")
	if !strings.Contains(out, "only the server writes this ref") || s.at("flights", "refs/heads/fresh") != "" {
		t.Errorf("fresh is at %q\n%s", s.at("flights", "refs/heads/fresh"), out)
	}
	c.refused("only the server writes this ref", "push", "origin", "main:fresh", "main:refs/runs/x")
	if s.at("flights", "refs/heads/fresh") == "" {
		t.Error("without --atomic, the good ref did not move")
	}
}

func TestPushRefusals(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	c.refused("a branch points at a commit", "push", "origin", "HEAD^{tree}:refs/heads/tree")
	c.refused("a branch points at a commit", "push", "origin", "v1:refs/heads/tag")
	other := s.repo("user")
	other.commit("x", map[string]string{"x": "x"})
	other.refused("ask an administrator to run: ssh test lake create fresh", "push", s.url("fresh"), "main")
	other.refused("is not a lake name", "push", s.url("a/../../b"), "main")
}

// A shallow clone may push what the server can connect.
func TestPushFromShallowClone(t *testing.T) {
	s := newSite(t)
	src := s.pushedLake("flights")
	c := s.from(s.url("flights"), "--depth=1")
	tip := c.commit("from shallow", map[string]string{"n": "n"})
	c.git("push", "-q", "origin", "HEAD:main")
	if s.at("flights", "refs/heads/main") != tip {
		t.Error("main did not move")
	}
	_ = src
	_, err := s.lakes.Create(t.Context(), "other")
	check(t, err)
	c.refused("git fetch --unshallow", "push", s.url("other"), "HEAD:main")
	if s.at("other", "refs/heads/main") != "" {
		t.Error("disconnected history was taken")
	}
}

func TestThousandRefs(t *testing.T) {
	s := newSite(t)
	c := s.repo("admin")
	tip := c.commit("one", map[string]string{"a": "a"})
	var specs bytes.Buffer
	for n := range 1000 {
		fmt.Fprintf(&specs, "create refs/heads/agent/%04d %s\n", n, tip)
	}
	cmd := c.command("update-ref", "--stdin")
	cmd.Stdin = &specs
	check(t, cmd.Run())
	c.git("push", "-q", "--atomic", s.url("many"), "--all")
	clone := s.from(s.url("many"))
	if got := strings.Count(clone.git("for-each-ref", "refs/remotes/origin/agent"), "\n") + 1; got != 1000 {
		t.Errorf("cloned %d refs", got)
	}
	c.git("push", "-q", "--prune", s.url("many"), "refs/heads/main:refs/heads/main", "refs/none/*:refs/heads/agent/*")
	if got := c.git("ls-remote", s.url("many")); strings.Count(got, "\n") != 1 {
		t.Errorf("left after prune: %.300s", got)
	}
}

func TestLargeBlob(t *testing.T) {
	s := newSite(t)
	c := s.repo("admin")
	blob := make([]byte, 64<<20)
	_, _ = rand.Read(blob)
	check(t, os.WriteFile(filepath.Join(c.dir, "part.parquet"), blob, 0o644))
	c.git("config", "core.compression", "0")
	c.git("config", "core.bigFileThreshold", "1m")
	c.commit("large", nil)
	c.git("push", "-q", s.url("large"), "main")
	out := s.from(s.url("large"), "-c", "core.compression=0")
	got, err := os.ReadFile(filepath.Join(out.dir, "part.parquet"))
	check(t, err)
	if !bytes.Equal(got, blob) {
		t.Error("the blob came back different")
	}
}

// wire is a raw git session, for what a stock client never sends.
type wire struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *pktline.Reader
	w   *pktline.Writer
}

func (s *site) wire(user, command string) *wire {
	s.t.Helper()
	args := append(s.sshArgs(user), "127.0.0.1", command)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = s.env(user)
	in, err := cmd.StdinPipe()
	check(s.t, err)
	out, err := cmd.StdoutPipe()
	check(s.t, err)
	check(s.t, cmd.Start())
	w := &wire{t: s.t, cmd: cmd, in: in, out: pktline.NewReader(out), w: pktline.NewWriter(in)}
	for { // the advertisement
		k, line, err := w.out.Line()
		check(s.t, err)
		if k == pktline.Flush || strings.HasPrefix(line, "ERR ") {
			return w
		}
	}
}

// rest returns all text up to the end of the session, bands demultiplexed.
func (w *wire) rest() string {
	var b strings.Builder
	for {
		k, p, err := w.out.Next()
		if err != nil {
			_ = w.cmd.Wait()
			return b.String()
		}
		if k == pktline.Data && len(p) > 0 && p[0] <= 3 {
			p = p[1:]
		}
		b.Write(p)
		b.WriteByte('\n')
	}
}

// push sends one command and a pack.
func (w *wire) push(line string, pack []byte) string {
	w.t.Helper()
	check(w.t, w.w.Packet([]byte(line+"\x00report-status side-band-64k agent=test")))
	check(w.t, w.w.Flush())
	_, err := w.in.Write(pack)
	check(w.t, err)
	check(w.t, w.in.Close())
	return w.rest()
}

const zeros = "0000000000000000000000000000000000000000"

func TestForeignPacks(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	tip := c.commit("new", map[string]string{"n": "n"})
	cmd := c.command("pack-objects", "--revs", "--stdout", "-q")
	cmd.Stdin = strings.NewReader("HEAD\n^HEAD~1\n")
	pack, err := cmd.Output()
	check(t, err)
	flipped := slices.Clone(pack)
	flipped[len(flipped)/2] ^= 0x10
	sum := sha1.Sum(flipped[:len(flipped)-20])
	copy(flipped[len(flipped)-20:], sum[:])
	badSum := slices.Clone(pack)
	badSum[len(badSum)-1] ^= 1
	cmd = c.command("pack-objects", "--stdout", "-q")
	cmd.Stdin = strings.NewReader(tip + "\n") // the commit without its tree
	lonely, err := cmd.Output()
	check(t, err)
	empty := append([]byte("PACK\x00\x00\x00\x02"), 0, 0, 0, 0)
	sum = sha1.Sum(empty)
	empty = append(empty, sum[:]...)

	old := s.at("flights", "refs/heads/main")
	create := zeros + " " + tip + " refs/heads/new"
	tests := []struct {
		name, line string
		pack       []byte
		want       []string
	}{
		{"truncated", create, pack[:len(pack)/2], []string{"ng refs/heads/new unpacker error"}},
		{"flipped bit", create, flipped, []string{"ng refs/heads/new unpacker error"}},
		{"wrong checksum", create, badSum, []string{"ng refs/heads/new unpacker error"}},
		{"no pack", create, []byte("not a pack at all, but long enough to be one"), []string{"ng refs/heads/new unpacker error"}},
		{"nothing", create, nil, []string{"ng refs/heads/new unpacker error"}},
		{"missing tree", create, lonely, []string{"unpack ok", "ng refs/heads/new missing necessary objects"}},
		{"missing tip", create, empty, []string{"unpack ok", "ng refs/heads/new missing necessary objects: object " + tip + " is missing"}},
		{"stale", c.git("rev-parse", "HEAD~3") + " " + tip + " refs/heads/main", pack, []string{"ng refs/heads/main stale: the ref is at " + old[:7]}},
		{"exists", zeros + " " + tip + " refs/heads/main", pack, []string{"ng refs/heads/main stale"}},
		{"gone", old + " " + tip + " refs/heads/absent", pack, []string{"ng refs/heads/absent stale: the ref has been deleted"}},
		{"bad name", zeros + " " + tip + " refs/heads/a..b", pack, []string{"ng refs/heads/a..b "}},
		{"delete absent", zeros + " " + zeros + " refs/heads/absent", nil, []string{"ng refs/heads/absent no such ref"}},
		{"malformed", "create main", nil, []string{"ERR expected old, new and ref"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := s.within(t).wire("admin", "git-receive-pack 'flights'").push(tt.line, tt.pack)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("got %q, want %q in it", got, want)
				}
			}
			if s.at("flights", "refs/heads/main") != old || s.at("flights", "refs/heads/new") != "" {
				t.Error("a ref moved")
			}
		})
	}
	s.repo("user").refused("not our ref "+tip, "fetch", s.url("flights"), tip) // nothing of all that is visible
	c.git("push", "-q", "origin", "main")                                      // and the server goes on
	if s.at("flights", "refs/heads/main") != tip {
		t.Error("the good push did not land")
	}
}

// A client that dies while it sends leaves nothing behind.
func TestKilledWhileSending(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	w := s.wire("admin", "git-receive-pack flights")
	check(t, w.w.Packet([]byte(zeros+" "+c.git("rev-parse", "HEAD")+" refs/heads/half\x00report-status side-band-64k")))
	check(t, w.w.Flush())
	_, err := w.in.Write([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x09"))
	check(t, err)
	check(t, w.cmd.Process.Kill())
	_ = w.cmd.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	check(t, s.server.Shutdown(ctx)) // waits for the session
	if s.at("flights", "refs/heads/half") != "" {
		t.Error("half a push landed")
	}
}

// A client that dies during its run does not stop the run, and Shutdown waits for it.
func TestKilledDuringRun(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	running, goOn := make(chan struct{}), make(chan struct{})
	s.gate.before = func(ctx context.Context, p *hooks.Push) {
		close(running)
		<-goOn
		for range 100 {
			fmt.Fprintln(p.Progress, strings.Repeat("x", 10_000)) // to nobody
		}
		check(t, ctx.Err())
	}
	tip := c.commit("new", map[string]string{"n": "n"})
	cmd := c.command("push", "-q", "origin", "main")
	check(t, cmd.Start())
	<-running
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	down := make(chan error, 1)
	go func() { down <- s.server.Shutdown(context.Background()) }()
	select {
	case err := <-down:
		t.Fatalf("shutdown did not wait for the run: %v", err)
	case <-time.After(100 * time.Millisecond): // nothing to wait for that would show it
	}
	close(goOn)
	check(t, <-down)
	if s.at("flights", "refs/heads/main") != tip {
		t.Error("the run did not end")
	}
}

// A run that does not end in time is told to.
func TestShutdownStopsRuns(t *testing.T) {
	s := newSite(t, func(cfg *server.Config) { cfg.KeepAlive = time.Hour })
	c := s.pushedLake("flights")
	running := make(chan struct{})
	s.gate.before = func(ctx context.Context, _ *hooks.Push) {
		close(running)
		<-ctx.Done()
	}
	c.commit("new", map[string]string{"n": "n"})
	cmd := c.command("push", "-q", "origin", "main")
	check(t, cmd.Start())
	<-running
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.server.Shutdown(ctx); err == nil {
		t.Error("an impatient shutdown reports success")
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the push succeeded")
	}
}
