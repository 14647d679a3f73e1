"""Declarations, read from the source text: no line of the user's code is run."""

import ast
import difflib
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .. import _declarations as said
from .._schema import FIELD_TYPES
from .errors import UserError
from .modules import unimportable
from .names import PACKAGES, spelled_out
from .schemas import Schema, Schemas
from .sources import Sources

_DECORATORS: Dict[str, Tuple[str, ...]] = {
    # positional parameters first, in order
    "model": (
        "name", "columns", "key", "materialization_strategy", "partitioned_by", "cache_strategy", "materialize",
        *said.REFUSED["model"],
    ),
    "expectation": ("name", "severity"),
    "python": ("version", "pip"),
    "resources": ("memory", "timeout", "cpus", "pids", *said.REFUSED["resources"]),
}  # fmt: skip
_INPUTS: Dict[str, Tuple[str, ...]] = {
    "Model": ("name", "columns", "filter", "projection_schema", *said.REFUSED["Model"]),
    "Parameter": ("name", "param_name"),
    "Secret": ("name",),
}
_POSITIONAL = {"model": 2, "expectation": 1, "python": 2, "resources": 4, "Model": 3, "Parameter": 1, "Secret": 1}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_EXPORTED = frozenset((*_DECORATORS, *_INPUTS, *FIELD_TYPES, "TableField", "TableSchema"))
_TRANSFORMS = ("year", "month", "day", "hour")


def declare(sources: Sequence[Dict[str, str]]) -> List[Dict[str, Any]]:
    """Return a Declaration for each decorated function and schema class, and one with an error for each problem."""
    files = Sources({source["path"]: source["text"] for source in sources})
    schemas = Schemas(files, _EXPORTED)
    found: List[Dict[str, Any]] = []
    for path in sorted(files.texts):
        tree, error = files.parsed(path)
        if tree is None:
            found.append(_failed(path, error or UserError("declaration", "cannot be read")))
            continue
        reader = _File(path, tree, files, schemas)
        try:
            reader.read()
        except RecursionError:
            found.append(_failed(path, UserError("declaration", "is nested too deeply to be read", path, 1)))
            continue
        for declaration in reader.found:
            if "error" not in declaration and declaration["kind"] != "schema":
                local = files.imported_by(path)
                if local:
                    declaration["local_files"] = local
        found.extend(reader.found)
    return found


def _failed(path: str, error: UserError, function: str = "") -> Dict[str, Any]:
    return {"path": path, "line": error.line, "function": function, "kind": "", "name": "", "error": error.to_json()}


class _Arguments(NamedTuple):
    """What the arguments of a function are given."""

    inputs: List[Dict[str, Any]]
    params: List[Dict[str, Any]]
    secrets: List[Dict[str, Any]]


class _File:
    """Reads the declarations of one parsed file into found."""

    def __init__(self, path: str, tree: ast.Module, files: Sources, schemas: Schemas) -> None:
        self._path = path
        self._tree = tree
        self._files = files
        self._schemas = schemas
        self._names = schemas.names(path)
        self.found: List[Dict[str, Any]] = []

    def read(self) -> None:
        if not self._names:
            return
        for schema in self._schemas.of(self._path).values():
            self._schema(schema)
        top: Dict[str, int] = {}
        for node in self._tree.body:
            if isinstance(node, _FUNCTIONS):
                if node.name in top and self._is_declared(node):
                    self._problem(node, f"function {node.name} is defined a second time (first on line {top[node.name]})")
                elif self._is_declared(node):
                    self._function(node)
                top.setdefault(node.name, node.lineno)
        direct = {id(node) for node in self._tree.body}
        for inner in ast.walk(self._tree):
            if isinstance(inner, _FUNCTIONS) and id(inner) not in direct and self._is_declared(inner):
                self._problem(inner, f"function {inner.name} is not at the top level of the file, so it cannot be found")
            elif isinstance(inner, ast.ClassDef) and self._is_declared(inner):
                self._problem(inner, f"class {inner.name} cannot be a model or an expectation; decorate a function")
        self.found.sort(key=lambda declaration: declaration["line"])

    def _is_declared(self, node: Any) -> bool:
        return any(self._names.headgate(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list)

    def _problem(self, node: Any, message: str, function: str = "") -> None:
        error = UserError("declaration", message, self._path, node.lineno)
        self.found.append(_failed(self._path, error, function or getattr(node, "name", "")))

    def _schema(self, schema: Schema) -> None:
        for line, message in schema.problems:
            self.found.append(_failed(self._path, UserError("declaration", message, self._path, line), schema.name))
        if not schema.problems:
            declared = {
                "path": self._path, "line": schema.line, "function": schema.name, "kind": "schema", "name": schema.name,
                "columns": schema.columns(), "types": schema.types(), "not_null": schema.required(),
            }  # fmt: skip
            self.found.append({name: value for name, value in declared.items() if value})

    def _function(self, node: Any) -> None:
        before = len(self.found)
        given: Dict[str, Dict[str, Any]] = {}
        for decorator in node.decorator_list:
            self._decorator(node, decorator, given)
        kinds = [kind for kind in ("model", "expectation") if kind in given]
        if len(kinds) == 2:
            self._problem(node, f"function {node.name} is declared both as a model and as an expectation")
        elif not kinds and len(self.found) == before:
            self._problem(node, f"function {node.name} has @{next(iter(given))} but neither @model nor @expectation")
        if isinstance(node, ast.AsyncFunctionDef):
            self._problem(node, f"function {node.name} is async; declare an ordinary function")
        if unimportable(self._path):
            self._problem(node, f"a file with functions cannot have a dot in its name ({unimportable(self._path)[0]!r})")
        self._own_package(node)
        arguments = self._arguments(node)
        main, py, res = given[kinds[0]] if kinds else {}, given.get("python", {}), given.get("resources", {})
        columns, types = said.split_columns(main.get("columns"))
        schema = self._returned(node)
        if schema is not None and columns is not None:
            self._problem(node, f"function {node.name} declares its columns twice: by columns= and by {schema.name}")
        elif schema is not None:
            columns, types = schema.columns(), schema.types()
        if len(self.found) > before or not kinds:
            return
        declared = {
            "path": self._path,
            "line": node.lineno,
            "function": node.name,
            "kind": kinds[0],
            "name": main.get("name") or node.name,
            "columns": columns,
            "types": types,
            "not_null": schema.required() if schema is not None and kinds[0] == "model" else None,
            "key": main.get("key"),
            # Without one the server decides: it depends on where the file is.
            "strategy": _strategy(main),
            "partitioned_by": said.partitions(main.get("partitioned_by")),
            "severity": main.get("severity"),
            "python": py.get("version"),
            "packages": py.get("pip"),
            "memory": _quantity(res.get("memory"), "B"),
            "timeout": _quantity(res.get("timeout"), "s"),
            "cpus": res.get("cpus"),
            "pids": res.get("pids"),
            **arguments._asdict(),
        }
        self.found.append({name: value for name, value in declared.items() if value})

    def _own_package(self, node: Any) -> None:
        """Refuse a file of the lake by the package's name, which the import does not reach."""
        for name in sorted(self._names.imported):
            shadowed = self._files.tree.own_file(self._path, name)
            if shadowed:
                self._problem(node, f"{shadowed} cannot be imported: {name} is the package headgate; give the file another name")

    def _decorator(self, node: Any, decorator: ast.expr, given: Dict[str, Dict[str, Any]]) -> None:
        call = decorator if isinstance(decorator, ast.Call) else None
        name = self._names.headgate(call.func if call else decorator)
        if not name:
            return  # somebody else's decorator
        if name in said.REFUSED_DECORATORS:
            self._problem(decorator, f"@{name} is not supported: {said.REFUSED_DECORATORS[name]}", node.name)
            return
        if name not in _DECORATORS:
            self._problem(decorator, f"headgate has no decorator {name!r}{_meant(name, _DECORATORS)}", node.name)
            return
        if name in given:
            self._problem(decorator, f"function {node.name} has @{name} twice", node.name)
        if call is None and name in ("python", "resources"):
            self._problem(decorator, f"@{name} needs its arguments: @{name}(...)", node.name)
        given[name] = self._call(node, call, f"@{name}", name, _DECORATORS[name]) if call else {}

    def _call(self, node: Any, call: ast.Call, what: str, callable_name: str, names: Tuple[str, ...]) -> Dict[str, Any]:
        """Return the literal arguments of call, checked for name and type."""
        positional = _POSITIONAL[callable_name]
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
            if name == "projection_schema":
                schema = self._named_schema(node, expression, what)
                if schema is not None:
                    values[name] = schema
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
            refused = said.refused(callable_name, {name: value})
            if refused is not None:
                self._problem(expression, f"{what}: {name} is not supported: {refused[1]}", node.name)
                continue
            wrong = _wrong_type(name, value, callable_name)
            if wrong:
                self._problem(expression, f"{what}: {name} must be {wrong}, not {value!r:.80}", node.name)
                continue
            values[name] = list(value) if isinstance(value, tuple) else value
        return values

    def _named_schema(self, node: Any, expression: ast.expr, what: str) -> Optional[Schema]:
        if isinstance(expression, ast.Constant) and expression.value is None:
            return None
        schema = self._schemas.find(self._path, expression, self._path)
        if schema is None:
            self._problem(
                expression, f"{what} names a schema that is no class of headgate.TableSchema in the lake's files", node.name
            )
        return schema

    def _returned(self, node: Any) -> Optional[Schema]:
        """Return the schema of "-> Annotated[pyarrow.Table, Schema]"."""
        returns = spelled_out(node.returns) if node.returns is not None else None
        if not isinstance(returns, ast.Subscript) or self._names.typing(returns.value) != "Annotated":
            return None
        for extra in returns.slice.elts[1:] if isinstance(returns.slice, ast.Tuple) else ():
            if isinstance(extra, (ast.Name, ast.Attribute)):
                return self._named_schema(node, extra, f"the return annotation of {node.name}")
        return None

    def _arguments(self, node: Any) -> _Arguments:
        found = _Arguments([], [], [])
        spec = node.args
        for arg in spec.posonlyargs:
            self._problem(arg, f"argument {arg.arg} is positional-only; inputs are passed by name", node.name)
        for arg in (spec.vararg, spec.kwarg):
            if arg is not None:
                self._problem(arg, f"argument *{arg.arg} cannot be an input; name the inputs", node.name)
        defaults = [None] * (len(spec.args) - len(spec.defaults)) + list(spec.defaults[-len(spec.args) :] if spec.args else [])
        for arg, default in [*zip(spec.args, defaults), *zip(spec.kwonlyargs, spec.kw_defaults)]:
            call = self._input_of(arg)
            if call is not None and default is not None:
                self._problem(default, f"argument {arg.arg} has both an annotated input and a default; keep one", node.name)
            elif call is None and default is None:
                self._problem(
                    arg,
                    f'argument {arg.arg} needs a default: headgate.Model("table"), headgate.Parameter("name") or headgate.Secret("NAME")',
                    node.name,
                )
            elif call is not None:
                self._input(node, arg, call, found)
            elif isinstance(default, ast.Call):
                self._input(node, arg, default, found)
        return found

    def _input_of(self, arg: ast.arg) -> Optional[ast.Call]:
        """Return the input in "data: Annotated[pyarrow.Table, headgate.Model(...)]"."""
        annotation = spelled_out(arg.annotation) if arg.annotation is not None else None
        if not isinstance(annotation, ast.Subscript) or self._names.typing(annotation.value) != "Annotated":
            return None
        for extra in annotation.slice.elts[1:] if isinstance(annotation.slice, ast.Tuple) else ():
            if isinstance(extra, ast.Call) and self._names.headgate(extra.func):
                return extra
        return None

    def _input(self, node: Any, arg: ast.arg, call: ast.Call, found: _Arguments) -> None:
        name = self._names.headgate(call.func)
        if name not in _INPUTS:
            if name:
                self._problem(call, f"headgate has no input {name!r}{_meant(name, _INPUTS)}", node.name)
            return  # an ordinary default: Python's own business
        what = f"{name}(...) of argument {arg.arg}"
        before = len(self.found)
        values = self._call(node, call, what, name, _INPUTS[name])
        if len(self.found) > before:
            return
        called = values.get("name") or values.get("param_name")
        if not called:
            self._problem(call, f"{what} needs a name", node.name)
        elif name == "Parameter":
            found.params.append({"param": arg.arg, "name": called})
        elif name == "Secret":
            found.secrets.append({"param": arg.arg, "name": called})
        else:
            columns = values.get("columns")
            schema = values.get("projection_schema")
            if schema is not None and columns is not None:
                self._problem(call, f"{what} takes columns or projection_schema, not both", node.name)
                return
            if schema is not None:
                columns = schema.columns()
            entry = {
                "param": arg.arg,
                "table": called,
                "columns": None if columns == ["*"] else columns,
                "filter": values.get("filter"),
            }
            found.inputs.append({key: value for key, value in entry.items() if value})


def _strategy(main: Dict[str, Any]) -> Optional[str]:
    chosen = main.get("materialization_strategy")
    if chosen is None and main.get("materialize") is not None:
        return "REPLACE" if main["materialize"] else "NONE"
    return chosen.upper() if chosen else None


def _wrong_type(name: str, value: Any, callable_name: str) -> str:
    """Return what an argument must be, or "" if value is that."""
    if value is None:
        return ""
    if name == "columns" and isinstance(value, dict) and callable_name == "model":
        named = value and all(isinstance(k, str) and k and (v is None or isinstance(v, str) and v) for k, v in value.items())
        return "" if named else 'a dict of column names to types such as {"day": "DATE"}'
    if name in ("columns", "key"):
        ok = isinstance(value, (list, tuple)) and value and all(isinstance(v, str) and v for v in value)
        if ok and len(set(value)) != len(value):
            return "a list without repetitions"
        return "" if ok else "a list of column names"
    if name == "materialization_strategy":
        ok = isinstance(value, str) and value.upper() in said.STRATEGIES
        return "" if ok else f"one of {', '.join(said.STRATEGIES)}"
    if name == "severity":
        return "" if isinstance(value, str) and value.lower() in said.SEVERITIES else f"one of {', '.join(said.SEVERITIES)}"
    if name == "partitioned_by":
        return _wrong_partitions(value)
    if name == "pip":
        return _wrong_packages(value)
    if name in ("memory", "timeout"):
        ok = isinstance(value, (str, int)) and not isinstance(value, bool)
        example = '"2GiB" or a number of bytes' if name == "memory" else '"5m" or a number of seconds'
        return "" if ok else example
    if name in ("cpus", "pids"):
        kinds = (int, float) if name == "cpus" else (int,)
        ok = isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < 1_000_000
        return "" if ok else ("a number such as 0.5 or 2" if name == "cpus" else "a number of processes")
    if name in ("materialize", "internet_access"):
        return "" if isinstance(value, bool) else "True or False"
    if name == "version":
        return "" if isinstance(value, str) else 'a text such as "3.11"'
    return "" if isinstance(value, str) and value else "a text"


def _wrong_packages(value: Any) -> str:
    ok = isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
    if not ok:
        return 'a dict such as {"pandas": "2.2.2"}'
    for name in value:
        if name.lower() in PACKAGES:
            return f"without {name!r}, which is the package headgate and always there"
    return ""


def _wrong_partitions(value: Any) -> str:
    example = 'columns, or year, month, day or hour of one, such as "hour(ts), location"'
    texts = isinstance(value, str) or isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
    items = (said.partitions(value) or []) if texts else []
    if not items:
        return example
    for item in items:
        transform, opened, rest = item.partition("(")
        if not opened:
            ok = bool(item) and ")" not in item
        else:
            ok = rest.endswith(")") and bool(rest[:-1].strip()) and "(" not in rest and "," not in rest
            ok = ok and transform.strip().lower() in _TRANSFORMS
        if not ok:
            return example
    if len(set(items)) != len(items):
        return "a list without repetitions"
    return ""


def _quantity(value: Any, unit: str) -> Optional[str]:
    return f"{value}{unit}" if isinstance(value, int) else value


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else f" (it has {', '.join(known)})"
