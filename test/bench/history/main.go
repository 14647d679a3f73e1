// Command history measures what fetches cost the server on a lake with a long
// history: it makes the lake, and answers the same requests with the server's
// code and with stock git upload-pack, which has bitmaps and a commit-graph. It
// counts processor time, since a machine's other users show in any other.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/server/pktline"
	"github.com/headgate/headgate/server/uploadpack"
)

func main() {
	var sh shape
	flag.IntVar(&sh.commits, "commits", 100_000, "commits of the lake")
	flag.IntVar(&sh.tags, "tags", 10_000, "annotated tags")
	flag.IntVar(&sh.tables, "tables", 100, "tables in each commit")
	flag.IntVar(&sh.parts, "parts", 20, "parts of each table")
	flag.IntVar(&sh.rewritten, "rewritten", 5, "parts that a commit rewrites")
	flag.IntVar(&sh.packs, "packs", 50, "pushes that the lake came with")
	noGit := flag.Bool("no-git", false, "leave stock git out: its repack takes by far the most time")
	rounds := flag.Int("rounds", 5, "of each request; the figures are medians")
	out := flag.String("json", "", "write the figures to this file too")
	dir := flag.String("dir", "", "where to make the lake; a temporary directory that is removed if empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, sh, *rounds, *noGit, *dir, *out); err != nil {
		fmt.Fprintln(os.Stderr, "history:", err)
		stop()
		os.Exit(1)
	}
}

// figure is what one request costs. Times are milliseconds of processor time.
type figure struct {
	Name    string  `json:"name"`
	Without float64 `json:"without_index_ms,omitempty"` // with no index, once
	Ours    float64 `json:"ms"`
	Git     float64 `json:"git_ms,omitempty"`
	Bytes   int64   `json:"bytes"`
	GitB    int64   `json:"git_bytes,omitempty"`
}

type report struct {
	Commits  int      `json:"commits"`
	Objects  int      `json:"objects"`
	Pushed   int64    `json:"pushed_bytes"` // packs as they came
	Joined   int64    `json:"joined_bytes"` // as the server joins them
	GitBytes int64    `json:"git_bytes"`    // as git repack -ad does
	Join     float64  `json:"join_ms"`      // processor time
	GitJoin  float64  `json:"git_repack_ms"`
	Build    float64  `json:"index_build_ms"`
	Index    int      `json:"index_bytes"`
	Clones   float64  `json:"eight_clones_peak_mib"` // resident, of a process that serves eight at once
	Requests []figure `json:"requests"`
}

func run(ctx context.Context, sh shape, rounds int, noGit bool, dir, out string) (err error) {
	if sh.commits < 1000 || rounds < 1 || sh.packs < 1 {
		return errors.New("want at least 1000 commits, a round and a pack")
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "headgate-history-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	note := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	note("making a lake of %d commits", sh.commits)
	l, err := makeLake(dir, sh)
	if err != nil {
		return err
	}
	files, err := l.linkPacks(filepath.Join(dir, "pushed"))
	if err != nil {
		return err
	}
	b, err := backend.NewLocal(l.dir)
	if err != nil {
		return err
	}
	store, err := objects.OpenStore(b, filepath.Join(dir, "staging"), objects.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	names, err := l.refs(ctx)
	if err != nil {
		return err
	}
	server := &uploadpack.Server{Objects: store, Refs: names, Head: "refs/heads/main", Agent: "headgate/bench"}
	r := report{Commits: len(l.commits), Objects: l.objects, Pushed: l.bytes}

	requests := l.requests()
	note("answering without an index")
	for _, q := range requests {
		f := figure{Name: q.name}
		if f.Without, f.Bytes, err = ours(ctx, server, q.bytes); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		r.Requests = append(r.Requests, f)
	}
	note("joining packs")
	if r.Join, err = cpu(func() error { _, err := store.Repack(ctx); return err }); err != nil {
		return err
	}
	if r.Joined, err = packBytes(filepath.Join(l.dir, "pack")); err != nil {
		return err
	}
	note("building the index")
	tips := append([]objects.OID{l.tip(), l.unrelated}, l.tags...)
	if r.Build, err = cpu(func() error { _, err := store.UpdateReachability(ctx, tips); return err }); err != nil {
		return err
	}
	x := store.Reachability(ctx)
	if x == nil {
		return errors.New("no index was built")
	}
	r.Index = len(x.Bytes())

	repo := filepath.Join(dir, "git")
	if !noGit {
		note("making git's copy")
		if r.GitJoin, err = l.gitCopy(ctx, repo, files); err != nil {
			return err
		}
		if r.GitBytes, err = packBytes(filepath.Join(repo, "objects", "pack")); err != nil {
			return err
		}
	}
	note("answering with the index")
	for i, q := range requests {
		f := &r.Requests[i]
		if f.Ours, err = median(rounds, func() (ms float64, err error) {
			ms, f.Bytes, err = ours(ctx, server, q.bytes)
			return ms, err
		}); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		if noGit {
			continue
		}
		if f.Git, err = median(rounds, func() (ms float64, err error) {
			ms, f.GitB, err = gits(ctx, repo, q.bytes)
			return ms, err
		}); err != nil {
			return fmt.Errorf("git, %s: %w", q.name, err)
		}
	}
	for _, q := range l.questions() {
		f := figure{Name: q.name}
		if f.Ours, err = median(rounds, func() (float64, error) {
			return cpu(func() error { return q.ours(ctx, store) })
		}); err != nil {
			return err
		}
		if noGit {
			r.Requests = append(r.Requests, f)
			continue
		}
		if f.Git, err = median(rounds, func() (float64, error) {
			cmd := exec.CommandContext(ctx, "git", append([]string{"--git-dir=" + repo}, q.git...)...)
			err := cmd.Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == 1 {
				err = nil // that is the answer "no"
			}
			if err != nil {
				return 0, err
			}
			return used(cmd), nil
		}); err != nil {
			return fmt.Errorf("git, %s: %w", q.name, err)
		}
		r.Requests = append(r.Requests, f)
	}
	note("eight clones at once")
	if r.Clones, err = eightClones(ctx, server, requests[0].bytes); err != nil {
		return err
	}
	print(r)
	if out == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(data, '\n'), 0o644)
}

func print(r report) {
	fmt.Printf("%d commits, %d objects; index %.1f MiB, built in %.1f s of processor time\n",
		r.Commits, r.Objects, float64(r.Index)/(1<<20), r.Build/1000)
	mib := func(n int64) float64 { return float64(n) / (1 << 20) }
	fmt.Printf("packs: %.1f MiB as they came, %.1f joined in %.1f s, %.1f by git repack -ad in %.1f s\n",
		mib(r.Pushed), mib(r.Joined), r.Join/1000, mib(r.GitBytes), r.GitJoin/1000)
	fmt.Printf("%-34s %12s %10s %10s %12s %12s\n", "processor time, ms", "no index", "headgate", "git", "bytes", "git's")
	for _, f := range r.Requests {
		fmt.Printf("%-34s %12.1f %10.2f %10.2f %12d %12d\n", f.Name, f.Without, f.Ours, f.Git, f.Bytes, f.GitB)
	}
	fmt.Printf("eight clones at once: %.0f MiB resident at most\n", r.Clones)
}

// request is one stateless request of protocol v2.
type request struct {
	name  string
	bytes []byte
}

func newRequest(name, command string, args ...string) request {
	var b bytes.Buffer
	w := pktline.NewWriter(&b)
	_ = w.Line("command=%s", command) // a buffer takes all of it
	_ = w.Line("object-format=sha1")
	_ = w.Delim()
	for _, arg := range args {
		_ = w.Line("%s", arg)
	}
	_ = w.Flush()
	return request{name, b.Bytes()}
}

func (l *lake) requests() []request {
	fetch := func(name string, args ...string) request {
		return newRequest(name, "fetch", append([]string{"thin-pack", "ofs-delta", "no-progress", "include-tag"}, args...)...)
	}
	want := "want " + l.tip().String()
	have := func(oid objects.OID) string { return "have " + oid.String() }
	all := []string{want, "want " + l.unrelated.String()}
	for _, tag := range l.tags {
		all = append(all, "want "+tag.String())
	}
	n := len(l.commits)
	var skipping, many []string
	for back := 1; back < n; back *= 2 {
		skipping = append(skipping, have(l.commits[n-back]))
	}
	for i := range 2000 {
		many = append(many, have(l.commits[i*n/2000]))
	}
	return []request{
		fetch("clone of everything", append(all, "done")...),
		fetch("clone of everything, blob:none", append(all, "filter blob:none", "done")...),
		fetch("clone of main, depth 1", want, "deepen 1", "done"),
		fetch("clone of main, depth 1000", want, "deepen 1000", "done"),
		fetch("clone of main, tree:0", want, "filter tree:0", "done"),
		fetch("1 new commit", want, have(l.commits[n-2]), "done"),
		fetch("100 new commits", want, have(l.commits[n-101]), "done"),
		fetch("half of all commits", want, have(l.commits[n/2]), "done"),
		fetch("nothing new", want, have(l.tip()), "done"),
		fetch("an unrelated have, undecided", want, have(l.unrelated)),
		fetch("skipping haves", append([]string{want, "done"}, skipping...)...),
		fetch("2000 haves", append([]string{want, "done"}, many...)...),
		newRequest("ls-refs, all, peeled", "ls-refs", "peel", "symrefs"),
		newRequest("ls-refs of main", "ls-refs", "peel", "symrefs", "ref-prefix refs/heads/main"),
	}
}

// question is one about ancestry, which a gate asks.
type question struct {
	name string
	ours func(context.Context, *objects.Store) error
	git  []string
}

func (l *lake) questions() []question {
	first, tip := l.commits[0], l.tip()
	ancestor := func(name string, a, b objects.OID) question {
		return question{name, func(ctx context.Context, s *objects.Store) error {
			_, err := history.IsAncestor(ctx, s, a, b)
			return err
		}, []string{"merge-base", "--is-ancestor", a.String(), b.String()}}
	}
	return []question{
		ancestor("is the first commit in the tip", first, tip),
		ancestor("is the tip in the first commit", tip, first),
		ancestor("is an unrelated one in the tip", l.unrelated, tip),
		{"merge base with the first commit", func(ctx context.Context, s *objects.Store) error {
			_, _, err := history.MergeBase(ctx, s, tip, first)
			return err
		}, []string{"merge-base", tip.String(), first.String()}},
	}
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// ours answers a request with the server's code.
func ours(ctx context.Context, s *uploadpack.Server, req []byte) (ms float64, n int64, err error) {
	var c counter
	runtime.GC() // what others left behind is not this request's
	ms, err = cpu(func() error { return s.Respond(ctx, 2, bytes.NewReader(req), &c) })
	return ms, int64(c), err
}

// gits answers a request with git upload-pack.
func gits(ctx context.Context, repo string, req []byte) (ms float64, n int64, err error) {
	cmd := exec.CommandContext(ctx, "git", "-c", "uploadpack.allowFilter=true", "-c", "pack.threads=1", "upload-pack", "--stateless-rpc", repo)
	cmd.Env = append(os.Environ(), "GIT_PROTOCOL=version=2")
	cmd.Stdin = bytes.NewReader(req)
	var c counter
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &c, &stderr
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, stderr.String())
	}
	return used(cmd), int64(c), nil
}

// used is the processor time of a process and its children.
func used(cmd *exec.Cmd) float64 {
	return float64((cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Microseconds()) / 1000
}

// cpu is the processor time of this process while fn runs.
func cpu(fn func() error) (float64, error) {
	now := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for oneself
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := now()
	err := fn()
	return float64((now() - start).Microseconds()) / 1000, err
}

func median(rounds int, fn func() (float64, error)) (float64, error) {
	var all []float64
	for range rounds {
		v, err := fn()
		if err != nil {
			return 0, err
		}
		all = append(all, v)
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// eightClones answers eight requests at once and returns the largest memory of
// this process meanwhile, in MiB.
func eightClones(ctx context.Context, s *uploadpack.Server, req []byte) (float64, error) {
	runtime.GC()
	// The kernel keeps the largest figure so far; 5 resets it.
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return 0, err
	}
	errs := make(chan error)
	for range 8 {
		go func() { errs <- s.Respond(ctx, 2, bytes.NewReader(req), io.Discard) }()
	}
	var all error
	for range 8 {
		all = errors.Join(all, <-errs)
	}
	if all != nil {
		return 0, all
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kb); n == 1 {
			return kb / 1024, nil
		}
	}
	return 0, errors.New("no VmHWM in /proc/self/status")
}
