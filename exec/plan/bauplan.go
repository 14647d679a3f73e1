package plan

import (
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/headgate/headgate/exec/spelling"
	"github.com/headgate/headgate/exec/strictyaml"
)

// ProjectFiles are the names of the file that makes a directory a pipeline of
// Bauplan: its Python files declare functions and its SQL files are models,
// wherever it is.
var ProjectFiles = []string{"bauplan_project.yml", "bauplan_project.yaml"}

// maxPatterns and maxPackages bound what one project file lists.
const (
	maxPatterns = 100
	maxPackages = 1_000
)

// defaultNamespace is where Bauplan looks for a table that is named without one.
const defaultNamespace = "bauplan"

// project is what such a file says.
type project struct {
	file      string // its path
	dir       string // its directory; "" is the root
	namespace string
	python    string
	packages  map[string]string
	timeout   string
	params    map[string]Parameter
	secrets   map[string]bool // parameters of type secret or vault
	include   []string        // patterns of SQL files below dir
}

// parseProject reads a project file strictly: a key that is not known is an error
// that names it. What is wrong is noted in b.
func (b *builder) parseProject(file string, data []byte) *project {
	dir := path.Dir(file)
	if dir == "." {
		dir = ""
	}
	p := &project{
		file: file, dir: dir, namespace: defaultNamespace,
		packages: make(map[string]string), params: make(map[string]Parameter), secrets: make(map[string]bool),
	}
	r := projectReader{project: p}
	named := false
	if root := r.Load(data); root != nil {
		r.Object(root, "", strictyaml.Fields{
			"project":       func(n ast.Node) { named = true; r.identity(n) },
			"defaults":      r.defaults,
			"parameters":    r.parameters,
			"include_paths": r.includePaths,
		})
	}
	if !named && len(r.Problems) == 0 {
		r.ProblemAt(0, "needs project: with an id and a name")
	}
	for _, problem := range r.Problems {
		b.problem(file, problem.Line, "%s", problem.Message)
	}
	return p
}

type projectReader struct {
	strictyaml.Document
	project *project
}

func (r *projectReader) identity(n ast.Node) {
	ignored := func(ast.Node) {} // they name the project to Bauplan's service
	r.Object(n, "project", strictyaml.Fields{"id": ignored, "name": ignored, "description": ignored})
}

func (r *projectReader) defaults(n ast.Node) {
	r.Object(n, "defaults", strictyaml.Fields{
		"namespace": func(n ast.Node) {
			if s, ok := r.Text(n, "defaults.namespace"); ok && s != "" {
				r.project.namespace = s
			}
		},
		"timeout": func(n ast.Node) {
			seconds, ok := n.(*ast.IntegerNode)
			if !ok {
				r.WrongType(n, "defaults.timeout", "a number of seconds")
				return
			}
			r.project.timeout = seconds.GetToken().Value + "s"
		},
		"python": func(n ast.Node) {
			r.Object(n, "defaults.python", strictyaml.Fields{"version": r.version, "packages": r.packages})
		},
	})
}

// version reads "3.11"; without quotes it is a number, whose text is the version.
func (r *projectReader) version(n ast.Node) {
	if f, ok := n.(*ast.FloatNode); ok {
		r.project.python = f.GetToken().Value
		return
	}
	r.project.python, _ = r.Text(n, "defaults.python.version")
}

func (r *projectReader) packages(n ast.Node) {
	r.Items(n, "defaults.python.packages", func(n ast.Node) {
		var name, version string
		r.Object(n, "defaults.python.packages", strictyaml.Fields{
			"name": func(n ast.Node) { name, _ = r.Text(n, "name of a package") },
			"version": func(n ast.Node) {
				if f, ok := n.(*ast.FloatNode); ok { // 2.2 without quotes
					version = f.GetToken().Value
					return
				}
				version, _ = r.Text(n, "version of a package")
			},
		})
		switch {
		case len(r.Problems) > 0:
		case name == "" || version == "":
			r.Problem(n, "a package needs a name and a version")
		case len(r.project.packages) == maxPackages:
			r.Problem(n, "defaults.python.packages: the limit is %d packages", maxPackages)
		default:
			r.project.packages[name] = version
		}
	})
}

func (r *projectReader) parameters(n ast.Node) {
	if _, empty := n.(*ast.NullNode); empty {
		return
	}
	r.Each(n, "parameters", func(name string, key, value ast.Node) {
		where := "parameters." + name
		if !ValidParamName(name) {
			r.Problem(key, "parameters: %q is not a name for a parameter (letters, digits, '_', '-' and '.', a letter first)", name)
			return
		}
		typ := ""
		var standard, required ast.Node
		known := func(ast.Node) {}
		r.Object(value, where, strictyaml.Fields{
			"type":        func(n ast.Node) { typ, _ = r.Text(n, where+".type") },
			"default":     func(n ast.Node) { standard = n },
			"required":    func(n ast.Node) { required = n },
			"description": known,
			"key":         known, // by which Bauplan's service decrypts the default of a secret
		})
		if required != nil {
			if _, ok := required.(*ast.BoolNode); !ok {
				r.WrongType(required, where+".required", "true or false")
			}
		}
		types := []string{ParamStr, ParamInt, ParamFloat, ParamBool, "secret", "vault"}
		switch {
		case typ == "secret" || typ == "vault":
			// The default is a text that only Bauplan's service can read: the value is the lake's.
			r.project.secrets[name] = true
			return
		case typ == "":
			typ = impliedType(standard)
		case !slices.Contains(types, typ):
			r.Problem(key, "%s.type is %q%s", where, typ, spelling.MeantOr(typ, types))
			return
		}
		p := Parameter{Type: typ, Line: strictyaml.Line(key)}
		if standard != nil {
			p.Default = ReadDefault(&r.Document, standard, where+".default", typ)
		}
		r.project.params[name] = p
	})
}

// impliedType returns the type of a parameter that is declared by its default alone.
func impliedType(standard ast.Node) string {
	switch standard.(type) {
	case *ast.IntegerNode:
		return ParamInt
	case *ast.FloatNode:
		return ParamFloat
	case *ast.BoolNode:
		return ParamBool
	}
	return ParamStr
}

func (r *projectReader) includePaths(n ast.Node) {
	r.Texts(n, "include_paths", func(pattern string, n ast.Node) {
		pattern = strings.TrimPrefix(pattern, "./")
		parts := strings.Split(pattern, "/")
		switch {
		case !strings.HasSuffix(pattern, ".sql"):
			r.Problem(n, "include_paths: %q does not end in .sql", clip(pattern))
		case len(pattern) > 1000 || slices.ContainsFunc(parts, func(s string) bool { return s == "" || s == "." || s == ".." }):
			r.Problem(n, "include_paths: %q must be a path from the project's directory, without . and ..", clip(pattern))
		case strings.Count(pattern, "**") > 3:
			r.Problem(n, "include_paths: %q has more than three **", clip(pattern))
		case slices.ContainsFunc(parts, func(s string) bool { _, err := path.Match(s, ""); return err != nil }):
			r.Problem(n, "include_paths: %q is not a pattern", clip(pattern))
		case len(r.project.include) == maxPatterns:
			r.Problem(n, "include_paths: the limit is %d patterns", maxPatterns)
		default:
			r.project.include = append(r.project.include, pattern)
		}
	})
}

// includes reports whether one of the project's patterns is that of the file,
// whose path is given from the project's directory.
func (p *project) includes(name string) bool {
	parts := strings.Split(name, "/")
	return slices.ContainsFunc(p.include, func(pattern string) bool { return matchParts(strings.Split(pattern, "/"), parts) })
}

// matchParts matches a path by parts: "**" is any number of directories. It takes no
// more steps than there are pairs of parts: what the last "**" did not match in one
// way no earlier one need try in another.
func matchParts(pattern, name []string) bool {
	back, from := -1, 0 // where to go on in pattern and name if what follows the last "**" does not match
	p, n := 0, 0
	for n < len(name) {
		if p < len(pattern) && pattern[p] == "**" {
			p++
			back, from = p, n
			continue
		}
		if p < len(pattern) {
			if ok, err := path.Match(pattern[p], name[n]); err == nil && ok {
				p, n = p+1, n+1
				continue
			}
		}
		if back < 0 {
			return false
		}
		from++
		p, n = back, from
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

// alternatives returns the names by which a table that a project's function
// reads may be known: Bauplan puts a name without a namespace into the default one.
func (p *project) alternatives(written string) []string {
	if space, name, ok := strings.Cut(written, "."); ok {
		if strings.EqualFold(space, p.namespace) {
			return []string{name}
		}
		return nil
	}
	return []string{p.namespace + "." + written}
}

// withDefaults returns a declaration with what the project says for those that do not.
func (p *project) withDefaults(python, timeout, strategy string, packages map[string]string) (string, string, string, map[string]string) {
	if python == "" {
		python = p.python
	}
	if timeout == "" {
		timeout = p.timeout
	}
	if strategy == "" {
		strategy = StrategyNone // what Bauplan does not materialise lives for the run
	}
	if len(p.packages) == 0 {
		return python, timeout, strategy, packages
	}
	all := make(map[string]string, len(p.packages)+len(packages))
	for name, version := range p.packages {
		all[name] = version
	}
	normal := make(map[string]string, len(p.packages)) // what is one package -> as the project spells it
	for name := range p.packages {
		if n, err := NormalPackage(name); err == nil {
			normal[n] = name
		}
	}
	for name, version := range packages {
		if n, err := NormalPackage(name); err == nil {
			delete(all, normal[n])
		}
		all[name] = version
	}
	return python, timeout, strategy, all
}
