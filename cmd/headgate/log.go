package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects/table"
)

type logCmd struct {
	Args    []string `arg:"" optional:"" name:"revision or table" help:"Where to start, or a range: main~10, v1..main. Then only commits that changed these tables or paths: tables/flights, flights."`
	Ref     string   `help:"Where to start; the same as naming it." default:"HEAD" placeholder:"REV"`
	Limit   int      `help:"Show at most this many commits; 0 shows all." short:"n" default:"0"`
	JSON    bool     `help:"Print one JSON array." name:"json"`
	Color   string   `help:"Colour the output: auto as git log does, always, never." enum:"auto,always,never" default:"auto"`
	NoPager bool     `help:"Do not pipe a terminal's output into git's pager."`
	Lake    string   `help:"The checkout's directory, or a bare clone's." default:"." type:"existingdir" placeholder:"DIR"`
}

// Help is shown below the command's flags.
func (logCmd) Help() string {
	return `Examples:
  headgate log
  headgate log tables/airport_delay
  headgate log v1..main flights
  headgate log --json -n 1 | jq '.[0].models[].rows'

Follows first parents, which on a gated branch are the gate's own commits. Of each
table that a commit changed it tells the rows, the bytes that are new, and those
of parts that the table had before; of each model, what it read. Commits that no
gate made are shown too, and told apart. What is shown is what the commits say; git
verify-commit says whether the gate signed them.`
}

// published is one commit of the log as --json prints it.
type published struct {
	Commit    string              `json:"commit"`
	Time      string              `json:"time"` // RFC 3339
	Author    string              `json:"author"`
	Subject   string              `json:"subject"`
	RunID     string              `json:"run,omitempty"` // absent: not a gate commit
	Base      string              `json:"base,omitempty"`
	Proposal  string              `json:"proposal,omitempty"`
	PushedBy  string              `json:"pushed_by,omitempty"`
	Approved  []string            `json:"approved_by,omitempty"` // if it took approvals
	Tables    []*changedTable     `json:"tables,omitempty"`      // that it changed
	Models    []publishedModel    `json:"models,omitempty"`
	Verifiers []publishedVerifier `json:"verifiers,omitempty"`
	Problem   string              `json:"problem,omitempty"` // trailers that cannot be read
}

type publishedModel struct {
	Name   string            `json:"name"`
	Rows   int64             `json:"rows"`
	Cached bool              `json:"cached"`
	Inputs map[string]string `json:"inputs"` // table -> snapshot
	Out    string            `json:"out"`
	Code   string            `json:"code"`
	Env    string            `json:"env"`

	Params   json.RawMessage `json:"params,omitempty"`   // name -> value
	Strategy string          `json:"strategy,omitempty"` // absent: REPLACE
	Prior    string          `json:"prior,omitempty"`    // the snapshot that the strategy builds on
	// NotDeterministic: a second run on the same inputs gave something else.
	NotDeterministic bool `json:"not_deterministic,omitempty"`
}

type publishedVerifier struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	AtBase bool   `json:"at_base,omitempty"` // it is the base's, which the proposal removed or changed
}

// Run prints the log.
func (c *logCmd) Run(ctx context.Context, std streams) (err error) {
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	revs, paths, err := c.split(ctx, lake)
	if err != nil {
		return err
	}
	var args []string
	if c.Limit > 0 {
		args = append(args, "-n", strconv.Itoa(c.Limit))
	}
	args = append(append(append(args, "--end-of-options"), revs...), "--")
	log, err := lake.openLog(ctx, append(args, paths...)...)
	if err != nil {
		return err
	}
	defer log.close()
	git, err := lake.contents(ctx)
	if err != nil {
		return err
	}
	defer git.close()
	show, done, err := c.printer(ctx, lake, std, paths)
	if err != nil {
		return err
	}
	read := &outlines{lake: lake, git: git, seen: make(map[string]outline)}
	err = eachCommit(ctx, log, read, show)
	if derr := done(); err == nil || errors.Is(err, errPagerLeft) {
		err = derr
	}
	return err
}

// eachCommit shows commits as they come. They are measured some at a time, so that
// a partial clone is not asked for each of them, and the first is not waited for.
func eachCommit(ctx context.Context, log *logReader, read *outlines, show func(*published) error) error {
	const most = 128
	for some := 4; ; some = min(2*some, most) {
		var commits []*published
		for len(commits) < some {
			p, err := log.read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			commits = append(commits, p)
		}
		if err := read.measure(ctx, commits); err != nil {
			return err
		}
		for _, p := range commits {
			if err := show(p); err != nil {
				return err
			}
		}
		if len(commits) < some {
			return nil
		}
	}
}

// split tells revisions from paths, as git does: revisions come first, and what is
// one is none of the others.
func (c *logCmd) split(ctx context.Context, lake *checkout) (revs, paths []string, err error) {
	for i, arg := range c.Args {
		isRev := false
		if len(paths) == 0 && !strings.HasPrefix(arg, table.Root+"/") && !strings.HasPrefix(arg, "-") {
			_, err := lake.gitOutput(ctx, "rev-parse", "--quiet", "--verify", "--end-of-options", arg)
			isRev = err == nil || strings.Contains(arg, "..")
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
		}
		if isRev {
			revs = append(revs, arg)
			continue
		}
		paths = c.Args[i:]
		break
	}
	if len(revs) == 0 {
		revs = []string{c.Ref}
	} else if c.Ref != "HEAD" {
		return nil, nil, usagef("--ref and %s both say where to start", revs[0])
	}
	paths = slices.Clone(paths)
	for i, path := range paths {
		if strings.Contains(path, "/") || lake.holds(path) {
			continue
		}
		dir, err := table.Dir(path)
		if err != nil {
			return nil, nil, fmt.Errorf("%q is no revision, no path and no table here", path)
		}
		paths[i] = dir
	}
	return revs, paths, nil
}

// holds reports whether a file of that name is in the work tree.
func (c *checkout) holds(path string) bool {
	if c.bare {
		return false
	}
	_, err := os.Lstat(filepath.Join(c.root, path))
	return err == nil
}

// printer returns what shows a commit, and what ends that.
func (c *logCmd) printer(ctx context.Context, lake *checkout, std streams, paths []string) (show func(*published) error, done func() error, err error) {
	first := true
	if c.JSON {
		show = func(p *published) error {
			text, err := jsonText(p, "  ")
			sep := ",\n  "
			if first {
				sep, first = "[\n  ", false
			}
			if err == nil {
				_, err = fmt.Fprint(std.out, sep, text)
			}
			return err
		}
		done = func() error {
			end := "\n]\n"
			if first {
				end = "[]\n"
			}
			_, err := fmt.Fprint(std.out, end)
			return err
		}
		return show, done, nil
	}
	out := std.out
	done = func() error { return nil }
	if !c.NoPager && isTerminal(std.out) {
		pager, err := lake.page(ctx, std, "log")
		if err != nil {
			return nil, nil, err
		}
		if pager != nil {
			out, done = pager, pager.close
		}
	}
	color, reset := lake.commitColor(ctx, c.Color, isTerminal(std.out))
	only := make(map[string]bool)
	for _, path := range paths {
		if name, ok := table.NameOf(strings.TrimSuffix(path, "/") + "/" + table.FileName); ok {
			only[name] = true
		}
	}
	show = func(p *published) error {
		var b strings.Builder
		if !first {
			b.WriteByte('\n')
		}
		first = false
		p.print(&b, only, color, reset)
		_, err := io.WriteString(out, b.String())
		return err
	}
	return show, done, nil
}

// commitColor returns what switches git's colour of a commit's name on and off.
func (c *checkout) commitColor(ctx context.Context, when string, terminal bool) (on, off string) {
	ask := func(args ...string) string {
		out, err := c.gitOutput(ctx, append([]string{"config"}, args...)...)
		if err != nil {
			return ""
		}
		return out
	}
	switch {
	case when == "never", when == "auto" && os.Getenv("NO_COLOR") != "":
		return "", ""
	case when == "auto" && strings.TrimSpace(ask("--get-colorbool", "color.ui", fmt.Sprint(terminal))) != "true":
		return "", ""
	}
	return ask("--get-color", "color.diff.commit", "yellow"), ask("--get-color", "", "reset")
}

func readCommit(text string) published {
	oid, rest, _ := strings.Cut(text, "\n")
	when, rest, _ := strings.Cut(rest, "\n")
	author, message, _ := strings.Cut(rest, "\n")
	subject, _, _ := strings.Cut(message, "\n")
	p := published{Commit: oid, Time: when, Author: author, Subject: subject}
	g, err := trailer.Parse(message)
	if errors.Is(err, trailer.ErrNotGate) {
		return p
	}
	if err != nil {
		p.Problem = err.Error()
		return p
	}
	p.RunID, p.Base, p.Proposal, p.PushedBy, p.Approved = g.RunID, g.Base.String(), g.Proposal.String(), g.PushedBy, g.ApprovedBy
	for _, m := range g.Models {
		inputs := make(map[string]string, len(m.Inputs))
		for _, in := range m.Inputs {
			inputs[in.Table] = in.Snapshot
		}
		made := publishedModel{
			Name: m.Name, Rows: m.Rows, Cached: m.Cached, Inputs: inputs, Out: m.Out, Code: m.Code, Env: m.Env, Strategy: m.Strategy, Prior: m.Prior,
			NotDeterministic: m.NotDeterministic,
		}
		if json.Valid([]byte(m.Params)) {
			made.Params = json.RawMessage(m.Params)
		}
		p.Models = append(p.Models, made)
	}
	for _, v := range g.Verifiers {
		p.Verifiers = append(p.Verifiers, publishedVerifier{v.Name, v.Result, v.AtBase})
	}
	return p
}

// print writes a commit for people. If only names tables, the models of others and
// the verifiers are left out.
func (p *published) print(w io.Writer, only map[string]bool, color, reset string) {
	fmt.Fprintf(w, "%s%s%s  %s  %s\n", color, p.Commit[:min(10, len(p.Commit))], reset, p.Time, visible(p.Subject))
	switch {
	case p.Problem != "":
		fmt.Fprintf(w, "    its trailers cannot be read: %s\n", visible(p.Problem))
	case p.RunID == "":
		fmt.Fprintf(w, "    not a gate commit, by %s\n", visible(p.Author))
	default:
		approved := ""
		if len(p.Approved) > 0 {
			approved = ", approved by " + visible(strings.Join(p.Approved, ", "))
		}
		fmt.Fprintf(w, "    run %s, pushed by %s%s, proposal %s\n", p.RunID, visible(p.PushedBy), approved, p.Proposal[:10])
	}
	shown := func(name string) bool { return len(only) == 0 || only[name] }
	width := 20
	for _, t := range p.Tables {
		width = max(width, utf8.RuneCountInString(t.Name))
	}
	for _, m := range p.Models {
		width = max(width, utf8.RuneCountInString(m.Name))
	}
	for _, v := range p.Verifiers {
		width = max(width, utf8.RuneCountInString(v.Name))
	}
	for _, t := range p.Tables {
		if shown(t.Name) {
			fmt.Fprintf(w, "    table     %-*s %s\n", width, visible(t.Name), t.text())
		}
	}
	for _, m := range p.Models {
		if shown(m.Name) {
			fmt.Fprintf(w, "    model     %-*s %s\n", width, visible(m.Name), m.text())
		}
	}
	if len(only) > 0 {
		return
	}
	for _, v := range p.Verifiers {
		of := ""
		if v.AtBase {
			of = ", as it was at the base"
		}
		fmt.Fprintf(w, "    verifier  %-*s %s%s\n", width, visible(v.Name), visible(v.Result), of)
	}
}

func (m *publishedModel) text() string {
	how := ""
	if m.Strategy != "" {
		how = ", " + visible(m.Strategy)
	}
	if m.Cached {
		how += ", cached"
	}
	if m.NotDeterministic {
		how += ", not deterministic"
	}
	var from []string
	for table := range m.Inputs {
		from = append(from, visible(table))
	}
	return fmt.Sprintf("%12s rows%s%s", thousands(m.Rows), how, madeFrom(from))
}

// text tells what became of a table: how many rows, and what of it had to be stored.
func (t *changedTable) text() string {
	if t.Status == "removed" {
		return fmt.Sprintf("removed, with %s", plural(t.RowsBefore, "row"))
	}
	if t.Problem != "" {
		return visible(t.Problem)
	}
	by := ""
	if t.Status == "changed" {
		sign := ""
		if t.Rows >= t.RowsBefore {
			sign = "+"
		}
		by = fmt.Sprintf(" (%s%s)", sign, thousands(t.Rows-t.RowsBefore))
	} else {
		by = ", added"
	}
	parts := plural(t.PartsNew, "new part") + " of " + byteSize(t.BytesNew)
	if t.PartsReused > 0 {
		parts += fmt.Sprintf(", %s reused of %s", thousands(t.PartsReused), byteSize(t.BytesReused))
	}
	return fmt.Sprintf("%12s rows%s; %s", thousands(t.Rows), by, parts)
}
