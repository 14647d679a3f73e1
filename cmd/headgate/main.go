// Command headgate is the git server for tables, its client helpers and, by
// argv[0], gVisor's runsc. The commands are thin: what they do is in the packages
// below, or in the worker process that they start.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/headgate/headgate/exec/sandbox/runsc"
)

// version is set by the linker (see Makefile).
var version = "dev"

// Exit codes, the same for every command.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const description = `A git server for tables: a push to main runs the repository's data pipeline in
gVisor sandboxes, and main moves only when every verifier passes on exactly the
state that is published.

To start:  headgate serve
           headgate init DIR, and follow the README there

Exit codes: 0 done, 1 failed or refused, 2 wrong usage.`

type cli struct {
	Serve     serveCmd       `cmd:"" help:"Run the server."`
	Init      initCmd        `cmd:"" help:"Make the skeleton of a lake."`
	Import    importCmd      `cmd:"" help:"Turn Parquet, CSV, JSON lines or Arrow into a table of this checkout."`
	Export    exportCmd      `cmd:"" help:"Write a table of this checkout as Parquet, CSV, JSON lines or Arrow."`
	Lock      lockCmd        `cmd:"" help:"Lock the Python packages that this checkout's functions declare."`
	Diff      diffCmd        `cmd:"" help:"Show what differs between two states of a checkout's tables, by rows."`
	GitDiff   gitDiffCmd     `cmd:"" name:"git-diff" hidden:"" help:"What git calls for a table.json to compare."`
	GitText   gitTextCmd     `cmd:"" name:"git-text" hidden:"" help:"What git calls for the text of a table.json."`
	Merge     mergeCmd       `cmd:"" help:"Merge a revision into this checkout, tables by rows and cells."`
	Conflicts conflictsCmd   `cmd:"" help:"List and resolve what both sides of a merge changed in tables."`
	GitMerge  mergeDriverCmd `cmd:"" name:"git-merge" hidden:"" help:"What git calls to merge a table.json."`
	Query     queryCmd       `cmd:"" help:"Ask a checkout's tables by SQL."`
	Verifiers verifiersCmd   `cmd:"" help:"Score the verifiers of a checkout, and suggest some."`
	Log       logCmd         `cmd:"" help:"Show what was published, and what each table was made from."`
	Lineage   lineageCmd     `cmd:"" help:"Draw what a table was made from, up to the sources."`
	Blame     blameCmd       `cmd:"" help:"Show which commit set each cell of a row."`
	Audit     auditCmd       `cmd:"" help:"Check that all of a branch's history is what its gate published."`
	Replay    replayCmd      `cmd:"" help:"Run the models of a gate commit again, and compare what they give with what it says."`
	Policy    policyCmd      `cmd:"" help:"Explain a lake's policy."`
	Fsck      fsckCmd        `cmd:"" help:"Check every byte of a server's lakes."`
	GC        gcCmd          `cmd:"" name:"gc" help:"Remove objects that nothing leads to from a server's lakes."`
	Version   versionCmd     `cmd:"" help:"Print the version."`
}

// streams are the process's own.
type streams struct {
	out, err io.Writer
}

func main() {
	// Nothing may come before this: a sandbox is this binary under another name.
	if runsc.Called() {
		runsc.Main()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// exited carries an exit code that kong asks for (after --help) up to run.
type exited int

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, std streams) (code int) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exited:
			code = int(r)
		default:
			panic(r)
		}
	}()
	var c cli
	parser, err := kong.New(&c,
		kong.Name("headgate"), kong.Description(description),
		kong.Writers(std.out, std.err),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.Configuration(yamlFlags),
		kong.Vars{"diff_limit": fmt.Sprint(diffLimit)},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std),
	)
	if err != nil {
		panic(err) // the command table above is wrong; any test finds it
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	if args[0] == "diff" {
		args = asGitTakesThem(parser, args)
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(std.err, "headgate: %v\n", err)
		fmt.Fprintf(std.err, "See: headgate %s--help\n", commandOf(err))
		return exitUsage
	}
	err = parsed.Run()
	var usage *usageError
	var faults *faultsError
	var audited *auditError
	var differ *differError
	var below *belowError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &differ):
		if differ.err != nil {
			fmt.Fprintf(std.err, "headgate: %v\n", differ.err)
		}
		return differ.code
	case errors.As(err, &usage):
		fmt.Fprintf(std.err, "headgate: %v\nSee: headgate %s --help\n", err, parsed.Selected().Name)
		return exitUsage
	case errors.As(err, &faults), errors.As(err, &below), errors.As(err, &audited):
		fmt.Fprintf(std.err, "headgate: %v\n", err)
		return exitFaults
	case ctx.Err() != nil:
		fmt.Fprintln(std.err, "headgate: interrupted; nothing was changed")
		return exitFailed
	default:
		fmt.Fprintf(std.err, "headgate: %v\n", err)
		return exitFailed
	}
}

// commandOf returns the name of the command that a parse error is about and a
// blank, or nothing.
func commandOf(err error) string {
	var bad *kong.ParseError
	if errors.As(err, &bad) && bad.Context != nil && bad.Context.Selected() != nil {
		return bad.Context.Selected().Name + " "
	}
	return ""
}

// usageError is a command line that cannot be meant.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

type versionCmd struct {
	JSON bool `help:"Print one JSON object." name:"json"`
}

// Help is shown below the command's flags.
func (versionCmd) Help() string { return "Example:\n  headgate version --json" }

// Run prints the version.
func (c *versionCmd) Run(std streams) error {
	if c.JSON {
		return printJSON(std.out, map[string]string{"version": version})
	}
	_, err := fmt.Fprintln(std.out, "headgate", version)
	return err
}
