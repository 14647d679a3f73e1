package sandbox

import (
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	pb "gvisor.dev/gvisor/pkg/sentry/seccheck/points/points_go_proto"
)

// packet is an event as gVisor sends it.
func packet(tb testing.TB, kind pb.MessageType, dropped uint32, m proto.Message) []byte {
	tb.Helper()
	b := binary.NativeEndian.AppendUint16(nil, headerSize)
	b = binary.NativeEndian.AppendUint16(b, uint16(kind))
	b = binary.NativeEndian.AppendUint32(b, dropped)
	body, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return append(b, body...)
}

func newTrace() *trace {
	return &trace{done: make(chan struct{}), ended: make(chan struct{}), index: make(map[Violation]int), live: 1}
}

func TestLostEventsAreAnError(t *testing.T) {
	tr := newTrace()
	if err := tr.event(packet(t, pb.MessageType_MESSAGE_SYSCALL_CONNECT, 0, &pb.Connect{})); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := tr.verdict(); err != nil {
		t.Error(err)
	}
	if err := tr.event(packet(t, pb.MessageType_MESSAGE_SENTRY_CLONE, 3, &pb.CloneInfo{})); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := tr.verdict(); err == nil || !strings.Contains(err.Error(), "3 events were lost") {
		t.Errorf("%v", err)
	}
}

func TestEndIsWhenTheLastTaskIsGone(t *testing.T) {
	tr := newTrace()
	send := func(kind pb.MessageType, m proto.Message) {
		t.Helper()
		if err := tr.event(packet(t, kind, 0, m)); err != nil {
			t.Fatal(err)
		}
	}
	exit := func(tid, status int32) {
		send(pb.MessageType_MESSAGE_SENTRY_TASK_EXIT, &pb.TaskExit{ExitStatus: status, ContextData: &pb.ContextData{ThreadId: tid}})
	}
	send(pb.MessageType_MESSAGE_SENTRY_CLONE, &pb.CloneInfo{})
	exit(1, 7<<8)
	if tr.hasEnded() {
		t.Error("ended with a task left")
	}
	exit(2, 0)
	if _, status, exited, err := tr.verdict(); !tr.hasEnded() || !exited || status.ExitStatus() != 7 || err != nil {
		t.Errorf("status %v, exited %t, %v", status, exited, err)
	}
	// More exits than tasks would be a bug of gVisor's, not a crash of ours.
	exit(3, 0)
	for range 2 {
		send(pb.MessageType_MESSAGE_SENTRY_CLONE, &pb.CloneInfo{})
	}
	exit(4, 0)
}

func TestAddress(t *testing.T) {
	family := func(f uint16, rest ...byte) []byte { return append(binary.NativeEndian.AppendUint16(nil, f), rest...) }
	for _, c := range []struct {
		in   []byte
		want string
	}{
		{family(unix.AF_INET, 1, 187, 1, 1, 1, 1, 0, 0), "1.1.1.1:443"},
		{family(unix.AF_INET, 0, 53, 127, 0, 0, 1), "127.0.0.1:53 (name lookup)"},
		{family(unix.AF_INET6, append(append([]byte{0, 80, 0, 0, 0, 0}, make([]byte, 15)...), 1)...), "[::1]:80"},
		{family(unix.AF_INET6, append(append([]byte{0, 80, 0, 0, 0, 0}, make([]byte, 10)...), 255, 255, 9, 9, 9, 9)...), "9.9.9.9:80"},
		{family(unix.AF_UNIX, []byte("/run/x\x00\x00")...), "unix:/run/x"},
		{family(unix.AF_UNIX, []byte("\x00abs")...), "unix:@abs"},
		{family(unix.AF_INET, 1, 2), "an address of family 2"},
		{family(unix.AF_NETLINK), "an address of family 16"},
		{nil, "an invalid address"},
	} {
		if got := address(c.in); got != c.want {
			t.Errorf("%v: %q, want %q", c.in, got, c.want)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		path string
		argv []string
		want string
	}{
		{"/usr/bin/pip", []string{"pip", "install", "x"}, "pip install x"},
		{"/bin/pip", []string{"pip", "install", "x"}, "pip install x"},
		{"/bin/sh", nil, "/bin/sh"},
		{"/bin/busybox", []string{"wget"}, "/bin/busybox wget"},
	} {
		if got := command(c.path, c.argv); got != c.want {
			t.Errorf("%s %q: %q, want %q", c.path, c.argv, got, c.want)
		}
	}
}

func TestAttempts(t *testing.T) {
	refused := func(e unix.Errno) *pb.Exit { return &pb.Exit{Result: -1, Errorno: int64(e)} }
	netlink := binary.NativeEndian.AppendUint16(nil, unix.AF_NETLINK)
	inet := append(binary.NativeEndian.AppendUint16(nil, unix.AF_INET), 0, 9, 8, 8, 8, 8)
	for _, c := range []struct {
		kind pb.MessageType
		m    proto.Message
		want string // "kind detail", or "" if it is no attempt
	}{
		{pb.MessageType_MESSAGE_SYSCALL_OPEN, &pb.Open{Sysno: unix.SYS_UNLINK, Pathname: "/in/x", Flags: unix.O_WRONLY, Exit: refused(unix.EROFS)}, "write /in/x"},
		{pb.MessageType_MESSAGE_SYSCALL_OPEN, &pb.Open{Sysno: unix.SYS_UNLINK, Pathname: "/tmp/x", Flags: unix.O_WRONLY, Exit: refused(unix.ENOENT)}, ""},
		{pb.MessageType_MESSAGE_SYSCALL_OPEN, &pb.Open{Sysno: unix.SYS_OPENAT, Pathname: "/in/x", Exit: refused(unix.EACCES)}, ""},
		{pb.MessageType_MESSAGE_SYSCALL_OPEN, &pb.Open{Sysno: unix.SYS_MKDIR, Pathname: "/tmp/x", Flags: unix.O_WRONLY, Exit: refused(0)}, ""},
		{pb.MessageType_MESSAGE_SYSCALL_CONNECT, &pb.Connect{Sysno: unix.SYS_CONNECT, Address: inet}, "connect 8.8.8.8:9"},
		{pb.MessageType_MESSAGE_SYSCALL_CONNECT, &pb.Connect{Sysno: unix.SYS_SENDMSG, Address: inet}, "sendto 8.8.8.8:9"},
		{pb.MessageType_MESSAGE_SYSCALL_CONNECT, &pb.Connect{Sysno: unix.SYS_SENDTO}, ""},
		{pb.MessageType_MESSAGE_SYSCALL_CONNECT, &pb.Connect{Sysno: unix.SYS_SENDTO, Address: netlink}, ""},
		{pb.MessageType_MESSAGE_SYSCALL_SOCKET, &pb.Socket{Domain: unix.AF_INET, Type: unix.SOCK_RAW | unix.SOCK_CLOEXEC, Exit: refused(unix.EPERM)}, "socket raw IPv4 socket"},
		{pb.MessageType_MESSAGE_SYSCALL_SOCKET, &pb.Socket{Domain: unix.AF_VSOCK, Type: unix.SOCK_STREAM, Exit: refused(unix.EPERM)}, "socket family 40 socket"},
		{pb.MessageType_MESSAGE_SYSCALL_SOCKET, &pb.Socket{Domain: unix.AF_VSOCK, Type: unix.SOCK_STREAM, Exit: refused(unix.EAFNOSUPPORT)}, ""},
		{pb.MessageType_MESSAGE_SYSCALL_EXECVE, &pb.Execve{Sysno: unix.SYS_EXECVEAT, FdPath: "/memfd:x", Argv: []string{"innocent"}}, "exec /memfd:x innocent"},
		{pb.MessageType_MESSAGE_SYSCALL_EXECVE, &pb.Execve{Sysno: unix.SYS_EXECVEAT, FdPath: "/usr/bin", Pathname: "sh", Argv: []string{"sh"}}, "exec sh"},
		{pb.MessageType_MESSAGE_SYSCALL_RAW, &pb.Syscall{Sysno: unix.SYS_PTRACE, Exit: refused(unix.EPERM)}, "syscall ptrace"},
		{pb.MessageType_MESSAGE_SYSCALL_RAW, &pb.Syscall{Sysno: unix.SYS_CLONE, Arg1: unix.CLONE_NEWUSER | uint64(unix.SIGCHLD), Exit: refused(unix.EPERM)}, "syscall clone of namespaces"},
		{pb.MessageType_MESSAGE_SYSCALL_RAW, &pb.Syscall{Sysno: unix.SYS_CLONE, Arg1: unix.CLONE_VM | uint64(unix.SIGCHLD), Exit: refused(0)}, ""},
		{pb.MessageType_MESSAGE_SYSCALL_RAW, &pb.Syscall{Sysno: unix.SYS_READ, Exit: refused(0)}, ""},
	} {
		tr := newTrace()
		if err := tr.event(packet(t, c.kind, 0, c.m)); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, v := range tr.violations {
			got += v.Kind + " " + v.Detail
		}
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.m, got, c.want)
		}
	}
}

// Bytes that are no text do not grow when they are made one.
func TestDetailIsBounded(t *testing.T) {
	for _, text := range []string{
		"/short", strings.Repeat("\xff", 5000), strings.Repeat("x", maxDetail+1), strings.Repeat("\u00e9", maxDetail), strings.Repeat("\U0001f525", 60), "\ufffd\x00\xc3",
	} {
		tr := newTrace()
		tr.add(ViolationWrite, text)
		got := tr.violations[0].Detail
		if len(got) > maxDetail || !utf8.ValidString(got) || strings.ContainsRune(got, utf8.RuneError) || len(text) < maxDetail && len(got) > len(text) {
			t.Errorf("%d bytes became %d: %q", len(text), len(got), got)
		}
	}
}

func TestTraceHandshake(t *testing.T) {
	for _, c := range []struct {
		name  string
		hello []byte
		want  string
	}{
		{"version 0", []byte{}, "version 0"},
		{"garbage", []byte{0xff, 0xff}, "handshake"},
	} {
		dir := t.TempDir()
		tr, err := listenTrace(dir)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("unixpacket", filepath.Join(dir, traceSocket))
		if err != nil {
			t.Fatal(err)
		}
		if len(c.hello) == 0 {
			b, _ := proto.Marshal(&pb.Handshake{})
			c.hello = append(b, 0x50, 0) // an unknown field: an empty packet is end of file
		}
		if _, err := conn.Write(c.hello); err != nil {
			t.Fatal(err)
		}
		<-tr.done
		_ = conn.Close()
		if _, _, _, err := tr.verdict(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzTraceEvent(f *testing.F) {
	f.Add(packet(f, pb.MessageType_MESSAGE_SYSCALL_CONNECT, 0, &pb.Connect{Address: []byte{2, 0, 1, 187, 1, 1, 1, 1}}))
	f.Add(packet(f, pb.MessageType_MESSAGE_SYSCALL_EXECVE, 1, &pb.Execve{Pathname: "/bin/sh", Argv: []string{"sh", "-c", "\x1b[2J"}}))
	f.Add(packet(f, pb.MessageType_MESSAGE_SYSCALL_OPEN, 0, &pb.Open{Pathname: "/etc/x", Flags: unix.O_WRONLY, Exit: &pb.Exit{Errorno: int64(unix.EROFS)}}))
	f.Add(packet(f, pb.MessageType_MESSAGE_SENTRY_TASK_EXIT, 0, &pb.TaskExit{ContextData: &pb.ContextData{ThreadId: 1}}))
	f.Add(packet(f, pb.MessageType_MESSAGE_SYSCALL_RAW, 0, &pb.Syscall{Sysno: unix.SYS_PTRACE, Exit: &pb.Exit{Errorno: int64(unix.EPERM)}}))
	f.Add(packet(f, pb.MessageType_MESSAGE_SYSCALL_CONNECT, 0, &pb.Connect{Sysno: unix.SYS_SENDTO, Address: []byte{10, 0, 0, 53, 0}}))
	f.Add(packet(f, pb.MessageType_MESSAGE_SYSCALL_EXECVE, 0, &pb.Execve{FdPath: "/memfd:x", Argv: []string{strings.Repeat("x", 9000)}}))
	f.Add(packet(f, pb.MessageType_MESSAGE_SYSCALL_SOCKET, 0, &pb.Socket{Domain: unix.AF_PACKET, Type: unix.SOCK_RAW, Exit: &pb.Exit{Errorno: int64(unix.EPERM)}}))
	f.Add([]byte{8, 0, 200})
	f.Fuzz(func(t *testing.T, b []byte) {
		tr := newTrace()
		for range 3 { // twice the same is one entry
			if tr.event(b) != nil {
				return
			}
		}
		v, _, _, _ := tr.verdict()
		if len(v) > 1 {
			t.Errorf("one event gave %v", v)
		}
		for _, x := range v {
			if len(x.Detail) > maxDetail || !utf8.ValidString(x.Detail) || strings.ContainsAny(x.Detail, "\x1b\n\r") {
				t.Errorf("detail %q", x.Detail)
			}
		}
	})
}
