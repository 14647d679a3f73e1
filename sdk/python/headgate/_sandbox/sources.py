"""The lake's Python files as syntax trees, and which of them each one imports."""

import ast
from typing import Dict, Iterator, List, Optional, Tuple

from .errors import UserError
from .modules import Tree, parent


class Sources:
    """The files of one order, parsed when they are asked for."""

    def __init__(self, texts: Dict[str, str]) -> None:
        self.texts = texts
        self.tree = Tree(list(texts))
        self._parsed: Dict[str, Tuple[Optional[ast.Module], Optional[UserError]]] = {}
        self._names: Dict[str, List[Tuple[int, List[str]]]] = {}

    def parsed(self, path: str) -> Tuple[Optional[ast.Module], Optional[UserError]]:
        """Return the file's tree, or what is wrong with its text."""
        if path not in self._parsed:
            self._parsed[path] = _parse(path, self.texts[path])
        return self._parsed[path]

    def imported_by(self, entry: str) -> List[str]:
        """Return the other files that a run of entry loads, sorted."""
        seen = {entry}
        todo = [entry]
        # The packages above the entry file are imported with it.
        directory = parent(entry)
        while directory:
            init = f"{directory}/__init__.py"
            if init in self.texts and init not in seen:
                seen.add(init)
                todo.append(init)
            directory = parent(directory)
        while todo:
            path = todo.pop()
            for level, dotted in self._imports(path):
                for other in self.resolve(entry, path, level, dotted):
                    if other not in seen:
                        seen.add(other)
                        todo.append(other)
        return sorted(seen - {entry})

    def resolve(self, entry: str, path: str, level: int, dotted: List[str]) -> List[str]:
        """Return the files that one import in path loads, in a run of entry."""
        if not level:
            return list(self.tree.resolve(entry, dotted))
        base = parent(path)
        for _ in range(level - 1):
            base = parent(base)
        return list(self.tree.resolve_below(base, dotted))

    def _imports(self, path: str) -> List[Tuple[int, List[str]]]:
        if path not in self._names:
            tree, _ = self.parsed(path)
            self._names[path] = list(_imports_in(tree)) if tree is not None else []
        return self._names[path]


def _parse(path: str, text: str) -> Tuple[Optional[ast.Module], Optional[UserError]]:
    try:
        return ast.parse(text, filename=path), None
    except SyntaxError as exc:
        message = f"{type(exc).__name__}: {exc.msg}"
        near = (exc.text or "").strip()
        if near:
            message += f" in {near[:80]!r}"
        return None, UserError("declaration", message, path, exc.lineno or 1)
    except ValueError as exc:
        return None, UserError("declaration", f"cannot be read as Python: {exc}", path, 1)
    except (RecursionError, MemoryError):
        return None, UserError("declaration", "is nested too deeply to be read as Python", path, 1)


def _imports_in(tree: ast.Module) -> Iterator[Tuple[int, List[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            dotted = node.module.split(".") if node.module else []
            for alias in node.names:
                # "from a import b": b may be a module of a, or a name in it.
                if dotted or alias.name != "*":
                    yield node.level, dotted if alias.name == "*" else [*dotted, alias.name]
            if node.level and not dotted:
                yield node.level, []
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.args[0].value
            if _called(node.func) in ("import_module", "__import__") and isinstance(name, str):
                if name and not name.startswith("."):
                    yield 0, name.split(".")


def _called(func: ast.expr) -> str:
    if isinstance(func, ast.Attribute):
        return func.attr
    return func.id if isinstance(func, ast.Name) else ""
