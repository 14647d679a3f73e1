"""Try functions on a checkout, in this interpreter: what they give before anything is pushed."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
import warnings
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union, overload

from . import _alias, _declarations, _settings
from ._lake import Function, Lake, Project
from ._sandbox import run, tables
from ._sandbox.errors import UserError
from ._sandbox.types import to_duckdb
from ._schema import fields

Given = Optional[Mapping[str, Any]]


@overload
def local_run(
    model: None = ..., *, lake: Optional[str] = ..., params: Given = ..., secrets: Given = ..., upstream: bool = ..., strict: bool = ...
) -> Dict[str, Any]: ...
@overload
def local_run(
    model: Union[str, Callable[..., Any]],
    *,
    lake: Optional[str] = ...,
    params: Given = ...,
    secrets: Given = ...,
    upstream: bool = ...,
    strict: bool = ...,
) -> Any: ...


def local_run(
    model: Union[str, Callable[..., Any], None] = None,
    *,
    lake: Optional[str] = None,
    params: Given = None,
    secrets: Given = None,
    upstream: bool = False,
    strict: bool = False,
) -> Any:
    """Run a model on the tables of a checkout and return its pyarrow.Table.

    model is the decorated function itself, the name of a table, or
    "models/enrich.py" ("models/enrich.py:enrich" if the file has several). Without
    it all models of the lake run, in order, and the result is a dict of tables.
    An expectation gives True, or raises the AssertionError that the pusher would see.

    lake is a directory in the checkout (default: where the function's file is, or
    the current directory). An input is the table as the checkout has it; one that
    it does not have, and with upstream=True each that a model makes, is computed
    first. params and secrets are values by name; parameters have the defaults of
    the lake's settings. Columns that are not as declared are a warning, and with
    strict=True an error.

    Nothing is written, and nothing is isolated: this is your own code on your own
    machine, in the packages of this interpreter. Filters and SQL models need duckdb.
    """
    if callable(model):
        try:
            where = inspect.getsourcefile(model) or os.getcwd()
        except TypeError:
            where = os.getcwd()
        found = Lake.around(lake or (where if os.path.exists(where) else os.getcwd()))
        return _Session(found, params, secrets, upstream, strict).object(model)
    target = model or ""
    path, _, python = target.partition(":")
    start = lake or (path if path.endswith((".py", ".sql")) and os.path.exists(path) else os.getcwd())
    found = Lake.around(start)
    session = _Session(found, params, secrets, upstream or model is None, strict)
    if model is None:
        return session.all()
    return session.function(session.named(path, python))


class _Session:
    def __init__(self, lake: Lake, params: Given, secrets: Given, upstream: bool, strict: bool) -> None:
        self.lake = lake
        self._params = dict(params or {})
        self._secrets = dict(secrets or {})
        self._upstream = upstream
        self._strict = strict
        self._made: Dict[str, Any] = {}  # tables that models of this session gave
        self._making: List[str] = []

    def all(self) -> Dict[str, Any]:
        """Return the tables of all models, in the order in which they were made."""
        models = self.lake.models()
        for model in models.values():
            self.made(model)
        return {models[key].name: table for key, table in self._made.items()}

    def named(self, target: str, python: str) -> Function:
        """Return the function that a table's name or a file's path means."""
        if target.endswith((".py", ".sql")):
            full = os.path.abspath(target)
            if not os.path.exists(full):
                full = os.path.join(self.lake.root, target)
            if not os.path.isfile(full):
                raise UserError("data", f"there is no file {target} in the lake {self.lake.root}")
            path = os.path.relpath(full, self.lake.root).replace(os.sep, "/")
            there = [f for f in self.lake.functions() if f.path == path and python in ("", f.python)]
            if not there:
                raise UserError("data", f"{target} has no {f'function {python!r}' if python else 'model or expectation'}")
            if len(there) > 1:
                raise UserError("data", f"{target} has several functions: {', '.join(f.python for f in there)}; name one")
            return there[0]
        by_name: Dict[str, Function] = {f.name.lower(): f for f in reversed(self.lake.functions())}
        if target.lower() not in by_name:
            raise UserError("data", f"the lake has no model or expectation {target!r} (it has {', '.join(sorted(by_name)) or 'none'})")
        return by_name[target.lower()]

    def made(self, model: Function) -> Any:
        """Return the table of a model, run once in a session."""
        key = model.name.lower()
        if key in self._making:
            raise UserError("data", f"models need each other: {' -> '.join([*self._making[self._making.index(key):], key])}")
        if key not in self._made:
            self._making.append(key)
            self._made[key] = self.function(model)
            self._making.pop()
        return self._made[key]

    def function(self, f: Function) -> Any:
        if f.sql:
            return self._query(f)
        with _loaded(self.lake, f.path) as load:
            return self._call(load(f.python), f)

    def object(self, function: Callable[..., Any]) -> Any:
        """Run a function that the caller has, as it is now."""
        said = _declarations.declaration(function)
        if said is None or said.kind is None:
            raise UserError("data", f"{getattr(function, '__name__', function)} is no model or expectation; decorate it")
        path = os.path.relpath(inspect.getsourcefile(function) or self.lake.root, self.lake.root).replace(os.sep, "/")
        f = Function(
            said.name or "", said.kind, path, function.__name__, [], said.columns, said.types, "", [], self.lake.project(path)
        )
        return self._call(function, f)

    def _call(self, function: Callable[..., Any], f: Function) -> Any:
        what = f"{f.kind} {f.name}"
        arguments: Dict[str, Any] = {}
        for argument, given in _declarations.inputs(function).items():
            if isinstance(given, _declarations.Model):
                arguments[argument] = self._input(given, f)
            elif isinstance(given, _declarations.Secret):
                arguments[argument] = self._secret(given.name)
            else:
                arguments[argument] = self._parameter(given.name, f.project)
        if f.kind == "expectation":
            check = run.check(function, arguments, f.name, {})
            if check["violations"]:
                raise AssertionError(check["message"])
            return True
        result = tables.normalise(function(**arguments), what)
        if hasattr(result, "read_all"):
            result = result.read_all()
        tables.check_columns(result.schema, what)
        return self._contract(result, f)

    def _contract(self, table: Any, f: Function) -> Any:
        if f.columns is None:
            return table
        names = table.column_names
        wrong = [f"no column {name!r}" for name in f.columns if name not in names]
        wrong += [f"column {name!r} is not declared" for name in names if name not in f.columns]
        for name, kind in f.types.items():
            if name in names and not _same_type(to_duckdb(table.schema.field(name).type), kind):
                wrong.append(f"column {name!r} is {to_duckdb(table.schema.field(name).type)}, not {kind}")
        if wrong and self._strict:
            raise UserError("data", f"model {f.name}: {'; '.join(wrong)}")
        if wrong:
            warnings.warn(f"model {f.name}: {'; '.join(wrong)}", stacklevel=5)
            return table
        return table.select(f.columns)

    def _input(self, given: _declarations.Model, f: Function) -> Any:
        if given.name.lower().startswith("base."):
            raise UserError("data", f"{f.name} reads {given.name}, the table before a push, which a checkout does not have")
        models, stored = self.lake.models(), self.lake.tables()
        name = self.lake.find(given.name, f.project, [*stored, *(m.name for m in models.values())])
        if name is None:
            raise UserError("data", f"{f.name} reads table {given.name!r}, which is neither in tables/ nor made by a model")
        select = given.select()
        model = models.get(name.lower())
        if model is not None and (self._upstream or name not in stored or name.lower() in self._made):
            table = self.made(model)
        else:
            table = self.lake.read(name, None if given.filter else select)
        if given.filter:
            table = self._filtered(table, given.filter, name, f)
        if select is not None:
            tables.check_has(table, select, name)
            table = table.select(select)
        if given.projection_schema is not None:
            tables.check_schema(table, fields(given.projection_schema), given.projection_schema.__name__, name)
        return table

    def _filtered(self, table: Any, condition: str, name: str, f: Function) -> Any:
        con = _duckdb(f"the filter of input {name}").connect()
        con.register("headgate_input", table)
        condition, names = _with_variables(condition)
        self._set(con, names, f)
        return _arrow(con.execute(f"SELECT * FROM headgate_input WHERE ({condition}\n)"))

    def _set(self, con: Any, names: Sequence[str], f: Function) -> None:
        for name in names:
            con.execute(f'SET VARIABLE "{name}" = $value', {"value": self._parameter(name, f.project)})

    def _query(self, f: Function) -> Any:
        duckdb = _duckdb(f"{f.path}, a SQL model,")
        con = duckdb.connect()
        sql, names = _with_variables(f.sql) if f.project is not None else (f.sql, [])
        stored, models = self.lake.tables(), self.lake.models()
        for name in stored:
            files, columns = self.lake.part_files(name)
            if files:
                listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
                _view(con, name, f"SELECT * FROM read_parquet([{listed}])")
            else:
                con.register("headgate_" + name, self.lake.read(name))
                _view(con, name, f'SELECT * FROM "headgate_{name}"')
        # Asked of a database without tables, which tells names apart by the text alone.
        for read in sorted(duckdb.connect().get_table_names(sql, qualified=True)):
            model = models.get(read.replace('"', "").lower())
            if model is not None and (self._upstream or model.name not in stored):
                con.register("headgate_" + model.name, self.made(model))
                _view(con, model.name, f'SELECT * FROM "headgate_{model.name}"')
        self._set(con, [*f.params, *names], f)
        return _arrow(con.execute(sql))

    def _parameter(self, name: str, project: Optional[Project]) -> Any:
        declared = self.lake.parameter(name, project)
        if declared.type in _settings.SECRETS:
            return self._secret(name)
        if name not in self._params:
            if declared.default is None:
                raise UserError("data", f"parameter {name!r} has no value; give params={{{name!r}: ...}} (--param {name}=...)")
            return declared.default
        value = self._params[name]
        if not isinstance(value, str):
            return value
        try:
            return _settings.convert(value, declared.type)
        except ValueError as exc:
            raise UserError("data", f"parameter {name!r}: {exc}") from exc

    def _secret(self, name: str) -> Any:
        if name not in self._secrets:
            raise UserError("data", f"secret {name!r} has no value; give secrets={{{name!r}: ...}} (--secret {name} takes it from the environment)")
        return self._secrets[name]


@contextlib.contextmanager
def _loaded(lake: Lake, path: str) -> Iterator[Callable[[str], Callable[..., Any]]]:
    """Load a file of the lake as a sandbox would, and forget it afterwards."""
    finders, modules, bytecode = list(sys.meta_path), set(sys.modules), sys.dont_write_bytecode
    try:
        with _alias.installed():
            yield lambda name: run.load({"path": lake.root, "module": path, "function": name}, {}, lake.files(".py"))
    finally:
        sys.meta_path[:] = finders
        sys.dont_write_bytecode = bytecode
        for name in set(sys.modules) - modules:
            spec = getattr(sys.modules[name], "__spec__", None)
            places = [getattr(spec, "origin", None), *(getattr(spec, "submodule_search_locations", None) or ())]
            if any(place and str(place).startswith(lake.root + os.sep) for place in places):
                del sys.modules[name]


_VARIABLE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|(?<![A-Za-z0-9_])\$([A-Za-z_][A-Za-z0-9_]*)""", re.DOTALL)


def _with_variables(sql: str) -> Tuple[str, List[str]]:
    """Return SQL that reads each $name as a variable, as the server does, and the names."""
    names = sorted({m.group(1) for m in _VARIABLE.finditer(sql) if m.group(1)})
    return _VARIABLE.sub(lambda m: f"getvariable('{m.group(1)}')" if m.group(1) else m.group(), sql), names


def _same_type(have: str, declared: str) -> bool:
    synonyms = {
        "INT": "INTEGER", "INT4": "INTEGER", "INT8": "BIGINT", "LONG": "BIGINT", "TEXT": "VARCHAR", "STRING": "VARCHAR", "BOOL": "BOOLEAN",
        "FLOAT8": "DOUBLE", "REAL": "FLOAT", "FLOAT4": "FLOAT", "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE", "DATETIME": "TIMESTAMP",
    }  # fmt: skip
    wanted = re.sub(r"\s*([(),])\s*", r"\1", " ".join(declared.upper().split()))
    return have.upper().replace(", ", ",") == synonyms.get(wanted, wanted)


def _view(con: Any, name: str, query: str) -> None:
    parts: Sequence[str] = ['"' + part.replace('"', '""') + '"' for part in name.split(".")]
    if len(parts) > 1:
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {parts[0]}")
    con.execute(f"CREATE OR REPLACE VIEW {'.'.join(parts)} AS {query}")


def _duckdb(what: str) -> Any:
    try:
        import duckdb
    except ImportError as exc:
        raise UserError("data", f"{what} needs duckdb in this interpreter: pip install duckdb") from exc
    return duckdb


def _arrow(result: Any) -> Any:
    """Return a DuckDB result as a pyarrow.Table, by whichever name its version has for that."""
    for name in ("to_arrow_table", "fetch_arrow_table"):
        if hasattr(result, name):
            return getattr(result, name)()
    return result.arrow()
