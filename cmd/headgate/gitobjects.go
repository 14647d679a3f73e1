package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"github.com/headgate/headgate/objects"
)

// gitObjects is a store on top of the user's repository: what it lacks it takes
// from git, verified, into a quarantine of its own, where new objects go too. The
// repository is only read; a partial clone fetches what it is asked for, as
// for any git command. It is safe for concurrent use.
type gitObjects struct {
	*objects.Quarantine
	lake   *checkout
	commit string          // under replay
	ctx    context.Context // of the git process

	mu      sync.Mutex // held while git answers
	cat     *catFile
	offline bool            // the promisor remote could not be reached: do not ask it again and again
	missing map[string]bool // of the commit under replay, what a partial clone lacks; nil until asked for
}

// catFile is a running "git cat-file --batch".
type catFile struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr tail
}

// Stat implements objects.Reader.
func (g *gitObjects) Stat(ctx context.Context, oid objects.OID) (objects.Info, error) {
	if err := g.take(ctx, oid); err != nil {
		return objects.Info{}, err
	}
	return g.Quarantine.Stat(ctx, oid)
}

// Open implements objects.Reader.
func (g *gitObjects) Open(ctx context.Context, oid objects.OID) (objects.Info, io.ReadCloser, error) {
	if err := g.take(ctx, oid); err != nil {
		return objects.Info{}, nil, err
	}
	return g.Quarantine.Open(ctx, oid)
}

// Link implements objects.Linker.
func (g *gitObjects) Link(ctx context.Context, oid objects.OID, path string) error {
	if err := g.take(ctx, oid); err != nil {
		return err
	}
	return g.Quarantine.Link(ctx, oid, path)
}

// take copies an object from git, if it is not here yet.
func (g *gitObjects) take(ctx context.Context, oid objects.OID) error {
	if _, err := g.Quarantine.Stat(ctx, oid); !errors.Is(err, objects.ErrNotFound) {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := g.Quarantine.Stat(ctx, oid); !errors.Is(err, objects.ErrNotFound) {
		return err // by somebody else, in the meantime
	}
	if g.cat == nil {
		if err := g.start(); err != nil {
			return err
		}
	}
	if err := g.copy(ctx, oid); err != nil {
		if errors.Is(err, objects.ErrNotFound) && g.cat != nil {
			return err
		}
		return g.died(oid, err)
	}
	return nil
}

func (g *gitObjects) start() error {
	c := &catFile{cmd: exec.CommandContext(g.ctx, "git", "-C", g.lake.root, "cat-file", "--batch")}
	c.cmd.Stderr = &c.stderr
	// An object is taken for what its name says, whatever "git replace" shows.
	c.cmd.Env = append(os.Environ(), "GIT_NO_REPLACE_OBJECTS=1")
	if g.offline {
		c.cmd.Env = append(c.cmd.Env, "GIT_NO_LAZY_FETCH=1")
	}
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c.out = bufio.NewReaderSize(out, 1<<16)
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("git: %w", err)
	}
	g.cat = c
	return nil
}

// copy asks git for one object and puts it into the quarantine.
func (g *gitObjects) copy(ctx context.Context, oid objects.OID) error {
	if _, err := io.WriteString(g.cat.in, oid.String()+"\n"); err != nil {
		return err
	}
	head, err := g.cat.out.ReadString('\n')
	if err != nil {
		return err
	}
	fields := strings.Fields(head) // oid, type, size; or oid, "missing"
	if len(fields) == 2 && fields[1] == "missing" {
		return fmt.Errorf("%w: %s", objects.ErrNotFound, oid)
	}
	kinds := map[string]objects.Type{"blob": objects.Blob, "tree": objects.Tree, "commit": objects.Commit, "tag": objects.Tag}
	if len(fields) != 3 || kinds[fields[1]] == 0 {
		return fmt.Errorf("git cat-file answered %q", strings.TrimSpace(head))
	}
	size, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return fmt.Errorf("git cat-file answered %q", strings.TrimSpace(head))
	}
	content := &io.LimitedReader{R: g.cat.out, N: size}
	got, err := g.Put(ctx, kinds[fields[1]], size, content)
	if err != nil {
		return err
	}
	if got != oid {
		return fmt.Errorf("object %s of the repository is damaged: its content hashes to %s", oid, got)
	}
	_, err = g.cat.out.Discard(1) // the newline after the content
	return err
}

// died ends a git process whose answer could not be used: the next object gets
// a new one. That git ended is how it says that it cannot fetch an object.
func (g *gitObjects) died(oid objects.OID, cause error) error {
	c := g.cat
	g.cat = nil
	c.in.Close()
	if !errors.Is(cause, io.EOF) {
		_ = c.cmd.Process.Kill() // it may be in the middle of an object
	}
	err := c.cmd.Wait()
	if g.ctx.Err() != nil {
		return g.ctx.Err()
	}
	if errors.Is(cause, io.EOF) && err != nil {
		g.offline = true
		return fmt.Errorf("%w: %s: %s", objects.ErrNotFound, oid, firstLine(c.stderr.text()))
	}
	return cause
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.TrimPrefix(line, "fatal: ")
}

// Prefetch implements hooks.Prefetcher: one request for all that a partial clone
// lacks. If that fails, the objects are missed when they are read.
func (g *gitObjects) Prefetch(ctx context.Context, oids []objects.OID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	remote, err := g.lake.promisor(ctx)
	if err != nil || remote == "" || g.offline {
		return err
	}
	if g.missing == nil {
		if g.missing, err = g.lacks(ctx); err != nil {
			return err
		}
	}
	var ask bytes.Buffer
	for _, oid := range oids {
		if g.missing[oid.String()] {
			fmt.Fprintln(&ask, oid)
			delete(g.missing, oid.String())
		}
	}
	if ask.Len() == 0 {
		return nil
	}
	// As git itself fetches what it lacks, but once for all.
	err = g.run(ctx, &ask, nil, "-c", "fetch.negotiationAlgorithm=noop", "fetch", remote,
		"--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none", "--quiet", "--stdin")
	g.offline = err != nil
	return ctx.Err()
}

// lacks lists what the clone does not have of the commit's tree and its base's,
// without fetching it.
func (g *gitObjects) lacks(ctx context.Context) (map[string]bool, error) {
	var out bytes.Buffer
	for _, rev := range []string{g.commit + "^{tree}", g.commit + "^1^{tree}"} {
		err := g.run(ctx, nil, &out, "rev-list", "--objects", "--no-object-names", "--missing=print", rev)
		var exit *exec.ExitError
		if err != nil && !(errors.As(err, &exit) && rev != g.commit+"^{tree}") { // a shallow clone has no base
			return nil, fmt.Errorf("list what this partial clone lacks: %w", err)
		}
	}
	missing := make(map[string]bool)
	for line := range strings.SplitSeq(out.String(), "\n") {
		if oid, ok := strings.CutPrefix(line, "?"); ok {
			missing[oid] = true
		}
	}
	return missing, nil
}

func (g *gitObjects) run(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", g.lake.root}, args...)...)
	cmd.Stdin, cmd.Stdout = in, out
	return cmd.Run()
}

// Close ends git and drops what the quarantine holds.
func (g *gitObjects) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	if g.cat != nil {
		g.cat.in.Close()
		err = g.cat.cmd.Wait()
		g.cat = nil
	}
	return errors.Join(err, g.Discard())
}
