package plan

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/spelling"
	"github.com/headgate/headgate/objects/table"
)

// Settings of SQL files.
var (
	modelSettings    = []string{"columns", "cpus", "key", "memory", "name", "params", "partitioned_by", "strategy", "timeout"}
	verifierSettings = []string{"cpus", "memory", "name", "severity", "timeout"}
)

// query is a SQL function together with the tables it names.
type query struct {
	model  int // index into builder.models, or -1
	verify int // index into builder.verify, or -1
	file   *code
	tables []string
}

// sqlFiles adds the models and verifiers of SQL files, inputs yet unresolved.
func (b *builder) sqlFiles(ctx context.Context, files []code) ([]query, error) {
	var queries []query
	var ask []protocol.Query
	for i := range files {
		f := &files[i]
		q := query{model: -1, verify: -1, file: f}
		if f.mayModel() {
			q.model = len(b.models)
			if f.project != nil {
				b.models = append(b.models, b.projectModel(f, q.model))
			} else {
				b.models = append(b.models, b.sqlModel(f))
			}
		} else {
			b.verify = append(b.verify, b.sqlVerifier(f))
			q.verify = len(b.verify) - 1
		}
		queries = append(queries, q)
		ask = append(ask, protocol.Query{Name: f.Path, SQL: f.text})
	}
	if len(ask) == 0 {
		return nil, nil
	}
	answers, err := b.d.Tables(ctx, ask)
	if err != nil {
		return nil, err
	}
	if len(answers) != len(ask) {
		return nil, fmt.Errorf("asked for the tables of %d queries, have %d answers", len(ask), len(answers))
	}
	for i, a := range answers {
		if a.Error != nil {
			b.problem(files[i].Path, max(1, a.Error.Line), "%s", a.Error.Message)
			continue
		}
		if len(a.Tables) > maxNames {
			b.problem(files[i].Path, 1, "reads %d tables, the limit is %d", len(a.Tables), maxNames)
			continue
		}
		queries[i].tables = a.Tables
		var params []Param
		if m := queries[i].model; m >= 0 {
			params = b.models[m].Params
			b.models[m].Clock = a.Clock
		} else {
			b.verify[queries[i].verify].Clock = a.Clock
		}
		b.checkVariables(&files[i], params, a.Variables)
	}
	return queries, nil
}

func (b *builder) sqlModel(f *code) Model {
	h := b.header(f, modelSettings)
	m := Model{Path: f.Path, Line: 1, Kind: KindSQL, SQL: f.text, Key: h.key, Name: h.name}
	line := h.lines["name"]
	if m.Name == "" {
		m.Name = dotted(f.Path)
		if strings.Count(m.Name, ".") > 1 && strings.Count(f.Path, "/") > 2 {
			b.problem(f.Path, 0, "a table has at most one namespace, so this path names none; add: -- headgate: name=<table>")
			return m
		}
	}
	if err := table.ValidName(m.Name); err != nil {
		b.problem(f.Path, line, "%v", err)
	}
	m.Strategy = b.strategy(f.Path, h.lines["strategy"], h.rest["strategy"])
	m.PartitionedBy = b.partitionedBy(f.Path, h.lines["partitioned_by"], m.Strategy, h.partitionedBy)
	if len(h.partitionedBy) > 0 && m.Strategy != StrategyOverwritePartitions {
		b.problem(f.Path, h.lines["partitioned_by"], "partitioned_by has a meaning for strategy %s only, this one is %s", StrategyOverwritePartitions, m.Strategy)
	}
	b.checkKey(f.Path, h.lines["key"], m.Key)
	m.Columns, m.Types = h.columns, h.types
	b.checkContract(f.Path, h.lines["columns"], m.Columns)
	m.Params = b.sqlParams(f.Path, h.lines["params"], h.params)
	m.Resources = b.headerResources(f, h)
	return m
}

func (b *builder) sqlVerifier(f *code) Verifier {
	h := b.header(f, verifierSettings)
	v := Verifier{Path: f.Path, Line: 1, Kind: KindSQL, SQL: f.text, Name: h.name}
	if v.Name == "" {
		v.Name = dotted(f.Path)
	}
	b.checkVerifierName(f.Path, h.lines["name"], v.Name)
	v.Resources = b.headerResources(f, h)
	v.Severity = b.severity(f.Path, h.lines["severity"], h.rest["severity"])
	return v
}

// severity returns the severity that s names; that of an error if it is empty.
func (b *builder) severity(file string, line int, s string) Severity {
	if s == "" {
		return SeverityError
	}
	severity, err := ParseSeverity(s)
	if err != nil {
		b.problem(file, line, "severity: %v", err)
	}
	return severity
}

func (b *builder) header(f *code, known []string) header {
	h := parseHeader(f.text, known)
	for _, fault := range h.faults {
		b.problem(f.Path, fault.line, "%s", fault.message)
	}
	return h
}

// dotted returns "ns.x" for models/ns/x.sql.
func dotted(path string) string {
	_, rest, _ := strings.Cut(path, "/")
	return strings.ReplaceAll(strings.TrimSuffix(rest, ".sql"), "/", ".")
}

var verifierName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,149}$`)

func (b *builder) checkVerifierName(file string, line int, name string) {
	if !verifierName.MatchString(name) {
		b.problem(file, line, "verifier name %q: want letters, digits, '_', '-' and '.'", clip(name))
	}
}

var strategies = []string{StrategyReplace, StrategyAppend, StrategyOverwritePartitions, StrategyNone}

// strategy returns the strategy that s names in any case; REPLACE if it is empty.
func (b *builder) strategy(file string, line int, s string) string {
	if s == "" {
		return StrategyReplace
	}
	s = strings.ToUpper(s)
	if !slices.Contains(strategies, s) {
		b.problem(file, line, "there is no strategy %s%s", clip(s), spelling.MeantOr(s, strategies))
		return StrategyReplace
	}
	return s
}

// partitionedBy checks the terms by which a strategy tells partitions apart. They
// decide nothing for other strategies, so there they are no part of the model.
func (b *builder) partitionedBy(file string, line int, strategy string, terms []string) []string {
	if strategy != StrategyOverwritePartitions {
		return nil
	}
	if len(terms) == 0 {
		b.problem(file, line, "strategy %s needs partitioned_by: the columns, or year(...), month(...), day(...), hour(...) of them, that tell partitions apart", strategy)
	}
	if !b.distinct(file, line, "partitioned_by names", terms, maxTerms) {
		return nil
	}
	for _, term := range terms {
		if _, err := protocol.ParsePartition(term); err != nil {
			b.problem(file, line, "partitioned_by: %v", err)
		}
	}
	return terms
}

// checkContract checks the columns that a model promises.
func (b *builder) checkContract(file string, line int, columns []string) {
	b.distinct(file, line, "columns names", columns, maxColumns)
}

func (b *builder) checkKey(file string, line int, key []string) {
	b.distinct(file, line, "key names column", key, maxColumns)
}

// headerResources returns the limits that a SQL file's header sets.
func (b *builder) headerResources(f *code, h header) Resources {
	r := b.resources(f.Path, h.lines["memory"], h.rest["memory"], h.lines["timeout"], h.rest["timeout"])
	if text := h.rest["cpus"]; text != "" {
		cpus, err := strconv.ParseFloat(text, 64)
		if err != nil {
			cpus = -1
		}
		r.CPUs = b.cpus(f.Path, h.lines["cpus"], text, cpus)
	}
	return r
}

// Bounds of what a function may ask for. Below them it could not start; above them
// it is a typing error.
const (
	minCPUs, maxCPUs = 0.1, 64
	minPids, maxPids = 16, 100_000
)

func (b *builder) cpus(file string, line int, text string, cpus float64) float64 {
	if !(cpus >= minCPUs && cpus <= maxCPUs) {
		b.problem(file, line, "cpus: %q is not a number between %g and %d", clip(text), minCPUs, maxCPUs)
		return 0
	}
	return cpus
}

func (b *builder) resources(file string, memoryLine int, memory string, timeoutLine int, timeout string) Resources {
	var r Resources
	var err error
	if memory != "" {
		if r.Memory, err = ParseSize(memory); err != nil {
			b.problem(file, memoryLine, "memory: %v", err)
		}
	}
	if timeout != "" {
		if r.Timeout, err = ParseTimeout(timeout); err != nil {
			b.problem(file, timeoutLine, "timeout: %v", err)
		}
	}
	return r
}

// resolve gives every function its inputs.
func (b *builder) resolve(queries []query, functions []function) {
	for _, q := range queries {
		seen := make(map[string]bool)
		var inputs []Input
		for _, written := range q.tables {
			line := 0
			if _, known := b.names.find(written); !known && !b.enough() {
				line = lineOf(q.file.text, written) // it will be told
			}
			name, ok := b.input(q.file.Path, line, written, q.verify >= 0)
			if ok && !seen[name] {
				seen[name] = true
				inputs = append(inputs, Input{Table: name})
			}
		}
		slices.SortFunc(inputs, func(x, y Input) int { return strings.Compare(x.Table, y.Table) })
		if q.model >= 0 {
			b.models[q.model].Inputs = inputs
		} else {
			b.verify[q.verify].Inputs = inputs
		}
	}
	for _, f := range functions {
		inputs := make([]Input, 0, len(f.inputs))
		for _, in := range f.inputs {
			var others []string
			if f.project != nil {
				others = f.project.alternatives(in.Table)
			}
			name, ok := b.input(f.path, f.line, in.Table, f.verify >= 0, others...)
			if ok {
				in.Table = name
				inputs = append(inputs, in)
			}
		}
		if f.model >= 0 {
			b.models[f.model].Inputs = inputs
		} else {
			b.verify[f.verify].Inputs = inputs
		}
	}
}

// lineOf returns the first line of sql, comments left aside, that has the last
// part of a table's name as a word. The parser that found the table does not say where.
func lineOf(sql, name string) int {
	word := strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
	number := 0
	for line := range strings.SplitSeq(sql, "\n") {
		number++
		line, _, _ = strings.Cut(strings.ToLower(line), "--")
		for at := 0; word != ""; {
			i := strings.Index(line[at:], word)
			if i < 0 {
				break
			}
			from, to := at+i, at+i+len(word)
			if (from == 0 || !wordByte(line[from-1])) && (to == len(line) || !wordByte(line[to])) {
				return number
			}
			at = to
		}
	}
	return 0
}

func wordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 0x80
}
