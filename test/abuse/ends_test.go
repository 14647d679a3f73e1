package abuse

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// answered is an end with an answer and no error: the attack came to nothing.
func answered(r *report) error {
	if r.Answer == nil || r.Answer.Error != nil {
		return errors.New("want an answer")
	}
	return nil
}

// saying is an error of the user's that holds text.
func saying(text string) func(*report) error {
	return func(r *report) error {
		if !strings.Contains(r.userError(), text) {
			return fmt.Errorf("want the error %q", text)
		}
		return nil
	}
}

// silent is an end without an answer and with an exit code; -1 is a killed program.
func silent(code int) func(*report) error {
	return func(r *report) error {
		if r.Answer != nil || !errors.Is(r.Malformed, protocol.ErrNoAnswer) || r.ExitCode != code || r.OOM || r.TimedOut {
			return fmt.Errorf("want the exit code %d and no answer", code)
		}
		return nil
	}
}

func timedOut(r *report) error {
	if !r.TimedOut || r.Answer != nil || r.OOM {
		return errors.New("want the end of its time")
	}
	if over := r.Total - r.Start - shortTime.Timeout; over > 2*time.Second {
		return fmt.Errorf("it ran %s longer than it may", over)
	}
	return nil
}

func outOfMemory(r *report) error {
	if !r.OOM || r.Answer != nil || r.TimedOut {
		return errors.New("want it killed for its memory")
	}
	return nil
}

// noMemory is DuckDB's own limit, or that of the cgroup around it, whichever is first.
func noMemory(r *report) error {
	if outOfMemory(r) == nil {
		return nil
	}
	return saying("out of memory")(r)
}

// shortTime is for what never ends by itself.
var shortTime = sandbox.Limits{Timeout: 1500 * time.Millisecond}

var endDeeds = []deed{
	{"sys.exit", `sys.exit(0)`, sandbox.Limits{}, saying("called sys.exit(0)"), nil},
	{"exit behind the harness's back", `os._exit(0)`, sandbox.Limits{}, silent(0), nil},
	{"kill itself", `os.kill(os.getpid(), 9)
return [{"n": 1}]`, sandbox.Limits{}, silent(-1), nil},
	{"kill everything", `
os.fork() or time.sleep(60)
os.kill(-1, 9)
return [{"n": 1}]`, sandbox.Limits{}, answered, nil},
	{"crash the interpreter", `ctypes.string_at(0)`, sandbox.Limits{}, silent(-1), nil},
	{"make a 32-bit system call", `
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, getpid; int 0x80; ret
pid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
say("it gave %d" % pid)
return [{"n": 1}]`, sandbox.Limits{}, func(r *report) error {
		// gVisor speaks 64-bit Linux only.
		if !strings.Contains(r.log, "it gave -38") {
			return errors.New("want ENOSYS")
		}
		return answered(r)
	}, nil},
	{"overflow the stack", `
def f():
    return f()
f()`, sandbox.Limits{}, saying("RecursionError"), nil},
	{"loop and ignore SIGTERM", `
import signal
for s in range(1, 65):
    try:
        signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass`, shortTime, timedOut, nil},
	{"sleep for ever", `time.sleep(10**6)`, shortTime, timedOut, nil},
	{"leave a daemon behind", `
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(1)
    os._exit(0)
return [{"n": 1}]`, sandbox.Limits{}, answered, nil},
	{"leave a thread behind", `
threading.Thread(target=time.sleep, args=(10**6,)).start()
return [{"n": 1}]`, sandbox.Limits{}, answered, nil},
	{"install an unlisted package", `
subprocess.run([sys.executable, "-m", "pip", "install", "--retries=0", "--disable-pip-version-check", "left-pad"], check=True)`,
		sandbox.Limits{}, saying("CalledProcessError"), []string{"exec ... -m pip install --retries=0 --disable-pip-version-check left-pad", "exec lsb_release -a", "exec uname -rs", "connect 127.0.0.1:53 (name lookup)"}},
	{"hide the attempt behind an early exit", `
try:
    socket.create_connection(("203.0.113.9", 443), 5)
except OSError:
    pass
os._exit(7)`, sandbox.Limits{}, silent(7), []string{"connect 203.0.113.9:443"}},
}
