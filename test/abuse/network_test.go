package abuse

// tcp connects the way every library does.
func tcp(address string, port int) string {
	return `socket.create_connection(("` + address + `", ` + itoa(port) + `), 5)`
}

var networkTries = []try{
	{"connect to a public address", tcp("1.1.1.1", 443), "ENETUNREACH", []string{"connect 1.1.1.1:443"}},
	{"connect to a documentation address", tcp("192.0.2.1", 80), "ENETUNREACH", []string{"connect 192.0.2.1:80"}},
	{"connect to a private address", tcp("10.0.0.1", 22), "ENETUNREACH", []string{"connect 10.0.0.1:22"}},
	{"connect to the cloud's metadata service", tcp("169.254.169.254", 80), "ENETUNREACH", []string{"connect 169.254.169.254:80"}},
	{"connect to a service of the host by loopback", tcp("127.0.0.1", 22), "ECONNREFUSED", []string{"connect 127.0.0.1:22"}},
	{"connect by IPv6", tcp("2606:4700::1111", 443), "ENETUNREACH", []string{"connect [2606:4700::1111]:443"}},
	{"connect without waiting", `
s = socket.socket()
s.setblocking(False)
raise OSError(s.connect_ex(("198.51.100.7", 8080)), "")`, "ENETUNREACH", []string{"connect 198.51.100.7:8080"}},
	{"connect to the docker socket", `socket.socket(socket.AF_UNIX).connect("/var/run/docker.sock")`, "ENOENT", []string{"connect unix:/var/run/docker.sock"}},
	{"connect to an abstract unix socket of the host", `socket.socket(socket.AF_UNIX).connect("\0/tmp/.X11-unix/X0")`, "ECONNREFUSED", []string{"connect unix:@/tmp/.X11-unix/X0"}},
	{"look up a name", `return socket.getaddrinfo("exfiltrated-data.example.com", 80)`, ".*gaierror.*|-[23]|.*resol.*", []string{"connect 127.0.0.1:53 (name lookup)"}},
	{"send a datagram", `socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("8.8.8.8", 9))`, "ENETUNREACH", []string{"sendto 8.8.8.8:9"}},
	{"send a datagram behind another", `
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def header(address):
    return struct.pack("QIIQQQQIIII", ctypes.addressof(address) if address else 0, 16 if address else 0, 0, ctypes.addressof(iov), 1, 0, 0, 0, 0, 0, 0)
iov = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(ctypes.create_string_buffer(1)), 1))
to = ctypes.create_string_buffer(struct.pack("=HH4s8x", 2, 0x0900, bytes([8, 8, 8, 1])))
syscall(307, u.fileno(), ctypes.create_string_buffer(header(None) + header(to)), 2, 0)`, "EDESTADDRREQ|ENETUNREACH", []string{"sendto 8.8.8.1:9"}},
	{"send a datagram as a message", `socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, ("8.8.4.4", 53))`, "ENETUNREACH", []string{"sendto 8.8.4.4:53 (name lookup)"}},
	{"open a raw socket", `socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)`, "EPERM", []string{"socket raw IPv4 socket"}},
	{"open a packet socket", `socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)`, "EPERM", []string{"socket raw packet socket"}},
	{"change the network by netlink", `
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
s.bind((0, 0))
# RTM_NEWADDR with NLM_F_REQUEST | NLM_F_ACK: give loopback another address.
body = struct.pack("BBBBI", socket.AF_INET, 24, 0, 0, 1) + struct.pack("HH4s", 8, 2, bytes([10, 9, 8, 7]))
s.send(struct.pack("IHHII", 16 + len(body), 20, 5, 1, 0) + body)
raise OSError(-struct.unpack_from("i", s.recv(4096), 16)[0], "")`, "EPERM|EACCES", nil},
	{"listen for the host", `
s = socket.socket()
s.bind(("0.0.0.0", 2222))
s.listen()
return [name for _, name in socket.if_nameindex()]`, `\['lo'\]`, nil},
}
