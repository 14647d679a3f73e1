// Command headgate is the server, its client helpers and, by argv[0], gVisor's runsc.
package main

import "github.com/headgate/headgate/exec/sandbox/runsc"

func main() {
	if runsc.Called() {
		runsc.Main()
	}
}
