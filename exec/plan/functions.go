package plan

import (
	"context"
	"path"
	"slices"

	"github.com/headgate/headgate/exec/protocol"
)

// Function is a decorated Python function, without the tables that it reads.
type Function struct {
	Path string
	Line int
	Declared
}

// Functions returns the models and expectations that Python files declare, as
// Build does. ProjectFiles among the sources make pipelines of their directories.
// It needs no tables, so that who has only the files can ask what
// they need to run. If they are at fault, the error is an *Error.
func Functions(ctx context.Context, sources []protocol.Source, settings *Settings, d Declarer) ([]Function, error) {
	if settings == nil {
		settings = &Settings{}
	}
	b := &builder{d: d, settings: settings, schemas: make(map[schemaID]protocol.Declaration)}
	found := &scan{b: b, projects: make(map[string]*project)}
	for _, s := range sources {
		if slices.Contains(ProjectFiles, path.Base(s.Path)) {
			found.projects[parentDir(s.Path)] = b.parseProject(s.Path, []byte(s.Text))
		}
	}
	var files []code
	for _, s := range sources {
		if path.Ext(s.Path) == ".py" {
			files = append(files, code{File: File{Path: s.Path}, text: s.Text, project: found.owner(s.Path)})
		}
	}
	if _, err := b.pythonFiles(ctx, files); err != nil {
		return nil, err
	}
	if len(b.problems) > 0 {
		return nil, b.failed()
	}
	var functions []Function
	for i := range b.models {
		functions = append(functions, Function{b.models[i].Path, b.models[i].Line, b.models[i].Declared})
	}
	for i := range b.verify {
		if b.verify[i].Kind == KindPython {
			functions = append(functions, Function{b.verify[i].Path, b.verify[i].Line, b.verify[i].Declared})
		}
	}
	return functions, nil
}
