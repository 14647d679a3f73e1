"""The name bauplan: in a sandbox it is this package, so that pipelines written for it run unchanged.

``import bauplan`` and everything below it give the same objects as
``import headgate``. The alias comes before whatever is installed by that name.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any, Dict, Iterator, Optional

ALIAS = "bauplan"
_REAL = "headgate"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Optional[importlib.machinery.ModuleSpec]:
        if fullname != ALIAS and not fullname.startswith(ALIAS + "."):
            return None
        real = _REAL + fullname[len(ALIAS) :]
        if importlib.util.find_spec(real) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=real)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(str(spec.origin))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just told the module that its name is the alias.
        aliased = module.__spec__
        if aliased is not None and aliased.loader is self:
            module.__spec__ = aliased.loader_state


_finder = _Finder()


def install() -> None:
    """Let this interpreter find the package by its other name."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Let it be found for a while, whatever was imported by that name before."""
    before: Dict[str, ModuleType] = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == ALIAS
    }
    install()
    try:
        yield
    finally:
        sys.meta_path.remove(_finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == ALIAS]:
            del sys.modules[name]
        sys.modules.update(before)
