package hooks

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/hooks/mask"
	"github.com/headgate/headgate/objects"
)

// reporter writes a run's story for the pusher, who reads it as "remote:" lines.
// Write errors are dropped: the run does not depend on its audience.
type reporter struct {
	mu    sync.Mutex
	w     io.Writer
	hide  *mask.Mask
	words int // bytes that functions may still say here
}

// maxWords bounds what all functions of a run say here, in bytes; the run record
// has what each said, up to its log's limit.
const maxWords = 1 << 20

func newReporter(w io.Writer) *reporter { return &reporter{w: w, words: maxWords} }

// conceal hides secrets in all that follows. Those who write here hide them where
// they come from; this is for what they overlook.
func (p *reporter) conceal(hide *mask.Mask) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hide = hide
}

func (p *reporter) print(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.w, p.hide.Text(text))
}

// said prints one line of a function's, or reports that the run has no room for it.
func (p *reporter) said(name, line string) bool {
	text := fmt.Sprintf("  %s | %s\n", printable(name), printable(line))
	p.mu.Lock()
	room := p.words >= len(text)
	if room {
		p.words -= len(text)
	}
	p.mu.Unlock()
	if room {
		p.print(text)
	}
	return room
}

// line prints one aligned line: what kind of step, its name, and how it went.
func (p *reporter) line(step, name, format string, args ...any) {
	p.print(strings.TrimRight(fmt.Sprintf("  %-7s %-28s %s", step, printable(name), printable(fmt.Sprintf(format, args...))), " ") + "\n")
}

// maxBlock is how many lines of a traceback or a sample are shown; the run
// record has all.
const maxBlock = 30

func (p *reporter) block(text string) {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if n := len(lines); n > maxBlock {
		lines = append(lines[:maxBlock], fmt.Sprintf("... %d more lines in the run record", n-maxBlock))
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("            " + printable(l) + "\n")
	}
	p.print(b.String())
}

// sample prints the first violating rows, "column=value" each.
func (p *reporter) sample(columns []string, rows []map[string]any) {
	var b strings.Builder
	for _, row := range rows {
		names := columns
		if len(names) == 0 {
			for k := range row {
				names = append(names, k)
			}
			sort.Strings(names)
		}
		cells := make([]string, 0, len(names))
		for _, name := range names {
			v := "NULL"
			if row[name] != nil {
				v = fmt.Sprint(row[name])
			}
			cells = append(cells, clip(name, 40)+"="+clip(v, 60))
		}
		b.WriteString(clip(strings.Join(cells, " "), 240) + "\n")
	}
	if b.Len() > 0 {
		p.block(b.String())
	}
}

func (p *reporter) header(r *run) {
	base := "an empty lake"
	if !r.base.IsZero() {
		base = short(r.base)
	}
	p.print(fmt.Sprintf("headgate: run %s judges %s for %s, against %s\n",
		r.id(), short(r.proposal), strings.TrimPrefix(string(r.target), headsPrefix), base))
}

func (p *reporter) planned(pl *plan.Plan) {
	p.line("plan", "", "%d model(s), %d verifier(s), %d source table(s)", len(pl.Models), len(pl.Verifiers), len(pl.Sources))
}

func (p *reporter) published(r *run, commit objects.OID) {
	branch := strings.TrimPrefix(string(r.target), headsPrefix)
	p.print(fmt.Sprintf("headgate: PUBLISHED. %s is now %s, the gate's merge of your commit.\n          Get it with: git pull\n", branch, short(commit)))
}

func (p *reporter) dryRun(r *run) {
	p.print(fmt.Sprintf("headgate: DRY RUN PASSED. Nothing was published. The record: git fetch origin %s%s\n", runsPrefix, r.id()))
}

func (p *reporter) refused(r *run, reasons []string, kept bool) {
	branch := strings.TrimPrefix(string(r.target), headsPrefix)
	var b strings.Builder
	fmt.Fprintf(&b, "headgate: REFUSED. %s is unchanged.\n", branch)
	for i, reason := range reasons {
		if i == maxBlock {
			fmt.Fprintf(&b, "    ... %d more in the run record\n", len(reasons)-i)
			break
		}
		fmt.Fprintf(&b, "    %s\n", printable(reason))
	}
	if kept {
		fmt.Fprintf(&b, "          Look at the record, logs and violating rows:  git fetch origin %s%s && git show FETCH_HEAD:run.json\n", runsPrefix, r.id())
		fmt.Fprintf(&b, "          Look at the tables as they were built:        git fetch origin %s%s\n", scratchPrefix, r.id())
	}
	p.print(b.String())
}

func (p *reporter) failed(r *run, cause error, kept bool) {
	branch := strings.TrimPrefix(string(r.target), headsPrefix)
	p.print(fmt.Sprintf("headgate: COULD NOT RUN. %s is unchanged; your proposal was not judged. Push again, or give the administrator this run id: %s\n", branch, r.id()))
	if cause != errInside {
		p.print("    " + printable(cause.Error()) + "\n")
	}
	if kept {
		p.print(fmt.Sprintf("          The record: git fetch origin %s%s\n", runsPrefix, r.id()))
	}
}

func (p *reporter) cancelled(r *run, by string, kept bool) {
	branch := strings.TrimPrefix(string(r.target), headsPrefix)
	p.print(fmt.Sprintf("headgate: CANCELLED by %s. %s is unchanged; what was computed is cached, so a new push goes on from there.\n", printable(by), branch))
	if kept {
		p.print(fmt.Sprintf("          The record: git fetch origin %s%s\n", runsPrefix, r.id()))
	}
}

func short(oid objects.OID) string { return oid.String()[:10] }

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// count prints a number with thousands separated.
func count(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// printable keeps foreign text from speaking to the pusher's terminal: control
// characters, escape sequences and invalid UTF-8 become visible marks.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c == utf8.RuneError || c == '\t' {
			return ' '
		}
		if c < ' ' || c == 0x7f || (c >= 0x80 && c < 0xa0) || c == 0x2028 || c == 0x2029 || (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) {
			return '?'
		}
		return c
	}, s)
}

func clip(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}
