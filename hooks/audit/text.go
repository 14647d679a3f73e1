package audit

import (
	"fmt"
	"strings"
	"unicode"
)

// maxShown bounds how many findings the text lists; --json has them all.
const maxShown = 200

// Text tells people the result.
func (r *Report) Text() string {
	var b strings.Builder
	last := ""
	for i, f := range r.Findings {
		if i == maxShown {
			fmt.Fprintf(&b, "... and %d more; --json lists them all\n", len(r.Findings)-i)
			break
		}
		if f.Commit != last {
			fmt.Fprintf(&b, "commit %s", f.Commit)
			if f.Run != "" {
				fmt.Fprintf(&b, ", run %s", f.Run)
			}
			b.WriteString("\n")
			last = f.Commit
		}
		fmt.Fprintf(&b, "  %-9s  %s\n", f.Kind, f.Text)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	fmt.Fprintf(&b, "%s at %.12s: %d commit(s), %d whole and signed proof(s), %d run record(s) in this clone", r.Branch, r.Tip, r.Commits, r.Proofs, r.Records)
	if len(r.Replayed) > 0 {
		fmt.Fprintf(&b, ", %d replayed (--seed %d)", len(r.Replayed), r.Seed)
	}
	b.WriteString(": ")
	if len(r.Findings) == 0 {
		b.WriteString("all is as the gate published it\n")
	} else {
		fmt.Fprintf(&b, "%d finding(s)\n", len(r.Findings))
	}
	return printable(b.String())
}

// printable drops what could drive a terminal: much of the text is others'.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
