"""Runs the harness as the server does: a process, one order in, frames out."""

import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest

SDK = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Reply:
    def __init__(self, stdout, stderr):
        self.files, self.notes, self.answer, self.log = {}, [], None, stderr.decode()
        at = 0
        while at < len(stdout):
            kind = stdout[at : at + 1]
            if self.answer is not None:
                raise AssertionError("bytes after the answer")
            if kind == b"F":
                (length,) = struct.unpack_from(">H", stdout, at + 1)
                name = stdout[at + 3 : at + 3 + length].decode()
                (size,) = struct.unpack_from(">Q", stdout, at + 3 + length)
                start = at + 11 + length
                self.files[name] = stdout[start : start + size]
                at = start + size
                continue
            (length,) = struct.unpack_from(">I", stdout, at + 1)
            body = stdout[at + 5 : at + 5 + length]
            at += 5 + length
            if kind == b"A":
                self.answer = json.loads(body)
            elif kind == b"N":
                self.notes.append(body.decode())
            else:
                raise AssertionError(f"frame kind {kind!r}")
        if at != len(stdout):
            raise AssertionError("truncated frame")

    @property
    def error(self):
        return (self.answer or {}).get("error")


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self._dir = tempfile.TemporaryDirectory()
        self.addCleanup(self._dir.cleanup)
        self.root = os.path.join(self._dir.name, "code")
        os.mkdir(self.root)

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as out:
            out.write(text)

    def order(self, order, preamble=None, timeout=120):
        argv = [sys.executable, "-m", "headgate._sandbox"]
        if preamble:
            argv = [sys.executable, "-c", f"{preamble}\nimport headgate._sandbox.__main__ as m; m.main()"]
        done = subprocess.run(
            argv,
            input=json.dumps(order).encode(),
            capture_output=True,
            env={**os.environ, "PYTHONPATH": SDK, "PYTHONDONTWRITEBYTECODE": "1"},
            timeout=timeout,
            cwd=self._dir.name,
        )
        reply = Reply(done.stdout, done.stderr)
        if reply.answer is None:
            raise AssertionError(f"no answer, exit {done.returncode}: {reply.log}")
        return reply

    def parquet(self, name, table):
        import pyarrow.parquet as pq

        path = os.path.join(self._dir.name, name)
        pq.write_table(table, path)
        return path

    def run_model(self, text, function="m", path="models/m.py", inputs=(), **more):
        self.write(path, text)
        return self.order(
            {
                "op": "py-model",
                "path": self.root,
                "module": path,
                "function": function,
                "inputs": list(inputs),
                "temp_dir": self._dir.name,
                **more,
            }
        )

    def run_expectation(self, text, function="e", path="verifiers/e.py", inputs=()):
        self.write(path, text)
        return self.order(
            {"op": "py-expect", "path": self.root, "module": path, "function": function, "inputs": list(inputs)}
        )

    def output(self, reply):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.assertIsNone(reply.error)
        return pq.read_table(pa.BufferReader(reply.files["output.parquet"]))
