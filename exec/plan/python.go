package plan

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/pyenv"
	"github.com/headgate/headgate/objects/table"
)

// function is a Python function together with the tables it declares.
type function struct {
	model  int // index into builder.models, or -1
	verify int // index into builder.verify, or -1
	path   string
	line   int
	inputs []Input

	project *project
}

// pythonFiles adds the models and expectations of Python files, inputs yet
// unresolved. All files are read, since any may be imported; only those below
// models/ and verifiers/ declare.
func (b *builder) pythonFiles(ctx context.Context, files []code) ([]function, error) {
	if !slices.ContainsFunc(files, func(f code) bool { return f.declares() }) {
		return nil, nil
	}
	byPath := make(map[string]*code, len(files))
	sources := make([]protocol.Source, len(files))
	for i := range files {
		byPath[files[i].Path] = &files[i]
		sources[i] = protocol.Source{Path: files[i].Path, Text: files[i].text}
	}
	declared, err := b.d.Declare(ctx, sources)
	if err != nil {
		return nil, err
	}
	imported := make(map[string]bool)
	for _, d := range declared {
		f := byPath[d.Path]
		if f == nil {
			return nil, fmt.Errorf("declaration of %q, which is not among the %d files asked for", d.Path, len(files))
		}
		for _, local := range d.LocalFiles {
			if byPath[local] == nil {
				return nil, fmt.Errorf("declaration in %s imports %q, which is not among the files asked for", d.Path, local)
			}
			imported[local] = imported[local] || f.declares()
		}
	}
	var functions []function
	for _, d := range declared {
		f := byPath[d.Path]
		switch {
		case !f.declares() && !imported[d.Path]:
			// Some other program of the lake's owner.
		case d.Error != nil:
			b.problem(d.Path, max(1, d.Error.Line, d.Line), "%s", d.Error.Message)
		case d.Kind == "schema":
			b.schemas[schemaID{f.project, d.Name}] = d
		case f.declares():
			functions = append(functions, b.pythonFunction(f, &d, byPath)...)
		}
	}
	return functions, nil
}

var pythonVersion = regexp.MustCompile(`^3\.[0-9]{1,2}$`)

func (b *builder) pythonFunction(f *code, d *protocol.Declaration, byPath map[string]*code) []function {
	if p := f.project; p != nil {
		strategy := d.Strategy
		d.Python, d.Timeout, strategy, d.Packages = p.withDefaults(d.Python, d.Timeout, strategy, d.Packages)
		if d.Kind == "model" {
			d.Strategy = strategy
		}
	}
	declared := Declared{
		Function: d.Function, Columns: d.Columns, Types: d.Types, NotNull: d.NotNull, Python: cmp.Or(d.Python, b.settings.Python),
		LocalFiles: slices.Sorted(slices.Values(d.LocalFiles)), Files: []File{f.File}, Packages: b.packages(d),
	}
	for _, local := range declared.LocalFiles {
		declared.Files = append(declared.Files, byPath[local].File)
	}
	for _, p := range d.Params {
		param, secret := b.paramOf(f, d.Line, p.Param, p.Name)
		if secret {
			declared.Secrets = append(declared.Secrets, param)
		} else {
			declared.Params = append(declared.Params, param)
		}
	}
	for _, s := range d.Secrets {
		declared.Secrets = append(declared.Secrets, Param{Param: s.Param, Name: s.Name})
	}
	if d.Python != "" && !pythonVersion.MatchString(d.Python) {
		b.problem(d.Path, d.Line, "python version %q: want one such as \"3.11\"", clip(d.Python))
	}
	limits := b.resources(d.Path, d.Line, d.Memory, d.Line, d.Timeout)
	if d.CPUs != 0 {
		limits.CPUs = b.cpus(d.Path, d.Line, fmt.Sprint(d.CPUs), d.CPUs)
	}
	if d.Pids != 0 {
		limits.Pids = d.Pids
		if d.Pids < minPids || d.Pids > maxPids {
			b.problem(d.Path, d.Line, "pids: %d is not between %d and %d", d.Pids, minPids, maxPids)
		}
	}
	fn := function{model: -1, verify: -1, path: d.Path, line: d.Line, project: f.project}
	for _, in := range d.Inputs {
		input := Input{Table: in.Table, Param: in.Param, Columns: in.Columns}
		input.Filter, input.Variables, declared.Params = b.filtered(f, d.Line, in.Filter, declared.Params)
		fn.inputs = append(fn.inputs, input)
	}
	switch d.Kind {
	case "model":
		if !f.mayModel() {
			b.problem(d.Path, d.Line, "model %s is in %s/; models live in %s/", d.Function, VerifiersDir, ModelsDir)
			return nil
		}
		if err := table.ValidName(d.Name); err != nil {
			b.problem(d.Path, d.Line, "%v", err)
		}
		b.checkKey(d.Path, d.Line, d.Key)
		strategy := b.strategy(d.Path, d.Line, d.Strategy)
		b.models = append(b.models, Model{
			Name: d.Name, Path: d.Path, Line: d.Line, Kind: KindPython, Key: d.Key, Strategy: strategy,
			PartitionedBy: b.partitionedBy(d.Path, d.Line, strategy, d.PartitionedBy), Declared: declared, Resources: limits,
		})
		fn.model = len(b.models) - 1
	case "expectation":
		b.checkVerifierName(d.Path, d.Line, d.Name)
		if len(declared.Params) > 0 {
			b.problem(d.Path, d.Line, "expectation %s takes parameter %q; what holds of the data cannot depend on a push option",
				d.Function, clip(declared.Params[0].Name))
		}
		if len(declared.Secrets) > 0 {
			b.problem(d.Path, d.Line, "expectation %s takes secret %q; secrets are for models", d.Function, clip(declared.Secrets[0].Name))
		}
		b.verify = append(b.verify, Verifier{
			Name: d.Name, Path: d.Path, Line: d.Line, Kind: KindPython, Declared: declared, Resources: limits,
			Severity: b.severity(d.Path, d.Line, d.Severity),
		})
		fn.verify = len(b.verify) - 1
	default:
		b.problem(d.Path, d.Line, "function %s is declared as %q, want a model or an expectation", clip(d.Function), clip(d.Kind))
		return nil
	}
	return []function{fn}
}

// packages returns the declared packages by their normal names, if the policy allows them.
func (b *builder) packages(d *protocol.Declaration) map[string]string {
	if len(d.Packages) == 0 {
		return nil
	}
	allowed := make(map[string]bool)
	for _, name := range b.settings.Packages {
		if normal, err := NormalPackage(name); err == nil {
			name = normal
		}
		allowed[name] = true
	}
	packages := make(map[string]string, len(d.Packages))
	for _, name := range slices.Sorted(maps.Keys(d.Packages)) {
		normal, err := NormalPackage(name)
		switch {
		case err != nil:
			b.problem(d.Path, d.Line, "package name %q: %v", clip(name), err)
		case slices.Contains(b.settings.Denied, normal):
			b.problem(d.Path, d.Line, "package %q is denied by the policy (python.packages.deny)", name)
		case !allowed[normal] && !allowed["*"]:
			b.problem(d.Path, d.Line, "package %q is not allowed; the policy allows %s (python.packages.allow)", name, listed(b.settings.Packages))
		default:
			if _, twice := packages[normal]; twice {
				b.problem(d.Path, d.Line, "package %q is declared twice", normal)
			}
			version, err := pyenv.ParseSpecifiers(d.Packages[name])
			if err != nil {
				b.problem(d.Path, d.Line, "package %q: version %q %v", name, clip(d.Packages[name]), err)
			}
			packages[normal] = version
		}
	}
	return packages
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
