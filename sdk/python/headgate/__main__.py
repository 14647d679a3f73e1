"""``python -m headgate run``: try a model on a checkout's tables before pushing."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from typing import Any, Dict, List, Optional

from . import __version__
from ._local import local_run
from ._sandbox.errors import UserError
from ._sandbox.types import to_duckdb
from ._settings import SettingsError


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 the function or its data failed, 2 wrong usage."""
    args = _parser().parse_args(argv)
    params: Dict[str, Any] = {}
    for text in args.param:
        name, given, value = text.partition("=")
        if not given or not name:
            print(f"--param {text}: want NAME=VALUE", file=sys.stderr)
            return 2
        params[name] = value
    secrets = {name: os.environ[name] for name in args.secret if name in os.environ}
    target = args.model
    if target and args.function:
        target = f"{target}:{args.function}"
    try:
        result = local_run(
            target, lake=args.lake, params=params, secrets=secrets, upstream=args.upstream, strict=args.strict
        )
    except (UserError, SettingsError) as exc:
        file, line = getattr(exc, "file", ""), getattr(exc, "line", 0)
        print(f"{file}:{line}: {exc}" if file else str(exc), file=sys.stderr)
        return 1
    except AssertionError as exc:
        print(f"not met: {exc}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    if result is True:
        print(json.dumps({"passed": True}) if args.json else "met")
        return 0
    found = result if isinstance(result, dict) else {args.model: result}
    for name, table in found.items():
        print(_as_json(name, table, args.rows) if args.json else _as_text(name, table, args.rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m headgate", description="Try the functions of a lake on a checkout.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="run a model or an expectation on the checkout's tables and print the first rows",
        description="Run a model or an expectation on the checkout's tables, in this interpreter, and print the first rows. "
        "Nothing is written. Without MODEL, all models of the lake run in order.",
    )
    run.add_argument("model", nargs="?", metavar="MODEL", help="models/enrich.py, or the name of a table or an expectation")
    run.add_argument("function", nargs="?", metavar="FUNCTION", help="of the file, if it has several")
    run.add_argument("--lake", metavar="DIR", help="a directory in the checkout (default: the current one)")
    run.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="the value of a parameter")
    run.add_argument("--secret", action="append", default=[], metavar="NAME", help="take a secret from the environment variable NAME")
    run.add_argument("--upstream", action="store_true", help="compute inputs that models make, instead of reading their tables")
    run.add_argument("--strict", action="store_true", help="fail if columns are not as declared")
    run.add_argument("--rows", type=int, default=10, metavar="N", help="print at most so many rows (default 10)")
    run.add_argument("--json", action="store_true", help="one JSON document a table, for programs")
    return parser


def _as_json(name: str, table: Any, rows: int) -> str:
    columns = [{"name": f.name, "type": to_duckdb(f.type)} for f in table.schema]
    return json.dumps(
        {"table": name, "rows": table.num_rows, "columns": columns, "data": table.slice(0, max(0, rows)).to_pylist()}, default=str
    )


def _as_text(name: str, table: Any, rows: int) -> str:
    shown = table.slice(0, max(0, rows))
    cells = [[f.name, *("NULL" if v is None else f"{v!s:.60}" for v in shown[f.name].to_pylist())] for f in table.schema]
    widths = [max(len(cell) for cell in column) for column in cells]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in zip(*cells)]
    more = table.num_rows - shown.num_rows
    return "\n".join([f"{name}: {table.num_rows} rows", *lines, *([f"... {more} more"] if more > 0 else [])])


if __name__ == "__main__":
    sys.exit(main())
