"""Reads one order from standard input and answers it; see the package."""

import importlib
import json
import os
import random
import sys
from typing import Any, Dict

from .. import _alias
from . import bytecode, declare, errors, run
from .frames import Frames


def main() -> None:
    frames = Frames.take_stdout()
    _warm()
    order = json.loads(sys.stdin.buffer.read())
    errors.mask((order.get("secrets") or {}).values())
    # The same numbers at every run, so that a model that draws some can be replayed.
    random.seed(0)
    _alias.install()
    # A function that reads its standard input finds it empty, rather than shared.
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    answer = _answer(order, frames)
    _flush()
    frames.answer(errors.masked(answer))
    # Threads that the function left behind must not keep the sandbox alive.
    os._exit(0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass  # the function may have put anything there


def _warm() -> None:
    """Import what is slow to import before waiting for the order."""
    wanted = os.environ.get("HEADGATE_PREIMPORT", "").replace(",", " ").split()
    for name in ["pyarrow", "pyarrow.parquet", *wanted]:
        try:
            importlib.import_module(name)
        except BaseException:
            # Whatever a package raises is said when a function imports it; reading
            # declarations does not, and a function need not.
            pass


def _answer(order: Dict[str, Any], frames: Frames) -> Dict[str, Any]:
    op = order.get("op")
    if op == "declare":
        return {"declared": declare.declare(order.get("sources") or [])}
    if op == "compile":
        return bytecode.compile_all(order["path"], order.get("files") or [], frames)
    user_files: Dict[str, str] = {}
    what = order.get("function", "")
    try:
        if op == "py-model":
            what = f"model {what}"
            return run.model(order, frames, user_files)
        if op == "py-expect":
            what = f"expectation {what}"
            if order.get("cases"):
                return run.expectations(order, user_files)
            return run.expectation(order, user_files)
    except BaseException as exc:  # SystemExit and KeyboardInterrupt too: they are the function's
        return {"error": errors.describe(exc, what, user_files)}
    raise SystemExit(f"headgate: no such operation: {op!r}")


if __name__ == "__main__":
    main()
