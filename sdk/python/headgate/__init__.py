"""Declare the models and expectations of a Headgate lake.

A model is a function from tables to one table. Its inputs are default
arguments, and what it returns is the table::

    import headgate

    @headgate.model(key=["day"])
    @headgate.python("3.11", pip={"pandas": "2.2.2"})
    def daily_delay(flights=headgate.Model("flights", columns=["day", "delay"])):
        return flights.group_by("day").aggregate([("delay", "mean")])

    @headgate.expectation()
    def delay_is_known(table=headgate.Model("daily_delay")):
        return table["delay_mean"].null_count == 0

The server reads declarations from the source text and runs functions only in a
sandbox. Outside one, the decorators keep their arguments in ``__headgate__``
and return the function itself, so it can be called in a test or a notebook
with tables of one's own. This module imports nothing but the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Sequence, TypeVar, Union, overload

__all__ = [
    "Declaration",
    "Model",
    "Parameter",
    "declaration",
    "expectation",
    "model",
    "python",
    "resources",
]

__version__ = "0.1.0"

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Model:
    """An input table, given as the default of a function's argument.

    columns reads only those columns, in that order; filter is a SQL boolean
    expression over the table's columns, applied before the function sees it.
    In an expectation, ``base.<table>`` is the table as it was before the push.
    """

    name: str
    columns: Optional[Sequence[str]] = None
    filter: Optional[str] = None


@dataclass(frozen=True)
class Parameter:
    """A value given with the push (``git push -o param.<name>=<value>``).

    A push without the value is refused.
    """

    name: str


@dataclass
class Declaration:
    """What the decorators of one function say; see :func:`declaration`."""

    kind: Optional[str] = None  # "model" or "expectation"
    name: Optional[str] = None
    columns: Optional[Sequence[str]] = None
    key: Optional[Sequence[str]] = None
    materialization_strategy: str = "REPLACE"
    python: Optional[str] = None
    pip: Dict[str, str] = field(default_factory=dict)
    memory: Union[str, int, None] = None
    timeout: Union[str, int, None] = None


def declaration(function: Callable[..., Any]) -> Optional[Declaration]:
    """Return what the decorators of function say, or None if it has none."""
    found = getattr(function, "__headgate__", None)
    return found if isinstance(found, Declaration) else None


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
    columns: Optional[Sequence[str]] = ...,
    *,
    key: Optional[Sequence[str]] = ...,
    materialization_strategy: Optional[str] = ...,
) -> Callable[[_F], _F]: ...


def model(
    name: Any = None,
    columns: Optional[Sequence[str]] = None,
    *,
    key: Optional[Sequence[str]] = None,
    materialization_strategy: Optional[str] = None,
) -> Any:
    """Declare a function as the model of one table.

    name is the table ("daily_delay", "mart.daily_delay"; default: the
    function's name). columns, if given, are exactly the columns it must return.
    key names the columns that identify a row: unique and not null.
    """
    if callable(name):
        return _keep(name, kind="model", name=name.__name__)

    def decorate(function: _F) -> _F:
        return _keep(
            function,
            kind="model",
            name=name or function.__name__,
            columns=columns,
            key=key,
            materialization_strategy=materialization_strategy or "REPLACE",
        )

    return decorate


@overload
def expectation(name: _F) -> _F: ...
@overload
def expectation(name: Optional[str] = ...) -> Callable[[_F], _F]: ...


def expectation(name: Any = None) -> Any:
    """Declare a function as a verifier.

    It passes by returning True (or None), and fails by returning False or by a
    failing ``assert``, whose message is shown to whoever pushed.
    """
    if callable(name):
        return _keep(name, kind="expectation", name=name.__name__)

    def decorate(function: _F) -> _F:
        return _keep(function, kind="expectation", name=name or function.__name__)

    return decorate


def python(version: Optional[str] = None, pip: Optional[Dict[str, str]] = None) -> Callable[[_F], _F]:
    """Declare the Python version ("3.11") and packages ({"pandas": "2.2.2"}) of a function."""
    return lambda function: _keep(function, python=version, pip=dict(pip or {}))


def resources(
    memory: Union[str, int, None] = None, timeout: Union[str, int, None] = None
) -> Callable[[_F], _F]:
    """Declare a function's limits: memory ("2GiB", or bytes) and timeout ("5m", or seconds)."""
    return lambda function: _keep(function, memory=memory, timeout=timeout)
