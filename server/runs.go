package server

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
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
	r, err := l.Runs.Get(args[1])
	if errors.Is(err, lake.ErrNoRun) {
		return c.fail("lake %s has no run %s; %s run ls %s lists them", l.Name, quoted(clipLine(args[1])), c.cfg.SSH, l.Name)
	} else if err != nil {
		return c.broken("cannot read run", err)
	}
	doc, err := hooks.RunJSON(c.client, l, r.ID)
	if err != nil && !errors.Is(err, objects.ErrNotFound) {
		return c.broken("cannot read run record", err)
	}
	if *flags.(*bool) {
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
	_ = w.Flush() // to memory
	if len(rec.Models) > 0 {
		fmt.Fprintln(&b, "\nmodels")
		for _, m := range rec.Models {
			fmt.Fprintf(w, "  %s\t%s\t%d rows\t%.2f s\t%s\n", m.Name, m.Status, m.Rows, m.Seconds, note(m.Cached, m.Error, m.CostRecord))
		}
		_ = w.Flush()
	}
	if len(rec.Verifiers) > 0 {
		fmt.Fprintln(&b, "\nverifiers")
		for _, v := range rec.Verifiers {
			fmt.Fprintf(w, "  %s\t%s\t%d violating rows\t%s\n", v.Name, v.Status, v.Violations, note(v.Cached, v.Error, v.CostRecord))
		}
		_ = w.Flush()
	}
	fmt.Fprintf(&b, "\nthe record:  git fetch origin refs/runs/%s\nthe tables:  git fetch origin refs/scratch/%s\n", r.ID, r.ID)
	return b.String()
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
