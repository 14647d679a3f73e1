package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"

	"github.com/headgate/headgate/objects/table"
)

// withoutTables leaves out the table.json of tables, which are told of as tables.
func withoutTables(paths []string) []string {
	var out []string
	for _, p := range paths {
		if _, ok := table.NameOf(p); p == "" || ok && path.Base(p) == table.FileName {
			continue
		}
		out = append(out, p)
	}
	return out
}

// merge is git merge, and what git leaves to be done for tables.
func (c *mergeCmd) merge(ctx context.Context, std streams, lake *checkout) error {
	if err := lake.checkDriver(ctx); err != nil {
		return err
	}
	if _, err := lake.commitOf(ctx, c.Rev); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "git", "-C", lake.root, "-c", "merge.renames=false", "merge", "--no-edit", "--", c.Rev)
	// Tables are merged once, below; the driver would merge each of them before.
	cmd.Env = append(os.Environ(), mergeDriverOff+"=1")
	var said bytes.Buffer // it tells of conflicts that are not there any more below
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	if err == nil {
		commit, err := lake.commitOf(ctx, "HEAD")
		if err != nil {
			return err
		}
		return c.report(std, merging{Tables: []finished{}, Commit: commit})
	}
	if _, err := lake.gitOutput(ctx, "rev-parse", "--verify", "--quiet", "MERGE_HEAD"); err != nil {
		return errors.New(strings.TrimSpace(said.String()))
	}
	done, err := lake.finishTables(ctx, c.workerFlag)
	if err != nil {
		return err
	}
	files, err := lake.unmergedFiles(ctx)
	if err != nil {
		return err
	}
	m := merging{Tables: done, Files: files}
	if left(done) || len(files) > 0 {
		if err := c.report(std, m); err != nil {
			return err
		}
		return errConflicts
	}
	if _, err := lake.tidy(ctx); err != nil {
		return err
	}
	if err := lake.git(ctx, nil, "commit", "--quiet", "--no-edit"); err != nil {
		return err
	}
	if m.Commit, err = lake.commitOf(ctx, "HEAD"); err != nil {
		return err
	}
	return c.report(std, m)
}

// dryRun tells what a merge would give. Nothing is written but objects that nothing
// names, which git removes in time.
func (c *mergeCmd) dryRun(ctx context.Context, std streams, lake *checkout) error {
	if err := lake.checkDriver(ctx); err != nil {
		return err
	}
	theirs, err := lake.commitOf(ctx, c.Rev)
	if err != nil {
		return err
	}
	base, err := lake.gitOutput(ctx, "merge-base", "HEAD", theirs)
	if err != nil {
		return fmt.Errorf("HEAD and %s have no history in common", c.Rev)
	}
	cmd := exec.CommandContext(ctx, "git", "-C", lake.root, "-c", "merge.renames=false", "merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", "HEAD", theirs)
	cmd.Env = append(os.Environ(), mergeDriverOff+"=1")
	var stderr tail
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		return fmt.Errorf("git merge-tree (of git 2.38 or later): %s", firstLine(stderr.text()))
	}
	_, conflicted, _ := strings.Cut(string(out), "\x00") // after the tree
	paths := strings.Split(conflicted, "\x00")
	m := merging{Tables: []finished{}, Files: withoutTables(paths)}
	for _, file := range paths {
		name, ok := table.NameOf(file)
		if !ok || path.Base(file) != table.FileName {
			continue
		}
		u := &unmergedTable{name: name, dir: path.Dir(file)}
		for i, rev := range []string{strings.TrimSpace(base), "HEAD", theirs} {
			if oid, err := lake.gitOutput(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+":"+file); err == nil {
				u.oids[i] = strings.TrimSpace(oid)
			}
		}
		f := finished{Table: name}
		if err := c.tryTable(ctx, lake, u, &f); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f.Problem = err.Error()
		}
		m.Tables = append(m.Tables, f)
	}
	if err := c.report(std, m); err != nil {
		return err
	}
	if left(m.Tables) || len(m.Files) > 0 {
		return errors.New("there would be conflicts; nothing was changed")
	}
	if !c.JSON {
		_, err = fmt.Fprintf(std.out, "%s can be merged; nothing was changed.\n", c.Rev)
	}
	return err
}

func (c *mergeCmd) tryTable(ctx context.Context, lake *checkout, u *unmergedTable, f *finished) error {
	m, err := lake.mergeOfUnmerged(ctx, u)
	if err != nil {
		return err
	}
	m.rules = nil
	stage, err := os.MkdirTemp("", "headgate-merge-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	out, err := m.run(ctx, c.workerFlag, stage)
	if err != nil {
		return err
	}
	f.Conflicts, f.Resolved, f.Columns, f.Sample, f.Derived = out.Conflicts, out.Resolved, out.Columns, out.Sample, m.derived
	if out.Conflicts == 0 {
		f.Rows = out.snap.Rows()
	}
	return nil
}
