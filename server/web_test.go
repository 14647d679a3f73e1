package server_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/hooks"
)

// token makes a token over SSH and returns it.
func (s *site) token(user, flags string) string {
	s.t.Helper()
	out, errText, code := s.ssh(user, "token create "+flags)
	if code != 0 {
		s.t.Fatalf("token create %s: exit %d, %s", flags, code, errText)
	}
	return strings.TrimSpace(out)
}

// webURL is a lake's URL with a token in it.
func (s *site) webURL(secret, lake string) string {
	return strings.Replace(s.web, "://", "://any:"+secret+"@", 1) + "/" + lake
}

// answer is an HTTP response that was read.
type answer struct {
	status int
	header http.Header
	body   string
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	return string(data)
}

// ask sends one request.
func (s *site) ask(method, path, secret, body string, header ...string) answer {
	s.t.Helper()
	return s.askFrom(1, method, path, secret, body, header...)
}

// askFrom is ask from the address 127.0.0.host.
func (s *site) askFrom(host byte, method, path, secret, body string, header ...string) answer {
	s.t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(method, s.web+path, strings.NewReader(body))
	check(s.t, err)
	if secret != "" {
		req.SetBasicAuth("x", secret)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := transport.RoundTrip(req)
	check(s.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(s.t, err)
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// All that git does, over HTTP, in every version of the protocol.
func TestWebGit(t *testing.T) {
	s := newSite(t)
	src := s.pushedLake("team/flights")
	secret := s.token("user", "")
	for _, version := range []string{"0", "1", "2"} {
		protocol := "protocol.version=" + version
		want := src.objects()
		c := s.from(s.webURL(secret, "team/flights"), "-c", protocol)
		c.fsck()
		if got := c.objects(); !slices.Equal(got, want) {
			t.Errorf("v%s: %d objects, want %d", version, len(got), len(want))
		}
		// Both spellings are the same lake.
		if a, b := c.git("ls-remote", s.webURL(secret, "team/flights.git")), c.git("ls-remote", "-q"); a != b || a == "" {
			t.Errorf("v%s: with .git %q, without %q", version, a, b)
		}
		branch := "by" + version
		oid := c.commit("by v"+version, map[string]string{"models/new" + version: version})
		c.git("push", "-q", "origin", "HEAD:refs/heads/"+branch)
		if got := c.git("ls-remote", "origin", branch); !strings.HasPrefix(got, oid) {
			t.Errorf("v%s: pushed %s, is %q", version, oid, got)
		}
		c.git("push", "-q", "origin", ":"+branch)
		if got := c.git("ls-remote", "origin", branch); got != "" {
			t.Errorf("v%s: deleted, is %q", version, got)
		}
		shallow := s.from(s.webURL(secret, "team/flights"), "-c", protocol, "--depth", "2")
		if n := shallow.git("rev-list", "--count", "--first-parent", "HEAD"); n != "2" {
			t.Errorf("v%s: a clone of depth 2 has %s commits", version, n)
		}
		shallow.git("fetch", "-q", "--deepen", "1")
		shallow.git("fetch", "-q", "--unshallow")
		shallow.fsck()
		if got := shallow.git("rev-parse", "HEAD"); got != src.git("rev-parse", "main") {
			t.Errorf("v%s: unshallowed to %s", version, got)
		}
		partial := s.from(s.webURL(secret, "team/flights"), "-c", protocol, "--filter=blob:none", "--no-checkout")
		if got := partial.objects(); len(got) >= len(want) {
			t.Errorf("v%s: a partial clone has %d of %d objects", version, len(got), len(want))
		}
		partial.git("checkout", "-q", "main") // fetches what it needs
		partial.git("diff", "--stat", "HEAD~2", "HEAD")
		partial.commit("from a partial clone", map[string]string{"models/p": version})
		partial.git("push", "-q", "origin", "HEAD:refs/heads/partial"+version)
		partial.git("push", "-q", "origin", ":partial"+version)
	}
	// An administrator's push creates a lake; looking does not.
	admin := s.token("admin", "")
	src.refused("does not exist", "push", s.webURL(secret, "new"), "main")
	src.git("push", "--dry-run", "-q", s.webURL(admin, "new"), "main")
	if out, _, _ := s.ssh("user", "lake ls"); strings.Contains(out, "new") {
		t.Error("a dry run creates a lake")
	}
	src.git("push", "-q", s.webURL(admin, "new"), "main")
	if got := s.from(s.webURL(secret, "new")).git("rev-parse", "HEAD"); got != src.git("rev-parse", "main") {
		t.Errorf("the new lake is at %s", got)
	}
	if who := s.gate.last(t).Who; who.Name != "root" || !who.Admin || !strings.HasPrefix(who.Fingerprint, "SHA256:") {
		t.Errorf("the gate is told that %+v pushes", who)
	}
}

// A negotiation of several rounds, in which a stateless client repeats itself.
func TestWebNegotiation(t *testing.T) {
	s := newSite(t)
	src := s.repo("admin")
	for i := range 3 {
		src.commit(fmt.Sprint("shared ", i), map[string]string{"f": fmt.Sprint(i)})
	}
	src.git("push", "-q", s.url("l"), "main")
	secret := s.token("user", "")
	for _, version := range []string{"0", "1", "2"} {
		c := s.from(s.webURL(secret, "l"), "-c", "protocol.version="+version)
		c.git("checkout", "-q", "-b", "mine")
		// Far more commits of its own than go into one round of haves.
		var b strings.Builder
		for i := range 600 {
			fmt.Fprintf(&b, "commit refs/heads/mine\ncommitter C <c@x> %d +0000\ndata 2\n%d\n", 1_800_000_000+i, i%10)
			if i == 0 {
				b.WriteString("from refs/heads/mine^0\n")
			}
		}
		imp := c.command("fast-import", "--quiet", "--force")
		imp.Stdin = strings.NewReader(b.String())
		if out, err := imp.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		src.commit("news", map[string]string{"f": "news " + version})
		src.git("push", "-q", s.url("l"), "main")
		out, err := c.try("-c", "protocol.version="+version, "fetch", "--progress", "origin", "main")
		if err != nil {
			t.Fatalf("v%s: %v\n%s", version, err, out)
		}
		if c.git("rev-parse", "FETCH_HEAD") != src.git("rev-parse", "main") {
			t.Errorf("v%s: fetched something else", version)
		}
		if !strings.Contains(out, "Total 3 ") {
			t.Errorf("v%s: more than the news was sent:\n%s", version, out)
		}
	}
}

// What the gate says arrives while it says it, and the gate is told everything.
func TestWebPush(t *testing.T) {
	s := newSite(t)
	src := s.pushedLake("flights")
	secret := s.token("user", "")
	c := s.from(s.webURL(secret, "flights"))
	c.commit("next", map[string]string{"x": "y"})
	goOn := make(chan struct{})
	s.gate.before = func(_ context.Context, p *hooks.Push) {
		fmt.Fprintln(p.Progress, "headgate: the first word")
		<-goOn
	}
	push := c.command("push", "--progress", "-o", "run", "-o", "param.day=1", "origin", "HEAD:refs/heads/a", "HEAD:refs/heads/b", "--atomic")
	said, err := push.StderrPipe()
	check(t, err)
	check(t, push.Start())
	var heard bytes.Buffer
	buf := make([]byte, 1024)
	for !strings.Contains(heard.String(), "remote: headgate: the first word") {
		n, err := said.Read(buf)
		heard.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v before the gate's word was heard: %s", err, heard.String())
		}
	}
	close(goOn) // had the words waited for the end, there would be none
	_, _ = io.Copy(&heard, said)
	if err := push.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, heard.String())
	}
	p := s.gate.last(t)
	if fmt.Sprint(p.Options) != "[run param.day=1]" || !p.Atomic || len(p.Updates) != 2 || p.Who.Name != "ada" || p.Who.Admin {
		t.Errorf("the gate saw %+v by %+v", p.Options, p.Who)
	}
	s.gate.before = nil
	// Pushes of every size, in one piece and chunked, with a question whether to go on.
	for i, args := range [][]string{
		{"-c", "http.postBuffer=1024"}, {"-c", "http.postBuffer=100000000"}, {"-c", "http.postBuffer=1024", "-c", "http.version=HTTP/1.1", "-c", "http.extraHeader=Expect: 100-continue"},
	} {
		c.commit("large", map[string]string{"tables/t/p": strings.Repeat(fmt.Sprint("row ", i, "\n"), 400_000), "small": fmt.Sprint(i)})
		c.git(append(args, "-c", "core.compression=0", "push", "-q", "origin", "HEAD:refs/heads/large")...)
		if got := src.git("ls-remote", s.url("flights"), "large"); !strings.HasPrefix(got, c.git("rev-parse", "HEAD")) {
			t.Errorf("push %d: %s", i, got)
		}
	}
	// A refusal has its reasons, as over SSH.
	c.refused("non-fast-forward", "push", "origin", "HEAD~2:refs/heads/large")
	c.refused("only the server writes this ref", "push", "origin", "HEAD:refs/runs/x")
	s.from(s.webURL(secret, "flights"), "-b", "large").fsck()
}

// A pusher who leaves stops nothing.
func TestWebPusherLeaves(t *testing.T) {
	s := newSite(t)
	s.pushedLake("flights")
	c := s.from(s.webURL(s.token("user", ""), "flights"))
	oid := c.commit("next", map[string]string{"x": "y"})
	begun, goOn := make(chan struct{}), make(chan struct{})
	s.gate.before = func(ctx context.Context, p *hooks.Push) {
		fmt.Fprintln(p.Progress, "begun")
		close(begun)
		<-goOn
		if ctx.Err() != nil {
			t.Errorf("the push ended with its pusher: %v", ctx.Err())
		}
	}
	push := c.command("push", "-q", "origin", "HEAD:refs/heads/next")
	check(t, push.Start())
	<-begun
	check(t, exec.Command("pkill", "-P", fmt.Sprint(push.Process.Pid)).Run()) // git-remote-http, which has the connection
	_ = push.Process.Kill()
	_ = push.Wait()
	close(goOn)
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if strings.HasPrefix(c.git("ls-remote", s.url("flights"), "next"), oid) {
			return
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("the push was not carried out")
		}
	}
}

// What tokens may and may not do.
func TestWebTokens(t *testing.T) {
	s := newSite(t)
	src := s.pushedLake("flights")
	src.git("push", "-q", s.url("other"), "main")
	all, reads, one := s.token("user", "--name all"), s.token("user", "--read-only --expires never --name reads"), s.token("user", "--lake flights --expires 4w --name one")
	brief := s.token("user", "--expires 1s")

	c := s.repo("user")
	c.commit("x", map[string]string{"x": "y"})
	for _, secret := range []string{all, reads, one} {
		c.git("ls-remote", s.webURL(secret, "flights"))
	}
	c.git("push", "-q", s.webURL(all, "flights"), "HEAD:refs/heads/a")
	c.git("push", "-q", s.webURL(one, "flights"), "HEAD:refs/heads/b")
	c.refused("this token only reads", "push", s.webURL(reads, "flights"), "HEAD:refs/heads/c")
	c.refused("this token is for lake \"flights\" and no other", "ls-remote", s.webURL(one, "other"))
	// What is there and what is not are one to who may see neither.
	there, absent := s.ask("GET", "/other/info/refs?service=git-upload-pack", one, ""), s.ask("GET", "/absent/info/refs?service=git-upload-pack", one, "")
	if there.status != 403 || absent.status != 403 || there.body != absent.body {
		t.Errorf("outside of its lake: %d %q, %d %q", there.status, there.body, absent.status, absent.body)
	}
	// A token that only reads is refused where it pushes, too, whatever went before.
	got := s.ask("POST", "/flights/git-receive-pack", reads, "0000", "Content-Type", "application/x-git-receive-pack-request")
	if got.status != 403 {
		t.Errorf("a push without asking first: %d %s", got.status, got.body)
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if out, err := c.try("ls-remote", s.webURL(brief, "flights")); err != nil {
			if !strings.Contains(out, "this token has expired on 20") || !strings.Contains(out, "Authentication failed") {
				t.Errorf("expired: %s", out)
			}
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("a token of one second lives on")
		}
	}

	// What is known of them, without themselves.
	out, _, _ := s.ssh("user", "token ls")
	for _, want := range []string{"reads", "read", "flights", "expired", "ada", "never", time.Now().UTC().Format("2006-01-02")} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "hgt_") {
		t.Error("the list has tokens in it")
	}
	var list []struct{ ID, Name, User, Key, State, Used string }
	out, _, _ = s.ssh("user", "token ls --json")
	check(t, json.Unmarshal([]byte(out), &list))
	if len(list) != 4 || list[0].Name != "all" || list[0].State != "valid" || list[0].Used == "" || list[3].State != "expired" || !strings.HasPrefix(list[0].Key, "SHA256:") {
		t.Errorf("%+v", list)
	}
	// Others see and revoke their own, an administrator everybody's.
	if out, _, _ := s.ssh("admin", "token ls"); out != "no tokens\n" {
		t.Errorf("the administrator has %q", out)
	}
	if out, _, _ := s.ssh("admin", "token ls --all"); !strings.Contains(out, list[0].ID) {
		t.Errorf("all: %q", out)
	}
	if _, errText, code := s.ssh("user", "token ls --all"); code != 1 || !strings.Contains(errText, "for administrators") {
		t.Errorf("exit %d, %s", code, errText)
	}
	admins := s.token("admin", "--name adm")
	if _, errText, code := s.ssh("user", "token revoke adm"); code != 1 || !strings.Contains(errText, "you have no token") {
		t.Errorf("another's token: exit %d, %s", code, errText)
	}
	if _, errText, code := s.ssh("user", "token revoke "+all); code != 2 || strings.Contains(errText+s.log.String(), all) {
		t.Errorf("the token itself: exit %d, %s", code, errText)
	}
	if _, errText, code := s.ssh("user", "token revoke all"); code != 0 {
		t.Errorf("by name: exit %d, %s", code, errText)
	}
	c.refused("no token of this server, or it was revoked", "ls-remote", s.webURL(all, "flights"))
	if _, errText, code := s.ssh("admin", "token revoke "+list[2].ID); code != 0 {
		t.Errorf("by an administrator: exit %d, %s", code, errText)
	}
	c.refused("was revoked", "ls-remote", s.webURL(one, "flights"))

	// It ends with the key, and is as good as the key again.
	keys := readFile(t, s.keyFile)
	_, adas, _ := strings.Cut(keys, "\n")
	s.write(s.keyFile, strings.Replace(keys, adas, "", 1))
	c.refused("key that made this token is not authorized any more", "ls-remote", s.webURL(reads, "flights"))
	if out, _, _ := s.ssh("admin", "token ls --all"); !strings.Contains(out, "key removed") {
		t.Errorf("of a key that is gone: %s", out)
	}
	s.write(s.keyFile, strings.Replace(keys, adas, "user=\"eve\" "+adas, 1))
	c.git("ls-remote", s.webURL(reads, "flights"))
	if out, _, _ := s.ssh("admin", "token ls --all"); !strings.Contains(out, "eve") {
		t.Errorf("of a key that is another's: %s", out)
	}
	// An administrator no more is one no more by token either.
	s.write(s.keyFile, strings.Replace(keys, ",admin", "", 1))
	c.refused("does not exist", "push", s.webURL(admins, "brandnew"), "HEAD:main")

	for line, want := range map[string]string{
		"token create --expires 0d": "is not a time", "token create --expires soon": "is not a time", "token create --expires -1h": "is not a time",
		"token create --expires 999w": "more than ten years", "token create --lake ../x": "is not a lake name", "token create --lake nowhere": "does not exist",
		"token create --name 'a b'": "is not a name", "token create --name reads": "already", "token create extra": "takes no arguments",
	} {
		if out, errText, code := s.ssh("user", line); code == 0 || out != "" || !strings.Contains(errText, want) {
			t.Errorf("%s: exit %d, %q %q", line, code, out, errText)
		}
	}
}

// How a token may be given.
func TestWebCredentials(t *testing.T) {
	s := newSite(t)
	s.pushedLake("flights")
	secret := s.token("user", "")
	const path = "/flights/info/refs?service=git-upload-pack"
	// A helper of git's, as for any other server.
	c := s.repo("user")
	store := filepath.Join(c.home, "credentials")
	s.write(store, strings.Replace(s.web, "://", "://git:"+secret+"@", 1)+"\n")
	c.git("-c", "credential.helper=store --file="+store, "ls-remote", s.web+"/flights")
	c.refused("could not read Username", "ls-remote", s.web+"/flights") // it asks

	host := byte(2)
	basic := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	for name, tt := range map[string]struct {
		header []string
		status int
	}{
		"nothing":             {nil, 401},
		"bearer":              {[]string{"Authorization", "Bearer " + secret}, 200},
		"bearer, lower case":  {[]string{"Authorization", "bearer " + secret}, 200},
		"no user name":        {[]string{"Authorization", basic(":" + secret)}, 200},
		"as the user name":    {[]string{"Authorization", basic(secret + ":")}, 401},
		"twice":               {[]string{"Authorization", basic("x:" + secret), "Authorization", basic("x:" + secret)}, 401},
		"no base64":           {[]string{"Authorization", "Basic " + secret}, 401},
		"another scheme":      {[]string{"Authorization", "Digest " + secret}, 401},
		"empty":               {[]string{"Authorization", ""}, 401},
		"of another form":     {[]string{"Authorization", basic("x:password")}, 401},
		"of the same form":    {[]string{"Authorization", basic("x:" + strings.Repeat("0", 4) + secret[4:])}, 401},
		"with more behind it": {[]string{"Authorization", basic("x:" + secret + "\x00")}, 401},
	} {
		host++
		got := s.askFrom(host, "GET", path, "", "", tt.header...)
		if got.status != tt.status {
			t.Errorf("%s: %d %s, want %d", name, got.status, got.body, tt.status)
		}
		if challenge := got.header.Get("WWW-Authenticate"); (got.status == 401) != strings.HasPrefix(challenge, `Basic realm="headgate"`) {
			t.Errorf("%s: status %d with challenge %q", name, got.status, challenge)
		}
	}
	// To a stranger every lake is the same, those that are not there included.
	for _, lake := range []string{"flights", "absent", "team/absent.git", "..", "UPPER", "healthz"} {
		got := s.ask("GET", "/"+lake+"/info/refs?service=git-receive-pack", "", "")
		if got.status != 401 || strings.Contains(got.body, lake) {
			t.Errorf("%s: %d %s", lake, got.status, got.body)
		}
	}
	// Whoever has a wrong token waits; a right one from the same address does not.
	for range 4 {
		s.ask("GET", path, "wrong", "")
	}
	slow := make(chan answer, 20)
	for range cap(slow) {
		go func() { slow <- s.ask("GET", path, "wrong", "") }()
	}
	start, full := time.Now(), 0
	if got := s.ask("GET", path, secret, ""); got.status != 200 || time.Since(start) > 5*time.Second {
		t.Errorf("a right token: %d after %v", got.status, time.Since(start))
	}
	for range cap(slow) {
		if got := <-slow; got.status == 429 && got.header.Get("Retry-After") != "" {
			full++
		} else if got.status != 401 {
			t.Errorf("a wrong token: %d", got.status)
		}
	}
	if full != cap(slow)-4 {
		t.Errorf("%d of %d are told to come back later", full, cap(slow))
	}
	if strings.Contains(s.log.String(), secret) {
		t.Error("the log has a token in it")
	}
}

// Requests that git would not make.
func TestWebBadRequests(t *testing.T) {
	s := newSite(t)
	src := s.pushedLake("flights")
	secret := s.token("user", "")
	tip := src.git("rev-parse", "main")
	const upload, receive = "application/x-git-upload-pack-request", "application/x-git-receive-pack-request"
	zip := func(text string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, text)
		check(t, z.Close())
		return b.String()
	}
	clone := fmt.Sprintf("0032want %s\n00000009done\n", tip)
	tests := []struct {
		name, method, path, body string
		status                   int
		text                     string
		header                   []string
	}{
		{"dumb", "GET", "/flights.git/info/refs", "", 403, "smart HTTP", nil},
		{"two services", "GET", "/flights/info/refs?service=git-upload-pack&service=git-receive-pack", "", 403, "smart HTTP", nil},
		{"a service of its own", "GET", "/flights/info/refs?service=git-shell", "", 403, "smart HTTP", nil},
		{"archive, asked of as no git does", "GET", "/flights/info/refs?service=git-upload-archive", "", 403, "smart HTTP", nil},
		{"archive", "POST", "/flights/git-upload-archive", "001aargument --format=tar\n0012argument main\n0000", 200, "0008ACK\n0000", []string{"Content-Type", "application/x-git-upload-archive-request"}},
		{"archive of nothing", "POST", "/flights/git-upload-archive", "0014argument absent\n0000", 200, "NACK", []string{"Content-Type", "application/x-git-upload-archive-request"}},
		{"HEAD file", "GET", "/flights.git/HEAD", "", 403, "smart HTTP", nil},
		{"loose object", "GET", "/flights.git/objects/" + tip[:2] + "/" + tip[2:], "", 403, "smart HTTP", nil},
		{"lfs", "POST", "/flights.git/info/lfs/objects/batch", "{}", 404, "git lfs is not offered", nil},
		{"nothing", "GET", "/", "", 404, "nothing here", nil},
		{"config", "GET", "/flights.git/config", "", 404, "nothing here", nil},
		{"twice a slash", "GET", "//flights/info/refs?service=git-upload-pack", "", 404, "nothing here", nil},
		{"slashes within", "GET", "/team//flights/info/refs?service=git-upload-pack", "", 404, "is not a lake name", nil},
		{"up", "GET", "/x/../flights/info/refs?service=git-upload-pack", "", 404, "is not a lake name", nil},
		{"up, escaped", "GET", "/..%2fflights/info/refs?service=git-upload-pack", "", 404, "nothing here", nil},
		{"an escaped name", "GET", "/fl%69ghts/info/refs?service=git-upload-pack", "", 404, "nothing here", nil},
		{"absent", "GET", "/absent/info/refs?service=git-upload-pack", "", 404, "does not exist", nil},
		{"absent, to push", "GET", "/absent/info/refs?service=git-receive-pack", "", 404, "ask an administrator", nil},
		{"method", "POST", "/flights/info/refs?service=git-upload-pack", "", 405, "only GET", nil},
		{"method of a service", "GET", "/flights/git-upload-pack", "", 405, "only POST", nil},
		{"method of health", "POST", "/healthz", "", 405, "only GET", nil},
		{"content type", "POST", "/flights/git-upload-pack", clone, 415, "content type", []string{"Content-Type", "text/plain"}},
		{"content type of the other", "POST", "/flights/git-upload-pack", clone, 415, "content type", []string{"Content-Type", receive}},
		{"no content type", "POST", "/flights/git-receive-pack", "0000", 415, "content type", nil},
		{"encoding", "POST", "/flights/git-upload-pack", clone, 415, "content encoding", []string{"Content-Type", upload, "Content-Encoding", "br"}},
		{"no gzip", "POST", "/flights/git-upload-pack", clone, 400, "not gzip", []string{"Content-Type", upload, "Content-Encoding", "gzip"}},
		{"gzip cut short", "POST", "/flights/git-upload-pack", zip(clone)[:20], 400, "ends too early", []string{"Content-Type", upload, "Content-Encoding", "gzip"}},
		{"gzip, then not", "POST", "/flights/git-upload-pack", zip("0032want") + "more, and more", 400, "not gzip", []string{"Content-Type", upload, "Content-Encoding", "gzip"}},
		{"bomb to fetch", "POST", "/flights/git-upload-pack", zip(strings.Repeat("0032want "+tip+"\n", 200_000)), 413, "inflates to more", []string{"Content-Type", upload, "Content-Encoding", "gzip"}},
		{"bomb to push", "POST", "/flights/git-receive-pack", zip(fmt.Sprintf("0063%040d %s refs/heads/x\x000000", 0, tip) + strings.Repeat("\x00", 30<<20)), 413, "inflates to more", []string{"Content-Type", receive, "Content-Encoding", "gzip"}},
		{"oversized", "POST", "/flights/git-upload-pack", strings.Repeat("0032want "+tip+"\n", 65<<20/50), 413, "more than", []string{"Content-Type", upload}},
		{"no packet", "POST", "/flights/git-upload-pack", "hello", 200, "ERR malformed packet line", []string{"Content-Type", upload}},
		{"cut short", "POST", "/flights/git-receive-pack", "00", 400, "may end too early", []string{"Content-Type", receive}},
		{"the probe before a large push", "POST", "/flights/git-receive-pack", "0000", 200, "", []string{"Content-Type", receive}},
		{"the probe before a large fetch", "POST", "/flights/git-upload-pack", "0000", 200, "", []string{"Content-Type", upload}},
		{"gzip", "POST", "/flights/git-upload-pack", zip(clone), 200, "0008NAK\nPACK", []string{"Content-Type", upload, "Content-Encoding", "gzip"}},
		{"x-gzip", "POST", "/flights/git-upload-pack", zip(clone), 200, "0008NAK\nPACK", []string{"Content-Type", upload, "Content-Encoding", "x-gzip"}},
		{"as it is", "POST", "/flights/git-upload-pack", clone, 200, "0008NAK\nPACK", []string{"Content-Type", upload}},
	}
	for _, tt := range tests {
		got := s.ask(tt.method, tt.path, secret, tt.body, tt.header...)
		if got.status != tt.status || !strings.Contains(got.body, tt.text) {
			t.Errorf("%s: %d %.200q, want %d with %q", tt.name, got.status, got.body, tt.status, tt.text)
		}
		if kind := got.header.Get("Content-Type"); tt.path != "/healthz" && got.status != 200 && kind != "text/plain; charset=utf-8" {
			t.Errorf("%s: content type %q: git does not show it", tt.name, kind)
		}
		if got.header.Get("Cache-Control") != "no-cache, max-age=0, must-revalidate" {
			t.Errorf("%s: may be cached: %v", tt.name, got.header)
		}
	}
	// The header of an answer is that of the protocol.
	for _, service := range []string{"upload", "receive"} {
		got := s.ask("GET", "/flights/info/refs?service=git-"+service+"-pack", secret, "")
		if got.header.Get("Content-Type") != "application/x-git-"+service+"-pack-advertisement" || !strings.HasPrefix(got.body, fmt.Sprintf("%04x# service=git-%s-pack\n0000", len(service)+24, service)) {
			t.Errorf("%s: %v %.60q", service, got.header, got.body)
		}
	}
	got := s.ask("GET", "/flights/info/refs?service=git-upload-pack", secret, "", "Git-Protocol", "version=2")
	if !strings.HasPrefix(got.body, "000eversion 2\n") {
		t.Errorf("v2: %.60q", got.body)
	}
	got = s.ask("POST", "/flights/git-upload-pack", secret, clone, "Content-Type", upload)
	if got.header.Get("Content-Type") != "application/x-git-upload-pack-result" {
		t.Errorf("a pack is %v", got.header)
	}
	if text := s.log.String(); strings.Contains(text, "panic") || strings.Contains(text, "git session failed") {
		t.Errorf("the log takes clients' faults for its own:\n%s", text)
	}
}

// A connection is kept after a request that was read, and never after one that was
// not: what is left of it would be taken for the next.
func TestWebConnectionsAreKept(t *testing.T) {
	s := newSite(t)
	src := s.pushedLake("flights")
	secret := s.token("user", "")
	clone := fmt.Sprintf("0032want %s\n00000009done\n", src.git("rev-parse", "main"))
	smuggled := "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, tt := range map[string]struct {
		kind, body string
		length     int
		status     string
		answers    int
	}{
		"answered": {"application/x-git-upload-pack-request", clone, len(clone), "200", 2},
		"refused":  {"text/plain", clone, len(clone), "415", 1},
		"cut off":  {"text/plain", "", 100, "415", 1}, // the next request stands where its body should be
	} {
		conn := s.raw(fmt.Sprintf("POST /flights/git-upload-pack HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s%s",
			secret, tt.kind, tt.length, tt.body, smuggled))
		check(t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
		got, _ := io.ReadAll(conn) // the kept one ends with the deadline
		if n := bytes.Count(got, []byte("HTTP/1.1 ")); n != tt.answers || !bytes.HasPrefix(got, []byte("HTTP/1.1 "+tt.status)) {
			t.Errorf("%s: %d answers, want %d beginning with %s: %.200q", name, n, tt.answers, tt.status, got)
		}
	}
}
