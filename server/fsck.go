package server

import (
	"flag"

	"github.com/headgate/headgate/hooks/lake"
)

const fsckHelp = `Reads everything that the lake holds and compares it with checksums and names, as headgate fsck does of a server that is stopped.
The lake stays in use. A table.json that is not true of its directory is a fault on the line of a gated branch, and a warning elsewhere;
the tips of refs are looked at, with --all-commits every commit. Exit code 3 if faults were found, 1 if it could not look.`

// exitFaults says that lake fsck looked, and found faults.
const exitFaults = 3

type fsckFlagSet struct{ all, json *bool }

func fsckFlags(f *flag.FlagSet) any {
	return fsckFlagSet{
		all:  f.Bool("all-commits", false, "check the tables of all commits, not of the refs' tips only"),
		json: f.Bool("json", false, "print JSON"),
	}
}

func lakeFsck(c *session, args []string, flags any) int {
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	opt := flags.(fsckFlagSet)
	r, err := l.Fsck(c.client, lake.FsckOptions{AllCommits: *opt.all})
	if err != nil {
		return c.broken("cannot check lake", err)
	}
	if *opt.json {
		code = c.printJSON(r)
	} else {
		code = c.print(printable(r.Text()))
	}
	if code == exitOK && len(r.Faults) > 0 {
		c.log.Error("lake has faults", "lake", l.Name, "faults", len(r.Faults))
		return exitFaults
	}
	return code
}
