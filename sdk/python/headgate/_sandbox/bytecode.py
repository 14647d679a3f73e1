"""Compiles the modules of an environment, so that no function has to.

Nothing of them is executed: a compiler reads what it compiles. They lie apart
from where they will be imported, so that none is imported by mistake.
"""

import os
import py_compile
import tempfile
import warnings
from typing import Any, Dict, Sequence

from .frames import Frames


def compile_all(root: str, names: Sequence[str], frames: Frames) -> Dict[str, Any]:
    """Send the bytecode of root/<number>.py as "<number>.pyc", for each of names.

    A name is what tracebacks show. What cannot be compiled is left out: packages
    hold templates, and sources for other versions of Python.
    """
    warnings.simplefilter("ignore")
    target = os.path.join(tempfile.mkdtemp(), "module.pyc")
    done = 0
    for number, name in enumerate(names):
        try:
            # Unchecked: sources of an environment never change, and their times are
            # those of the server's disk.
            py_compile.compile(
                os.path.join(root, f"{number}.py"),
                cfile=target,
                dfile=name,
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        except (py_compile.PyCompileError, SyntaxError, ValueError, RecursionError, MemoryError, OSError):
            continue
        frames.file(f"{number}.pyc", target)
        done += 1
    return {"rows": done}
