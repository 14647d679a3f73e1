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
and return the function itself, so it can be called in a test or a notebook with
tables of one's own; ``headgate.local_run`` calls it with those of a checkout.
This module imports nothing but the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any as _Any

from ._declarations import (
    Declaration,
    Model,
    Parameter,
    Secret,
    declaration,
    expectation,
    inputs,
    model,
    python,
    resources,
)
from ._schema import (
    AnyType,
    Binary,
    Bool,
    Date32,
    Date64,
    FieldType,
    Float64,
    Int32,
    Int64,
    String,
    TableField,
    TableSchema,
    TimestampMicro,
    TimestampMicroUTC,
    TimestampNano,
    TimestampNanoUTC,
)

if TYPE_CHECKING:
    from ._local import local_run as local_run

Any = AnyType

__all__ = [
    "Any",
    "Binary",
    "Bool",
    "Date32",
    "Date64",
    "Declaration",
    "FieldType",
    "Float64",
    "Int32",
    "Int64",
    "Model",
    "Parameter",
    "Secret",
    "String",
    "TableField",
    "TableSchema",
    "TimestampMicro",
    "TimestampMicroUTC",
    "TimestampNano",
    "TimestampNanoUTC",
    "declaration",
    "expectation",
    "inputs",
    "model",
    "python",
    "resources",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:
    if name == "local_run":  # not loaded in a sandbox, where a start counts; nor is it a part of import *
        from ._local import local_run

        return local_run
    if name == "Client":
        raise AttributeError("headgate has no Client: a function has no network, and outside of one git is the client")
    raise AttributeError(f"module 'headgate' has no attribute {name!r}")
