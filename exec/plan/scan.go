package plan

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/headgate/headgate/exec/strictyaml"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
)

// Where functions live in a commit.
const (
	ModelsDir    = "models"
	VerifiersDir = "verifiers"
)

// Bounds of a commit's code. They are far above what people write, and keep the
// memory of a plan, and of the sandbox that reads declarations, small.
const (
	MaxModels    = 1_000
	MaxVerifiers = 5_000
	MaxFileBytes = 1 << 20
	maxCodeFiles = 5_000
	maxCodeBytes = 32 << 20
	maxEntries   = 100_000 // of all directories but tables/
	maxTreeBytes = 8 << 20 // of one directory
	maxTreeDepth = 50
	maxProjects  = 200
	maxMatches   = 2_000_000 // of a pattern and a path
)

// code is a file of the commit that is part of its functions, or may be imported by one.
type code struct {
	File
	text    string
	project *project // the pipeline of Bauplan that it is a part of
}

// in returns which of the function directories holds the file, or "".
func (c *code) in() string {
	dir, _, ok := strings.Cut(c.Path, "/")
	if ok && (dir == ModelsDir || dir == VerifiersDir) {
		return dir
	}
	return ""
}

// declares reports whether the file's functions are functions of the lake.
func (c *code) declares() bool { return c.project != nil || c.in() != "" }

// mayModel reports whether there may be models among them.
func (c *code) mayModel() bool { return c.project != nil || c.in() == ModelsDir }

// scan finds the SQL files below models/ and verifiers/ and of pipelines of
// Bauplan, and the Python files anywhere outside tables/, each sorted by path.
// Names that start with a dot are not code: editors and operating systems leave
// such files behind.
type scan struct {
	r        objects.Reader
	b        *builder
	entries  int
	bytes    int64
	matched  int                 // patterns that were held against a path
	projects map[string]*project // by directory
	found    []gitobj.Entry      // Name is the whole path
	sql      []code
	python   []code
}

func (s *scan) run(ctx context.Context, root objects.OID) error {
	if root.IsZero() {
		return nil
	}
	if err := s.walk(ctx, root, ""); err != nil {
		return err
	}
	sort.Slice(s.found, func(i, j int) bool { return s.found[i].Name < s.found[j].Name })
	for _, e := range s.found {
		if err := s.read(ctx, e); err != nil {
			return err
		}
	}
	if s.matched > maxMatches { // whose files they are was not found out
		return &errTooMuch{Problem{Message: fmt.Sprintf("include_paths: there are too many patterns for so many SQL files, the limit is %d pairs", maxMatches)}}
	}
	return nil
}

// errTooMuch ends a scan whose commit is beyond a bound; the problem is noted.
type errTooMuch struct{ Problem }

var tooMuchCode = &errTooMuch{Problem{Message: fmt.Sprintf("the commit has more than %d files or %d MiB of SQL and Python", maxCodeFiles, maxCodeBytes>>20)}}

func (e *errTooMuch) Error() string { return e.String() }

func (s *scan) walk(ctx context.Context, dir objects.OID, at string) error {
	if strings.Count(at, "/") > maxTreeDepth {
		return &errTooMuch{Problem{File: at, Message: fmt.Sprintf("directories are nested deeper than %d", maxTreeDepth)}}
	}
	data, err := objects.ReadAll(ctx, s.r, dir, objects.Tree, maxTreeBytes)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", at, err)
	}
	entries, err := gitobj.ParseTree(data)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", at, err)
	}
	// One small tree may stand in many places, so what counts is what is visited.
	if s.entries += len(entries); s.entries > maxEntries {
		return &errTooMuch{Problem{Message: fmt.Sprintf("the commit has more than %d files outside %s/", maxEntries, table.Root)}}
	}
	if err := s.project(ctx, at, entries); err != nil {
		return err
	}
	for _, e := range entries {
		if len(at)+1+len(e.Name) > maxPathBytes {
			return &errTooMuch{Problem{File: clip(at), Message: fmt.Sprintf("has a file whose path is too long: the limit is %d bytes", maxPathBytes)}}
		}
		name := path.Join(at, e.Name)
		switch {
		case strings.HasPrefix(e.Name, "."):
		case e.Mode == gitobj.ModeTree:
			if name == table.Root {
				continue
			}
			if err := s.walk(ctx, e.OID, name); err != nil {
				return err
			}
		case s.wanted(name, e.Mode):
			e.Name = name
			if s.found = append(s.found, e); len(s.found) > maxCodeFiles {
				return tooMuchCode
			}
		}
	}
	return nil
}

// project reads the file that makes directory at a pipeline of Bauplan, if it is there.
func (s *scan) project(ctx context.Context, at string, entries []gitobj.Entry) error {
	for _, e := range entries {
		if !slices.Contains(ProjectFiles, e.Name) || e.Mode == gitobj.ModeTree {
			continue
		}
		file := path.Join(at, e.Name)
		if other, ok := s.projects[at]; ok {
			s.b.problem(file, 0, "there is %s already; a project has one", other.file)
			continue
		}
		if e.Mode != gitobj.ModeFile && e.Mode != gitobj.ModeExec {
			s.b.problem(file, 0, "is not a regular file")
			continue
		}
		if len(s.projects) == maxProjects {
			return &errTooMuch{Problem{File: file, Message: fmt.Sprintf("the commit has more than %d projects of Bauplan", maxProjects)}}
		}
		info, err := s.r.Stat(ctx, e.OID)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if info.Size > strictyaml.MaxBytes {
			s.b.problem(file, 0, "has %d bytes, the limit is %d", info.Size, strictyaml.MaxBytes)
			continue
		}
		data, err := objects.ReadAll(ctx, s.r, e.OID, objects.Blob, strictyaml.MaxBytes)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if s.projects == nil {
			s.projects = make(map[string]*project)
		}
		s.projects[at] = s.b.parseProject(file, data)
	}
	return nil
}

// owner returns the pipeline that a file is a part of: that of its directory, or
// for SQL the nearest one above that includes it.
func (s *scan) owner(name string) *project {
	if len(s.projects) == 0 {
		return nil
	}
	dir := parentDir(name)
	if p := s.projects[dir]; p != nil {
		return p
	}
	for path.Ext(name) == ".sql" && dir != "" {
		dir = parentDir(dir)
		if p := s.projects[dir]; p != nil && s.mayMatch(p) && p.includes(strings.TrimPrefix(strings.TrimPrefix(name, dir), "/")) {
			return p
		}
	}
	return nil
}

// mayMatch counts how often patterns are held against paths: each takes as many
// steps as the path has parts, and more.
func (s *scan) mayMatch(p *project) bool {
	s.matched += len(p.include)
	return s.matched <= maxMatches
}

// parentDir returns the directory of a path, "" at the root.
func parentDir(name string) string {
	return name[:max(0, strings.LastIndexByte(name, '/'))]
}

func (s *scan) wanted(name string, mode gitobj.Mode) bool {
	ext := path.Ext(name)
	inside := (&code{File: File{Path: name}, project: s.owner(name)}).declares()
	if ext != ".py" && (ext != ".sql" || !inside) {
		if low := strings.ToLower(ext); inside && (low == ".sql" || low == ".py") {
			s.b.problem(name, 0, "the extension must be in lower case: %s", low)
		}
		return false
	}
	if mode != gitobj.ModeFile && mode != gitobj.ModeExec {
		if inside {
			s.b.problem(name, 0, "is not a regular file; symbolic links and submodules cannot be models or verifiers")
		}
		return false
	}
	return true
}

func (s *scan) read(ctx context.Context, e gitobj.Entry) error {
	c := code{File: File{Path: e.Name, OID: e.OID}, project: s.owner(e.Name)}
	info, err := s.r.Stat(ctx, e.OID)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	if info.Size > MaxFileBytes {
		// Elsewhere a large Python file is nobody's function; it can just not be imported.
		if c.declares() {
			s.b.problem(e.Name, 0, "has %d bytes, the limit is %d", info.Size, MaxFileBytes)
		}
		return nil
	}
	s.bytes += info.Size
	if len(s.sql)+len(s.python) == maxCodeFiles || s.bytes > maxCodeBytes {
		return tooMuchCode
	}
	data, err := objects.ReadAll(ctx, s.r, e.OID, objects.Blob, MaxFileBytes)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		if c.declares() {
			s.b.problem(e.Name, 1+bytes.Count(data[:firstInvalid(data)], []byte("\n")), "is not UTF-8 text")
		}
		return nil
	}
	c.text = string(data)
	if path.Ext(e.Name) == ".sql" {
		s.sql = append(s.sql, c)
	} else {
		s.python = append(s.python, c)
	}
	return nil
}

// firstInvalid returns where data stops being UTF-8 text.
func firstInvalid(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == 0 || r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(data)
}
