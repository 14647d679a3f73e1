package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/spelling"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/table"
)

// maxProblems bounds an Error. Whoever has more has one cause. No more than
// maxFound are looked for: finding out what somebody meant costs.
const (
	maxProblems = 100
	maxFound    = 10 * maxProblems
)

// Bounds of what one function names. Everything that is looked for has to be found
// among what is known, by the server itself.
const (
	maxColumns   = 10_000 // of a contract or a key
	maxNames     = 1_000  // tables, parameters, variables
	maxTerms     = 100    // of partitioned_by
	maxPathBytes = 4096   // what Linux can open
)

// builder holds what is known while a plan is made.
type builder struct {
	d        Declarer
	settings *Settings
	problems []Problem
	more     int // problems that are not kept
	names    names
	models   []Model
	verify   []Verifier
	schemas  map[schemaID]protocol.Declaration
	awaiting []schemaUse
}

// schemaID names a schema class among the Python files of one pipeline (nil: of
// the lake).
type schemaID struct {
	project *project
	name    string
}

// schemaUse is a SQL model whose columns are those of a class.
type schemaUse struct {
	schemaID
	model int // index into builder.models
	line  int
}

// Build makes the plan of the commit whose tree is root. settings may be nil.
// If the commit's code is at fault, the error is an *Error with every problem
// that was found; any other error means that the plan could not be made.
//
// A SQL model makes the table that its path names: models/x.sql makes "x",
// models/ns/x.sql makes "ns.x"; the setting name= says otherwise. A Python model
// makes the table that its decorator names, by default its function's name.
func Build(ctx context.Context, r objects.Reader, root objects.OID, settings *Settings, d Declarer) (*Plan, error) {
	if settings == nil {
		settings = &Settings{}
	}
	b := &builder{d: d, settings: settings, schemas: make(map[schemaID]protocol.Declaration)}
	s := &scan{r: r, b: b}
	err := s.run(ctx, root)
	var much *errTooMuch
	if errors.As(err, &much) {
		return nil, &Error{Problems: []Problem{much.Problem}}
	}
	if err != nil {
		return nil, err
	}
	before := len(b.problems)
	tables, err := b.discover(ctx, r, root)
	if err != nil {
		return nil, err
	}
	unsound := len(b.problems) > before
	queries, err := b.sqlFiles(ctx, s.sql)
	if err != nil {
		return nil, err
	}
	functions, err := b.pythonFiles(ctx, s.python)
	if err != nil {
		return nil, err
	}
	b.applySchemas()
	unsound = b.unsoundSources(tables) || unsound
	if unsound {
		// Which tables there are is not known, so that one is missing says nothing.
		return nil, b.failed()
	}
	b.nameTables(tables)
	b.resolve(queries, functions)
	if err := b.applyRules(ctx, tables); err != nil {
		return nil, err
	}
	b.nameVerifiers()
	ordered := b.order()
	if len(b.problems) > 0 {
		return nil, b.failed()
	}
	for i := range ordered {
		ordered[i].Code = modelCode(&ordered[i])
	}
	for i := range b.verify {
		b.verify[i].Code = verifierCode(&b.verify[i])
	}
	return &Plan{Models: ordered, Verifiers: b.verify, Sources: b.names.sources()}, nil
}

// applySchemas gives SQL models the columns of the classes that they name.
func (b *builder) applySchemas() {
	for _, use := range b.awaiting {
		m := &b.models[use.model]
		d, ok := b.schemas[use.schemaID]
		if !ok {
			b.problem(m.Path, use.line, "output_schema: the Python files of the project have no class %q of TableSchema", clip(use.name))
			continue
		}
		m.Columns, m.Types, m.NotNull = d.Columns, d.Types, d.NotNull
	}
}

func (b *builder) problem(file string, line int, format string, args ...any) {
	if b.enough() {
		b.more++
		return
	}
	b.problems = append(b.problems, Problem{File: file, Line: line, Message: fmt.Sprintf(format, args...)})
}

// enough reports whether so much is wrong that nothing more has to be found out.
func (b *builder) enough() bool { return len(b.problems) >= maxFound }

// distinct checks a list of names: that there are no more than most, and no two
// that SQL cannot tell apart. what is "key names column".
func (b *builder) distinct(file string, line int, what string, names []string, most int) bool {
	if len(names) > most {
		b.problem(file, line, "%s: there are %d, the limit is %d", what, len(names), most)
		return false
	}
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		low := strings.ToLower(name)
		if seen[low] {
			b.problem(file, line, "%s %q twice", what, clip(name))
		}
		seen[low] = true
	}
	return true
}

func (b *builder) failed() *Error {
	slices.SortStableFunc(b.problems, func(x, y Problem) int {
		if c := strings.Compare(x.File, y.File); c != 0 {
			return c
		}
		return x.Line - y.Line
	})
	problems := slices.Compact(b.problems)
	if more := b.more + len(problems) - maxProblems; more > 0 {
		problems = append(slices.Clip(problems[:min(len(problems), maxProblems)]), Problem{Message: fmt.Sprintf("and %d more problems", more)})
	}
	return &Error{Problems: problems}
}

// discover returns the tables of the commit; what cannot be one is a problem.
func (b *builder) discover(ctx context.Context, r objects.Reader, root objects.OID) ([]table.Table, error) {
	tables, err := table.DiscoverAll(ctx, r, root)
	var bad *table.Error
	if errors.As(err, &bad) {
		b.problem(bad.Path, 0, "%s", bad.Reason)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the tables: %w", err)
	}
	return tables, nil
}

// unsoundSources reports tables whose files are no sound one, unless a model makes
// them: what was pushed of those counts for nothing, and after git revert or git
// merge it is often a mixture.
func (b *builder) unsoundSources(tables []table.Table) bool {
	made := make(map[string]bool, len(b.models))
	for i := range b.models {
		made[b.models[i].Name] = true
	}
	found := false
	for _, t := range tables {
		if t.Unsound != nil && !made[t.Name] {
			b.problem(t.Unsound.Path, 0, "%s", t.Unsound.Reason)
			found = true
		}
	}
	return found
}

// names resolves the names of tables as SQL does: without regard to case.
type names struct {
	tables map[string]string // lower case -> as in the plan
	made   map[string]int    // lower case -> index of the model
}

func (n *names) find(name string) (string, bool) {
	t, ok := n.tables[strings.ToLower(name)]
	return t, ok
}

func (n *names) known() []string { return slices.Sorted(maps.Values(n.tables)) }

func (n *names) sources() []string {
	var sources []string
	for low, name := range n.tables {
		if _, ok := n.made[low]; !ok {
			sources = append(sources, name)
		}
	}
	slices.Sort(sources)
	return sources
}

// nameTables settles which tables there are: those of the commit, and those
// that its models make.
func (b *builder) nameTables(tables []table.Table) {
	b.names = names{tables: make(map[string]string), made: make(map[string]int)}
	for _, t := range tables {
		b.names.tables[strings.ToLower(t.Name)] = t.Name
	}
	if len(b.models) > MaxModels {
		b.problem("", 0, "the commit has %d models, the limit is %d", len(b.models), MaxModels)
	}
	for i := range b.models {
		m := &b.models[i]
		low := strings.ToLower(m.Name)
		if first, ok := b.names.made[low]; ok {
			other := &b.models[first]
			b.problem(m.Path, m.Line, "table %q is already made by %s", m.Name, place(other.Path, other.Line, other.Kind))
			continue
		}
		if there, ok := b.names.tables[low]; ok && there != m.Name {
			b.problem(m.Path, m.Line, "makes table %q, but the commit has %q: SQL cannot tell them apart; use one spelling", m.Name, there)
		}
		b.names.made[low], b.names.tables[low] = i, m.Name
	}
	// A model's output replaces its directory, so no other table may be inside.
	for _, name := range b.names.known() {
		space, _, ok := strings.Cut(strings.ToLower(name), ".")
		if !ok {
			continue
		}
		if i, ok := b.names.made[space]; ok {
			m := &b.models[i]
			b.problem(m.Path, m.Line, "makes table %q, which is also the namespace of table %q", m.Name, name)
		} else if outer, there := b.names.tables[space]; there {
			if i, made := b.names.made[strings.ToLower(name)]; made {
				m := &b.models[i]
				b.problem(m.Path, m.Line, "makes table %q, whose directory would be inside of table %q", m.Name, outer)
			}
		}
	}
}

func place(path string, line int, kind string) string {
	if kind == KindPython {
		return fmt.Sprintf("%s:%d", path, line)
	}
	return path
}

// input resolves a table that a function reads. others are names that it may have too.
func (b *builder) input(file string, line int, written string, verifier bool, others ...string) (string, bool) {
	if len(written) > len(BasePrefix) && strings.EqualFold(written[:len(BasePrefix)], BasePrefix) {
		name := written[len(BasePrefix):]
		if !verifier {
			b.problem(file, line, "a model cannot read %q: only verifiers see the old tip", clip(written))
			return "", false
		}
		if err := table.ValidName(name); err != nil {
			b.problem(file, line, "reads %q: %v", clip(written), err)
			return "", false
		}
		// The old tip may have a table that the commit no longer has.
		if known, ok := b.names.find(name); ok {
			name = known
		}
		return BasePrefix + name, true
	}
	name, ok := b.names.find(written)
	for i := 0; !ok && i < len(others); i++ {
		name, ok = b.names.find(others[i])
	}
	if !ok && b.enough() {
		b.more++
		return name, ok
	}
	if at := strings.IndexByte(written, '@'); !ok && at > 0 {
		b.problem(file, line, "reads %q: models and verifiers read the tables of their own commit; only queries name revisions%s",
			clip(written), baseHint(verifier, written[:at]))
		return "", false
	}
	if !ok {
		b.problem(file, line, "reads table %q, which is neither in %s/ nor made by a model%s",
			clip(written), table.Root, spelling.DidYouMean(written, b.names.known()))
	}
	return name, ok
}

// baseHint says how a verifier reads an older state.
func baseHint(verifier bool, name string) string {
	if !verifier {
		return ""
	}
	return fmt.Sprintf(" (%s%s is the table at the old tip)", BasePrefix, clip(name))
}

// nameVerifiers refuses two verifiers of one name: reports go by it.
func (b *builder) nameVerifiers() {
	if len(b.verify) > MaxVerifiers {
		b.problem("", 0, "the commit has %d verifiers, the limit is %d", len(b.verify), MaxVerifiers)
	}
	seen := make(map[string]*Verifier)
	for i := range b.verify {
		v := &b.verify[i]
		if other, ok := seen[strings.ToLower(v.Name)]; ok {
			b.problem(v.Path, v.Line, "verifier %q is already in %s", v.Name, place(other.Path, other.Line, other.Kind))
			continue
		}
		seen[strings.ToLower(v.Name)] = v
	}
}

// digested is what a function's digest is made of. Its JSON is canonical:
// fields in this order, maps by key. The name of the model is not in it, so a
// renamed model keeps its cached results; a Python file's path is, because
// imports depend on it.
type digested struct {
	Format        int               `json:"format"`
	Kind          string            `json:"kind"`
	SQL           string            `json:"sql,omitempty"` // oid of the text
	Evidence      string            `json:"evidence,omitempty"`
	Key           []string          `json:"key,omitempty"`
	Strategy      string            `json:"strategy,omitempty"`
	PartitionedBy []string          `json:"partitioned_by,omitempty"`
	Function      string            `json:"function,omitempty"`
	Files         []digestedFile    `json:"files,omitempty"`
	Python        string            `json:"python,omitempty"`
	Packages      map[string]string `json:"packages,omitempty"`
	Types         map[string]string `json:"param_types,omitempty"` // by argument: the same value of another type is another argument
}

type digestedFile struct {
	Path string `json:"path"`
	OID  string `json:"oid"`
}

func modelCode(m *Model) objects.OID {
	return digest(digested{Kind: m.Kind, SQL: sqlOID(m.SQL), Key: m.Key, Strategy: m.Strategy, PartitionedBy: m.PartitionedBy}, &m.Declared)
}

func verifierCode(v *Verifier) objects.OID {
	return digest(digested{Kind: v.Kind, SQL: sqlOID(v.SQL), Evidence: sqlOID(v.Evidence)}, &v.Declared)
}

func sqlOID(sql string) string {
	if sql == "" {
		return ""
	}
	return plumbing.ComputeHash(plumbing.BlobObject, []byte(sql)).String()
}

func digest(d digested, f *Declared) objects.OID {
	d.Format, d.Function, d.Python, d.Packages = 1, f.Function, f.Python, f.Packages
	for _, file := range f.Files {
		d.Files = append(d.Files, digestedFile{Path: file.Path, OID: file.OID.String()})
	}
	for _, p := range f.Params {
		if p.Type != "" {
			if d.Types == nil {
				d.Types = make(map[string]string)
			}
			d.Types[p.Param] = p.Type
		}
	}
	data, err := json.Marshal(d)
	if err != nil {
		panic(err) // strings and maps of strings always have a JSON form
	}
	return plumbing.ComputeHash(plumbing.BlobObject, data)
}
