package main

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestFunctionBudget(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	meminfo := file("MemTotal:        8388608 kB\nMemFree: 1 kB\n")
	for name, tc := range map[string]struct {
		root   fstest.MapFS
		cpus   float64
		memory string
		want   int64
		err    string
	}{
		"the machine":          {root: fstest.MapFS{"proc/meminfo": meminfo}, want: 6 << 30},
		"a cgroup of its own":  {root: fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/a/b\n"), "sys/fs/cgroup/a/b/memory.max": file("4294967296\n")}, want: 3 << 30},
		"the one above":        {root: fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/a/b\n"), "sys/fs/cgroup/a/b/memory.max": file("max\n"), "sys/fs/cgroup/a/memory.max": file("1073741824\n")}, want: 768 << 20},
		"a container":          {root: fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/../host\n"), "sys/fs/cgroup/memory.max": file("1073741824\n")}, want: 768 << 20},
		"version 1":            {root: fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("9:cpu,cpuacct:/x\n3:memory:/m\n"), "sys/fs/cgroup/memory/m/memory.limit_in_bytes": file("2147483648\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n")}, want: 1536 << 20},
		"as said":              {cpus: 1.5, memory: "2GiB", want: 2 << 30},
		"no size":              {memory: "much", err: `--function-memory: "much" is not a size`},
		"no processors":        {cpus: -1, err: "--function-cpus -1: want a number of processors"},
		"a machine of no kind": {root: fstest.MapFS{}, err: "say it with --function-memory"},
	} {
		b, err := functionBudget(tc.cpus, tc.memory, tc.root)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: error is %v, want %q", name, err, tc.err)
			}
			continue
		}
		if err != nil || b.Memory != tc.want || b.CPUs <= 0 || (tc.cpus > 0 && b.CPUs != tc.cpus) {
			t.Errorf("%s: %+v, %v; want %d bytes", name, b, err, tc.want)
		}
	}
}
