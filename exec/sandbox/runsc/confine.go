package runsc

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	"github.com/headgate/headgate/exec/sandbox/attempt"
)

// confine takes namespaces away from programs. gVisor gives a namespace of users
// to anybody, as Linux does, and in it every capability: to mount, to open raw
// sockets, to trace. None of that leaves the sandbox, and no function needs it, so
// all of gVisor's code behind it is out of reach.
func confine(table *kernel.SyscallTable) {
	for _, number := range []uintptr{unix.SYS_CLONE, unix.SYS_UNSHARE} {
		call := table.Table[number]
		inner := call.Fn
		call.Fn = func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
			if args[0].Uint64()&attempt.Namespaces != 0 {
				return 0, nil, linuxerr.EPERM
			}
			return inner(t, sysno, args)
		}
		table.Table[number] = call
	}
	// Its flags are in memory, where another thread could change them between our
	// look and gVisor's. C libraries fall back to clone.
	call := table.Table[unix.SYS_CLONE3]
	call.Fn = func(*kernel.Task, uintptr, arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		return 0, nil, linuxerr.ENOSYS
	}
	table.Table[unix.SYS_CLONE3] = call
}
