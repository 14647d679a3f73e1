"""Declarations, read from the source text: no line of the user's code is run."""

import ast
import difflib
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from .errors import UserError
from .modules import Tree, parent, unimportable

_DECORATORS: Dict[str, Tuple[str, ...]] = {
    # positional parameters first, in order
    "model": ("name", "columns", "key", "materialization_strategy"),
    "expectation": ("name",),
    "python": ("version", "pip"),
    "resources": ("memory", "timeout"),
}
_POSITIONAL = {"model": 2, "expectation": 1, "python": 2, "resources": 2}
_INPUTS: Dict[str, Tuple[str, ...]] = {"Model": ("name", "columns", "filter"), "Parameter": ("name",)}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def declare(sources: Sequence[Dict[str, str]]) -> List[Dict[str, Any]]:
    """Return a Declaration for each decorated function, and one with an error for each problem."""
    texts = {source["path"]: source["text"] for source in sources}
    imports = _Imports(texts)
    found: List[Dict[str, Any]] = []
    for path in sorted(texts):
        tree, error = imports.parsed(path)
        if error is not None:
            found.append(_failed(path, error))
            continue
        reader = _File(path, tree)
        reader.read()
        for declaration in reader.found:
            if "error" not in declaration:
                local = imports.of(path)
                if local:
                    declaration["local_files"] = local
        found.extend(reader.found)
    return found


def _failed(path: str, error: UserError, function: str = "") -> Dict[str, Any]:
    return {"path": path, "line": error.line, "function": function, "kind": "", "name": "", "error": error.to_json()}


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


class _Imports:
    """Which of the sources each one imports, transitively."""

    def __init__(self, texts: Dict[str, str]) -> None:
        self._texts = texts
        self._tree = Tree(list(texts))
        self._parsed: Dict[str, Tuple[Optional[ast.Module], Optional[UserError]]] = {}
        self._names: Dict[str, List[Tuple[int, List[str]]]] = {}

    def parsed(self, path: str) -> Tuple[Optional[ast.Module], Optional[UserError]]:
        if path not in self._parsed:
            self._parsed[path] = _parse(path, self._texts[path])
        return self._parsed[path]

    def of(self, entry: str) -> List[str]:
        """Return the other sources that a run of entry loads, sorted."""
        seen = {entry}
        todo = [entry]
        # The packages above the entry file are imported with it.
        directory = parent(entry)
        while directory:
            init = f"{directory}/__init__.py"
            if init in self._texts and init not in seen:
                seen.add(init)
                todo.append(init)
            directory = parent(directory)
        while todo:
            path = todo.pop()
            for level, dotted in self._imported(path):
                if level:
                    base = parent(path)
                    for _ in range(level - 1):
                        base = parent(base)
                    reached = self._tree.resolve_below(base, dotted)
                else:
                    reached = self._tree.resolve(entry, dotted)
                for other in reached:
                    if other not in seen:
                        seen.add(other)
                        todo.append(other)
        return sorted(seen - {entry})

    def _imported(self, path: str) -> List[Tuple[int, List[str]]]:
        if path not in self._names:
            tree, _ = self.parsed(path)
            self._names[path] = list(_imports_in(tree)) if tree is not None else []
        return self._names[path]


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


class _File:
    """Reads the declarations of one parsed file into found."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self._path = path
        self._tree = tree
        self._modules: set = set()  # local names of the headgate module
        self._names: Dict[str, str] = {}  # local name -> headgate's name
        self.found: List[Dict[str, Any]] = []

    def read(self) -> None:
        self._find_names()
        if not self._modules and not self._names:
            return
        top: Dict[str, int] = {}
        for node in self._tree.body:
            if isinstance(node, _FUNCTIONS):
                if node.name in top and self._is_declared(node):
                    self._problem(node, f"function {node.name} is defined a second time (first on line {top[node.name]})")
                elif self._is_declared(node):
                    self._function(node)
                top.setdefault(node.name, node.lineno)
        direct = {id(node) for node in self._tree.body}
        for node in ast.walk(self._tree):
            if isinstance(node, _FUNCTIONS) and id(node) not in direct and self._is_declared(node):
                self._problem(node, f"function {node.name} is not at the top level of the file, so it cannot be found")
            elif isinstance(node, ast.ClassDef) and self._is_declared(node):
                self._problem(node, f"class {node.name} cannot be a model or an expectation; decorate a function")
        self.found.sort(key=lambda declaration: declaration["line"])

    def _find_names(self) -> None:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name == "headgate":
                        self._modules.add(alias.asname or "headgate")
            elif isinstance(node, ast.ImportFrom) and node.module == "headgate" and not node.level:
                for alias in node.names:
                    if alias.name == "*":
                        self._names.update({name: name for name in (*_DECORATORS, *_INPUTS)})
                    else:
                        self._names[alias.asname or alias.name] = alias.name

    def _headgate(self, node: ast.expr) -> str:
        """Return headgate's name for what node refers to, or ""."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, "")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self._modules:
            return node.attr
        return ""

    def _is_declared(self, node: Any) -> bool:
        return any(self._headgate(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list)

    def _problem(self, node: Any, message: str, function: str = "") -> None:
        error = UserError("declaration", message, self._path, node.lineno)
        self.found.append(_failed(self._path, error, function or getattr(node, "name", "")))

    def _function(self, node: Any) -> None:
        before = len(self.found)
        said: Dict[str, Dict[str, Any]] = {}
        for decorator in node.decorator_list:
            self._decorator(node, decorator, said)
        kinds = [kind for kind in ("model", "expectation") if kind in said]
        if len(kinds) == 2:
            self._problem(node, f"function {node.name} is declared both as a model and as an expectation")
        elif not kinds and len(self.found) == before:
            self._problem(node, f"function {node.name} has @{next(iter(said))} but neither @model nor @expectation")
        if isinstance(node, ast.AsyncFunctionDef):
            self._problem(node, f"function {node.name} is async; declare an ordinary function")
        if unimportable(self._path):
            self._problem(node, f"a file with functions cannot have a dot in its name ({unimportable(self._path)[0]!r})")
        inputs, params = self._arguments(node)
        if len(self.found) > before or not kinds:
            return
        main, py, res = said[kinds[0]], said.get("python", {}), said.get("resources", {})
        declared = {
            "path": self._path,
            "line": node.lineno,
            "function": node.name,
            "kind": kinds[0],
            "name": main.get("name") or node.name,
            "columns": [] if main.get("columns") == ["*"] else main.get("columns"),
            "key": main.get("key"),
            "strategy": (main.get("materialization_strategy") or "REPLACE") if kinds[0] == "model" else "",
            "python": py.get("version"),
            "packages": py.get("pip"),
            "memory": _quantity(res.get("memory"), "B"),
            "timeout": _quantity(res.get("timeout"), "s"),
            "inputs": inputs,
            "params": params,
        }
        self.found.append({name: value for name, value in declared.items() if value})

    def _decorator(self, node: Any, decorator: ast.expr, said: Dict[str, Dict[str, Any]]) -> None:
        call = decorator if isinstance(decorator, ast.Call) else None
        name = self._headgate(call.func if call else decorator)
        if not name:
            return  # somebody else's decorator
        if name not in _DECORATORS:
            self._problem(decorator, f"headgate has no decorator {name!r}{_meant(name, _DECORATORS)}", node.name)
            return
        if name in said:
            self._problem(decorator, f"function {node.name} has @{name} twice", node.name)
        if call is None and name in ("python", "resources"):
            self._problem(decorator, f"@{name} needs its arguments: @{name}(...)", node.name)
        said[name] = self._call(node, call, f"@{name}", _DECORATORS[name], _POSITIONAL[name]) if call else {}

    def _call(
        self, node: Any, call: ast.Call, what: str, names: Tuple[str, ...], positional: int
    ) -> Dict[str, Any]:
        """Return the literal arguments of call, checked for name and type."""
        given: List[Tuple[str, ast.expr]] = []
        for number, arg in enumerate(call.args):
            if isinstance(arg, ast.Starred):
                self._problem(arg, f"{what}: *arguments cannot be read; write them out", node.name)
            elif number >= positional:
                self._problem(arg, f"{what} takes at most {positional} positional argument(s)", node.name)
            else:
                given.append((names[number], arg))
        for keyword in call.keywords:
            if keyword.arg is None:
                self._problem(keyword.value, f"{what}: **arguments cannot be read; write them out", node.name)
            elif keyword.arg not in names:
                message = f"{what} has no argument {keyword.arg!r}{_meant(keyword.arg, names)}"
                self._problem(keyword.value, message, node.name)
            else:
                given.append((keyword.arg, keyword.value))
        values: Dict[str, Any] = {}
        for name, expression in given:
            if name in values:
                self._problem(expression, f"{what}: {name} is given twice", node.name)
                continue
            try:
                value = ast.literal_eval(expression)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                self._problem(
                    expression,
                    f"{what}: {name} must be a literal, since declarations are read without running the file",
                    node.name,
                )
                continue
            wrong = _wrong_type(name, value)
            if wrong:
                self._problem(expression, f"{what}: {name} must be {wrong}, not {value!r:.80}", node.name)
                continue
            values[name] = list(value) if isinstance(value, tuple) else value
        return values

    def _arguments(self, node: Any) -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
        inputs: List[Dict[str, Any]] = []
        params: List[Dict[str, Any]] = []
        spec = node.args
        for arg in spec.posonlyargs:
            self._problem(arg, f"argument {arg.arg} is positional-only; inputs are passed by name", node.name)
        for arg in (spec.vararg, spec.kwarg):
            if arg is not None:
                self._problem(arg, f"argument *{arg.arg} cannot be an input; name the inputs", node.name)
        defaults = [None] * (len(spec.args) - len(spec.defaults)) + list(spec.defaults[-len(spec.args) :] if spec.args else [])
        for arg, default in [*zip(spec.args, defaults), *zip(spec.kwonlyargs, spec.kw_defaults)]:
            if default is None:
                self._problem(
                    arg,
                    f'argument {arg.arg} needs a default: headgate.Model("table") or headgate.Parameter("name")',
                    node.name,
                )
                continue
            name = self._headgate(default.func) if isinstance(default, ast.Call) else ""
            if name not in _INPUTS:
                if name:
                    self._problem(default, f"headgate has no input {name!r}{_meant(name, _INPUTS)}", node.name)
                continue  # an ordinary default: Python's own business
            what = f"{name}(...) of argument {arg.arg}"
            values = self._call(node, default, what, _INPUTS[name], len(_INPUTS[name]))
            if not values.get("name"):
                if not any(d.get("error") and d["line"] == default.lineno for d in self.found):
                    self._problem(default, f"{what} needs a name", node.name)
            elif name == "Parameter":
                params.append({"param": arg.arg, "name": values["name"]})
            else:
                columns = values.get("columns")
                entry = {
                    "param": arg.arg,
                    "table": values["name"],
                    "columns": None if columns == ["*"] else columns,
                    "filter": values.get("filter"),
                }
                inputs.append({key: value for key, value in entry.items() if value})
        return inputs, params


def _wrong_type(name: str, value: Any) -> str:
    """Return what an argument must be, or "" if value is that."""
    if value is None:
        return ""
    if name in ("columns", "key"):
        ok = isinstance(value, (list, tuple)) and value and all(isinstance(v, str) and v for v in value)
        if ok and len(set(value)) != len(value):
            return "a list without repetitions"
        return "" if ok else "a list of column names"
    if name == "pip":
        ok = isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
        return "" if ok else 'a dict such as {"pandas": "2.2.2"}'
    if name in ("memory", "timeout"):
        ok = isinstance(value, (str, int)) and not isinstance(value, bool)
        example = '"2GiB" or a number of bytes' if name == "memory" else '"5m" or a number of seconds'
        return "" if ok else example
    if name == "version":
        return "" if isinstance(value, str) else 'a text such as "3.11"'
    return "" if isinstance(value, str) and value else "a text"


def _quantity(value: Any, unit: str) -> Optional[str]:
    return f"{value}{unit}" if isinstance(value, int) else value


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else f" (it has {', '.join(known)})"
