package server

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
)

// OpenSSH's client asks for ChaCha20-Poly1305 first, and in SSH the client's
// order decides. Go has no vector code for ChaCha20 on amd64: 0.7 GB a second
// against 4 GB of AES-GCM, which the same client takes too. So the server reads
// which ciphers the client has before it says which it has itself, and offers
// AES-GCM alone to whom it can: decision 023.

const (
	// preferenceWait bounds the wait for a client that says nothing before it has
	// heard the server's own list. It then gets the library's order.
	preferenceWait = 2 * time.Second
	// maxVersionLine is RFC 4253's, section 4.2.
	maxVersionLine = 255
	// maxKexInit is above any client's list of algorithms: OpenSSH's has 1.5 KiB.
	maxKexInit = 16 << 10
	// readAhead spares system calls: the library reads a packet's length and its
	// body apart, through 4 KiB.
	readAhead = 64 << 10
)

// fast are ciphers that have instructions of their own where fastHere.
var fast = []string{gossh.CipherAES128GCM, gossh.CipherAES256GCM}

// fastHere reports whether this processor computes AES-GCM in hardware.
func fastHere() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.S390X.HasAESGCM
}

// preference is a connection of which the server has greeted the client and read
// the client's algorithms. The library's handshake runs on it as if neither had
// happened: its greeting is swallowed, what was read is read again.
type preference struct {
	net.Conn
	ciphers []string // to offer; nil is the library's choice

	in      *ahead
	greet   string
	greeted atomic.Bool // the library has
}

// prefer greets the client with version ("SSH-2.0-x") and returns within
// preferenceWait or at the connection's own deadline, whichever comes first. It
// fails only if nothing can be sent.
func prefer(conn net.Conn, version string, until time.Time) (*preference, error) {
	p := &preference{Conn: conn, in: &ahead{conn: conn}, greet: version + "\r\n"}
	if wait := time.Now().Add(preferenceWait); until.IsZero() || wait.Before(until) {
		until = wait
	}
	if err := conn.SetDeadline(until); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, p.greet); err != nil {
		return nil, err
	}
	defer p.in.rewind()
	if !fastHere() {
		return p, nil
	}
	// A client that is silent, or speaks something else, is the library's to judge.
	theirs, err := readCiphers(p.in)
	if err == nil && slices.ContainsFunc(fast, func(c string) bool { return slices.Contains(theirs, c) }) {
		p.ciphers = fast
	}
	return p, nil
}

// Read implements net.Conn.
func (p *preference) Read(b []byte) (int, error) { return p.in.Read(b) }

var errGreeting = errors.New("the SSH library greets with other words than the server did")

// Write implements net.Conn. The first write is the library's greeting, whole.
func (p *preference) Write(b []byte) (int, error) {
	if p.greeted.Load() {
		return p.Conn.Write(b)
	}
	if string(b) != p.greet {
		return 0, errGreeting
	}
	p.greeted.Store(true)
	return len(b), nil
}

// ahead reads a connection through a buffer. Until rewind it keeps what was read,
// of which there must be less than the buffer holds.
type ahead struct {
	conn       io.Reader
	buf        []byte
	begin, end int
	forgets    bool
}

// Read implements io.Reader.
func (a *ahead) Read(b []byte) (int, error) {
	if a.begin == a.end {
		if a.buf == nil {
			a.buf = make([]byte, readAhead)
		}
		if a.forgets {
			a.begin, a.end = 0, 0
		}
		n, err := a.conn.Read(a.buf[a.end:])
		a.end += n
		if n == 0 {
			return 0, err
		}
	}
	n := copy(b, a.buf[a.begin:a.end])
	a.begin += n
	return n, nil
}

// rewind makes everything be read once more.
func (a *ahead) rewind() { a.begin, a.forgets = 0, true }

var errKexInit = errors.New("not the beginning of an SSH client")

// readCiphers reads a client's version line and its SSH_MSG_KEXINIT, both in the
// clear, and returns the ciphers it has for what it sends, in its order: RFC 4253,
// sections 4.2, 6 and 7.1. It reads at most maxVersionLine and maxKexInit bytes.
func readCiphers(r io.Reader) ([]string, error) {
	var c [1]byte
	var line []byte
	for len(line) == 0 || line[len(line)-1] != '\n' {
		if len(line) == maxVersionLine {
			return nil, errKexInit
		}
		if _, err := io.ReadFull(r, c[:]); err != nil {
			return nil, err
		}
		line = append(line, c[0])
	}
	if !strings.HasPrefix(string(line), "SSH-2.0-") {
		return nil, errKexInit
	}
	var head [5]byte // packet_length, padding_length
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	length, padding := binary.BigEndian.Uint32(head[:]), uint32(head[4])
	const cookie = 16
	if length > maxKexInit || length < 1+padding+1+cookie {
		return nil, errKexInit
	}
	payload := make([]byte, length-1)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, err
	}
	payload = payload[:uint32(len(payload))-padding]
	const msgKexInit = 20
	if payload[0] != msgKexInit {
		return nil, errKexInit
	}
	payload = payload[1+cookie:]
	// kex_algorithms, server_host_key_algorithms, encryption_algorithms_client_to_server
	for list := 0; ; list++ {
		if len(payload) < 4 {
			return nil, errKexInit
		}
		n := binary.BigEndian.Uint32(payload)
		payload = payload[4:]
		if uint64(n) > uint64(len(payload)) {
			return nil, errKexInit
		}
		if list == 2 {
			return strings.Split(string(payload[:n]), ","), nil
		}
		payload = payload[n:]
	}
}
