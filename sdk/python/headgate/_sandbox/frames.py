"""Frames: how the harness answers the server.

A frame is one byte of kind, then

- ``F``: 2-byte name length, name, 8-byte size, the file's bytes;
- ``N``: 4-byte length, UTF-8 text (a line of progress);
- ``A``: 4-byte length, the answer as JSON; the last frame.

All integers are big-endian.
"""

import json
import os
import struct
from typing import Any, BinaryIO, Dict

_CHUNK = 1 << 20


class Frames:
    """The one writer of frames, on a descriptor that only it knows."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    @classmethod
    def take_stdout(cls) -> "Frames":
        """Move the real standard output out of reach and let fd 1 write to the log.

        From here on a user's print, and the output of a process they start,
        cannot be taken for a frame. os.dup makes the new descriptor
        non-inheritable, so it ends with an exec.
        """
        private = os.dup(1)
        os.dup2(2, 1)
        return cls(os.fdopen(private, "wb", buffering=0))

    def file(self, name: str, path: str) -> None:
        """Send the file at path under name."""
        encoded = name.encode()
        with open(path, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            self._write(b"F" + struct.pack(">H", len(encoded)) + encoded + struct.pack(">Q", size))
            while size > 0:
                chunk = source.read(min(_CHUNK, size))
                if not chunk:
                    raise OSError(f"{name} became shorter while it was sent")
                self._write(chunk)
                size -= len(chunk)

    def note(self, text: str) -> None:
        """Send one line of progress."""
        data = text.encode("utf-8", "replace")
        self._write(b"N" + struct.pack(">I", len(data)) + data)

    def answer(self, answer: Dict[str, Any]) -> None:
        """Send the answer, which ends the frames."""
        data = json.dumps(answer, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        self._write(b"A" + struct.pack(">I", len(data)) + data)
        self._out.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            # A raw write to a pipe may take only a part.
            view = view[self._out.write(view) :]
