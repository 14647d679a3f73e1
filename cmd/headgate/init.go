package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

//go:embed skeleton
var skeleton embed.FS

type initCmd struct {
	Dir  string `arg:"" optional:"" help:"The directory to make the lake in; it is created if it is not there. With --git: a clone, by default this one." type:"path"`
	Git  bool   `help:"Write no file: only set up git in a clone of a lake."`
	JSON bool   `help:"Print one JSON object." name:"json"`
}

// Help is shown below the command's flags.
func (initCmd) Help() string {
	return `Examples:
  headgate init my-lake
  cd my-lake && git add -A && git commit -m "A lake"
  git clone ssh://HOST:2222/flights && headgate init --git flights

Writes headgate.yaml, .gitattributes, one model, one verifier and a README, makes
a git repository with the branch main if there is none, and sets, in that repository
alone, what makes pushes of Parquet fast and git diff, git show and git log -p show
rows of tables, and git merge, rebase, cherry-pick and stash merge them by rows: drivers
and a pre-commit hook. A file that is there is never overwritten.`
}

// Run makes the skeleton, all of it or nothing.
func (c *initCmd) Run(ctx context.Context, std streams) (err error) {
	if c.Git {
		return c.setUp(ctx, std)
	}
	if c.Dir == "" {
		return usagef("name the directory to make the lake in; for a clone of one: headgate init --git")
	}
	files, err := skeletonFiles()
	if err != nil {
		return err
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(c.Dir, f.path)); err == nil {
			return fmt.Errorf("%s is there already; nothing was written; to set up git in a clone of a lake: headgate init --git %s", filepath.Join(c.Dir, f.path), c.Dir)
		}
	}
	var undo undo
	defer func() {
		if err != nil {
			undo.run()
		}
	}()
	if err := undo.mkdir(c.Dir); err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(c.Dir, f.path)
		if err := undo.mkdir(filepath.Dir(path)); err != nil {
			return err
		}
		if err := undo.write(path, f.content); err != nil {
			return err
		}
	}
	lake := &checkout{root: c.Dir}
	if _, err := os.Lstat(filepath.Join(c.Dir, ".git")); errors.Is(err, fs.ErrNotExist) {
		undo.paths = append(undo.paths, filepath.Join(c.Dir, ".git"))
		if err := lake.git(ctx, nil, "init", "--quiet", "--initial-branch=main"); err != nil {
			return err
		}
	}
	note, err := lake.setUpGit(ctx)
	if err != nil {
		return err
	}
	if note != "" {
		fmt.Fprintln(std.err, "headgate:", note)
	}
	return c.report(std, files)
}

func (c *initCmd) report(std streams, files []skeletonFile) error {
	if c.JSON {
		paths := make([]string, len(files))
		for i, f := range files {
			paths[i] = f.path
		}
		return printJSON(std.out, map[string]any{"dir": c.Dir, "files": paths})
	}
	_, err := fmt.Fprintf(std.out, "A lake in %s. Next:\n  cd %s\n  git add -A && git commit -m \"A lake\"\n  git remote add origin ssh://HOST:2222/my-lake\n  git push origin HEAD:main\n", c.Dir, c.Dir)
	return err
}

type skeletonFile struct {
	path    string
	content []byte
}

func skeletonFiles() ([]skeletonFile, error) {
	var out []skeletonFile
	err := fs.WalkDir(skeleton, "skeleton", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := skeleton.ReadFile(path)
		name := strings.TrimPrefix(path, "skeleton/")
		if name == "gitattributes" {
			name = "." + name // under its own name it would govern this repository
		}
		out = append(out, skeletonFile{filepath.FromSlash(name), content})
		return err
	})
	return out, err
}

// undo remembers what was made, to remove it again.
type undo struct{ paths []string }

// mkdir makes a directory and those above it.
func (u *undo) mkdir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := u.mkdir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	u.paths = append(u.paths, dir)
	return nil
}

func (u *undo) write(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	u.paths = append(u.paths, path)
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// run removes everything that was made, newest first.
func (u *undo) run() {
	for i := len(u.paths) - 1; i >= 0; i-- {
		_ = os.RemoveAll(u.paths[i])
	}
}
