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
os.execve(fd, ["payload", "--quietly"], {})`, "ENOEXEC|EACCES", []string{"exec /memfd:payload (deleted) payload --quietly"}},
	{"run with an argument that is no text", `os.execv("/bin/sh", [b"sh", b"-c", b"\xff\xfe"])`, "ENOENT", []string{"exec sh -c ?"}},
	{"run with a command line longer than an event", `os.execv("/bin/busybox", ["busybox"] + ["x" * 100_000] * 15)`, "ENOENT", []string{"exec busybox xxx..."}},
	{"put terminal escapes into the record", `os.execv("/bin/\x1b[2Jsh", ["\x1b]0;pwned\x07\r\n", "x"])`, "ENOENT", []string{"exec /bin/?[2Jsh ?]0;pwned??? x"}},
	{"kill a process of the host", `os.kill(int(HOST["pid"]), 9)`, "ESRCH", nil},
	{"write to standard output", `
print("A\x00\x00\x00\x02{}", flush=True)
os.write(1, b"A\x00\x00\x00\x02{}\n")
return "it goes to the log"`, "'it goes to the log'", nil},
	{"answer from a subprocess", `
import textwrap
code = """
    import os
    for fd in range(64):
        try:
            os.write(fd, bytes([65, 0, 0, 0, 2, 123, 125, 10]))
        except OSError:
            pass
"""
return subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode`, "0", []string{"exec ..."}},
	{"read the order again", `return os.read(0, 100), sys.stdin.read()`, `\(b'', ''\)`, nil},
	{"find the order of another function", `
mine = [o for o in gc.get_objects() if isinstance(o, dict) and "op" in o and "function" in o]
return [o["function"] for o in mine]`, `\['attack'\]`, nil},
}
