// Package plan reads a commit's models and verifiers and orders them: what has
// to run, on which tables, and in which order. It executes nothing; what a query
// or a Python file declares is read by a Declarer. It does not know what a
// sandbox, a run or a policy file is.
package plan

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/spelling"
	"github.com/headgate/headgate/objects"
)

// The kinds of functions.
const (
	KindSQL    = "sql"    // one query in a .sql file
	KindPython = "python" // one decorated function in a .py file
	KindColumn = "column" // a column test, a change rule or a key of the policy, compiled to SQL
)

// What becomes of a model's output; docs/runtime.md says more of each.
const (
	StrategyReplace             = "REPLACE"              // it is the whole table
	StrategyAppend              = "APPEND"               // it follows the rows of the table at the base
	StrategyOverwritePartitions = "OVERWRITE_PARTITIONS" // it replaces the partitions that occur in it
	StrategyNone                = "NONE"                 // it is not stored; other models of the run read it
)

// Plan is everything a run has to do.
type Plan struct {
	Models    []Model    // in topological order; equal commits give equal orders
	Verifiers []Verifier // SQL files, then expectations, then column tests; each in a fixed order
	Sources   []string   // tables of the commit that no model makes, sorted
}

// Model is a function from tables to the table Name.
type Model struct {
	Name string // of the table: "daily_delay", "mart.daily_delay"
	Path string // "models/daily_delay.sql"
	Line int    // of the function in Path; 1 for SQL
	Kind string // KindSQL or KindPython

	// Code is the digest of everything in the commit, apart from the inputs'
	// rows, that decides what the model gives. It does not hold the name.
	Code objects.OID

	SQL      string // the whole file, so that the lines of errors are the file's
	Strategy string // StrategyReplace ...
	Key      []string
	// PartitionedBy are the columns whose values tell partitions apart, for
	// StrategyOverwritePartitions.
	PartitionedBy []string
	Inputs        []Input // sorted by Table for SQL, in argument order for Python
	// Clock is where a SQL model reads the clock, in the order of the text. It is
	// decided by SQL alone, and so is not in Code by itself.
	Clock []protocol.ClockRead

	Declared // of a Python model; of a SQL model only its Params
	Resources
}

// Declared is what a Python model or expectation adds.
type Declared struct {
	Function   string            // its Python name
	Files      []File            // the function's file first, then those it imports, sorted
	LocalFiles []string          // paths of the imported ones
	Params     []Param           // in argument order
	Secrets    []Param           // of a model, in argument order; Name is the lake's name of the secret
	Columns    []string          // exactly the columns that a model must return; nil: any
	Types      map[string]string // of Columns that declare one, as DuckDB names it
	NotNull    []string          // of Columns that a model must return without NULLs; each is a verifier too
	Python     string            // version, "3.11"; "" for the default
	Packages   map[string]string // normalised name -> specifiers: "==2.2.2"
}

// Resources are a function's own limits; zero means the policy's.
type Resources struct {
	Memory  int64 // bytes
	Timeout time.Duration
	CPUs    float64
	Pids    int // processes and threads
}

// File is a file of the commit.
type File struct {
	Path string
	OID  objects.OID
}

// Severity says what becomes of a run whose verifier finds violations.
type Severity string

// The severities. A verifier that cannot be evaluated refuses, whatever its own is.
const (
	SeverityError Severity = ""     // it refuses
	SeverityWarn  Severity = "warn" // it is a warning, which refuses under -o strict only
)

// ParseSeverity reads "error" or "warn", in any case.
func ParseSeverity(text string) (Severity, error) {
	switch strings.ToLower(text) {
	case "error":
		return SeverityError, nil
	case "warn":
		return SeverityWarn, nil
	}
	return SeverityError, fmt.Errorf("%q is no severity, want error or warn%s", clip(text), spelling.DidYouMean(text, []string{"error", "warn"}))
}

// Input is a table that a function reads.
type Input struct {
	Table   string   // its name as in the plan; in verifiers also "base.<name>"
	Param   string   // Python: the argument that receives it
	Columns []string // Python: only these, in this order
	Filter  string   // Python: a SQL boolean expression over the table's columns

	Variables []string // parameters that Filter reads, by name: see Param.IsVariable
}

// Param is a value that a push option gives to a function.
type Param struct {
	Param   string // argument of a Python function, variable of a SQL model
	Name    string // as in "param.<name>=<value>"
	Type    string // as the settings declare it; "" if they do not
	Default any    // as ParseParam returns it; nil if there is none
}

// Verifier is a check that must hold. For KindSQL and KindColumn the rows of
// SQL are the violations.
type Verifier struct {
	Name string // unique in a plan: "no_future", "flights.origin:relationships"
	Path string // the policy file for a column test
	Line int
	Kind string
	Code objects.OID // see Model.Code; it does not hold Severity, on which no verdict depends

	Severity      Severity
	SQL           string
	Inputs        []Input
	Clock         []protocol.ClockRead // see Model.Clock
	Table, Column string               // of a column test or a rule

	Test *Test // set for a column test
	// Rule is set for a change rule. SQL then gives one row with its finding, and
	// Evidence the rows that show it.
	Rule     *Rule
	Evidence string

	Declared
	Resources
}

// BasePrefix starts the name of an input that is the table at the old tip.
const BasePrefix = "base."

// Declarer reads what code declares, without running it. Its results depend on
// its arguments alone, so an implementation may cache them. An error means that
// it could not read; what is wrong with the code itself is in the results.
type Declarer interface {
	// Tables returns one result per query, in order.
	Tables(ctx context.Context, queries []protocol.Query) ([]protocol.QueryTables, error)
	// Declare returns the declarations of all sources.
	Declare(ctx context.Context, sources []protocol.Source) ([]protocol.Declaration, error)
}

// Settings are the policy's part of a plan. The zero value allows no package
// and has no tests.
type Settings struct {
	File     string           // where problems of the settings are: "headgate.yaml"
	Tables   map[string]Rules // by table name
	Python   string           // version of functions that declare none; "" leaves it to the server
	Packages []string         // that a Python function may declare; "*" is all
	Denied   []string         // that it may not, whatever Packages says

	Parameters map[string]Parameter // by name; others may be used too, without a type and a default
}

// Rules are what the policy says of one table.
type Rules struct {
	Line    int
	Key     []string
	KeyLine int
	Columns map[string][]Test
	Rules   []Rule // change rules, in the order of the file
}

// TestKind names a column test.
type TestKind string

// The column tests. A NULL passes every test but NotNull.
const (
	NotNull        TestKind = "not_null"
	Unique         TestKind = "unique"
	AcceptedValues TestKind = "accepted_values"
	Relationships  TestKind = "relationships"
)

// Test is a rule that every row of a table must satisfy in one column.
type Test struct {
	Kind TestKind
	Line int

	Severity Severity

	Values []any  // AcceptedValues: string, int64, uint64, float64 or bool
	To     string // Relationships: every value is in column Field of table To
	Field  string
}

// Problem is one thing wrong with the code of a commit.
type Problem struct {
	File    string
	Line    int // 0 if it concerns the whole file
	Message string
}

// String returns "models/a.sql:3: message".
func (p Problem) String() string {
	switch {
	case p.File == "":
		return p.Message
	case p.Line == 0:
		return p.File + ": " + p.Message
	default:
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
	}
}

// Error says that a commit's code makes no plan. Problems holds everything that
// could be found in one pass, sorted by file and line.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
