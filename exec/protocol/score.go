package protocol

// Score asks which faults in tables the verifiers notice (OpScore). The order's Inputs are the
// tables of the state; each is its own base too, so that a mutant is a push that
// brings one fault and nothing else.
type Score struct {
	Seed       uint64       `json:"seed"`        // decides which rows are hit; equal orders give equal answers
	MaxRows    int64        `json:"max_rows"`    // that are read of each table; 0 is all
	MaxMutants int          `json:"max_mutants"` // of each table; 0 is all
	Targets    []ScoreTable `json:"targets"`     // to be mutated
	Checks     []ScoreQuery `json:"checks"`      // the verifiers
	// Models are those of the state, in an order in which they can be made. One
	// without SQL cannot be made again here: its table is taken as it is.
	Models []ScoreQuery `json:"models,omitempty"`
	// Relations are columns whose values are those of another table's.
	Relations []ScoreRelation `json:"relations,omitempty"`
	// Parents are the tables to which columns may refer (OpSuggest).
	Parents []string `json:"parents,omitempty"`
	// Emit asks for mutants by name instead of running checks: for each the Inputs of
	// Wanted, cut down, as files that Mutant.Files names.
	Emit   []string `json:"emit,omitempty"`
	Wanted []Table  `json:"wanted,omitempty"`
}

// ScoreTable is a table to be mutated.
type ScoreTable struct {
	Name string   `json:"name"`
	Key  []string `json:"key,omitempty"`
}

// ScoreQuery is a verifier or a model: what it reads, "base." included, and its SQL.
type ScoreQuery struct {
	Name   string   `json:"name"`
	SQL    string   `json:"sql,omitempty"`
	Tables []string `json:"tables"`
}

// ScoreRelation says that the values of Table's Column are in column Field of table To.
type ScoreRelation struct {
	Table  string `json:"table"`
	Column string `json:"column"`
	To     string `json:"to"`
	Field  string `json:"field"`
}

// Scored is the answer to Score.
type Scored struct {
	Tables []ScoredTable `json:"tables"`
	// Unsound are checks that say nothing of mutants: they find something, or cannot be
	// evaluated, without any fault.
	Unsound []UnsoundCheck `json:"unsound,omitempty"`
}

// UnsoundCheck is a verifier that was left out.
type UnsoundCheck struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// ScoredTable holds the mutants of a table.
type ScoredTable struct {
	Name    string   `json:"name"`
	Rows    int64    `json:"rows"`               // that were read
	Cut     bool     `json:"cut,omitempty"`      // there are more rows
	Missing string   `json:"missing,omitempty"`  // why it has no mutants: it is not there, and cannot be made here
	LeftOut int      `json:"left_out,omitempty"` // mutants beyond the bound
	Mutants []Mutant `json:"mutants"`
}

// NoMutant asks Emit for the tables as they are. They come first, in a table without a name.
const NoMutant = "-"

// What became of a mutant.
const (
	MutantKilled     = "killed"     // a verifier found it
	MutantSurvived   = "survived"   // none did
	MutantEquivalent = "equivalent" // it changes nothing, and does not count
)

// Mutant is a table with one fault.
type Mutant struct {
	Name     string  `json:"name"` // "flights.delay:null", unique in the answer
	Operator string  `json:"operator"`
	Column   string  `json:"column,omitempty"`
	Fault    string  `json:"fault"` // in words, with its size
	Rows     int64   `json:"rows"`  // that are changed, gone, or new
	Status   string  `json:"status"`
	By       string  `json:"by,omitempty"`     // the verifier that killed it
	Remedy   *Remedy `json:"remedy,omitempty"` // of one that survived
	Files    []File  `json:"files,omitempty"`  // of one that was asked for by Emit
}

// File is a table that was sent as a file.
type File struct {
	Name    string   `json:"name"`
	Columns []Column `json:"columns"`
}

// Remedy is a verifier that passes on the table and kills a mutant of it: both
// were tried. One of YAML and Path is set.
type Remedy struct {
	YAML string `json:"yaml,omitempty"` // for headgate.yaml
	Path string `json:"path,omitempty"` // "verifiers/delay_range.sql"
	SQL  string `json:"sql"`            // of the verifier, or what YAML comes to
}

// Suggestion is a verifier that holds of a table.
type Suggestion struct {
	Table  string `json:"table"`
	Column string `json:"column,omitempty"`
	Kind   string `json:"kind"` // "not_null", "range", ...
	Says   string `json:"says"` // what it was inferred from
	Remedy
}
