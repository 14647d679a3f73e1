package main

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// progress shows how far a command is: a bar on a terminal, lines elsewhere. The nil
// progress shows nothing. Its methods may be called by several goroutines.
type progress struct {
	out      io.Writer
	terminal bool
	now      func() time.Time

	mu    sync.Mutex
	phase string
	began time.Time // of the phase
	share float64   // of it that is done; below 0: not known
	moved int64     // bytes
	drawn time.Time
	width int // of the bar on the screen
	told  int // tenths of the phase that a line was written for
}

// newProgress returns what shows the progress of a command on its standard error;
// nil if it is to be quiet.
func newProgress(std streams, quiet bool) *progress {
	if quiet {
		return nil
	}
	return &progress{out: std.err, terminal: isTerminal(std.err), now: time.Now, share: -1}
}

// shares are notes of the worker that say how much is done.
var (
	percentNote = regexp.MustCompile(`^([a-z][a-z ]*) (\d{1,3})%$`)
	partNote    = regexp.MustCompile(`^part (\d+) of (\d+)$`)
)

// note takes a line of the worker's.
func (p *progress) note(text string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := percentNote.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[2])
		p.move(m[1], float64(n)/100)
	} else if m := partNote.FindStringSubmatch(text); m != nil {
		i, _ := strconv.Atoi(m[1])
		n, _ := strconv.Atoi(m[2])
		p.move("writing parts", float64(i)/float64(max(n, 1)))
	} else {
		p.clear()
		fmt.Fprintf(p.out, "  %s\n", visible(text))
	}
}

// bytes says how many bytes were written so far.
func (p *progress) bytes(n int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved = n
	if p.phase == "" {
		p.phase, p.began = "writing", p.now()
	}
	p.draw()
}

// move goes on to a share of a phase.
func (p *progress) move(phase string, share float64) {
	if phase != p.phase {
		p.phase, p.began, p.told, p.moved, p.drawn = phase, p.now(), 0, 0, time.Time{}
	}
	p.share = min(max(share, 0), 1)
	p.draw()
}

// interval is how often the bar changes.
const interval = 100 * time.Millisecond

func (p *progress) draw() {
	if !p.terminal {
		if tenth := int(p.share * 10); tenth > p.told {
			p.told = tenth
			fmt.Fprintf(p.out, "  %s\n", p.line())
		}
		return
	}
	now := p.now()
	if now.Sub(p.drawn) < interval && p.share < 1 {
		return
	}
	p.drawn = now
	line := p.line()
	if p.share >= 0 {
		const cells = 24
		full := int(p.share * cells)
		line = "[" + strings.Repeat("=", full) + strings.Repeat(" ", cells-full) + "] " + line
	}
	fmt.Fprintf(p.out, "\r%s%s", line, strings.Repeat(" ", max(p.width-len(line), 0)))
	p.width = len(line)
}

// line says where the phase is, how fast it goes and when it ends.
func (p *progress) line() string {
	var b strings.Builder
	b.WriteString(p.phase)
	if p.share >= 0 {
		fmt.Fprintf(&b, " %d%%", int(p.share*100))
	}
	took := p.now().Sub(p.began)
	if p.moved > 0 {
		fmt.Fprintf(&b, ", %s", byteSize(p.moved))
		if took > time.Second {
			fmt.Fprintf(&b, ", %s/s", byteSize(int64(float64(p.moved)/took.Seconds())))
		}
	}
	if p.share > 0 && p.share < 1 && took > time.Second {
		left := time.Duration(float64(took) * (1 - p.share) / p.share)
		fmt.Fprintf(&b, ", %s left", left.Round(time.Second))
	}
	return b.String()
}

// clear takes the bar off the screen.
func (p *progress) clear() {
	if p.terminal && p.width > 0 {
		fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", p.width))
		p.width = 0
	}
}

// end takes the bar away.
func (p *progress) end() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}
