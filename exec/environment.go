package exec

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects"
)

// probeTimeout bounds a question to one of the operator's own programs.
const probeTimeout = 30 * time.Second

// WorkerEnvironment digests what decides the bytes a worker makes: its own
// version, which counts the format of snapshots, and DuckDB's. It runs the
// operator's own binary, outside any sandbox, with no input.
func WorkerEnvironment(ctx context.Context, worker string) (objects.OID, error) {
	out, err := probe(ctx, worker, "--version")
	if err != nil {
		return objects.OID{}, fmt.Errorf("worker %q: %w", worker, err)
	}
	return digest([]byte("worker\n"), out), nil
}

// describe prints the interpreter and every installed distribution. It is one
// line per fact, so a changed package changes the digest.
const describe = `
import sys, importlib.metadata as m
print(sys.implementation.cache_tag, sys.version.replace("\n", " "))
for line in sorted({(d.metadata["Name"] or "?") + "==" + d.version for d in m.distributions()}):
    print(line)
`

// inspect asks the operator's own interpreter what it is and has.
func inspect(ctx context.Context, in sandbox.Interpreter, harness objects.OID) (Python, error) {
	facts, err := probe(ctx, in.Path, "-c", describe)
	if err != nil {
		return Python{}, err
	}
	exact, packages, _ := strings.Cut(string(facts), "\n")
	return Python{
		Version: in.Version, Path: in.Path, Exact: exact, Own: digest([]byte("python\n"), facts, harness[:]),
		Tables: strings.Contains("\n"+packages, "\npyarrow=="),
	}, nil
}

// harness digests the Python package that runs in every sandbox.
func harness(sdk string) (objects.OID, error) {
	var files []string
	err := filepath.WalkDir(sdk, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Ext(path) == ".py" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return objects.OID{}, err
	}
	sort.Strings(files)
	var all bytes.Buffer
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return objects.OID{}, err
		}
		rel, err := filepath.Rel(sdk, path)
		if err != nil {
			return objects.OID{}, err
		}
		fmt.Fprintf(&all, "%s %d\n%s", filepath.ToSlash(rel), len(text), text)
	}
	return digest([]byte("harness\n"), all.Bytes()), nil
}

func digest(parts ...[]byte) objects.OID {
	h := sha1.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d\n", len(p))
		h.Write(p)
	}
	return objects.OID(h.Sum(nil))
}

func probe(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return out, err
}

// Python is an interpreter that functions can run in.
type Python struct {
	Version string // "3.11"
	Path    string
	Exact   string      // what it says of its own version and build
	Own     objects.OID // digest of it with the packages of its own
	Tables  bool        // whether these hold pyarrow, so that a function can do with them
}

// Environments is what functions run in. Each has a digest, so that a changed
// environment is a changed action.
type Environments struct {
	Worker  objects.OID // DuckDB and the snapshot cutter
	Python  []Python    // the first is the default one
	Harness objects.OID // the Python package headgate
	// Packages makes the environments that functions declare; nil makes none.
	Packages *pyenv.Store
}

// NewEnvironments digests the worker and the interpreters that functions run in.
// The first interpreter is the default one.
func NewEnvironments(ctx context.Context, worker, sdk string, interpreters []sandbox.Interpreter) (Environments, error) {
	env := Environments{}
	var err error
	if env.Worker, err = WorkerEnvironment(ctx, worker); err != nil {
		return env, err
	}
	if env.Harness, err = harness(sdk); err != nil {
		return env, fmt.Errorf("python package of headgate: %w", err)
	}
	for _, in := range interpreters {
		if slices.ContainsFunc(env.Python, func(p Python) bool { return p.Version == in.Version }) {
			continue
		}
		p, err := inspect(ctx, in, env.Harness)
		if err != nil {
			return env, fmt.Errorf("interpreter %q: %w", in.Path, err)
		}
		env.Python = append(env.Python, p)
	}
	return env, nil
}

// python returns the interpreter of a version, "" being the default one.
func (e *Environments) python(version string) (*Python, error) {
	var have []string
	for i := range e.Python {
		if p := &e.Python[i]; version == "" || p.Version == version {
			return p, nil
		}
		have = append(have, e.Python[i].Version)
	}
	return nil, &NoInterpreterError{Version: version, Have: have}
}

// Prepared is an environment that a plan's functions need.
type Prepared struct {
	*pyenv.Environment
	Locked bool       // the lock had it
	Made   pyenv.Made // what it took
	Took   time.Duration
}

// Preparing says how Prepare goes about its work.
type Preparing struct {
	Lock *pyenv.Lock // what it has is used as it is; what it lacks is resolved and added
	// Permit is asked before anything of an environment is downloaded, and of one
	// that is locked before the index is asked. What it returns is a problem.
	Permit func(*pyenv.Environment) error
	Begin  func(*pyenv.Environment) // before the download of one that is not there
	Done   func(Prepared)
	// Later leaves what cannot be made now to the functions that need it: they fail
	// with the reason when they run, and Prepare does not.
	Later bool
}

// Prepare makes the environments that a plan's Python functions declare, for the
// functions that this session runs. Problems are what is wrong with declarations
// or the lock, one sentence each; an error means that it could not be done now.
func (s *Session) Prepare(ctx context.Context, p *plan.Plan, how Preparing) (problems []string, err error) {
	tried := make(map[string]bool)
	prepare := func(kind, path string, line int, d *plan.Declared) error {
		if kind != plan.KindPython {
			return nil
		}
		spec, needed := s.specOf(d, how.Lock)
		if !needed || tried[spec.Group()] {
			return nil
		}
		tried[spec.Group()] = true
		err := s.prepare(ctx, spec, how)
		var refused *pyenv.Error
		if errors.As(err, &refused) {
			problems = append(problems, plan.Problem{File: path, Line: line, Message: refused.Text}.String())
			return nil
		}
		if err != nil && how.Later && ctx.Err() == nil {
			s.mu.Lock()
			s.prepared[spec.Group()] = place{err: &EnvironmentError{spec, err}}
			s.mu.Unlock()
			return nil
		}
		return err
	}
	for i := range p.Models {
		if err := prepare(p.Models[i].Kind, p.Models[i].Path, p.Models[i].Line, &p.Models[i].Declared); err != nil {
			return nil, err
		}
	}
	for i := range p.Verifiers {
		if err := prepare(p.Verifiers[i].Kind, p.Verifiers[i].Path, p.Verifiers[i].Line, &p.Verifiers[i].Declared); err != nil {
			return nil, err
		}
	}
	return problems, nil
}

// specOf returns what a function asks of its environment. It needs none if it
// declares no packages and those of its interpreter do, or if there is no such
// interpreter, which is said when the function is to run.
func (s *Session) specOf(d *plan.Declared, lock *pyenv.Lock) (spec pyenv.Spec, needed bool) {
	py, err := s.rt.env.python(d.Python)
	if err != nil {
		return spec, false
	}
	spec = pyenv.NewSpec(py.Version, d.Packages)
	return spec, len(d.Packages) > 0 || !py.Tables || lock != nil && lock.Find(spec) != nil
}

func (s *Session) prepare(ctx context.Context, spec pyenv.Spec, how Preparing) error {
	store := s.rt.env.Packages
	if store == nil {
		return errors.New("this server keeps no Python packages")
	}
	started := time.Now()
	e := how.Lock.Find(spec)
	locked := e != nil
	if !locked {
		var err error
		if e, err = store.Resolve(ctx, spec); err != nil {
			return err
		}
	}
	if how.Permit != nil {
		if err := how.Permit(e); err != nil {
			return &pyenv.Error{Text: err.Error()}
		}
	}
	if how.Begin != nil && !store.Ready(e) {
		how.Begin(e)
	}
	made, err := store.Make(ctx, e, func(root string) error { return s.compile(ctx, e.Python, root) })
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.held = append(s.held, made.Release)
	s.mu.Unlock()
	if !locked {
		how.Lock.Put(e)
	}
	py, err := s.rt.env.python(spec.Python)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.prepared[spec.Group()] = place{
		env:    digest([]byte("packages\n"), []byte(py.Exact), []byte(e.Digest()), s.rt.env.Harness[:]),
		python: py.Version, packages: made.Dir,
	}
	s.mu.Unlock()
	if how.Done != nil {
		how.Done(Prepared{Environment: e, Locked: locked, Made: made, Took: time.Since(started)})
	}
	return nil
}

// place is what a function runs in.
type place struct {
	env      objects.OID
	python   string // version of the interpreter
	packages string // directory; "" for those of the interpreter
	err      error  // why there is none
}

// placeOf returns what a planned function runs in. An interpreter that is not
// there is the function's failure: it asked for it.
func (s *Session) placeOf(kind string, d *plan.Declared) (place, error) {
	if kind != plan.KindPython {
		return place{env: s.rt.env.Worker}, nil
	}
	py, err := s.rt.env.python(d.Python)
	if err != nil {
		return place{}, &Failure{Kind: "error", Text: err.Error()}
	}
	spec := pyenv.NewSpec(py.Version, d.Packages)
	s.mu.Lock()
	at, ok := s.prepared[spec.Group()]
	s.mu.Unlock()
	switch {
	case ok:
		return at, at.err
	case len(d.Packages) > 0 || !py.Tables:
		return place{}, fmt.Errorf("the environment of %s was not prepared", spec)
	}
	return place{env: py.Own, python: py.Version}, nil
}

// Environment returns the digest of what a verifier of a prepared plan runs in.
func (s *Session) Environment(v *plan.Verifier) (objects.OID, error) {
	at, err := s.placeOf(v.Kind, &v.Declared)
	return at.env, err
}

// EnvironmentError says that what a function runs in could not be made now: the
// index is out of reach, or the disk is full. The function is not at fault.
type EnvironmentError struct {
	Spec pyenv.Spec
	Err  error
}

func (e *EnvironmentError) Error() string {
	return fmt.Sprintf("the environment %s could not be made: %v", e.Spec, e.Err)
}

// Unwrap returns the cause.
func (e *EnvironmentError) Unwrap() error { return e.Err }

// NoInterpreterError says that a function asks for a Python that is not there.
type NoInterpreterError struct {
	Version string
	Have    []string
}

func (e *NoInterpreterError) Error() string {
	want := "Python"
	if e.Version != "" {
		want = "Python " + e.Version
	}
	if len(e.Have) == 0 {
		return fmt.Sprintf("this server has no Python interpreter, so %s is not to be had; the administrator can add one with --python PATH ", want)
	}
	return fmt.Sprintf("this server has no %s; it has %s", want, strings.Join(e.Have, ", "))
}
