package gitobj_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/headgate/headgate/objects/gitobj"
)

// FuzzGitmodules asks git what it understands of the same bytes: what its own
// check would refuse, ours must have refused.
func FuzzGitmodules(f *testing.F) {
	f.Add([]byte("[submodule \"x\"]\n\turl = \"a\\\"b\" # c\n"))
	f.Add([]byte("[submodule.x] path=\\\n-x"))
	f.Add([]byte("[submodule \"x\"]\n\tpath = x\n\turl = https://example.com/x.git\n\tupdate = !touch x\n"))
	f.Add([]byte("[submodule \"a/../b\"]\nurl\n[SUBMODULE \"y\"]\nURL=-u\n"))
	f.Add([]byte("\xef\xbb\xbf[submodule \"\\y\"] url = a;b\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if gitobj.CheckGitmodules(data) != nil {
			return
		}
		cmd := exec.Command("git", "config", "--file", "-", "--null", "--list")
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git cannot read %q, which was taken", data)
		}
		for setting := range strings.SplitSeq(string(out), "\x00") {
			name, value, _ := strings.Cut(setting, "\n")
			name, ok := strings.CutPrefix(name, "submodule.")
			dot := strings.LastIndexByte(name, '.')
			if !ok || dot < 0 {
				continue
			}
			name, key := name[:dot], name[dot+1:]
			bad := false
			for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '/' || r == '\\' }) {
				bad = bad || part == ".."
			}
			switch key {
			case "url", "path":
				bad = bad || strings.HasPrefix(value, "-")
			case "update":
				bad = bad || strings.HasPrefix(value, "!")
			}
			if key == "url" {
				bad = bad || strings.Contains(value, "\n")
			}
			if bad || name == "" {
				t.Fatalf("git understands %q = %q of submodule %q in %q, which was taken", key, value, name, data)
			}
		}
	})
}
