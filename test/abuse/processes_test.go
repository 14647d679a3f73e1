package abuse

var processTries = []try{
	{"run a shell", `os.execv("/bin/sh", ["sh", "-c", "id"])`, "ENOENT", []string{"exec sh -c id"}},
	{"run a program that is not there", `subprocess.run(["/usr/bin/curl", "https://example.com/"])`, "ENOENT", []string{"exec /usr/bin/curl https://example.com/"}},
	{"run what was written to /tmp", `
with open("/tmp/run", "wb") as f:
    f.write(b"#!/bin/sh\nid\n")
os.chmod("/tmp/run", 0o755)
os.execv("/tmp/run", ["/tmp/run"])`, "ENOENT|EACCES", []string{"exec /tmp/run"}},
	{"run a file that has no name", `
fd = os.memfd_create("payload")
os.write(fd, b"not a program")
os.execve(fd, ["payload", "--quietly"], {})`, "ENOEXEC|EACCES", nil},
	{"run with an argument that is no text", `os.execv("/bin/sh", [b"sh", b"-c", b"\xff\xfe"])`, "ENOENT", []string{"exec sh -c ?"}},
	{"run with a very long command line", `os.execv("/bin/busybox", ["busybox"] + ["x" * 100_000] * 15)`, "ENOENT", nil},
	{"install an unlisted package", `return subprocess.run([sys.executable, "-m", "pip", "install", "--retries=0", "left-pad"], capture_output=True).returncode`, "1", nil},
	{"kill the first process of the host", `
for pid in (int(HOST["pid"]), 2, 300):
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        continue
    return pid
raise ProcessLookupError(3, "")`, "ESRCH", nil},
	{"put terminal escapes into the record", `os.execv("/bin/\x1b[2Jsh", ["\x1b]0;pwned\x07\r\n", "x"])`, "ENOENT", nil},
}
