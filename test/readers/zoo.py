"""Writes tables of every type as users would, and what their values are.

zoo.py DIR writes for each of its tables DIR/<name>.parquet, or .arrow, and
DIR/<name>.json: its columns, each with a name, a kind and its values in the
spelling of that kind. The values come from here and from no file.

Kinds are what a table holds, as a tree: {"k": "list", "of": {"k": "int"}}. Values
are JSON: null, an array for a list, an array of pairs for a map, an object for a
struct, and else a text: digits of an integer, of a decimal with all its places,
of days, microseconds or nanoseconds since 1970 or midnight; repr() of a float;
hexadecimal digits of bytes and UUIDs; "months,days,milliseconds" of an interval.
"""

import itertools
import json
import struct
import sys
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 300

INT, TEXT, BINARY, BOOL = {"k": "int"}, {"k": "text"}, {"k": "binary"}, {"k": "bool"}
DATE, TIME, TIME_NS = {"k": "date"}, {"k": "time"}, {"k": "time_ns"}
F32, F64 = {"k": "float", "bits": 32}, {"k": "float", "bits": 64}
INTERVAL, UUID = {"k": "interval"}, {"k": "uuid"}


def ts(unit, utc=False):
    return {"k": "timestamp", "unit": unit, "utc": utc}


def decimal(scale):
    return {"k": "decimal", "scale": scale}


def list_of(kind):
    return {"k": "list", "of": kind}


def map_of(key, value):
    return {"k": "map", "key": key, "value": value}


def struct_of(**fields):
    return {"k": "struct", "fields": [[n, k] for n, k in fields.items()]}


def ints(bits, signed=True):
    if signed:
        return [0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), 42]
    return [0, 1, 2**bits - 1, 2 ** (bits - 1), 42]


def single(x):
    return struct.unpack("f", struct.pack("f", x))[0]


DOUBLES = [0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 5e-324, 1.7976931348623157e308, 0.1, -2.0**53 - 2]
SINGLES = [0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), single(1e-45), single(3.4028234e38), single(0.1)]
HALVES = [0.0, -0.0, 1.5, float("nan"), float("inf"), 65504.0, -(2.0**-24)]
TEXTS = ["", "a", "snow ☃ and 𝄞", "two\nlines\t\\ \"quoted\" 'x'", "NULL", "nul \x00 inside", "long " * 80, " ", "twelve bytes", "\ufeffmark"]
BYTES = [b"", b"\x00", b"\xff\xfe" * 9, bytes(range(256)), b"text"]
DAYS = [0, -1, 19_000, -719_528, 2_932_896, 100_000_000, -2_000_000]  # year 0, 9999, 275760, 3500 BC
MICROS = [0, 1, -1, 1_700_000_000_123_456, 253_402_300_799_999_999, -62_135_596_800_000_000, 9_000_000_000_000_000_000, -9_000_000_000_000_000]
NANOS = [0, 1, -1, 1_700_000_000_123_456_789, 9_223_372_036_854_775_806, -9_223_372_036_000_000_000]
OF_DAY = [0, 1, 86_399_999_999, 43_200_000_000]
UUIDS = ["00000000000000000000000000000000", "ffffffffffffffffffffffffffffffff", "7fffffffffffffffffffffffffffffff", "80000000000000000000000000000000", "123e4567e89b12d3a456426614174000"]


def decimals(precision, scale):
    most = Decimal((0, (9,) * precision, -scale))
    one = Decimal((0, (1,), -scale))
    return [Decimal((0, (0,), -scale)), one, -one, most, most.copy_negate()]


def spell(kind, v):
    """Returns the value as JSON."""
    if v is None:
        return None
    match kind["k"]:
        case "list":
            return [spell(kind["of"], x) for x in v]
        case "map":
            return [[spell(kind["key"], k), spell(kind["value"], x)] for k, x in v]
        case "struct":
            return {n: spell(k, v[n]) for n, k in kind["fields"]}
        case "binary":
            return v.hex()
        case "float":
            return repr(float(v))
        case "decimal":
            return format(v, "f")
        case "bool":
            return "true" if v else "false"
        case "interval":
            return ",".join(map(str, v))
        case _:
            return str(v)


class Column:
    """A column as its writer declares it, and as a table holds it.

    stored turns a value of the writer's into the table's, where they differ.
    """

    def __init__(self, name, declared, kind, values, stored=None, nulls=True):
        self.name, self.declared, self.kind, self.stored = name, declared, kind, stored
        cycle = list(values) + ([None] if nulls else [])
        self.values = list(itertools.islice(itertools.cycle(cycle), ROWS))

    def spelled(self):
        values = self.values
        if self.stored:
            values = [None if v is None else self.stored(v) for v in values]
        return {"name": self.name, "kind": self.kind, "values": [spell(self.kind, v) for v in values]}


ODD_NAMES = ["sp ace", 'qu"ote', "apos'trophe", "dot.ted.name", "ünïcödé ☃", "select", "semi;colon", "back\\slash", "new\nline", "UPPER", "comma,", "%41", "{brace}", "𝄞", " lead", "1st", "*"]
ODD = [Column(n, "BIGINT", INT, [i, -i, i * 1000]) for i, n in enumerate(ODD_NAMES)]

LISTS = [[], [1], [1, None, 3], [None], list(range(100))]
STRUCTS = [{"a": 1, "b": "x"}, {"a": None, "b": None}, {"a": 3, "b": ""}]
MAPS = [[], [("k", 1)], [("a", None), ("b", 2)]]
DEEP = [{"l": [[("k", [1.5, None])], None, []]}, {"l": None}, {"l": []}]
DEEP_KIND = struct_of(l=list_of(map_of(TEXT, list_of(F64))))


def numbers(names):
    """Integers of all widths, floats, and what both writers have alike."""
    out = []
    for bits in (8, 16, 32, 64):
        out.append(Column(f"i{bits}", names[f"i{bits}"], INT, ints(bits)))
        out.append(Column(f"u{bits}", names[f"u{bits}"], INT, ints(bits, False)))
    out.append(Column("f32", names["f32"], F32, SINGLES))
    out.append(Column("f64", names["f64"], F64, DOUBLES))
    out.append(Column("zeros", names["f64"], F64, [0.0, -0.0], nulls=False))
    out.append(Column("flag", names["bool"], BOOL, [True, False]))
    out.append(Column("text", names["text"], TEXT, TEXTS))
    out.append(Column("bytes", names["bytes"], BINARY, BYTES))
    out.append(Column("day", names["date"], DATE, DAYS))
    return out


DUCK = {
    "i8": "TINYINT", "i16": "SMALLINT", "i32": "INTEGER", "i64": "BIGINT",
    "u8": "UTINYINT", "u16": "USMALLINT", "u32": "UINTEGER", "u64": "UBIGINT",
    "f32": "FLOAT", "f64": "DOUBLE", "bool": "BOOLEAN", "text": "VARCHAR", "bytes": "BLOB", "date": "DATE",
}  # fmt: skip

DUCKDB = (
    numbers(DUCK)
    + [Column(f"d{p}_{s}", f"DECIMAL({p},{s})", decimal(s), decimals(p, s)) for p, s in ((1, 0), (4, 2), (9, 4), (18, 0), (18, 18), (19, 5), (38, 0), (38, 38))]
    + [
        Column("time", "TIME", TIME, OF_DAY),
        Column("time_ns", "TIME_NS", TIME_NS, [v * 1000 + 7 for v in OF_DAY[:-1]]),
        Column("ts_us", "TIMESTAMP", ts("us"), MICROS),
        Column("ts_tz", "TIMESTAMP WITH TIME ZONE", ts("us", True), MICROS),
        Column("ts_ns", "TIMESTAMP_NS", ts("ns"), NANOS),
        Column("ts_s", "TIMESTAMP_S", ts("us"), [0, -1, 1_700_000_000], stored=lambda v: v * 1_000_000),
        Column("ts_ms", "TIMESTAMP_MS", ts("us"), [0, -1, 1_700_000_000_123], stored=lambda v: v * 1000),
        Column("uuid", "UUID", UUID, UUIDS),
        Column("enum", "ENUM('red', 'green', 'dark blue')", TEXT, ["red", "dark blue", "green"]),
        Column("json", "JSON", TEXT, ['{"a":[1,null]}', "null", "[]"]),
        Column("all_null", "INTEGER", INT, []),
        Column("ints", "INTEGER[]", list_of(INT), LISTS),
        Column("pair", "INTEGER[2]", list_of(INT), [[1, 2], [None, 4]]),
        Column("struct", "STRUCT(a INTEGER, b VARCHAR)", struct_of(a=INT, b=TEXT), STRUCTS),
        Column("map", "MAP(VARCHAR, INTEGER)", map_of(TEXT, INT), MAPS),
        Column("deep", "STRUCT(l MAP(VARCHAR, DOUBLE[])[])", DEEP_KIND, DEEP),
        Column("zeros in lists", "DOUBLE[]", list_of(F64), [[0.0, -0.0], [-0.0], [float("nan")]]),
    ]
    + ODD
)

# Apart, because polars has no intervals, and no time at the end of a day.
APART = [
    Column("midnight", "TIME", TIME, [0, 86_400_000_000]),
    Column("interval", "INTERVAL", INTERVAL, [(0, 0, 0), (14, 3, 86_399_999), (0, 40, 1), (1200, 0, 0)]),
    Column("intervals", "INTERVAL[]", list_of(INTERVAL), [[], [(1, 2, 3), None]]),
]

ARROW = {
    "i8": pa.int8(), "i16": pa.int16(), "i32": pa.int32(), "i64": pa.int64(),
    "u8": pa.uint8(), "u16": pa.uint16(), "u32": pa.uint32(), "u64": pa.uint64(),
    "f32": pa.float32(), "f64": pa.float64(), "bool": pa.bool_(), "text": pa.string(), "bytes": pa.binary(), "date": pa.date32(),
}  # fmt: skip

PYARROW = (
    numbers(ARROW)
    + [Column(f"d{p}_{s}", pa.decimal128(p, s), decimal(s), decimals(p, s)) for p, s in ((1, 0), (4, 2), (9, 4), (18, 0), (18, 18), (19, 5), (38, 0), (38, 38))]
    + [
        Column("d32", pa.decimal32(9, 2), decimal(2), decimals(9, 2)),
        Column("d64", pa.decimal64(18, 3), decimal(3), decimals(18, 3)),
        Column("d256", pa.decimal256(38, 10), decimal(10), decimals(38, 10)),
        Column("f16", pa.float16(), F32, HALVES),
        Column("large_text", pa.large_string(), TEXT, TEXTS),
        Column("text_view", pa.string_view(), TEXT, TEXTS),
        Column("large_bytes", pa.large_binary(), BINARY, BYTES),
        Column("fixed_bytes", pa.binary(3), BINARY, [b"abc", b"\x00\x00\x00", b"\xff\xff\xff"]),
        Column("category", pa.dictionary(pa.int32(), pa.string()), TEXT, ["red", "green", ""]),
        Column("date64", pa.date64(), DATE, [0, 86_400_000, -86_400_000], stored=lambda v: v // 86_400_000),
        Column("time_s", pa.time32("s"), TIME, [0, 1, 86_399], stored=lambda v: v * 1_000_000),
        Column("time_ms", pa.time32("ms"), TIME, [0, 1, 86_399_999], stored=lambda v: v * 1000),
        Column("time_us", pa.time64("us"), TIME, OF_DAY),
        Column("time_ns", pa.time64("ns"), TIME_NS, [v * 1000 + 7 for v in OF_DAY[:-1]]),
        Column("ts_s", pa.timestamp("s"), ts("us"), [0, -1, 1_700_000_000, 9_000_000_000_000], stored=lambda v: v * 1_000_000),
        Column("ts_ms", pa.timestamp("ms"), ts("us"), [0, -1, 1_700_000_000_123], stored=lambda v: v * 1000),
        Column("ts_us", pa.timestamp("us"), ts("us"), MICROS),
        Column("ts_ns", pa.timestamp("ns"), ts("ns"), NANOS),
        Column("ts_s_tz", pa.timestamp("s", "UTC"), ts("us", True), [0, -1, 1_700_000_000], stored=lambda v: v * 1_000_000),
        Column("ts_ms_tz", pa.timestamp("ms", "Europe/Paris"), ts("us", True), [0, -1, 1_700_000_000_123], stored=lambda v: v * 1000),
        Column("ts_us_tz", pa.timestamp("us", "UTC"), ts("us", True), MICROS),
        Column("duration", pa.duration("us"), INT, [0, 1, -1, 2**62]),
        Column("uuid", pa.uuid(), UUID, UUIDS),
        Column("nothing", pa.null(), INT, []),
        Column("ints", pa.list_(pa.int32()), list_of(INT), LISTS),
        Column("large_ints", pa.large_list(pa.int64()), list_of(INT), LISTS),
        Column("pair", pa.list_(pa.int32(), 2), list_of(INT), [[1, 2], [None, 4]]),
        Column("struct", pa.struct([("a", pa.int32()), ("b", pa.string())]), struct_of(a=INT, b=TEXT), STRUCTS),
        Column("map", pa.map_(pa.string(), pa.int32()), map_of(TEXT, INT), MAPS),
        Column("deep", pa.struct([("l", pa.list_(pa.map_(pa.string(), pa.list_(pa.float64()))))]), DEEP_KIND, DEEP),
    ]
    + [Column(c.name, pa.int64(), c.kind, c.values[:3]) for c in ODD]
)


def arrow_array(t, values):
    """Builds an array without a detour over Python's dates and times, which end in year 9999."""
    if pa.types.is_null(t):
        return pa.nulls(len(values))
    if pa.types.is_temporal(t):
        width = pa.int32() if t.bit_width == 32 else pa.int64()
        return pa.array(values, width).view(t)
    if t == pa.uuid():
        return pa.ExtensionArray.from_storage(t, pa.array([None if v is None else bytes.fromhex(v) for v in values], pa.binary(16)))
    if pa.types.is_dictionary(t):
        return pa.array(values, t.value_type).dictionary_encode()
    return pa.array(values, t)


def write_pyarrow(columns, path, rows=ROWS, **options):
    table = pa.table([arrow_array(c.declared, c.values[:rows]) for c in columns], names=[c.name for c in columns])
    pq.write_table(table, path, **options)


def write_arrow(columns, path, rows=ROWS, stream=False, compression=None):
    table = pa.table([arrow_array(c.declared, c.values[:rows]) for c in columns], names=[c.name for c in columns])
    options = pa.ipc.IpcWriteOptions(compression=compression)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(path, "wb") as f, new(f, table.schema, options=options) as w:
        w.write_table(table, max_chunksize=70)


# A file of Arrow's has no other type for these in a table.
ARROW_FILE = [c for c in PYARROW if c.name not in ("d256", "f16", "duration")]


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def literal(kind, declared, v):
    """Returns the SQL of a value of the kind, as DuckDB's type declared."""
    if v is None:
        return f"CAST(NULL AS {declared})"
    text = lambda s: "'" + s.replace("'", "''") + "'"  # noqa: E731
    match kind["k"]:
        case "list":
            inner = declared[: declared.rindex("[")]
            sql = "[" + ", ".join(literal(kind["of"], inner, x) for x in v) + "]"
        case "map":
            sql = "map(" + ", ".join("[" + ", ".join(literal(kind[k], ANY[kind[k]["k"]], x[i]) for x in v) + "]" for i, k in enumerate(("key", "value"))) + ")"
        case "struct":
            sql = "{" + ", ".join(text(n) + ": " + literal(k, field(declared, n), v[n]) for n, k in kind["fields"]) + "}"
        case "binary":
            sql = f"unhex('{v.hex()}')"
        case "date":
            sql = f"DATE '1970-01-01' + {v}"
        case "time":
            sql = "TIME '24:00:00'" if v == 86_400_000_000 else f"TIME '00:00:00' + to_microseconds({v})"
        case "time_ns":
            sql = text("{:02}:{:02}:{:02}.{:09}".format(v // 3_600_000_000_000, v // 60_000_000_000 % 60, v // 10**9 % 60, v % 10**9))
        case "timestamp" if declared == "TIMESTAMP_NS":
            sql = f"make_timestamp_ns({v})"
        case "timestamp" if declared == "TIMESTAMP_S":
            sql = f"make_timestamp({v * 1000000})"
        case "timestamp" if declared == "TIMESTAMP_MS":
            sql = f"make_timestamp({v * 1000})"
        case "timestamp":
            sql = f"make_timestamp({v})"  # the session's zone is UTC
        case "interval":
            sql = "to_months({}) + to_days({}) + to_milliseconds({})".format(*v)
        case "text" if "\x00" in v:
            sql = " || chr(0) || ".join(text(s) for s in v.split("\x00"))
        case _:
            sql = text(spell(kind, v))
    return f"CAST({sql} AS {declared})"


ANY = {"text": "VARCHAR", "int": "INTEGER", "float": "DOUBLE", "list": "DOUBLE[]", "map": "MAP(VARCHAR, DOUBLE[])"}


def field(declared, name):
    """Returns the type of a struct's field; the zoo's structs are no deeper than this."""
    if declared == "STRUCT(a INTEGER, b VARCHAR)":
        return {"a": "INTEGER", "b": "VARCHAR"}[name]
    return "MAP(VARCHAR, DOUBLE[])[]"


def write_duckdb(columns, path, rows=ROWS, options=""):
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'; SET threads = 1")
    # A row of literals for each distinct row would be too long a statement: a table
    # of the values of each column, by row.
    sources = []
    for i, c in enumerate(columns):
        db.execute(f"CREATE TABLE c{i} (row BIGINT, v {c.declared})")
        for start in range(0, rows, 100):
            values = ", ".join(f"({r}, {literal(c.kind, c.declared, c.values[r])})" for r in range(start, min(start + 100, rows)))
            db.execute(f"INSERT INTO c{i} VALUES {values}")
        sources.append(f"c{i}.v AS {quoted(c.name)}")
    joins = "c0" + "".join(f" JOIN c{i} USING (row)" for i in range(1, len(columns)))
    db.execute(f"COPY (SELECT {', '.join(sources)} FROM {joins} ORDER BY row) TO '{path}' (FORMAT parquet{options})")


def wide(n):
    return [Column(f'c"{i}. ☃', pa.int32(), INT, [i, -i]) for i in range(n)]


def long(rows):
    """Several parts of it, with all of the floats that are easily lost."""
    out = [Column("id", pa.int64(), INT, []), Column("x", pa.float64(), F64, []), Column("s", pa.string(), TEXT, [])]
    out[0].values = list(range(rows))
    out[1].values = list(itertools.islice(itertools.cycle(DOUBLES + [None]), rows))
    out[2].values = [None if i % 7 == 0 else f"text {i}" for i in range(rows)]
    return out


def has_zeros(column):
    return "-0.0" in json.dumps(column.spelled())


def main(directory):
    tables = {
        # DuckDB's dictionaries hold one zero only, and so a file with them has no -0.0.
        "duckdb": (DUCKDB, write_duckdb, ROWS, {"options": ", DICTIONARY_SIZE_LIMIT 0"}),
        "duckdb_v2": (DUCKDB, write_duckdb, ROWS, {"options": ", DICTIONARY_SIZE_LIMIT 0, PARQUET_VERSION v2, ROW_GROUP_SIZE 100, COMPRESSION gzip"}),
        "duckdb_dictionaries": ([c for c in DUCKDB if not has_zeros(c)], write_duckdb, ROWS, {"options": ", COMPRESSION brotli"}),
        "pyarrow": (PYARROW, write_pyarrow, ROWS, {}),
        "pyarrow_plain": (PYARROW, write_pyarrow, ROWS, {"use_dictionary": False, "compression": "none", "data_page_version": "2.0", "row_group_size": 70, "store_schema": False}),
        "apart": (APART, write_duckdb, ROWS, {}),
        "duckdb_empty": (DUCKDB, write_duckdb, 0, {}),
        "pyarrow_empty": (PYARROW, write_pyarrow, 0, {}),
        "arrow": (ARROW_FILE, write_arrow, ROWS, {"compression": "lz4"}),
        "arrow_stream": (ARROW_FILE, write_arrow, ROWS, {"stream": True, "compression": "zstd"}),
        "arrow_empty": (ARROW_FILE, write_arrow, 0, {}),
        "wide": (wide(1000), write_pyarrow, 5, {}),
        "long": (long(60_000), write_pyarrow, 60_000, {"row_group_size": 9_000}),
    }
    for name, (columns, write, rows, options) in tables.items():
        ending = {write_arrow: "arrow"}.get(write, "parquet")
        write(columns, f"{directory}/{name}.{ending}", rows=rows, **options)
        spelled = [c.spelled() for c in columns]
        for c in spelled:
            c["values"] = c["values"][:rows]
        with open(f"{directory}/{name}.json", "w") as f:
            json.dump(spelled, f)


if __name__ == "__main__":
    main(sys.argv[1])
