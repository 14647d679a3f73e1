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
	"sort"
	"time"

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

// listPackages prints the interpreter and every installed distribution. It is
// one line per fact, so a changed package changes the digest.
const listPackages = `
import sys, importlib.metadata as m
print(sys.implementation.cache_tag, sys.version)
for line in sorted({(d.metadata["Name"] or "?") + "==" + d.version for d in m.distributions()}):
    print(line)
`

// PythonEnvironment digests an interpreter, its installed packages, and the
// harness in sdk. It runs the operator's own interpreter.
func PythonEnvironment(ctx context.Context, in sandbox.Interpreter, sdk string) (objects.OID, error) {
	packages, err := probe(ctx, in.Path, "-c", listPackages)
	if err != nil {
		return objects.OID{}, fmt.Errorf("interpreter %q: %w", in.Path, err)
	}
	var files []string
	err = filepath.WalkDir(sdk, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Ext(path) == ".py" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return objects.OID{}, fmt.Errorf("python package of headgate: %w", err)
	}
	sort.Strings(files)
	var harness bytes.Buffer
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return objects.OID{}, err
		}
		rel, err := filepath.Rel(sdk, path)
		if err != nil {
			return objects.OID{}, err
		}
		fmt.Fprintf(&harness, "%s %d\n%s", filepath.ToSlash(rel), len(text), text)
	}
	return digest([]byte("python\n"), packages, harness.Bytes()), nil
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

// NewEnvironments digests the worker and the interpreters that functions run in.
// The first interpreter is the default one.
func NewEnvironments(ctx context.Context, worker, sdk string, interpreters []sandbox.Interpreter) (Environments, error) {
	env := Environments{}
	var err error
	if env.Worker, err = WorkerEnvironment(ctx, worker); err != nil {
		return env, err
	}
	byVersion := make(map[string]objects.OID, len(interpreters)+1)
	var have []string
	for _, in := range interpreters {
		if _, ok := byVersion[in.Version]; ok {
			continue
		}
		oid, err := PythonEnvironment(ctx, in, sdk)
		if err != nil {
			return env, err
		}
		byVersion[in.Version] = oid
		if len(have) == 0 {
			byVersion[""] = oid
		}
		have = append(have, in.Version)
	}
	env.Python = func(version string) (objects.OID, error) {
		if oid, ok := byVersion[version]; ok {
			return oid, nil
		}
		return objects.OID{}, &NoInterpreterError{Version: version, Have: have}
	}
	return env, nil
}

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
		return fmt.Sprintf("this server has no Python interpreter, so %s is not to be had; the administrator can add one with --python PATH (it needs pyarrow)", want)
	}
	return fmt.Sprintf("this server has no %s; it has %q", want, e.Have)
}
