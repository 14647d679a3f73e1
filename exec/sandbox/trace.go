package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	pb "gvisor.dev/gvisor/pkg/sentry/seccheck/points/points_go_proto"

	"github.com/headgate/headgate/exec/sandbox/attempt"
)

// Violation is something that a program tried and a sandbox does not give. The
// attempt failed; it is recorded so that people can see it.
type Violation struct {
	Kind   string // ViolationConnect ...
	Detail string // "1.1.1.1:443", "pip install x", "/etc/passwd"
	Count  int
}

// The kinds of violation.
const (
	ViolationConnect = "connect" // to an address, a name server or a unix socket
	ViolationSend    = "sendto"  // a datagram to an address, without a connect
	ViolationSocket  = "socket"  // a kind of socket that is not given: raw, packet
	ViolationExec    = "exec"    // of any program: the sandbox's own is started, not executed
	ViolationWrite   = "write"   // opening, making, renaming, removing or otherwise changing what may not be changed
	ViolationSyscall = "syscall" // a system call that only a privileged program has a use for
	ViolationMore    = "more"    // further ones that are not listed
)

const (
	// maxViolations bounds the list, and what an abusive program can make the
	// server remember.
	maxViolations = 100
	// maxDetail bounds one entry, in bytes.
	maxDetail = 200
	// maxEvent is larger than any datagram that a default socket buffer lets through.
	maxEvent = 512 << 10
)

// traceFile and traceSocket are in a sandbox's directory. gVisor connects from
// there: a relative name has no trouble with the 108 bytes of a socket address.
const (
	traceFile   = "trace.json"
	traceSocket = "trace.sock"
)

// ambient are attempts that the C library makes on its own when a program looks up
// a user or a host. Starts make none: neither the worker's nor those of CPython 3.9
// to 3.13, with numpy, pandas, polars, duckdb and pyarrow imported ahead.
var ambient = map[string]bool{
	"unix:/var/run/nscd/socket": true,
	"unix:/run/nscd/socket":     true,
}

// traceConfig is the session that gVisor opens before the program starts. If it
// cannot, the sandbox does not start.
func traceConfig() []byte {
	points := []seccheck.PointConfig{
		{Name: "sentry/clone"},
		{Name: "sentry/task_exit", ContextFields: []string{"thread_id"}},
	}
	for _, name := range attempt.Points() {
		p := seccheck.PointConfig{Name: name}
		if name == "syscall/execveat/enter" {
			p.OptionalFields = []string{"fd_path"} // what fexecve executes has no other name
		}
		points = append(points, p)
	}
	config := map[string]any{"trace_session": seccheck.SessionConfig{
		Name:   seccheck.DefaultSessionName,
		Points: points,
		Sinks: []seccheck.SinkConfig{{Name: attempt.Sink, Config: map[string]any{
			"endpoint": traceSocket,
			// A full socket makes the program wait for us (up to 10 ms a try)
			// rather than lose an event.
			"retries": 3000,
		}}},
	}}
	b, err := json.Marshal(config)
	if err != nil {
		panic(err) // a constant
	}
	return b
}

// trace receives what one sandbox's sentry says about the program inside.
type trace struct {
	listener *net.UnixListener
	done     chan struct{} // the connection has ended
	ended    chan struct{} // the program's last task has exited

	mu         sync.Mutex
	violations []Violation
	index      map[Violation]int // Count 0 -> position
	live       int               // tasks of the program
	exited     bool              // its first task has exited
	status     unix.WaitStatus   // of the first task
	dropped    uint32
	err        error
}

// listenTrace makes the socket that gVisor will connect to in dir.
func listenTrace(dir string) (*trace, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("trace socket: %w", err)
	}
	defer d.Close()
	name := filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), traceSocket)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: name, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("trace socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // its name is only valid while d is open
	t := &trace{
		listener: l,
		done:     make(chan struct{}),
		ended:    make(chan struct{}),
		index:    make(map[Violation]int),
		live:     1, // a sandbox's first task is not cloned
	}
	go t.serve()
	return t, nil
}

// close ends the trace if nobody has connected.
func (t *trace) close() { _ = t.listener.Close() }

func (t *trace) serve() {
	defer close(t.done)
	conn, err := t.listener.AcceptUnix()
	t.close()
	if err == nil {
		defer conn.Close()
		err = t.receive(conn)
	}
	if err != nil {
		t.mu.Lock()
		t.err = err
		t.mu.Unlock()
	}
}

func (t *trace) receive(conn *net.UnixConn) error {
	buf := make([]byte, maxEvent)
	n, err := conn.Read(buf)
	if err != nil {
		return fmt.Errorf("trace handshake: %w", err)
	}
	var hello pb.Handshake
	if err := proto.Unmarshal(buf[:n], &hello); err != nil {
		return fmt.Errorf("trace handshake: %w", err)
	}
	if hello.Version < 1 {
		return fmt.Errorf("trace handshake: version %d", hello.Version)
	}
	answer, err := proto.Marshal(&pb.Handshake{Version: 1})
	if err != nil {
		return fmt.Errorf("trace handshake: %w", err)
	}
	if _, err := conn.Write(answer); err != nil {
		return fmt.Errorf("trace handshake: %w", err)
	}
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("trace: %w", err)
		}
		if n == 0 { // how a packet socket says end of file
			return nil
		}
		if err := t.event(buf[:n]); err != nil {
			return err
		}
	}
}

// headerSize is that of gVisor's wire.Header: own size, type, dropped count.
const headerSize = 8

// event takes one packet.
func (t *trace) event(b []byte) error {
	if len(b) < headerSize {
		return fmt.Errorf("trace: event of %d bytes", len(b))
	}
	size := int(binary.NativeEndian.Uint16(b))
	kind := pb.MessageType(binary.NativeEndian.Uint16(b[2:]))
	dropped := binary.NativeEndian.Uint32(b[4:])
	if size < headerSize || size > len(b) {
		return fmt.Errorf("trace: event with a header of %d of %d bytes", size, len(b))
	}
	body := b[size:]
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped = max(t.dropped, dropped)
	var err error
	switch kind {
	case pb.MessageType_MESSAGE_SENTRY_CLONE:
		t.live++
	case pb.MessageType_MESSAGE_SENTRY_TASK_EXIT:
		var m pb.TaskExit
		if err = proto.Unmarshal(body, &m); err == nil {
			t.exit(&m)
		}
	case pb.MessageType_MESSAGE_SYSCALL_CONNECT:
		var m pb.Connect
		if err = proto.Unmarshal(body, &m); err == nil {
			t.connect(&m)
		}
	case pb.MessageType_MESSAGE_SYSCALL_SOCKET:
		var m pb.Socket
		if err = proto.Unmarshal(body, &m); err == nil && attempt.Socket(&m) {
			t.add(ViolationSocket, socketKind(&m))
		}
	case pb.MessageType_MESSAGE_SYSCALL_EXECVE:
		var m pb.Execve
		if err = proto.Unmarshal(body, &m); err == nil {
			t.add(ViolationExec, command(executablePath(&m), attempt.CutArgv(m.Argv)))
		}
	case pb.MessageType_MESSAGE_SYSCALL_OPEN:
		var m pb.Open
		if err = proto.Unmarshal(body, &m); err == nil && attempt.Write(&m) {
			t.add(ViolationWrite, m.Pathname)
		}
	case pb.MessageType_MESSAGE_SYSCALL_RAW:
		var m pb.Syscall
		if err = proto.Unmarshal(body, &m); err == nil {
			if name, ok := attempt.Privileged(&m); ok {
				t.add(ViolationSyscall, name)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("trace: event of type %s: %w", kind, err)
	}
	return nil
}

func (t *trace) exit(m *pb.TaskExit) {
	if m.GetContextData().GetThreadId() == 1 {
		t.exited = true
		t.status = unix.WaitStatus(m.ExitStatus)
	}
	if t.live--; t.live == 0 && !t.hasEnded() {
		close(t.ended)
	}
}

// add records an attempt. The caller holds t.mu.
func (t *trace) add(kind, detail string) {
	if ambient[detail] {
		return
	}
	v := Violation{Kind: kind, Detail: printable(detail)}
	i, ok := t.index[v]
	if !ok && len(t.violations) >= maxViolations-1 {
		v = Violation{Kind: ViolationMore, Detail: "further attempts"}
		i, ok = t.index[v]
	}
	if !ok {
		i = len(t.violations)
		t.index[v] = i
		t.violations = append(t.violations, v)
	}
	t.violations[i].Count++
}

func (t *trace) hasEnded() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

// verdict is what the trace can say at the end of a program.
func (t *trace) verdict() (violations []Violation, status unix.WaitStatus, exited bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.err != nil:
		err = t.err
	case t.dropped > 0:
		err = fmt.Errorf("trace: %d events were lost", t.dropped)
	}
	return append([]Violation(nil), t.violations...), t.status, t.exited, err
}

// connect takes a connect or a datagram's destination. Netlink is how the C
// library asks its own kernel for its own addresses.
func (t *trace) connect(m *pb.Connect) {
	switch {
	case !attempt.IsSend(m):
		t.add(ViolationConnect, address(m.Address))
	case len(m.Address) >= 2 && binary.NativeEndian.Uint16(m.Address) != unix.AF_NETLINK:
		t.add(ViolationSend, address(m.Address))
	}
}

// executablePath is what is executed: execveat may name a directory, or nothing
// but an open file.
func executablePath(m *pb.Execve) string {
	switch {
	case m.Pathname == "":
		return m.FdPath
	case m.FdPath == "" || path.IsAbs(m.Pathname):
		return m.Pathname
	}
	return path.Join(m.FdPath, m.Pathname)
}

// socketKind names a socket that was refused.
func socketKind(m *pb.Socket) string {
	family := map[int32]string{unix.AF_INET: "IPv4", unix.AF_INET6: "IPv6", unix.AF_PACKET: "packet", unix.AF_NETLINK: "netlink"}[m.Domain]
	if family == "" {
		family = fmt.Sprintf("family %d", m.Domain)
	}
	if m.Type&0xf == unix.SOCK_RAW {
		return "raw " + family + " socket"
	}
	return family + " socket"
}

// command renders an execve the way one types it.
func command(pathname string, argv []string) string {
	if len(argv) == 0 || path.Base(argv[0]) != path.Base(pathname) {
		return strings.Join(append([]string{pathname}, argv...), " ")
	}
	// By its own name: a search of PATH is one attempt, not one for each directory.
	return strings.Join(argv, " ")
}

// address renders a socket address.
func address(b []byte) string {
	if len(b) < 2 {
		return "an invalid address"
	}
	family := binary.NativeEndian.Uint16(b)
	host := func(ip netip.Addr, port uint16) string {
		s := netip.AddrPortFrom(ip.Unmap(), port).String()
		if port == 53 {
			s += " (name lookup)"
		}
		return s
	}
	switch {
	case family == unix.AF_INET && len(b) >= 8:
		return host(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
	case family == unix.AF_INET6 && len(b) >= 24:
		return host(netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[2:]))
	case family == unix.AF_UNIX:
		name := string(b[2:])
		if strings.HasPrefix(name, "\x00") {
			return "unix:@" + strings.TrimRight(name[1:], "\x00")
		}
		name, _, _ = strings.Cut(name, "\x00")
		return "unix:" + name
	}
	return fmt.Sprintf("an address of family %d", family)
}

// printable makes foreign text fit for one line of a terminal, in at most maxDetail bytes.
func printable(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail-3] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) { // the former takes three bytes for one
			return '?'
		}
		return r
	}, s)
}
