package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// gitSettings are local to the lake. Parquet is compressed already: deflating
// and searching for deltas made a push of 1 GiB eight times slower.
var gitSettings = [][2]string{
	{"core.compression", "0"},
	{"pack.window", "0"},
	{"core.bigFileThreshold", "1m"},
	{"alias.propose", "push origin HEAD:refs/for/main"},
}

// driverSettings name the programs that show tables to git. Of parts git diff shows
// nothing: their rows are shown for the table.json that names them. A program that is
// not there any more must not break git diff, so a shell looks for it first.
func driverSettings(self string) [][2]string {
	run := func(command, otherwise string) string {
		return fmt.Sprintf("h=$(command -v headgate) || h=%s; [ -x \"$h\" ] || { %s; exit 0; }; \"$h\" %s", shellQuote(self), otherwise, command)
	}
	return [][2]string{
		{"diff.headgate.command", run("git-diff", `echo "$1 differs: headgate, which shows the rows, is not on PATH"`)},
		{"diff.headgate.textconv", run("git-text", `cat "$1"`)},
		{"diff.headgate-part.command", "true"},
		{"diff.headgate-part.binary", "true"},
	}
}

// gitAttributes are written to the repository's info/attributes, which is as local
// as the settings that they name, and counts more than any .gitattributes.
var gitAttributes = []string{
	"/tables/**/table.json diff=headgate",
	"/tables/**/*.parquet diff=headgate-part",
	mergeAttribute,
}

// setUp sets up git in a clone.
func (c *initCmd) setUp(ctx context.Context, std streams) error {
	dir := c.Dir
	if dir == "" {
		dir = "."
	}
	lake, err := findCheckout(dir)
	if err != nil {
		return err
	}
	note, err := lake.setUpGit(ctx)
	if err != nil {
		return err
	}
	if note != "" {
		fmt.Fprintln(std.err, "headgate:", note)
	}
	if c.JSON {
		return printJSON(std.out, map[string]any{"dir": lake.root, "files": []string{}})
	}
	_, err = fmt.Fprintf(std.out, "Git is set up in %s: git diff, git show and git log -p show rows of tables, and git merge merges them by rows.\n", lake.root)
	return err
}

// setUpGit writes settings and attributes of the repository; doing so again changes nothing.
// A note says what is left to its user.
func (c *checkout) setUpGit(ctx context.Context) (note string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	for _, s := range slices.Concat(gitSettings, driverSettings(self), mergeSettings(self)) {
		if err := c.git(ctx, nil, "config", "--local", s[0], s[1]); err != nil {
			return "", err
		}
	}
	path, err := c.gitPath(ctx, "info/attributes")
	if err != nil {
		return "", err
	}
	if err := addLines(path, gitAttributes); err != nil {
		return "", err
	}
	return c.setUpHook(ctx, self)
}

// addLines appends the lines that a file does not have yet.
func addLines(path string, lines []string) error {
	have, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := string(have)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	for _, line := range lines {
		if !slices.Contains(strings.Split(text, "\n"), line) {
			text += line + "\n"
		}
	}
	if text == string(have) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// shellQuote makes a text one word of sh.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
