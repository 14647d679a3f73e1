"""Ask the kernel for what only a privileged program gets."""

import ctypes

import headgate

CALLS = {"mount": 165, "ptrace": 101, "bpf": 321, "io_uring_setup": 425, "userfaultfd": 323, "keyctl": 250}


@headgate.model(name="kernel")
def kernel():
    libc = ctypes.CDLL(None)
    return [{"call": name, "result": libc.syscall(number, 0, 0, 0, 0, 0)} for name, number in CALLS.items()]
