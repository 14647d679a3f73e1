package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/audit"
	"github.com/headgate/headgate/hooks/proof"
	"github.com/headgate/headgate/objects"
)

type auditCmd struct {
	Branch  string   `arg:"" optional:"" help:"The branch." default:"main"`
	GateKey string   `help:"The gate's keys, now and before: an allowed-signers file, as ssh host gate-key prints its lines. By default the file that gpg.ssh.allowedSignersFile names." name:"gate-key" type:"existingfile" placeholder:"FILE"`
	Since   string   `help:"Look at commits from this time on only: 2026-11-24, or RFC 3339." placeholder:"TIME"`
	Replay  int      `help:"Replay the models of N commits, chosen at random, and evaluate their verifiers again." placeholder:"N"`
	Seed    uint64   `help:"Choose the commits that an earlier --replay chose; it printed the seed."`
	Log     bool     `help:"Show the lake's audit log instead, the newest first: administrators fetch it with git fetch origin refs/audit/log:refs/audit/log."`
	JSON    bool     `help:"Print one JSON object; with --log, one for each event." name:"json"`
	Python  []string `help:"An interpreter for replays; see headgate replay." type:"path" sep:"none" placeholder:"PATH"`
	Lake    string   `help:"A clone of the lake." default:"." type:"existingdir" placeholder:"DIR"`
	uvFlag
	workerFlag
}

// Help is shown below the command's flags.
func (auditCmd) Help() string {
	return `Examples:
  ssh -p 2222 host gate-key > allowed
  git fetch origin '+refs/notes/*:refs/notes/*'
  headgate audit --gate-key allowed
  headgate audit release/1 --gate-key allowed --since 2026-01-01
  headgate audit --gate-key allowed --replay 20
  headgate audit --gate-key allowed --json | jq '.findings[] | [.commit, .text]'
  headgate audit --gate-key allowed --log | head

Checks every commit on the branch's first-parent line, in any clone, bare and
partial ones too: that the gate signed it and its proof (the note in
refs/notes/headgate), that message, proof, parents and tree say the same, that each
derived table is what its model gave on the tables of the same commit, that the
verifiers in the tree and those of its base judged it, and that no commit that was
published is missing. Run records are checked if the clone has them
(git fetch origin 'refs/runs/<id>:refs/runs/<id>').

The branch is the clone's own, or else origin's. Keys that a server had before
belong into the same file, with valid-before="20261124Z" (ssh-keygen(1)).

Exit codes: 0 all is as the gate published it, 1 could not look, 2 wrong usage,
3 something is not.`
}

// Run audits the branch.
func (c *auditCmd) Run(ctx context.Context, std streams) error {
	if c.Log {
		return c.log(ctx, std)
	}
	a, err := c.auditor(ctx, std)
	if err != nil {
		return err
	}
	rep, err := a.Audit(ctx)
	if !c.JSON && isTerminal(std.err) {
		fmt.Fprint(std.err, "\r\033[K")
	}
	if err != nil {
		return err
	}
	if err := c.replays(ctx, std, rep); err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(std.out, rep)
	} else {
		_, err = io.WriteString(std.out, rep.Text())
	}
	if err != nil {
		return err
	}
	if n := len(rep.Findings); n > 0 {
		return &auditError{n}
	}
	return nil
}

// log shows the audit log that the clone has, and holds its commits' signatures and
// chain against the gate's keys.
func (c *auditCmd) log(ctx context.Context, std streams) error {
	lake := &checkout{root: c.Lake}
	signers, err := c.signers(ctx, lake)
	if err != nil {
		return err
	}
	since, err := parseSince(c.Since)
	if err != nil {
		return err
	}
	tip, err := lake.anyRef(ctx, string(hooks.AuditLog))
	if err != nil {
		return err
	}
	if tip.IsZero() {
		return usagef("this clone has no audit log; administrators fetch it: git fetch origin %[1]s:%[1]s", hooks.AuditLog)
	}
	b, err := lake.contents(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	out := bufio.NewWriter(std.out)
	err = hooks.WalkAuditLog(ctx, &batchReader{b}, tip, signers.Verify, func(e hooks.AuditEvent) error {
		if e.Time.Before(since) {
			return errOlder
		}
		line := e.Text()
		if c.JSON {
			doc, err := json.Marshal(e)
			if err != nil {
				return err
			}
			line = string(doc)
		}
		_, err := fmt.Fprintln(out, line)
		return err
	})
	if errors.Is(err, errOlder) {
		err = nil
	}
	return errors.Join(err, out.Flush())
}

// errOlder ends a walk of the log at events that nobody asked for.
var errOlder = errors.New("older")

// auditError is the result of an audit that found something, which is printed.
type auditError struct{ n int }

func (e *auditError) Error() string {
	return fmt.Sprintf("%d findings; ask who runs the server, and compare with another clone", e.n)
}

func (c *auditCmd) auditor(ctx context.Context, std streams) (*audit.Auditor, error) {
	lake := &checkout{root: c.Lake}
	if _, err := lake.gitOutput(ctx, "rev-parse", "--git-dir"); err != nil {
		return nil, usagef("audit needs a clone of the lake, and git says of %s: %s", c.Lake, firstLine(err.Error()))
	}
	branch := strings.TrimPrefix(strings.TrimPrefix(c.Branch, "refs/heads/"), "origin/")
	a := &audit.Auditor{Branch: branch, Runs: make(map[string]objects.OID)}
	var err error
	if a.Signers, err = c.signers(ctx, lake); err != nil {
		return nil, err
	}
	if a.Since, err = parseSince(c.Since); err != nil {
		return nil, err
	}
	refs := []string{"refs/remotes/origin/" + branch, "refs/heads/" + branch}
	if c.Branch == branch {
		refs[0], refs[1] = refs[1], refs[0]
	}
	if a.Tip, err = lake.anyRef(ctx, refs...); err != nil {
		return nil, err
	}
	if a.Tip.IsZero() {
		return nil, usagef("there is no branch %q in this clone", c.Branch)
	}
	if a.Notes, err = lake.anyRef(ctx, proof.Notes, "refs/remotes/origin/notes/headgate"); err != nil {
		return nil, err
	}
	if a.Notes.IsZero() {
		return nil, usagef("this clone has no proofs; fetch them: git fetch origin '+refs/notes/*:refs/notes/*'")
	}
	records, err := lake.gitOutput(ctx, "for-each-ref", "--format=%(objectname) %(refname)", "refs/runs/")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(records) {
		hex, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if oid, err := objects.ParseOID(hex); err == nil {
			a.Runs[strings.TrimPrefix(name, "refs/runs/")] = oid
		}
	}
	if err := lake.fetchNotes(ctx, a.Notes); err != nil {
		return nil, err
	}
	a.Open = func() (objects.Reader, func(), error) {
		b, err := lake.contents(ctx)
		if err != nil {
			return nil, nil, err
		}
		return &batchReader{b}, b.close, nil
	}
	if !c.JSON && isTerminal(std.err) {
		a.Progress = func(done, total int) {
			if done%500 == 0 || done == total {
				fmt.Fprintf(std.err, "\r%s of %s commits", thousands(int64(done)), thousands(int64(total)))
			}
		}
	}
	return a, nil
}

func (c *auditCmd) signers(ctx context.Context, lake *checkout) (*hooks.AllowedSigners, error) {
	file := c.GateKey
	if file == "" {
		text, err := lake.gitOutput(ctx, "config", "--type=path", "gpg.ssh.allowedSignersFile")
		if file = strings.TrimSpace(text); err != nil || file == "" {
			return nil, usagef("whose signatures are to be believed? give the gate's key: ssh host gate-key > allowed, and --gate-key allowed")
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	signers, err := hooks.ParseAllowedSigners(text)
	if err == nil {
		err = signers.ForProofs()
	}
	if err != nil {
		return nil, usagef("%s: %v", file, err)
	}
	return signers, nil
}

func parseSince(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("--since %q is no time, want 2026-11-24 or 2026-11-24T15:00:00Z", text)
}

// anyRef returns the commit of the first ref that is there, zero if none is.
func (c *checkout) anyRef(ctx context.Context, names ...string) (objects.OID, error) {
	for _, name := range names {
		text, err := c.gitOutput(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", name+"^{commit}")
		if ctx.Err() != nil {
			return objects.OID{}, ctx.Err()
		}
		if err == nil {
			return objects.ParseOID(strings.TrimSpace(text))
		}
	}
	return objects.OID{}, nil
}

// fetchNotes brings the notes that a partial clone lacks, in one request.
func (c *checkout) fetchNotes(ctx context.Context, notes objects.OID) error {
	if remote, err := c.promisor(ctx); err != nil || remote == "" {
		return err
	}
	list, err := c.gitOutput(ctx, "ls-tree", "-r", "--object-only", notes.String())
	if err != nil {
		return err
	}
	return c.prefetch(ctx, []string{notes.String() + "^{tree}"}, strings.Fields(list))
}

// replays replays a sample of the commits that were audited.
func (c *auditCmd) replays(ctx context.Context, std streams, rep *audit.Report) error {
	if c.Replay <= 0 {
		return nil
	}
	if rep.Seed = c.Seed; rep.Seed == 0 {
		rep.Seed = rand.Uint64N(1e9) + 1
	}
	for _, commit := range rep.Sample(c.Replay, rep.Seed) {
		if !c.JSON {
			fmt.Fprintf(std.err, "replaying %s\n", commit)
		}
		rep.Replayed = append(rep.Replayed, commit.String())
		if err := c.replay(ctx, std, rep, commit); err != nil {
			return fmt.Errorf("replay of %s: %w", commit, err)
		}
	}
	return nil
}

func (c *auditCmd) replay(ctx context.Context, std streams, rep *audit.Report, commit objects.OID) (err error) {
	scratch, err := newScratch(ctx, &checkout{root: c.Lake}, commit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.close()) }()
	cmd := &replayCmd{Python: c.Python, uvFlag: c.uvFlag, workerFlag: c.workerFlag}
	report, err := cmd.replay(ctx, std, scratch, &hooks.Replayer{Ceiling: defaultCeiling(), Verifiers: true}, commit)
	var bad *hooks.NotReplayableError
	if errors.As(err, &bad) {
		rep.Found(commit, bad.Reason)
		return nil
	}
	if err != nil {
		return err
	}
	if report.Verdict() != nil {
		for _, text := range report.Failures() {
			rep.Found(commit, text)
		}
	}
	return nil
}

// batchReader reads the objects of a clone, by a process of git's of its own. Each is
// held against its name: git itself does not when it reads. It is not safe for
// concurrent use.
type batchReader struct{ git *gitBatch }

// Stat implements objects.Reader.
func (b *batchReader) Stat(ctx context.Context, oid objects.OID) (objects.Info, error) {
	info, rc, err := b.Open(ctx, oid)
	if err != nil {
		return info, err
	}
	return info, rc.Close()
}

// Open implements objects.Reader, for objects that fit into memory.
func (b *batchReader) Open(ctx context.Context, oid objects.OID) (objects.Info, io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return objects.Info{}, nil, err
	}
	_, kind, size, err := b.git.find(oid.String())
	if errors.Is(err, errNoObject) {
		return objects.Info{}, nil, fmt.Errorf("%w: %s", objects.ErrNotFound, oid)
	}
	if err != nil {
		return objects.Info{}, nil, err
	}
	t, err := plumbing.ParseObjectType(kind)
	if err != nil {
		return objects.Info{}, nil, err
	}
	if size > proof.MaxNote {
		return objects.Info{}, nil, fmt.Errorf("%s %s has %d bytes, which nothing that an audit reads has", kind, oid, size)
	}
	data := make([]byte, size+1) // and the newline after the content
	if _, err := io.ReadFull(b.git.out, data); err != nil {
		return objects.Info{}, nil, b.git.died(err)
	}
	data = data[:size]
	if got := plumbing.ComputeHash(t, data); got != oid {
		return objects.Info{}, nil, fmt.Errorf("object %s of this clone is damaged: its content hashes to %s", oid, got)
	}
	return objects.Info{Type: t, Size: size}, io.NopCloser(bytes.NewReader(data)), nil
}
