package exec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/exec/sandbox"
)

// compiler answers OpCompile with files of these names, and keeps the order.
type compiler struct {
	names []string
	order *protocol.Order

	limits sandbox.Limits
	bad    []string // names that were not taken
}

func (c *compiler) Run(_ context.Context, job sandbox.Job) (*sandbox.Report, error) {
	c.order, c.limits = job.Order, job.Limits
	for _, name := range c.names {
		if err := job.Files(name, 4, strings.NewReader("code")); err != nil {
			c.bad = append(c.bad, name)
			return nil, fmt.Errorf("output: %w", err)
		}
	}
	return &sandbox.Report{Answer: &protocol.Answer{Rows: int64(len(c.names))}}, nil
}

func TestBytecodeIsPutBesideItsModules(t *testing.T) {
	for _, c := range []struct {
		names, want, bad []string
	}{
		{[]string{"0.pyc", "2.pyc"}, []string{"a/__pycache__/__init__.cpython-311.pyc", "__pycache__/top.cpython-311.pyc"}, nil},
		{[]string{"3.pyc"}, nil, []string{"3.pyc"}},
		{[]string{"99999999999999999999.pyc"}, nil, []string{"99999999999999999999.pyc"}},
		{[]string{"../0.pyc"}, nil, []string{"../0.pyc"}},
		{[]string{"0.py"}, nil, []string{"0.py"}},
		{[]string{"1.pyc", "1.pyc"}, []string{"a/__pycache__/b.cpython-311.pyc"}, []string{"1.pyc"}},
	} {
		root := t.TempDir()
		for _, name := range []string{"a/__init__.py", "a/b.py", "top.py", "a/tests/test_b.py", "a/data.txt", "a-1.dist-info/x.py"} {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("x = 1"), 0o444); err != nil {
				t.Fatal(err)
			}
		}
		box := &compiler{names: c.names}
		rt := New(box, Environments{Python: []Python{{Version: "3.11", Exact: "cpython-311 3.11.7 (main)"}}}, Budget{CPUs: 1, Memory: 4 << 30}, slog.New(slog.DiscardHandler))
		s := rt.Session(nil, nil, Options{
			Limits: sandbox.Limits{Memory: 64 << 20, CPUs: 0.1, Timeout: time.Second, Pids: 8}, Ceiling: sandbox.Limits{Memory: 8 << 30, CPUs: 1, Timeout: time.Hour, Pids: 256},
		})
		if err := s.compile(t.Context(), "3.11", root); errors.Is(err, pyenv.ErrUnfinished) != (c.bad != nil) || err != nil && c.bad == nil {
			t.Fatal(err)
		}
		if want := []string{"/env/a/__init__.py", "/env/a/b.py", "/env/top.py"}; !slices.Equal(box.order.Files, want) {
			t.Errorf("compiled %q, want %q", box.order.Files, want)
		}
		if box.limits.CPUs != 1 || box.limits.Pids != 256 || box.limits.Memory != 1<<30 || box.limits.Timeout != 10*time.Minute {
			t.Errorf("compiled under the limits of one lake: %+v", box.limits)
		}
		if !slices.Equal(box.bad, c.bad) {
			t.Errorf("%q: not taken: %q, want %q", c.names, box.bad, c.bad)
		}
		var got []string
		err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
			if strings.HasSuffix(path, ".pyc") {
				got = append(got, path)
			}
			return err
		})
		slices.Sort(got)
		slices.Sort(c.want)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: bytecode %q, want %q, %v", c.names, got, c.want, err)
		}
	}
}

// What is at the place of a directory of bytecode is a wheel's own file, with the
// inode that all environments share.
func TestBytecodeLeavesFilesOfWheels(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "__pycache__")
	if err := os.WriteFile(file, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := writeBytecode(filepath.Join(root, "a.py"), "cpython-311", strings.NewReader("code")); err == nil {
		t.Error("bytecode in a file")
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o444 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
