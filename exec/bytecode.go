package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/exec/sandbox"
)

const (
	// maxModules bounds what is compiled of one environment. What is beyond is
	// compiled by each function that imports it.
	maxModules = 20_000
	// What compiling takes at most; pandas with what it needs takes 3 s, 90 MB of
	// memory and 15 MB of bytecode.
	compileMemory  = 1 << 30
	compileTimeout = 10 * time.Minute
	compileOutput  = 1 << 30
	// envRoot is where a sandbox sees its packages.
	envRoot = "/env"
)

var bytecodeName = regexp.MustCompile(`^([0-9]{1,5})\.pyc$`)

// compile adds the bytecode of an environment's modules to it, which spares every
// function the compiling: importing pandas takes a fourth of the time. Compilers
// read foreign bytes, so it is done in a sandbox, which no package is imported
// into. An environment without bytecode works as well: if it cannot be compiled now,
// that is pyenv.ErrUnfinished, and it is tried again later.
func (s *Session) compile(ctx context.Context, python, root string) error {
	py, err := s.rt.env.python(python)
	if err != nil {
		return err
	}
	modules, err := modulesBelow(root)
	if err != nil {
		return err
	}
	if len(modules) == 0 {
		return nil
	}
	order := &protocol.Order{Op: protocol.OpCompile, Path: inputRoot + "modules"}
	// An environment is shared, so that one lake's small limits must not decide it.
	lim := s.limits(plan.Resources{Memory: compileMemory, Timeout: compileTimeout, CPUs: sandbox.DefaultLimits.CPUs, Pids: sandbox.DefaultLimits.Pids})
	lim.Memory, lim.Output = min(lim.Memory, s.rt.budget.Memory), compileOutput
	job := s.job(sandbox.KindPython, python, lim, order)
	for i, rel := range modules {
		order.Files = append(order.Files, envRoot+"/"+filepath.ToSlash(rel))
		job.Inputs = append(job.Inputs, linkFile(fmt.Sprintf("modules/%d.py", i), filepath.Join(root, rel)))
	}
	job.Files = func(name string, _ int64, r io.Reader) error {
		m := bytecodeName.FindStringSubmatch(name)
		if m == nil {
			return fmt.Errorf("unexpected output file %q", name)
		}
		i, err := strconv.Atoi(m[1])
		if err != nil || i >= len(modules) {
			return fmt.Errorf("bytecode of module %s of %d", m[1], len(modules))
		}
		return writeBytecode(filepath.Join(root, modules[i]), py.tag(), r)
	}
	var u Usage
	if _, err := s.run(ctx, job, &u); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.rt.log.Warn("environment not compiled: its functions start slower until it is tried again", "python", python, "err", err)
		return pyenv.ErrUnfinished
	}
	s.rt.log.Info("environment compiled", "python", python, "modules", len(modules), "took", u.Total, "peak_memory", u.PeakMemory)
	return nil
}

// tag is what names the bytecode of an interpreter: "cpython-311".
func (p *Python) tag() string {
	tag, _, _ := strings.Cut(p.Exact, " ")
	return tag
}

// modulesBelow lists the modules below root, in a fixed order. Nobody imports the
// tests of a package, which are the half of some.
func modulesBelow(root string) ([]string, error) {
	var modules []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "tests" || strings.HasSuffix(d.Name(), ".dist-info")):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".py" || len(modules) == maxModules:
			return nil
		}
		rel, err := filepath.Rel(root, path)
		modules = append(modules, rel)
		return err
	})
	return modules, err
}

// writeBytecode puts the bytecode of a module where Python looks for it.
func writeBytecode(module, tag string, r io.Reader) error {
	dir := filepath.Join(filepath.Dir(module), "__pycache__")
	switch err := os.Mkdir(dir, 0o755); {
	case err == nil:
		if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask is
			return err
		}
	case !errors.Is(err, fs.ErrExist): // what is there may be a wheel's own file: it must not change
		return err
	}
	name := strings.TrimSuffix(filepath.Base(module), ".py") + "." + tag + ".pyc"
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Chmod(0o444), f.Close())
}
