package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/server"
)

// authority is a certificate authority of a test's own.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate, for clients
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	a := &authority{t: t, file: filepath.Join(dir, "ca.pem")}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the test's authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	check(t, err)
	a.cert, err = x509.ParseCertificate(der)
	check(t, err)
	check(t, os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	return a
}

// issue writes a certificate for 127.0.0.1 and its key.
func (a *authority) issue(serial int64, certFile, keyFile string, until time.Time) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	check(a.t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	check(a.t, err)
	check(a.t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	check(a.t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

// Git over HTTPS, with HTTP/2 and without.
func TestWebTLS(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	ca.issue(1, certFile, keyFile, time.Now().Add(time.Hour))
	certificates, err := server.LoadCertificates(certFile, keyFile, slog.New(slog.DiscardHandler))
	check(t, err)
	s := newSiteTLS(t, certificates)
	src := s.pushedLake("flights")
	secret := s.token("user", "")
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		trust := []string{"-c", "http.sslCAInfo=" + ca.file, "-c", "http.version=" + version}
		c := s.from(s.webURL(secret, "flights"), trust...)
		c.fsck()
		c.commit("large", map[string]string{"tables/t/p": strings.Repeat("row "+version+"\n", 400_000)})
		for i, buffer := range []string{"1024", "100000000"} {
			c.git("-c", "http.postBuffer="+buffer, "push", "-q", "origin", fmt.Sprintf("HEAD:refs/heads/%c%d", version[5], i))
		}
		if got := src.git("ls-remote", s.url("flights"), string(version[5])+"1"); !strings.HasPrefix(got, c.git("rev-parse", "HEAD")) {
			t.Errorf("%s: pushed %s", version, got)
		}
	}
	src.refused("certificate", "ls-remote", s.webURL(secret, "flights")) // nobody whom it need trust

	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	addr := strings.TrimPrefix(s.web, "https://")
	if _, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	serial := func() int64 {
		conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots})
		check(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	until := func(want int64) {
		t.Helper()
		for start := time.Now(); serial() != want; time.Sleep(50 * time.Millisecond) {
			if time.Since(start) > 20*time.Second {
				t.Fatalf("certificate %d is not taken", want)
			}
		}
	}
	// A renewal is taken up; one that is half done, or junk, changes nothing.
	ca.issue(2, certFile, keyFile, time.Now().Add(time.Hour))
	until(2)
	ca.issue(3, filepath.Join(dir, "cert3"), filepath.Join(dir, "key3"), time.Now().Add(time.Hour))
	check(t, os.Rename(filepath.Join(dir, "cert3"), certFile))
	time.Sleep(1100 * time.Millisecond) // the server looks once a second
	if got := serial(); got != 2 {
		t.Errorf("with a key of another certificate: %d", got)
	}
	check(t, os.Rename(filepath.Join(dir, "key3"), keyFile))
	until(3)
	check(t, os.WriteFile(certFile, []byte("junk"), 0o644))
	time.Sleep(1100 * time.Millisecond)
	if got := serial(); got != 3 {
		t.Errorf("with junk: %d", got)
	}
	ca.issue(4, certFile, keyFile, time.Now().Add(time.Hour))
	until(4)
}

func TestLoadCertificatesRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	refused := func(what, why string) {
		t.Helper()
		if _, err := server.LoadCertificates(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("nothing there", "no such file")
	ca.issue(1, certFile, keyFile, time.Now().Add(-time.Hour))
	refused("expired", "it has expired")
	ca.issue(2, certFile, keyFile, time.Now().Add(time.Hour))
	check(t, os.Chmod(keyFile, 0o644))
	refused("a key for everybody", "chmod o=")
	check(t, os.Remove(keyFile))
	ca.issue(3, filepath.Join(dir, "other"), keyFile, time.Now().Add(time.Hour))
	refused("a key of another certificate", "private key does not match")
}

// raw opens a connection and sends text.
func (s *site) raw(text string) net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.web, "http://"))
	check(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, text)
	check(s.t, err)
	check(s.t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	return conn
}

// Clients that send little, or nothing, do not stay; those that wait for a long run do.
func TestWebTimeouts(t *testing.T) {
	const idle = 2 * time.Second
	s := newSite(t, func(cfg *server.Config) { cfg.IdleTimeout = idle; cfg.MaxConnections = 40; cfg.KeepAlive = time.Hour })
	src := s.pushedLake("flights")
	secret := s.token("user", "")
	auth := "Host: x\r\nAuthorization: Bearer " + secret + "\r\n"

	// The body of a request stops coming.
	conn := s.raw("POST /flights/git-upload-pack HTTP/1.1\r\n" + auth + "Content-Type: application/x-git-upload-pack-request\r\nContent-Length: 1000\r\n\r\n0032want")
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 408 ") || !strings.Contains(string(got), "nothing came for 2s") {
		t.Errorf("a body that stops: %v, %.300s", err, got)
	}
	// A header does not fit, or is none.
	for _, text := range []string{
		"GET /flights/info/refs?service=git-upload-pack HTTP/1.1\r\n" + auth + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
		"hello\r\n\r\n",
	} {
		got, _ := io.ReadAll(s.raw(text)) // a reset is an answer, too
		if strings.Contains(string(got), " 200 ") {
			t.Errorf("%.20q: %.100s", text, got)
		}
	}

	// A run that takes longer than any timeout.
	c := s.from(s.webURL(secret, "flights"))
	c.commit("next", map[string]string{"x": "y"})
	s.gate.before = nil
	s.gate.slow = 3 * idle
	c.git("push", "-q", "origin", "HEAD:refs/heads/next")
	s.gate.slow = 0

	// A clone whose client reads slowly, but does read.
	big := s.repo("admin")
	big.commit("big", map[string]string{"tables/t/p": strings.Repeat("0123456789abcdef", 3<<20)})
	big.git("-c", "core.compression=0", "-c", "core.bigFileThreshold=1m", "push", "-q", s.url("big"), "main")
	body := fmt.Sprintf("0032want %s\n00000009done\n", big.git("rev-parse", "main"))
	req, err := http.NewRequest("POST", s.web+"/big/git-upload-pack", strings.NewReader(body))
	check(t, err)
	req.SetBasicAuth("x", secret)
	req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	size, start := int64(0), time.Now()
	for time.Since(start) < 3*idle {
		n, err := io.CopyN(io.Discard, resp.Body, 64<<10)
		size += n
		check(t, err)
		time.Sleep(idle / 200)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if size += n; err != nil || size < 48<<20 {
		t.Errorf("a slow clone: %d bytes, %v", size, err)
	}

	// One that reads no more is let go, and its connection is free again.
	conn = s.raw(fmt.Sprintf("POST /big/git-upload-pack HTTP/1.1\r\n%sContent-Type: application/x-git-upload-pack-request\r\nContent-Length: %d\r\n\r\n%s", auth, len(body), body))
	time.Sleep(3 * idle)
	if n, err := io.Copy(io.Discard, conn); err == nil && n >= 48<<20 {
		t.Errorf("a client that did not read got all %d bytes", n)
	}

	// Connections beyond the limit are closed at once, and there is room again after.
	var held []net.Conn
	for range 60 {
		held = append(held, s.raw("GET /healthz HTTP/1.1\r\nHost: x\r\n"))
	}
	// No address has more than half of them.
	if got := s.askFrom(2, "GET", "/healthz", "", ""); got.status != 200 {
		t.Errorf("from another address: %d", got.status)
	}
	refused := 0
	for _, c := range held {
		check(t, c.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		if _, err := c.Read(make([]byte, 1)); err != nil && !os.IsTimeout(err) {
			refused++
		}
		c.Close()
	}
	if refused < 40 || refused > 50 {
		t.Errorf("%d of 60 connections were refused, with room for 20", refused)
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if _, err := src.try("ls-remote", s.webURL(secret, "flights")); err == nil {
			return
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("there is no room again")
		}
	}
}

// Draining answers git with a reason, lets what has begun end, and ends what does not.
func TestWebShutdown(t *testing.T) {
	s := newSite(t)
	s.pushedLake("flights")
	secret := s.token("user", "")
	c := s.from(s.webURL(secret, "flights"))
	oid := c.commit("next", map[string]string{"x": "y"})
	begun, goOn := make(chan struct{}), make(chan struct{})
	s.gate.before = blockUntil(begun, goOn)
	pushed := make(chan error, 1)
	go func() {
		out, err := c.try("push", "-q", "origin", "HEAD:refs/heads/next")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		pushed <- err
	}()
	<-begun
	ended := make(chan error, 1)
	go func() { ended <- s.server.Shutdown(t.Context()) }()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		got := s.ask("GET", "/flights/info/refs?service=git-upload-pack", secret, "")
		if got.status == 503 && strings.Contains(got.body, "shutting down") && got.header.Get("Retry-After") != "" {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatalf("while it drains: %d %s", got.status, got.body)
		}
	}
	close(goOn)
	if err := <-pushed; err != nil {
		t.Errorf("the push under way: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	l, err := s.lakes.Open(t.Context(), "flights")
	check(t, err)
	if got, err := l.Refs.Get(t.Context(), "refs/heads/next"); err != nil || got.String() != oid {
		t.Errorf("%v: %s, want %s", err, got, oid)
	}
}

// Without TLS, git is spoken on the loopback only.
func TestWebNeedsTLS(t *testing.T) {
	t.Run("off", func(t *testing.T) {
		s := newSite(t, func(cfg *server.Config) { cfg.HTTP, cfg.NoHTTP = "", "git over HTTP is off: give --tls-cert" })
		s.pushedLake("flights")
		secret := s.token("user", "")
		got := s.ask("GET", "/flights/info/refs?service=git-upload-pack", secret, "")
		if got.status != 403 || !strings.Contains(got.body, "give --tls-cert") || got.header.Get("WWW-Authenticate") != "" {
			t.Errorf("%d %s %v", got.status, got.body, got.header)
		}
		if got := s.ask("GET", "/healthz", "", ""); got.status != 200 {
			t.Errorf("health: %d", got.status)
		}
		if _, errText, _ := s.ssh("user", "token create"); !strings.Contains(errText, "takes no tokens: git over HTTP is off: give --tls-cert") {
			t.Errorf("whoever makes a token is not told: %s", errText)
		}
	})
	for addr, ok := range map[string]bool{"127.0.0.1:80": true, "127.8.8.8:80": true, "[::1]:80": true, "0.0.0.0:80": false, "[::]:80": false, "192.0.2.1:80": false, "[::ffff:127.0.0.1]:80": true} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		check(t, err)
		if err := server.HTTPAllowed(tcp, false); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
		if err := server.HTTPAllowed(tcp, true); err != nil {
			t.Errorf("%s with TLS: %v", addr, err)
		}
	}
}
