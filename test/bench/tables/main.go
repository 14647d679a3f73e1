// Command tables measures what snapshots cost: their size against one file by
// DuckDB, what an edit adds, and the rate of an import against DuckDB's own COPY,
// side by side in one run.
package main

import (
	"bytes"
	"compress/zlib"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/headgate/headgate/objects/table"
)

//go:embed data.py
var dataScript string

//go:embed copy.py
var copyScript string

func main() {
	b := &bench{}
	flag.IntVar(&b.rounds, "rounds", 5, "imports and copies; the rate is of their medians")
	flag.IntVar(&b.rows, "rows", 3_000_000, "rows of the table, if no -data is given")
	flag.IntVar(&b.diffRows, "diff-rows", 100_000_000, "rows of the larger table that diff and merge are measured on, made of copies of the data and kept in the cache")
	only := flag.String("only", "", "diff or merge: measure that instead of sizes and rates")
	flag.StringVar(&b.data, "data", "", "a Parquet file to measure with; else flights are made up")
	flag.StringVar(&b.bin, "bin", "bin", "directory of headgate and headgate-worker")
	flag.StringVar(&b.cache, "cache", ".cache/bench", "where versions and checkouts are made; they are removed at the end")
	out := flag.String("json", "", "write the figures to this file too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// figure is one line of the table: a share of something, and what it may be.
type figure struct {
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Target  float64 `json:"target"` // 0: reported only
	AtLeast bool    `json:"at_least"`
	Met     bool    `json:"target_met"`
	Detail  string  `json:"detail"`
}

type bench struct {
	rounds, rows     int
	diffRows         int
	data, bin, cache string
	python, dir      string
	figures          []figure
}

// version is a state of the table as a Parquet file of DuckDB's.
type version struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

func (b *bench) run(ctx context.Context, only, out string) error {
	b.python = os.Getenv("HEADGATE_PYTHON")
	if b.python == "" {
		return errors.New("HEADGATE_PYTHON names no Python with duckdb; run make bench-tables")
	}
	for _, p := range []*string{&b.bin, &b.cache} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.cache, "tables-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.dir = dir
	switch only {
	case "":
		err = b.sizesAndRate(ctx)
	case "diff": // only if asked for: the large table takes minutes to make, and gigabytes
		err = b.diffs(ctx)
	case "merge":
		err = b.merges(ctx)
	default:
		err = fmt.Errorf("-only %s: want diff or merge, or nothing for sizes and rates", only)
	}
	return errors.Join(err, b.print(out))
}

// sizesAndRate measures what versions weigh and how fast they are imported.
func (b *bench) sizesAndRate(ctx context.Context) error {
	dir := b.dir
	var made struct {
		Rows     int64              `json:"rows"`
		Versions map[string]version `json:"versions"`
	}
	text, err := output(ctx, dir, b.python, "-c", dataScript, b.data, dir, strconv.Itoa(b.rows))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &made); err != nil {
		return fmt.Errorf("read what data.py printed: %w", err)
	}
	for _, key := range []string{"", "id"} {
		if err := b.sizes(ctx, made.Versions, key); err != nil {
			return err
		}
	}
	return b.rate(ctx, made.Versions["base"], made.Rows)
}

// edits are the versions that are held against a base, and the most that each may add.
var edits = []struct {
	name, base string
	target     float64
}{
	{"one row inserted in the middle", "base of the insertion", 0.015},
	{"1% of the rows updated, side by side", "base", 0.03},
	{"1% of the rows appended", "base", 0.015},
	{"1,000 scattered rows updated", "base", 0},
}

// sizes measures a table with the key, or without one.
func (b *bench) sizes(ctx context.Context, versions map[string]version, key string) error {
	kind := "no key"
	if key != "" {
		kind = "keyed"
	}
	bases := make(map[string]snapshot)
	for _, name := range []string{"base", "base of the insertion"} {
		s, err := b.snapshot(ctx, versions[name], key)
		if err != nil {
			return err
		}
		bases[name] = s
	}
	base := bases["base"]
	b.add(figure{Name: kind + ": snapshot against one file", Value: float64(base.bytes()) / float64(versions["base"].Bytes), Target: 1.12,
		Detail: fmt.Sprintf("%s in %d parts, %s", size(base.bytes()), len(base.parts), size(versions["base"].Bytes))})
	for _, e := range edits {
		s, err := b.snapshot(ctx, versions[e.name], key)
		if err != nil {
			return err
		}
		old := bases[e.base]
		added, parts := s.deflated, 0
		for name, n := range s.parts {
			if _, ok := old.parts[name]; !ok {
				added += n
				parts++
			}
		}
		b.add(figure{Name: kind + ": " + e.name, Value: float64(added) / float64(old.bytes()), Target: e.target,
			Detail: fmt.Sprintf("%s in %d parts and table.json; a whole file and git-lfs: %s", size(added), parts, size(versions[e.name].Bytes))})
	}
	return nil
}

// snapshot is what an import left in a table's directory.
type snapshot struct {
	parts    map[string]int64 // bytes of each by name
	deflated int64            // bytes of table.json as git stores it
}

func (s snapshot) bytes() int64 {
	n := s.deflated
	for _, b := range s.parts {
		n += b
	}
	return n
}

// snapshot imports a version into a new lake, as a user would.
func (b *bench) snapshot(ctx context.Context, v version, key string) (s snapshot, err error) {
	lake, err := b.lake(ctx)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(lake)) }()
	if err := b.imports(ctx, lake, v, key); err != nil {
		return s, err
	}
	dir := filepath.Join(lake, "tables", "flights")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return s, err
	}
	s.parts = make(map[string]int64)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return s, err
		}
		if e.Name() != table.FileName {
			s.parts[e.Name()] = int64(len(data))
			continue
		}
		var z bytes.Buffer
		w := zlib.NewWriter(&z)
		if _, err := w.Write(data); err != nil {
			return s, err
		}
		if err := w.Close(); err != nil {
			return s, err
		}
		s.deflated = int64(z.Len())
	}
	return s, nil
}

func (b *bench) lake(ctx context.Context) (string, error) {
	lake, err := os.MkdirTemp(b.dir, "lake-")
	if err != nil {
		return "", err
	}
	_, err = output(ctx, lake, filepath.Join(b.bin, "headgate"), "init", ".")
	return lake, err
}

func (b *bench) imports(ctx context.Context, lake string, v version, key string) error {
	args := []string{"import", v.Path, "--table", "flights", "--json", "--worker", filepath.Join(b.bin, "headgate-worker")}
	if key != "" {
		args = append(args, "--key", key)
	}
	_, err := output(ctx, lake, filepath.Join(b.bin, "headgate"), args...)
	return err
}

// rate holds imports against copies, in turns: whatever else the machine does
// slows both.
func (b *bench) rate(ctx context.Context, v version, rows int64) error {
	var imports, copies []time.Duration
	for range b.rounds {
		lake, err := b.lake(ctx)
		if err != nil {
			return err
		}
		start := time.Now()
		if err := b.imports(ctx, lake, v, ""); err != nil {
			return err
		}
		imports = append(imports, time.Since(start))
		start = time.Now()
		if _, err := output(ctx, b.dir, b.python, "-c", copyScript, v.Path, filepath.Join(b.dir, "copy.parquet")); err != nil {
			return err
		}
		copies = append(copies, time.Since(start))
		if err := os.RemoveAll(lake); err != nil {
			return err
		}
	}
	slices.Sort(imports)
	slices.Sort(copies)
	mine, theirs := imports[len(imports)/2], copies[len(copies)/2]
	b.add(figure{Name: "import rate against DuckDB's COPY", Value: theirs.Seconds() / mine.Seconds(), Target: 0.6, AtLeast: true,
		Detail: fmt.Sprintf("%d rows: %.2f s, COPY in a process of its own %.2f s", rows, mine.Seconds(), theirs.Seconds())})
	return nil
}

func (b *bench) add(f figure) {
	f.Met = f.Target == 0 || f.AtLeast == (f.Value >= f.Target) || f.Value == f.Target
	b.figures = append(b.figures, f)
}

func (b *bench) print(out string) error {
	for _, f := range b.figures {
		target := "reported"
		if f.Target != 0 {
			sign := "<="
			if f.AtLeast {
				sign = ">="
			}
			target = fmt.Sprintf("%s %.3g", sign, f.Target)
			if !f.Met {
				target += "  MISSED"
			}
		}
		fmt.Printf("%-50s %8.4f  %-16s %s\n", f.Name, f.Value, target, f.Detail)
	}
	if out == "" {
		return nil
	}
	data, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(data, '\n'), 0o644)
}

func size(n int64) string { return fmt.Sprintf("%.2f MB", float64(n)/1e6) }

// output runs a program in dir and returns what it printed.
func output(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.Stdout = nil
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	text, readErr := io.ReadAll(pipe)
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(program), err, strings.TrimSpace(stderr.String()))
	}
	return text, readErr
}
