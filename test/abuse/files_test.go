package abuse

import (
	"strconv"
	"testing"

	"github.com/headgate/headgate/exec/sandbox"
)

func itoa(n int) string { return strconv.Itoa(n) }

var fileTries = []try{
	{"read /etc/shadow", `return read("/etc/shadow")`, "ENOENT", nil},
	{"read the host key", `return read(HOST["host_key"])`, "ENOENT", nil},
	{"read the gate key", `return read(HOST["gate_key"])`, "ENOENT", nil},
	{"read another lake", `return read(HOST["lake"])`, "ENOENT", nil},
	{"read another run's inputs", `return read(HOST["state"] + "/boxes"), read("/in")`, "ENOENT", nil},
	{"see more inputs than declared", `return sorted(os.path.join(d, f) for d, _, files in os.walk("/in") for f in files)`, `\['/in/0/000000.parquet', '/in/code/models/attack.py'\]`, nil},
	{"climb out of the inputs", `return read("/in/../.." + HOST["canary"])`, "ENOENT", nil},
	{"follow a link out of the sandbox", `
os.symlink(HOST["canary"], "/tmp/link")
return read("/tmp/link")`, "ENOENT", nil},
	{"read the host's processes", `return read("/proc/" + HOST["pid"] + "/environ")`, "ENOENT", nil},
	{"read the host's first process", `return read("/proc/1/cmdline")`, `.*headgate\._sandbox.*`, nil},
	{"read through /proc/1/root", `return read("/proc/1/root" + HOST["canary"])`, "ENOENT|EACCES", nil},
	{"read the kernel's memory by /proc/kcore", `return read("/proc/kcore")`, "ENOENT|EACCES|EPERM", nil},
	{"write to the running program by /proc/self/exe", `open("/proc/self/exe", "r+b")`, "EROFS|EACCES|ETXTBSY", []string{"write /proc/self/exe"}},
	{"trigger the host's kernel by /proc/sysrq-trigger", `open("/proc/sysrq-trigger", "w").write("b")`, "EACCES|EPERM", []string{"write /proc/sysrq-trigger"}},
	{"set a kernel parameter", `open("/proc/sys/kernel/core_pattern", "w").write("|/tmp/pwned")`, "EACCES|EPERM", []string{"write /proc/sys/kernel/core_pattern"}},
	{"read the host's memory by /dev/mem", `return read("/dev/mem")`, "ENOENT|EACCES", nil},
	{"read the kernel's log", `return read("/dev/kmsg")`, "ENOENT|EACCES", nil},
	{"read a block device", `return [read(p) for p in ("/dev/sda", "/dev/vda", "/dev/nvme0n1") if os.path.exists(p)]`, `\[\]`, nil},
	{"read the host's devices and cgroups by /sys", `return [p for p in ("/sys/fs/cgroup", "/sys/class/block", "/sys/firmware", "/sys/kernel/debug") if os.path.exists(p) and os.listdir(p)]`, `\[\]`, nil},
	{"read the server's environment", `return [v for v in os.environ.items() if HOST["variable"] in v[0] or HOST["secret"] in v[1]]`, `\[\]`, nil},
	{"use a descriptor that was left open", `
found = []
for n in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink("/proc/self/fd/" + n)
    except OSError:
        continue  # that of listdir itself
    if not target.startswith(("/dev/null", "pipe:", "host:")):
        found.append(target)
return found`, `\[\]`, nil},
	{"write to an input", `open("/in/0/000000.parquet", "r+b").write(b"x")`, "EROFS|EACCES", []string{"write /in/0/000000.parquet"}},
	{"write to an input through its descriptor", `
fd = os.open("/in/0/000000.parquet", os.O_RDONLY)
open("/proc/self/fd/%d" % fd, "wb").write(b"x")`, "EROFS|EACCES", []string{"write /proc/self/fd/..."}},
	{"write to an input by a name that does not say where", `
directory = os.open("/in", os.O_RDONLY)
try:
    os.mkdir("pwned", dir_fd=directory)
except OSError:
    pass
try:
    os.rename("0/000000.parquet", "gone", src_dir_fd=directory, dst_dir_fd=directory)
except OSError:
    pass
os.chdir("/in/0")
try:
    open("000000.parquet", "r+b")
finally:
    os.chdir("/tmp")`, "EROFS|EACCES", []string{"write /in/pwned", "write /in/0/000000.parquet -> /in/gone", "write /in/0/000000.parquet"}},
	{"add an input", `open("/in/0/pwned", "w")`, "EROFS|EACCES", []string{"write /in/0/pwned"}},
	{"remove an input", `os.unlink("/in/0/000000.parquet")`, "EROFS|EACCES", []string{"write /in/0/000000.parquet"}},
	{"replace an input", `os.rename("/in/0/000000.parquet", "/in/0/pwned")`, "EROFS|EACCES", []string{"write /in/0/000000.parquet -> /in/0/pwned"}},
	{"change the mode of an input", `os.chmod("/in/0/000000.parquet", 0o777)`, "EROFS|EPERM", []string{"write /in/0/000000.parquet"}},
	{"change the time of an input", `os.utime("/in/0/000000.parquet", (1, 1))`, "EROFS|EPERM", []string{"write /in/0/000000.parquet"}},
	{"change the time of an input through its descriptor", `os.utime(os.open("/in/0/000000.parquet", os.O_RDONLY), (1, 1))`, "EROFS|EPERM", []string{"write /in/0/000000.parquet"}},
	{"change the mode of an input through its descriptor", `os.fchmod(os.open("/in/0/000000.parquet", os.O_RDONLY), 0o777)`, "EROFS|EPERM", []string{"write /in/0/000000.parquet"}},
	{"change the mode of an input by fchmodat2", `syscall(452, -100, b"/in/0/000000.parquet", 0o777, 0)`, "ENOSYS", nil},
	{"set an attribute of an input", `os.setxattr("/in/0/000000.parquet", "user.pwned", b"x")`, "EROFS|EPERM|EACCES", []string{"write /in/0/000000.parquet"}},
	{"set an attribute of the interpreter through its descriptor", `os.setxattr(os.open(os.__file__, os.O_RDONLY), "user.pwned", b"x")`, "EROFS|EPERM|EACCES", []string{"write .../os.py"}},
	{"remove an attribute of the harness through its descriptor", `os.removexattr(os.open(headgate.__file__, os.O_RDONLY), "user.pwned")`, "EROFS|EPERM|EACCES", []string{"write /sdk/headgate/__init__.py"}},
	{"make a socket among the inputs", `socket.socket(socket.AF_UNIX).bind("/in/0/socket")`, "EROFS|EACCES", []string{"write /in/0/socket"}},
	{"write to an input through a mapping", `
import mmap
fd = os.open("/in/0/000000.parquet", os.O_RDONLY)
mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)`, "EACCES", nil},
	{"cut off an input", `os.truncate("/in/0/000000.parquet", 0)`, "EROFS|EACCES", []string{"write /in/0/000000.parquet"}},
	{"link an input to where it can be written", `os.link("/in/0/000000.parquet", "/tmp/mine")`, "EXDEV|EROFS|EPERM", nil},
	{"write to the interpreter", `open(os.__file__, "a")`, "EROFS|EACCES", []string{"write .../os.py"}},
	{"write to the interpreter's packages", `
import pyarrow
open(os.path.dirname(pyarrow.__file__) + "/pwned.py", "w")`, "EROFS|EACCES", []string{"write .../pyarrow/pwned.py"}},
	{"write to the harness", `open(headgate.__file__, "a")`, "EROFS|EACCES", []string{"write /sdk/headgate/__init__.py"}},
	{"make a directory in the root", `os.mkdir("/pwned")`, "EROFS|EACCES", []string{"write /pwned"}},
	{"make a link in the root", `os.symlink("/etc/passwd", "/pwned")`, "EROFS|EACCES", []string{"write /pwned"}},
	{"write to /etc/passwd", `open("/etc/passwd", "a")`, "EROFS|EACCES", []string{"write /etc/passwd"}},
	{"write by openat2", `
how = ctypes.create_string_buffer(struct.pack("QQQ", os.O_WRONLY | os.O_CREAT, 0o600, 0))
syscall(437, -100, b"/etc/pwned", how, 24)`, "EROFS|EACCES", []string{"write /etc/pwned"}},
	{"write to a name that is no text", `open(b"/in/0/\xff\xfe", "w")`, "EROFS|EACCES", []string{"write /in/0/?"}},
	{"leave links, FIFOs and names that climb where the host might look", `
os.symlink(HOST["canary"], "/tmp/output.parquet")
os.mkfifo("/tmp/fifo")
open("/tmp/one", "w").close()
os.link("/tmp/one", "/tmp/two")
os.makedirs("/tmp/...")
os.symlink("/tmp/loop", "/tmp/loop")
return sorted(os.listdir("/tmp"))`, `.*'fifo'.*'output.parquet'.*`, nil},
	{"fill the memory of /dev/shm", `
with open("/dev/shm/x", "wb", buffering=0) as f:
    for n in range(200):
        f.write(bytes(1 << 20))`, "ENOSPC", nil},
	{"make a sparse giant file", `os.truncate(os.open("/tmp/giant", os.O_WRONLY | os.O_CREAT), 1 << 40)`, "EFBIG", nil},
	{"make directories without end", `
depth = 0
try:
    while depth < 3000:
        os.mkdir("d")
        os.chdir("d")
        depth += 1
finally:
    os.chdir("/tmp")
return depth > 100`, "True|ENAMETOOLONG", nil},
	{"make a device", `os.mknod("/tmp/sda", 0o60666, os.makedev(8, 0))`, "EPERM", []string{"write /tmp/sda"}},
}

// environmentTries are about a function that declares packages.
var environmentTries = []try{
	{"write to the environment", `open("/env/pyarrow/pwned.py", "w")`, "EROFS|EACCES", []string{"write /env/pyarrow/pwned.py"}},
	{"replace a package of the environment", `os.rename("/env/pyarrow", "/env/pwned")`, "EROFS|EACCES", []string{"write /env/pyarrow -> /env/pwned"}},
	{"use a package that was not declared", `return [d for d in sys.path if d.endswith("site-packages") and os.path.isdir(d) and os.listdir(d)]`, `\[\]`, nil},
}

// TestEnvironment gives a function the interpreter's packages as its environment.
func TestEnvironment(t *testing.T) {
	lab.hold(t, environmentTries, lab.run(t, sandbox.Job{
		Kind: sandbox.KindPython, Packages: lab.packages, Order: lab.order("attack"),
		Inputs: append(lab.inputs(), content("code/models/attack.py", lab.module(t, environmentTries))),
	}))
}
