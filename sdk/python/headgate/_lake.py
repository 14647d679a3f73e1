"""A checkout of a lake: its tables, its functions and its parameters."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from . import _settings
from ._sandbox import tables
from ._sandbox.declare import declare
from ._sandbox.errors import UserError

_PROJECT_FILES = ("bauplan_project.yml", "bauplan_project.yaml")
_SETTINGS = "headgate.yaml"
_HEADER = re.compile(r"--\s*(headgate|bauplan):(.*)", re.IGNORECASE)
_NAME = re.compile(r"""(?:^|\s)name\s*=\s*["']?([A-Za-z0-9_.-]+)""")
_PARAMS = re.compile(r"(?:^|\s)params\s*=\s*(?:\[([^]]*)\]|(\S+))")


class Project(NamedTuple):
    """A pipeline of Bauplan in the lake."""

    directory: str
    namespace: str
    parameters: Dict[str, _settings.Parameter]


class Function(NamedTuple):
    """One model or expectation: a decorated function, or the query of a SQL file."""

    name: str  # the table of a model
    kind: str  # "model" or "expectation"
    path: str
    python: str  # the function's name; "" for SQL
    inputs: List[Dict[str, Any]]  # of Python, as they are declared
    columns: Optional[List[str]]
    types: Dict[str, str]
    sql: str
    params: List[str]  # of SQL: those that its header lists
    project: Optional[Project]


class Lake:
    """The checkout at root."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._functions: Optional[List[Function]] = None
        self._parameters: Optional[Dict[str, _settings.Parameter]] = None

    @classmethod
    def around(cls, path: str) -> "Lake":
        """Return the lake that a file or directory is in."""
        start = os.path.abspath(path)
        at = start if os.path.isdir(start) else os.path.dirname(start)
        while True:
            if os.path.isfile(os.path.join(at, _SETTINGS)) or os.path.isdir(os.path.join(at, "tables")):
                return cls(at)
            above = os.path.dirname(at)
            if above == at:
                raise UserError("data", f"{start} is in no lake: no directory above it has a {_SETTINGS} or tables/")
            at = above

    def files(self, extension: str) -> List[str]:
        """Return the paths of the files that may be code, from the root."""
        found: List[str] = []
        for directory, below, names in os.walk(self.root):
            top = directory == self.root
            below[:] = sorted(
                name
                for name in below
                if not name.startswith(".")
                and not (top and name == "tables")
                and not os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))
            )
            for name in sorted(names):
                if name.endswith(extension) and not name.startswith("."):
                    found.append(os.path.relpath(os.path.join(directory, name), self.root).replace(os.sep, "/"))
        return found

    def text(self, path: str) -> str:
        with open(os.path.join(self.root, path), encoding="utf-8") as source:
            return source.read()

    def functions(self) -> List[Function]:
        """Return the lake's models and expectations. A problem of a declaration is a UserError."""
        if self._functions is None:
            self._functions = [*self._python_functions(), *self._sql_models()]
        return self._functions

    def models(self) -> Dict[str, Function]:
        """Return the models by the name of their table, in lower case."""
        return {f.name.lower(): f for f in self.functions() if f.kind == "model"}

    def project(self, path: str) -> Optional[Project]:
        """Return the pipeline of Bauplan that the file is a part of."""
        directory = os.path.dirname(path)
        for name in _PROJECT_FILES:
            file = f"{directory}/{name}" if directory else name
            if os.path.isfile(os.path.join(self.root, file)):
                text = self.text(file)
                defaults = _settings.read(text).get("defaults")
                namespace = defaults.get("namespace") if isinstance(defaults, dict) else None
                return Project(
                    directory,
                    namespace.text if isinstance(namespace, _settings.Scalar) else "bauplan",
                    _settings.parameters(text, file),
                )
        return None

    def parameter(self, name: str, project: Optional[Project]) -> _settings.Parameter:
        """Return what is declared of a parameter, by the pipeline or by the lake."""
        if project is not None and name in project.parameters:
            return project.parameters[name]
        if self._parameters is None:
            there = os.path.isfile(os.path.join(self.root, _SETTINGS))
            self._parameters = _settings.parameters(self.text(_SETTINGS), _SETTINGS) if there else {}
        return self._parameters.get(name, _settings.Parameter("", None))

    def tables(self) -> Dict[str, str]:
        """Return the directories of the checkout's tables by name."""
        top = os.path.join(self.root, "tables")
        found: Dict[str, str] = {}
        for name in _directories(top):
            full = os.path.join(top, name)
            if _holds_table(full):
                found[name] = full
                continue
            for inner in _directories(full):
                if _holds_table(os.path.join(full, inner)):
                    found[f"{name}.{inner}"] = os.path.join(full, inner)
        return found

    def find(self, name: str, project: Optional[Project], known: Sequence[str]) -> Optional[str]:
        """Return the name among known that a function means by name."""
        by_case = {other.lower(): other for other in known}
        names = [name]
        if project is not None:
            space, dot, rest = name.partition(".")
            if not dot:
                names.append(f"{project.namespace}.{name}")
            elif space.lower() == project.namespace.lower():
                names.append(rest)
        return next((by_case[n.lower()] for n in names if n.lower() in by_case), None)

    def part_files(self, name: str) -> Tuple[List[str], List[Dict[str, Any]]]:
        """Return the Parquet files of a table in order, and its columns as table.json has them."""
        directory = self.tables()[name]
        described = os.path.join(directory, "table.json")
        if not os.path.isfile(described):
            return [os.path.join(directory, n) for n in sorted(os.listdir(directory)) if n.endswith(".parquet")], []
        with open(described, encoding="utf-8") as source:
            snapshot = json.load(source)
        files = [os.path.join(directory, part["file"]) for part in snapshot["parts"]]
        for file in files:
            if not os.path.isfile(file):
                raise UserError("data", f"part {os.path.basename(file)} of table {name} is not in this checkout; git checkout tables/ brings it")
        return files, snapshot["columns"]

    def read(self, name: str, columns: Optional[List[str]] = None) -> Any:
        """Return a table of the checkout as a pyarrow.Table."""
        files, schema = self.part_files(name)
        return tables.read({"name": name, "files": files, "columns": schema, "select": columns}, os.cpu_count() or 1)

    def _python_functions(self) -> Iterator[Function]:
        sources = [{"path": path, "text": self.text(path)} for path in self.files(".py")]
        projects = {path: self.project(path) for path in (s["path"] for s in sources)}
        for said in declare(sources):
            path = said["path"]
            project = projects[path]
            if project is None and path.partition("/")[0] not in ("models", "verifiers"):
                continue
            if "error" in said:
                raise UserError("declaration", said["error"]["message"], path, said["line"])
            if said["kind"] != "schema":
                yield Function(
                    said["name"], said["kind"], path, said["function"], said.get("inputs", []), said.get("columns"),
                    said.get("types", {}), "", [], project,
                )  # fmt: skip

    def _sql_models(self) -> Iterator[Function]:
        for path in self.files(".sql"):
            project = self.project(path)
            inside = path.startswith("models/")
            if project is None and not inside:
                continue
            sql = self.text(path)
            header = " ".join(m.group(2) for m in _HEADER.finditer(sql))
            base = os.path.basename(path) if project is not None else path[len("models/") :].replace("/", ".")
            named, listed = _NAME.search(header), _PARAMS.search(header)
            params = (listed.group(1) or listed.group(2) or "") if listed else ""
            yield Function(
                named.group(1) if named else base[: -len(".sql")], "model", path, "", [], None, {}, sql,
                [p.strip() for p in params.split(",") if p.strip()], project,
            )  # fmt: skip


def _directories(path: str) -> List[str]:
    if not os.path.isdir(path):
        return []
    return sorted(n for n in os.listdir(path) if not n.startswith(".") and os.path.isdir(os.path.join(path, n)))


def _holds_table(directory: str) -> bool:
    return any(name == "table.json" or name.endswith(".parquet") for name in os.listdir(directory))
