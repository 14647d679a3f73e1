package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	runtime "github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects/table"
)

type verifiersSuggestCmd struct {
	Tables  []string `arg:"" optional:"" help:"Only for these tables; by default for all of them."`
	History int      `help:"Look at most this many published versions of each table back." default:"20" placeholder:"N"`
	Write   bool     `help:"Write the files into verifiers/suggested, to be reviewed and committed."`
	JSON    bool     `help:"Print one JSON object." name:"json"`
	Python  string   `help:"The interpreter that reads declarations." default:"python3" placeholder:"PATH"`
	Lake    string   `help:"The checkout's directory." default:"." type:"existingdir" placeholder:"DIR"`
	workerFlag
}

// Help is shown below the command's flags.
func (verifiersSuggestCmd) Help() string {
	return `Examples:
  headgate verifiers suggest
  headgate verifiers suggest flights --history 100
  headgate verifiers suggest --write && git diff

What holds of the tables on disk is held against their history: the versions
of the first-parent line of HEAD. Each suggestion says since which commit it
held. None fails on today's data. What --write writes is part of the lake's
verifiers once it is committed and pushed: read it before.`
}

// suggestion is a verifier with its evidence, as --json prints it.
type suggestion struct {
	protocol.Suggestion
	Versions int    `json:"versions"`           // in which it held, without a break, today's included
	Of       int    `json:"of"`                 // that were looked at
	Since    string `json:"since,omitempty"`    // the oldest commit in which it held; absent: it holds of today's files alone
	Broken   string `json:"broken,omitempty"`   // the newest commit in which it did not
	Evidence string `json:"evidence,omitempty"` // in words
	File     string `json:"file"`               // below verifiers/suggested
}

// suggestReport is what --json prints.
type suggestReport struct {
	Format      int           `json:"format"`
	Suggestions []*suggestion `json:"suggestions"` // by table; those that held longest first
}

// Run infers verifiers.
func (c *verifiersSuggestCmd) Run(ctx context.Context, std streams) error {
	if c.History < 0 {
		return usagef("--history is not negative")
	}
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	if c.Write && lake.bare {
		return usagef("a bare repository has no files to write to")
	}
	python, _ := exec.LookPath(c.Python)
	p, err := lake.planAt(ctx, "", c.workerFlag, python)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "headgate-suggest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	inputs, err := p.inputs(ctx, lake, c.workerFlag, dir)
	if err != nil {
		return err
	}
	targets, err := (&verifiersScoreCmd{Tables: c.Tables}).targets(p, inputs)
	if err != nil {
		return err
	}
	order := runtime.ScoreOf(p.Plan, targets, p.keys)
	order.Checks, order.MaxRows = nil, 0
	for _, in := range inputs {
		order.Parents = append(order.Parents, in.Name)
	}
	answer, err := c.runWorker(ctx, &protocol.Order{Op: protocol.OpSuggest, Inputs: inputs, Score: order}, nil, nil)
	if err != nil {
		return err
	}
	report := &suggestReport{Format: 1, Suggestions: []*suggestion{}}
	for _, table := range targets {
		var of []*suggestion
		for _, s := range answer.Suggestions {
			if s.Table == table && !p.has(s.SQL) {
				of = append(of, &suggestion{Suggestion: s, Versions: 1, Of: 1})
			}
		}
		if of, err = c.hold(ctx, lake, p, table, inputs, of, dir); err != nil {
			return err
		}
		report.Suggestions = append(report.Suggestions, of...)
	}
	report.name()
	if c.Write {
		if err := report.write(lake, std); err != nil {
			return err
		}
	}
	switch {
	case c.JSON:
		return printJSON(std.out, report)
	case !c.Write:
		report.print(std)
	}
	return nil
}

// has tells whether the plan has the same check already.
func (p *localPlan) has(sql string) bool {
	return slices.ContainsFunc(p.Verifiers, func(v plan.Verifier) bool { return bareSQL(v.SQL) == bareSQL(sql) })
}

// bareSQL is a query without the lines that are comments.
func bareSQL(sql string) string {
	var lines []string
	for line := range strings.SplitSeq(sql, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// hold asks suggestions of the table's history, from the newest version back, each with
// the version before it as its base, until none of them holds any more.
func (c *verifiersSuggestCmd) hold(ctx context.Context, lake *checkout, p *localPlan, name string, now []protocol.Table, all []*suggestion, dir string) ([]*suggestion, error) {
	own, commits, err := lake.tableVersions(ctx, p, name, c.History)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		s.Since = own
	}
	states := [][]protocol.Table{now}
	rows := []int64{lake.rowsOf(ctx, p.state.tables[strings.ToLower(name)])}
	var of []string // the commit of each state but the first
	for _, commit := range commits {
		s, err := lake.stateAt(ctx, commit)
		if err != nil {
			return nil, err
		}
		tables, err := c.tablesOf(ctx, lake, s, now, dir)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			continue // somebody's commit that no gate has passed, with half a table in it
		}
		states, of = append(states, tables), append(of, commit)
		rows = append(rows, lake.rowsOf(ctx, s.tables[strings.ToLower(name)]))
	}
	if s := growth(name, p.keys[name], rows); s != nil && !p.has(s.SQL) {
		s.Since = own
		all = append(all, s)
	}
	open := slices.Clone(all)
	for i, tables := range states {
		var queries []protocol.Query
		for _, s := range open {
			queries = append(queries, protocol.Query{Name: s.Kind, SQL: s.SQL})
		}
		if len(queries) == 0 {
			break
		}
		// The oldest version that is known has nothing before it.
		before := tables
		if i+1 < len(states) {
			before = states[i+1]
		}
		in := slices.Clone(tables)
		for _, t := range tables {
			t.Name = plan.BasePrefix + t.Name
			if b := slices.IndexFunc(before, func(b protocol.Table) bool { return plan.BasePrefix+b.Name == t.Name }); b >= 0 {
				t.Files, t.Columns = before[b].Files, before[b].Columns
			} else {
				t.Files = nil // it is new: a table without rows
			}
			in = append(in, t)
		}
		answer, err := c.runWorker(ctx, &protocol.Order{Op: protocol.OpVerify, Inputs: in, Queries: queries, MaxRows: 1}, nil, nil)
		if err != nil {
			return nil, err
		}
		if len(answer.Checks) != len(queries) {
			return nil, fmt.Errorf("asked %d queries of table %s, %d were answered", len(queries), name, len(answer.Checks))
		}
		var still []*suggestion
		for j, s := range open {
			passed := answer.Checks[j].Error == nil && answer.Checks[j].Violations == 0
			switch {
			case passed && i > 0:
				s.Versions, s.Since = i+1, of[i-1]
				still = append(still, s)
			case passed:
				still = append(still, s)
			case i > 0:
				s.Broken = of[i-1]
			default:
				s.Versions = 0 // it fails on today's data, against what was before
			}
		}
		open = still
	}
	all = slices.DeleteFunc(all, func(s *suggestion) bool { return s.Versions == 0 })
	for _, s := range all {
		s.Of = len(states)
		s.Evidence = s.words()
	}
	slices.SortStableFunc(all, func(a, b *suggestion) int { return b.Versions - a.Versions })
	return all, nil
}

// tablesOf brings those tables of a state to disk that it has of the ones that are given.
func (c *verifiersSuggestCmd) tablesOf(ctx context.Context, lake *checkout, s *state, like []protocol.Table, dir string) ([]protocol.Table, error) {
	var tables []protocol.Table
	for _, in := range like {
		t := s.tables[strings.ToLower(in.Name)]
		if t == nil {
			continue
		}
		loaded, err := lake.input(ctx, c.workerFlag, t, dir)
		if err != nil {
			return nil, err
		}
		loaded.Name = in.Name
		tables = append(tables, loaded)
	}
	return tables, nil
}

// fewestGrowths is how many changes of a number of rows it takes to say how it changes.
const fewestGrowths = 3

// growth suggests bounds of the change of a table's rows: half as much again as it ever
// was, at least a hundredth. rows are those of the versions, the newest first; -1 is not known.
func growth(name string, key []string, rows []int64) *suggestion {
	least, most, n := 0.0, 0.0, 0
	for i := range len(rows) - 1 {
		if rows[i] >= 0 && rows[i+1] > 0 {
			change := float64(rows[i]-rows[i+1]) / float64(rows[i+1])
			least, most, n = min(least, change), max(most, change), n+1
		}
	}
	if n < fewestGrowths {
		return nil
	}
	low, high := max(-100, math.Floor(150*least)), math.Ceil(max(1, 150*most))
	bound := func(percent float64) *plan.Bound {
		return &plan.Bound{Value: percent / 100, Relative: true, Text: fmt.Sprintf("%g%%", percent)}
	}
	rule := plan.Rule{Kind: plan.RowCountChange, Min: bound(low), Max: bound(high)}
	if low == 0 {
		rule.Min.Text = "0%"
	}
	finding, _ := rule.Compile(name, "", key)
	quoted := name
	if strings.Contains(name, ".") {
		quoted = `"` + name + `"`
	}
	return &suggestion{Versions: 1, Suggestion: protocol.Suggestion{
		Table: name, Kind: string(plan.RowCountChange), Says: fmt.Sprintf("between %d versions the rows changed by %+.2f%% to %+.2f%%", n+1, 100*least, 100*most),
		Remedy: protocol.Remedy{SQL: finding, YAML: fmt.Sprintf("tables: {%s: {rules: [row_count_change: {min: %s, max: %s}]}}", quoted, rule.Min.Text, rule.Max.Text)},
	}}
}

// rowsOf is the number of rows that table.json says; -1 if there is none.
func (c *checkout) rowsOf(ctx context.Context, t *localTable) int64 {
	if t == nil {
		return -1
	}
	snap, err := c.snapshot(ctx, t)
	if err != nil || snap == nil {
		return -1
	}
	var n int64
	for _, p := range snap.Parts {
		n += p.Rows
	}
	return n
}

// tableVersions are the commits of HEAD's first parents in which a table became another,
// the newest first. own is the newest, where it is what is on disk; it is then not among them.
func (c *checkout) tableVersions(ctx context.Context, p *localPlan, name string, most int) (own string, commits []string, err error) {
	if _, err := c.commitOf(ctx, "HEAD"); err != nil || most == 0 {
		return "", nil, ctx.Err() // nothing is committed yet
	}
	dir, err := table.Dir(name)
	if err != nil {
		return "", nil, err
	}
	list, err := c.gitOutput(ctx, "log", "--first-parent", "--diff-merges=first-parent", "--format=%H", fmt.Sprintf("--max-count=%d", most+1), "HEAD", "--", dir)
	if err != nil {
		return "", nil, err
	}
	commits = strings.Fields(list)
	if len(commits) > 0 && c.sameFiles(ctx, p, name, commits[0]) {
		own, commits = commits[0], commits[1:]
	}
	return own, commits[:min(len(commits), most)], nil
}

// sameFiles reports whether a table on disk has the files that a commit has.
func (c *checkout) sameFiles(ctx context.Context, p *localPlan, name, commit string) bool {
	s, err := c.stateAt(ctx, commit)
	if err != nil {
		return false
	}
	now, then := p.state.tables[strings.ToLower(name)], s.tables[strings.ToLower(name)]
	if now == nil || then == nil || len(now.files) != len(then.files) {
		return false
	}
	for base := range now.files {
		if _, ok := then.files[base]; !ok {
			return false // parts are named by their content
		}
	}
	return true
}

// words says since when a suggestion held.
func (s *suggestion) words() string {
	switch {
	case s.Of == 1:
		return "there is one version only"
	case s.Broken != "":
		return fmt.Sprintf("held in the last %d of %d versions; not in %s", s.Versions, s.Of, s.Broken[:min(10, len(s.Broken))])
	}
	return fmt.Sprintf("held in all of %d versions, since %s", s.Of, s.Since[:min(10, len(s.Since))])
}

const suggestedDir = "verifiers/suggested"

var notInFileNames = regexp.MustCompile(`[^a-z0-9]+`)

// name gives each suggestion a file of its own.
func (r *suggestReport) name() {
	taken := make(map[string]bool)
	for _, s := range r.Suggestions {
		base := strings.Trim(notInFileNames.ReplaceAllString(strings.ToLower(s.Table+"_"+s.Column+"_"+s.Kind), "_"), "_")
		base = base[:min(len(base), 100)]
		name := base
		for n := 2; taken[name]; n++ {
			name = fmt.Sprintf("%s_%d", base, n)
		}
		taken[name] = true
		s.File = path.Join(suggestedDir, name+".sql")
	}
}

// text is the file of a suggestion.
func (s *suggestion) text() string {
	var b strings.Builder
	line := func(text string) { b.WriteString("-- " + strings.Join(strings.Fields(text), " ") + "\n") }
	what := s.Table
	if s.Column != "" {
		what += "." + s.Column
	}
	line(fmt.Sprintf("Suggested: %s of %s. %s; %s.", s.Kind, what, s.Says, s.Evidence))
	if s.YAML != "" {
		line("The same in headgate.yaml, instead of this file: " + s.YAML)
	}
	b.WriteString(strings.TrimRight(s.SQL, "\n") + "\n")
	return b.String()
}

func (r *suggestReport) write(lake *checkout, std streams) error {
	if err := os.MkdirAll(filepath.Join(lake.root, suggestedDir), 0o777); err != nil {
		return err
	}
	written := 0
	for _, s := range r.Suggestions {
		f, err := os.OpenFile(filepath.Join(lake.root, filepath.FromSlash(s.File)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		if errors.Is(err, fs.ErrExist) {
			fmt.Fprintf(std.err, "%s is there already and was left as it is\n", s.File)
			continue
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString(s.text())
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		written++
	}
	fmt.Fprintf(std.err, "wrote %s to %s; read them, keep what is meant, and commit it\n", plural(int64(written), "file"), suggestedDir)
	return nil
}

func (r *suggestReport) print(std streams) {
	table := ""
	for _, s := range r.Suggestions {
		if s.Table != table {
			table = s.Table
			fmt.Fprintf(std.out, "%s\n", visible(table))
		}
		what := s.Kind
		if s.Column != "" {
			what = s.Column + ": " + s.Kind
		}
		fmt.Fprintf(std.out, "  %s: %s; %s\n", visible(what), visible(s.Says), s.Evidence)
		if s.YAML != "" {
			fmt.Fprintf(std.out, "      headgate.yaml: %s\n", visible(s.YAML))
			continue
		}
		for line := range strings.SplitSeq(strings.TrimRight(s.SQL, "\n"), "\n") {
			fmt.Fprintf(std.out, "      %s\n", visible(line))
		}
	}
	if len(r.Suggestions) == 0 {
		fmt.Fprintln(std.out, "nothing to suggest: there are no rows, or what holds is verified already")
	}
}
