package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// mergeSettings name the program that merges tables for git. Renames are not looked for
// in merges: two sides that edit one part each replace it by another, and git would
// take both for renames of it, which is a conflict that nobody made. A merge base that git
// itself makes of several is left to no program: it is nobody's table.
func mergeSettings(self string) [][2]string {
	return [][2]string{
		{"merge.headgate.name", "tables by rows and cells"},
		{"merge.headgate.driver", fmt.Sprintf("h=$(command -v headgate) || h=%s; \"$h\" git-merge %%O %%A %%B %%P", shellQuote(self))},
		{"merge.headgate.recursive", "binary"},
		{"merge.renames", "false"},
	}
}

// mergeAttribute is written beside the attributes of git diff.
const mergeAttribute = "/tables/**/table.json merge=headgate"

// hookLine is what the pre-commit hook does: git lets a merge driver add no file, so the
// parts of tables that were merged are added when their merge is committed.
const hookLine = `exec "$h" merge --tidy`

func preCommit(self string) string {
	return "#!/bin/sh\n# Written by headgate init: tables that were merged are committed with all their parts.\n" +
		"h=$(command -v headgate) || h=" + shellQuote(self) + "\n[ -x \"$h\" ] || exit 0\n" + hookLine + "\n"
}

// setUpHook writes the pre-commit hook, unless there is one: then it returns a sentence
// that says what to add to it.
func (c *checkout) setUpHook(ctx context.Context, self string) (string, error) {
	at, err := c.gitPath(ctx, "hooks/pre-commit")
	if err != nil {
		return "", err
	}
	have, err := os.ReadFile(at)
	switch {
	case err == nil && strings.Contains(string(have), "merge --tidy"):
		return "", nil
	case err == nil:
		return fmt.Sprintf("there is a pre-commit hook already (%s); add this line to it, so that merged tables are committed with all their parts: headgate merge --tidy || exit 1", at), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return "", err
	}
	return "", os.WriteFile(at, []byte(preCommit(self)), 0o755)
}

// gitPath returns where git keeps a file of this repository.
func (c *checkout) gitPath(ctx context.Context, name string) (string, error) {
	at, err := c.gitOutput(ctx, "rev-parse", "--git-path", name)
	if err != nil {
		return "", err
	}
	at = strings.TrimSuffix(at, "\n")
	if !filepath.IsAbs(at) {
		at = filepath.Join(c.root, at)
	}
	return at, nil
}

// checkDriver refuses a repository in which git would merge a table.json as a text.
func (c *checkout) checkDriver(ctx context.Context) error {
	out, err := c.gitOutput(ctx, "check-attr", "merge", "--", "tables/x/table.json")
	if err == nil && strings.HasSuffix(strings.TrimSpace(out), ": headgate") {
		if out, err := c.gitOutput(ctx, "config", "merge.headgate.driver"); err == nil && out != "" {
			return nil
		}
	}
	return errors.New("git is not set up to merge tables here; run: headgate init --git")
}
