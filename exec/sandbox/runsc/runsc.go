// Package runsc is gVisor's command line inside our own binary: the commands
// that a sandbox needs and no others. It does not know what runs in a sandbox.
package runsc

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/subcommands"
	slinux "gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
	"gvisor.dev/gvisor/runsc/cli"
	"gvisor.dev/gvisor/runsc/cmd"
	"gvisor.dev/gvisor/runsc/cmd/sentry/sentrycmd"
	"gvisor.dev/gvisor/runsc/cmd/util"
)

// Called reports whether this process was started as runsc. The name "exe"
// counts too: gVisor's proc umounter executes /proc/self/exe without giving it
// another argv[0].
func Called() bool {
	name := filepath.Base(os.Args[0])
	return strings.HasPrefix(name, "runsc") || name == "exe"
}

// Main runs gVisor's command line and does not return.
//
// The table is our own because maincli's links a 47 MB checkpoint gofer.
func Main() {
	lazyGC()
	switch command() {
	case "gofer", "umount": // they have no sentry to watch, and watching takes 5 ms to set up
	default:
		table := slinux.AMD64
		confine(table)
		watch(table)
		table.Init() // again: it copies functions to where they are looked up
	}
	const internal = "internal"
	cli.Run(nil, map[util.SubCommand]string{
		new(cmd.Create):       "",
		new(cmd.Delete):       "",
		new(cmd.Kill):         "",
		new(cmd.List):         "",
		new(cmd.Run):          "",
		new(cmd.Start):        "",
		new(cmd.State):        "",
		new(cmd.Wait):         "",
		new(sentrycmd.Boot):   internal,
		new(cmd.Gofer):        internal,
		new(sentrycmd.Umount): internal,
	}, []subcommands.Command{})
}

// command is the name of the command that was called: what comes after the flags.
// gVisor writes each flag as one argument when it calls itself.
func command() string {
	for _, arg := range os.Args[1:] {
		if !strings.HasPrefix(arg, "-") {
			return arg
		}
	}
	return ""
}

// lazyGC puts off the collection of garbage while a sandbox starts: its three
// processes make little that outlives them, or the start. That saves a tenth of
// the processor time of a start for 2 MB of memory. What runs on collects as usual.
func lazyGC() {
	const startPercent, startTime = 400, 2 * time.Second
	usual := debug.SetGCPercent(startPercent)
	time.AfterFunc(startTime, func() { debug.SetGCPercent(usual) })
}
