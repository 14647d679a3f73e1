package abuse

// call is a system call that must be refused and recorded.
func call(name, what, code, sees string) try {
	return try{what, code, sees, []string{"syscall " + name}}
}

const refused = "EPERM|ENOSYS|EACCES"

var privilegeTries = []try{
	call("mount", "mount a file system", `syscall(165, b"none", b"/tmp", b"tmpfs", 0, None)`, refused),
	call("mount", "remount the root for writing", `syscall(165, None, b"/", None, 0x20 | 0x1000, None)`, refused),
	call("mount_setattr", "make mounts writable by mount_setattr", `syscall(442, -100, b"/in", 0, ctypes.create_string_buffer(32), 32)`, refused),
	call("fspick", "take a mount to configure", `syscall(433, -100, b"/", 0)`, refused),
	call("quotactl_fd", "change quotas through a descriptor", `syscall(443, os.open("/tmp", os.O_RDONLY), 0, 0, None)`, refused),
	call("migrate_pages", "move the pages of a process of the host", `syscall(256, int(HOST["pid"]), 0, None, None)`, refused),
	call("sysctl", "set a kernel parameter by sysctl", `syscall(156, None)`, refused),
	call("umount2", "unmount what covers something", `syscall(166, b"/in", 2)`, refused),
	call("pivot_root", "pivot the root", `syscall(155, b"/tmp", b"/tmp")`, refused),
	call("chroot", "chroot", `os.chroot("/tmp")`, refused),
	call("unshare", "unshare namespaces", `syscall(272, 0x00020000 | 0x40000000)`, refused),
	call("unshare", "unshare a namespace of users", `syscall(272, 0x10000000)`, refused),
	call("clone of namespaces", "clone into a namespace of users", `
pid = syscall(56, 0x10000000 | 0x00020000 | 17, 0, 0, 0, 0)
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
return "it was made"`, refused),
	{"clone into a namespace of users by clone3", `
pid = syscall(435, ctypes.create_string_buffer(struct.pack("11Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)), 88)
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
return "it was made"`, "ENOSYS", nil},
	{"make a call by the x32 interface", `syscall(0x40000000 | 165, b"none", b"/tmp", b"tmpfs", 0, None)`, "ENOSYS", nil},
	call("setns", "enter a namespace", `syscall(308, os.open("/proc/1/ns/net", os.O_RDONLY), 0)`, refused+"|EINVAL|ENOENT"),
	call("ptrace", "trace the first process", `syscall(101, 16, 1, 0, 0)`, refused),
	call("process_vm_readv", "read the memory of a process of the host", `
buffer = ctypes.create_string_buffer(8)
iov = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(buffer), 8))
syscall(310, int(HOST["pid"]), iov, 1, iov, 1, 0)`, "ESRCH"),
	call("capset", "take capabilities", `syscall(126, ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0)), ctypes.create_string_buffer(b"\xff" * 24))`, refused),
	call("bpf", "load a BPF program", `syscall(321, 5, ctypes.create_string_buffer(128), 128)`, refused+"|EINVAL"),
	call("keyctl", "read the host's keyrings", `syscall(250, 10, -3, b"user", b"secret", 0)`, refused+"|ENOTSUP"),
	call("add_key", "add a key", `syscall(248, b"user", b"x", b"x", 1, -3)`, refused),
	call("userfaultfd", "userfaultfd", `syscall(323, 0)`, refused),
	call("io_uring_setup", "io_uring", `syscall(425, 8, ctypes.create_string_buffer(120))`, refused),
	call("perf_event_open", "read performance counters", `syscall(298, ctypes.create_string_buffer(128), 0, -1, -1, 0)`, refused+"|ENODEV"),
	call("kexec_load", "load another kernel", `syscall(246, 0, 0, None, 0)`, refused),
	call("init_module", "load a kernel module", `syscall(175, b"", 0, b"")`, refused),
	call("reboot", "reboot", `syscall(169, 0xfee1dead, 672274793, 0x1234567, None)`, refused),
	call("settimeofday", "set the clock", `syscall(164, ctypes.create_string_buffer(16), None)`, refused),
	call("swapon", "use a file as swap", `syscall(167, b"/tmp/x", 0)`, refused),
	call("quotactl", "change quotas", `syscall(179, 0, None, 0, None)`, refused),
	call("acct", "switch accounting on", `syscall(163, None)`, refused),
	call("sethostname", "rename the host", `syscall(170, b"pwned", 5)`, refused),
	call("iopl", "reach I/O ports", `syscall(172, 3)`, refused),
	call("open_by_handle_at", "open a file by its handle", `syscall(304, -100, ctypes.create_string_buffer(128), 0)`, refused+"|ENOTSUP"),
	call("modify_ldt", "change segment descriptors", `syscall(154, 1, ctypes.create_string_buffer(16), 16)`, refused),
	call("syslog", "read the kernel's log by syslog", `
text = ctypes.create_string_buffer(1000)
syscall(103, 3, text, 1000)
return "Starting gVisor" in text.value.decode()`, "True"),
	{"become root", `os.setuid(0)`, "EPERM", nil},
	{"become root by a set-uid program", `
with open("/proc/self/status") as f:
    status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
return status["NoNewPrivs"], status["CapEff"], status["CapPrm"], status["CapBnd"]`, `\('1', '0+', '0+', '0+'\)`, nil},
	{"raise a limit", `
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))`, "EPERM|ValueError: .*", nil},
	{"take another personality", `return syscall(135, 0x0008), syscall(135, 0xffffffff)`, `.*`, nil},
}
