package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/server"
	"github.com/headgate/headgate/server/pktline"
	"github.com/headgate/headgate/server/receivepack"
)

// staged is how many files lie in a lake's quarantines.
func (s *site) staged(name string) (n int) {
	s.t.Helper()
	check(s.t, filepath.WalkDir(filepath.Join(s.data, "lakes", name, "quarantine"), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && filepath.Base(filepath.Dir(path)) != "quarantine" {
			n++
		}
		return nil // what is removed meanwhile is what is to be seen
	}))
	return n
}

func randomFile(t *testing.T, n int) string {
	t.Helper()
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return string(b)
}

// Stock git shows which limit a push breaks; nothing of it stays.
func TestPushOverALimit(t *testing.T) {
	for name, tt := range map[string]struct {
		limits objects.Limits
		want   string
	}{
		"bytes":        {objects.Limits{PackBytes: 100_000}, "the pack is larger than the limit of 100000 bytes (the server's --max-push-bytes)"},
		"objects":      {objects.Limits{Objects: 2}, "the pack has 3 objects, the limit is 2 (the server's --max-push-objects)"},
		"object-bytes": {objects.Limits{ObjectBytes: 200_000}, "a blob of 300000 bytes is over the limit of 200000 bytes (the server's --max-push-object-bytes)"},
		"inflation":    {objects.Limits{InflateRatio: 1, InflateFree: 10}, "the pack inflates to more than 1 times its size (the server's --max-push-inflation)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(c *server.Config) { c.Limits = tt.limits })
			c := s.repo("admin")
			file := randomFile(t, 300_000)
			if name == "inflation" {
				file = strings.Repeat("x", 300_000)
			}
			c.commit("big", map[string]string{"f": file})
			c.refused("remote unpack failed: "+tt.want, "push", s.url("flights"), "main")
			if n := s.staged("flights"); n != 0 {
				t.Errorf("%d files are left", n)
			}
		})
	}
}

// A disk without room is said to be that, and takes the next push that fits.
func TestPushWithoutRoom(t *testing.T) {
	staging := objects.NewStaging(8<<20, 0)
	s := newSite(t, func(c *server.Config) { c.Staging = staging })
	c := s.repo("admin")
	c.commit("small", map[string]string{"f": "1"})
	c.git("push", "-q", s.url("flights"), "main")
	c.commit("big", map[string]string{"f": randomFile(t, 12<<20)})
	c.refused("the server has no disk space left for this push; nothing of it was kept", "push", s.url("flights"), "main")
	if n := s.staged("flights"); n != 0 || staging.Used() != 0 {
		t.Errorf("%d files and %d bytes are left", n, staging.Used())
	}
	c.git("reset", "-q", "--hard", "HEAD~1")
	c.commit("small again", map[string]string{"f": "2"})
	c.git("push", "-q", s.url("flights"), "main")
	if staging.Used() != 0 {
		t.Errorf("%d bytes are taken by nobody", staging.Used())
	}
}

// A client that stalls in the middle of its pack, or drips, is given up and told.
func TestSlowPush(t *testing.T) {
	s := newSite(t, func(c *server.Config) { c.Pace = receivepack.Pace{Stall: 500 * time.Millisecond, Rate: 10_000} })
	c := s.pushedLake("flights")
	tip := c.commit("new", map[string]string{"n": randomFile(t, 200_000)})
	cmd := c.command("pack-objects", "--revs", "--stdout", "-q")
	cmd.Stdin = strings.NewReader("HEAD\n^HEAD~1\n")
	pack, err := cmd.Output()
	check(t, err)
	for name, send := range map[string]func(w *wire) string{
		"stalls": func(w *wire) string {
			_, err := w.in.Write(pack[:len(pack)/2])
			check(t, err)
			return "nothing came for 500ms in the middle of a push"
		},
		"drips": func(w *wire) string {
			go func() {
				for i := range pack {
					if _, err := w.in.Write(pack[i : i+1]); err != nil {
						return // given up, as it should be
					}
					time.Sleep(5 * time.Millisecond)
				}
			}()
			return "which is less than 10000 bytes a second"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := s.within(t).wire("admin", "git-receive-pack flights")
			check(t, w.w.Packet([]byte(zeros+" "+tip+" refs/heads/slow\x00report-status side-band-64k")))
			check(t, w.w.Flush())
			time.Sleep(700 * time.Millisecond) // longer than a stall: the client looks for deltas
			want := send(w)
			got := w.rest()
			if !strings.Contains(got, want) || !strings.Contains(got, "ng refs/heads/slow unpacker error") {
				t.Errorf("got %q, want %q", got, want)
			}
			if s.at("flights", "refs/heads/slow") != "" || s.staged("flights") != 0 {
				t.Error("something of the push is left")
			}
		})
	}
}

// Commands that do not come are not waited for either.
func TestSlowCommands(t *testing.T) {
	s := newSite(t, func(c *server.Config) { c.Pace = receivepack.Pace{Stall: 300 * time.Millisecond} })
	c := s.pushedLake("flights")
	w := s.wire("admin", "git-receive-pack flights")
	check(t, w.w.Packet([]byte(zeros+" "+c.git("rev-parse", "HEAD")+" refs/heads/slow\x00report-status")))
	if got := w.rest(); !strings.Contains(got, "ERR nothing came for 300ms") {
		t.Errorf("got %q", got)
	}
}

// The server shows that it lives while it waits for the pack.
func TestKeepAliveWhileThePackComes(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	w := s.wire("admin", "git-receive-pack flights")
	check(t, w.w.Packet([]byte(zeros+" "+c.git("rev-parse", "HEAD")+" refs/heads/copy\x00report-status side-band-64k")))
	check(t, w.w.Flush())
	_, err := w.in.Write([]byte("PACK\x00\x00\x00\x02"))
	check(t, err)
	for range 3 {
		kind, p, err := w.out.Next()
		if check(t, err); kind != pktline.Data || !bytes.Equal(p, []byte{2}) {
			t.Fatalf("got %s %q, want a keep-alive", kind, p)
		}
	}
	_, err = w.in.Write(append([]byte{0, 0, 0, 0}, []byte("\x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e")...))
	check(t, err)
	check(t, w.in.Close())
	if got := w.rest(); !strings.Contains(got, "ok refs/heads/copy") {
		t.Errorf("an empty pack for what is there: %q", got)
	}
}

// Clients that vanish in the middle of their packs leave nothing, however many.
func TestVanishingClientsLeaveNothing(t *testing.T) {
	s := newSite(t)
	c := s.pushedLake("flights")
	for i := range 4 {
		w := s.wire("admin", "git-receive-pack flights")
		check(t, w.w.Packet(fmt.Appendf(nil, "%s %s refs/heads/half%d\x00report-status side-band-64k", zeros, c.git("rev-parse", "HEAD"), i)))
		check(t, w.w.Flush())
		// One object begins, and is cut off at another place each time.
		_, err := w.in.Write([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\xbf\xff\xff\x07\x78\x01\x01\xff\xff\x00\x00" + strings.Repeat("x", 1+i*20_000)))
		check(t, err)
		check(t, w.cmd.Process.Kill())
		_ = w.cmd.Wait()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	check(t, s.server.Shutdown(ctx)) // waits for the sessions
	if n := s.staged("flights"); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

// Over HTTP too a client that stalls is given up and told, and so is one with a
// pack that is over a limit.
func TestSlowPushOverHTTP(t *testing.T) {
	s := newSite(t, func(c *server.Config) {
		c.Pace = receivepack.Pace{Stall: 400 * time.Millisecond}
		c.Limits = objects.Limits{Objects: 20}
	})
	c := s.repo("admin")
	tip := c.commit("one", map[string]string{"f": "1"})
	secret := s.token("admin", "")
	c.git("push", "-q", s.webURL(secret, "flights"), "main")
	body, in := io.Pipe()
	req, err := http.NewRequest("POST", s.web+"/flights/git-receive-pack", body)
	check(t, err)
	req.SetBasicAuth("x", secret)
	req.Header.Set("Content-Type", "application/x-git-receive-pack-request")
	go func() {
		w := pktline.NewWriter(in)
		_ = w.Packet([]byte(zeros + " " + tip + " refs/heads/slow\x00report-status side-band-64k"))
		_ = w.Flush()
		_, _ = in.Write([]byte("PACK\x00\x00\x00\x02"))
	}()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(text), "unpack nothing came for 400ms in the middle of a push") {
		t.Errorf("%s: %q", resp.Status, text)
	}
	check(t, in.Close())
	if s.at("flights", "refs/heads/slow") != "" || s.staged("flights") != 0 {
		t.Error("something of the push is left")
	}
	for i := range 30 {
		c.write(filepath.Join(c.dir, fmt.Sprint(i)), fmt.Sprint(i))
	}
	c.commit("many", nil)
	c.refused("the limit is 20 (the server's --max-push-objects)", "push", s.webURL(secret, "flights"), "main")
}
