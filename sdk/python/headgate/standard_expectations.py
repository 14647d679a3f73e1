"""Expectations that most tables share, as functions from a table to a bool::

    from headgate.standard_expectations import expect_column_no_nulls

    @headgate.expectation()
    def days_are_known(table=headgate.Model("daily_delay", columns=["day"])):
        assert expect_column_no_nulls(table, "day")

What all have in common: a NULL is the absence of a value, and NaN is a value. A
table without rows satisfies what is said of every row, and nothing that is said
of some row or of a mean. A column that is not there is a ``KeyError``, and one
whose type cannot be judged a ``TypeError``: neither is a failed expectation.

When one is not met, :func:`last_failure` says why; the server shows that to
whoever pushed if the expectation that called it fails without a message of its own.
"""

from __future__ import annotations

import difflib
from typing import Any, Callable, List, Optional, Sequence

__all__ = [
    "expect_column_accepted_values",
    "expect_column_all_null",
    "expect_column_all_unique",
    "expect_column_equal_concatenation",
    "expect_column_mean_greater_or_equal_than",
    "expect_column_mean_greater_than",
    "expect_column_mean_smaller_or_equal_than",
    "expect_column_mean_smaller_than",
    "expect_column_no_nulls",
    "expect_column_not_unique",
    "expect_column_some_null",
    "last_failure",
]

_failures: List[str] = []


def last_failure() -> str:
    """Return why the last expectation that was not met was not, or ""."""
    return _failures[-1] if _failures else ""


def forget_failure() -> None:
    """Make :func:`last_failure` return "" until an expectation is not met again."""
    _failures.clear()


def expect_column_accepted_values(table: Any, column_name: str, accepted_values: Sequence[Any]) -> bool:
    """Tell whether every value of the column is one of accepted_values. NULL is one only if None is among them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _one_zero(_column(table, column_name))
    try:
        accepted = _one_zero(pa.array(list(accepted_values), type=column.type))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, OverflowError) as exc:
        raise TypeError(f"accepted_values are not of column {column_name!r}'s type {column.type}: {_line(exc)}") from exc
    try:
        outside = column.filter(pc.invert(pc.is_in(column, value_set=accepted)))
    except pa.ArrowNotImplementedError as exc:
        raise _unjudged(column_name, column, "compared") from exc
    if len(outside) == 0:
        return True
    shown = ", ".join(_shown(value) for value in pc.unique(outside)[:5].to_pylist())
    return _not_met(f"column {column_name!r} has {len(outside)} of {len(column)} values that are not accepted, among them {shown}")


def expect_column_all_null(table: Any, column_name: str) -> bool:
    """Tell whether every value of the column is NULL."""
    column = _column(table, column_name)
    known = len(column) - column.null_count
    return known == 0 or _not_met(f"column {column_name!r} has {known} of {len(column)} values that are not NULL")


def expect_column_some_null(table: Any, column_name: str) -> bool:
    """Tell whether at least one value of the column is NULL."""
    column = _column(table, column_name)
    return column.null_count > 0 or _not_met(f"column {column_name!r} has no NULL in {len(column)} values")


def expect_column_no_nulls(table: Any, column_name: str) -> bool:
    """Tell whether no value of the column is NULL."""
    column = _column(table, column_name)
    nulls = column.null_count
    return nulls == 0 or _not_met(f"column {column_name!r} has {nulls} NULLs in {len(column)} values")


def expect_column_all_unique(table: Any, column_name: str) -> bool:
    """Tell whether no value of the column occurs twice. Two NULLs are a repetition, and so are two NaNs."""
    rows, distinct = _counts(table, column_name)
    return rows == distinct or _not_met(f"column {column_name!r} has {distinct} distinct values in {rows} rows")


def expect_column_not_unique(table: Any, column_name: str) -> bool:
    """Tell whether some value of the column occurs twice; see :func:`expect_column_all_unique`."""
    rows, distinct = _counts(table, column_name)
    return distinct < rows or _not_met(f"column {column_name!r} has {rows} values, all distinct")


def expect_column_equal_concatenation(
    table: Any, target_column: str, columns: Sequence[str], separator: str = ""
) -> bool:
    """Tell whether target_column is the concatenation of columns, as texts, with separator between them.

    Rows in which one of these columns or the target is NULL are not compared.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not columns:
        raise TypeError("expect_column_equal_concatenation needs the columns to concatenate")
    target, *parts = [_text(name, _column(table, name)) for name in (target_column, *columns)]
    joined = pc.binary_join_element_wise(*parts, pa.scalar(separator, pa.large_string()))
    differs = pc.fill_null(pc.not_equal(joined, target), False)
    wrong = pc.sum(differs).as_py() or 0
    if wrong == 0:
        return True
    has, want = (values.filter(differs)[0].as_py() for values in (target, joined))
    return _not_met(
        f"column {target_column!r} is not the concatenation of {', '.join(columns)} in {wrong} of {len(target)} rows: "
        f"it has {_shown(has)}, they give {_shown(want)}"
    )


def expect_column_mean_greater_than(table: Any, column_name: str, value: float) -> bool:
    """Tell whether the mean of the column is greater than value. NULLs do not count; without a value there is no mean."""
    return _mean(table, column_name, value, "greater than", lambda mean: bool(mean > value))


def expect_column_mean_greater_or_equal_than(table: Any, column_name: str, value: float) -> bool:
    """Tell whether the mean of the column is value or greater; see :func:`expect_column_mean_greater_than`."""
    return _mean(table, column_name, value, "at least", lambda mean: bool(mean >= value))


def expect_column_mean_smaller_than(table: Any, column_name: str, value: float) -> bool:
    """Tell whether the mean of the column is smaller than value; see :func:`expect_column_mean_greater_than`."""
    return _mean(table, column_name, value, "smaller than", lambda mean: bool(mean < value))


def expect_column_mean_smaller_or_equal_than(table: Any, column_name: str, value: float) -> bool:
    """Tell whether the mean of the column is value or smaller; see :func:`expect_column_mean_greater_than`."""
    return _mean(table, column_name, value, "at most", lambda mean: bool(mean <= value))


def _mean(table: Any, column_name: str, value: float, relation: str, holds: Callable[[Any], bool]) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _column(table, column_name)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)):
        raise _unjudged(column_name, column, "averaged")
    if pa.types.is_integer(kind) or pa.types.is_float16(kind):
        column = column.cast(pa.float64(), safe=False)  # a sum of 64-bit integers would wrap around
    mean = _decimal_mean(column, value) if pa.types.is_decimal(kind) else pc.mean(column).as_py()
    if mean is None:
        return _not_met(f"column {column_name!r} has no values, so no mean that is {relation} {value}")
    return holds(mean) or _not_met(f"the mean of column {column_name!r} is {mean}, not {relation} {value}")


def _decimal_mean(column: Any, value: Any) -> Any:
    """Return the mean, which pyarrow would round to the column's scale, and whose sum would wrap around.

    It is a float where it is compared with one: 0.1 means Decimal("0.1") there.
    """
    import decimal

    import pyarrow as pa
    import pyarrow.compute as pc

    known = len(column) - column.null_count
    if known == 0:
        return None
    total = pc.sum(column.cast(pa.decimal256(76, column.type.scale))).as_py()
    with decimal.localcontext() as context:
        context.prec = 100
        mean = total / known
    return float(mean) if isinstance(value, float) else mean


def _counts(table: Any, column_name: str) -> "tuple[int, int]":
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _one_zero(_column(table, column_name))
    try:
        return len(column), pc.count_distinct(column, mode="all").as_py()
    except pa.ArrowNotImplementedError as exc:
        raise _unjudged(column_name, column, "compared") from exc


def _column(table: Any, name: str) -> Any:
    import pyarrow as pa

    names = table.schema.names
    if name not in names:
        near: Optional[str] = next(iter(difflib.get_close_matches(name, names, n=1)), None)
        raise KeyError(f"the table has no column {name!r} ({f'did you mean {near!r}?' if near else 'it has ' + ', '.join(names)})")
    column = table.column(name)
    if isinstance(column, pa.Array):
        column = pa.chunked_array([column])
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column


def _one_zero(values: Any) -> Any:
    """Return values in which -0.0 is 0.0: they are equal, which pyarrow's hashes do not know."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_float32(values.type) or pa.types.is_float64(values.type):
        return pc.add(values, pa.scalar(0.0, values.type))
    return values


def _text(name: str, column: Any) -> Any:
    import pyarrow as pa

    try:
        return column.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
        raise _unjudged(name, column, "written as a text") from exc


def _unjudged(name: str, column: Any, verb: str) -> TypeError:
    return TypeError(f"column {name!r} has type {column.type}, which cannot be {verb}")


def _not_met(why: str) -> bool:
    _failures[:] = [why]
    return False


def _shown(value: Any) -> str:
    return f"{value!r:.60}"


def _line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0]
