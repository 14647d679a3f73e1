// Package runsc is gVisor's command line inside our own binary: the commands
// that a sandbox needs and no others. It does not know what runs in a sandbox.
package runsc

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/google/subcommands"
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
	watch()
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
