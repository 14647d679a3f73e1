// Package trailer writes and reads the lineage trailers that end a gate
// commit's message. It knows their text and nothing of how a run came to them.
//
// The block is what `git interpret-trailers --parse` takes for trailers:
//
//	Run-Id: 01J9ZQ4T3N8Y6W2K5D7F0H1M9C
//	Base: <oid>
//	Proposal: <oid>
//	Pushed-By: ada
//	Model: daily code=<oid> env=<digest> in=flights@<oid>,airports@<oid> out=<oid> rows=12 cached=false
//	Verifier: no_missing_day pass
//
// A Verifier line that ends with at=base is of a verifier as the base has it. A Model line ends with params=, strategy=, prior= and deterministic=false where they apply.
//
// An Approved-By line for each approval that the proposal took follows, if it took any.
//
// A name may be free text, so white space, control characters and the separators
// "%", ",", "@" and "=" in names and values are written as %XX.
package trailer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"

	"github.com/headgate/headgate/objects"
)

// The keys, in the order in which they are written.
const (
	keyRunID    = "Run-Id"
	keyBase     = "Base"
	keyProposal = "Proposal"
	keyPushedBy = "Pushed-By"
	keyModel    = "Model"
	keyVerifier = "Verifier"
	keyApproved = "Approved-By"
)

// ErrNotGate says that a message has no gate trailers: the commit is somebody's own.
var ErrNotGate = errors.New("not a gate commit: no " + keyRunID + " trailer")

// Error says which trailer of a gate commit cannot be read.
type Error struct {
	Line   string
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("gate trailer %q: %s", e.Line, e.Reason) }

// Gate is what a gate commit says of its run.
type Gate struct {
	RunID     string // a ULID
	Base      objects.OID
	Proposal  objects.OID
	PushedBy  string
	Models    []Model
	Verifiers []Verifier
	// ApprovedBy are those whose approval the proposal took, if it took any.
	ApprovedBy []string
}

// Model says how a derived table came about.
type Model struct {
	Name   string
	Code   string // digest of the code and its settings
	Env    string // digest of what it ran in
	Inputs []Input
	Out    string // the snapshot it gave
	Rows   int64
	Cached bool // answered from the action cache

	Params   string // the parameters' values as a canonical JSON object; "" if there are none
	Strategy string // "" is REPLACE
	Prior    string // the snapshot at the base that the output builds on; "" if there is none
	// NotDeterministic says that a second run on the same inputs gave something else.
	NotDeterministic bool
}

// Input is a snapshot that a model read.
type Input struct {
	Table    string
	Snapshot string
}

// Verifier is a check that held.
type Verifier struct {
	Name   string
	Result string // "pass" or "warn"
	AtBase bool   // it is the base's, which the proposal removed or changed
}

// Format returns the trailer block, each line ended by a newline.
func (g Gate) Format() string {
	var b strings.Builder
	line := func(key, value string) { fmt.Fprintf(&b, "%s: %s\n", key, value) }
	line(keyRunID, escape(g.RunID))
	line(keyBase, g.Base.String())
	line(keyProposal, g.Proposal.String())
	line(keyPushedBy, escape(g.PushedBy))
	for _, m := range g.Models {
		line(keyModel, m.format())
	}
	for _, v := range g.Verifiers {
		text := escape(v.Name) + " " + escape(v.Result)
		if v.AtBase {
			text += " at=base"
		}
		line(keyVerifier, text)
	}
	for _, name := range g.ApprovedBy {
		line(keyApproved, escape(name))
	}
	return b.String()
}

func (m Model) format() string {
	in := make([]string, len(m.Inputs))
	for i, s := range m.Inputs {
		in[i] = escape(s.Table) + "@" + escape(s.Snapshot)
	}
	text := fmt.Sprintf("%s code=%s env=%s in=%s out=%s rows=%d cached=%t",
		escape(m.Name), escape(m.Code), escape(m.Env), strings.Join(in, ","), escape(m.Out), m.Rows, m.Cached)
	// What most models do not have is left out, so that most lines stay short.
	for _, f := range []struct{ key, value string }{{"params", m.Params}, {"strategy", m.Strategy}, {"prior", m.Prior}} {
		if f.value != "" {
			text += " " + f.key + "=" + escape(f.value)
		}
	}
	if m.NotDeterministic {
		text += " deterministic=false"
	}
	return text
}

// Parse reads the trailers of a commit message: its last paragraph. It returns
// ErrNotGate if there is no run id, and an *Error if a gate trailer is malformed.
// Trailers of other keys are skipped. Whether the commit was made by a gate is
// not known from its text; its signature says so.
func Parse(message string) (Gate, error) {
	var g Gate
	seen := make(map[string]bool)
	for line := range strings.SplitSeq(lastParagraph(message), "\n") {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		value = strings.TrimPrefix(value, " ")
		single := key == keyRunID || key == keyBase || key == keyProposal || key == keyPushedBy
		if single && seen[key] {
			return Gate{}, &Error{line, "given twice"}
		}
		seen[key] = true
		if err := g.set(key, value); err != nil {
			return Gate{}, &Error{line, err.Error()}
		}
	}
	if !seen[keyRunID] {
		return Gate{}, ErrNotGate
	}
	for _, key := range []string{keyBase, keyProposal, keyPushedBy} {
		if !seen[key] {
			return Gate{}, &Error{keyRunID + ": " + g.RunID, "has no " + key + " beside it"}
		}
	}
	return g, nil
}

func (g *Gate) set(key, value string) (err error) {
	switch key {
	case keyRunID:
		if _, err := ulid.ParseStrict(value); err != nil {
			return fmt.Errorf("not a run id: %w", err)
		}
		g.RunID = value
	case keyBase:
		g.Base, err = objects.ParseOID(value)
	case keyProposal:
		g.Proposal, err = objects.ParseOID(value)
	case keyPushedBy:
		g.PushedBy, err = unescape(value)
	case keyModel:
		var m Model
		if m, err = parseModel(value); err == nil {
			g.Models = append(g.Models, m)
		}
	case keyVerifier:
		name, result, ok := strings.Cut(value, " ")
		if !ok {
			return errors.New("want a name and a result")
		}
		var v Verifier
		if v.Name, err = unescape(name); err != nil {
			return err
		}
		result, at, more := strings.Cut(result, " ")
		if v.Result, err = unescape(result); err != nil {
			return err
		}
		if v.AtBase = at == "at=base"; more && !v.AtBase {
			return fmt.Errorf("%q follows the result", at)
		}
		g.Verifiers = append(g.Verifiers, v)
	case keyApproved:
		var name string
		if name, err = unescape(value); err == nil {
			g.ApprovedBy = append(g.ApprovedBy, name)
		}
	}
	return err
}

func parseModel(value string) (m Model, err error) {
	fields := strings.Split(value, " ")
	if m.Name, err = unescape(fields[0]); err != nil {
		return m, err
	}
	seen := make(map[string]bool)
	for _, f := range fields[1:] {
		key, v, ok := strings.Cut(f, "=")
		if !ok {
			return m, fmt.Errorf("field %q has no value", f)
		}
		if seen[key] {
			return m, fmt.Errorf("field %q given twice", key)
		}
		seen[key] = true
		switch key {
		case "code":
			m.Code, err = unescape(v)
		case "env":
			m.Env, err = unescape(v)
		case "in":
			m.Inputs, err = parseInputs(v)
		case "out":
			m.Out, err = unescape(v)
		case "rows":
			m.Rows, err = strconv.ParseInt(v, 10, 64)
		case "cached":
			m.Cached, err = strconv.ParseBool(v)
		case "params":
			m.Params, err = unescape(v)
		case "strategy":
			m.Strategy, err = unescape(v)
		case "prior":
			m.Prior, err = unescape(v)
		case "deterministic":
			var steady bool
			steady, err = strconv.ParseBool(v)
			m.NotDeterministic = !steady
		}
		if err != nil {
			return m, fmt.Errorf("field %q: %w", key, err)
		}
	}
	for _, key := range []string{"code", "env", "in", "out", "rows", "cached"} {
		if !seen[key] {
			return m, fmt.Errorf("field %q is missing", key)
		}
	}
	return m, nil
}

func parseInputs(value string) ([]Input, error) {
	if value == "" {
		return nil, nil
	}
	var out []Input
	for text := range strings.SplitSeq(value, ",") {
		name, snapshot, ok := strings.Cut(text, "@")
		if !ok {
			return nil, fmt.Errorf("input %q: want table@snapshot", text)
		}
		var in Input
		var err error
		if in.Table, err = unescape(name); err != nil {
			return nil, err
		}
		if in.Snapshot, err = unescape(snapshot); err != nil {
			return nil, err
		}
		out = append(out, in)
	}
	return out, nil
}

// lastParagraph returns what follows the last blank line.
func lastParagraph(message string) string {
	message = strings.TrimRight(message, "\n")
	if i := strings.LastIndex(message, "\n\n"); i >= 0 {
		return message[i+2:]
	}
	return message
}

const hex = "0123456789ABCDEF"

func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		// U+0085, U+00A0, U+2028 and U+2029 end lines or words for some readers.
		odd := r <= ' ' || (r >= 0x7f && r <= 0xa0) || r == 0x2028 || r == 0x2029 || (r == utf8.RuneError && n == 1)
		if odd || strings.ContainsRune("%,@=", r) {
			for _, c := range []byte(s[i : i+n]) {
				b.WriteByte('%')
				b.WriteByte(hex[c>>4])
				b.WriteByte(hex[c&15])
			}
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("%q ends within an escape", s)
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("%q has the bad escape %q", s, s[i:i+3])
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}
