package conformance

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of docs/conformance.md")

// The table stands between these lines of the document.
const (
	tableBegins = "<!-- table: written by go test ./test/conformance -run TestDocument -update -->\n"
	tableEnds   = "<!-- end of table -->\n"
)

// table says of each scenario which client plays it, and below why one does not.
func table() string {
	var out, notes strings.Builder
	out.WriteString("| scenario |")
	line := "| --- |"
	for _, sub := range subjects {
		fmt.Fprintf(&out, " %s |", sub.column)
		line += " --- |"
	}
	out.WriteString("\n" + line + "\n")
	var reasons []string
	for _, sc := range scenarios {
		fmt.Fprintf(&out, "| %s |", sc.ability)
		for _, sub := range subjects {
			reason := sub.lacks[sc.ability]
			if reason == "" {
				out.WriteString(" yes |")
				continue
			}
			n := slices.Index(reasons, reason)
			if n < 0 {
				n = len(reasons)
				reasons = append(reasons, reason)
				fmt.Fprintf(&notes, "%d. %s\n", n+1, reason)
			}
			fmt.Fprintf(&out, " no: %d |", n+1)
		}
		out.WriteByte('\n')
	}
	return out.String() + "\n" + notes.String()
}

// TestDocument holds docs/conformance.md to the list of subjects, which TestClients plays.
func TestDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "conformance.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegins)
	have, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		t.Fatal("the table's first or last line is not there")
	}
	if want := table(); have != want {
		if !*update {
			t.Fatalf("the table is not what is tested; run: go test ./test/conformance -run TestDocument -update\nwant:\n%s", want)
		}
		if err := os.WriteFile(path, []byte(before+tableBegins+want+tableEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever takes a scenario out of the list, or gives a reason for one that is
// not there, hears of it.
func TestEveryReasonIsOfAScenario(t *testing.T) {
	known := map[ability]bool{}
	for _, sc := range scenarios {
		known[sc.ability] = true
	}
	for _, sub := range subjects {
		for a := range sub.lacks {
			if !known[a] {
				t.Errorf("%s lacks %q, which no scenario plays", sub.name, a)
			}
		}
		if strings.HasPrefix(sub.name, "git-") && len(sub.lacks) > 0 {
			t.Errorf("stock git lacks %v", sub.lacks)
		}
	}
}

// TestVersionIsSpoken shows that the three subjects of stock git are three.
func TestVersionIsSpoken(t *testing.T) {
	s := newSite(t)
	s.ask(t, "lake", "create", "spoken")
	// Version 0 announces nothing; its capabilities come with the first ref.
	for version, sign := range []string{"multi_ack_detailed", "version 1", "version 2"} {
		trace := filepath.Join(t.TempDir(), "trace")
		args := []string{"-c", fmt.Sprint("protocol.version=", version)}
		env := s.env
		s.env = append(slices.Clone(env), "GIT_TRACE_PACKET="+trace)
		s.git(t, s.dir, append(args, "ls-remote", routes[0].to(s, "spoken").url())...)
		s.env = env
		text, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), sign) || version == 0 && strings.Contains(string(text), "version ") {
			t.Errorf("version %d is not spoken:\n%s", version, text)
		}
	}
}
