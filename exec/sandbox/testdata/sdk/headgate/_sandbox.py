"""Runs the order's SQL as Python and answers with what it assigns to `out`."""
import json
import os
import struct
import sys

try:
    import pyarrow  # noqa: F401
except ImportError:
    pass

frames = os.fdopen(os.dup(1), "wb", closefd=True)
os.dup2(2, 1)
order = json.loads(sys.stdin.buffer.read())
scope = {}
answer = {}
if order.get("sql"):
    try:
        exec(order["sql"], scope)
    except Exception as e:
        answer["error"] = {"kind": "python", "message": "%s: %s" % (type(e).__name__, e)}
out = str(scope.get("out", "")).encode()
frames.write(b"F" + struct.pack(">H", 3) + b"out" + struct.pack(">Q", len(out)) + out)
text = json.dumps(answer).encode()
frames.write(b"A" + struct.pack(">I", len(text)) + text)
frames.flush()
