package server

import (
	"flag"

	"github.com/headgate/headgate/hooks"
)

type policyOptions struct {
	json   *bool
	who    *string
	branch *string
}

func policyFlags(fs *flag.FlagSet) any {
	return &policyOptions{
		json:   fs.Bool("json", false, "print JSON"),
		who:    fs.String("who", "", "ask about the user `NAME`; you by default"),
		branch: fs.String("branch", "main", "what `BRANCH` it is about"),
	}
}

// policyTest explains who may do what, and why.
func policyTest(c *session, args []string, flags any) int {
	opt := flags.(*policyOptions)
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	asked := hooks.PolicyAsked{Who: *opt.who, Branch: *opt.branch}
	if len(args) > 1 {
		asked.Of = args[1]
	}
	report, err := c.cfg.Policies.TestPolicy(c.client, l, c.who, asked)
	if err != nil {
		return c.unanswered("policy test", err)
	}
	if *opt.json {
		code = c.printJSON(report)
	} else {
		code = c.print(report.Text())
	}
	if code == exitOK && report.Denied() {
		return exitFail
	}
	return code
}
