package abuse

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// startDeeds are done by a package of a function's environment, in a module that
// Python imports by itself before anything else.
var startDeeds = []deed{
	{"connect when the interpreter starts", `
import socket
socket.socket().connect_ex(("1.1.1.1", 443))`, sandbox.Limits{}, answered, []string{"connect 1.1.1.1:443"}},
	{"execute when the interpreter starts", `
import os
try:
    os.execv("/bin/sh", ["sh", "-c", "id"])
except OSError:
    pass`, sandbox.Limits{}, answered, []string{"exec sh -c id"}},
	{"write when the interpreter starts", `
for path in "/sdk/headgate/__init__.py", "/env/sitecustomize.py", "/in/new":
    try:
        open(path, "a")
    except OSError:
        pass`, sandbox.Limits{}, answered, []string{"write /sdk/headgate/__init__.py", "write /env/sitecustomize.py", "write /in/new"}},
	{"end before the function is called", `
import os, socket
socket.socket().connect_ex(("1.1.1.1", 443))
os._exit(3)`, sandbox.Limits{}, silent(3), []string{"connect 1.1.1.1:443"}},
	{"answer before anything was asked", `
import os
os.write(1, b"A\x00\x00\x00\x02{}")
os._exit(0)`, sandbox.Limits{}, silent(0), nil},
	{"take memory before the function is called", `held = b"x" * (1 << 30)`, sandbox.Limits{Memory: 200 << 20}, outOfMemory, nil},
}

// TestStarts gives a function environments that attack while the interpreter starts.
func TestStarts(t *testing.T) {
	for _, d := range startDeeds {
		t.Run(d.name, func(t *testing.T) {
			packages := t.TempDir()
			if err := os.WriteFile(filepath.Join(packages, "sitecustomize.py"), []byte(d.code), 0o444); err != nil {
				t.Fatal(err)
			}
			r := lab.run(t, sandbox.Job{
				Kind: sandbox.KindPython, Packages: packages, Limits: d.limits,
				Order:  &protocol.Order{Op: protocol.OpPyExpect, Path: "/in/code", Module: "verifiers/v.py", Function: "v"},
				Inputs: []sandbox.Input{content("code/verifiers/v.py", "def v():\n    return True\n")},
			})
			if err := d.ends(r); err != nil {
				t.Errorf("%v: %+v, error %q\n%.2000s", err, r.Report, r.userError(), r.log)
			}
			r.recorded(t, d.recorded...)
		})
	}
}
