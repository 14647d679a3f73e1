// Package e2e drives the built server with the real git and ssh clients, gVisor
// included. Each script in testdata tells one story; harness.go has the words
// that the scripts use besides testscript's own. A machine that cannot run it
// fails: nothing here is skipped.
package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestScripts(t *testing.T) {
	tools := findTools(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Setup:               tools.setup,
		RequireExplicitExec: true,
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
		},
	})
}

// tools are the programs that the scripts drive.
type tools struct {
	bin    string // directory of headgate and headgate-worker
	python string // interpreter with pyarrow and duckdb
	uv     string // the resolver of packages
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
