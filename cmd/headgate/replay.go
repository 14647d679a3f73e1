package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/backend"
	"github.com/headgate/headgate/objects/table"
)

type replayCmd struct {
	Commit  string   `arg:"" optional:"" help:"The gate commit: main, HEAD~1, an oid." default:"HEAD"`
	Table   []string `help:"Replay this table only; may be given several times." placeholder:"NAME" sep:"none"`
	Verify  bool     `help:"Evaluate the verifiers again, too."`
	JSON    bool     `help:"Print one JSON object." name:"json"`
	GateKey string   `help:"Check the commit's signature against this allowed-signers file (ssh host gate-key prints one)." name:"gate-key" type:"existingfile" placeholder:"FILE"`
	Keep    string   `help:"Write the tables as they were replayed to DIR/tables. DIR must not exist." type:"path" placeholder:"DIR"`
	Python  []string `help:"An interpreter for Python models, with the packages that it has; may be given several times. By default those on PATH." type:"path" sep:"none" placeholder:"PATH"`
	Lake    string   `help:"A clone of the lake." default:"." type:"existingdir" placeholder:"DIR"`
	uvFlag
	workerFlag
}

// Help is shown below the command's flags.
func (replayCmd) Help() string {
	return `Examples:
  headgate replay
  headgate replay origin/main~3 --table airport_delay --verify
  ssh -p 2222 host gate-key > allowed && headgate replay --gate-key allowed
  headgate replay --json | jq '.models[] | select(.status != "equal")'
  headgate replay --keep /tmp/replayed && headgate query --lake /tmp/replayed 'FROM airport_delay'

Takes plan, inputs, parameters and environment from the commit, its message and
its parents, runs each model in a gVisor sandbox of its own on the tables that the
commit holds, and compares the snapshot with the one in the message and in the
tree. Nothing in the repository is changed; a partial clone fetches the parts that
it lacks. Scratch space is taken in TMPDIR, about the size of the inputs.

A model that gives something else runs once more: if that differs again, it is not
deterministic. Differences of a model that the commit itself marks
deterministic=false are shown, and are no failure.

Exit codes: 0 all is as the commit says; 1 an output differs, failed, or could not
be replayed; 2 wrong usage, or not a gate commit.`
}

// Run replays the commit.
func (c *replayCmd) Run(ctx context.Context, std streams) (err error) {
	lake := &checkout{root: c.Lake}
	commit, err := c.resolve(ctx, lake)
	if err != nil {
		return err
	}
	replayer := &hooks.Replayer{Ceiling: defaultCeiling(), Tables: c.Table, Verifiers: c.Verify}
	if c.GateKey != "" {
		text, err := os.ReadFile(c.GateKey)
		if err != nil {
			return err
		}
		signers, err := hooks.ParseAllowedSigners(text)
		if err != nil {
			return err
		}
		replayer.Signature = signers.Verify
	}
	if !c.JSON {
		replayer.Progress = func(line string) { fmt.Fprintln(std.out, line) }
	}
	if c.Keep != "" {
		if _, err := os.Lstat(c.Keep); err == nil {
			return usagef("%s exists already; --keep makes a new directory", c.Keep)
		}
	}
	scratch, err := newScratch(ctx, lake, commit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.close()) }()
	if err := hooks.CheckReplayable(ctx, scratch.store, commit); err != nil {
		return c.explain(ctx, lake, err)
	}
	report, err := c.replay(ctx, std, scratch, replayer, commit)
	if err != nil {
		return c.explain(ctx, lake, err)
	}
	if c.Keep != "" {
		if err := keep(ctx, scratch.store, report, c.Keep); err != nil {
			return err
		}
	}
	if c.JSON {
		err = printJSON(std.out, report)
	} else {
		_, err = io.WriteString(std.out, report.Conclusion())
	}
	if err != nil {
		return err
	}
	return report.Verdict()
}

func (c *replayCmd) resolve(ctx context.Context, lake *checkout) (objects.OID, error) {
	text, err := lake.gitOutput(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", c.Commit+"^{commit}")
	if err != nil {
		if _, rerr := lake.gitOutput(ctx, "rev-parse", "--git-dir"); rerr != nil {
			return objects.OID{}, usagef("replay needs a clone of the lake, and git says of %s: %s", c.Lake, firstLine(rerr.Error()))
		}
		return objects.OID{}, usagef("%q is no commit of this repository", c.Commit)
	}
	return objects.ParseOID(strings.TrimSpace(text))
}

// explain says what to do about a commit or a table that cannot be replayed.
func (c *replayCmd) explain(ctx context.Context, lake *checkout, err error) error {
	var bad *hooks.NotReplayableError
	var noTable *hooks.NoSuchTableError
	switch {
	case errors.As(err, &noTable):
		return usagef("%v", err)
	case !errors.As(err, &bad):
		return err
	}
	// The newest gate commit from here, if there is one.
	text, gerr := lake.gitOutput(ctx, "log", "-1", "--first-parent", "--format=%h %s", "--grep=^Run-Id: ", "--end-of-options", bad.Commit.String(), "--")
	if near := strings.TrimSpace(text); gerr == nil && near != "" && !strings.HasPrefix(bad.Commit.String(), strings.Fields(near)[0]) {
		return usagef("%v. The last gate commit before it is %s", err, visible(near))
	}
	return usagef("%v. Gate commits are on the line of a gated branch: git log --first-parent --grep '^Run-Id: ' origin/main", err)
}

// scratch is where a replay works: objects, sandboxes, what passes between them.
type scratch struct {
	dir   string
	base  *objects.Store
	store *gitObjects
}

func newScratch(ctx context.Context, lake *checkout, commit objects.OID) (_ *scratch, err error) {
	dir, err := os.MkdirTemp("", "headgate-replay-")
	if err != nil {
		return nil, err
	}
	s := &scratch{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for _, sub := range []string{"tmp", "sandbox"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	b, err := backend.NewLocal(filepath.Join(dir, "objects"))
	if err != nil {
		return nil, err
	}
	if s.base, err = objects.OpenStore(b, filepath.Join(dir, "quarantine"), objects.Options{}); err != nil {
		return nil, err
	}
	q, err := s.base.Quarantine()
	if err != nil {
		return nil, err
	}
	s.store = &gitObjects{Quarantine: q, lake: lake, commit: commit.String(), ctx: ctx}
	return s, nil
}

func (s *scratch) close() error {
	var errs []error
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.base != nil {
		errs = append(errs, s.base.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// replay starts sandboxes of its own for one replay.
func (c *replayCmd) replay(ctx context.Context, std streams, s *scratch, replayer *hooks.Replayer, commit objects.OID) (report *hooks.ReplayReport, err error) {
	worker, err := c.path()
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	// Packages are kept between replays: they are large, and named by content.
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = s.dir
	}
	boxes, env, err := startSandboxes(ctx, serveConfig{
		Data: s.dir, Worker: worker, Pythons: c.Python, UV: c.UV, Packages: filepath.Join(cache, "headgate", "python"),
	}, log)
	if err != nil {
		return nil, fmt.Errorf("a replay runs models in gVisor sandboxes and nowhere else, and could not start them: %w", err)
	}
	defer func() { err = errors.Join(err, boxes.Close()) }()
	budget, err := functionBudget(0, "", os.DirFS("/"))
	if err != nil {
		return nil, err
	}
	if cache != s.dir {
		defer collectPackages(ctx, env.Packages, defaultKeep, log)()
	}
	replayer.Runtime = exec.New(boxes, env, budget, log)
	replayer.Store, replayer.TempDir = s.store, filepath.Join(s.dir, "tmp")
	return replayer.Replay(ctx, commit)
}

// keep writes the tables of a replay where headgate query reads them.
func keep(ctx context.Context, store exec.Store, report *hooks.ReplayReport, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, m := range report.Models {
		if m.Replayed == "" {
			continue
		}
		oid, err := objects.ParseOID(m.Replayed)
		if err != nil {
			return err
		}
		t, err := exec.LoadTable(ctx, store, oid)
		if err != nil {
			return err
		}
		sub, err := table.Dir(m.Name)
		if err != nil {
			return err
		}
		at := filepath.Join(dir, filepath.FromSlash(sub))
		if err := os.MkdirAll(at, 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(at, table.FileName), t.Meta.Encode(), 0o666); err != nil {
			return err
		}
		linked := make(map[string]bool)
		for i, part := range t.Parts {
			if name := t.Meta.Parts[i].File; !linked[name] {
				linked[name] = true
				if err := store.Link(ctx, part, filepath.Join(at, name)); err != nil {
					return err
				}
			}
		}
	}
	// What headgate query knows a lake by.
	return os.WriteFile(filepath.Join(dir, hooks.PolicyFile), []byte("# The tables of a replay of "+report.Commit+".\n"), 0o666)
}
