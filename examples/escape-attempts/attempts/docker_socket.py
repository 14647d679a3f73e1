"""Ask the host's container engine for a container with the host's root in it."""

import socket

import headgate


@headgate.model(name="docker_socket")
def docker_socket():
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect("/var/run/docker.sock")
    except OSError:
        pass
    return [{"containers": 0}]
