package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/headgate/headgate/objects/table"
)

//go:embed chunk.py
var chunkScript string

// editedRows is how many rows side by side the two versions differ by.
const editedRows = 1000

// edit changes editedRows rows of a chunk, so many rows behind its middle; the zero edit changes none.
type edit struct{ by, behind int }

// cost is what a program took, with all that it started.
type cost struct {
	wall, cpu time.Duration
	memory    int64 // bytes of its largest process
}

// diffs measures a diff of two versions of a table with a key, one as large as the data
// and one of b.diffRows rows, made of copies of it with ids of their own.
func (b *bench) diffs(ctx context.Context) error {
	small, n, err := b.versions(ctx, 1)
	if err != nil {
		return err
	}
	chunks := max(b.diffRows/n, 1)
	large, _, err := b.versions(ctx, chunks)
	if err != nil {
		return err
	}
	var smalls, larges []cost
	for range b.rounds { // in turns: whatever else the machine does slows both
		for _, of := range []struct {
			lake string
			to   *[]cost
		}{{small, &smalls}, {large, &larges}} {
			c, err := b.diff(ctx, of.lake)
			if err != nil {
				return err
			}
			*of.to = append(*of.to, c)
		}
	}
	first, second := median(smalls), median(larges)
	for _, f := range []struct {
		rows int
		cost cost
	}{{n, first}, {n * chunks, second}} {
		b.add(figure{Name: fmt.Sprintf("diff by 1,000 rows of %d million, s", f.rows/1_000_000), Value: f.cost.wall.Seconds(), Target: 1,
			Detail: fmt.Sprintf("%.2f s of processors, %s in the largest process", f.cost.cpu.Seconds(), size(f.cost.memory))})
	}
	b.add(figure{Name: "the large diff against the small one", Value: second.wall.Seconds() / first.wall.Seconds(), Target: 2,
		Detail: fmt.Sprintf("by processor time %.2f", second.cpu.Seconds()/first.cpu.Seconds())})
	b.add(figure{Name: "memory of the large diff, GiB", Value: float64(second.memory) / (1 << 30), Target: 1, Detail: "of its largest process"})
	return nil
}

func median(costs []cost) cost {
	costs = slices.Clone(costs)
	slices.SortFunc(costs, func(a, b cost) int { return int(a.wall - b.wall) })
	return costs[len(costs)/2]
}

// diff runs headgate diff on the last commit of a lake and checks what it says.
func (b *bench) diff(ctx context.Context, lake string) (cost, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "headgate"), "diff", "HEAD~1", "HEAD", "--json", "--lake", lake, "--worker", filepath.Join(b.bin, "headgate-worker"))
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return cost{}, fmt.Errorf("headgate diff: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	c := cost{wall: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.memory = usage.Maxrss << 10 // Linux counts KiB, of children too
	}
	var found struct {
		Tables []struct {
			Changed int
			Rows    []json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &found); err != nil {
		return c, err
	}
	if len(found.Tables) != 1 || found.Tables[0].Changed != editedRows || len(found.Tables[0].Rows) != editedRows {
		return c, fmt.Errorf("headgate diff found another difference: %.300s", out.String())
	}
	return c, nil
}

// versions returns a lake with two versions of a table of n chunks, which is kept in
// the cache, and the rows of a chunk. Chunks are imported one by one, so that memory
// does not follow the table.
func (b *bench) versions(ctx context.Context, chunks int) (lake string, rows int, err error) {
	name := fmt.Sprintf("diff-%d-of-%d", chunks, b.rows)
	if b.data != "" {
		name = fmt.Sprintf("diff-%d-of-%s", chunks, strings.TrimSuffix(filepath.Base(b.data), ".parquet"))
	}
	lake = filepath.Join(b.cache, name)
	ready := filepath.Join(lake, ".git", "ready") // the rows of a chunk, when all is there
	if text, err := os.ReadFile(ready); err == nil {
		rows, err := strconv.Atoi(strings.TrimSpace(string(text)))
		return lake, rows, err
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", 0, err
	}
	if err := os.RemoveAll(lake); err != nil {
		return "", 0, err
	}
	if _, err := output(ctx, b.dir, filepath.Join(b.bin, "headgate"), "init", lake); err != nil {
		return "", 0, err
	}
	dir := filepath.Join(lake, "tables", "flights")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", 0, err
	}
	all := make([]*table.Snapshot, chunks)
	for i := range chunks {
		if all[i], rows, err = b.chunk(ctx, i*rows, edit{}, dir); err != nil {
			return "", 0, err
		}
		fmt.Fprintf(os.Stderr, "bench: chunk %d of %d\n", i+1, chunks)
	}
	for _, message := range []string{"base", "edited"} {
		if message == "edited" {
			if all[chunks/2], _, err = b.chunk(ctx, chunks/2*rows, edit{by: 1}, dir); err != nil {
				return "", 0, err
			}
		}
		whole := *all[0]
		whole.Parts = nil
		for _, s := range all {
			whole.Parts = append(whole.Parts, s.Parts...)
		}
		if err := os.WriteFile(filepath.Join(dir, table.FileName), whole.Encode(), 0o644); err != nil {
			return "", 0, err
		}
		for _, args := range [][]string{{"add", "-A"}, {"-c", "user.name=bench", "-c", "user.email=bench@example.com", "-c", "gc.auto=0", "commit", "-q", "-m", message}} {
			if _, err := output(ctx, lake, "git", args...); err != nil {
				return "", 0, err
			}
		}
	}
	return lake, rows, os.WriteFile(ready, []byte(strconv.Itoa(rows)), 0o644)
}

// chunk imports rows whose ids begin behind offset, and puts the parts into dir.
func (b *bench) chunk(ctx context.Context, offset int, e edit, dir string) (s *table.Snapshot, rows int, err error) {
	path := filepath.Join(b.dir, "chunk.parquet")
	edited := 0
	if e.by != 0 {
		edited = editedRows
	}
	text, err := output(ctx, b.dir, b.python, "-c", chunkScript, b.data, path, strconv.Itoa(b.rows), strconv.Itoa(offset), strconv.Itoa(edited), strconv.Itoa(e.by), strconv.Itoa(e.behind))
	if err != nil {
		return nil, 0, err
	}
	if rows, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return nil, 0, err
	}
	lake, err := b.lake(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(lake), os.Remove(path)) }()
	if err := b.imports(ctx, lake, version{Path: path}, "id"); err != nil {
		return nil, 0, err
	}
	from := filepath.Join(lake, "tables", "flights")
	data, err := os.ReadFile(filepath.Join(from, table.FileName))
	if err != nil {
		return nil, 0, err
	}
	if s, err = table.Parse(data); err != nil {
		return nil, 0, err
	}
	for _, p := range s.Parts {
		if err := os.Rename(filepath.Join(from, p.File), filepath.Join(dir, p.File)); err != nil {
			return nil, 0, err
		}
	}
	return s, rows, nil
}
