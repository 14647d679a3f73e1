"""What the names in a file mean, as far as they are headgate's (or, which is the same, bauplan's)."""

import ast
from typing import AbstractSet, Dict, Set

PACKAGES: AbstractSet[str] = frozenset(("headgate", "bauplan"))


class Names:
    """The local names of one file for the package and for what is in it."""

    def __init__(self, tree: ast.Module, exported: AbstractSet[str]) -> None:
        self._modules: Set[str] = set()
        self._names: Dict[str, str] = {}
        self._typing: Set[str] = set()
        self._annotated: Dict[str, str] = {}
        self.imported: Set[str] = set()  # which of PACKAGES the file imports
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    if top in PACKAGES:
                        self.imported.add(top)
                        if alias.name == top:
                            self._modules.add(alias.asname or top)
                        elif not alias.asname:  # "import bauplan.standard_expectations" binds bauplan
                            self._modules.add(top)
                    elif alias.name in ("typing", "typing_extensions"):
                        self._typing.add(alias.asname or alias.name)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                module = node.module or ""
                if module.partition(".")[0] in PACKAGES:
                    self.imported.add(module.partition(".")[0])
                if module in PACKAGES:
                    for alias in node.names:
                        if alias.name == "*":
                            self._names.update({name: name for name in exported})
                        else:
                            self._names[alias.asname or alias.name] = alias.name
                elif module in ("typing", "typing_extensions"):
                    for alias in node.names:
                        self._annotated[alias.asname or alias.name] = alias.name

    def headgate(self, node: ast.expr) -> str:
        """Return headgate's name for what node refers to, or ""."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, "")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self._modules:
            return node.attr
        return ""

    def typing(self, node: ast.expr) -> str:
        """Return typing's name for what node refers to ("Annotated", "Optional"), or ""."""
        if isinstance(node, ast.Name):
            return self._annotated.get(node.id, "")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self._typing:
            return node.attr
        return ""

    def __bool__(self) -> bool:
        return bool(self._modules or self._names)


def spelled_out(node: ast.expr) -> ast.expr:
    """Return an annotation as an expression, also if it is written as a text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            parsed = ast.parse(node.value, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return node
        return ast.copy_location(parsed, node) if isinstance(parsed, ast.expr) else node
    return node
