package hooks

import (
	"bytes"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/sandbox"
)

// A table's cells and a function's messages reach a terminal: they must not
// speak its language.
func TestForeignTextIsHarmlessOnATerminal(t *testing.T) {
	var out bytes.Buffer
	p := newReporter(&out)
	p.line("verify", "x\x1b[2J", "FAIL: %s", "a\rb\u202ec\x9b1m")
	p.sample([]string{"c\n"}, []map[string]any{{"c\n": "\x1b]0;title\x07"}, {"c\n": nil}})
	p.said("m", strings.Repeat("z", 10)+"\x00")
	for _, c := range out.String() {
		if c < ' ' && c != '\n' || c == 0x7f || c == 0x9b || c == 0x202e {
			t.Fatalf("control character %U reaches the terminal in %q", c, out.String())
		}
	}
	if !strings.Contains(out.String(), "NULL") {
		t.Errorf("a NULL cell is not shown as NULL: %q", out.String())
	}
}

func TestSampleIsClipped(t *testing.T) {
	var out bytes.Buffer
	row := map[string]any{"long": strings.Repeat("é", 5000)}
	newReporter(&out).sample([]string{"long"}, []map[string]any{row})
	if n := len([]rune(out.String())); n > 150 {
		t.Errorf("one cell of 5000 characters prints %d characters", n)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestViolationsAreToldInWords(t *testing.T) {
	for _, c := range []struct {
		v    sandbox.Violation
		want string
	}{
		{sandbox.Violation{Kind: sandbox.ViolationConnect, Detail: "1.1.1.1:443", Count: 1}, "tried to connect to 1.1.1.1:443 (blocked)"},
		{sandbox.Violation{Kind: sandbox.ViolationConnect, Detail: "unix:/var/run/docker.sock", Count: 3}, "tried to connect to unix:/var/run/docker.sock (blocked) 3 times"},
		{sandbox.Violation{Kind: sandbox.ViolationSend, Detail: "8.8.8.8:9", Count: 1}, "tried to send to 8.8.8.8:9 (blocked)"},
		{sandbox.Violation{Kind: sandbox.ViolationSocket, Detail: "raw IPv4 socket", Count: 1}, "tried to open a raw IPv4 socket (blocked)"},
		{sandbox.Violation{Kind: sandbox.ViolationExec, Detail: "pip install x", Count: 1}, "tried to run pip install x (recorded)"},
		{sandbox.Violation{Kind: sandbox.ViolationWrite, Detail: "/in/0/x", Count: 1}, "tried to write to /in/0/x (blocked)"},
		{sandbox.Violation{Kind: sandbox.ViolationSyscall, Detail: "ptrace", Count: 2}, "tried the system call ptrace (recorded) 2 times"},
		{sandbox.Violation{Kind: sandbox.ViolationMore, Detail: "further attempts", Count: 7}, "and 7 further attempts that are not listed"},
	} {
		if got := violationLine(c.v); got != c.want {
			t.Errorf("%+v: %q, want %q", c.v, got, c.want)
		}
	}
}
