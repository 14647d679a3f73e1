"""DuckDB's types and Arrow's: the schema of a table that has no rows to tell it."""

import re
from typing import Any, List, Tuple

_TOKEN = re.compile(r"""\s*(?:("(?:[^"]|"")*")|('(?:[^']|'')*')|([A-Za-z_][A-Za-z0-9_]*)|([0-9]+)|([(),\[\]]))""")


def to_arrow(name: str) -> Any:
    """Return the Arrow type in which a Parquet file written by DuckDB holds type name.

    A type that Arrow has no counterpart for is read as text.
    """
    import pyarrow as pa

    try:
        parser = _Parser(name)
        found = parser.type()
        parser.end()
        return found
    except ValueError:
        return pa.string()


def arrow_extensions() -> bool:
    """Tell whether this pyarrow reads Parquet's UUID and JSON as types of their own."""
    import inspect

    import pyarrow as pa
    import pyarrow.parquet as pq

    reads = "arrow_extensions_enabled" in inspect.signature(pq.ParquetFile.__init__).parameters
    return reads and hasattr(pa, "uuid") and hasattr(pa, "json_")


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: List[Tuple[str, str]] = []
        at, text = 0, text.strip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ValueError(text)
            at = match.end()
            quoted, literal, word, number, mark = match.groups()
            if quoted is not None:
                self._tokens.append(("name", quoted[1:-1].replace('""', '"')))
            elif literal is not None:
                self._tokens.append(("literal", literal))
            elif word is not None:
                self._tokens.append(("word", word))
            else:
                self._tokens.append(("mark", number if mark is None else mark))
        self._tokens.append(("end", ""))
        self._at = 0

    def _next(self) -> Tuple[str, str]:
        token = self._tokens[self._at]
        if token[0] != "end":
            self._at += 1
        return token

    def _take(self, text: str) -> bool:
        if self._tokens[self._at] in (("mark", text), ("word", text)):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise ValueError(text)

    def end(self) -> None:
        if self._next()[0] != "end":
            raise ValueError("more than one type")

    def type(self) -> Any:
        import pyarrow as pa

        kind, word = self._next()
        if kind != "word":
            raise ValueError(word)
        found = self._named(word.upper())
        while self._take("["):
            if not self._take("]"):
                # A fixed-size array is a list in Parquet.
                self._next()
                self._expect("]")
            found = pa.list_(found)
        return found

    def _named(self, word: str) -> Any:
        import pyarrow as pa

        if word in ("DECIMAL", "NUMERIC"):
            if not self._take("("):
                return pa.decimal128(18, 3)
            precision = int(self._next()[1])
            self._expect(",")
            scale = int(self._next()[1])
            self._expect(")")
            return pa.decimal128(precision, scale)
        if word == "STRUCT":
            fields = []
            self._expect("(")
            while True:
                kind, name = self._next()
                if kind not in ("name", "word"):
                    raise ValueError(name)
                fields.append(pa.field(name, self.type()))
                if not self._take(","):
                    break
            self._expect(")")
            return pa.struct(fields)
        if word == "MAP":
            self._expect("(")
            key = self.type()
            self._expect(",")
            value = self.type()
            self._expect(")")
            return pa.map_(key, value)
        if word == "ENUM":
            self._expect("(")
            while not self._take(")"):
                if self._next()[0] == "end":
                    raise ValueError(word)
            return pa.string()
        if word in ("TIMESTAMP", "TIME") and self._take("WITH"):
            self._expect("TIME")
            self._expect("ZONE")
            word += "TZ"
        return self._simple(word)

    def _simple(self, word: str) -> Any:
        import pyarrow as pa

        simple = {
            "BOOLEAN": pa.bool_(),
            "TINYINT": pa.int8(),
            "SMALLINT": pa.int16(),
            "INTEGER": pa.int32(),
            "BIGINT": pa.int64(),
            "UTINYINT": pa.uint8(),
            "USMALLINT": pa.uint16(),
            "UINTEGER": pa.uint32(),
            "UBIGINT": pa.uint64(),
            # Parquet has no 128-bit integer: DuckDB writes them as doubles.
            "HUGEINT": pa.float64(),
            "UHUGEINT": pa.float64(),
            "FLOAT": pa.float32(),
            "DOUBLE": pa.float64(),
            "VARCHAR": pa.string(),
            "BLOB": pa.binary(),
            "DATE": pa.date32(),
            "TIME": pa.time64("us"),
            "TIMETZ": pa.time64("us"),
            "TIMESTAMP": pa.timestamp("us"),
            "TIMESTAMP_S": pa.timestamp("us"),
            "TIMESTAMP_MS": pa.timestamp("ms"),
            "TIMESTAMP_NS": pa.timestamp("ns"),
            "TIMESTAMPTZ": pa.timestamp("us", tz="UTC"),
            # The extension types are as old as their readers: see arrow_extensions.
            "UUID": pa.uuid() if arrow_extensions() else pa.binary(16),
            "JSON": pa.json_() if arrow_extensions() else pa.string(),
            "INTERVAL": pa.binary(12),
        }
        return simple.get(word, pa.string())


_NAMES = {
    "bool": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "halffloat": "FLOAT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "date32[day]": "DATE",
    "date64[ms]": "DATE",
    "null": "INTEGER",
    "extension<arrow.uuid>": "UUID",
    "extension<arrow.json>": "JSON",
}


def to_duckdb(arrow: Any) -> str:
    """Return the DuckDB type as which DuckDB reads Arrow type arrow back from Parquet."""
    import pyarrow as pa

    t = pa.types
    if t.is_timestamp(arrow):
        if arrow.tz:
            return "TIMESTAMP WITH TIME ZONE"
        return "TIMESTAMP_NS" if arrow.unit == "ns" else "TIMESTAMP"
    if t.is_time(arrow):
        return "TIME"
    if t.is_decimal(arrow):
        return f"DECIMAL({arrow.precision},{arrow.scale})"
    if t.is_dictionary(arrow):
        return to_duckdb(arrow.value_type)
    if t.is_map(arrow):
        return f"MAP({to_duckdb(arrow.key_type)}, {to_duckdb(arrow.item_type)})"
    if hasattr(arrow, "value_type") and (t.is_list(arrow) or t.is_large_list(arrow) or t.is_fixed_size_list(arrow)):
        return to_duckdb(arrow.value_type) + "[]"
    if t.is_struct(arrow):
        fields = [arrow.field(i) for i in range(arrow.num_fields)]
        inner = ", ".join(f'"{f.name.replace(chr(34), chr(34) * 2)}" {to_duckdb(f.type)}' for f in fields)
        return f"STRUCT({inner})"
    if str(arrow) in _NAMES:
        return _NAMES[str(arrow)]
    return "BLOB" if "binary" in str(arrow) else "VARCHAR"
