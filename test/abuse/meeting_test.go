package abuse

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/exec/sandbox"
)

// opens is what a function does that waits for another in every place where two
// processes of one machine can meet.
const opens = `
held = [socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
held[0].bind(("127.0.0.1", 4444))
held[1].bind("\0meet")
held[2].bind("/tmp/meet.sock")
for s in held:
    s.listen()
for path in ("/tmp/meet", "/dev/shm/meet"):
    with open(path, "w") as f:
        f.write(HOST["secret"])
for number in (29, 64):  # shmget, semget
    syscall(number, 4444, 1, 0o1666)
syscall(68, 4444, 0o1666)  # msgget
say("open")
time.sleep(60)`

// meetingTries look for it.
var meetingTries = []try{
	{"meet another function by loopback", tcp("127.0.0.1", 4444), "ECONNREFUSED", []string{"connect 127.0.0.1:4444"}},
	{"meet another function by an abstract socket", `socket.socket(socket.AF_UNIX).connect("\0meet")`, "ECONNREFUSED", []string{"connect unix:@meet"}},
	{"meet another function by a socket in /tmp", `socket.socket(socket.AF_UNIX).connect("/tmp/meet.sock")`, "ENOENT", []string{"connect unix:/tmp/meet.sock"}},
	{"meet another function by a file in /tmp", `return [n for n in os.listdir("/tmp") if not (sys.prefix + " " + sys.base_prefix).count("/tmp/" + n + "/")]`, `\[\]`, nil},
	{"meet another function by shared memory", `return os.listdir("/dev/shm")`, `\[\]`, nil},
	{"meet another function by System V shared memory", `syscall(29, 4444, 1, 0)`, "ENOENT", nil},
	{"meet another function by System V semaphores", `syscall(64, 4444, 1, 0)`, "ENOENT", nil},
	{"meet another function by System V messages", `syscall(68, 4444, 0)`, "ENOENT", nil},
	{"see another function's processes", `return [p for p in os.listdir("/proc") if p.isdigit() and p not in ("1", str(os.getpid()))]`, `\[\]`, nil},
}

// TestMeeting has one function wait for another, which looks for it.
func TestMeeting(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	log := &logBuffer{begun: make(chan struct{})}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		source := lab.source(t) + "\n\n@headgate.model(name=\"attack\")\ndef attack(t=headgate.Model(\"t\")):" + indented(opens)
		_, err := lab.boxes.Run(ctx, sandbox.Job{
			Kind: sandbox.KindPython, Order: lab.order("attack"), Log: log,
			Inputs: append(lab.inputs(), content("code/models/attack.py", source)),
		})
		if ctx.Err() == nil {
			t.Errorf("it did not wait: %v\n%s", err, log)
		}
	})
	defer waiting.Wait()
	defer cancel()
	select {
	case <-log.begun:
	case <-time.After(time.Minute):
		t.Fatal("it does not start")
	}
	if !strings.Contains(log.String(), "open\n") {
		t.Fatalf("it says %q", log)
	}
	r := &report{}
	seeing := &logBuffer{begun: make(chan struct{})}
	var err error
	r.Report, err = lab.boxes.Run(ctx, sandbox.Job{
		Kind: sandbox.KindPython, Order: lab.order("attack"), Log: seeing, Files: discard,
		Inputs: append(lab.inputs(), content("code/models/attack.py", lab.module(t, meetingTries))),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.log = seeing.String()
	lab.hold(t, meetingTries, r)
}

func discard(_ string, _ int64, body io.Reader) error {
	_, err := io.Copy(io.Discard, body)
	return err
}
