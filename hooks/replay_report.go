package hooks

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
)

// What a replay says of the commit's signature.
const (
	SignatureGood      = "good"
	SignatureBad       = "bad"
	SignatureUnchecked = "not checked"
)

// What became of a model's replay.
const (
	ReplayEqual   = "equal"
	ReplayDiffers = "differs" // the output, or what the message says of it
	ReplayFailed  = "failed"  // it ran and did not succeed
	ReplayAbsent  = "absent"  // it could not be run: something is not in this clone
)

// ReplayReport is what a replay found. docs/formats.md describes its JSON.
type ReplayReport struct {
	Format    int                `json:"format"` // 1
	Commit    string             `json:"commit"`
	Run       string             `json:"run"`
	Base      string             `json:"base"`
	Proposal  string             `json:"proposal"`
	Signature string             `json:"signature"`
	Equal     bool               `json:"equal"`              // nothing differs but what the commit itself marks
	Problems  []string           `json:"problems,omitempty"` // of the commit as a whole
	Notes     []string           `json:"notes,omitempty"`
	Models    []ReplayedModel    `json:"models"`
	Verifiers []ReplayedVerifier `json:"verifiers,omitempty"`
	Seconds   float64            `json:"seconds"`

	commit objects.OID
}

// ReplayedModel is the replay of one model.
type ReplayedModel struct {
	Name          string `json:"name"`
	Path          string `json:"path"`
	Status        string `json:"status"`
	Committed     string `json:"committed"` // the snapshot that the message says it gave
	CommittedRows int64  `json:"committed_rows"`
	CommittedEnv  string `json:"committed_env,omitempty"`
	Replayed      string `json:"replayed,omitempty"` // the snapshot that it gave now
	Rows          int64  `json:"rows"`
	Env           string `json:"env,omitempty"`
	// NotDeterministic: the commit says so, or two replays gave two results.
	NotDeterministic bool              `json:"not_deterministic,omitempty"`
	Differs          bool              `json:"output_differs,omitempty"`
	Difference       string            `json:"difference,omitempty"` // from the table in the tree
	Problems         []string          `json:"problems,omitempty"`   // what the message says and is not so
	Reason           string            `json:"reason,omitempty"`     // of ReplayAbsent
	Error            *ErrorRecord      `json:"error,omitempty"`      // of ReplayFailed
	Violations       []ViolationRecord `json:"violations,omitempty"`
	Seconds          float64           `json:"seconds"`

	announced bool // the commit says that it is not deterministic
}

// ReplayedVerifier is the replay of one verifier.
type ReplayedVerifier struct {
	Name      string `json:"name"`
	Path      string `json:"path,omitempty"`
	AtBase    bool   `json:"at_base,omitempty"` // it is the base's, which the commit removed or changed
	Committed string `json:"committed"`         // "pass", "warn" (violations of the severity warn, or it did what a function may not); "" if the message does not name it
	Replayed  string `json:"replayed"`          // "pass", "warn", "fail", "error"
	Equal     bool   `json:"equal"`
	Reason    string `json:"reason,omitempty"`
}

func newReplayReport(commit objects.OID, g trailer.Gate) *ReplayReport {
	return &ReplayReport{
		Format: 1, Commit: commit.String(), Run: g.RunID, Base: g.Base.String(), Proposal: g.Proposal.String(),
		Models: []ReplayedModel{}, commit: commit,
	}
}

func (rep *ReplayReport) problem(format string, args ...any) {
	rep.Problems = append(rep.Problems, fmt.Sprintf(format, args...))
}

// conclude says whether all is as the commit says.
func (rep *ReplayReport) conclude() {
	rep.Equal = len(rep.Problems) == 0
	for i := range rep.Models {
		rep.Equal = rep.Equal && rep.Models[i].fine()
	}
	for _, v := range rep.Verifiers {
		rep.Equal = rep.Equal && v.Equal
	}
}

// Verdict returns nil if all is as the commit says, else one sentence.
func (rep *ReplayReport) Verdict() error {
	if rep.Equal {
		return nil
	}
	for i := range rep.Models {
		if m := &rep.Models[i]; !m.fine() && m.Status != ReplayAbsent {
			return errors.New("the replay is not what the commit says")
		}
	}
	for _, v := range rep.Verifiers {
		if !v.Equal {
			return errors.New("the replay is not what the commit says")
		}
	}
	if len(rep.Problems) > 0 {
		return errors.New("the commit is not what it says")
	}
	return errors.New("not every model could be replayed; those that could gave what the commit says")
}

// Failures are what is not as the commit says, one sentence each.
func (rep *ReplayReport) Failures() []string {
	all := slices.Clone(rep.Problems)
	for i := range rep.Models {
		m := &rep.Models[i]
		switch {
		case m.fine():
		case m.Status == ReplayAbsent:
			all = append(all, fmt.Sprintf("model %s could not be replayed: %s", m.Name, m.Reason))
		case m.Status == ReplayFailed:
			all = append(all, fmt.Sprintf("model %s failed when it ran again: %s", m.Name, m.Error.Text))
		default:
			if m.Differs {
				all = append(all, fmt.Sprintf("model %s gave %s when it ran again, and the message says %s", m.Name, m.Replayed, m.Committed))
			}
			for _, text := range m.Problems {
				all = append(all, fmt.Sprintf("model %s: %s", m.Name, text))
			}
		}
	}
	for _, v := range rep.Verifiers {
		if !v.Equal {
			all = append(all, fmt.Sprintf("verifier %s: %q when it was evaluated again, and the message says %q", v.Name, v.Replayed, v.Committed))
		}
	}
	return all
}

func (m *ReplayedModel) problem(format string, args ...any) {
	m.Problems = append(m.Problems, fmt.Sprintf(format, args...))
}

func (m *ReplayedModel) leaveOut(format string, args ...any) {
	m.Status, m.Reason = ReplayAbsent, fmt.Sprintf(format, args...)
}

func (m *ReplayedModel) settle() {
	m.Status = ReplayEqual
	if m.Differs || len(m.Problems) > 0 {
		m.Status = ReplayDiffers
	}
}

// fine reports whether the model gave what the commit says, or the commit says
// that it cannot be expected to.
func (m *ReplayedModel) fine() bool {
	return m.Status == ReplayEqual || m.Status == ReplayDiffers && m.announced && len(m.Problems) == 0
}

// line is what a terminal shows of a model.
func (m *ReplayedModel) line() string {
	word := map[string]string{ReplayEqual: "equal", ReplayDiffers: "DIFFERS", ReplayFailed: "FAILED", ReplayAbsent: "ABSENT"}[m.Status]
	if m.Status == ReplayDiffers && m.fine() {
		word = "differs"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  %-8s %-28s ", word, printable(m.Name))
	more := func(format string, args ...any) {
		b.WriteString("\n" + strings.Repeat(" ", 12) + printable(fmt.Sprintf(format, args...)))
	}
	switch m.Status {
	case ReplayAbsent:
		b.WriteString(printable(m.Reason))
		return b.String()
	case ReplayFailed:
		b.WriteString(printable(m.Error.Text))
		return b.String()
	}
	fmt.Fprintf(&b, "%s rows, %.2f s", count(m.Rows), m.Seconds)
	if m.Differs {
		more("want %s, %s rows; got %s, %s rows", shortText(m.Committed), count(m.CommittedRows), shortText(m.Replayed), count(m.Rows))
		switch {
		case m.announced:
			more("not deterministic, as the commit says")
		case m.NotDeterministic:
			more("not deterministic: two replays gave two results; it reads the clock, random numbers, or an order that nothing fixes")
		}
	}
	for _, text := range m.Problems {
		more("%s", text)
	}
	if m.Difference != "" {
		more("what differs from the tree: %s", m.Difference)
	}
	if m.CommittedEnv != "" && m.Env != "" && m.CommittedEnv != m.Env {
		also := "; outputs equal anyway"
		if m.Differs {
			also = ", which may be why"
		}
		more("env differs: the commit ran with %s, here it is %s%s", shortText(m.CommittedEnv), shortText(m.Env), also)
	}
	for _, v := range m.Violations {
		more("%d x %s %s (kept from it)", v.Count, v.Kind, v.Detail)
	}
	return b.String()
}

func (v *ReplayedVerifier) line() string {
	text := v.Replayed
	if v.Reason != "" {
		text += ": " + v.Reason
	}
	if !v.Equal {
		said := "does not name it"
		if v.Committed != "" {
			said = "says " + v.Committed
		}
		text += "; the message " + said
	}
	word := "equal"
	if !v.Equal {
		word = "DIFFERS"
	}
	return fmt.Sprintf("  %-8s %-28s %s", word, "verifier "+printable(v.Name), printable(text))
}

// head is what a terminal shows before the functions' lines.
func (rep *ReplayReport) head() string {
	return fmt.Sprintf("replay of %s, run %s; signature %s", rep.Commit[:10], rep.Run, rep.Signature)
}

// Conclusion is what a terminal shows after the functions' lines.
func (rep *ReplayReport) Conclusion() string {
	var b strings.Builder
	for _, n := range rep.Notes {
		fmt.Fprintf(&b, "  note     %s\n", printable(n))
	}
	for _, p := range rep.Problems {
		fmt.Fprintf(&b, "  PROBLEM  %s\n", printable(p))
	}
	tally := make(map[string]int)
	for i := range rep.Models {
		m := &rep.Models[i]
		if m.Status == ReplayDiffers && m.fine() {
			tally["announced"]++
		} else {
			tally[m.Status]++
		}
	}
	fmt.Fprintf(&b, "%d of %d output(s) equal", tally[ReplayEqual], len(rep.Models))
	for _, t := range []struct{ key, text string }{
		{ReplayDiffers, "%d differ"}, {ReplayFailed, "%d failed"}, {ReplayAbsent, "%d could not be replayed"}, {"announced", "%d not deterministic, as the commit says"},
	} {
		if n := tally[t.key]; n > 0 {
			fmt.Fprintf(&b, "; "+t.text, n)
		}
	}
	if n := len(rep.Verifiers); n > 0 {
		equal := 0
		for _, v := range rep.Verifiers {
			if v.Equal {
				equal++
			}
		}
		fmt.Fprintf(&b, "; %d of %d verifier(s) equal", equal, n)
	}
	fmt.Fprintf(&b, "; %.2f s\n", rep.Seconds)
	return b.String()
}

func shortText(oid string) string { return oid[:min(10, len(oid))] }
