package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// gitCopy makes a bare repository of the packs as they came, with all that helps
// git: deltas, a bitmap and a commit-graph.
func (l *lake) gitCopy(ctx context.Context, repo string, files []string) (ms float64, err error) {
	git := func(stdin string, args ...string) error {
		cmd := exec.CommandContext(ctx, "git", append([]string{"--git-dir=" + repo}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w\n%s", args, err, out)
		}
		if args[len(args)-1] == "-adbq" {
			ms = used(cmd)
		}
		return nil
	}
	if err := git("", "init", "-q", "--bare", "--initial-branch=main"); err != nil {
		return 0, err
	}
	for _, path := range files {
		if err := os.Rename(path, filepath.Join(repo, "objects", "pack", "pack-"+filepath.Base(path))); err != nil {
			return 0, err
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
		{"", []string{"-c", "pack.threads=1", "repack", "-adbq"}},
		{"", []string{"commit-graph", "write", "--reachable"}},
	} {
		if err := git(step.stdin, step.args...); err != nil {
			return 0, err
		}
	}
	return ms, nil
}

// linkPacks keeps the packs of the lake, as they are, in another directory.
func (l *lake) linkPacks(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(l.dir, "pack", "*"))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for i, path := range files {
		files[i] = filepath.Join(dir, filepath.Base(path))
		if err := os.Link(path, files[i]); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// packBytes returns the length of the packs in a directory.
func packBytes(dir string) (n int64, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pack"))
	if err != nil {
		return 0, err
	}
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		n += info.Size()
	}
	return n, nil
}
