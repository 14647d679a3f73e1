package receivepack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/headgate/headgate/server/pktline"
)

const (
	zeros = "0000000000000000000000000000000000000000"
	oidA  = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	oidB  = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// lines makes packets of texts; "" is a flush.
func lines(texts ...string) *pktline.Reader {
	var buf bytes.Buffer
	w := pktline.NewWriter(&buf)
	for _, t := range texts {
		if t == "" {
			_ = w.Flush()
		} else {
			_ = w.Packet([]byte(t))
		}
	}
	return pktline.NewReader(&buf)
}

func TestReadRequest(t *testing.T) {
	req, err := readRequest(lines(
		"shallow "+oidB,
		oidA+" "+oidB+" refs/heads/main\x00 report-status report-status-v2 side-band-64k atomic push-options quiet object-format=sha1 agent=git/2",
		oidA+" "+zeros+" refs/heads/old\n",
		"",
		"param.day=2001-01-01", "run", "",
	))
	if err != nil {
		t.Fatal(err)
	}
	if len(req.commands) != 2 || !req.status || !req.statusV2 || !req.sideBand || !req.atomic || len(req.shallow) != 1 {
		t.Fatalf("got %+v", req)
	}
	if got := fmt.Sprint(req.options); got != "[param.day=2001-01-01 run]" {
		t.Errorf("options %s", got)
	}
	if c := req.commands[1]; c.name != "refs/heads/old" || !c.new.IsZero() || c.err != nil {
		t.Errorf("second command %+v", c)
	}
	if !req.needsPack() {
		t.Error("a push with an update needs a pack")
	}
	req, err = readRequest(lines(oidA+" "+zeros+" refs/heads/old\x00", ""))
	if err != nil || req.needsPack() {
		t.Errorf("deletion alone: %v, needs a pack: %v", err, req.needsPack())
	}
}

func TestReadRequestRefusals(t *testing.T) {
	tests := []struct {
		name, line, text string
	}{
		{"short", oidA + " " + oidB, "expected old, new and ref"},
		{"no oid", strings.Repeat("x", 40) + " " + oidB + " refs/heads/x", "expected old, new and ref"},
		{"upper case", strings.ToUpper(oidA) + " " + oidB + " refs/heads/x", "expected old, new and ref"},
		{"certificate", "push-cert\x00", "signed pushes are not offered"},
		{"sha256", oidA + " " + oidB + " refs/heads/x\x00object-format=sha256", "this server speaks sha1"},
		{"shallow", "shallow xyz", "bad shallow line"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readRequest(lines(tt.line, ""))
			var re *RequestError
			if !errors.As(err, &re) || !strings.Contains(re.Text, tt.text) {
				t.Fatalf("got %v, want %q", err, tt.text)
			}
		})
	}
	if _, err := readRequest(lines(oidA + " " + oidB + " refs/heads/x\x00")); !errors.Is(err, io.EOF) {
		t.Errorf("commands without a flush: %v", err)
	}
	long := []string{zeros + " " + oidA + " refs/heads/0\x00"}
	for i := range 300 { // of names as long as a packet
		long = append(long, fmt.Sprintf("%s %s refs/heads/%d/%s", zeros, oidA, i, strings.Repeat("x", 65_000)))
	}
	if _, err := readRequest(lines(append(long, "")...)); !errors.Is(err, pktline.ErrLimit) {
		t.Errorf("20 MB of commands: %v", err)
	}
	many := []string{oidA + " " + oidB + " refs/heads/x\x00push-options", ""}
	for range maxOptions + 1 {
		many = append(many, "o")
	}
	if _, err := readRequest(lines(append(many, "")...)); err == nil {
		t.Error("any number of push options is taken")
	}
}

func TestBadNamesAreRefusedOneByOne(t *testing.T) {
	req, err := readRequest(lines(
		zeros+" "+oidA+" refs/heads/a..b\x00",
		zeros+" "+oidA+" refs/heads/twice", zeros+" "+oidB+" refs/heads/twice",
		zeros+" "+oidA+" HEAD",
		zeros+" "+oidA+" refs/heads/fine", ""))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, true, true, false} {
		if c := req.commands[i]; (c.err != nil) != want {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain":              "plain",
		"two\nlines\r\n":     "two lines",
		"esc\x1b[31mred\x07": "esc [31mred",
		"  spaced \t out  ":  "spaced out",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := oneLine(strings.Repeat("é", maxReason)); len(got) > maxReason+3 || !utf8.ValidString(got) {
		t.Errorf("long text: %d bytes", len(got))
	}
}

// stuck is a client that does not read until it is let go.
type stuck struct {
	free chan struct{}
	mu   sync.Mutex
	got  bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.free
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.Write(p)
}

// A run must not wait for its pusher's terminal.
func TestRelayNeverBlocks(t *testing.T) {
	client := &stuck{free: make(chan struct{})}
	r := newRelay(client)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 3 * maxBacklog / len(line) { // would never end if Write waited
		_, _ = r.Write(line)
	}
	close(client.free)
	r.Close()
	r.Close()
	_, _ = r.Write([]byte("late"))
	got := client.got.String()
	if len(got) > 2*maxBacklog+len(droppedNote) || !strings.Contains(got, droppedNote) || strings.Contains(got, "late") {
		t.Fatalf("client got %d bytes, ending in %q", len(got), got[max(0, len(got)-80):])
	}
}

type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestRelayDropsForTheGone(t *testing.T) {
	r := newRelay(gone{})
	for range 100 {
		if n, err := r.Write([]byte("line\n")); n != 5 || err != nil {
			t.Fatalf("the writer noticed: %d, %v", n, err)
		}
	}
	r.Close()
}
