package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/headgate/headgate/hooks/trailer"
)

type logCmd struct {
	Path  []string `arg:"" optional:"" help:"Only commits that changed these paths: tables/flights."`
	Ref   string   `help:"Where to start." default:"HEAD" placeholder:"REV"`
	Limit int      `help:"Show at most this many commits; 0 shows all." short:"n" default:"0"`
	JSON  bool     `help:"Print one JSON array." name:"json"`
	Lake  string   `help:"The checkout's directory." default:"." type:"existingdir" placeholder:"DIR"`
}

// Help is shown below the command's flags.
func (logCmd) Help() string {
	return `Examples:
  headgate log
  headgate log tables/airport_delay
  headgate log --json -n 1 | jq '.[0].models[].rows'

Follows first parents, which on a gated branch are the gate's own commits. What
is shown is what the commits say; git verify-commit says whether the gate signed
them.`
}

// published is one commit of the log as --json prints it.
type published struct {
	Commit    string              `json:"commit"`
	Time      string              `json:"time"` // RFC 3339
	Subject   string              `json:"subject"`
	RunID     string              `json:"run,omitempty"` // absent: not a gate commit
	Base      string              `json:"base,omitempty"`
	Proposal  string              `json:"proposal,omitempty"`
	PushedBy  string              `json:"pushed_by,omitempty"`
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
func (c *logCmd) Run(ctx context.Context, std streams) error {
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	args := []string{"log", "-z", "--first-parent", "--format=%H%n%cI%n%B"}
	if c.Limit > 0 {
		args = append(args, "-n", strconv.Itoa(c.Limit))
	}
	args = append(args, "--end-of-options", c.Ref, "--")
	text, err := lake.gitOutput(ctx, append(args, c.Path...)...)
	if err != nil {
		return err
	}
	entries := []published{}
	for commit := range strings.SplitSeq(text, "\x00") {
		if commit != "" {
			entries = append(entries, readCommit(commit))
		}
	}
	if c.JSON {
		return printJSON(std.out, entries)
	}
	for i, e := range entries {
		if i > 0 {
			fmt.Fprintln(std.out)
		}
		e.print(std.out)
	}
	return nil
}

func readCommit(text string) published {
	oid, rest, _ := strings.Cut(text, "\n")
	when, message, _ := strings.Cut(rest, "\n")
	subject, _, _ := strings.Cut(message, "\n")
	p := published{Commit: oid, Time: when, Subject: subject}
	g, err := trailer.Parse(message)
	if errors.Is(err, trailer.ErrNotGate) {
		return p
	}
	if err != nil {
		p.Problem = err.Error()
		return p
	}
	p.RunID, p.Base, p.Proposal, p.PushedBy = g.RunID, g.Base.String(), g.Proposal.String(), g.PushedBy
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

func (p *published) print(w io.Writer) {
	fmt.Fprintf(w, "%s  %s  %s\n", p.Commit[:min(10, len(p.Commit))], p.Time, visible(p.Subject))
	switch {
	case p.Problem != "":
		fmt.Fprintf(w, "    its trailers cannot be read: %s\n", visible(p.Problem))
		return
	case p.RunID == "":
		fmt.Fprintln(w, "    not a gate commit")
		return
	}
	fmt.Fprintf(w, "    run %s, pushed by %s, proposal %s\n", p.RunID, visible(p.PushedBy), p.Proposal[:10])
	width := 20
	for _, m := range p.Models {
		width = max(width, utf8.RuneCountInString(m.Name))
	}
	for _, v := range p.Verifiers {
		width = max(width, utf8.RuneCountInString(v.Name))
	}
	for _, m := range p.Models {
		cached := ""
		if m.Cached {
			cached = ", cached"
		}
		if m.NotDeterministic {
			cached += ", not deterministic"
		}
		var from []string
		for table := range m.Inputs {
			from = append(from, visible(table))
		}
		strategy := ""
		if m.Strategy != "" {
			strategy = ", " + visible(m.Strategy)
		}
		fmt.Fprintf(w, "    model     %-*s %12s rows%s%s%s\n", width, visible(m.Name), thousands(m.Rows), strategy, cached, madeFrom(from))
	}
	for _, v := range p.Verifiers {
		fmt.Fprintf(w, "    verifier  %-*s %s\n", width, visible(v.Name), visible(v.Result))
	}
}
