package server

const fsckHelp = `Reads everything that the lake holds and compares it with checksums and names, as headgate fsck does of a server that is stopped.
The lake stays in use. Exit code 3 if faults were found, 1 if it could not look.`

// exitFaults says that lake fsck looked, and found faults.
const exitFaults = 3

func lakeFsck(c *session, args []string, flags any) int {
	l, code := c.open(args[0])
	if l == nil {
		return code
	}
	r, err := l.Fsck(c.client)
	if err != nil {
		return c.broken("cannot check lake", err)
	}
	if *flags.(*bool) {
		code = c.printJSON(r)
	} else {
		code = c.print(printable(r.Text()))
	}
	if code == exitOK && len(r.Faults) > 0 {
		c.log.Error("lake has faults", "lake", l.Name, "faults", len(r.Faults))
		return exitFaults
	}
	return code
}
