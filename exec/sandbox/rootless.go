package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// addressSpaceExtra is what a program may map beyond its memory limit where that
// limit is on address space: DuckDB and Go reserve far more than they use.
const addressSpaceExtra = 1536 << 20

// addressSpace is the RLIMIT_AS that stands for a memory limit. Without root
// there is no cgroup to limit what is used, so what is mapped is limited.
func addressSpace(memory int64) int64 { return memory + addressSpaceExtra }

// checkRootless says what a user without root lacks for a sandbox.
func checkRootless() error {
	for _, knob := range []struct{ path, bad, fix string }{
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		b, err := os.ReadFile(knob.path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("check for user namespaces: %w", err)
		}
		if strings.TrimSpace(string(b)) == knob.bad {
			return fmt.Errorf("without root, sandboxes need user namespaces, which %s = %s forbids; run as root or set %s", knob.path, knob.bad, strconv.Quote(knob.fix))
		}
	}
	return nil
}
