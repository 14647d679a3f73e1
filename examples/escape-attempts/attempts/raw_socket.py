"""Listen to what passes on the wire."""

import socket

import headgate


@headgate.model(name="raw_socket")
def raw_socket():
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)
    except PermissionError:
        pass
    return [{"heard": 0}]
