package runsc

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/fd"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	pb "gvisor.dev/gvisor/pkg/sentry/seccheck/points/points_go_proto"
	_ "gvisor.dev/gvisor/pkg/sentry/seccheck/sinks/remote" // registers the sink that ours wraps
	"gvisor.dev/gvisor/pkg/sentry/syscalls"
	slinux "gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"github.com/headgate/headgate/exec/sandbox/attempt"
)

// watch makes gVisor's monitoring see what it has no decoded trace points for:
// writes without an open, and where datagrams go to. It also adds the sink
// attempt.Sink. It must be called before any of gVisor's own code runs.
func watch(table *kernel.SyscallTable) {
	seccheck.Initialize()
	decode := func(c attempt.Call, f kernel.SyscallToProto) {
		call := table.Table[c.Number]
		call.PointCallback = f
		table.Table[c.Number] = call
		seccheck.Points[c.Point()] = seccheck.PointDesc{ID: seccheck.GetPointForSyscall(seccheck.SyscallExit, c.Number), Name: c.Point()}
	}
	for _, c := range attempt.Changes {
		decode(c, change(c))
	}
	for _, number := range attempt.Opens {
		call := table.Table[number]
		call.PointCallback = resolved(call.PointCallback)
		table.Table[number] = call
	}
	decode(attempt.Openat2, openat2)
	decode(attempt.Bind, bind)
	for _, c := range attempt.Sends {
		decode(c, send)
	}
	for name, number := range attempt.Newer() {
		table.Table[number] = syscalls.Error(name, linuxerr.ENOSYS, "", nil) // what is in no table is not traced
		seccheck.Points[name] = seccheck.PointDesc{ID: seccheck.GetPointForSyscall(seccheck.SyscallRawExit, number), Name: name}
	}

	remote := seccheck.Sinks["remote"]
	seccheck.RegisterSink(seccheck.SinkDesc{
		Name: attempt.Sink, Setup: remote.Setup,
		New: func(config map[string]any, endpoint *fd.FD) (seccheck.Sink, error) {
			s, err := remote.New(config, endpoint)
			if err != nil {
				return nil, err
			}
			return sink{s}, nil
		},
	})
}

// sink passes on attempts only. Most calls are none: dropped here they cost a
// comparison and not a packet.
type sink struct{ seccheck.Sink }

// Name implements seccheck.Sink.
func (sink) Name() string { return attempt.Sink }

// Syscall implements seccheck.Sink.
func (s sink) Syscall(ctx context.Context, fields seccheck.FieldSet, data *pb.ContextData, kind pb.MessageType, m proto.Message) error {
	switch m := m.(type) {
	case *pb.Open:
		if !attempt.Write(m) {
			return nil
		}
		m.Pathname = valid(m.Pathname)
	case *pb.Socket:
		if !attempt.Socket(m) {
			return nil
		}
	case *pb.Connect:
		if attempt.IsSend(m) && len(m.Address) == 0 {
			return nil // on a connected socket: the connect has been told
		}
	case *pb.Execve:
		m.Pathname, m.FdPath, m.Argv = valid(m.Pathname), valid(m.FdPath), attempt.CutArgv(m.Argv)
		for i, arg := range m.Argv {
			m.Argv[i] = valid(arg)
		}
	}
	return s.Sink.Syscall(ctx, fields, data, kind, m)
}

// valid makes a text of s: an event with bytes that are none cannot be encoded,
// and gVisor drops what it cannot encode without a word.
func valid(s string) string { return strings.ToValidUTF8(s, "?") }

// RawSyscall implements seccheck.Sink.
func (s sink) RawSyscall(ctx context.Context, fields seccheck.FieldSet, m *pb.Syscall) error {
	if _, ok := attempt.Privileged(m); !ok {
		return nil
	}
	return s.Sink.RawSyscall(ctx, fields, m)
}

// change decodes a call that changes files.
func change(c attempt.Call) kernel.SyscallToProto {
	return func(t *kernel.Task, _ seccheck.FieldSet, data *pb.ContextData, info kernel.SyscallInfo) (proto.Message, pb.MessageType) {
		m := &pb.Open{ContextData: data, Sysno: uint64(info.Sysno), Flags: linux.O_WRONLY, Exit: exit(info)}
		if !attempt.Write(m) {
			return m, pb.MessageType_MESSAGE_SYSCALL_OPEN // most calls: nobody will ask for their paths
		}
		var names []string
		for _, i := range c.Paths {
			directory := int32(linux.AT_FDCWD)
			if c.At() {
				directory = info.Args[i-1].Int()
			}
			if at := info.Args[i].Pointer(); at == 0 && c.At() {
				names = append(names, descriptor(t, directory)) // of utimensat: the open file itself
			} else if name, err := t.CopyInString(at, linux.PATH_MAX); err == nil {
				names = append(names, absolute(t, directory, name))
			}
		}
		if len(c.Paths) == 0 {
			names = append(names, descriptor(t, info.Args[0].Int()))
		}
		m.Pathname = strings.Join(names, " -> ")
		return m, pb.MessageType_MESSAGE_SYSCALL_OPEN
	}
}

// resolved makes a decoder of opens tell whole paths of attempts.
func resolved(decode kernel.SyscallToProto) kernel.SyscallToProto {
	return func(t *kernel.Task, fields seccheck.FieldSet, data *pb.ContextData, info kernel.SyscallInfo) (proto.Message, pb.MessageType) {
		msg, kind := decode(t, fields, data, info)
		if m, ok := msg.(*pb.Open); ok && attempt.Write(m) {
			m.Pathname = absolute(t, int32(m.Fd), m.Pathname)
		}
		return msg, kind
	}
}

// absolute returns the path of name in an open directory, or in the working
// directory if that is AT_FDCWD.
func absolute(t *kernel.Task, directory int32, name string) string {
	switch {
	case path.IsAbs(name):
		return name
	case directory != linux.AT_FDCWD:
		return path.Join(descriptor(t, directory), name)
	}
	at := t.FSContext().WorkingDirectory()
	defer at.DecRef(t)
	dir, ok := pathname(t, at)
	if !ok {
		return name
	}
	return path.Join(dir, name)
}

// descriptor returns the path of an open file.
func descriptor(t *kernel.Task, n int32) string {
	unknown := fmt.Sprintf("descriptor %d", n)
	file, _ := t.FDTable().Get(n)
	if file == nil {
		return unknown
	}
	defer file.DecRef(t)
	name, ok := pathname(t, file.VirtualDentry())
	if !ok {
		return unknown
	}
	return name
}

func pathname(t *kernel.Task, of vfs.VirtualDentry) (string, bool) {
	root := t.FSContext().RootDirectory()
	defer root.DecRef(t)
	name, err := t.Kernel().VFS().PathnameWithDeleted(t, root, of)
	return name, err == nil
}

func openat2(t *kernel.Task, _ seccheck.FieldSet, data *pb.ContextData, info kernel.SyscallInfo) (proto.Message, pb.MessageType) {
	m := &pb.Open{ContextData: data, Sysno: uint64(info.Sysno), Fd: int64(info.Args[0].Int()), Exit: exit(info)}
	if path, err := t.CopyInString(info.Args[1].Pointer(), linux.PATH_MAX); err == nil {
		m.Pathname = path
	}
	var flags [8]byte // of struct open_how the first field
	if _, err := t.CopyInBytes(info.Args[2].Pointer(), flags[:]); err == nil {
		m.Flags = uint32(hostarch.ByteOrder.Uint64(flags[:]))
	}
	if attempt.Write(m) {
		m.Pathname = absolute(t, int32(m.Fd), m.Pathname)
	}
	return m, pb.MessageType_MESSAGE_SYSCALL_OPEN
}

// bind decodes the file that a unix socket with a name is.
func bind(t *kernel.Task, _ seccheck.FieldSet, data *pb.ContextData, info kernel.SyscallInfo) (proto.Message, pb.MessageType) {
	m := &pb.Open{ContextData: data, Sysno: uint64(info.Sysno), Exit: exit(info)}
	address := socketAddress(t, info.Args[1].Pointer(), info.Args[2].Uint())
	if len(address) > 2 && hostarch.ByteOrder.Uint16(address) == linux.AF_UNIX && address[2] != 0 {
		name, _, _ := strings.Cut(string(address[2:]), "\x00")
		m.Flags, m.Pathname = linux.O_WRONLY, absolute(t, linux.AT_FDCWD, name)
	}
	return m, pb.MessageType_MESSAGE_SYSCALL_OPEN
}

// send decodes where sendto, sendmsg and sendmmsg (of its messages the first that
// says so) send to.
func send(t *kernel.Task, _ seccheck.FieldSet, data *pb.ContextData, info kernel.SyscallInfo) (proto.Message, pb.MessageType) {
	m := &pb.Connect{ContextData: data, Sysno: uint64(info.Sysno), Fd: int64(info.Args[0].Int()), Exit: exit(info)}
	if info.Sysno == attempt.Sends[0].Number {
		m.Address = socketAddress(t, info.Args[4].Pointer(), info.Args[5].Uint())
		return m, pb.MessageType_MESSAGE_SYSCALL_CONNECT
	}
	const size = 64 // of struct mmsghdr, which begins with a struct msghdr
	messages := uint32(1)
	if info.Sysno == unix.SYS_SENDMMSG {
		messages = min(info.Args[2].Uint(), linux.UIO_MAXIOV)
	}
	for i := uint32(0); i < messages && len(m.Address) == 0; i++ {
		var header [12]byte // the name and its length
		if _, err := t.CopyInBytes(info.Args[1].Pointer()+hostarch.Addr(i*size), header[:]); err != nil {
			break
		}
		at := hostarch.Addr(hostarch.ByteOrder.Uint64(header[:]))
		m.Address = socketAddress(t, at, hostarch.ByteOrder.Uint32(header[8:]))
	}
	return m, pb.MessageType_MESSAGE_SYSCALL_CONNECT
}

func socketAddress(t *kernel.Task, at hostarch.Addr, size uint32) []byte {
	if at == 0 {
		return nil
	}
	address, _ := slinux.CaptureAddress(t, at, size) // nil if there is none to be read
	return address
}

func exit(info kernel.SyscallInfo) *pb.Exit {
	if !info.Exit {
		return nil
	}
	return &pb.Exit{Result: int64(info.Rval), Errorno: int64(info.Errno)}
}
