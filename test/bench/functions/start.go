package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// smallSQL is a function whose own work is nothing: what is measured is its start.
func smallSQL() sandbox.Job {
	return sandbox.Job{Kind: sandbox.KindWorker, Order: &protocol.Order{Op: protocol.OpQuery, SQL: "SELECT 42 AS answer", Format: "csv"}}
}

// pythonModel says a word at once when it is called with its table.
const pythonModel = `import sys
import headgate


@headgate.model()
def small(numbers=headgate.Model("numbers")):
    print("first line", file=sys.stderr, flush=True)
    return numbers
`

// link places an existing file in a sandbox without a copy.
func link(path, file string) sandbox.Input {
	return sandbox.Input{Path: path, Link: func(host string) error { return os.Link(file, host) }}
}

// smallPython is the order of pythonModel over the files in dir, as the function
// sees that directory.
func smallPython(dir string) *protocol.Order {
	return &protocol.Order{
		Op: protocol.OpPyModel, Path: filepath.Join(dir, "lake"), Module: "models/small.py", Function: "small",
		Inputs: []protocol.Table{{
			Name: "numbers", Param: "numbers", Files: []string{filepath.Join(dir, "numbers.parquet")},
			Columns: []protocol.Column{{Name: "n", Type: "BIGINT", Nullable: true}},
		}},
	}
}

// warmStart compares functions in waiting sandboxes with waiting processes.
func (b *bench) warmStart(ctx context.Context) error {
	dir := filepath.Join(b.cache, "small")
	if err := os.MkdirAll(filepath.Join(dir, "lake", "models"), 0o755); err != nil {
		return err
	}
	source, numbers := filepath.Join(dir, "lake", "models", "small.py"), filepath.Join(dir, "numbers.parquet")
	if err := os.WriteFile(source, []byte(pythonModel), 0o644); err != nil {
		return err
	}
	if err := b.makeParquet(ctx, "SELECT range AS n FROM range(1000)", numbers); err != nil {
		return err
	}
	m, state, err := b.open(ctx, 1, 1)
	if err != nil {
		return err
	}
	defer func() { _, _ = m.Close(), os.RemoveAll(state) }()
	python := program{
		args: []string{b.interpreter.Path, "-m", "headgate._sandbox"}, dir: dir, wait: true,
		env: []string{"PYTHONPATH=" + b.library, "PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1", "HEADGATE_PREIMPORT=pandas"},
	}
	for _, c := range []struct {
		name   string
		target float64
		job    sandbox.Job
		order  *protocol.Order
		prog   program
	}{
		{"warm start to first line, SQL", 40, smallSQL(), smallSQL().Order, program{args: []string{b.worker}, dir: dir, wait: true}},
		{"warm start to first line, Python with pyarrow", 80, sandbox.Job{
			Kind: sandbox.KindPython, Order: smallPython("/in"),
			Inputs: []sandbox.Input{link("lake/models/small.py", source), link("numbers.parquet", numbers)},
		}, smallPython(dir), python},
	} {
		var in, out []time.Duration
		for range b.rounds {
			if err := m.AwaitWarm(ctx); err != nil {
				return err
			}
			o, _, err := inside(ctx, m, c.job, true)
			if err != nil {
				return err
			}
			in = append(in, o.first)
			if o, err = outside(ctx, c.prog, c.order, discard); err != nil {
				return err
			}
			out = append(out, o.first)
		}
		b.add(figure{
			Name: c.name, Inside: ms(median(in)), Outside: ms(median(out)), Unit: "ms",
			Value: ms(median(in) - median(out)), Of: "difference", Target: c.target, Detail: "against a process that waits too",
		})
	}
	return nil
}

// makeParquet writes the rows of a query with the worker, unless the file is there.
func (b *bench) makeParquet(ctx context.Context, sql, file string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	temp, err := os.MkdirTemp(b.cache, "make-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	return writeRows(ctx, b.worker, &protocol.Order{
		Op: protocol.OpQuery, SQL: sql, Format: "parquet", Threads: 2, MemoryLimit: 8 << 30, TempDir: temp,
	}, file)
}

// coldStart compares a sandbox that is started for a function with gVisor's bare
// command on the same bundle.
func (b *bench) coldStart(ctx context.Context) error {
	m, state, err := b.open(ctx, 1, 0)
	if err != nil {
		return err
	}
	bundle, err := bareBundle(ctx, m, state, b.cache)
	if err := errors.Join(err, m.Close(), os.RemoveAll(state)); err != nil {
		return err
	}
	defer func() {
		// Where gVisor keeps a network namespace without a network; it leaves it mounted.
		_ = unix.Unmount(filepath.Join(bundle, "state", "null-netns"), unix.MNT_DETACH)
		_ = os.RemoveAll(bundle)
	}()
	if err := os.Symlink(b.runsc, filepath.Join(bundle, "runsc")); err != nil {
		return err
	}
	if m, state, err = b.open(ctx, 0, 0); err != nil {
		return err
	}
	defer func() { _, _ = m.Close(), os.RemoveAll(state) }()
	var in, out []time.Duration
	for i := range b.rounds {
		o, _, err := inside(ctx, m, smallSQL(), false)
		if err != nil {
			return err
		}
		in = append(in, o.first)
		o, err = outside(ctx, program{dir: bundle, args: []string{
			"runsc", "--root=" + filepath.Join(bundle, "state"), "--network=none", "--ignore-cgroups",
			"--sidecar-usage-policy=LEGACY_DEPRECATED_SLOW_EMBEDDED_FALLBACK", "run", "--bundle=" + bundle, fmt.Sprintf("bare-%d", i),
		}}, smallSQL().Order, discard)
		if err != nil {
			return err
		}
		out = append(out, o.first)
	}
	b.add(figure{
		Name: "cold start to first line, SQL", Inside: ms(median(in)), Outside: ms(median(out)), Unit: "ms",
		Value: ms(median(in)) / ms(median(out)), Of: "ratio", Target: 1.1, Detail: "against runsc run of the same bundle, without trace and cgroup",
	})
	return nil
}

// bareBundle copies the bundle of a waiting sandbox: its configuration, its root
// and the directories that are bound into it.
func bareBundle(ctx context.Context, m *sandbox.Manager, state, cache string) (string, error) {
	if err := m.AwaitWarm(ctx); err != nil {
		return "", err
	}
	configs, err := filepath.Glob(filepath.Join(state, "boxes", "*", "config.json"))
	if err != nil || len(configs) == 0 {
		return "", fmt.Errorf("no waiting sandbox in %s: %w", state, err)
	}
	text, err := os.ReadFile(configs[0])
	if err != nil {
		return "", err
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return "", err
	}
	bundle, err := os.MkdirTemp(cache, "bare-")
	if err != nil {
		return "", err
	}
	root := filepath.Join(bundle, "root")
	if err := os.CopyFS(root, os.DirFS(spec.Root.Path)); err != nil {
		return "", err
	}
	spec.Root.Path = root
	for i, mount := range spec.Mounts {
		if mount.Type == "bind" {
			spec.Mounts[i].Source = filepath.Join(bundle, filepath.Base(mount.Destination))
			if err := errors.Join(os.MkdirAll(spec.Mounts[i].Source, 0o755), os.Chmod(spec.Mounts[i].Source, 0o777)); err != nil {
				return "", err
			}
		}
	}
	if text, err = json.Marshal(spec); err != nil {
		return "", err
	}
	return bundle, os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644)
}

// writeRows runs the worker outside of a sandbox and keeps its one file.
func writeRows(ctx context.Context, worker string, order *protocol.Order, file string) error {
	_, err := outside(ctx, program{args: []string{worker}, dir: filepath.Dir(file)}, order, func(_ string, _ int64, r io.Reader) error {
		f, err := os.Create(file + ".part")
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, r); err != nil {
			return errors.Join(err, f.Close())
		}
		return errors.Join(f.Close(), os.Rename(file+".part", file))
	})
	return err
}
