package server

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
)

type runListOptions struct {
	json  *bool
	limit *int
}

func runListFlags(fs *flag.FlagSet) any {
	return runListOptions{
		json:  fs.Bool("json", false, "print JSON"),
		limit: fs.Int("limit", 20, "show at most `N` runs; 0 is all"),
	}
}

func runList(c *session, args []string, flags any) int {
	opt := flags.(runListOptions)
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	runs, err := l.Runs.List(max(*opt.limit, 0))
	if err != nil {
		return c.broken("cannot list runs", err)
	}
	if *opt.json {
		if runs == nil {
			runs = []lake.Run{}
		}
		return c.printJSON(runs)
	}
	if len(runs) == 0 {
		return c.print(fmt.Sprintf("no runs yet; a push to %s starts one\n", c.cfg.Head))
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RUN\tSTATE\tTARGET\tWHO\tSTARTED\tTOOK\tREASON")
	for _, r := range runs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.State, shortRef(r.Target), r.Who,
			r.Started.UTC().Format("2006-01-02 15:04:05Z"), took(r.Started, r.Ended), firstLine(r.Reason))
	}
	_ = w.Flush() // to memory
	return c.print(printable(b.String()))
}

func shortRef(name string) string { return strings.TrimPrefix(name, "refs/heads/") }

func took(started, ended time.Time) string {
	if ended.IsZero() {
		return "..."
	}
	return ended.Sub(started).Round(10 * time.Millisecond).String()
}

func firstLine(text string) string {
	line, _, more := strings.Cut(text, "\n")
	line = strings.ReplaceAll(line, "\t", " ")
	if more {
		line += " ..."
	}
	return line
}

func runShow(c *session, args []string, flags any) int {
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	r, code := c.journalOf(l, args[1])
	if code != exitOK {
		return code
	}
	return c.tell(l, r, *flags.(*bool))
}

// journalOf returns a run's entry in the journal; the client was told if there is none.
func (c *session) journalOf(l *lake.Lake, id string) (lake.Run, int) {
	r, err := l.Runs.Get(id)
	if errors.Is(err, lake.ErrNoRun) {
		return r, c.fail("lake %s has no run %s; %s run ls %s lists them", l.Name, quoted(clipLine(id)), c.cfg.SSH, l.Name)
	} else if err != nil {
		return r, c.broken("cannot read run", err)
	}
	return r, exitOK
}

// tell prints a run's story, as text or as JSON.
func (c *session) tell(l *lake.Lake, r lake.Run, asJSON bool) int {
	doc, err := hooks.RunJSON(c.client, l, r.ID)
	if err != nil && !errors.Is(err, objects.ErrNotFound) {
		return c.broken("cannot read run record", err)
	}
	if asJSON {
		if doc == nil { // the run is under way: its journal entry is all there is
			return c.printJSON(r)
		}
		return c.print(strings.TrimSuffix(string(doc), "\n") + "\n")
	}
	var rec hooks.Record
	if doc != nil {
		if err := json.Unmarshal(doc, &rec); err != nil {
			return c.broken("cannot read run record", err)
		}
	}
	return c.print(printable(runText(r, &rec)))
}

// watchSilence is how long a watcher hears nothing before it is told that the run
// goes on, well before a connection counts as idle.
const watchSilence = 5 * time.Minute

func runWatch(c *session, args []string, _ any) int {
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	id := c.cfg.Runs.Newest(l)
	if len(args) > 1 {
		id = args[1]
	} else if id == "" {
		return c.fail("no run is under way in lake %s; %s run ls %s lists those that ended", l.Name, c.cfg.SSH, l.Name)
	}
	w := &watched{Writer: c.out}
	w.timer = time.AfterFunc(watchSilence, func() {
		fmt.Fprintf(c.errw, "headgate: run %s is still under way\n", id)
		w.timer.Reset(watchSilence)
	})
	state, err := c.cfg.Runs.Watch(c.client, l, id, w)
	w.timer.Stop()
	switch {
	case errors.Is(err, hooks.ErrNotUnderWay):
		r, code := c.journalOf(l, id)
		if code != exitOK {
			return code
		}
		if code := c.tell(l, r, false); code != exitOK {
			return code
		}
		state = r.State
	case err != nil:
		return c.broken("cannot watch run", err)
	}
	if state == lake.Published || state == lake.Passed {
		return exitOK
	}
	return exitFail
}

// watched puts off the timer at each write.
type watched struct {
	io.Writer
	timer *time.Timer
}

func (w *watched) Write(p []byte) (int, error) {
	w.timer.Reset(watchSilence)
	return w.Writer.Write(p)
}

func runCancel(c *session, args []string, _ any) int {
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	err := c.cfg.Runs.Cancel(c.client, l, args[1], c.who)
	var refused *hooks.CancelError
	switch {
	case errors.As(err, &refused):
		return c.fail("%s", printable(refused.Text))
	case errors.Is(err, hooks.ErrNotUnderWay):
		r, code := c.journalOf(l, args[1])
		if code != exitOK {
			return code
		}
		return c.fail("run %s is over: it is %s", r.ID, r.State)
	case err != nil:
		return c.broken("cannot cancel run", err)
	}
	return c.print(fmt.Sprintf("run %s is cancelled\n", args[1]))
}

// runText tells a run's story in a terminal.
func runText(r lake.Run, rec *hooks.Record) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "run\t%s\n", r.ID)
	fmt.Fprintf(w, "state\t%s\n", r.State)
	fmt.Fprintf(w, "target\t%s\n", shortRef(r.Target))
	fmt.Fprintf(w, "who\t%s\n", r.Who)
	fmt.Fprintf(w, "started\t%s\n", r.Started.UTC().Format(time.RFC3339))
	fmt.Fprintf(w, "took\t%s\n", took(r.Started, r.Ended))
	fmt.Fprintf(w, "base\t%s\n", r.Base)
	fmt.Fprintf(w, "proposal\t%s\n", strings.TrimSpace(r.Proposal+" "+firstLine(rec.Subject)))
	if r.Gate != "" {
		fmt.Fprintf(w, "gate commit\t%s\n", r.Gate)
	}
	reasons := rec.Reasons
	if len(reasons) == 0 && r.Reason != "" {
		reasons = []string{r.Reason}
	}
	for _, reason := range reasons {
		fmt.Fprintf(w, "reason\t%s\n", firstLine(reason))
	}
	for _, warning := range rec.Warnings {
		fmt.Fprintf(w, "warning\t%s\n", firstLine(warning))
	}
	if len(rec.PolicyChanges) > 0 {
		fmt.Fprintf(w, "policy\tchanges %s\n", strings.Join(rec.PolicyChanges, ", "))
	}
	for _, v := range rec.VerifierChanges {
		text := v.Change + " " + v.Name
		if v.NotRun != "" {
			text += "; the one at the tip did not judge: " + v.NotRun
		}
		fmt.Fprintf(w, "verifier\t%s\n", firstLine(text))
	}
	for _, a := range rec.Approvals {
		fmt.Fprintf(w, "approvals\t%d of %d for %s\t%s\n", len(a.By), a.Count, a.Rule, strings.Join(a.By, ", "))
	}
	_ = w.Flush() // to memory
	if len(rec.Models) > 0 {
		fmt.Fprintln(&b, "\nmodels")
		for _, m := range rec.Models {
			fmt.Fprintf(w, "  %s\t%s\t%d rows\t%.2f s\t%s\n", m.Name, m.Status, m.Rows, m.Seconds, modelNote(&m))
		}
		_ = w.Flush()
	}
	if len(rec.Verifiers) > 0 {
		fmt.Fprintln(&b, "\nverifiers")
		for _, v := range rec.Verifiers {
			name := v.Name
			if v.Tip {
				name += " (of the tip)"
			}
			fmt.Fprintf(w, "  %s\t%s\t%d violating rows\t%s\n", name, v.Status, v.Violations, note(v.Cached, v.Error, v.CostRecord))
		}
		_ = w.Flush()
	}
	fmt.Fprintf(&b, "\nthe record:  git fetch origin refs/runs/%s\nthe tables:  git fetch origin refs/scratch/%s\n", r.ID, r.ID)
	return b.String()
}

func modelNote(m *hooks.ModelRecord) string {
	text := note(m.Cached, m.Error, m.CostRecord)
	if m.Deterministic != nil && !*m.Deterministic {
		text = strings.TrimPrefix(text+"; not deterministic", "; ")
	}
	return text
}

func note(cached bool, failure *hooks.ErrorRecord, cost hooks.CostRecord) string {
	var parts []string
	if cached {
		parts = append(parts, "cached")
	}
	if failure != nil {
		parts = append(parts, firstLine(failure.Text))
	}
	for _, v := range cost.Violations {
		parts = append(parts, fmt.Sprintf("%s %s denied", v.Kind, firstLine(v.Detail)))
	}
	return strings.Join(parts, "; ")
}
