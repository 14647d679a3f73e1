package main

import (
	"debug/buildinfo"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/headgate/headgate/exec"
)

// The modules whose versions are those of the sandbox and of DuckDB.
const (
	gvisorModule = "gvisor.dev/gvisor"
	duckdbModule = "github.com/duckdb/duckdb-go/v2"
)

// versions lists what judges pushes here, for the proofs of gate commits. What a
// program does not tell of itself is left out: the digests name it anyway.
func versions(worker string, env exec.Environments) map[string]string {
	v := map[string]string{"headgate": version, "worker": env.Worker.String(), "harness": env.Harness.String()}
	if own, ok := debug.ReadBuildInfo(); ok {
		v["go"] = own.GoVersion
		note(v, "gvisor", moduleVersion(own, gvisorModule))
	}
	if of, err := buildinfo.ReadFile(worker); err == nil {
		note(v, "duckdb", duckdbVersion(moduleVersion(of, duckdbModule)))
	}
	for _, p := range env.Python {
		v["python-"+p.Version] = p.Own.String()
	}
	return v
}

func note(v map[string]string, name, value string) {
	if value != "" {
		v[name] = value
	}
}

func moduleVersion(of *debug.BuildInfo, module string) string {
	for _, d := range of.Deps {
		if d.Path == module {
			if d.Replace != nil {
				return d.Replace.Version
			}
			return d.Version
		}
	}
	return ""
}

// duckdbVersion returns the version of DuckDB in one of its Go bindings', whose
// minor part it is: v2.10506.0 is of v1.5.6.
func duckdbVersion(bindings string) string {
	parts := strings.Split(bindings, ".")
	if len(parts) != 3 {
		return ""
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil || n < 10000 {
		return bindings
	}
	return fmt.Sprintf("v%d.%d.%d", n/10000, n/100%100, n%100)
}
