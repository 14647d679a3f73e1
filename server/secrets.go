package server

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/headgate/headgate/hooks/lake"
)

func secretSet(c *session, args []string, _ any) int {
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	data, err := io.ReadAll(io.LimitReader(c.in, lake.MaxSecret+3))
	if err != nil {
		return c.fail("the value did not arrive: the connection ended; nothing was set")
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	err = l.Secrets.Set(args[1], value, c.who.Name, time.Now())
	var bad *lake.SecretError
	switch {
	case errors.As(err, &bad):
		return c.fail("%s", printable(bad.Text))
	case err != nil:
		return c.broken("cannot set secret", err)
	}
	c.log.Info("secret set", "lake", l.Name, "name", args[1])
	c.done(l, "secret set", args[1])
	return c.print(fmt.Sprintf("secret %s of lake %s is set; models get it that secrets in headgate.yaml at the tip of %s name\n", args[1], l.Name, c.cfg.Head))
}

func secretList(c *session, args []string, flags any) int {
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	list, err := l.Secrets.List()
	if err != nil {
		return c.broken("cannot list secrets", err)
	}
	if *flags.(*bool) {
		if list == nil {
			list = []lake.SecretInfo{}
		}
		return c.printJSON(list)
	}
	if len(list) == 0 {
		return c.print("no secrets\n")
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSET BY\tSET AT")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.Who, s.When.UTC().Format("2006-01-02 15:04:05Z"))
	}
	_ = w.Flush() // to memory
	return c.print(printable(b.String()))
}

func secretRemove(c *session, args []string, _ any) int {
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	err := l.Secrets.Remove(args[1])
	switch {
	case errors.Is(err, lake.ErrNoSecret):
		return c.fail("lake %s has no secret %s; %s secret ls %s lists them", l.Name, quoted(clipLine(args[1])), c.cfg.SSH, l.Name)
	case err != nil:
		return c.broken("cannot remove secret", err)
	}
	c.log.Info("secret removed", "lake", l.Name, "name", args[1])
	c.done(l, "secret rm", args[1])
	return c.print(fmt.Sprintf("secret %s of lake %s is removed\n", args[1], l.Name))
}
