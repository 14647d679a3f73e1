package main

import (
	"testing"

	"github.com/headgate/headgate/exec"
)

func TestVersions(t *testing.T) {
	for bindings, want := range map[string]string{"v2.10506.0": "v1.5.6", "v2.11012.3": "v1.10.12", "v1.8.5": "v1.8.5", "": ""} {
		if got := duckdbVersion(bindings); got != want {
			t.Errorf("bindings %q are of DuckDB %q, want %q", bindings, got, want)
		}
	}
	v := versions("/no/such/worker", exec.Environments{Python: []exec.Python{{Version: "3.11"}}})
	if v["headgate"] != version || v["worker"] == "" || v["python-3.11"] == "" {
		t.Errorf("versions: %v", v)
	}
	if _, ok := v["duckdb"]; ok {
		t.Errorf("DuckDB of a worker that is not there: %v", v)
	}
}
