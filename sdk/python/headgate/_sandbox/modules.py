"""The lake's own Python files as modules: how an import finds them.

One rule serves the static reader (which files does this one import?) and the
run (where is that module?), so that what was declared is what is loaded. A name
that is not of the standard library is looked for beside the function's file,
then at the lake's root, then among the installed packages. A directory is a
package with or without ``__init__.py``.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import os
import sys
from typing import AbstractSet, Any, Dict, Iterator, List, Optional, Sequence, Tuple

if sys.version_info >= (3, 10):
    STDLIB: AbstractSet[str] = sys.stdlib_module_names
else:
    # Before 3.10 Python has no list: take what lies beside os.py, and the built-ins.
    STDLIB = frozenset(sys.builtin_module_names) | frozenset(
        entry.split(".")[0]
        for base in (os.path.dirname(os.__file__), os.path.join(os.path.dirname(os.__file__), "lib-dynload"))
        if os.path.isdir(base)
        for entry in os.listdir(base)
        if entry not in ("site-packages", "__pycache__")
    )

# What the harness and pyarrow import themselves, whenever they need it: a file of
# the lake by that name would break them.
_OWN = frozenset(("bauplan", "headgate", "numpy", "pandas", "pyarrow"))


class Tree:
    """The set of the lake's Python paths, and the directories above them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.files = frozenset(paths)
        self.directories = frozenset(
            "/".join(parts[:n]) for parts in (p.split("/") for p in paths) for n in range(1, len(parts))
        )

    def find(self, directory: str, name: str) -> Optional[Tuple[str, bool]]:
        """Return (path, is package) of module name in directory ("" is the root).

        The path of a package without __init__.py is the directory.
        """
        base = f"{directory}/{name}" if directory else name
        if f"{base}/__init__.py" in self.files:
            return f"{base}/__init__.py", True
        if f"{base}.py" in self.files:
            return f"{base}.py", False
        if base in self.directories:
            return base, True
        return None

    def find_top(self, entry: str, name: str) -> Optional[Tuple[str, bool]]:
        """Return the lake's module for ``import name`` in a run of the file entry."""
        if name in STDLIB or name in _OWN:
            return None
        return self.find(parent(entry), name) or self.find("", name)

    def own_file(self, entry: str, name: str) -> str:
        """Return the file of the lake that ``import name`` would reach if it were not the harness's own, or ""."""
        found = self.find(parent(entry), name) or self.find("", name)
        return found[0] if found and found[0] in self.files else ""

    def resolve(self, entry: str, dotted: Sequence[str]) -> Iterator[str]:
        """Yield the files that ``import a.b.c`` loads, as far as they are the lake's."""
        found = self.find_top(entry, dotted[0])
        yield from self._descend(found, dotted[1:])

    def resolve_below(self, directory: str, dotted: Sequence[str]) -> Iterator[str]:
        """Yield the files that a relative import loads; directory is its package's."""
        if f"{directory}/__init__.py" in self.files:
            yield f"{directory}/__init__.py"
        if dotted:
            yield from self._descend(self.find(directory, dotted[0]), dotted[1:])

    def _descend(self, found: Optional[Tuple[str, bool]], rest: Sequence[str]) -> Iterator[str]:
        for name in (*rest, None):
            if found is None:
                return
            path, package = found
            if path in self.files:
                yield path
            if name is None or not package:
                return
            found = self.find(parent(path) if path in self.files else path, name)


def parent(path: str) -> str:
    """Return the directory of path; "" at the root."""
    return path.rpartition("/")[0]


def module_name(path: str) -> str:
    """Return the name under which the file is imported: models/enrich.py -> models.enrich."""
    return path[: -len(".py")].replace("/", ".")


class Finder(importlib.abc.MetaPathFinder):
    """Finds the lake's modules below root for a run of the file entry."""

    def __init__(self, root: str, entry: str, paths: Optional[Sequence[str]] = None) -> None:
        self._root = root
        self._entry = entry
        self._tree = Tree(list(_python_files(root)) if paths is None else paths)
        self._paths: Dict[str, str] = {}  # name of a package -> its directory in the lake
        self.loaded: Dict[str, str] = {}  # path in the lake -> source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        above, _, name = fullname.rpartition(".")
        if not above:
            found = self._tree.find_top(self._entry, name)
        elif above in self._paths:
            found = self._tree.find(self._paths[above], name)
        else:
            return None
        return self._spec(fullname, *found) if found else None

    def entry_spec(self) -> Any:
        """Return the spec of the entry file itself, and make its packages known."""
        directory, names = "", module_name(self._entry).split(".")
        for n, name in enumerate(names[:-1], start=1):
            directory = f"{directory}/{name}" if directory else name
            self._paths[".".join(names[:n])] = directory
        if self._entry not in self._tree.files:
            return None
        return self._spec(".".join(names), self._entry, self._entry.endswith("/__init__.py"))

    def package_spec(self, dotted: str) -> Any:
        """Return the spec of a package above the entry file."""
        directory = self._paths[dotted]
        init = f"{directory}/__init__.py"
        return self._spec(dotted, init if init in self._tree.files else directory, True)

    def _spec(self, fullname: str, path: str, package: bool) -> Any:
        full = os.path.join(self._root, path)
        if path not in self._tree.files:
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [full]
            self._paths[fullname] = path
            return spec
        locations = [os.path.dirname(full)] if package else None
        if package:
            self._paths[fullname] = parent(path)
        return importlib.util.spec_from_file_location(
            fullname, full, loader=_Loader(fullname, full, path, self.loaded), submodule_search_locations=locations
        )


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a file under its path in the lake, so that tracebacks name that path."""

    def __init__(self, name: str, full: str, shown: str, loaded: Dict[str, str]) -> None:
        super().__init__(name, full)
        self._shown = shown
        self._loaded = loaded

    def get_code(self, fullname: str) -> Any:
        # Not the inherited one: bytecode that lies beside the source may not be of this source.
        return self.source_to_code(self.get_data(self.path), self.path)

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        text = importlib.util.decode_source(data)
        self._loaded[self._shown] = text
        linecache.cache[self._shown] = (len(text), None, text.splitlines(True), self._shown)
        return compile(text, self._shown, "exec", dont_inherit=True, optimize=_optimize)


def _python_files(root: str) -> Iterator[str]:
    for directory, below, files in os.walk(root):
        below.sort()
        for name in sorted(files):
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(directory, name), root).replace(os.sep, "/")


def unimportable(path: str) -> List[str]:
    """Return the parts of path that keep it from being a module (they hold a dot)."""
    parts = path[: -len(".py")].split("/")
    return [part for part in parts if "." in part]
