"""Failures of the user's code, in the form in which they are shown to the user."""

import json
import os
import reprlib
import sys
import traceback
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

_HERE = os.path.dirname(os.path.abspath(__file__))
_MESSAGE_LIMIT = 4_000
_TRACEBACK_LIMIT = 16_000


_SHORTEST_SECRET = 4  # a shorter line of a secret is in any text, and masking it would hide the text

_masked: List[str] = []


def mask(secrets: Iterable[str]) -> None:
    """Leave these values out of everything that is shown from now on."""
    found = set(_masked)
    for secret in secrets:
        for text in (secret, *secret.splitlines()):
            # Also as it stands in a repr or in JSON.
            for spelling in (text, repr(text)[1:-1], json.dumps(text)[1:-1]):
                if len(spelling) >= _SHORTEST_SECRET or spelling == secret and spelling:
                    found.add(spelling)
    # The longest first: one may be a part of another.
    _masked[:] = sorted(found, key=len, reverse=True)


def masked(value: Any) -> Any:
    """Return a JSON value with the secrets in its texts replaced by ``***``."""
    if not _masked:
        return value
    if isinstance(value, str):
        for secret in _masked:
            value = value.replace(secret, "***")
        return value
    if isinstance(value, dict):
        return {masked(name): masked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value


class UserError(Exception):
    """A failure with a sentence for the user. kind is one of the protocol's kinds."""

    def __init__(self, kind: str, message: str, file: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.file = file
        self.line = line

    def to_json(self) -> Dict[str, Any]:
        return _drop_empty(
            {"kind": self.kind, "message": self.message, "file": self.file, "line": self.line}
        )


def describe(exc: BaseException, what: str, user_files: Dict[str, str]) -> Dict[str, Any]:
    """Return the protocol's UserError for exc, which ended what ("model enrich").

    user_files are the lake's files that were loaded (path in the lake -> source).
    Whatever the exception does when it is looked at, there is an answer.
    """
    try:
        return _describe(exc, what, user_files)
    except BaseException:
        return {"kind": "python", "message": f"{what} raised an exception that cannot be shown"}


def _describe(exc: BaseException, what: str, user_files: Dict[str, str]) -> Dict[str, Any]:
    if type(exc) is UserError:
        return exc.to_json()
    file, line = _innermost(exc, user_files)
    kind = "python"
    if issubclass(type(exc), MemoryError):
        kind, message = "memory", f"{what} ran out of memory"
        detail = text_of(exc)
        if detail:
            message += f": {detail}"
    elif issubclass(type(exc), SystemExit):
        code = exc.code if type(exc) is SystemExit else None
        message = f"{what} called sys.exit({shown(code)}); a function ends by returning"
    elif issubclass(type(exc), KeyboardInterrupt):
        message = f"{what} raised KeyboardInterrupt"
    else:
        message = _one_line(exc)
        if isinstance(exc, SyntaxError) and exc.filename in user_files:
            file, line = exc.filename, exc.lineno or 0
    return _drop_empty(
        {
            "kind": kind,
            "message": clip(masked(message), _MESSAGE_LIMIT),
            "file": file,
            "line": line,
            "traceback": _traceback(exc, user_files),
        }
    )


_short_repr = reprlib.Repr()
_short_repr.maxother = _short_repr.maxstring = 80


def shown(value: Any) -> str:
    """Return value for the eye: short, and whatever its own repr does."""
    try:
        return f"{_short_repr.repr(value):.80}"
    except BaseException:
        return f"<{type_name(value)}>"


def text_of(exc: BaseException) -> str:
    """Return what an exception says, "" if it cannot be said."""
    try:
        return str(exc).strip()
    except BaseException:
        return ""


def type_name(value: Any) -> str:
    """Return "dict" or "pandas.Series": the true type, not what value pretends to be."""
    kind = type(value)
    # Past its metaclass, which may be the function's own.
    module, name = (type.__dict__[attribute].__get__(kind) for attribute in ("__module__", "__qualname__"))
    if type(module) is not str or module == "builtins":
        return str(name)
    return f"{module.partition('.')[0]}.{name.rpartition('.')[2]}"


def clip(text: str, limit: int) -> str:
    """Return text with its middle left out if it is longer than limit."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def assertion_place(exc: BaseException, user_files: Dict[str, str]) -> str:
    """Return where and what a bare assert was: 'verifiers/x.py:12: assert n == 0'."""
    file, line = _innermost(exc, user_files)
    if not file:
        return ""
    lines = user_files[file].splitlines()
    text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return f"{file}:{line}: {text}".rstrip(": ")


def _one_line(exc: BaseException) -> str:
    try:
        return "".join(traceback.format_exception_only(type(exc), exc)).strip().splitlines()[-1]
    except BaseException:  # the user's own __str__ may fail
        return type_name(exc)


def _innermost(exc: BaseException, user_files: Dict[str, str]) -> Tuple[str, int]:
    file, line = "", 0
    for frame, lineno in traceback.walk_tb(exc.__traceback__):
        if frame.f_code.co_filename in user_files:
            file, line = frame.f_code.co_filename, lineno
    return file, line


def _traceback(exc: BaseException, user_files: Dict[str, str]) -> str:
    try:
        report = traceback.TracebackException.from_exception(exc)
        _tidy(report, user_files, set())
        text = "".join(report.format())
    except BaseException:
        return ""
    return clip(masked(text), _TRACEBACK_LIMIT)


def _tidy(
    report: Optional[traceback.TracebackException], user_files: Dict[str, str], seen: Set[int]
) -> None:
    """Let the stack start at the user's file and show no path of this machine."""
    if report is None or id(report) in seen:
        return
    seen.add(id(report))
    frames = [f for f in report.stack if not _is_harness(f.filename)]
    for number, frame in enumerate(frames):
        if frame.filename in user_files:
            frames = frames[number:]
            break
    for frame in frames:
        # Read the source line under the real name before the name is shortened.
        frame.line  # noqa: B018
        if frame.filename not in user_files:
            frame.filename = _short(frame.filename)
    report.stack[:] = frames
    _tidy(report.__cause__, user_files, seen)
    _tidy(report.__context__, user_files, seen)
    for part in getattr(report, "exceptions", None) or ():
        _tidy(part, user_files, seen)


def _is_harness(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or os.path.dirname(filename) == _HERE


def _short(filename: str) -> str:
    """Return filename relative to where Python found it: 'pandas/core/frame.py'."""
    best = ""
    for entry in sys.path:
        prefix = entry.rstrip("/") + "/"
        if entry and filename.startswith(prefix) and len(prefix) > len(best):
            best = prefix
    if best:
        return filename[len(best) :]
    return os.path.basename(filename) if os.path.isabs(filename) else filename


def _drop_empty(values: Dict[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in values.items() if value}
