// Package arch holds the rules of the code base that no compiler holds: which
// way imports point, what a package must say of itself, how long a file may be.
package arch

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/headgate/headgate"

// layers are the parts of the program from the top down; a package may import
// packages of its own layer and of those below. sdk is the Python library, packed.
var layers = []string{"cmd", "server", "hooks", "exec", "objects", "refs", "sdk"}

// beside are pairs of layers that are neighbours: neither may import the other,
// whatever their order above.
var beside = [][2]string{{"objects", "refs"}}

// vocabulary packages hold only what both ends of a wire say, so any layer may
// import them.
var vocabulary = map[string]bool{"exec/protocol": true}

const maxLines = 600

var vagueNames = regexp.MustCompile(`^(util|utils|common|helper|helpers|manager|misc|base|shared)$`)

type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Imports,TestImports,XTestImports", module+"/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}

// layerOf returns the index of a package's layer, -1 if it is in none (tests).
func layerOf(importPath string) (int, string) {
	rel, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return -1, ""
	}
	top, _, _ := strings.Cut(rel, "/")
	for i, l := range layers {
		if l == top {
			return i, l
		}
	}
	return -1, top
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		from, name := layerOf(p.ImportPath)
		for _, imported := range append(append(append([]string{}, p.Imports...), p.TestImports...), p.XTestImports...) {
			rel, ours := strings.CutPrefix(imported, module+"/")
			if !ours || vocabulary[rel] {
				continue
			}
			to, target := layerOf(imported)
			switch {
			case from < 0:
				// Tests and tools stand outside the program.
			case to < 0:
				t.Errorf("%s imports %s, which is no part of the program", p.ImportPath, imported)
			case to < from:
				t.Errorf("%s imports %s: imports point down the list %v", p.ImportPath, imported, layers)
			}
			for _, b := range beside {
				if (name == b[0] && target == b[1]) || (name == b[1] && target == b[0]) {
					t.Errorf("%s imports %s: %s and %s do not know each other", p.ImportPath, imported, b[0], b[1])
				}
			}
		}
	}
}

func TestOnlyTheCommandHoldsRunsc(t *testing.T) {
	const runsc = module + "/exec/sandbox/runsc"
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			if imported == runsc && p.ImportPath != module+"/cmd/headgate" {
				t.Errorf("%s imports %s: gVisor's command line belongs into the one binary that becomes it", p.ImportPath, imported)
			}
			if strings.HasPrefix(imported, "github.com/duckdb/") && !strings.HasPrefix(p.ImportPath, module+"/cmd/headgate-worker") {
				t.Errorf("%s imports %s: foreign data is opened by the worker only", p.ImportPath, imported)
			}
		}
	}
}

func TestEveryPackageSaysOnceWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		if vagueNames.MatchString(p.Name) {
			t.Errorf("%s: a package is one noun, and %q is none", p.ImportPath, p.Name)
		}
		comments := 0
		for _, file := range parse(t, p.Dir) {
			if file.Doc == nil {
				continue
			}
			comments++
			text := file.Doc.Text()
			switch {
			case p.Name == "main" && !strings.HasPrefix(text, "Command "):
				t.Errorf("%s: the comment of a command starts with \"Command\": %q", p.ImportPath, firstLine(text))
			case p.Name != "main" && !strings.HasPrefix(text, "Package "):
				t.Errorf("%s: the package comment starts with \"Package\": %q", p.ImportPath, firstLine(text))
			}
		}
		if comments != 1 {
			t.Errorf("%s has %d package comments, want one", p.ImportPath, comments)
		}
	}
}

func parse(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// tracked lists the files that are, or would be, in the repository.
func tracked(t *testing.T) (root string, files []string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(string(out), "\x00") {
		if name != "" {
			files = append(files, name)
		}
	}
	return root, files
}

func TestNoFileIsTooLong(t *testing.T) {
	root, files := tracked(t)
	for _, name := range files {
		if path.Ext(name) != ".go" && path.Ext(name) != ".py" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // removed and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(data, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, the limit is %d", name, n, maxLines)
		}
	}
}

// foreign are texts that tie the repository to one machine or one registry.
// Spelled in two halves, or this file would find itself.
var foreign = regexp.MustCompile(strings.Join([]string{
	`(^|[^A-Za-z0-9_./-])/(wo` + `rk|ro` + `ot|fa` + `rm)/`,
	`proxy\.gol` + `ang`, `sum\.gol` + `ang`, `py` + `pi\.org`, `files\.pyth` + `onhosted`, `registry\.np` + `mjs`,
	`crates` + `\.io`, `repo1?\.mav` + `en`, `deb\.deb` + `ian`, `BEGIN OPENSSH PRI` + `VATE`,
}, "|"))

func TestNothingNamesAMachineOrARegistry(t *testing.T) {
	root, files := tracked(t)
	for _, name := range files {
		data, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) || bytes.IndexByte(data[:min(len(data), 8000)], 0) >= 0 {
			continue // removed, or binary
		}
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range bytes.Split(data, []byte("\n")) {
			if m := foreign.Find(line); m != nil {
				t.Errorf("%s:%d: %q belongs to one machine or registry", name, n+1, m)
			}
		}
	}
}

func TestScriptsAreExecutable(t *testing.T) {
	root, files := tracked(t)
	for _, name := range files {
		if path.Ext(name) != ".sh" && name != ".ci/run" {
			continue
		}
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode()&0o100 == 0 {
			t.Errorf("%s is not executable (%v)", name, fs.FormatFileInfo(info))
		}
	}
}

// A decision is cited by its number, so a number is one decision's.
func TestDecisionsAreNumbered(t *testing.T) {
	root, files := tracked(t)
	taken := make(map[string]string)
	for _, name := range files {
		number, _, ok := strings.Cut(path.Base(name), "-")
		if path.Dir(name) != "docs/decisions" || !ok {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // removed and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := taken[number]; ok {
			t.Errorf("%s has the number of %s", name, other)
		}
		taken[number] = name
		if want := "# " + number + ": "; !bytes.HasPrefix(data, []byte(want)) {
			t.Errorf("%s does not begin with %q", name, want)
		}
	}
	if len(taken) == 0 {
		t.Error("there are no decisions")
	}
}
