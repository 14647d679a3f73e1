// Package proof is what a gate commit carries to be believed: a statement of how
// it came about, the signed envelope around it, and the git note that holds both.
// It knows their bytes and checks their form; what of a statement is true of a
// commit is not known here.
package proof

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
)

// What a statement says that it is. The statement is in-toto's (in-toto Attestation
// Framework, Statement v1), the predicate is SLSA's (Provenance v1) with the fields
// that SLSA leaves to a builder, whose names begin with "headgate_".
const (
	StatementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://slsa.dev/provenance/v1"
	BuildType     = "https://github.com/headgate/headgate/blob/main/docs/formats.md#the-proof-of-a-gate-commit"
)

// Names of the subjects and dependencies that every statement has.
const (
	NameGate     = "gate"
	NameBase     = "base"
	NameProposal = "proposal"
)

// The algorithms of digests, as in-toto names them.
const (
	GitCommit = "gitCommit"
	GitTree   = "gitTree"
)

// Statement is an in-toto statement of one gate commit.
type Statement struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"` // the gate commit, then every derived table of it
	PredicateType string     `json:"predicateType"`
	Predicate     Provenance `json:"predicate"`
}

// Resource is an in-toto ResourceDescriptor.
type Resource struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest,omitempty"`
}

// Provenance is SLSA's predicate. The fields of Headgate say per function what
// SLSA has no place for.
type Provenance struct {
	BuildDefinition Definition `json:"buildDefinition"`
	RunDetails      Details    `json:"runDetails"`

	Models          []Model       `json:"headgate_models"`
	Verifiers       []Verifier    `json:"headgate_verifiers"`
	VerifierChanges []Change      `json:"headgate_verifier_changes,omitempty"`
	Environments    []Environment `json:"headgate_environments,omitempty"`
	Warnings        []string      `json:"headgate_warnings,omitempty"`
}

// Definition is what the run was given.
type Definition struct {
	BuildType string   `json:"buildType"` // BuildType
	External  External `json:"externalParameters"`
	Internal  Internal `json:"internalParameters"`
	// Dependencies are the base, the proposal, and the source tables, as
	// tables/<name> with their snapshots.
	Dependencies []Resource `json:"resolvedDependencies"`
}

// External is what the pusher chose.
type External struct {
	Lake     string `json:"lake"`
	Target   string `json:"target"` // full ref name
	PushedBy string `json:"pushedBy"`
	Key      string `json:"key,omitempty"` // fingerprint of the key that authenticated
	Strict   bool   `json:"strict,omitempty"`
	NoCache  bool   `json:"noCache,omitempty"`
}

// What became of the verifiers of the base.
const (
	BaseJudged     = "judged"     // those that the proposal does not have as they are there judged it too
	BaseNone       = "none"       // there is no base, or the branch is not gated
	BaseUnreadable = "unreadable" // they make no plan; an administrator pushed, or no gate had passed them
)

// Internal is what the server chose.
type Internal struct {
	Sandbox       string `json:"sandbox"` // "gvisor"
	Limits        any    `json:"limits"`  // of functions that declare none, as in run.json
	BaseVerifiers string `json:"baseVerifiers"`
}

// Details are of the run itself.
type Details struct {
	Builder   Builder    `json:"builder"`
	Metadata  Metadata   `json:"metadata"`
	Byproduct []Resource `json:"byproducts"` // the run record
}

// Builder is the server.
type Builder struct {
	ID      string            `json:"id"` // BuilderID of the gate key
	Version map[string]string `json:"version,omitempty"`
}

// BuilderID is the URI of the server whose gate key has a fingerprint.
func BuilderID(fingerprint string) string { return "headgate-gate:" + fingerprint }

// Metadata names the run.
type Metadata struct {
	InvocationID string    `json:"invocationId"` // the run id
	Started      time.Time `json:"startedOn"`
	Finished     time.Time `json:"finishedOn"`
}

// Model says how a derived table came about; see the Model trailer.
type Model struct {
	Name             string            `json:"name"`
	Path             string            `json:"path"`
	Code             string            `json:"code"`
	Environment      string            `json:"environment"`
	Inputs           map[string]string `json:"inputs"` // table -> snapshot
	Params           json.RawMessage   `json:"params,omitempty"`
	Strategy         string            `json:"strategy,omitempty"`
	Prior            string            `json:"prior,omitempty"`
	Output           string            `json:"output"` // snapshot
	Rows             int64             `json:"rows"`
	Cached           bool              `json:"cached"`
	NotDeterministic bool              `json:"notDeterministic,omitempty"`
	Secrets          []string          `json:"secrets,omitempty"` // names
}

// Verifier is a check that held.
type Verifier struct {
	Name       string `json:"name"`
	Path       string `json:"path,omitempty"`
	AtBase     bool   `json:"atBase,omitempty"` // it is the base's, which the proposal removed or changed
	Severity   string `json:"severity"`         // "error", "warn"
	Result     string `json:"result"`           // as in the Verifier trailer: "pass", "warn"
	Violations int64  `json:"violatingRows"`
	Cached     bool   `json:"cached"`
}

// Change is what the proposal did to a verifier of its base.
type Change struct {
	Name   string `json:"name"`
	Path   string `json:"path,omitempty"`
	Change string `json:"change"`
	NotRun string `json:"notRun,omitempty"` // why the base's did not judge the proposal
}

// Environment is one of Python's.
type Environment struct {
	Group    string            `json:"group"` // in headgate.lock
	Python   string            `json:"python"`
	Digest   string            `json:"digest"`   // SHA-256 over Python and the hashes of the wheels
	Packages map[string]string `json:"packages"` // name -> version
}

// Gate returns the oid of the commit that the statement is about, "" if it names none.
func (s *Statement) Gate() string { return find(s.Subject, NameGate, GitCommit) }

// Dependency returns the digest of a dependency, "" if it is not named.
func (s *Statement) Dependency(name, algorithm string) string {
	return find(s.Predicate.BuildDefinition.Dependencies, name, algorithm)
}

// Record returns the oid of the run record's commit, "" if it is not named.
func (s *Statement) Record(ref string) string {
	return find(s.Predicate.RunDetails.Byproduct, ref, GitCommit)
}

func find(list []Resource, name, algorithm string) string {
	for _, r := range list {
		if r.Name == name {
			return r.Digest[algorithm]
		}
	}
	return ""
}

// Encode returns the statement as JSON in one line.
func (s *Statement) Encode() ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode provenance: %w", err)
	}
	return data, nil
}

// ParseStatement reads a statement that Encode wrote. Fields that it does not
// know are passed over, as in-toto's rules for parsing ask.
func ParseStatement(data []byte) (*Statement, error) {
	var s Statement
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("the statement is no JSON of in-toto's form: %w", err)
	}
	switch {
	case s.Type != StatementType:
		return nil, fmt.Errorf("the statement is of type %q, want %q", s.Type, StatementType)
	case s.PredicateType != PredicateType:
		return nil, fmt.Errorf("the statement's predicate is of type %q, want %q", s.PredicateType, PredicateType)
	case s.Predicate.BuildDefinition.BuildType != BuildType:
		return nil, fmt.Errorf("the statement is of a build of type %q, want %q", s.Predicate.BuildDefinition.BuildType, BuildType)
	}
	return &s, nil
}

// Text tells people what the statement says, in a few lines. It depends on the
// statement alone, so whoever has that can tell whether the text is its own.
func (s *Statement) Text() string {
	p := &s.Predicate
	cached, passed, warned := 0, 0, 0
	for _, m := range p.Models {
		if m.Cached {
			cached++
		}
	}
	for _, v := range p.Verifiers {
		if v.Result == "pass" {
			passed++
		} else {
			warned++
		}
	}
	const clock = "2006-01-02 15:04:05"
	var b strings.Builder
	line := func(format string, args ...any) { b.WriteString(printable(fmt.Sprintf(format, args...)) + "\n") }
	x, d, in := p.BuildDefinition.External, p.RunDetails, p.BuildDefinition.Internal.Sandbox
	who := x.PushedBy
	if x.Key != "" {
		who += " with " + x.Key
	}
	if v := d.Builder.Version["duckdb"]; v != "" {
		in += ", DuckDB " + v
	}
	line("Run %s, pushed by %s to %s of %s,", d.Metadata.InvocationID, who, x.Target, x.Lake)
	line("%s to %s UTC in sandboxes of %s.", d.Metadata.Started.UTC().Format(clock), d.Metadata.Finished.UTC().Format(clock), in)
	line("Models: %d, of them from the cache %d. Verifiers: %d passed, %d warned.", len(p.Models), cached, passed, warned)
	for _, m := range p.Models {
		from := "nothing"
		if len(m.Inputs) > 0 {
			from = strings.Join(slices.Sorted(maps.Keys(m.Inputs)), ", ")
		}
		line("  %s: %d rows from %s", m.Name, m.Rows, from)
	}
	return b.String()
}

// printable drops what could drive a terminal, or break a line in two.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
