package main

import (
	"bufio"
	"fmt"
	"io/fs"
	"math"
	"path"
	"runtime"
	"strconv"
	"strings"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
)

// memoryShare of the machine's memory is the functions'; the rest is for the
// server, for gVisor around each function, and for the page cache.
const memoryShare = 0.75

// functionBudget is what functions may use together: as the flags say, else the
// processors and three quarters of the memory of the machine, or of the cgroup
// that the server is kept in. root is the root of the file system.
func functionBudget(cpus float64, memory string, root fs.FS) (exec.Budget, error) {
	b := exec.Budget{CPUs: cpus}
	if math.IsNaN(cpus) || cpus < 0 || cpus > 10_000 {
		return b, fmt.Errorf("--function-cpus %g: want a number of processors such as 4 or 1.5", cpus)
	}
	if cpus == 0 {
		b.CPUs = float64(runtime.GOMAXPROCS(0)) // it knows a cgroup's limit
	}
	if memory != "" {
		n, err := plan.ParseSize(memory)
		if err != nil {
			return b, fmt.Errorf("--function-memory: %w", err)
		}
		b.Memory = n
		return b, nil
	}
	total, err := machineMemory(root)
	if err != nil {
		return b, fmt.Errorf("how much memory there is cannot be told (%w); say it with --function-memory", err)
	}
	b.Memory = int64(float64(total) * memoryShare)
	return b, nil
}

// machineMemory is the memory of the machine or, if that is less, what the
// server's cgroup and those above it may use.
func machineMemory(root fs.FS) (int64, error) {
	total, err := memTotal(root)
	if err != nil {
		return 0, err
	}
	own, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return total, nil // a kernel without cgroups
	}
	for line := range strings.Lines(string(own)) {
		// hierarchy:controllers:path, where version 2 has no controllers
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		switch {
		case fields[1] == "":
		case strings.Contains(","+fields[1]+",", ",memory,"):
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// In a container the path may be the host's, which is not to be seen: then
		// the mount's own root is the container's cgroup.
		for at := path.Join("/", fields[2]); ; at = path.Dir(at) {
			if text, err := fs.ReadFile(root, path.Join(mount, at, file)); err == nil {
				if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
					total = min(total, n)
				}
			}
			if at == "/" {
				break
			}
		}
	}
	return total, nil
}

func memTotal(root fs.FS) (int64, error) {
	f, err := root.Open("proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no MemTotal")
}
