package server

import (
	"flag"
	"time"

	"github.com/headgate/headgate/hooks/lake"
)

const gcHelp = `Removes objects that no ref leads to, that no ref named in the last 30 days (--reflog), and that came more than two weeks ago (--grace).
The lake stays in use. What pushes and runs under way may rely on is waited for, up to --wait; after that, or if this command is cut off,
run it again: it goes on where it was. Packs are joined by the way. Before, what runs left that published nothing is dropped: states after --keep-scratch, records after --keep-runs.
A server does all this by itself (serve --gc-every). Exit code 1 if it could not collect.`

type gcFlagSet struct {
	grace, reflog, wait   *time.Duration
	keepScratch, keepRuns *time.Duration
	dryRun, json          *bool
}

func gcFlags(f *flag.FlagSet) any {
	return gcFlagSet{
		grace:       f.Duration("grace", lake.DefaultGrace, "keep objects that came later than this ago"),
		reflog:      f.Duration("reflog", lake.DefaultReflog, "keep what a ref named later than this ago"),
		wait:        f.Duration("wait", lake.DefaultGCWait, "wait so long for pushes and runs under way"),
		keepScratch: f.Duration("keep-scratch", lake.DefaultKeepScratch, "keep the state of the data of runs that published nothing; 0 keeps it for ever"),
		keepRuns:    f.Duration("keep-runs", lake.DefaultKeepRuns, "keep the records of runs that published nothing; 0 keeps them for ever"),
		dryRun:      f.Bool("dry-run", false, "say what would be removed, and remove nothing"),
		json:        f.Bool("json", false, "print JSON"),
	}
}

func lakeGC(c *session, args []string, flags any) int {
	opt := flags.(gcFlagSet)
	if min(*opt.grace, *opt.reflog, *opt.wait, *opt.keepScratch, *opt.keepRuns) < 0 {
		return c.usage("durations cannot be negative")
	}
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	o := lake.GCOptions{Grace: *opt.grace, Reflog: *opt.reflog, Wait: *opt.wait, Keep: lake.Retention{Scratch: *opt.keepScratch, Runs: *opt.keepRuns}, DryRun: *opt.dryRun}
	if !*opt.json {
		o.Progress = func(line string) { _ = c.print(printable(line + "\n")) }
	}
	r, err := l.GC(c.client, o)
	if err != nil {
		return c.broken("cannot collect garbage", err)
	}
	c.log.Info("collected garbage", "lake", l.Name, "objects", r.Freed.Objects, "bytes", r.Freed.Bytes, "kept", r.Kept, "waiting", r.Waiting)
	if *opt.json {
		return c.printJSON(r)
	}
	return c.print(printable(r.Text()))
}
