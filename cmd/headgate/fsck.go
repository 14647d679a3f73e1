package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/headgate/headgate/hooks/lake"
)

type fsckCmd struct {
	Lakes []string `arg:"" optional:"" name:"lake" help:"Which lakes; all if none is named."`
	Data  string   `help:"The server's data directory." default:"headgate-data" type:"existingdir" placeholder:"DIR"`
	All   bool     `help:"Check the tables of all commits, not of the refs' tips only." name:"all-commits"`
	JSON  bool     `help:"Print one JSON document: a list of reports." name:"json"`
}

// Help is shown below the command's flags.
func (fsckCmd) Help() string {
	return `Examples:
  headgate fsck --data /srv/headgate
  headgate fsck --data /srv/headgate flights --json

Reads every byte of the lakes' objects: packs and indexes against their checksums,
objects against their names and git's rules, and what they name is there. Every ref
must name an object, and every table.json at a ref's tip be true of its directory:
one that is not is a fault where the gate must have passed it, and a warning on
a branch without a gate, which takes any table.
No server may have the lakes open. Only what a killed server left half-done is
removed, as at every start of a server.

Exit codes: 0 sound, 1 could not look, 2 wrong usage, 3 faults were found.`
}

// exitFaults says that fsck looked, and found faults.
const exitFaults = 3

// faultsError is the result of an fsck that found faults, which are printed.
type faultsError struct{ n int }

func (e *faultsError) Error() string {
	return fmt.Sprintf("%d faults; restore what is damaged from a backup or from a clone that has it", e.n)
}

// Run checks the lakes, one after another.
func (c *fsckCmd) Run(ctx context.Context, std streams) error {
	root := filepath.Join(c.Data, "lakes")
	log := slog.New(slog.DiscardHandler)
	names, err := lakesOf(root, c.Lakes)
	if err != nil {
		return err
	}
	reports := []*lake.Report{}
	faults := 0
	for _, n := range names {
		r, err := lake.Fsck(ctx, root, n, lake.FsckOptions{AllCommits: c.All}, log)
		if err != nil {
			return err
		}
		faults += len(r.Faults)
		reports = append(reports, r)
		if !c.JSON {
			if _, err := io.WriteString(std.out, r.Text()); err != nil {
				return err
			}
		}
	}
	if c.JSON {
		if err := printJSON(std.out, reports); err != nil {
			return err
		}
	}
	if faults > 0 {
		return &faultsError{faults}
	}
	return nil
}
