package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sort"
	"strings"

	"github.com/headgate/headgate/exec/protocol"

	runtime "github.com/headgate/headgate/exec"
)

type verifiersCmd struct {
	Score verifiersScoreCmd `cmd:"" help:"Make small faults in tables, and tell which of them no verifier notices."`

	Suggest verifiersSuggestCmd `cmd:"" help:"Infer verifiers from tables and their history, as files to review."`
}

type verifiersScoreCmd struct {
	Tables []string `arg:"" optional:"" help:"Only these tables; by default all of them."`
	At     string   `help:"Score a revision instead of the files on disk." placeholder:"REV"`
	JSON   bool     `help:"Print one JSON object." name:"json"`
	Rows   int64    `help:"Read at most this many rows of each table; 0 reads all." default:"1000000" placeholder:"N"`
	Seed   uint64   `help:"Decides which rows are hit." default:"0" placeholder:"N"`
	Spots  int      `help:"Print at most this many weak spots; --json has all." default:"20" placeholder:"N"`
	Min    float64  `help:"End with exit code 3 if a table's score is below this, in percent." placeholder:"PERCENT"`
	Python string   `help:"The interpreter that reads declarations and runs expectations." default:"python3" placeholder:"PATH"`
	Lake   string   `help:"The checkout's directory." default:"." type:"existingdir" placeholder:"DIR"`
	workerFlag
}

// Help is shown below the command's flags.
func (verifiersScoreCmd) Help() string {
	return `Examples:
  headgate verifiers score
  headgate verifiers score flights --at HEAD~1
  headgate verifiers score --json | jq '.tables[0].mutants[] | select(.status == "survived")'

Each fault is small: one row in a hundred is gone or doubled, NULL, shifted,
a hundredfold, exchanged with another column, and so on. A mutant is today's data with
one fault, and its base is today's data. SQL models are evaluated again on
mutants of what they read. For what nobody notices, a verifier is shown that would:
it passes on the data as they are and finds the fault. Nothing is written.

Runs as your own processes on your own files; expectations in Python run in your
interpreter, which must have the packages that they import.`
}

// scoreReport is what --json prints.
type scoreReport struct {
	Format     int                     `json:"format"`
	Commit     string                  `json:"commit,omitempty"` // absent: the files on disk
	Seed       uint64                  `json:"seed"`
	Score      float64                 `json:"score"` // killed / counted
	Killed     int                     `json:"killed"`
	Counted    int                     `json:"counted"`
	Equivalent int                     `json:"equivalent"`
	Tables     []tableScore            `json:"tables"` // the weakest first
	Unsound    []protocol.UnsoundCheck `json:"unsound"`

	spots int // that are printed
}

type tableScore struct {
	protocol.ScoredTable
	Score      float64 `json:"score"`
	Killed     int     `json:"killed"`
	Counted    int     `json:"counted"`
	Equivalent int     `json:"equivalent"`
}

// belowError says that a table's score is less than what was asked for.
type belowError struct {
	table       string
	score, want float64 // percent
}

func (e *belowError) Error() string {
	return fmt.Sprintf("table %s has a score of %.1f%%, below %g%%", e.table, e.score, e.want)
}

// Run scores the verifiers.
func (c *verifiersScoreCmd) Run(ctx context.Context, std streams) error {
	if c.Rows < 0 || c.Min < 0 || c.Min > 100 {
		return usagef("--rows is not negative, and --min is between 0 and 100")
	}
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	python, _ := exec.LookPath(c.Python)
	p, err := lake.planAt(ctx, c.At, c.workerFlag, python)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "headgate-score-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	inputs, err := p.inputs(ctx, lake, c.workerFlag, dir)
	if err != nil {
		return err
	}
	targets, err := c.targets(p, inputs)
	if err != nil {
		return err
	}
	score := runtime.ScoreOf(p.Plan, targets, p.keys)
	score.MaxRows, score.Seed = c.Rows, c.Seed
	say := func(text string) {
		if isTerminal(std.err) {
			fmt.Fprintln(std.err, text)
		}
	}
	answer, err := c.runWorker(ctx, &protocol.Order{Op: protocol.OpScore, Inputs: inputs, Score: score}, nil, say)
	if err != nil {
		return err
	}
	if answer.Score == nil {
		return fmt.Errorf("the worker did not score the verifiers")
	}
	expectations := &localExpectations{worker: c.workerFlag, python: python, plan: p, inputs: inputs, score: score, dir: dir, say: say}
	if err := expectations.judge(ctx, answer.Score); err != nil {
		return err
	}
	report := c.report(p, answer.Score)
	if c.JSON {
		err = printJSON(std.out, report)
	} else {
		report.print(std)
	}
	if err != nil {
		return err
	}
	for _, t := range report.Tables {
		if 100*t.Score < c.Min {
			return &belowError{t.Name, 100 * t.Score, c.Min}
		}
	}
	return nil
}

// targets are the tables to be mutated: those of the command line, or all that can be had.
func (c *verifiersScoreCmd) targets(p *localPlan, inputs []protocol.Table) ([]string, error) {
	var have []string
	for _, in := range inputs {
		have = append(have, in.Name)
	}
	for i := range p.Models {
		m := &p.Models[i]
		made := slices.ContainsFunc(runtime.ScoreOf(p.Plan, nil, nil).Models, func(q protocol.ScoreQuery) bool { return q.Name == m.Name && q.SQL != "" })
		if made && !slices.Contains(have, m.Name) {
			have = append(have, m.Name)
		}
	}
	sort.Strings(have)
	if len(have) == 0 {
		return nil, fmt.Errorf("%s has no tables", p.state.name)
	}
	if len(c.Tables) == 0 {
		return have, nil
	}
	var targets []string
	for _, name := range c.Tables {
		i := slices.IndexFunc(have, func(h string) bool { return strings.EqualFold(h, name) })
		if i < 0 {
			return nil, fmt.Errorf("no table %q in %s; there are: %s", name, p.state.name, strings.Join(have, ", "))
		}
		targets = append(targets, have[i])
	}
	return targets, nil
}

func (c *verifiersScoreCmd) report(p *localPlan, s *protocol.Scored) *scoreReport {
	r := &scoreReport{Format: 1, Commit: p.state.commit, Seed: c.Seed, spots: c.Spots, Tables: []tableScore{}, Unsound: s.Unsound}
	if r.Unsound == nil {
		r.Unsound = []protocol.UnsoundCheck{}
	}
	var all runtime.Tally
	for _, t := range s.Tables {
		if t.Missing != "" {
			r.Unsound = append(r.Unsound, protocol.UnsoundCheck{Name: t.Name, Reason: t.Missing})
			continue
		}
		var tally runtime.Tally
		tally.Add(t.Mutants...)
		all.Add(t.Mutants...)
		r.Tables = append(r.Tables, tableScore{ScoredTable: t, Score: tally.Share(), Killed: tally.Killed, Counted: tally.Counted, Equivalent: tally.Equivalent})
	}
	sort.SliceStable(r.Tables, func(i, j int) bool { return r.Tables[i].Score < r.Tables[j].Score })
	r.Score, r.Killed, r.Counted, r.Equivalent = all.Share(), all.Killed, all.Counted, all.Equivalent
	return r
}

func (r *scoreReport) print(std streams) {
	w := std.out
	width := 12
	for _, t := range r.Tables {
		width = max(width, len(t.Name))
	}
	for _, t := range r.Tables {
		note := ""
		if t.Cut {
			note = fmt.Sprintf(", of the first %s", plural(t.Rows, "row"))
		}
		if t.Equivalent > 0 {
			note += fmt.Sprintf("; %d change nothing and do not count", t.Equivalent)
		}
		if t.LeftOut > 0 {
			note += fmt.Sprintf("; %d more were not tried", t.LeftOut)
		}
		fmt.Fprintf(w, "%-*s  %4.0f%%  %d of %d faults are noticed%s\n", width, t.Name, 100*t.Score, t.Killed, t.Counted, note)
	}
	fmt.Fprintf(w, "%-*s  %4.0f%%  %d of %d\n", width, "in all", 100*r.Score, r.Killed, r.Counted)
	for _, u := range r.Unsound {
		fmt.Fprintf(w, "left out: %s: %s\n", visible(u.Name), visible(firstLine(u.Reason)))
	}
	shown := make(map[string]bool)
	left := r.spots
	for _, t := range r.Tables {
		for _, spot := range runtime.WeakSpots(t.Mutants) {
			if left--; left < 0 {
				continue
			}
			fmt.Fprintf(w, "\n%s: %d of %d faults pass\n", visible(spot.Name(t.Name)), len(spot.Survived), spot.Counted)
			for _, m := range spot.Survived {
				fmt.Fprintf(w, "  %-10s %s\n", m.Operator, visible(m.Fault))
				if text := remedyText(m.Remedy); text != "" && !shown[text] {
					shown[text] = true
					fmt.Fprint(w, text)
				}
			}
		}
	}
	if left < 0 {
		fmt.Fprintf(w, "\nand %d more weak spots; --spots N shows more\n", -left)
	}
}

// remedyText shows a verifier that would notice a fault.
func remedyText(r *protocol.Remedy) string {
	if r == nil {
		return ""
	}
	if r.Path == "" {
		return "             headgate.yaml: " + visible(r.YAML) + "\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "             %s:\n", visible(r.Path))
	for line := range strings.SplitSeq(strings.TrimRight(r.SQL, "\n"), "\n") {
		b.WriteString("               " + visible(line) + "\n")
	}
	return b.String()
}
