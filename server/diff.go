package server

import (
	"errors"
	"flag"
	"strconv"
	"strings"

	"github.com/headgate/headgate/hooks"
)

// maxDiffArgs bounds the tables that one diff names.
const maxDiffArgs = 1000

// diffRows is how many rows of a table are shown where nothing else is asked.
const diffRows = 1000

const diffHelp = "Compares the tables of two revisions: <rev> <rev>, <rev>..<rev>, or <rev>...<rev> for what the second has since it forked; a branch,\n" +
	"a tag, an oid, main~3. Rows of tables with a key are compared by key, others in their order, in a sandbox that holds only the parts\n" +
	"that differ. In front of a row stands \"-\" if it was removed, \"+\" if it was added, \"~\" if it was changed. headgate diff does the\n" +
	"same in a clone."

type diffOptions struct {
	stat, json, color *bool
	limit             int64 // -1 if none was given
}

func diffFlags(fs *flag.FlagSet) any {
	opt := &diffOptions{
		stat:  fs.Bool("stat", false, "count rows instead of showing them"),
		json:  fs.Bool("json", false, "print JSON, all rows unless --limit is given"),
		color: fs.Bool("color", false, "colour the output as git diff does"),
		limit: -1,
	}
	fs.Func("limit", "show at most `N` rows of each table, 0 shows all; 1000 if absent", func(text string) error {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return errors.New("want a number of rows, 0 for all")
		}
		opt.limit = n
		return nil
	})
	return opt
}

func diff(c *session, args []string, flags any) int {
	opt := flags.(*diffOptions)
	q := hooks.DiffQuestion{Format: "text", Limit: diffRows, Color: *opt.color}
	switch {
	case *opt.stat && *opt.json:
		return c.usage("--stat and --json exclude each other")
	case *opt.stat:
		q.Format = "stat"
	case *opt.json:
		q.Format, q.Limit = "json", 0
	}
	if opt.limit >= 0 {
		q.Limit = opt.limit
	}
	var ok bool
	if q.Old, q.New, ok = strings.Cut(args[1], "..."); ok {
		q.Fork, q.Tables = true, args[2:]
	} else if q.Old, q.New, ok = strings.Cut(args[1], ".."); ok {
		q.Tables = args[2:]
	} else if len(args) > 2 {
		q.Old, q.New, q.Tables = args[1], args[2], args[3:]
	} else {
		return c.usage("diff compares two revisions: main agent/x, or main..agent/x\n%s", "usage: "+c.cfg.SSH+" diff <lake> <rev> <rev> [<table>...]")
	}
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	if err := c.cfg.Differ.Diff(c.client, l, q, c.out); err != nil {
		return c.unanswered("diff", err)
	}
	return exitOK
}
