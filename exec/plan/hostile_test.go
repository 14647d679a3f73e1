package plan_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// soon holds that a hostile commit is refused in little time: planning is the
// server's own work, in no sandbox.
func soon(t *testing.T, f func()) {
	t.Helper()
	began := cpu(t)
	f()
	if took := cpu(t) - began; took > 20*time.Second { // without its bounds each takes minutes
		t.Errorf("took %s of a processor", took)
	}
}

// cpu is the time of a processor that this process has had: others may keep the machine busy.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// list joins what of gives for 0 to n-1.
func list(n int, of func(i int) string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = of(i)
	}
	return strings.Join(items, ",")
}

func numbered(prefix string) func(int) string {
	return func(i int) string { return fmt.Sprintf("%s%d", prefix, i) }
}

func TestListsWithoutEnd(t *testing.T) {
	for setting, word := range map[string]string{"columns": "c", "key": "c", "params": "p", "strategy=overwrite_partitions partitioned_by": "c"} {
		soon(t, func() {
			text := "-- headgate: " + setting + "=[" + list(100_000, numbered(word)) + "]\nSELECT 1"
			if got := refused(t, map[string]string{"models/a.sql": text}, nil); !strings.Contains(got, "the limit is") {
				t.Errorf("%s: %.300s", setting, got)
			}
		})
	}
	declared := protocol.Declaration{Path: "models/a.py", Line: 1, Function: "a", Kind: "model", Name: "a"}
	for i := range 100_000 {
		declared.NotNull = append(declared.NotNull, fmt.Sprintf("c%d", i))
	}
	declared.Columns, declared.Key = declared.NotNull, declared.NotNull
	soon(t, func() {
		if got := refused(t, map[string]string{"models/a.py": ""}, nil, declared); !strings.Contains(got, "the limit is") {
			t.Errorf("declared columns: %.300s", got)
		}
	})
}

func TestNamesWithoutEnd(t *testing.T) {
	soon(t, func() {
		text := "SELECT 1 FROM " + strings.ReplaceAll(list(50_000, numbered("t")), ",", " JOIN ")
		if got := refused(t, map[string]string{"models/a.sql": text}, nil); !strings.Contains(got, "the limit is") {
			t.Errorf("tables: %.300s", got)
		}
	})
	soon(t, func() {
		text := "SELECT " + list(40_000, func(i int) string { return fmt.Sprintf("getvariable('p%d')", i) })
		if got := refused(t, map[string]string{"models/a.sql": text}, nil); !strings.Contains(got, "the limit is") {
			t.Errorf("variables: %.300s", got)
		}
	})
	project := "project: {id: x, name: y}\nparameters:\n"
	for i := range 1_000 {
		project += fmt.Sprintf("  p%d: {default: 1}\n", i)
	}
	soon(t, func() {
		files := map[string]string{"p/bauplan_project.yml": project, "p/a.sql": "SELECT " + list(80_000, numbered("$v"))}
		if got := refused(t, files, nil); !strings.Contains(got, "the limit is") {
			t.Errorf("variables of a project: %.300s", got)
		}
	})
	soon(t, func() {
		declared := protocol.Declaration{Path: "p/a.py", Line: 1, Function: "a", Kind: "model", Name: "a", Inputs: []protocol.DeclaredInput{{Table: "t", Param: "t", Filter: list(80_000, numbered("$v"))}}}
		files := map[string]string{"p/bauplan_project.yml": project, "p/a.py": ""}
		if got := refused(t, files, nil, declared); !strings.Contains(got, "the limit is") {
			t.Errorf("variables of a filter: %.300s", got)
		}
	})
}

// Patterns are matched with every SQL file, and "**" with every part of its path.
func TestPatternsWithoutEnd(t *testing.T) {
	var b strings.Builder
	b.WriteString("project: {id: x, name: y}\ninclude_paths:\n")
	for i := range 5_000 {
		fmt.Fprintf(&b, "- '**/*/**/*/**/%d.sql'\n", i)
	}
	deep := strings.Repeat("d/", 45)
	files := map[string]string{"bauplan_project.yml": b.String()}
	for i := range 200 {
		files[fmt.Sprintf("%sx%d.sql", deep, i)] = "SELECT 1"
	}
	soon(t, func() {
		if got := refused(t, files, nil); !strings.Contains(got, "the limit is") {
			t.Errorf("%.300s", got)
		}
	})
	// As many as are allowed, with paths that match nearly.
	b.Reset()
	b.WriteString("project: {id: x, name: y}\ninclude_paths:\n")
	for i := range 100 {
		fmt.Fprintf(&b, "- '**/*/**/*/**/%d.sql'\n", i)
	}
	files["bauplan_project.yml"] = b.String()
	for i := range 5_000 {
		files[fmt.Sprintf("%sy%d.sql", deep, i)] = "SELECT 1"
	}
	soon(t, func() {
		if p, err := build(t, files, nil); err == nil && len(p.Models) > 0 {
			t.Errorf("%d models", len(p.Models))
		}
	})
}

// A few objects can be a tree whose paths fill the memory.
func TestPathsWithoutEnd(t *testing.T) {
	m := make(memory)
	blob := m.put(objects.Blob, []byte("x = 1\n"))
	var leaves []gitobj.Entry
	for i := range 20_000 {
		leaves = append(leaves, gitobj.Entry{Name: fmt.Sprintf("f%05d.py", i), Mode: gitobj.ModeFile, OID: blob})
	}
	put := func(entries []gitobj.Entry) objects.OID {
		data, err := gitobj.EncodeTree(entries)
		if err != nil {
			t.Fatal(err)
		}
		return m.put(objects.Tree, data)
	}
	root := put(leaves)
	for range 45 {
		root = put([]gitobj.Entry{{Name: strings.Repeat("d", 4000), Mode: gitobj.ModeTree, OID: root}})
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	soon(t, func() {
		_, err := plan.Build(context.Background(), m, root, nil, &declarer{})
		var bad *plan.Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), "the limit is") || len(err.Error()) > 2000 {
			t.Errorf("%.300v", err)
		}
	})
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 256<<20 {
		t.Errorf("%d MiB were allocated", grown>>20)
	}
}

// A model that makes a table inside of another's directory would change that table.
func TestTablesInsideTables(t *testing.T) {
	source := map[string]string{"tables/m/a.parquet": "PAR1"}
	got := refused(t, with(source, map[string]string{"models/m/a.sql": "SELECT 1 AS n"}), nil)
	if !strings.Contains(got, `table "m.a"`) || !strings.Contains(got, `inside of table "m"`) {
		t.Error(got)
	}
}

// A package has one name, however it is spelled.
func TestProjectPackagesAreOverriddenInAnySpelling(t *testing.T) {
	project := "project: {id: x, name: y}\ndefaults: {python: {version: '3.11', packages: [{name: Scikit_Learn, version: '1.0'}, {name: numpy, version: '1.26'}]}}\n"
	declared := protocol.Declaration{Path: "p/a.py", Line: 1, Function: "a", Kind: "model", Name: "a", Packages: map[string]string{"scikit.learn": "2.0"}}
	p := mustBuild(t, map[string]string{"p/bauplan_project.yml": project, "p/a.py": ""}, &plan.Settings{Packages: []string{"*"}}, declared)
	if got := fmt.Sprint(p.Models[0].Packages); got != "map[numpy:==1.26 scikit-learn:==2.0]" {
		t.Error(got)
	}
}
