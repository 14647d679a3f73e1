// Package attempt names the system calls with which a program tries what a
// sandbox does not give, and tells an attempt from ordinary use. Both ends of a
// trace use it: gVisor's side, to send only attempts, and the server's, which
// trusts the other side with nothing. It does not know what becomes of an attempt.
package attempt

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	pb "gvisor.dev/gvisor/pkg/sentry/seccheck/points/points_go_proto"
)

// Call is a system call that gVisor traces only by its number and that is decoded
// by us, at its exit.
type Call struct {
	Name   string
	Number uintptr
	Paths  []int // of a Change: the arguments that are paths; none if the first is a descriptor
}

// At reports whether before each path comes the directory that it is relative to.
func (c Call) At() bool { return strings.HasSuffix(strings.TrimSuffix(c.Name, "2"), "at") }

// Point is the name of the call's trace point.
func (c Call) Point() string { return "syscall/" + c.Name + "/exit" }

// Changes change a file or a directory. They are told as an open for writing.
var Changes = []Call{
	{"truncate", unix.SYS_TRUNCATE, []int{0}},
	{"rename", unix.SYS_RENAME, []int{0, 1}},
	{"renameat", unix.SYS_RENAMEAT, []int{1, 3}},
	{"renameat2", unix.SYS_RENAMEAT2, []int{1, 3}},
	{"mkdir", unix.SYS_MKDIR, []int{0}},
	{"mkdirat", unix.SYS_MKDIRAT, []int{1}},
	{"rmdir", unix.SYS_RMDIR, []int{0}},
	{"unlink", unix.SYS_UNLINK, []int{0}},
	{"unlinkat", unix.SYS_UNLINKAT, []int{1}},
	{"link", unix.SYS_LINK, []int{0, 1}},
	{"linkat", unix.SYS_LINKAT, []int{1, 3}},
	{"symlink", unix.SYS_SYMLINK, []int{1}},
	{"symlinkat", unix.SYS_SYMLINKAT, []int{2}},
	{"mknod", unix.SYS_MKNOD, []int{0}},
	{"mknodat", unix.SYS_MKNODAT, []int{1}},
	{"chmod", unix.SYS_CHMOD, []int{0}},
	{"fchmod", unix.SYS_FCHMOD, nil},
	{"fchmodat", unix.SYS_FCHMODAT, []int{1}},
	{"chown", unix.SYS_CHOWN, []int{0}},
	{"fchown", unix.SYS_FCHOWN, nil},
	{"lchown", unix.SYS_LCHOWN, []int{0}},
	{"fchownat", unix.SYS_FCHOWNAT, []int{1}},
	{"utime", unix.SYS_UTIME, []int{0}},
	{"utimes", unix.SYS_UTIMES, []int{0}},
	{"futimesat", unix.SYS_FUTIMESAT, []int{1}},
	{"utimensat", unix.SYS_UTIMENSAT, []int{1}},
	{"setxattr", unix.SYS_SETXATTR, []int{0}},
	{"lsetxattr", unix.SYS_LSETXATTR, []int{0}},
	{"fsetxattr", unix.SYS_FSETXATTR, nil},
	{"removexattr", unix.SYS_REMOVEXATTR, []int{0}},
	{"lremovexattr", unix.SYS_LREMOVEXATTR, []int{0}},
	{"fremovexattr", unix.SYS_FREMOVEXATTR, nil},
}

// Bind makes a file when its address is the name of a unix socket. It is told as
// an open for writing then.
var Bind = Call{"bind", unix.SYS_BIND, nil}

// Opens are the calls that gVisor decodes itself.
var Opens = []uintptr{unix.SYS_OPEN, unix.SYS_OPENAT, unix.SYS_CREAT}

// Openat2 is openat with its flags in memory.
var Openat2 = Call{"openat2", unix.SYS_OPENAT2, []int{1}}

// Sends send datagrams to an address of their own. They are told as a connect.
var Sends = []Call{
	{"sendto", unix.SYS_SENDTO, nil},
	{"sendmsg", unix.SYS_SENDMSG, nil},
	{"sendmmsg", unix.SYS_SENDMMSG, nil},
}

// privileged are calls that no function has a use for.
var privileged = map[uint64]string{
	unix.SYS_ACCT: "acct", unix.SYS_ADD_KEY: "add_key", unix.SYS_ADJTIMEX: "adjtimex", unix.SYS_BPF: "bpf", unix.SYS_CAPSET: "capset",
	unix.SYS_CHROOT: "chroot", unix.SYS_CLOCK_ADJTIME: "clock_adjtime", unix.SYS_CLOCK_SETTIME: "clock_settime",
	unix.SYS_CREATE_MODULE: "create_module", unix.SYS_DELETE_MODULE: "delete_module", unix.SYS_FANOTIFY_INIT: "fanotify_init", unix.SYS_FINIT_MODULE: "finit_module",
	unix.SYS_FSCONFIG: "fsconfig", unix.SYS_FSMOUNT: "fsmount", unix.SYS_FSOPEN: "fsopen", unix.SYS_FSPICK: "fspick", unix.SYS_INIT_MODULE: "init_module", unix.SYS_IO_URING_SETUP: "io_uring_setup",
	unix.SYS_IOPERM: "ioperm", unix.SYS_IOPL: "iopl", unix.SYS_KCMP: "kcmp", unix.SYS_KEXEC_FILE_LOAD: "kexec_file_load",
	unix.SYS_KEXEC_LOAD: "kexec_load", unix.SYS_KEYCTL: "keyctl", unix.SYS_LOOKUP_DCOOKIE: "lookup_dcookie", unix.SYS_MODIFY_LDT: "modify_ldt",
	unix.SYS_MIGRATE_PAGES: "migrate_pages", unix.SYS_MOUNT: "mount", unix.SYS_MOUNT_SETATTR: "mount_setattr", unix.SYS_MOVE_MOUNT: "move_mount", unix.SYS_MOVE_PAGES: "move_pages", unix.SYS_NAME_TO_HANDLE_AT: "name_to_handle_at",
	unix.SYS_OPEN_BY_HANDLE_AT: "open_by_handle_at", unix.SYS_OPEN_TREE: "open_tree", unix.SYS_PERF_EVENT_OPEN: "perf_event_open",
	unix.SYS_PIDFD_GETFD: "pidfd_getfd", unix.SYS_PIVOT_ROOT: "pivot_root", unix.SYS_PROCESS_VM_READV: "process_vm_readv",
	unix.SYS_PROCESS_VM_WRITEV: "process_vm_writev", unix.SYS_PTRACE: "ptrace", unix.SYS_QUOTACTL: "quotactl", unix.SYS_QUOTACTL_FD: "quotactl_fd", unix.SYS_REBOOT: "reboot",
	unix.SYS_REQUEST_KEY: "request_key", unix.SYS_SETDOMAINNAME: "setdomainname", unix.SYS_SETHOSTNAME: "sethostname", unix.SYS_SETNS: "setns",
	unix.SYS_SETTIMEOFDAY: "settimeofday", unix.SYS_SWAPOFF: "swapoff", unix.SYS_SWAPON: "swapon", unix.SYS_SYSLOG: "syslog",
	unix.SYS__SYSCTL: "sysctl", unix.SYS_UMOUNT2: "umount2", unix.SYS_UNSHARE: "unshare", unix.SYS_USERFAULTFD: "userfaultfd", unix.SYS_VHANGUP: "vhangup",
}

// Namespaces are the flags of clone and unshare that ask for namespaces. Whoever
// gets one of users has every capability in it.
const Namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// Points are the names of the trace points of all attempts.
func Points() []string {
	points := []string{
		"syscall/connect/enter", "syscall/socket/exit",
		"syscall/execve/enter", "syscall/execveat/enter",
		"syscall/open/exit", "syscall/openat/exit", "syscall/creat/exit", Openat2.Point(), Bind.Point(),
	}
	for _, c := range Changes {
		points = append(points, c.Point())
	}
	for _, c := range Sends {
		points = append(points, c.Point())
	}
	for number := range privileged {
		points = append(points, rawPoint(number))
	}
	return append(points, rawPoint(unix.SYS_CLONE))
}

func rawPoint(number uint64) string {
	return "syscall/sysno/" + strconv.FormatUint(number, 10) + "/exit"
}

// Newer are the points, with their numbers, of calls that are newer than all that
// gVisor has: it knows no points of them.
func Newer() map[string]uintptr {
	const last = unix.SYS_EPOLL_PWAIT2
	points := make(map[string]uintptr)
	for number := range privileged {
		if number > last {
			points[rawPoint(number)] = uintptr(number)
		}
	}
	return points
}

// Privileged returns the name of a call that no function has a use for.
func Privileged(m *pb.Syscall) (name string, ok bool) {
	if m.Sysno == unix.SYS_CLONE {
		return "clone of namespaces", m.Arg1&Namespaces != 0
	}
	name, ok = privileged[m.Sysno]
	return name, ok
}

// IsSend reports whether what is told as a connect sent a datagram.
func IsSend(m *pb.Connect) bool {
	for _, c := range Sends {
		if m.Sysno == uint64(c.Number) {
			return true
		}
	}
	return false
}

// Write reports whether something was to be written that may not be: read-only
// and not-permitted count, missing directories and full disks do not.
func Write(m *pb.Open) bool {
	const writing = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC
	return m.Exit != nil && (m.Flags&writing != 0 || m.Sysno == unix.SYS_CREAT) && denied(m.Exit)
}

// Socket reports whether a socket was refused: a raw or a packet socket.
func Socket(m *pb.Socket) bool { return m.Exit != nil && denied(m.Exit) }

func denied(e *pb.Exit) bool {
	switch unix.Errno(e.Errorno) {
	case unix.EACCES, unix.EPERM, unix.EROFS:
		return true
	}
	return false
}

// Sink is the name of gVisor's sink that passes on attempts only. It is set up
// as the one called "remote".
const Sink = "headgate"

// maxArgv bounds what is told of a command line, in bytes: an event that does
// not fit into a packet would be lost.
const maxArgv = 4 << 10

// CutArgv returns the beginning of a command line.
func CutArgv(argv []string) []string {
	left := maxArgv
	for i, arg := range argv {
		if len(arg) >= left {
			return append(argv[:i:i], arg[:left])
		}
		left -= len(arg) + 1
	}
	return argv
}
