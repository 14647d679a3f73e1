// Package policy reads headgate.yaml: which branches are gated, what functions
// may use, and what must hold of tables. It knows neither where the file comes
// from nor how its rules are enforced.
package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/headgate/headgate/exec/plan"
)

// Gate says what a push to a branch has to pass.
type Gate int

// The gates, from the weakest.
const (
	Off      Gate = iota // stored as pushed
	Advisory             // stored as pushed; a run says what it would have said
	Required             // published only by a run that passed
)

func (g Gate) String() string {
	switch g {
	case Off:
		return "off"
	case Advisory:
		return "advisory"
	case Required:
		return "required"
	default:
		return fmt.Sprintf("Gate(%d)", int(g))
	}
}

// MainBranch is gated unless a policy names it and says otherwise.
const MainBranch = "main"

// Policy is the content of a headgate.yaml, with defaults filled in.
type Policy struct {
	File     string // its name in problems
	Branches []Branch
	Sandbox  Sandbox
	Python   Python
	Tables   map[string]Table
	// Parameters are what models may take from push options, by name.
	Parameters map[string]Parameter
	// Secrets say which models get which of the lake's secrets, by its name.
	Secrets map[string]Secret
	// MinVerifierScore is the score that tables need whose verifiers, or whose columns, a push
	// changes: 0 (none) to 1.
	MinVerifierScore float64
	// Grants are nil if the file has none: then everybody with a key may push to
	// ungated branches and propose to gated ones. An empty list grants nothing.
	Grants []Grant
	// Approvals say which changes take other people's approval.
	Approvals []Approval
}

// Branch gives the branches that Pattern matches a gate.
type Branch struct {
	Pattern string // see Match
	Gate    Gate
	Line    int
}

// Sandbox holds the limits of one function, unless it declares its own.
type Sandbox struct {
	Memory   int64 // bytes; zero, as in the other limits: the file says nothing
	Output   int64 // bytes
	FileSize int64 // bytes of one file below /tmp
	Log      int64 // bytes
	CPUs     float64
	Timeout  time.Duration
	Pids     int // processes and threads
	// RecordViolations keeps what a function may not do from refusing the run: it is
	// warned about and on record.
	RecordViolations bool
	// DoubleRun makes the gate evaluate a model twice whose result is not from the
	// action cache, to find out whether it can be repeated.
	DoubleRun bool
}

// Python says what a Python function may ask for.
type Python struct {
	Default  string   // version for functions that declare none: "3.11"; "" leaves it to the server
	Packages []string // that may be declared, by their normal names; "*" is all
	Deny     []string // that no environment may hold, not as a dependency either
}

// Parameter is a value that a push option may give to models.
type Parameter struct {
	plan.Parameter
	Description string
}

// Secret says who gets a secret.
type Secret struct {
	Line   int
	Models []string // patterns of models' names
}

// Gives reports whether a model gets a secret.
func (p *Policy) Gives(secret, model string) bool {
	for _, pattern := range p.Secrets[secret].Models {
		if Match(pattern, model) {
			return true
		}
	}
	return false
}

// Table holds the rules of one table.
type Table struct {
	Line    int
	Key     []string // columns that identify a row
	KeyLine int
	Columns map[string]Column
	Rules   []plan.Rule // change rules
}

// Column holds the rules of one column.
type Column struct {
	Line  int
	Tests []plan.Test
}

// Grant allows those in Who what its other fields match. A nil field was not
// given and allows nothing.
type Grant struct {
	Line       int
	Who        []string // users and groups; "*" is everybody
	Push       []string // patterns of branches (or "refs/tags/...") that they may push to; see Action
	Propose    []string // ... propose to
	Create     []string // ... create
	Force      []string // ... rewind
	Delete     []string // ... delete
	ReadTables []string // patterns of tables that they may read
	Edit       []string // patterns of paths that they may change, see MatchPath
	Approve    []string // patterns of paths whose changes they may approve
}

// Default returns the policy of a lake without a headgate.yaml: main is gated,
// and Python functions may use the usual packages for data.
func Default() *Policy {
	return &Policy{
		File:   "headgate.yaml",
		Python: Python{Packages: []string{"duckdb", "numpy", "pandas", "polars", "pyarrow"}},
	}
}

// GateOf returns the gate of a branch ("main", "release/1"). An exact name beats
// a pattern, and a pattern with more literal characters beats one with fewer; of
// two equals the stricter gate counts. No pattern reaches main: only naming it
// changes its gate.
func (p *Policy) GateOf(branch string) Gate {
	gate, weight := Off, -1
	for _, b := range p.Branches {
		if b.Pattern == branch {
			return b.Gate
		}
		if !Match(b.Pattern, branch) {
			continue
		}
		literal := len(b.Pattern) - strings.Count(b.Pattern, "*")
		if literal > weight || literal == weight && b.Gate > gate {
			gate, weight = b.Gate, literal
		}
	}
	if branch == MainBranch {
		return Required
	}
	return gate
}

// Match reports whether name matches pattern, in which "*" stands for any
// characters, "/" too, as in a git refspec: "release/*" matches "release/1" and
// "release/1/rc". A gate that did not reach below a slash would be easy to walk around.
func Match(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	// Taking each middle part where it first occurs leaves the most for the rest.
	name = name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name = name[at+len(part):]
	}
	return true
}

// PlanSettings returns the part of the policy that a plan is made with.
func (p *Policy) PlanSettings() *plan.Settings {
	s := &plan.Settings{File: p.File, Python: p.Python.Default, Packages: p.Python.Packages, Denied: p.Python.Deny, Tables: make(map[string]plan.Rules, len(p.Tables))}
	for name, t := range p.Tables {
		rules := plan.Rules{Line: t.Line, Key: t.Key, KeyLine: t.KeyLine, Columns: make(map[string][]plan.Test, len(t.Columns)), Rules: t.Rules}
		for column, c := range t.Columns {
			if len(c.Tests) > 0 {
				rules.Columns[column] = c.Tests
			}
		}
		s.Tables[name] = rules
	}
	s.Parameters = make(map[string]plan.Parameter, len(p.Parameters))
	for name, param := range p.Parameters {
		s.Parameters[name] = param.Parameter
	}
	return s
}

// Problem is one thing wrong with a policy file.
type Problem struct {
	File    string
	Line    int // 0 if it concerns the whole file
	Message string
}

// String returns "headgate.yaml:7: message".
func (p Problem) String() string { return plan.Problem(p).String() }

// Error says that a file is no policy. It holds all problems, by line.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
