"""Tables in and out of a function: Parquet parts to Arrow, and whatever it returned to Parquet."""

import difflib
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from .._schema import Field
from .errors import UserError, shown, type_name
from .types import arrow_extensions, to_arrow, to_duckdb

_ACCEPTED = "return a pyarrow Table, a pandas or polars DataFrame, or a list of dicts"


def read(table: Dict[str, Any], threads: int) -> Any:
    """Return the parts of an input table as one pyarrow.Table, with the columns it selects."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = table["name"]
    if table.get("filter"):
        # The server applies filters before the function may see a row.
        raise ValueError(f"input {name} arrived with an unapplied filter")
    declared = [column["name"] for column in table.get("columns") or ()]
    select = table.get("select") or declared or None
    options: Dict[str, Any] = {"memory_map": True, "pre_buffer": False}
    if arrow_extensions():
        options["arrow_extensions_enabled"] = True
    parts: List[Any] = []
    for path in table.get("files") or ():
        with pq.ParquetFile(path, **options) as part:
            known = part.schema_arrow.names
            _check_names(name, select or known, known)
            found = part.read(columns=select, use_threads=threads > 1)
        # pandas' notes in a schema would bring back an index that the table does not have.
        parts.append(found.select(select or known).replace_schema_metadata(None))
    if parts:
        return parts[0] if len(parts) == 1 else _concat(parts)
    schema = pa.schema(
        [pa.field(c["name"], to_arrow(c["type"]), nullable=c.get("nullable", True)) for c in table.get("columns") or ()]
    )
    _check_names(name, select or [], schema.names)
    return schema.empty_table().select(select or [])


def _check_names(table: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    for column in wanted:
        if column not in known:
            close = difflib.get_close_matches(column, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
            raise UserError("data", f"input {table} has no column {column!r} ({hint})")


def check_has(table: Any, columns: Sequence[str], name: str) -> None:
    """Refuse a table that lacks a column that a function selects."""
    _check_names(name, columns, table.column_names)


def check_schema(table: Any, fields: Mapping[str, Field], schema: str, name: str) -> None:
    """Refuse an input whose columns are not what the function's schema class says of them."""
    for column, field in fields.items():
        values = table.column(column)
        kind = to_duckdb(values.type)
        if field.duckdb is not None and kind != field.duckdb:
            raise UserError("data", f"input {name}: column {column!r} is {kind}, but {schema} says {field.duckdb}")
        if field.required and values.null_count:
            raise UserError(
                "data", f"input {name}: column {column!r} has {values.null_count} NULLs, but {schema} does not say Optional"
            )


def _concat(parts: List[Any]) -> Any:
    import pyarrow as pa

    if all(part.schema.equals(parts[0].schema) for part in parts):
        return pa.concat_tables(parts)
    fields = []
    for number, field in enumerate(parts[0].schema):
        kinds = [part.schema.field(number).type for part in parts]
        widest = field.type
        for kind in kinds:
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if pa.types.is_dictionary(widest) or pa.types.is_null(widest):
                widest = kind
        fields.append(pa.field(field.name, widest))
    schema = pa.schema(fields)
    return pa.concat_tables([part.cast(schema) for part in parts])


def normalise(value: Any, what: str) -> Any:
    """Return what a model returned as a pyarrow.Table or RecordBatchReader."""
    import pyarrow as pa

    if value is None:
        raise UserError("data", f"{what} returned nothing (None); {_ACCEPTED}")
    # By its true type: what an object says of its class is the function's word.
    kind = type(value)
    if issubclass(kind, (pa.Table, pa.RecordBatchReader)):
        return value
    if issubclass(kind, pa.RecordBatch):
        return pa.Table.from_batches([value])
    if issubclass(kind, list):
        return _from_dicts(value, what)
    name = type_name(value)
    if name == "pandas.DataFrame":
        return _from_pandas(value, what)
    if name in ("polars.DataFrame", "polars.LazyFrame"):
        frame = value.collect() if name == "polars.LazyFrame" else value
        return frame.to_arrow()
    stream = hasattr(kind, "__arrow_c_stream__") and not name.endswith(".Series")
    if stream and hasattr(pa.RecordBatchReader, "from_stream"):
        try:
            return pa.RecordBatchReader.from_stream(value)
        except (TypeError, ValueError, pa.ArrowInvalid) as exc:
            raise UserError("data", f"{what} returned a {name} that is no table ({_first_line(exc)}); {_ACCEPTED}") from exc
    raise UserError("data", f"{what} returned a {name}; {_ACCEPTED}")


def _from_dicts(rows: List[Any], what: str) -> Any:
    import pyarrow as pa

    if not rows:
        raise UserError("data", f"{what} returned an empty list, so its columns are unknown; return a pyarrow Table")
    names: Dict[str, None] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError("data", f"{what} returned a list whose item {number} is a {type_name(row)}, not a dict")
        for name in row:
            if not isinstance(name, str):
                raise UserError("data", f"{what}: item {number} has the key {shown(name)}; column names are texts")
            names[name] = None
    columns = []
    for name in names:
        try:
            columns.append(pa.array([row.get(name) for row in rows]))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as exc:
            raise UserError("data", f"{what}: column {name!r} has no one type: {_first_line(exc)}") from exc
    return pa.Table.from_arrays(columns, names=list(names))


def _from_pandas(frame: Any, what: str) -> Any:
    import pyarrow as pa

    # What groupby("day") puts in the index is data; an index without a name is a row number.
    named = [name for name in frame.index.names if name is not None]
    if named:
        taken = [name for name in named if name in frame.columns]
        if taken:
            raise UserError("data", f"{what}: column {taken[0]!r} is both in the index and in the frame")
        frame = frame.reset_index(level=named)
    duplicated = frame.columns[frame.columns.duplicated()]
    if len(duplicated):
        raise UserError("data", f"{what} returned two columns named {str(duplicated[0])!r}")
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as exc:
        raise UserError("data", f"{what}: {_first_line(exc)}") from exc
    return table.replace_schema_metadata(None)


def check_columns(schema: Any, what: str) -> None:
    """Refuse a schema that cannot be a table."""
    import pyarrow as pa

    if not schema.names:
        raise UserError("data", f"{what} returned a table without columns")
    seen: Dict[str, str] = {}
    for field in schema:
        if not field.name:
            raise UserError("data", f"{what} returned a column without a name")
        other = seen.setdefault(field.name.lower(), field.name)
        if schema.get_all_field_indices(field.name)[1:]:
            raise UserError("data", f"{what} returned two columns named {field.name!r}")
        if other != field.name:
            raise UserError(
                "data", f"{what} returned columns {other!r} and {field.name!r}, which SQL cannot tell apart"
            )
        reason = _unstorable(pa, field.type)
        if reason:
            raise UserError("data", f"{what}: column {field.name!r} has type {field.type}, {reason}")


def _unstorable(pa: Any, kind: Any) -> str:
    t = pa.types
    if t.is_duration(kind):
        return "which Parquet cannot hold; convert it to a number of seconds"
    if t.is_interval(kind):
        return "which Parquet cannot hold"
    if t.is_decimal(kind) and kind.precision > 38:
        return "of more than 38 digits; cast it to decimal128"
    if t.is_union(kind):
        return "which Parquet cannot hold"
    for number in range(kind.num_fields):
        reason = _unstorable(pa, kind.field(number).type)
        if reason:
            return reason
    return ""


def write(result: Any, declared: Optional[Sequence[str]], path: str, what: str) -> Tuple[int, List[Dict[str, Any]]]:
    """Write result as Parquet; return its number of rows and its columns.

    The declared columns come first, in their order, if all are there. Whether they
    are is for the server to judge. A stream is never in memory as a whole.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_columns(result.schema, what)
    names = list(result.schema.names)
    if declared and set(declared) <= set(names):
        names = [*declared, *(name for name in names if name not in declared)]
    schema = pa.schema([_stored(pa, result.schema.field(name)) for name in names])
    rows = 0
    # The file lives for one hop inside this machine: fast to write matters, small does not.
    with pq.ParquetWriter(path, schema, compression="snappy", version="2.6", store_schema=False) as writer:
        for piece in _pieces(result, pa):
            piece = piece.select(names)
            if piece.schema != schema:
                try:
                    piece = piece.cast(schema)
                except pa.ArrowInvalid as exc:
                    raise UserError("data", f"{what}: {_first_line(exc)}") from exc
            writer.write_table(piece)
            rows += piece.num_rows
    columns = [{"name": f.name, "type": to_duckdb(f.type), "nullable": f.nullable} for f in schema]
    return rows, columns


# A row group of a stream: small batches are put together, since each group costs
# memory until the file is closed.
_GROUP_ROWS = 122_880
_GROUP_BYTES = 32 << 20


def _pieces(result: Any, pa: Any) -> Iterable[Any]:
    if isinstance(result, pa.Table):
        yield result
        return
    waiting: List[Any] = []
    rows = size = 0
    for batch in result:
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.Table.from_batches(waiting, result.schema)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.Table.from_batches(waiting, result.schema)


def _stored(pa: Any, field: Any) -> Any:
    kind = field.type
    if pa.types.is_null(kind):
        kind = pa.int32()  # what DuckDB makes of a column of NULLs
    return pa.field(field.name, kind, nullable=field.nullable)


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0]
