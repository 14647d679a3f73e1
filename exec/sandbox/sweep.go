package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockDir makes dir and takes it for this process.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("state directory %q is in use by another server", dir)
		}
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	return f, nil
}

// sweep removes what a killed server left: processes (they died with it, but a
// cgroup is where to be sure), cgroups, mounts, and files.
func (m *Manager) sweep() error {
	if m.cgroups != nil {
		if err := m.cgroups.sweep(); err != nil {
			return err
		}
	}
	if err := m.sweepFiles(); err != nil {
		return err
	}
	for _, dir := range []struct {
		name string
		mode os.FileMode
	}{{"boxes", 0o755}, {"runsc", 0o700}, {"scratch", 0o700}, {"nothing", 0o555}} {
		path := filepath.Join(m.cfg.Dir, dir.name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
		if err := os.Chmod(path, dir.mode); err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	return nil
}

// sweepFiles unmounts and removes everything below the directory but the lock.
func (m *Manager) sweepFiles() error {
	mounts, err := mountsBelow(m.cfg.Dir)
	if err != nil {
		return err
	}
	for _, mount := range mounts {
		// Never remove through a mount: what is on the other side is not ours.
		if err := unix.Unmount(mount, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %q: %w", mount, err)
		}
	}
	var errs []error
	for _, name := range []string{"boxes", "runsc", "scratch", "nothing", "rootfs"} {
		errs = append(errs, os.RemoveAll(filepath.Join(m.cfg.Dir, name)))
	}
	return errors.Join(errs...)
}

// mountsBelow lists the mount points below dir, the deepest first.
func mountsBelow(dir string) ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	// mountinfo writes the blanks and backslashes of a path as octal escapes.
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var below []string
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 4 {
			if point := unescape.Replace(f[4]); strings.HasPrefix(point, dir+"/") {
				below = append([]string{point}, below...)
			}
		}
	}
	return below, nil
}
