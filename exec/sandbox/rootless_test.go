package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestWithoutRoot runs a server as nobody.
func TestWithoutRoot(t *testing.T) {
	dir, err := os.MkdirTemp("", "sandbox-rootless-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	// Where the binaries lie may be out of a user's reach.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"headgate": runscBinary, "probe": probeBinary, "server": self} {
		if err := place(from, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	for verb, want := range map[string]string{
		"connect tcp 1.1.1.1:1": "violations [{connect 1.1.1.1:1 1}], answer true",
		"memory 4000":           "answer false, out of time false", // stopped by RLIMIT_AS
	} {
		cmd := exec.Command(filepath.Join(dir, "server"))
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir,
			"SANDBOX_TEST_SERVER=" + filepath.Join(dir, "state"), "HEADGATE_BIN=" + filepath.Join(dir, "headgate"),
			"SANDBOX_TEST_WORKER=" + filepath.Join(dir, "probe"), "SANDBOX_TEST_VERB=" + verb}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", verb, err, out)
		}
	}
}
