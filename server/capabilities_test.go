package server_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/headgate/headgate/server/pktline"
)

// said is what a service says to a client that asks for a version and then goes.
func (s *site) said(service string, version int, lines ...string) []string {
	s.t.Helper()
	var in bytes.Buffer
	w := pktline.NewWriter(&in)
	for _, l := range lines {
		switch l {
		case "0000":
			check(s.t, w.Flush())
		case "0001":
			check(s.t, w.Delim())
		default:
			check(s.t, w.Line("%s", l))
		}
	}
	cmd := s.repo("user").command("--exec-path") // for its environment
	args := append(s.sshArgs("user"), "-o", fmt.Sprintf("SetEnv=GIT_PROTOCOL=version=%d", version), "--", "127.0.0.1", service+" 'flights'")
	cmd.Path, cmd.Args = "/usr/bin/ssh", args
	cmd.Stdin = &in
	out, _ := cmd.Output()
	var got []string
	for r := pktline.NewReader(bytes.NewReader(out)); ; {
		kind, line, err := r.Line()
		if err != nil {
			return got
		}
		if kind != pktline.Data {
			line = kind.String()
		}
		got = append(got, line)
	}
}

var session = regexp.MustCompile(`session-id=[A-Z2-7]{26}\b`)

// The capabilities of every service and version, word by word.
func TestCapabilities(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	main := c.git("rev-parse", "main")
	mask := func(lines []string) string {
		return session.ReplaceAllString(strings.Join(lines, "\n"), "session-id=S")
	}
	v2 := "version 2\nagent=headgate/1.2\nls-refs=unborn\nfetch=shallow wait-for-done filter ref-in-want\nserver-option\nobject-format=sha1\nobject-info\nsession-id=S\nflush"
	if got := mask(s.said("git-upload-pack", 2, "0000")); got != v2 {
		t.Errorf("upload-pack v2:\n%s", got)
	}
	v0 := main + " HEAD\x00multi_ack thin-pack side-band side-band-64k ofs-delta shallow deepen-since deepen-not deepen-relative no-progress include-tag multi_ack_detailed" +
		" allow-tip-sha1-in-want allow-reachable-sha1-in-want filter object-format=sha1 symref=HEAD:refs/heads/main agent=headgate/1.2 session-id=S"
	if got := mask(s.said("git-upload-pack", 0, "0000")[:1]); got != v0 {
		t.Errorf("upload-pack v0:\n%s", got)
	}
	if got := mask(s.said("git-upload-pack", 1, "0000")[:2]); got != "version 1\n"+v0 {
		t.Errorf("upload-pack v1:\n%s", got)
	}
	push := main + " refs/heads/main\x00report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta push-options object-format=sha1 agent=headgate/1.2 session-id=S"
	for version, want := range []string{push, "version 1\n" + push, push} { // there is no v2 of it
		if got := mask(s.said("git-receive-pack", version, "0000")); !strings.HasPrefix(got, want+"\n") {
			t.Errorf("receive-pack v%d:\n%s", version, got)
		}
	}
}

// Requests of version 2 that are wrong, and the words for them.
func TestV2Refusals(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	main := c.git("rev-parse", "main")
	for _, tt := range []struct {
		want  string
		lines []string
	}{
		{"unknown command \"bundle-uri\"", []string{"command=bundle-uri", "0001", "0000"}},
		{"unknown capability \"foo\"", []string{"command=ls-refs", "foo", "0000"}},
		{"object format \"sha256\" is not offered", []string{"command=ls-refs", "object-format=sha256", "0000"}},
		{"a request needs exactly one command", []string{"command=ls-refs", "command=fetch", "0000"}},
		{"no command requested", []string{"agent=x", "0000"}},
		{"unexpected line in ls-refs: \"foo\"", []string{"command=ls-refs", "0001", "foo", "0000"}},
		{"unexpected line in fetch: \"sideband-all\"", []string{"command=fetch", "0001", "sideband-all", "0000"}},
		{"unexpected line in fetch: \"packfile-uris https\"", []string{"command=fetch", "0001", "packfile-uris https", "0000"}},
		{"filter \"sparse:oid=" + main + "\" is not offered", []string{"command=fetch", "0001", "want " + main, "filter sparse:oid=" + main, "done", "0000"}},
		{"unknown ref \"refs/heads/none\"", []string{"command=fetch", "0001", "want-ref refs/heads/none", "done", "0000"}},
		{"not our ref " + strings.Repeat("12", 20), []string{"command=fetch", "0001", "want " + strings.Repeat("12", 20), "done", "0000"}},
		{"deepen and deepen-since (or deepen-not) cannot be used together", []string{"command=fetch", "0001", "want " + main, "deepen 1", "deepen-since 5", "done", "0000"}},
		{"invalid depth \"0\"", []string{"command=fetch", "0001", "want " + main, "deepen 0", "done", "0000"}},
		{"unexpected line in object-info", []string{"command=object-info", "0001", "type", "0000"}},
	} {
		got := s.said("git-upload-pack", 2, tt.lines...)
		if last := got[len(got)-1]; !strings.HasPrefix(last, "ERR ") || !strings.Contains(last, tt.want) {
			t.Errorf("%q: %q, want %q", tt.lines, last, tt.want)
		}
	}
	// And what is right, though no stock client says it like this.
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"server options and sessions", []string{"command=ls-refs", "agent=x", "server-option=a", "server-option=b=c", "session-id=1", "0001", "ref-prefix refs/heads/main", "0000"}, main + " refs/heads/main\nflush"},
		{"HEAD with its target", []string{"command=ls-refs", "0001", "symrefs", "peel", "ref-prefix HEAD", "0000"}, main + " HEAD symref-target:refs/heads/main\nflush"},
		{"peeled", []string{"command=ls-refs", "0001", "peel", "ref-prefix refs/tags/vv", "0000"},
			c.git("rev-parse", "vv1") + " refs/tags/vv1 peeled:" + c.git("rev-parse", "v1^{}") + "\nflush"},
		{"wait-for-done", []string{"command=fetch", "0001", "want " + main, "have " + main, "wait-for-done", "0000"}, "acknowledgments\nACK " + main + "\nflush"},
		{"ready", []string{"command=fetch", "0001", "want " + main, "have " + main, "no-progress", "0000"}, "acknowledgments\nACK " + main + "\nready\ndelimiter\npackfile\n"},
		{"wanted by name", []string{"command=fetch", "0001", "want-ref refs/heads/main", "have " + main, "no-progress", "done", "0000"}, "wanted-refs\n" + main + " refs/heads/main\ndelimiter\npackfile\n"},
		{"shallow", []string{"command=fetch", "0001", "want " + main, "deepen 1", "no-progress", "filter tree:0", "done", "0000"}, "shallow-info\nshallow " + main + "\ndelimiter\npackfile\n"},
		{"sizes", []string{"command=object-info", "0001", "size", "oid " + c.git("rev-parse", "main:tables/a/p2"), "0000"}, "size\n" + c.git("rev-parse", "main:tables/a/p2") + " 70000\nflush"},
	} {
		got := s.said("git-upload-pack", 2, append(tt.lines, "0000")...)
		for i, line := range got { // the answer is behind the capabilities
			if line == "flush" {
				got = got[i+1:]
				break
			}
		}
		if text := strings.Join(got, "\n"); text != tt.want && (!strings.HasSuffix(tt.want, "\n") || !strings.HasPrefix(text, tt.want)) {
			t.Errorf("%s: %.300q, want %q", tt.name, text, tt.want)
		}
	}
}

// Stock git notes the server's session, and tells its own.
func TestSessionIDs(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	for version := range 3 {
		trace := filepath.Join(t.TempDir(), "trace")
		c.extra = []string{"GIT_TRACE2_EVENT=" + trace}
		c.git("-c", "transfer.advertiseSID=true", "-c", fmt.Sprintf("protocol.version=%d", version), "fetch", "origin", "side:again")
		c.git("update-ref", "-d", "refs/heads/again")
		data, err := os.ReadFile(trace)
		check(t, err)
		if !regexp.MustCompile(`"server-sid","value":"[A-Z2-7]{26}"`).Match(data) {
			t.Errorf("v%d: git saw no session", version)
		}
	}
	c.git("-c", "transfer.advertiseSID=true", "push", "-q", "origin", "main:with-a-session")
}
