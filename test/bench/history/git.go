package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// gitCopy makes a bare repository of the same pack, with all that helps git: a
// bitmap and a commit-graph. Deltas are not searched for.
func (l *lake) gitCopy(ctx context.Context, repo string) error {
	git := func(stdin string, args ...string) error {
		cmd := exec.CommandContext(ctx, "git", append([]string{"--git-dir=" + repo}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w\n%s", args, err, out)
		}
		return nil
	}
	if err := git("", "init", "-q", "--bare", "--initial-branch=main"); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(l.dir, "pack", "*"))
	if err != nil {
		return err
	}
	for _, path := range files {
		if err := os.Link(path, filepath.Join(repo, "objects", "pack", "pack-"+filepath.Base(path))); err != nil {
			return err
		}
	}
	var refs strings.Builder
	fmt.Fprintf(&refs, "create refs/heads/main %s\ncreate refs/heads/other %s\n", l.tip(), l.unrelated)
	for i, oid := range l.tags {
		fmt.Fprintf(&refs, "create refs/tags/v%d %s\n", i, oid)
	}
	for _, step := range []struct {
		stdin string
		args  []string
	}{
		{refs.String(), []string{"update-ref", "--stdin"}},
		{"", []string{"pack-refs", "--all"}},
		{"", []string{"-c", "pack.window=0", "repack", "-adbq"}},
		{"", []string{"commit-graph", "write", "--reachable"}},
	} {
		if err := git(step.stdin, step.args...); err != nil {
			return err
		}
	}
	return nil
}
