package server

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/headgate/headgate/hooks"
)

// command is one of the server's own SSH commands.
type command struct {
	words    []string // "lake", "ls"
	args     string   // as shown in the usage line
	short    string   // one line
	long     string   // what --help adds
	min, max int      // number of arguments, without flags
	admin    bool
	flags    func(*flag.FlagSet) any
	run      func(c *session, args []string, flags any) int
}

func (cmd *command) name() string { return strings.Join(cmd.words, " ") }

// commands lists every command, in the order of help.
func commands() []*command {
	return []*command{
		{words: []string{"whoami"}, short: "say who you are to this server", run: whoami,
			long: "Prints your name, whether you are an administrator, and the fingerprint of your key."},
		{words: []string{"gate-key"}, short: "print the key that signs gate commits", run: gateKey,
			long: "Prints a line for the file that git's gpg.ssh.allowedSignersFile names; with it, git verify-commit checks gate commits."},
		{words: []string{"lake", "ls"}, short: "list the lakes", run: lakeList, flags: jsonFlag},
		{words: []string{"lake", "create"}, args: "<lake>", short: "make an empty lake", min: 1, max: 1, admin: true, run: lakeCreate,
			long: "An administrator's first push to a lake creates it as well."},
		{words: []string{"lake", "rm"}, args: "<lake>", short: "remove a lake with everything in it", min: 1, max: 1, admin: true,
			flags: removeFlags, run: lakeRemove, long: "There is no way back, so --force is needed."},
		{words: []string{"lake", "fsck"}, args: "<lake>", short: "check every byte of a lake, while it is in use", min: 1, max: 1, admin: true,
			flags: fsckFlags, run: lakeFsck, long: fsckHelp},
		{words: []string{"lake", "gc"}, args: "<lake>", short: "remove objects that nothing leads to, while the lake is in use", min: 1, max: 1, admin: true,
			flags: gcFlags, run: lakeGC, long: gcHelp},
		{words: []string{"lake", "audit"}, args: "[<lake>]", short: "show the audit log of a lake, or of the server", min: 0, max: 1, admin: true,
			flags: auditFlags, run: lakeAudit, long: auditHelp},
		{words: []string{"run", "ls"}, args: "<lake>", short: "list a lake's runs, newest first", min: 1, max: 1, flags: runListFlags, run: runList},
		{words: []string{"run", "show"}, args: "<lake> <run>", short: "show one run", min: 2, max: 2, flags: jsonFlag, run: runShow,
			long: "--json prints run.json of the run record, which git fetch origin refs/runs/<run> gets with logs and violating rows."},
		{words: []string{"run", "watch"}, args: "<lake> [<run>]", short: "follow a run until it ends", min: 1, max: 2, run: runWatch,
			long: "Prints what the run has said so far and what it says; without <run>, of the newest that is under way. Of a run that is over\n" +
				"it prints the story. The exit code is the run's: 0 published or passed, 1 anything else."},
		{words: []string{"run", "cancel"}, args: "<lake> <run>", short: "end a run under way", min: 2, max: 2, run: runCancel,
			long: "Kills what it runs at once; nothing is published. For the run's pusher and administrators."},
		{words: []string{"run", "replay"}, args: "<lake> [<run or commit>]", short: "run a published run's models again, and compare", min: 1, max: 2, flags: replayFlags, run: runReplay,
			long: "Runs each model of the gate commit (of main by default) in a new sandbox on the tables that the commit holds, compares what it gives\n" +
				"with what the commit says, and throws it away. One replay a user at a time. Exit code 1 if anything differs. headgate replay does the\n" +
				"same on your own machine, from any clone."},
		{words: []string{"policy", "test"}, args: "<lake> [<commit or ref>]", short: "explain who may do what to a branch, and why", min: 1, max: 2, flags: policyFlags, run: policyTest,
			long: "Without <commit or ref> it tells what --who may do to --branch; with one, whether its changes of paths are theirs to make, by the policy\n" +
				"that would govern it now. Exit code 1 if something is not allowed. headgate policy test answers on a checkout, without the server's users."},
		{words: []string{"secret", "set"}, args: "<lake> <name>", short: "set a secret for models, read from standard input", min: 2, max: 2, admin: true, run: secretSet,
			long: "The value is what standard input holds, without a newline at its end: secret set flights API_KEY < key.txt.\n" +
				"Models get it that secrets in headgate.yaml at the tip of main name, as an argument headgate.Secret(\"API_KEY\")."},
		{words: []string{"secret", "ls"}, args: "<lake>", short: "list a lake's secrets, without their values", min: 1, max: 1, flags: jsonFlag, run: secretList},
		{words: []string{"secret", "rm"}, args: "<lake> <name>", short: "remove a secret", min: 2, max: 2, admin: true, run: secretRemove},
		{words: []string{"token", "create"}, short: "make a token for git over HTTP", run: tokenCreate, flags: tokenCreateFlags, long: tokenCreateHelp},
		{words: []string{"token", "ls"}, short: "list your tokens, without what they are", run: tokenList, flags: tokenListFlags,
			long: "LAST USED is exact to ten minutes. The state \"key removed\" is of a token whose key is not in the list of keys now; it opens nothing."},
		{words: []string{"token", "revoke"}, args: "<id or name>", short: "end a token", min: 1, max: 1, run: tokenRevoke,
			long: "At once, and for good. Administrators may end anybody's, by its id."},
		{words: []string{"query"}, args: "<lake> '<sql>'", short: "ask the tables of a lake", min: 2, max: 2, flags: queryFlags, run: query,
			long: "Runs one SELECT in a sandbox on the server. Table names are those of the commit that --ref names. flights@v1 is the table at another one:\n" +
				"a branch, tag, ref or oid, or its first digits, with ~2, ^2, or main@{1}, main@{yesterday} by the server's own log of the branch; in double\n" +
				"quotes where SQL needs them. base.flights is the table at the first parent of --ref, which is the old tip."},
		{words: []string{"diff"}, args: "<lake> <rev> <rev> [<table>...]", short: "show what differs between two states, by rows", min: 2, max: maxDiffArgs, flags: diffFlags, run: diff,
			long: diffHelp},
		{words: []string{"lineage"}, args: "<lake> <table>", short: "draw what a table was made from, up to the sources", min: 2, max: 2, flags: lineageFlags, run: drawLineage,
			long: "Each model with its code, environment and parameters, each snapshot by its oid, and since which gate commit the branch has it, who pushed\n" +
				"that and whose commit it was. headgate lineage draws the same from any clone."},
		{words: []string{"help"}, args: "[<command>]", short: "explain the commands", max: 2, run: help},
	}
}

// command runs one of the server's own commands.
func (c *session) command(words []string) int {
	if words[0] == "--help" || words[0] == "-h" {
		words[0] = "help"
	}
	cmd, args := find(words)
	if cmd == nil {
		if list := group(words[0]); len(list) > 0 {
			if len(words) == 2 && isHelp(words[1]) {
				return c.print(listing(list))
			}
			fmt.Fprintf(c.errw, "headgate: %s is one of:\n%s", words[0], listing(list))
			return exitUsage
		}
		return c.usage("there is no command %s; %s help lists them", quoted(clipLine(words[0])), c.cfg.SSH)
	}
	args, flags, err := parseFlags(cmd, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return c.print(helpOf(cmd, c.cfg.SSH))
	case err != nil:
		return c.usage("%v\n%s", err, usageLine(cmd, c.cfg.SSH))
	case len(args) < cmd.min || len(args) > cmd.max:
		return c.usage("%s takes %s\n%s", cmd.name(), count(cmd), usageLine(cmd, c.cfg.SSH))
	case cmd.admin && !c.who.Admin:
		c.audited(nil, cmd.name(), clipLine(strings.Join(args, " ")), hooks.DecisionRefused, "it is for administrators")
		return c.fail("%s is for administrators; you are %s", cmd.name(), c.who.Name)
	}
	return cmd.run(c, args, flags)
}

func count(cmd *command) string {
	switch {
	case cmd.max == 0:
		return "no arguments"
	case cmd.min != cmd.max:
		return fmt.Sprintf("%d to %d arguments", cmd.min, cmd.max)
	case cmd.min == 1:
		return "one argument"
	}
	return fmt.Sprintf("%d arguments", cmd.min)
}

// find returns the command that the words begin with, and the rest of them.
func find(words []string) (*command, []string) {
	for _, cmd := range commands() {
		n := len(cmd.words)
		if len(words) >= n && strings.Join(words[:n], " ") == cmd.name() {
			return cmd, words[n:]
		}
	}
	return nil, nil
}

// group returns the commands that begin with a word.
func group(word string) []*command {
	var out []*command
	for _, cmd := range commands() {
		if cmd.words[0] == word {
			out = append(out, cmd)
		}
	}
	return out
}

func isHelp(word string) bool { return word == "--help" || word == "-h" || word == "help" }

// parseFlags reads flags wherever they stand among the arguments; after "--"
// all is argument.
func parseFlags(cmd *command, words []string) (args []string, flags any, err error) {
	fs := flag.NewFlagSet(cmd.name(), flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	if cmd.flags != nil {
		flags = cmd.flags(fs)
	}
	for {
		if err := fs.Parse(words); err != nil {
			return nil, nil, err
		}
		rest := fs.Args()
		ended := len(rest) < len(words) && words[len(words)-len(rest)-1] == "--"
		if len(rest) == 0 || ended {
			return append(args, rest...), flags, nil
		}
		args = append(args, rest[0])
		words = rest[1:]
	}
}

func usageLine(cmd *command, how string) string {
	line := "usage: " + how + " " + cmd.name()
	if cmd.args != "" {
		line += " " + cmd.args
	}
	if cmd.flags != nil {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		cmd.flags(fs)
		fs.VisitAll(func(f *flag.Flag) {
			value, _ := flag.UnquoteUsage(f)
			line += " [" + strings.TrimSpace("--"+f.Name+" "+value) + "]"
		})
	}
	return line
}

func helpOf(cmd *command, how string) string {
	var b strings.Builder
	b.WriteString(usageLine(cmd, how) + "\n\n" + strings.ToUpper(cmd.short[:1]) + cmd.short[1:])
	if cmd.admin {
		b.WriteString(", for administrators")
	}
	b.WriteString(".\n")
	if cmd.long != "" {
		b.WriteString(cmd.long + "\n")
	}
	if cmd.flags != nil {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		cmd.flags(fs)
		b.WriteString("\n")
		fs.VisitAll(func(f *flag.Flag) {
			value, text := flag.UnquoteUsage(f)
			fmt.Fprintf(&b, "  %-16s %s\n", strings.TrimSpace("--"+f.Name+" "+value), text)
		})
	}
	b.WriteString("\nexit codes: 0 done, 1 refused or failed, 2 wrong command line\n")
	return b.String()
}

func listing(list []*command) string {
	var b strings.Builder
	for _, cmd := range list {
		fmt.Fprintf(&b, "  %-28s %s\n", strings.TrimSpace(cmd.name()+" "+cmd.args), cmd.short)
	}
	return b.String()
}

func help(c *session, args []string, _ any) int {
	if len(args) > 0 {
		if cmd, rest := find(args); cmd != nil && len(rest) == 0 {
			return c.print(helpOf(cmd, c.cfg.SSH))
		}
		if list := group(args[0]); len(args) == 1 && len(list) > 0 {
			return c.print(listing(list))
		}
		return c.usage("there is no command %s", quoted(clipLine(strings.Join(args, " "))))
	}
	overHTTP := ""
	if c.cfg.HTTP != "" {
		overHTTP = fmt.Sprintf("  git clone %s<lake>     where SSH cannot be used; a token is the password\n", c.cfg.HTTP)
	}
	return c.print(fmt.Sprintf(`Headgate %s: a git server for tables. The client is git:

  git clone %s<lake>
%s  git push origin HEAD:main              runs the lake's pipeline; main moves if all verifiers pass
  git fetch origin refs/runs/<run>       a run's record: run.json, logs, violating rows
  git fetch origin refs/scratch/<run>    the tables of a run, also of a refused one

and these commands, as %s <command>; each takes --help:

%s
exit codes: 0 done, 1 refused or failed, 2 wrong command line
`, c.cfg.Version, c.cfg.URL, overHTTP, c.cfg.SSH, listing(commands())))
}

// print writes a command's output.
func (c *session) print(text string) int {
	if _, err := io.WriteString(c.out, text); err != nil {
		return exitFail
	}
	return exitOK
}
