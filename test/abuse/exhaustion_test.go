package abuse

import (
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/exec/sandbox"
)

// small is a function that has to fit into little.
var small = sandbox.Limits{Memory: 128 << 20, Pids: 64}

var exhaustionDeeds = []deed{
	{"fork bomb", `
n = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(10**6)
        n += 1
except OSError as e:
    say("then there were %d, then %s" % (n, errno.errorcode[e.errno]))
return [{"n": n}]`, sandbox.Limits{Pids: 32}, func(r *report) error {
		var n int
		_, line, _ := strings.Cut(r.log, "then there were ")
		if _, err := fmt.Sscanf(line, "%d, then EAGAIN", &n); err != nil || n < 10 || n > 32 {
			return fmt.Errorf("%d children: %w", n, err)
		}
		return answered(r)
	}, nil},
	{"thread bomb", `
while True:
    threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()`, small, saying("can't start new thread"), nil},
	{"memory bomb", `
hoard = []
while True:
    hoard.append(b"x" * (1 << 24))`, small, outOfMemory, nil},
	{"memory bomb in files without a name", `
while True:
    fd = os.memfd_create("hoard")
    for _ in range(64):
        os.write(fd, b"x" * (1 << 20))`, small, outOfMemory, nil},
	{"memory bomb in mappings", `
import mmap
hoard = []
while True:
    hoard.append(mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE * (len(hoard) % 2)))`, small, outOfMemory, nil},
	{"descriptor bomb", `
hoard = []
while True:
    hoard.append(os.eventfd(0) if len(hoard) % 2 else os.open("/dev/null", os.O_RDONLY))`, small, saying("Too many open files"), nil},
	{"memory bomb in pipes and sockets", `
hoard = []
while True:
    a, b = socket.socketpair()
    a.setblocking(False)
    hoard.append((a, b))
    try:
        while True:
            a.send(b"x" * 65536)
    except BlockingIOError:
        pass`, small, func(r *report) error {
		if !r.OOM && !strings.Contains(r.userError(), "Too many open files") {
			return errors.New("want an end by the limit of memory or descriptors")
		}
		return nil
	}, nil},
	{"disk bomb in /tmp", `
with open("/tmp/hoard", "wb", buffering=0) as f:
    while True:
        f.write(b"x" * (1 << 20))`, sandbox.Limits{}, func(r *report) error {
		if !strings.Contains(r.userError(), "No space left") && !strings.Contains(r.userError(), "File too large") {
			return errors.New("want a full disk")
		}
		return nil
	}, nil},
	{"disk bomb in many files", `
block = b"x" * (1 << 20)
for n in range(10**6):
    with open("/tmp/%d" % n, "wb", buffering=0) as f:
        for _ in range(16):
            f.write(block)`, sandbox.Limits{}, saying("No space left"), nil},
	{"ten million files", `
for n in range(10**7):
    os.close(os.open("/tmp/%d" % n, os.O_CREAT | os.O_WRONLY))`, sandbox.Limits{Memory: 64 << 20}, outOfMemory, nil},
	{"log without end", `
line = b"all work and no play\n" * 1000
while True:
    os.write(2, line)`, sandbox.Limits{Timeout: shortTime.Timeout, LogBytes: 10_000}, loggedOnly(10_000), nil},
	{"log without a line", `
while True:
    os.write(2, b"x" * 65536)`, sandbox.Limits{Timeout: shortTime.Timeout, LogBytes: 10_000}, loggedOnly(10_000), nil},
	{"take all processors", `
for _ in range(8):
    if os.fork() == 0:
        while True:
            pass
while True:
    pass`, shortTime, timedOut, nil},
}

// loggedOnly holds the log to its limit and the mark that says so.
func loggedOnly(limit int) func(*report) error {
	return func(r *report) error {
		mark := fmt.Sprintf("\n[log cut at its limit of %d bytes]\n", limit)
		if len(r.log) != limit+len(mark) || !strings.HasSuffix(r.log, mark) {
			return fmt.Errorf("a log of %d bytes", len(r.log))
		}
		return timedOut(r)
	}
}
