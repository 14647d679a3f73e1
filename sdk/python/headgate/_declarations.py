"""What a lake's files say of their functions: decorators and inputs.

This is the run-time side. The server reads the same from the source text
(``_sandbox/declare.py``), so what is refused is worded here, once, for both.
"""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar, Union, overload

from ._schema import TableSchema, fields

_F = TypeVar("_F", bound=Callable[..., Any])

Columns = Union[Sequence[str], Mapping[str, str], None]

STRATEGIES = ("NONE", "REPLACE", "APPEND", "OVERWRITE_PARTITIONS")
SEVERITIES = ("error", "warn")

_CONNECTOR = "inputs are tables of the lake; there are no connectors to other engines: import the data with `headgate import`"

# Keywords of Bauplan that have no counterpart, by the callable that takes them.
REFUSED: Dict[str, Dict[str, str]] = {
    "model": {
        "internet_access": "functions have no network; bring what the model would fetch into a source table",
        "overwrite_filter": "OVERWRITE_PARTITIONS replaces the partitions (values of partitioned_by) that occur in what the "
        "model returns, so it takes no filter",
    },
    "resources": {"memory_swap": "sandboxes have no swap; give memory="},
    "Model": {
        "ref": "an input is the table of the commit that is run; in an expectation, base.<table> is the table before the push",
        "connector": _CONNECTOR,
        "connector_config_key": _CONNECTOR,
        "connector_config_uri": _CONNECTOR,
    },
}
REFUSED_DECORATORS: Dict[str, str] = {
    "extras": "it installs parts of the package bauplan, which is not used here; declare packages by @python(pip={...})",
    "pyspark": "there is no Spark; use duckdb, polars, pandas or pyarrow",
}
REFUSED_CACHE = (
    "results are kept by content (code, inputs, environment, parameters), so there is no strategy NONE: a push with "
    "-o no-cache runs everything again"
)


def refused(callable_name: str, given: Mapping[str, Any]) -> Optional[Tuple[str, str]]:
    """Return the first keyword that cannot be supported, and why; None if there is none."""
    for name, value in given.items():
        if value is None or value is False:
            continue
        if name == "cache_strategy" and str(value).upper() != "DEFAULT":
            return name, REFUSED_CACHE
        reason = REFUSED.get(callable_name, {}).get(name)
        if reason is not None:
            return name, reason
    return None


def _refuse(callable_name: str, **given: Any) -> None:
    found = refused(callable_name, given)
    if found is not None:
        raise TypeError(f"{callable_name}: {found[0]} is not supported: {found[1]}")


@dataclass(frozen=True)
class Model:
    """An input table, given as the default of a function's argument.

    columns reads only those columns, in that order; filter is a SQL boolean
    expression over the table's columns, applied before the function sees it.
    projection_schema is a :class:`TableSchema` whose fields are the columns, and
    whose types are checked. In an expectation, ``base.<table>`` is the table as
    it was before the push.
    """

    name: str
    columns: Optional[Sequence[str]] = None
    filter: Optional[str] = None
    ref: Optional[str] = field(default=None, repr=False)
    connector: Optional[str] = field(default=None, repr=False)
    connector_config_key: Optional[str] = field(default=None, repr=False)
    connector_config_uri: Optional[str] = field(default=None, repr=False)
    projection_schema: Optional[Type[TableSchema]] = None

    def __post_init__(self) -> None:
        _refuse(
            "Model",
            ref=self.ref,
            connector=self.connector,
            connector_config_key=self.connector_config_key,
            connector_config_uri=self.connector_config_uri,
        )

    def select(self) -> Optional[List[str]]:
        """Return the names of the columns that are read, None for all."""
        if self.projection_schema is not None:
            return list(fields(self.projection_schema))
        if self.columns is None or list(self.columns) == ["*"]:
            return None
        return list(self.columns)


class Parameter:
    """A value given with the push (``git push -o param.<name>=<value>``).

    Its type and default are those of ``parameters`` in ``headgate.yaml``. A push
    without the value of one that has no default is refused.
    """

    def __init__(self, param_name: Optional[str] = None, *, name: Optional[str] = None) -> None:
        if (param_name is None) == (name is None):
            raise TypeError('Parameter takes one name: Parameter("day")')
        self.name: str = param_name or name or ""

    def __repr__(self) -> str:
        return f"Parameter({self.name!r})"


@dataclass(frozen=True)
class Secret:
    """A secret of the lake (``ssh host secret set``), given to a model as a text.

    Only models that the policy names get it, and it is masked in all that the
    function says.
    """

    name: str


Input = Union[Model, Parameter, Secret]


@dataclass
class Declaration:
    """What the decorators of one function say; see :func:`declaration`."""

    kind: Optional[str] = None  # "model" or "expectation"
    name: Optional[str] = None
    columns: Optional[List[str]] = None
    types: Dict[str, str] = field(default_factory=dict)  # of columns that declare one, as DuckDB names it
    key: Optional[Sequence[str]] = None
    materialization_strategy: Optional[str] = None
    partitioned_by: Optional[List[str]] = None
    severity: Optional[str] = None
    python: Optional[str] = None
    pip: Dict[str, str] = field(default_factory=dict)
    memory: Union[str, int, None] = None
    timeout: Union[str, int, float, None] = None
    cpus: Union[int, float, None] = None
    pids: Optional[int] = None


def declaration(function: Callable[..., Any]) -> Optional[Declaration]:
    """Return what the decorators of function say, or None if it has none."""
    found = getattr(function, "__headgate__", None)
    return found if isinstance(found, Declaration) else None


def inputs(function: Callable[..., Any]) -> Dict[str, Input]:
    """Return the arguments of function that are given by the lake."""
    found: Dict[str, Input] = {}
    hints = _hints(function)
    for argument, spec in inspect.signature(function).parameters.items():
        for candidate in (spec.default, *_extras(hints.get(argument))):
            if isinstance(candidate, (Model, Parameter, Secret)):
                found[argument] = candidate
                break
    return found


def returned_schema(function: Callable[..., Any]) -> Optional[Type[TableSchema]]:
    """Return the TableSchema of ``-> Annotated[pyarrow.Table, Schema]``, if it has one."""
    for candidate in _extras(_hints(function).get("return")):
        if isinstance(candidate, type) and issubclass(candidate, TableSchema):
            return candidate
    return None


def _hints(function: Callable[..., Any]) -> Dict[str, Any]:
    """Return the annotations of function. One that does not resolve says nothing, and hides no other."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:
        pass
    found: Dict[str, Any] = {}
    for name, hint in getattr(function, "__annotations__", {}).items():
        try:
            found[name] = eval(hint, getattr(function, "__globals__", {})) if isinstance(hint, str) else hint
        except Exception:
            continue
    return found


def _extras(hint: Any) -> Tuple[Any, ...]:
    """Return what stands beside the type in Annotated[...]."""
    found: Tuple[Any, ...] = getattr(hint, "__metadata__", ())
    if not found and typing.get_origin(hint) is Union:
        # Before Python 3.11 a default of None made an annotation Optional.
        for option in typing.get_args(hint):
            found += tuple(getattr(option, "__metadata__", ()))
    return found


def _keep(function: _F, **settings: Any) -> _F:
    kept = declaration(function)
    if kept is None:
        kept = Declaration()
        function.__headgate__ = kept  # type: ignore[attr-defined]
    if settings.get("kind") and kept.kind:
        raise TypeError(f"{function.__name__} is already declared as {kept.kind}")
    for name, value in settings.items():
        setattr(kept, name, value)
    return function


@overload
def model(name: _F) -> _F: ...
@overload
def model(
    name: Optional[str] = ...,
    columns: Columns = ...,
    *,
    key: Optional[Sequence[str]] = ...,
    materialization_strategy: Optional[str] = ...,
    partitioned_by: Union[str, Sequence[str], None] = ...,
    cache_strategy: Optional[str] = ...,
    internet_access: Optional[bool] = ...,
    overwrite_filter: Optional[str] = ...,
    materialize: Optional[bool] = ...,
) -> Callable[[_F], _F]: ...


def model(
    name: Any = None,
    columns: Columns = None,
    *,
    key: Optional[Sequence[str]] = None,
    materialization_strategy: Optional[str] = None,
    partitioned_by: Union[str, Sequence[str], None] = None,
    cache_strategy: Optional[str] = None,
    internet_access: Optional[bool] = None,
    overwrite_filter: Optional[str] = None,
    materialize: Optional[bool] = None,
) -> Any:
    """Declare a function as the model of one table.

    name is the table ("daily_delay", "mart.daily_delay"; default: the
    function's name). columns are those that it must return: a list of names, or
    a dict of names to DuckDB types; so does a :class:`TableSchema` in the return
    annotation. key names the columns that identify a row: unique and not null.

    materialization_strategy is what becomes of the result: REPLACE (the
    default) is the table, APPEND follows the rows of the table before the push,
    OVERWRITE_PARTITIONS replaces those partitions, by partitioned_by, that occur
    in it, NONE feeds other models and is not stored. materialize=True and False
    are older words for REPLACE and NONE.
    """
    if callable(name):
        return _keep(name, kind="model", name=name.__name__)
    _refuse("model", cache_strategy=cache_strategy, internet_access=internet_access, overwrite_filter=overwrite_filter)
    if materialize is not None and materialization_strategy is None:
        materialization_strategy = "REPLACE" if materialize else "NONE"
    names, types = split_columns(columns)

    def decorate(function: _F) -> _F:
        declared, kinds = names, types
        schema = returned_schema(function)
        if schema is not None and declared is None:
            declared = list(fields(schema))
            kinds = {column: f.duckdb for column, f in fields(schema).items() if f.duckdb}
        return _keep(
            function,
            kind="model",
            name=name or function.__name__,
            columns=declared,
            types=kinds,
            key=key,
            materialization_strategy=materialization_strategy,
            partitioned_by=partitions(partitioned_by),
        )

    return decorate


def split_columns(columns: Columns) -> Tuple[Optional[List[str]], Dict[str, str]]:
    """Return the names that columns= says, None for any, and the types of those that have one."""
    if columns is None or list(columns) == ["*"]:
        return None, {}
    if isinstance(columns, Mapping):
        return list(columns), {name: kind for name, kind in columns.items() if kind}
    return list(columns), {}


def partitions(said: Union[str, Sequence[str], None]) -> Optional[List[str]]:
    """Return the items of partitioned_by: "hour(ts), location" are two."""
    if not said:
        return None
    items = said if not isinstance(said, str) else _split(said)
    return [item.strip() for item in items]


def _split(text: str) -> List[str]:
    items, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            items.append("")
        else:
            items[-1] += letter
    return items


@overload
def expectation(name: _F) -> _F: ...
@overload
def expectation(name: Optional[str] = ..., *, severity: Optional[str] = ...) -> Callable[[_F], _F]: ...


def expectation(name: Any = None, *, severity: Optional[str] = None) -> Any:
    """Declare a function as a verifier.

    It passes by returning True (or None), and fails by returning False or by a
    failing ``assert``, whose message is shown to whoever pushed. With the severity
    "warn" a failure is a warning, which refuses a push with ``-o strict`` only; one
    that cannot be evaluated refuses whatever its severity is.
    """
    if severity is not None and severity.lower() not in SEVERITIES:
        raise ValueError(f"severity must be one of {', '.join(SEVERITIES)}, not {severity!r}")
    if callable(name):
        return _keep(name, kind="expectation", name=name.__name__)

    def decorate(function: _F) -> _F:
        return _keep(function, kind="expectation", name=name or function.__name__, severity=severity)

    return decorate


def python(version: Optional[str] = None, pip: Optional[Mapping[str, str]] = None) -> Callable[[_F], _F]:
    """Declare the Python version ("3.11") and packages ({"pandas": "2.2.2"}) of a function."""
    return lambda function: _keep(function, python=version, pip=dict(pip or {}))


def resources(
    memory: Union[str, int, None] = None,
    timeout: Union[str, int, float, None] = None,
    cpus: Union[int, float, None] = None,
    pids: Optional[int] = None,
    *,
    memory_swap: Union[str, int, None] = None,
) -> Callable[[_F], _F]:
    """Declare a function's limits, below the server's.

    memory is "2GiB", or bytes; timeout "5m", or seconds; cpus how many it may
    use (0.5, 2); pids how many processes and threads it may have.
    """
    _refuse("resources", memory_swap=memory_swap)
    return lambda function: _keep(function, memory=memory, timeout=timeout, cpus=cpus, pids=pids)
