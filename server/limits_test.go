package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/headgate/headgate/hooks"
	"github.com/headgate/headgate/server"
)

// connect logs in and, unless it is to stay idle, runs a command.
func (s *site) connect(user string, idle bool) *gossh.Client {
	s.t.Helper()
	client, err := s.dial(s.signer(user))
	check(s.t, err)
	s.t.Cleanup(func() { client.Close() })
	if !idle {
		sess, err := client.NewSession()
		check(s.t, err)
		_, err = sess.Output("whoami")
		check(s.t, err)
	}
	return client
}

func TestConnectionLimits(t *testing.T) {
	s := newSite(t, func(cfg *server.Config) {
		cfg.MaxConnections = 4
		cfg.HandshakeTimeout = time.Second
	})
	silent, err := net.Dial("tcp", s.addr)
	check(t, err)
	defer silent.Close()
	// A client that never says a word is dropped.
	if _, err := io.Copy(io.Discard, silent); err != nil {
		t.Errorf("silent client: %v", err)
	}
	// So is one that authenticates and opens no session, or one and asks for nothing.
	if err := s.connect("user", true).Wait(); err == nil {
		t.Error("an idle connection ended without an error")
	}
	client := s.connect("user", true)
	_, err = client.NewSession()
	check(t, err)
	if err := client.Wait(); err == nil {
		t.Error("a session without a command ended without an error")
	}
	first := s.connect("user", false)
	for range 10 {
		_, err := first.NewSession()
		check(t, err)
	}
	if _, err := first.NewSession(); err == nil {
		t.Error("an eleventh session was opened")
	}
	time.Sleep(1100 * time.Millisecond) // the time until the first command is not that of later ones
	second := s.connect("user", false)
	// Half is for a user, so that there is room for others.
	third := s.connect("user", true)
	if _, err := third.NewSession(); err == nil || !strings.Contains(err.Error(), "too many connections") {
		t.Errorf("more than half of the connections for one user: %v", err)
	}
	third.Close()
	for start := time.Now(); ; { // the server notices the end in a moment
		if client, err := s.dial(s.signer("admin")); err == nil {
			sess, err := client.NewSession()
			check(t, err)
			check(t, sess.Run("whoami"))
			client.Close()
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("there is no room for another user")
		}
	}
	second.Close()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		client := s.connect("user", true)
		_, err := client.NewSession()
		client.Close()
		if err == nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("a connection that has ended still counts")
		}
	}
}

// One address that knocks and does not enter leaves room for others.
func TestOneAddressLeavesRoom(t *testing.T) {
	s := newSite(t, func(cfg *server.Config) { cfg.MaxConnections = 20 })
	knock := func(host byte) bool {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}}
		conn, err := dialer.Dial("tcp", s.addr)
		check(t, err)
		t.Cleanup(func() { conn.Close() })
		check(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, err := conn.Read(make([]byte, 20)) // the server's version, if it takes us
		return err == nil && n > 0
	}
	taken := 0
	for range 20 {
		if knock(2) {
			taken++
		}
	}
	if taken != 10 {
		t.Errorf("%d of 20 connections of one address are taken, want half", taken)
	}
	if !knock(3) {
		t.Error("another address finds no room")
	}
	// Who has entered does not knock any more.
	for range 8 {
		s.connect("user", false)
	}
}

// Sessions of one user, over SSH and HTTP together, are bounded; others have theirs.
func TestSessionsOfOneUser(t *testing.T) {
	s := newSite(t, func(cfg *server.Config) { cfg.MaxUserSessions = 2 })
	s.pushedLake("flights")
	secret := s.token("user", "")
	c := s.from(s.webURL(secret, "flights"))
	c.commit("next", map[string]string{"x": "y"})
	begun, goOn := make(chan struct{}, 2), make(chan struct{})
	s.gate.before = func(context.Context, *hooks.Push) { begun <- struct{}{}; <-goOn }
	done := make(chan error, 2)
	for i, url := range []string{s.webURL(secret, "flights"), s.url("flights")} {
		go func() {
			out, err := c.try("push", "-q", url, fmt.Sprintf("HEAD:refs/heads/n%d", i))
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			done <- err
		}()
		<-begun
	}
	if _, errText, code := s.ssh("user", "whoami"); code != 1 || !strings.Contains(errText, "you have 2 sessions under way") {
		t.Errorf("exit %d, %s", code, errText)
	}
	got := s.ask("GET", "/flights/info/refs?service=git-upload-pack", secret, "")
	if got.status != http.StatusTooManyRequests || !strings.Contains(got.body, "you have 2 sessions under way") || got.header.Get("Retry-After") == "" {
		t.Errorf("over HTTP: %d %s", got.status, got.body)
	}
	if _, errText, code := s.ssh("admin", "whoami"); code != 0 {
		t.Errorf("another user: exit %d, %s", code, errText)
	}
	close(goOn)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if out, _, code := s.ssh("user", "whoami"); code != 0 {
		t.Errorf("after they have ended: exit %d, %s", code, out)
	}
}

// What a client asks for ahead of its command is not kept, but for the one variable
// that counts.
func TestChannelRequests(t *testing.T) {
	s := newSite(t)
	s.pushedLake("flights")
	client := s.connect("user", true)
	ch, requests, err := client.OpenChannel("session", nil)
	check(t, err)
	go gossh.DiscardRequests(requests)
	env := func(name, value string) bool {
		ok, err := ch.SendRequest("env", true, gossh.Marshal(struct{ Name, Value string }{name, value}))
		check(t, err)
		return ok
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	large := strings.Repeat("x", 30_000)
	for i := range 2000 {
		if env(fmt.Sprint("V", i), large) {
			t.Fatal("any variable is taken")
		}
		for _, kind := range []string{"signal", "x11-req", "auth-agent-req@openssh.com", "window-change"} {
			_, err := ch.SendRequest(kind, false, []byte(large))
			check(t, err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 20<<20 {
		t.Errorf("300 MB of requests left %d bytes behind", grown)
	}
	if env("GIT_PROTOCOL", large) {
		t.Error("a value of any length is taken")
	}
	ch.Close()

	ch, requests, err = client.OpenChannel("session", nil)
	check(t, err)
	go gossh.DiscardRequests(requests)
	if env("LD_PRELOAD", "x") || env("LANG", "C") {
		t.Error("variables are taken that nobody looks at")
	}
	taken := 0
	for range 30 {
		if env("GIT_PROTOCOL", "version=2") {
			taken++
		}
	}
	if taken == 0 || taken > 16 {
		t.Errorf("%d of 30 variables are taken", taken)
	}
	ok, err := ch.SendRequest("exec", true, gossh.Marshal(struct{ Line string }{"git-upload-pack flights"}))
	if err != nil || !ok {
		t.Fatalf("exec: %v %v", ok, err)
	}
	line := make([]byte, 14)
	if _, err := io.ReadFull(ch, line); err != nil || string(line) != "000eversion 2\n" {
		t.Errorf("%v: %q, want protocol v2", err, line)
	}
}

// The list of keys is as it is now, also after a change that keeps its size and time.
func TestKeysSeeEveryChange(t *testing.T) {
	s := newSite(t)
	stranger := s.newKey("stranger")
	text := readFile(t, s.keyFile)
	_, adas, _ := strings.Cut(text, "\n")
	other := strings.Replace(text, strings.Fields(adas)[1], strings.Fields(stranger)[1], 1)
	if len(other) != len(text) {
		t.Fatal("the test needs keys of one length")
	}
	info, err := os.Stat(s.keyFile)
	check(t, err)
	for i, change := range []string{other, text, other} {
		s.ssh("admin", "whoami") // reads the list
		s.write(s.keyFile, change)
		check(t, os.Chtimes(s.keyFile, info.ModTime(), info.ModTime()))
		want := 0
		if change == other {
			want = 255
		}
		if _, _, code := s.ssh("user", "whoami"); code != want {
			t.Errorf("change %d: exit %d, want %d", i, code, want)
		}
	}
}
