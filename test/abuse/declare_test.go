package abuse

import (
	"regexp"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// declareTries are files whose declarations are read when a run is planned. code
// is the whole file, and sees what its declaration says, or its error.
var declareTries = []try{
	{"run when a declaration is read", `
import os
os._exit(3)
import headgate
@headgate.model(name="ran")
def f(x=os._exit(4)):
    return 1`, "ran", nil},
	{"compute a declaration", `
import headgate
@headgate.model(name=__import__("os").system("touch /tmp/pwned"))
def f():
    return 1`, ".*name must be a literal.*", nil},
	{"nest a file without end", "x = " + strings.Repeat("(", 100_000) + strings.Repeat(")", 100_000), ".*too many nested parentheses.*", nil},
	{"nest a declaration without end", "import headgate\n@headgate.model(name=" + strings.Repeat("-", 100_000) + "1)\ndef f():\n    return 1\n", "is nested too deeply to be read as Python", nil},
	{"declare with bytes that are no text", "import headgate\n\x00\n", ".*null bytes.*", nil},
	{"declare a giant number", "import headgate\n@headgate.model(name=9**9**9**9)\ndef f():\n    return 1\n", ".*name must be a literal.*", nil},
	{"declare ten thousand models", "import headgate\n" + strings.Repeat("@headgate.model(name='same')\ndef f():\n    return 1\n", 10_000), "function f is defined a second time.*", nil},
}

// TestDeclarations gives all files to one interpreter, with an honest one behind.
func TestDeclarations(t *testing.T) {
	order := &protocol.Order{Op: protocol.OpDeclare}
	for i, c := range declareTries {
		order.Sources = append(order.Sources, protocol.Source{Path: "models/" + string(rune('a'+i)) + ".py", Text: c.code})
	}
	const honest = "models/z.py"
	order.Sources = append(order.Sources, protocol.Source{Path: honest, Text: "import headgate\n@headgate.model(name='honest')\ndef f():\n    return 1\n"})
	r := lab.run(t, sandbox.Job{Kind: sandbox.KindPython, Order: order})
	if err := answered(r); err != nil {
		t.Fatalf("%v: %+v, %q\n%s", err, r.Report, r.userError(), r.log)
	}
	seen := make(map[string]string)
	for _, d := range r.Answer.Declared {
		seen[d.Path] = d.Name
		if d.Error != nil {
			seen[d.Path] = d.Error.Message
		}
	}
	if seen[honest] != "honest" {
		t.Errorf("the honest file gives %q", seen[honest])
	}
	for i, c := range declareTries {
		if got := seen[order.Sources[i].Path]; !regexp.MustCompile(`(?s)^(?:` + c.sees + `)$`).MatchString(got) {
			t.Errorf("%s: %.300q, want %q", c.name, got, c.sees)
		}
	}
	r.recorded(t)
}
