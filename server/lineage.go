package server

import (
	"flag"
	"strings"

	"github.com/headgate/headgate/hooks"
)

type lineageOptions struct {
	ref            *string
	all, json, dot *bool
}

func lineageFlags(fs *flag.FlagSet) any {
	return lineageOptions{
		ref:  fs.String("ref", "", "`REF` whose table it is: a branch, a tag, an oid, main~2; main if absent"),
		all:  fs.Bool("all", false, "follow a table that its model appends to back to its beginning"),
		json: fs.Bool("json", false, "print one JSON object"),
		dot:  fs.Bool("dot", false, "print the graph for Graphviz"),
	}
}

func drawLineage(c *session, args []string, flags any) int {
	opt := flags.(lineageOptions)
	if *opt.json && *opt.dot {
		return c.usage("--json and --dot are two forms; choose one")
	}
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	name := args[1]
	if rest, ok := strings.CutPrefix(name, "tables/"); ok {
		name = strings.ReplaceAll(strings.TrimSuffix(rest, "/"), "/", ".")
	}
	g, err := c.cfg.Querier.Lineage(c.client, l, hooks.LineageQuestion{Table: name, Ref: *opt.ref, All: *opt.all})
	switch {
	case err != nil:
		return c.unanswered("lineage", err)
	case *opt.json:
		return c.printJSON(g)
	case *opt.dot:
		err = g.WriteDOT(c.out)
	default:
		err = g.WriteText(c.out)
	}
	if err != nil {
		return exitFail // nobody reads any more
	}
	return exitOK
}
