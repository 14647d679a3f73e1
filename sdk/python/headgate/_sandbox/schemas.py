"""TableSchema classes, read from the source text."""

import ast
from typing import AbstractSet, Dict, List, NamedTuple, Optional, Set, Tuple

from .._schema import FIELD_TYPES, Field
from .names import Names, spelled_out
from .sources import Sources

_MAX_HOPS = 100  # of a name that is imported from file to file


class Schema(NamedTuple):
    """One class: its fields in order, and what is wrong with it (line, message)."""

    name: str
    line: int
    fields: Dict[str, Field]
    problems: List[Tuple[int, str]]

    def columns(self) -> List[str]:
        return list(self.fields)

    def types(self) -> Dict[str, str]:
        return {name: field.duckdb for name, field in self.fields.items() if field.duckdb}

    def required(self) -> List[str]:
        return [name for name, field in self.fields.items() if field.required]


class Schemas:
    """The schema classes of all files of an order."""

    def __init__(self, sources: Sources, exported: AbstractSet[str]) -> None:
        self._sources = sources
        self._exported = exported
        self._known: Dict[str, Dict[str, Schema]] = {}
        self._names: Dict[str, Names] = {}

    def names(self, path: str) -> Names:
        if path not in self._names:
            tree, _ = self._sources.parsed(path)
            self._names[path] = Names(tree or ast.Module(body=[], type_ignores=[]), self._exported)
        return self._names[path]

    def of(self, path: str) -> Dict[str, Schema]:
        """Return the classes that path defines at its top level, by name."""
        if path not in self._known:
            tree, _ = self._sources.parsed(path)
            found = self._known[path] = {}
            for node in tree.body if tree is not None else ():
                if isinstance(node, ast.ClassDef):
                    schema = self._read(path, node, found)
                    if schema is not None:
                        found[node.name] = schema
        return self._known[path]

    def find(self, path: str, node: ast.expr, entry: str) -> Optional[Schema]:
        """Return the class that an expression in path names, also if it comes from another file."""
        if isinstance(node, ast.Name):
            return self._named(path, node.id, entry, set())
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            for level, dotted in self._imports_as(path, node.value.id):
                for other in self._sources.resolve(entry, path, level, dotted)[-1:]:
                    return self._named(other, node.attr, entry, set())
        return None

    def _named(self, path: str, name: str, entry: str, seen: Set[Tuple[str, str]]) -> Optional[Schema]:
        found = self.of(path).get(name)
        # Files may import from each other in a circle, and by more than one way.
        if found is not None or (path, name) in seen or len(seen) > _MAX_HOPS:
            return found
        seen.add((path, name))
        tree, _ = self._sources.parsed(path)
        for node in tree.body if tree is not None else ():
            if not isinstance(node, ast.ImportFrom):
                continue
            for alias in node.names:
                if (alias.asname or alias.name) != name and alias.name != "*":
                    continue
                dotted = node.module.split(".") if node.module else []
                for other in self._sources.resolve(entry, path, node.level, dotted)[-1:]:
                    found = self._named(other, name if alias.name == "*" else alias.name, entry, seen)
                    if found is not None:
                        return found
        return None

    def _imports_as(self, path: str, name: str) -> List[Tuple[int, List[str]]]:
        """Return what a file binds to name by an import of a module."""
        found: List[Tuple[int, List[str]]] = []
        tree, _ = self._sources.parsed(path)
        for node in tree.body if tree is not None else ():
            if isinstance(node, ast.Import):
                found += [(0, a.name.split(".")) for a in node.names if (a.asname or a.name) == name]
            elif isinstance(node, ast.ImportFrom):
                above = node.module.split(".") if node.module else []
                found += [(node.level, [*above, a.name]) for a in node.names if (a.asname or a.name) == name]
        return found

    def _read(self, path: str, node: ast.ClassDef, before: Dict[str, Schema]) -> Optional[Schema]:
        names = self.names(path)
        fields: Dict[str, Field] = {}
        ours = False
        for base in node.bases:
            if names.headgate(base) == "TableSchema":
                ours = True
            elif isinstance(base, ast.Name) and base.id in before:
                ours = True
                fields.update(before[base.id].fields)
        if not ours:
            return None
        problems: List[Tuple[int, str]] = []
        for statement in node.body:
            if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
                continue
            field = _field(names, statement.annotation)
            if field is None:
                known = ", ".join(FIELD_TYPES)
                problems.append(
                    (statement.lineno, f"field {statement.target.id} of {node.name} has no field type (there are {known}, and Optional)")
                )
            else:
                fields[statement.target.id] = field
        if not fields and not problems:
            problems.append((node.lineno, f"schema {node.name} has no fields"))
        return Schema(node.name, node.lineno, fields, problems)


def _field(names: Names, annotation: ast.expr) -> Optional[Field]:
    node = spelled_out(annotation)
    if isinstance(node, ast.Subscript):
        what = names.typing(node.value)
        if what == "Annotated" and isinstance(node.slice, ast.Tuple) and node.slice.elts:
            return _field(names, node.slice.elts[0])
        if what == "Optional":
            inner = _field(names, node.slice)
            return None if inner is None else Field(inner.duckdb, False)
        if what == "Union" and isinstance(node.slice, ast.Tuple):
            return _union(names, node.slice.elts)
        return None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union(names, [node.left, node.right])
    kind = FIELD_TYPES.get(names.headgate(node))
    return None if kind is None else Field(kind.duckdb, True)


def _union(names: Names, options: List[ast.expr]) -> Optional[Field]:
    kinds = [o for o in options if not (isinstance(o, ast.Constant) and o.value is None)]
    if len(kinds) != 1:
        return None
    inner = _field(names, kinds[0])
    return None if inner is None else Field(inner.duckdb, inner.required and len(kinds) == len(options))
