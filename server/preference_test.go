package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// hello is a client's first bytes, with these ciphers.
func hello(version string, ciphers ...string) []byte {
	var p []byte
	p = append(p, 20)
	p = append(p, make([]byte, 16)...)
	for _, list := range []string{"curve25519-sha256", "ssh-ed25519", strings.Join(ciphers, ","), "none"} {
		p = binary.BigEndian.AppendUint32(p, uint32(len(list)))
		p = append(p, list...)
	}
	const padding = 7
	out := append([]byte(version), binary.BigEndian.AppendUint32(nil, uint32(1+len(p)+padding))...)
	out = append(append(out, padding), p...)
	return append(out, make([]byte, padding)...)
}

func TestReadCiphers(t *testing.T) {
	got, err := readCiphers(bytes.NewReader(hello("SSH-2.0-x\r\n", "a", "b")))
	if err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("ciphers %q, %v", got, err)
	}
	whole := hello("SSH-2.0-x\r\n", "a")
	long := bytes.Clone(whole)
	binary.BigEndian.PutUint32(long[len("SSH-2.0-x\r\n"):], maxKexInit+1)
	padded := bytes.Clone(whole)
	padded[len("SSH-2.0-x\r\n")+4] = 255
	for name, data := range map[string][]byte{
		"another protocol":         []byte("GET / HTTP/1.1\r\n\r\n"),
		"a line without an end":    bytes.Repeat([]byte("S"), 1000),
		"a packet too long":        long,
		"more padding than packet": padded,
		"another message":          append([]byte("SSH-2.0-x\n"), append([]byte{0, 0, 0, 30, 4}, make([]byte, 40)...)...),
		"cut off":                  whole[:len(whole)-12],
		"nothing":                  nil,
	} {
		if got, err := readCiphers(bytes.NewReader(data)); err == nil {
			t.Errorf("%s: ciphers %q", name, got)
		}
	}
}

func FuzzReadCiphers(f *testing.F) {
	f.Add(hello("SSH-2.0-x\r\n", gossh.CipherAES128GCM, gossh.CipherChaCha20Poly1305))
	f.Add([]byte("SSH-2.0-x\n\x00\x00\x00\x20\x04"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		list, err := readCiphers(r)
		if read := len(data) - r.Len(); read > maxVersionLine+4+maxKexInit {
			t.Errorf("%d bytes were read", read)
		}
		if err == nil && len(list) == 0 {
			t.Error("neither ciphers nor an error")
		}
	})
}

// TestPreferAES: whoever has AES-GCM gets it although it asks for another cipher
// first, and whoever has not is served all the same.
func TestPreferAES(t *testing.T) {
	for _, test := range []struct {
		theirs, want []string
	}{
		{[]string{gossh.CipherChaCha20Poly1305, gossh.CipherAES128CTR, gossh.CipherAES128GCM}, fast},
		{[]string{gossh.CipherChaCha20Poly1305, gossh.CipherAES256GCM}, fast},
		{[]string{gossh.CipherChaCha20Poly1305}, nil},
		{[]string{gossh.CipherAES128CTR, "aes128-cbc"}, nil},
	} {
		if !fastHere() {
			test.want = nil // nothing to prefer
		}
		server, client := pipe(t)
		go func() { _, _ = client.Write(hello("SSH-2.0-OpenSSH_9.2\r\n", test.theirs...)) }()
		p, err := prefer(server, "SSH-2.0-Headgate", time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(p.ciphers, test.want) {
			t.Errorf("to %q the server offers %q, want %q", test.theirs, p.ciphers, test.want)
		}
	}
}

// TestPreferIsNotSeen: on both sides the stream is as if the library had read and
// written it alone.
func TestPreferIsNotSeen(t *testing.T) {
	server, client := pipe(t)
	said := append(hello("SSH-2.0-x\r\n", gossh.CipherAES128GCM), bytes.Repeat([]byte("more"), 100_000)...)
	go func() {
		_, _ = client.Write(said)
		_ = client.(*net.TCPConn).CloseWrite()
	}()
	p, err := prefer(server, "SSH-2.0-Headgate", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(p); err != nil || !bytes.Equal(got, said) {
		t.Errorf("read %d bytes of %d, %v", len(got), len(said), err)
	}
	for _, text := range []string{"SSH-2.0-Headgate\r\n", "after", "wards"} {
		if n, err := io.WriteString(p, text); n != len(text) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	p.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "SSH-2.0-Headgate\r\nafterwards" {
		t.Errorf("the client read %q, %v", got, err)
	}
}

// TestPreferRefusesAnotherGreeting: a library that changes its mind must not make
// two greetings out of one.
func TestPreferRefusesAnotherGreeting(t *testing.T) {
	server, client := pipe(t)
	go func() { _, _ = client.Write(hello("SSH-2.0-x\r\n", "a")) }()
	p, err := prefer(server, "SSH-2.0-Headgate", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(p, "SSH-2.0-Other\r\n"); !errors.Is(err, errGreeting) {
		t.Errorf("err %v", err)
	}
}

// pipe is a TCP connection, which unlike net.Pipe has buffers.
func pipe(t *testing.T) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}
