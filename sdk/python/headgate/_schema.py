"""Schemas as classes: columns with their types, and whether they may be NULL.

The server reads such a class from the source text; this module is what it is
when the file runs.
"""

from __future__ import annotations

import sys
import typing
from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Optional, Sequence, Type


class _FieldMeta(type):
    if sys.version_info < (3, 10):

        def __or__(cls, other: Any) -> Any:
            return typing.Union[cls, other]

        def __ror__(cls, other: Any) -> Any:
            return typing.Union[other, cls]


class FieldType(metaclass=_FieldMeta):
    """A column's type, named in the annotation of a :class:`TableSchema`'s field."""

    duckdb: Optional[str] = None  # None: any type


class AnyType(FieldType):
    """A column of any type: lists, structs and decimals among them."""


class Bool(FieldType):
    """BOOLEAN."""

    duckdb = "BOOLEAN"


class Int32(FieldType):
    """INTEGER, 32 bits."""

    duckdb = "INTEGER"


class Int64(FieldType):
    """BIGINT, 64 bits."""

    duckdb = "BIGINT"


class Float64(FieldType):
    """DOUBLE, 64 bits."""

    duckdb = "DOUBLE"


class String(FieldType):
    """VARCHAR, UTF-8 text."""

    duckdb = "VARCHAR"


class Date32(FieldType):
    """DATE."""

    duckdb = "DATE"


class Date64(FieldType):
    """DATE; Parquet has one kind only."""

    duckdb = "DATE"


class TimestampMicro(FieldType):
    """TIMESTAMP, microseconds, without a time zone."""

    duckdb = "TIMESTAMP"


class TimestampNano(FieldType):
    """TIMESTAMP_NS, nanoseconds, without a time zone."""

    duckdb = "TIMESTAMP_NS"


class TimestampMicroUTC(FieldType):
    """TIMESTAMP WITH TIME ZONE, microseconds, UTC."""

    duckdb = "TIMESTAMP WITH TIME ZONE"


class TimestampNanoUTC(FieldType):
    """TIMESTAMP WITH TIME ZONE; it is kept in microseconds."""

    duckdb = "TIMESTAMP WITH TIME ZONE"


class Binary(FieldType):
    """BLOB."""

    duckdb = "BLOB"


FIELD_TYPES: Dict[str, Type[FieldType]] = {
    "Any": AnyType,
    **{
        kind.__name__: kind
        for kind in (
            Bool, Int32, Int64, Float64, String, Date32, Date64, TimestampMicro, TimestampNano,
            TimestampMicroUTC, TimestampNanoUTC, Binary,
        )
    },
}  # fmt: skip


@dataclass(frozen=True)
class TableField:
    """What else is known of a field: ``Annotated[Int64, TableField(doc="...")]``. It has no effect on a run."""

    doc: Optional[str] = None
    lineage: Any = None


class TableSchema:
    """The columns of a table, in order, as the fields of a class::

        class Daily(headgate.TableSchema):
            day: headgate.Date32
            delay_mean: Optional[headgate.Float64]

    A field that is not Optional is required: no row of it is NULL.
    """


class Field(NamedTuple):
    """One field of a :class:`TableSchema`."""

    duckdb: Optional[str]  # its type as DuckDB names it; None: any
    required: bool


def fields(schema: Type[TableSchema]) -> Dict[str, Field]:
    """Return the fields of a schema class by name, in order."""
    found: Dict[str, Field] = {}
    for name, hint in typing.get_type_hints(schema, include_extras=True).items():
        kind, required = _unwrap(hint)
        found[name] = Field(kind.duckdb, required)
    return found


def _unwrap(hint: Any) -> "tuple[Type[FieldType], bool]":
    if hasattr(hint, "__metadata__"):
        hint = hint.__origin__
    options: Sequence[Any] = typing.get_args(hint)
    if not options:
        options = (hint,)
    kinds = [o for o in options if o is not type(None)]
    if len(kinds) != 1 or not (isinstance(kinds[0], type) and issubclass(kinds[0], FieldType)):
        raise TypeError(f"{hint!r} is not a field type such as headgate.Int64")
    return kinds[0], len(kinds) == len(options)
