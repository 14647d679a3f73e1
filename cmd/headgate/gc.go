package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/headgate/headgate/hooks/lake"
)

type gcCmd struct {
	Lakes  []string      `arg:"" optional:"" name:"lake" help:"Which lakes; all if none is named."`
	Data   string        `help:"The server's data directory." default:"headgate-data" type:"existingdir" placeholder:"DIR"`
	Grace  time.Duration `help:"Keep objects that came later than this ago." default:"336h"`
	Reflog time.Duration `help:"Keep what a ref named later than this ago." default:"720h"`
	keepFlags
	DryRun bool `help:"Say what would be removed, and remove nothing."`
	JSON   bool `help:"Print one JSON document: a list of reports." name:"json"`
}

// Help is shown below the command's flags.
func (gcCmd) Help() string {
	return `Examples:
  headgate gc --data /srv/headgate --dry-run
  headgate gc --data /srv/headgate flights --grace 24h

Removes objects that no ref leads to, that no ref named in the last 30 days, and that
came more than two weeks ago, and joins packs. Before that it drops what runs left that
published nothing: states older than 30 days, records older than 90. No server may have the lakes open; for
one that runs there is "ssh host lake gc <lake>". If it is stopped at any moment, nothing
that is in use is lost, and the next gc goes on.

Exit codes: 0 done, 1 could not, 2 wrong usage.`
}

// Run collects the lakes, one after another.
func (c *gcCmd) Run(ctx context.Context, std streams) error {
	if c.Grace < 0 || c.Reflog < 0 {
		return usagef("durations cannot be negative")
	}
	keep, err := c.retention()
	if err != nil {
		return err
	}
	root := filepath.Join(c.Data, "lakes")
	names, err := lakesOf(root, c.Lakes)
	if err != nil {
		return err
	}
	opt := lake.GCOptions{Grace: c.Grace, Reflog: c.Reflog, Keep: keep, DryRun: c.DryRun}
	reports := []*lake.GCReport{}
	for _, n := range names {
		if !c.JSON {
			opt.Progress = func(line string) { fmt.Fprintf(std.err, "%s: %s\n", n, line) }
		}
		r, err := lake.GC(ctx, root, n, slog.New(slog.DiscardHandler), opt)
		if err != nil {
			return err
		}
		reports = append(reports, r)
		if !c.JSON {
			if _, err := io.WriteString(std.out, r.Text()); err != nil {
				return err
			}
		}
	}
	if c.JSON {
		return printJSON(std.out, reports)
	}
	return nil
}

// lakesOf reads names of lakes; none are all.
func lakesOf(root string, texts []string) ([]lake.Name, error) {
	var names []lake.Name
	for _, text := range texts {
		n, err := lake.ParseName(text)
		if err != nil {
			return nil, usagef("%v", err)
		}
		names = append(names, n)
	}
	if len(names) > 0 {
		return names, nil
	}
	return lake.ListNames(root)
}
