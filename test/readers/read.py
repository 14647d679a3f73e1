"""Reads a table's parts as others do, and prints the values.

read.py pyarrow|pandas|polars|arrow COLUMNS.json FILE... prints for each column its name
and its values in the spelling of zoo.py, as one JSON document. COLUMNS.json says of
which kind a column must be; its values are not looked at.
"""

import json
import struct
import sys

import pyarrow as pa
import pyarrow.parquet as pq


def expect(holds, array, kind):
    if not holds:
        raise TypeError(f"{array.type} is no {kind}")


def days_and_more(array, kind):
    """Returns the integers behind dates and times; Python's own types end in year 9999."""
    t = array.type
    match kind["k"]:
        case "date":
            expect(t == pa.date32(), array, kind)
        case "time":
            if t == pa.time64("ns"):  # the only one that polars has
                nanos = array.view(pa.int64()).to_pylist()
                expect(all(v is None or v % 1000 == 0 for v in nanos), array, kind)
                return [None if v is None else v // 1000 for v in nanos]
            expect(t == pa.time64("us"), array, kind)
        case "time_ns":
            expect(t == pa.time64("ns"), array, kind)
        case "timestamp":
            expect(t == pa.timestamp(kind["unit"], t.tz) and (t.tz is not None) == kind["utc"], array, kind)
    return array.view(pa.int32() if t.bit_width == 32 else pa.int64()).to_pylist()


def spell(array, kind):
    """Returns an array's values as JSON."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    t, k = array.type, kind["k"]
    if k in ("date", "time", "time_ns", "timestamp"):
        return [None if v is None else str(v) for v in days_and_more(array, kind)]
    if k == "list":
        expect(pa.types.is_list(t) or pa.types.is_large_list(t), array, kind)
        return [None if v is None else spell(v, kind["of"]) for v in (x.values if x.is_valid else None for x in array)]
    if k == "map":
        # A map is a list of pairs to who knows no maps.
        out = []
        for x in array:
            if not x.is_valid:
                out.append(None)
                continue
            keys, values = x.values.flatten()
            out.append([list(p) for p in zip(spell(keys, kind["key"]), spell(values, kind["value"]))])
        return out
    if k == "struct":
        fields = [(n, spell(array.field(n), f)) for n, f in kind["fields"]]
        return [{n: v[i] for n, v in fields} if array[i].is_valid else None for i in range(len(array))]
    values = array.to_pylist()
    match k:
        case "int":
            expect(pa.types.is_integer(t), array, kind)
            to = str
        case "float":
            expect(t == (pa.float32() if kind["bits"] == 32 else pa.float64()), array, kind)
            to = repr
        case "decimal":
            expect(pa.types.is_decimal(t) and t.scale == kind["scale"], array, kind)
            to = lambda v: format(v, "f")  # noqa: E731
        case "bool":
            to = lambda v: {True: "true", False: "false"}[v]  # noqa: E731
        case "text":
            to = lambda v: v.decode() if isinstance(v, bytes) else v  # noqa: E731 - polars takes JSON for bytes
        case "binary" | "uuid":
            to = bytes.hex
        case "interval":
            # In Arrow it has nanoseconds.
            to = lambda v: ",".join(map(str, struct.unpack("<III", v) if isinstance(v, bytes) else (v[0], v[1], v[2] // 1_000_000)))  # noqa: E731
    return [None if v is None else to(v) for v in values]


def with_pyarrow(paths):
    return pa.concat_tables(pq.ParquetFile(p).read() for p in paths)


def with_pandas(paths):
    """pandas' own types have no NULLs for integers and end in 2262, hence its Arrow ones."""
    import pandas

    frame = pandas.concat([pandas.read_parquet(p, dtype_backend="pyarrow") for p in paths])
    return pa.table([pa.chunked_array(frame[c].array.__arrow_array__()) for c in frame.columns], names=list(frame.columns))


def with_polars(paths):
    """polars has no type for intervals, and fails on a file with one."""
    import polars

    return polars.concat([polars.read_parquet(p, glob=False, hive_partitioning=False) for p in paths]).to_arrow()


def with_arrow(paths):
    """Files and streams of Arrow's."""
    tables = []
    for p in paths:
        with open(p, "rb") as f:
            new = pa.ipc.open_file if f.read(6) == b"ARROW1" else pa.ipc.open_stream
        with pa.OSFile(p) as f:
            tables.append(new(f).read_all())
    return pa.concat_tables(tables)


def main(engine, columns, *paths):
    with open(columns) as f:
        expected = {c["name"]: c["kind"] for c in json.load(f)}
    table = {"pyarrow": with_pyarrow, "pandas": with_pandas, "polars": with_polars, "arrow": with_arrow}[engine](paths)
    out = []
    for name, column in zip(table.column_names, table.columns):
        values = []
        for chunk in column.chunks:
            try:
                values += spell(chunk, expected[name])
            except Exception as e:
                raise RuntimeError(f"column {name!r}") from e
        out.append({"name": name, "values": values})
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
