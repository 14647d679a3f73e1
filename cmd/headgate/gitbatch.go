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
)

// errNoObject is what a gitBatch wraps when git has no object of that name.
var errNoObject = errors.New("no such object")

// gitBatch is a running "git cat-file --batch" or "--batch-check": a git process
// for each of some thousand objects would take longer than reading them. What a
// partial clone lacks git fetches, one by one: see checkout.prefetch. It is not
// safe for concurrent use.
type gitBatch struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr tail
}

// repoReader are the two processes by which a history is walked.
type repoReader struct {
	git   *gitBatch // contents
	names *gitBatch // lookups
}

func (c *checkout) reader(ctx context.Context) (r repoReader, err error) {
	if r.git, err = c.contents(ctx); err != nil {
		return r, err
	}
	if r.names, err = c.lookups(ctx); err != nil {
		r.git.close()
	}
	return r, err
}

func (r repoReader) close() {
	r.git.close()
	r.names.close()
}

// contents starts a process that gives objects.
func (c *checkout) contents(ctx context.Context) (*gitBatch, error) { return c.batch(ctx, "--batch") }

// lookups starts a process that only says what a name stands for.
func (c *checkout) lookups(ctx context.Context) (*gitBatch, error) {
	return c.batch(ctx, "--batch-check")
}

func (c *checkout) batch(ctx context.Context, mode string) (*gitBatch, error) {
	b := &gitBatch{cmd: exec.CommandContext(ctx, "git", "-C", c.root, "cat-file", mode)}
	b.cmd.Stderr = &b.stderr
	// An object is taken for what its name says, whatever "git replace" shows.
	b.cmd.Env = append(os.Environ(), "GIT_NO_REPLACE_OBJECTS=1")
	var err error
	if b.in, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b.out = bufio.NewReaderSize(out, 1<<16)
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("git: %w", err)
	}
	return b, nil
}

// find returns the oid and type of what a name stands for: an oid, or
// "<commit>:tables/x". The error wraps errNoObject if that is nothing.
func (b *gitBatch) find(name string) (oid, kind string, size int64, err error) {
	if strings.ContainsAny(name, "\n\x00") {
		return "", "", 0, fmt.Errorf("%w: %q", errNoObject, name)
	}
	if _, err := io.WriteString(b.in, name+"\n"); err != nil {
		return "", "", 0, b.died(err)
	}
	line, err := b.out.ReadString('\n')
	if err != nil {
		return "", "", 0, b.died(err)
	}
	line = strings.TrimSuffix(line, "\n")
	if strings.HasSuffix(line, " missing") || strings.HasSuffix(line, " ambiguous") {
		return "", "", 0, fmt.Errorf("%w: %q", errNoObject, name)
	}
	fields := strings.Fields(line) // oid, type, size
	if len(fields) == 3 {
		if size, err = strconv.ParseInt(fields[2], 10, 64); err == nil {
			return fields[0], fields[1], size, nil
		}
	}
	return "", "", 0, fmt.Errorf("git cat-file answered %q", line)
}

// copy writes an object's content to w.
func (b *gitBatch) copy(w io.Writer, name string) error {
	_, _, size, err := b.find(name)
	if err != nil {
		return err
	}
	n, err := io.CopyN(w, b.out, size)
	if err != nil && n < size {
		_, _ = io.CopyN(io.Discard, b.out, size-n) // so that the next answer is the next object's
	}
	if _, derr := b.out.Discard(1); err == nil && derr != nil { // the newline after the content
		err = b.died(derr)
	}
	return err
}

// read returns the content of an object of at most limit bytes.
func (b *gitBatch) read(name string, limit int64) ([]byte, error) {
	var buf bytes.Buffer
	err := b.copy(&bounded{w: &buf, left: limit}, name)
	return buf.Bytes(), err
}

// bounded fails when more is written than it has room for.
type bounded struct {
	w    io.Writer
	left int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errors.New("the object is larger than anything that belongs here")
	}
	return b.w.Write(p)
}

// died tells why git gave no answer.
func (b *gitBatch) died(cause error) error {
	b.in.Close()
	if err := b.cmd.Wait(); err != nil && len(b.stderr.b) > 0 {
		return errors.New(firstLine(b.stderr.text()))
	}
	return fmt.Errorf("git cat-file: %w", cause)
}

// close ends the process.
func (b *gitBatch) close() {
	b.in.Close()
	_ = b.cmd.Wait() // it may have died before, and said so
}

// prefetch brings what a partial clone lacks of blobs below trees, in one request.
// It does nothing in a clone that has everything. What cannot be fetched is
// missed when it is read.
func (c *checkout) prefetch(ctx context.Context, trees, blobs []string) error {
	remote, err := c.promisor(ctx)
	if err != nil || remote == "" || len(trees) == 0 {
		return err
	}
	var out bytes.Buffer
	list := exec.CommandContext(ctx, "git", "-C", c.root, "rev-list", "--objects", "--no-object-names", "--missing=print", "--stdin")
	list.Stdin, list.Stdout = strings.NewReader(strings.Join(trees, "\n")+"\n"), &out
	if err := list.Run(); err != nil {
		return fmt.Errorf("list what this partial clone lacks: %w", err)
	}
	lacks := make(map[string]bool)
	for line := range strings.SplitSeq(out.String(), "\n") {
		if oid, ok := strings.CutPrefix(line, "?"); ok {
			lacks[oid] = true
		}
	}
	var ask bytes.Buffer
	for _, oid := range blobs {
		if lacks[oid] {
			fmt.Fprintln(&ask, oid)
			delete(lacks, oid)
		}
	}
	if ask.Len() == 0 {
		return nil
	}
	// As git itself fetches what it lacks, but once for all.
	fetch := exec.CommandContext(ctx, "git", "-C", c.root, "-c", "fetch.negotiationAlgorithm=noop", "fetch", remote,
		"--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none", "--quiet", "--stdin")
	fetch.Stdin = &ask
	_ = fetch.Run()
	return ctx.Err()
}

// promisor returns the remote that a partial clone fetches from, "" if this is none.
func (c *checkout) promisor(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "git", "-C", c.root, "config", "--get-regexp", `^remote\..*\.promisor$`)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return "", nil // there is none
	}
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	key, _, _ := strings.Cut(line, " ")
	return strings.TrimSuffix(strings.TrimPrefix(key, "remote."), ".promisor"), nil
}
