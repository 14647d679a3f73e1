package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/headgate/headgate/objects/table"
)

// merges measures three-way merges of the large table, as git calls for them: ours has
// 1,000 rows changed in the middle chunk, and theirs as many elsewhere, beside them, or the same.
func (b *bench) merges(ctx context.Context) error {
	_, n, err := b.versions(ctx, 1)
	if err != nil {
		return err
	}
	chunks := max(b.diffRows/n, 2)
	lake, _, err := b.versions(ctx, chunks)
	if err != nil {
		return err
	}
	read := func(rev string) (*table.Snapshot, error) {
		text, err := output(ctx, lake, "git", "show", rev+":tables/flights/"+table.FileName)
		if err != nil {
			return nil, err
		}
		return table.Parse(text)
	}
	base, err := read("HEAD~1")
	if err != nil {
		return err
	}
	ours, err := read("HEAD")
	if err != nil {
		return err
	}
	var memory int64
	for _, m := range []struct {
		name  string
		chunk int // that theirs changes
		edit
		says string // what git is told; "" is that it is merged
	}{
		{"merge, 1,000 rows on each side in different parts, s", chunks / 4, edit{by: 2}, ""},
		{"merge, 1,000 rows on each side, side by side, s", chunks / 2, edit{by: 2, behind: editedRows}, "merged by rows, without conflicts"},
		{"merge, the same 1,000 rows: as many conflicts, s", chunks / 2, edit{by: 2}, "1,000 conflicts"},
	} {
		theirs, err := b.theirs(ctx, lake, base, m.chunk, n, m.edit)
		if err != nil {
			return err
		}
		var costs []cost
		for range b.rounds {
			c, err := b.merge(ctx, lake, m.says, base, ours, theirs)
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			costs = append(costs, c)
			memory = max(memory, c.memory)
		}
		c := median(costs)
		b.add(figure{Name: m.name, Value: c.wall.Seconds(), Target: 2,
			Detail: fmt.Sprintf("%d million rows, %.2f s of processors, %s in the largest process", n*chunks/1_000_000, c.cpu.Seconds(), size(c.memory))})
	}
	b.add(figure{Name: "memory of the large merges, GiB", Value: float64(memory) / (1 << 30), Target: 1, Detail: "of the largest process"})
	return nil
}

// theirs is the base with a chunk edited, whose parts are added to the lake's objects.
func (b *bench) theirs(ctx context.Context, lake string, base *table.Snapshot, chunk, rows int, e edit) (*table.Snapshot, error) {
	dir, err := os.MkdirTemp(b.dir, "theirs-")
	if err != nil {
		return nil, err
	}
	made, _, err := b.chunk(ctx, chunk*rows, e, dir)
	if err != nil {
		return nil, err
	}
	add := exec.CommandContext(ctx, "git", "-C", lake, "hash-object", "-w", "--stdin-paths")
	var paths strings.Builder
	for _, p := range made.Parts {
		fmt.Fprintln(&paths, filepath.Join(dir, p.File))
	}
	add.Stdin = strings.NewReader(paths.String())
	if err := add.Run(); err != nil {
		return nil, err
	}
	// The chunk's parts are those between the rows before it and behind it.
	next := *base
	next.Parts = nil
	at, put := int64(0), false
	for _, p := range base.Parts {
		if at >= int64(chunk*rows) && at < int64((chunk+1)*rows) {
			if !put {
				next.Parts = append(next.Parts, made.Parts...)
				put = true
			}
		} else {
			next.Parts = append(next.Parts, p)
		}
		at += p.Rows
	}
	if next.Rows() != base.Rows() || slices.EqualFunc(next.Parts, base.Parts, func(a, b table.Part) bool { return a.File == b.File }) {
		return nil, errors.New("the edited chunk does not take the place of its own")
	}
	return &next, nil
}

// merge runs the merge driver on versions of the table.
func (b *bench) merge(ctx context.Context, lake, says string, versions ...*table.Snapshot) (cost, error) {
	args := []string{"git-merge"}
	for i, v := range versions {
		path := filepath.Join(b.dir, fmt.Sprint("version-", i))
		if err := os.WriteFile(path, v.Encode(), 0o644); err != nil {
			return cost{}, err
		}
		args = append(args, path)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "headgate"), append(args, "tables/flights/"+table.FileName, "--worker", filepath.Join(b.bin, "headgate-worker"))...)
	cmd.Dir = lake
	var stderr strings.Builder
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	c := cost{wall: time.Since(start)}
	if says == "" && err != nil || says != "" && !strings.Contains(stderr.String(), says) {
		return c, fmt.Errorf("headgate git-merge: %v: %s", err, strings.TrimSpace(stderr.String()))
	}
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.memory = usage.Maxrss << 10
	}
	_, err = output(ctx, lake, "git", "clean", "-qfd", "tables") // parts that were merged
	return c, err
}
