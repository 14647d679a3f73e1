// Package protocol is what the server and a sandboxed function say to each
// other: one order in, frames out. Everything that comes out is foreign bytes,
// so the reader is bounded. It does not know how a sandbox is made.
//
// The order is one JSON document on the function's standard input, ended by
// end of file; a function that has none yet waits there, which is what makes a
// warm sandbox. The answer is a sequence of frames on its standard output (see
// Frame); standard error is the log, free text.
package protocol

import (
	"encoding/json"
)

// Op names what a function is asked to do.
type Op string

// What the worker (DuckDB) answers.
const (
	// OpTables lists the tables that each query of Queries reads -> Answer.Tables.
	OpTables Op = "tables"
	// OpModel evaluates SQL over Inputs and cuts the result into parts -> files and Answer.Snapshot.
	OpModel Op = "model"
	// OpCut cuts Files (Parquet, CSV, JSON lines, Arrow) into parts -> files and Answer.Snapshot.
	OpCut Op = "cut"
	// OpDescribe reads the parts of one table as they are -> Answer.Snapshot, no files.
	OpDescribe Op = "describe"
	// OpVerify runs each query of Queries; its rows are violations -> Answer.Checks, and a
	// file "<name>.parquet" for each query that has violations.
	OpVerify Op = "verify"
	// OpScore makes mutants of tables and runs verifiers over each -> Answer.Score.
	OpScore Op = "score"
	// OpSuggest lists verifiers that hold of Score's targets -> Answer.Suggestions.
	OpSuggest Op = "suggest"
	// OpProject cuts each input down to its Select and Filter -> one Parquet file each, and Answer.Projected.
	OpProject Op = "project"
	// OpTypes answers with what a table holds for each type of Types -> Answer.Types.
	OpTypes Op = "types"
	// OpMerge merges two versions of a table that came of one -> files, Answer.Snapshot
	// and Answer.Merged.
	OpMerge Op = "merge"
	// OpExport sends the rows of its one input in Format -> one file "rows" in pieces, a frame each, and Answer.Rows.
	OpExport Op = "export"
	// OpQuery runs SQL and sends its rows -> one file "rows" in Format, Answer.Rows.
	OpQuery Op = "query"
	// OpDiff compares the rows of Inputs "old" and "new", the parts in which two
	// states of a table differ, as Diff says -> Answer.Diff, and in Format "json" files
	// "rows-000000.json" and so on with a DiffRow a line, in "parquet" one file "diff.parquet".
	OpDiff Op = "diff"
)

// What the Python harness answers.
const (
	// OpDeclare reads the declarations of Sources statically -> Answer.Declared.
	OpDeclare Op = "declare"
	// OpCompile compiles the modules below Path that are named by their numbers in
	// Files, which holds the names that tracebacks show -> files "<number>.pyc", Answer.Rows.
	OpCompile Op = "compile"
	// OpPyModel calls Function of Module with Inputs -> one file "output.parquet", Answer.Rows.
	OpPyModel Op = "py-model"
	// OpPyExpect calls expectation Function with Inputs -> Answer.Checks with one entry.
	OpPyExpect Op = "py-expect"
)

// Order is what a function is asked to do. Paths are as the function sees them.
type Order struct {
	Op     Op      `json:"op"`
	Inputs []Table `json:"inputs,omitempty"`

	// SQL and its settings (OpModel, OpQuery).
	SQL     string   `json:"sql,omitempty"`
	Key     []string `json:"key,omitempty"`      // OpModel, OpCut: rows are ordered by it, and it must be unique and not null
	Format  string   `json:"format,omitempty"`   // OpQuery: "table", "csv", "json" (lines), "parquet"; OpExport: all but the first, "arrow" (IPC file), "arrows" (IPC stream); OpDiff: "json", "parquet", or "" for the counts alone
	MaxRows int64    `json:"max_rows,omitempty"` // OpQuery, OpDiff: send no more than so many rows; OpVerify: rows kept per violations file
	Queries []Query  `json:"queries,omitempty"`  // OpTables, OpVerify

	Score *Score `json:"score,omitempty"` // OpScore

	Types []string `json:"types,omitempty"` // OpTypes: as somebody wrote them: "int", "text", "decimal(9,2)"

	Diff *Diff `json:"diff,omitempty"` // OpDiff

	// Files to cut (OpCut).
	Files      []string `json:"files,omitempty"`       // OpCut, OpCompile
	FileFormat string   `json:"file_format,omitempty"` // "parquet", "csv", "json", "arrow" (IPC, file or stream)
	KeepOrder  bool     `json:"keep_order,omitempty"`  // keep the rows' order instead of the canonical one (source tables)

	CSV *CSV `json:"csv,omitempty"` // OpCut of CSV: what is not to be sniffed

	// Progress asks for notes of how far the order is: "reading 40%", "part 3 of 9" (OpCut, OpExport).
	Progress bool `json:"progress,omitempty"`

	// What becomes of the result (OpModel, OpCut). With a Prior, the answer is the
	// whole table that results. APPEND without a key reads the last part of the prior
	// only: then it alone is given, and the answer is what follows those before it.
	Strategy      string   `json:"strategy,omitempty"` // "APPEND" or "OVERWRITE_PARTITIONS"
	Prior         *Table   `json:"prior,omitempty"`
	PartitionedBy []string `json:"partitioned_by,omitempty"` // terms, see ParsePartition

	Merge *Merge `json:"merge,omitempty"` // OpMerge; Key is the merged table's

	// Python.
	Sources  []Source `json:"sources,omitempty"`  // OpDeclare: the files to read declarations from
	Path     string   `json:"path,omitempty"`     // OpPyModel, OpPyExpect: root directory of the lake's Python files
	Module   string   `json:"module,omitempty"`   // file below Path: "models/enrich.py"
	Function string   `json:"function,omitempty"` // the decorated function's name
	// Params are the values of parameters: arguments of a Python function, variables
	// of a SQL model. ParamTypes holds their types where one is declared (plan.ParamTypes).
	Params     map[string]any    `json:"params,omitempty"`
	ParamTypes map[string]string `json:"param_types,omitempty"`
	// Cases (OpPyExpect) are the Inputs of several calls, which have a check each.
	Cases [][]Table `json:"cases,omitempty"`
	// Secrets are arguments whose values must not be repeated to anybody.
	Secrets map[string]string `json:"secrets,omitempty"`

	// Limits that the function itself should keep to, below the sandbox's own.
	Threads     int    `json:"threads,omitempty"`      // DuckDB threads; 1 if zero, since parallel float sums are not repeatable
	MemoryLimit int64  `json:"memory_limit,omitempty"` // bytes DuckDB may use
	TempDir     string `json:"temp_dir,omitempty"`     // where DuckDB spills and parts are staged; default /tmp
}

// CSV is what somebody says of CSV files; what is left out is sniffed.
type CSV struct {
	Delimiter       string            `json:"delimiter,omitempty"`        // 1 to 4 bytes
	Quote           *string           `json:"quote,omitempty"`            // one character, or "" for none
	Escape          *string           `json:"escape,omitempty"`           // the same
	Header          *bool             `json:"header,omitempty"`           // the first row has the columns' names
	Skip            *int              `json:"skip,omitempty"`             // lines in front of the first row
	Comment         string            `json:"comment,omitempty"`          // what lines that count for nothing begin with
	Null            []string          `json:"null,omitempty"`             // texts that are NULL
	DateFormat      string            `json:"date_format,omitempty"`      // strftime's: "%d.%m.%Y"
	TimestampFormat string            `json:"timestamp_format,omitempty"` // the same
	DecimalComma    bool              `json:"decimal_comma,omitempty"`    // 1,5 is a number
	Encoding        string            `json:"encoding,omitempty"`         // "utf-8", "utf-16", "latin-1"
	Types           map[string]string `json:"types,omitempty"`            // of columns, as DuckDB names them
}

// Table is one input table as the function sees it.
type Table struct {
	Name    string   `json:"name"`            // "flights", "ns.flights", "base.flights"
	Files   []string `json:"files"`           // Parquet parts in order
	Param   string   `json:"param,omitempty"` // Python: the function's argument
	Columns []Column `json:"columns"`         // the schema, which also serves a table without parts
	Select  []string `json:"select,omitempty"`
	Filter  string   `json:"filter,omitempty"` // SQL boolean expression over the table's columns
}

// Column is a column's name and DuckDB type.
type Column struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Nullable bool   `json:"nullable"`
}

// Query is one named SQL text.
type Query struct {
	Name string `json:"name"`
	SQL  string `json:"sql"`
	// Evidence (OpVerify) marks a query whose first row says in its column "finding" what
	// it has found: Check.Message. Its violating rows are then those of Evidence,
	// unless that has none.
	Evidence string `json:"evidence,omitempty"`
}

// Source is one Python file, inline.
type Source struct {
	Path string `json:"path"` // "models/enrich.py"
	Text string `json:"text"`
}

// Answer is the one JSON document that ends a function's frames. Exactly one of
// Error and the result of the order's Op is set.
type Answer struct {
	Error    *UserError    `json:"error,omitempty"`
	Tables   []QueryTables `json:"tables,omitempty"`
	Snapshot *Snapshot     `json:"snapshot,omitempty"`
	Checks   []Check       `json:"checks,omitempty"`
	Rows     int64         `json:"rows,omitempty"`
	Columns  []Column      `json:"columns,omitempty"` // OpQuery, OpPyModel
	Declared []Declaration `json:"declared,omitempty"`
	Score    *Scored       `json:"score,omitempty"`

	Suggestions []Suggestion `json:"suggestions,omitempty"`

	Merged    *Merged      `json:"merged,omitempty"`    // OpMerge
	Types     []string     `json:"types,omitempty"`     // OpTypes: DuckDB's names, one per type, in order
	Projected []Projection `json:"projected,omitempty"` // one per input, in order
	Diff      *DiffCounts  `json:"diff,omitempty"`      // OpDiff
}

// Projection is an input as it was cut down.
type Projection struct {
	File    string   `json:"file"` // the file frame that carried it
	Columns []Column `json:"columns"`
	Rows    int64    `json:"rows"`
}

// UserError is a failure of the user's own code or data, as it is shown to them.
type UserError struct {
	Kind      string `json:"kind"` // "sql", "python", "data", "memory", "declaration"
	Message   string `json:"message"`
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitempty"`
	Column    int    `json:"column,omitempty"`
	Traceback string `json:"traceback,omitempty"` // starts at the user's file
	Query     string `json:"query,omitempty"`     // OpTables, OpVerify: the Query.Name that failed
}

func (e *UserError) Error() string { return e.Message }

// QueryTables is what one query reads, as written: "flights", "base.flights".
type QueryTables struct {
	Name      string      `json:"name"`
	Tables    []string    `json:"tables"`
	Variables []string    `json:"variables,omitempty"` // named by getvariable()
	Clock     []ClockRead `json:"clock,omitempty"`
	Error     *UserError  `json:"error,omitempty"` // a syntax error, or a statement that is not a SELECT
}

// ClockRead is a place where a query reads the clock: its result is not decided
// by what it reads of tables.
type ClockRead struct {
	Name   string `json:"name"` // "now()", "current_date"
	Line   int    `json:"line"`
	Column int    `json:"column"`
	// Word: a name without parentheses, which is a column where there is one of that name.
	Word bool `json:"word,omitempty"`
}

// Snapshot describes a table as the worker cut or found it.
type Snapshot struct {
	Columns []Column `json:"columns"`
	Parts   []Part   `json:"parts"`
}

// Part is one Parquet file of a snapshot, in order. File is the name of the
// file frame that carried it, or the input path of a part that is there already:
// one that OpDescribe found, or one of the order's Prior that stays as it is,
// whose Rows and Stats are known and not repeated.
type Part struct {
	File  string        `json:"file"`
	Rows  int64         `json:"rows"`
	Stats []ColumnStats `json:"stats,omitempty"` // one per column, in column order
}

// ColumnStats holds a part's bounds of one column. Min and Max are JSON values
// (numbers, strings, booleans; text in DuckDB's VARCHAR rendering for other
// types), absent where all rows are NULL or the type has no order.
type ColumnStats struct {
	Nulls int64           `json:"nulls"`
	Min   json.RawMessage `json:"min,omitempty"`
	Max   json.RawMessage `json:"max,omitempty"`
}

// Check is the result of one verifier query or expectation.
type Check struct {
	Name       string           `json:"name"`
	Violations int64            `json:"violations"`        // rows returned; 0 is a pass
	Sample     []map[string]any `json:"sample,omitempty"`  // the first few rows, for the eye
	Columns    []string         `json:"columns,omitempty"` // the sample's columns in order
	File       string           `json:"file,omitempty"`    // file frame with the violating rows
	Message    string           `json:"message,omitempty"` // an expectation or a rule: what it said
	Error      *UserError       `json:"error,omitempty"`   // it could not be evaluated
}

// Declaration is one decorated Python function, or one schema class, read from
// literals in the AST.
type Declaration struct {
	Path          string            `json:"path"`     // "models/enrich.py"
	Line          int               `json:"line"`     // of the def
	Function      string            `json:"function"` // its Python name
	Kind          string            `json:"kind"`     // "model", "expectation", or "schema" for a class, which declares Columns only
	Name          string            `json:"name"`     // table name of a model (default: the function's name)
	Columns       []string          `json:"columns,omitempty"`
	Key           []string          `json:"key,omitempty"`
	Strategy      string            `json:"strategy,omitempty"`       // "REPLACE" (default), "APPEND", ...
	PartitionedBy []string          `json:"partitioned_by,omitempty"` // for "OVERWRITE_PARTITIONS"
	Types         map[string]string `json:"types,omitempty"`          // of Columns that declare one, as DuckDB names it
	NotNull       []string          `json:"not_null,omitempty"`       // of Columns that have no NULL
	Python        string            `json:"python,omitempty"`         // "3.11"
	Packages      map[string]string `json:"packages,omitempty"`
	Memory        string            `json:"memory,omitempty"`
	Timeout       string            `json:"timeout,omitempty"`
	CPUs          float64           `json:"cpus,omitempty"`
	Pids          int               `json:"pids,omitempty"`
	Inputs        []DeclaredInput   `json:"inputs,omitempty"`
	Params        []DeclaredParam   `json:"params,omitempty"`
	Severity      string            `json:"severity,omitempty"`    // of an expectation: "error" (default), "warn"
	Secrets       []DeclaredParam   `json:"secrets,omitempty"`     // default arguments headgate.Secret(...)
	LocalFiles    []string          `json:"local_files,omitempty"` // other files of Sources that this one imports, transitively
	Error         *UserError        `json:"error,omitempty"`
}

// DeclaredInput is a default argument headgate.Model(...).
type DeclaredInput struct {
	Param   string   `json:"param"`
	Table   string   `json:"table"`
	Columns []string `json:"columns,omitempty"`
	Filter  string   `json:"filter,omitempty"`
}

// DeclaredParam is a default argument headgate.Parameter(...) or headgate.Secret(...).
type DeclaredParam struct {
	Param string `json:"param"`
	Name  string `json:"name"`
}
