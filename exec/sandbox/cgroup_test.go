package sandbox

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestLocateCgroups(t *testing.T) {
	const hybrid = `30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 24 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
33 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`
	const unified = "33 24 0:29 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	for _, c := range []struct {
		name, self, mounts string
		v2                 bool
		homes              []string
		err                string
	}{
		{"version 1", "4:memory:/a/b\n2:cpu,cpuacct:/\n8:pids:/c\n0::/\n", hybrid, false,
			[]string{"/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/pids/c", "/sys/fs/cgroup/cpu,cpuacct"}, ""},
		{"version 2", "0::/system.slice/headgate.service\n", unified, true, []string{"/sys/fs/cgroup/system.slice/headgate.service"}, ""},
		{"a container's own view", "0::/docker/abc\n", strings.Replace(unified, " / /sys", " /docker/abc /sys", 1), true, []string{"/sys/fs/cgroup"}, ""},
		{"above the mount", "0::/../other\n", strings.Replace(unified, " / /sys", " /x /sys", 1), true, []string{"/sys/fs/cgroup"}, ""},
		{"no pids", "4:memory:/\n2:cpu:/\n", strings.Replace(hybrid, "rw,pids", "rw,freezer", 1), false, nil, `"pids" is not mounted`},
		{"nothing", "", "", false, nil, "no cgroup with a memory controller"},
	} {
		got, err := locateCgroups([]byte(c.self), []byte(c.mounts))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil || got.v2 != c.v2 || !reflect.DeepEqual(got.homes, c.homes) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

// The files of version 2, in a directory that stands for the cgroup.
func TestVersion2Limits(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"memory.max", "memory.oom.group", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g := &group{v2: true, dirs: []string{dir}}
	if err := g.limit(Limits{Memory: 1 << 30, CPUs: 1.5}); err != nil {
		t.Fatal(err)
	}
	if err := g.setWeight(weightBoot); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"memory.max": "1124073472", "memory.oom.group": "1", "memory.swap.max": "0", "cpu.max": "150000 100000", "cpu.weight": "1", "pids.max": "",
	} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v, want %q", name, b, err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "memory.events"), []byte("low 0\noom 2\noom_kill 3\noom_group_kill 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "memory.peak"), []byte("4096\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if n, peak := g.oomKills(), g.peakMemory(); n != 3 || peak != 4096 {
		t.Errorf("%d kills, peak %d", n, peak)
	}
	if err := os.Remove(filepath.Join(dir, "memory.max")); err != nil {
		t.Fatal(err)
	}
	if err := g.limit(DefaultLimits); err == nil || !strings.Contains(err.Error(), "memory.max") {
		t.Errorf("a limit that cannot be set: %v", err)
	}
}
