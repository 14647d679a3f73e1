// Package e2e drives the built server with the real git and ssh clients, gVisor
// included. Each script in testdata tells one story; harness.go has the words
// that the scripts use besides testscript's own. A machine that cannot run it
// fails: nothing here is skipped.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestScripts(t *testing.T) {
	tools := findTools(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Setup:               tools.setup,
		RequireExplicitExec: true,
		Condition: func(name string) (bool, error) {
			if name != "otherpython" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return tools.otherPython != "", nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server":  cmdServer,
			"as":      cmdAs,
			"repo":    cmdRepo,
			"parquet": cmdParquet,
			"until":   cmdUntil,
			"capture": cmdCapture,
			"badtree": cmdBadTree,
			"damage":  cmdDamage,
			"rawpush": cmdRawPush,
			"same":    cmdSame,
			"nofile":  cmdNoFile,
			"wheel":   cmdWheel,

			"certificate": cmdCertificate,
		},
	})
}

// tools are the programs that the scripts drive.
type tools struct {
	bin    string // directory of headgate and headgate-worker
	python string // interpreter with pyarrow and duckdb
	uv     string // the resolver of packages
	// otherPython is an interpreter of another version than python and without
	// packages, "" if this machine has none.
	otherPython string
}

// findOther takes HEADGATE_OTHER_PYTHON, else one of pyenv's.
func findOther(t *testing.T, python string) string {
	t.Helper()
	if path := os.Getenv("HEADGATE_OTHER_PYTHON"); path != "" {
		return path
	}
	root := os.Getenv("PYENV_ROOT")
	if home, err := os.UserHomeDir(); err == nil && root == "" {
		root = filepath.Join(home, ".pyenv")
	}
	for _, version := range []string{"3.12", "3.11", "3.10", "3.13"} {
		found, err := filepath.Glob(filepath.Join(root, "versions", version+".*", "bin", "python3"))
		if err == nil && len(found) > 0 && version != versionOf(t, python) {
			return found[0]
		}
	}
	return ""
}

// versionOf asks an interpreter for its version: "3.11".
func versionOf(t *testing.T, python string) string {
	t.Helper()
	out, err := exec.Command(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// findTools takes HEADGATE_BIN and HEADGATE_PYTHON, else what make builds.
func findTools(t *testing.T) *tools {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	get := func(name, fallback string) string {
		path := os.Getenv(name)
		if path == "" {
			path = filepath.Join(root, fallback)
		}
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%v; run: make build venv", err)
		}
		return path
	}
	tools := &tools{bin: get("HEADGATE_BIN", "bin"), python: get("HEADGATE_PYTHON", ".cache/venv/bin/python")}
	tools.uv = get("HEADGATE_UV", filepath.Join(".cache", "venv", "bin", "uv"))
	tools.otherPython = findOther(t, tools.python)
	if info, err := os.Stat(tools.bin); err == nil && !info.IsDir() {
		tools.bin = filepath.Dir(tools.bin) // the server's own path does as well
	}
	for _, program := range []string{"headgate", "headgate-worker"} {
		if _, err := os.Stat(filepath.Join(tools.bin, program)); err != nil {
			t.Fatalf("%v; run: make build", err)
		}
	}
	return tools
}
