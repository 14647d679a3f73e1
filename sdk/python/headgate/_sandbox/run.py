"""Calls one function of the lake: a model or an expectation."""

import datetime
import importlib
import importlib.util
import os
import sys
import tempfile
from typing import Any, Callable, Dict, List, Optional

from . import errors, tables
from .errors import UserError
from .frames import Frames
from .modules import Finder, module_name


def model(order: Dict[str, Any], frames: Frames, user_files: Dict[str, str]) -> Dict[str, Any]:
    """Run a model, send its table as the file "output.parquet", and return the answer."""
    what = f"model {order['function']}"
    function = _load(order, user_files)
    arguments = _arguments(order)
    declared = _declared_columns(function)
    result = tables.normalise(function(**arguments), what)
    del arguments  # what is written need not share the memory with what was read
    handle, path = tempfile.mkstemp(suffix=".parquet", dir=order.get("temp_dir") or None)
    os.close(handle)
    try:
        rows, columns = tables.write(result, declared, path, what)
        del result
        frames.file("output.parquet", path)
    finally:
        os.unlink(path)
    return {"rows": rows, "columns": columns}


def expectation(order: Dict[str, Any], user_files: Dict[str, str]) -> Dict[str, Any]:
    """Run an expectation and return the answer with its one check."""
    function = _load(order, user_files)
    arguments = _arguments(order)
    check: Dict[str, Any] = {"name": order["function"], "violations": 0}
    try:
        verdict = function(**arguments)
    except AssertionError as exc:
        check["violations"] = 1
        said = str(exc).strip() or errors.assertion_place(exc, user_files) or "assertion failed"
        check["message"] = errors.clip(said, 4_000)
        return {"checks": [check]}
    if not _passed(verdict, order["function"]):
        check["violations"] = 1
        check["message"] = f"{order['function']} returned False"
    return {"checks": [check]}


def _passed(verdict: Any, name: str) -> bool:
    if verdict is None:
        return True
    if hasattr(verdict, "as_py"):  # a pyarrow scalar, what pyarrow.compute gives
        verdict = verdict.as_py()
    if isinstance(verdict, bool) or type(verdict).__name__ in ("bool_", "bool"):
        return bool(verdict)
    shown = f"{verdict!r:.80}"
    raise UserError(
        "python", f"expectation {name} returned {shown} ({type(verdict).__name__}); return True or False, or assert"
    )


def _load(order: Dict[str, Any], user_files: Dict[str, str]) -> Callable[..., Any]:
    path, name = order["module"], order["function"]
    finder = Finder(order["path"], path)
    finder.loaded = user_files
    sys.meta_path.insert(0, finder)
    sys.dont_write_bytecode = True
    spec = finder.entry_spec()
    if spec is None:
        raise UserError("python", f"there is no file {path}")
    dotted = module_name(path)
    above = dotted.rpartition(".")[0]
    if above:
        _import_packages(finder, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[dotted] = module
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError("python", f"{path} has no function {name!r} after it was run", path)
    return function


def _import_packages(finder: Finder, path: str) -> None:
    """Put the packages above the entry file in place, so that its relative imports work."""
    names = module_name(path).split(".")[:-1]
    for n in range(1, len(names) + 1):
        dotted = ".".join(names[:n])
        if dotted in sys.modules:
            continue
        spec = finder.package_spec(dotted)
        module = importlib.util.module_from_spec(spec)
        sys.modules[dotted] = module
        if spec.loader is not None:
            spec.loader.exec_module(module)


def _arguments(order: Dict[str, Any]) -> Dict[str, Any]:
    threads = order.get("threads") or 1
    arguments = _parameters(order)
    inputs: List[Dict[str, Any]] = order.get("inputs") or []
    if inputs:
        _need_pyarrow()
    for table in inputs:
        arguments[table["param"]] = tables.read(table, threads)
    return arguments


def _parameters(order: Dict[str, Any]) -> Dict[str, Any]:
    """Return the values of parameters, those of dates and timestamps as datetime has them."""
    values: Dict[str, Any] = dict(order.get("params") or {})
    for name, kind in (order.get("param_types") or {}).items():
        if values.get(name) is None:
            continue
        if kind == "date":
            values[name] = datetime.date.fromisoformat(values[name])
        elif kind == "timestamp":
            # fromisoformat before Python 3.11 wants no or all six digits of a fraction.
            whole, _, fraction = values[name].partition(".")
            micros = int(fraction.ljust(6, "0")) if fraction else 0
            values[name] = datetime.datetime.fromisoformat(whole).replace(microsecond=micros)
    return values


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as exc:
        version = ".".join(str(part) for part in sys.version_info[:2])
        raise UserError(
            "python", f"Python {version} on this server has no usable pyarrow, which passes tables to functions ({exc})"
        ) from exc


def _declared_columns(function: Callable[..., Any]) -> Optional[List[str]]:
    import headgate

    _need_pyarrow()
    declared = headgate.declaration(function)
    if declared is None or not declared.columns or list(declared.columns) == ["*"]:
        return None
    return list(declared.columns)
