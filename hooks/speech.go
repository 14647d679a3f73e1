package hooks

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/hooks/mask"
)

// What one function may say on a terminal while it runs. The run record has the rest.
const (
	saidLines   = 200
	saidBytes   = 32 << 10
	saidLine    = 400 // characters of one line
	saidBurst   = 60  // lines at once
	saidRate    = 30  // lines a second after that
	saidAgain   = 15  // lines that must be allowed before one follows those left out
	maxLineHeld = 4 << 10
)

// speech is what one function says: lines for the pusher and the watchers as they
// come, without secrets, in bounds of number, size and rate; and the whole of it,
// to the limit of its log, for the run record.
type speech struct {
	say  *reporter
	hide *mask.Mask
	name string
	now  func() time.Time

	mu     sync.Mutex
	log    *mask.Writer
	kept   bytes.Buffer
	line   []byte // not ended yet
	lines  int    // printed
	bytes  int    // printed
	tokens float64
	last   time.Time
	lost   int   // lines left out since the last that was printed
	lostB  int64 // bytes of them
	limit  int64
}

// listen begins to take what a function says. limit bounds its log, in bytes.
func (r *run) listen(name string, limit int64) *speech {
	s := &speech{say: r.say, hide: r.hide, name: name, now: time.Now, tokens: saidBurst, limit: limit}
	s.log = r.hide.Writer(speechTail{s}, limit)
	return s
}

// sink is where the function's words go.
func (s *speech) sink() exec.Sink { return exec.Sink{Log: speechHead{s}, Note: s.note} }

// speechHead takes the log as it comes, and speechTail what may be seen of it.
type (
	speechHead struct{ *speech }
	speechTail struct{ *speech }
)

func (s speechHead) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

// Write is called with s.mu held.
func (s speechTail) Write(p []byte) (int, error) {
	s.kept.Write(p)
	for _, c := range p {
		// A carriage return ends a line too: progress bars rewrite theirs.
		if c == '\n' || c == '\r' {
			s.end()
			continue
		}
		if s.line = append(s.line, c); len(s.line) == maxLineHeld {
			s.end()
		}
	}
	return len(p), nil
}

// colours are the sequences that colour a terminal or move its cursor. The record
// keeps them.
var colours = regexp.MustCompile(`\x1b\[[0-9;:?]*[ -/]*[@-~]`)

// end prints the line that has come to its end.
func (s *speech) end() {
	text := strings.TrimRight(colours.ReplaceAllString(string(s.line), ""), " \t")
	s.line = s.line[:0]
	if text != "" {
		s.tell(text)
	}
}

func (s *speech) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(s.hide.Text(text))
}

// tell prints a line if the bounds allow it.
func (s *speech) tell(text string) {
	now := s.now()
	if !s.last.IsZero() {
		s.tokens = min(saidBurst, s.tokens+saidRate*now.Sub(s.last).Seconds())
	}
	s.last = now
	shown := clip(text, saidLine)
	need := 1.0
	if s.lost > 0 {
		need = saidAgain // or every second line of a flood would count the ones left out
	}
	fits := s.tokens >= need && s.lines < saidLines && s.bytes+len(shown) <= saidBytes
	if fits {
		s.leftOut()
		fits = s.say.said(s.name, shown)
	}
	if !fits {
		s.lost++
		s.lostB += int64(len(text))
		return
	}
	s.tokens--
	s.lines++
	s.bytes += len(shown)
}

// leftOut says how much was not printed.
func (s *speech) leftOut() {
	if s.lost == 0 {
		return
	}
	s.say.print(fmt.Sprintf("  %s | ... %s line(s) left out, %s bytes; the run record has the log\n", printable(s.name), count(int64(s.lost)), count(s.lostB)))
	s.lost, s.lostB = 0, 0
}

// close ends the speech and returns the log for the run record.
func (s *speech) close() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.Close()
	if s.log.Cut() {
		s.line = s.line[:0] // half a line
	}
	s.end()
	s.leftOut()
	if s.log.Cut() {
		s.say.print(fmt.Sprintf("  %s | ... the log is cut at its limit of %s\n", printable(s.name), sizeText(s.limit)))
		s.kept.WriteString(mask.CutMark(s.limit))
	}
	return s.kept.Bytes()
}
