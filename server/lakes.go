package server

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/hooks/lake"
)

// jsonFlag is the one flag of commands that have only that.
func jsonFlag(fs *flag.FlagSet) any { return fs.Bool("json", false, "print JSON") }

func whoami(c *session, _ []string, _ any) int {
	role := "user"
	if c.who.Admin {
		role = "administrator"
	}
	if len(c.who.Groups) > 0 {
		role += ", in " + strings.Join(c.who.Groups, ", ")
	}
	return c.print(fmt.Sprintf("%s (%s) %s\n", c.who.Name, role, c.who.Fingerprint))
}

func gateKey(c *session, _ []string, _ any) int {
	if c.cfg.GateKey == "" {
		return c.fail("this server signs no commits")
	}
	return c.print(c.cfg.GateKey + "\n")
}

func lakeList(c *session, _ []string, flags any) int {
	names, err := c.cfg.Lakes.List(c.client)
	if err != nil {
		return c.broken("cannot list lakes", err)
	}
	if *flags.(*bool) {
		if names == nil {
			names = []lake.Name{}
		}
		return c.printJSON(names)
	}
	return c.print(lakeNames(names))
}

func (c *session) printJSON(v any) int {
	doc, err := json.Marshal(v)
	if err != nil {
		return c.broken("cannot encode", err)
	}
	return c.print(string(doc) + "\n")
}

func lakeCreate(c *session, args []string, _ any) int {
	name, err := lake.ParseName(args[0])
	if err != nil {
		return c.usage("%v", err)
	}
	if _, err := c.cfg.Lakes.Create(c.lifetime, name); errors.Is(err, lake.ErrExists) {
		return c.fail("lake %q exists already", name)
	} else if err != nil {
		return c.broken("cannot create lake", err)
	}
	c.log.Info("lake created", "lake", name)
	c.done(nil, "lake create", string(name))
	return c.print(fmt.Sprintf("created %s; push to it with: git push %s%s HEAD:main\n", name, c.cfg.URL, name))
}

func removeFlags(fs *flag.FlagSet) any {
	return fs.Bool("force", false, "really remove it")
}

func lakeRemove(c *session, args []string, flags any) int {
	name, err := lake.ParseName(args[0])
	if err != nil {
		return c.usage("%v", err)
	}
	if !*flags.(*bool) {
		return c.usage("this removes lake %s and all its history for good; if you mean it: %s lake rm %s --force", name, c.cfg.SSH, name)
	}
	if err := c.cfg.Lakes.Remove(c.lifetime, name); errors.Is(err, lake.ErrNotFound) {
		return c.fail("lake %q does not exist", name)
	} else if err != nil {
		return c.broken("cannot remove lake", err)
	}
	c.log.Info("lake removed", "lake", name)
	c.done(nil, "lake rm", string(name))
	return c.print(fmt.Sprintf("removed %s\n", name))
}

// open opens the lake that an argument names. The user was told of any error.
func (c *session) open(arg string) (l *lake.Lake, code int) {
	name, err := lake.ParseName(arg)
	if err != nil {
		return nil, c.usage("%v", err)
	}
	l, err = c.cfg.Lakes.Open(c.client, name)
	if errors.Is(err, lake.ErrNotFound) {
		return nil, c.fail("lake %q does not exist; %s lake ls lists those that do", name, c.cfg.SSH)
	} else if err != nil {
		return nil, c.broken("cannot open lake", err)
	}
	return l, exitOK
}

type queryOptions struct{ ref, format *string }

func queryFlags(fs *flag.FlagSet) any {
	return queryOptions{
		ref:    fs.String("ref", "", "`REF` to read: a branch, a tag, an oid, main~2; main if absent"),
		format: fs.String("format", "table", "`FORMAT` of the rows: table, csv or json"),
	}
}

// maxTableRows bounds what is laid out for a terminal; csv and json have no bound.
const maxTableRows = 1000

func query(c *session, args []string, flags any) int {
	opt := flags.(queryOptions)
	q := hooks.Question{SQL: args[1], Ref: *opt.ref, Format: *opt.format}
	switch q.Format {
	case "table":
		q.MaxRows = maxTableRows
	case "csv", "json":
	default:
		return c.usage("there is no format %s; use table, csv or json", quoted(clipLine(q.Format)))
	}
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	if err := c.cfg.Querier.Query(c.client, l, q, c.out); err != nil {
		return c.unanswered("query", err)
	}
	return exitOK
}
