"""Calls one function of the lake: a model or an expectation."""

import datetime
import importlib
import importlib.util
import os
import random
import sys
import tempfile
from typing import Any, Callable, Dict, List, Optional, Sequence

from .. import _declarations as said
from .. import standard_expectations
from .._schema import fields
from . import errors, tables
from .errors import UserError
from .frames import Frames
from .modules import Finder, module_name


def model(order: Dict[str, Any], frames: Frames, user_files: Dict[str, str]) -> Dict[str, Any]:
    """Run a model, send its table as the file "output.parquet", and return the answer."""
    what = f"model {order['function']}"
    function = load(order, user_files)
    arguments = _arguments(order, function)
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
    name = order["function"]
    function = load(order, user_files)
    arguments = _arguments(order, function)
    return {"checks": [check(function, arguments, name, user_files)]}


def expectations(order: Dict[str, Any], user_files: Dict[str, str]) -> Dict[str, Any]:
    """Run an expectation over each of the order's cases and return a check for each.

    One that raises in the middle says nothing of the others: its check holds the error.
    """
    name = order["function"]
    function = load(order, user_files)
    checks: List[Dict[str, Any]] = []
    for case in order["cases"]:
        random.seed(0)  # as if it were alone
        try:
            arguments = _arguments({**order, "inputs": case}, function)
            checks.append(check(function, arguments, name, user_files))
        except BaseException as exc:
            described = errors.describe(exc, f"expectation {name}", user_files)
            checks.append({"name": name, "violations": 0, "error": described})
    return {"checks": checks}


def check(function: Callable[..., Any], arguments: Dict[str, Any], name: str, user_files: Dict[str, str]) -> Dict[str, Any]:
    """Call an expectation and return the protocol's Check. What is no verdict is a UserError."""
    standard_expectations.forget_failure()  # what another expectation of this process did not meet
    try:
        verdict = function(**arguments)
    except AssertionError as exc:
        message = errors.text_of(exc)
        if not message:
            message = errors.assertion_place(exc, user_files) or "assertion failed"
            message = _because(message)
    else:
        if passed(verdict, name):
            return {"name": name, "violations": 0}
        message = _because(f"{name} returned False")
    return {"name": name, "violations": 1, "message": errors.clip(errors.masked(message), 4_000)}


def _because(message: str) -> str:
    why = standard_expectations.last_failure()
    return f"{message} ({why})" if why else message


def passed(verdict: Any, name: str) -> bool:
    """Tell whether what an expectation returned says that it holds."""
    if verdict is None:
        return True
    kind = errors.type_name(verdict)
    if kind == "pyarrow.BooleanScalar":  # what pyarrow.compute gives
        verdict = verdict.as_py()
    if type(verdict) is bool or kind in ("numpy.bool_", "numpy.bool"):
        return bool(verdict)
    name_of_kind = kind.rpartition(".")[2]
    raise UserError(
        "python", f"expectation {name} returned {errors.shown(verdict)} ({name_of_kind}); return True or False, or assert"
    )


def load(order: Dict[str, Any], user_files: Dict[str, str], paths: Optional[Sequence[str]] = None) -> Callable[..., Any]:
    """Run the order's file and return its function. paths are the lake's Python files, if they are known."""
    path, name = order["module"], order["function"]
    finder = Finder(order["path"], path, paths)
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
    function: Optional[Callable[..., Any]] = getattr(module, name, None)
    if function is None or not callable(function):
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


def _arguments(order: Dict[str, Any], function: Callable[..., Any]) -> Dict[str, Any]:
    threads = order.get("threads") or 1
    arguments = {**_parameters(order), **(order.get("secrets") or {})}
    inputs: List[Dict[str, Any]] = order.get("inputs") or []
    if inputs:
        _need_pyarrow()
    declared = said.inputs(function)
    for table in inputs:
        arguments[table["param"]] = found = tables.read(table, threads)
        known = declared.get(table["param"])
        if isinstance(known, said.Model) and known.projection_schema is not None:
            tables.check_schema(found, fields(known.projection_schema), known.projection_schema.__name__, table["name"])
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
    _need_pyarrow()
    declared = said.declaration(function)
    return declared.columns if declared is not None else None
