package sandbox

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sandboxMemory is what gVisor itself needs on top of the program: kernel,
	// gofer and the runsc parent, measured at 16 to 25 MB.
	sandboxMemory = 48 << 20
	// bootMemory is what a program may take before its order comes with limits of
	// its own: a package that is imported ahead of time is foreign code, too.
	bootMemory = 1 << 30
	// hostTasks is the backstop on the tasks of one sandbox as the host sees them,
	// far above what RLIMIT_NPROC lets a program have: hitting it kills the sentry.
	hostTasks = 8192
	// cpuPeriod is the period of the CPU quota, in microseconds.
	cpuPeriod = 100_000
)

// weight is a sandbox's share of a contended CPU.
type weight int

const (
	weightBoot weight = iota // being started ahead of time: only what nobody else wants
	weightJob
)

// cgroups is the cgroup that holds one Manager's sandboxes, below the server's
// own, so that limits on the server keep holding for what it runs. It is used
// directly, not through gVisor, which leaves directories behind, wants all
// controllers, and cannot change a limit once a sandbox waits.
type cgroups struct {
	v2 bool
	// homes are the server's own cgroup and dirs ours, one for each controller
	// hierarchy in version 1 (memory first), a single one in version 2.
	homes, dirs []string
}

// groupName names the cgroup after the state directory: a restarted server finds
// what it left, and two servers do not meet.
func groupName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "headgate-" + hex.EncodeToString(sum[:6])
}

// openCgroups finds the server's own cgroup and makes one called name in it.
func openCgroups(name string) (*cgroups, error) {
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find own cgroup: %w", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroup mounts: %w", err)
	}
	c, err := locateCgroups(self, mounts)
	if err != nil {
		return nil, err
	}
	if c.v2 {
		if err := c.delegate(); err != nil {
			return nil, err
		}
	}
	seen := make(map[string]bool)
	var homes []string
	for _, home := range c.homes {
		if seen[home] { // cpu and pids can be mounted together
			continue
		}
		seen[home] = true
		homes = append(homes, home)
		dir := filepath.Join(home, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("limits need a writable cgroup: %w", err)
		}
		c.dirs = append(c.dirs, dir)
	}
	c.homes = homes
	if c.v2 {
		if err := os.WriteFile(filepath.Join(c.dirs[0], "cgroup.subtree_control"), []byte("+memory +pids +cpu"), 0o644); err != nil {
			return nil, fmt.Errorf("cgroup %s cannot limit memory, pids and cpu of what is below it: %w", c.dirs[0], err)
		}
	}
	return c, nil
}

var wantedControllers = []string{"memory", "pids", "cpu"}

// locateCgroups reads /proc/self/cgroup and /proc/self/mountinfo. Version 1 is
// used where it has the memory controller, else version 2.
func locateCgroups(self, mountinfo []byte) (*cgroups, error) {
	paths := make(map[string]string) // controller, or "" for version 2 -> own path
	for _, line := range strings.Split(string(self), "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, controller := range strings.Split(f[1], ",") {
			paths[controller] = f[2]
		}
	}
	type mount struct{ root, point string }
	mounts := make(map[string]mount)
	scan := bufio.NewScanner(bytes.NewReader(mountinfo))
	for scan.Scan() {
		before, after, ok := strings.Cut(scan.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		m := mount{root: left[3], point: left[4]}
		switch right[0] {
		case "cgroup2":
			mounts[""] = m
		case "cgroup":
			for _, option := range strings.Split(right[2], ",") {
				mounts[option] = m
			}
		}
	}
	own := func(controller string) (string, bool) {
		path, known := paths[controller]
		m, mounted := mounts[controller]
		if !known || !mounted {
			return "", false
		}
		rel, err := filepath.Rel(m.root, path)
		if err != nil || strings.HasPrefix(rel, "..") {
			rel = "." // outside of what is mounted here: a container's view of its own cgroup
		}
		return filepath.Join(m.point, rel), true
	}
	if _, ok := own("memory"); ok {
		c := &cgroups{}
		for _, controller := range wantedControllers {
			dir, ok := own(controller)
			if !ok {
				return nil, fmt.Errorf("cgroup controller %q is not mounted; sandboxes need memory, pids and cpu", controller)
			}
			c.homes = append(c.homes, dir)
		}
		return c, nil
	}
	if dir, ok := own(""); ok {
		return &cgroups{v2: true, homes: []string{dir}}, nil
	}
	return nil, errors.New("no cgroup with a memory controller is mounted; sandboxes cannot be limited without one")
}

// delegate turns the controllers on below the server's own cgroup. Version 2
// allows that only for a cgroup without processes, so the server moves itself
// into a leaf first; it cannot move others.
func (c *cgroups) delegate() error {
	home := c.homes[0]
	have, err := os.ReadFile(filepath.Join(home, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read cgroup controllers: %w", err)
	}
	for _, controller := range wantedControllers {
		if !strings.Contains(" "+strings.TrimSpace(string(have))+" ", " "+controller+" ") {
			return fmt.Errorf("cgroup %s has no %s controller (has %q); sandboxes need memory, pids and cpu", home, controller, strings.TrimSpace(string(have)))
		}
	}
	control := filepath.Join(home, "cgroup.subtree_control")
	enable := []byte("+memory +pids +cpu")
	err = os.WriteFile(control, enable, 0o644)
	if errors.Is(err, unix.EBUSY) {
		leaf := filepath.Join(home, "headgate-server")
		if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("limits need a writable cgroup: %w", err)
		}
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("move the server into cgroup %s: %w", leaf, err)
		}
		err = os.WriteFile(control, enable, 0o644)
	}
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("cgroup %s holds other processes, so it cannot be divided; start the server in a cgroup of its own (systemd: Delegate=yes)", home)
	}
	if err != nil {
		return fmt.Errorf("limits need a writable cgroup (systemd: Delegate=yes): %w", err)
	}
	return nil
}

// sweep kills and removes every group that a killed server left.
func (c *cgroups) sweep() error {
	var errs []error
	for _, dir := range c.dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("sweep cgroups: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() {
				g := &group{v2: c.v2, dirs: []string{filepath.Join(dir, e.Name())}}
				errs = append(errs, g.kill(), g.remove())
			}
		}
	}
	return errors.Join(errs...)
}

func (c *cgroups) remove() error {
	return (&group{dirs: c.dirs}).remove()
}

// create makes a group for one sandbox.
func (c *cgroups) create(id string) (*group, error) {
	g := &group{v2: c.v2, homes: c.homes}
	for _, dir := range c.dirs {
		d := filepath.Join(dir, id)
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("create cgroup: %w", err), g.remove())
		}
		g.dirs = append(g.dirs, d)
	}
	if err := g.set(pair{"pids.max", "pids.max", strconv.Itoa(hostTasks)}); err != nil {
		return nil, errors.Join(err, g.remove())
	}
	return g, nil
}

// group is the cgroup of one sandbox. A group without directories (rootless)
// limits nothing and only knows the process that it was started with.
type group struct {
	v2          bool
	homes, dirs []string
	process     *os.Process
}

// start starts cmd in the group. In version 1 a process is born where the thread
// is that forks it, so the calling thread, which must be locked, goes there and
// back: the process is never outside of its limits.
func (g *group) start(cmd *exec.Cmd) error {
	if g.v2 && len(g.dirs) > 0 {
		dir, err := os.Open(g.dirs[0])
		if err != nil {
			return fmt.Errorf("open cgroup: %w", err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	}
	if !g.v2 {
		defer func() {
			for _, home := range g.homes {
				// A thread that stays behind is charged to a group that is about
				// to go, and keeps it busy: nothing else is lost.
				_ = os.WriteFile(filepath.Join(home, "tasks"), []byte("0"), 0o644)
			}
		}()
		for _, dir := range g.dirs {
			if err := os.WriteFile(filepath.Join(dir, "tasks"), []byte("0"), 0o644); err != nil {
				return fmt.Errorf("enter cgroup: %w", err)
			}
		}
	}
	err := cmd.Start()
	g.process = cmd.Process
	return err
}

// pair is one setting under its names in both versions; an empty name has none.
type pair struct{ v1, v2, value string }

// set writes settings to whichever hierarchy has the file.
func (g *group) set(pairs ...pair) error {
	for _, p := range pairs {
		name := p.v1
		if g.v2 {
			name = p.v2
		}
		if name == "" {
			continue
		}
		path, ok := g.file(name)
		if !ok {
			return fmt.Errorf("cgroup of the sandbox has no %s", name)
		}
		if err := os.WriteFile(path, []byte(p.value), 0o644); err != nil {
			return fmt.Errorf("limit the sandbox: %w", err)
		}
	}
	return nil
}

func (g *group) file(name string) (string, bool) {
	for _, dir := range g.dirs {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err == nil {
			return path, true
		}
	}
	return "", false
}

// limit applies a job's limits.
func (g *group) limit(l Limits) error {
	if len(g.dirs) == 0 {
		return nil // rootless: RLIMIT_AS and RLIMIT_NPROC inside
	}
	quota := strconv.FormatInt(max(1000, int64(l.CPUs*cpuPeriod)), 10)
	if err := g.limitMemory(l.Memory); err != nil {
		return err
	}
	return g.set(
		pair{"cpu.cfs_period_us", "", strconv.Itoa(cpuPeriod)},
		pair{"cpu.cfs_quota_us", "cpu.max", map[bool]string{false: quota, true: fmt.Sprintf("%s %d", quota, cpuPeriod)}[g.v2]},
	)
}

// limitMemory limits what the program may use, and may be called again.
func (g *group) limitMemory(n int64) error {
	if len(g.dirs) == 0 {
		return nil // see limit
	}
	memory := strconv.FormatInt(n+sandboxMemory, 10)
	// Swap accounting is a kernel option; without it there is nothing to set.
	optional := func(name, value string) error {
		path, ok := g.file(name)
		if !ok {
			return nil
		}
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("limit the sandbox: %w", err)
		}
		return nil
	}
	// In version 1 memory cannot rise above the limit of memory and swap together.
	if err := optional("memory.memsw.limit_in_bytes", "-1"); err != nil {
		return err
	}
	if err := g.set(pair{"memory.limit_in_bytes", "memory.max", memory}, pair{"", "memory.oom.group", "1"}); err != nil {
		return err
	}
	return errors.Join(optional("memory.memsw.limit_in_bytes", memory), optional("memory.swap.max", "0"))
}

func (g *group) setWeight(w weight) error {
	if len(g.dirs) == 0 {
		return nil
	}
	v1, v2 := "1024", "100"
	if w == weightBoot {
		v1, v2 = "2", "1"
	}
	if g.v2 {
		v1 = v2
	}
	return g.set(pair{"cpu.shares", "cpu.weight", v1})
}

// oomKills is how many processes the kernel killed because of the memory limit.
func (g *group) oomKills() int {
	return g.counter("memory.oom_control", "oom_kill") + g.counter("memory.events", "oom_kill")
}

// held is the memory that only the group holds, without the cache of files that
// others read too; 0 if it is not known.
func (g *group) held() int64 {
	if n := g.counter("memory.stat", "total_rss") + g.counter("memory.stat", "total_shmem"); n > 0 {
		return int64(n)
	}
	return int64(g.counter("memory.stat", "anon") + g.counter("memory.stat", "shmem"))
}

func (g *group) counter(file, key string) int {
	path, ok := g.file(file)
	if !ok {
		return 0
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) == 2 && f[0] == key {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}

// peakMemory is the most memory that the group held, or 0 if it is not known.
func (g *group) peakMemory() int64 {
	for _, name := range []string{"memory.max_usage_in_bytes", "memory.peak"} {
		if path, ok := g.file(name); ok {
			if b, err := os.ReadFile(path); err == nil {
				n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
				return n
			}
		}
	}
	return 0
}

// killTimeout bounds how long the kernel may take to end killed processes.
const killTimeout = 10 * time.Second

// kill ends every process of the group and returns when none is left.
func (g *group) kill() error {
	if len(g.dirs) == 0 {
		if g.process == nil {
			return nil
		}
		// Sentry and gofer have a parent-death signal and follow.
		if err := g.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill sandbox: %w", err)
		}
		return nil
	}
	deadline := time.Now().Add(killTimeout)
	for wait := 200 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		n, err := g.killOnce()
		if err != nil || n == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes of a sandbox survive being killed", n)
		}
		time.Sleep(wait)
	}
}

// killOnce signals what is there now and returns how many that was. Processes
// that only wait for their parent to reap them do not count.
func (g *group) killOnce() (int, error) {
	b, err := os.ReadFile(filepath.Join(g.dirs[0], "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list sandbox processes: %w", err)
	}
	n := 0
	for _, line := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(line)
		if err != nil || pid <= 0 {
			continue
		}
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || bytes.Contains(stat, []byte(") Z ")) {
			continue
		}
		n++
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return n, fmt.Errorf("kill sandbox process %d: %w", pid, err)
		}
	}
	return n, nil
}

// remove deletes the group's directories. The kernel says "busy" for a moment
// after the last process has gone.
func (g *group) remove() error {
	var errs []error
	for _, dir := range g.dirs {
		deadline := time.Now().Add(killTimeout)
		for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
			err := os.Remove(dir)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
				errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
				break
			}
			time.Sleep(wait)
		}
	}
	return errors.Join(errs...)
}
