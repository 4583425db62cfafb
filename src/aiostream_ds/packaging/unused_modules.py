"""Removes modules of the standard library that nothing in a package mentions."""

import ast
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from aiostream_ds.packaging.python_runtime import Runtime

__all__ = ["remove_unused_modules"]

_ALWAYS = {
    *(
        "asyncio",
        "collections",
        "concurrent",
        "ctypes",
        "encodings",
        "importlib",
        "json",
        "logging",
    ),
    *("_lzma", "multiprocessing", "os", "re", "runpy", "traceback", "zoneinfo"),
}
"""What Python itself, start.py or binaries import."""

_BINARY_WORD = re.compile(rb"\0([A-Za-z_]\w{1,40})(?=\0)")
_WORD = re.compile(r"[A-Za-z_]\w*")


def remove_unused_modules(root: Path, runtime: Runtime) -> int:
    """Remove the top-level modules of the standard library whose name is in no import and in no
    string, from that of the packages and the author's files on; returns their number.

    It runs before the sources are compiled. A module whose name is put together at run time is
    missed.
    """
    library = root / runtime.library
    modules = _modules(library)
    reached: set[str] = set()
    queue = list(_ALWAYS)
    for folder in (root / "app", root / "py"):
        queue += _mentioned(folder.rglob("*.py"))
        for path in folder.rglob("*.so*"):  # binaries import by the names of modules
            queue += {word.decode() for word in _BINARY_WORD.findall(path.read_bytes())}
    while queue:
        name = queue.pop()
        if name in reached or name not in modules:
            continue
        reached.add(name)
        path = modules[name]
        queue += _mentioned(path.rglob("*.py") if path.is_dir() else [path])
    unused = modules.keys() - reached
    for name in unused:
        path = modules[name]
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return len(unused)


def _modules(library: Path) -> dict[str, Path]:
    """The modules in Python and in C of the standard library, by name."""
    found = {}
    for path in (*library.iterdir(), *(library / "lib-dynload").glob("*.so")):
        name = path.name.partition(".")[0]
        is_module = path.suffix in (".py", ".so") or (path / "__init__.py").is_file()
        if is_module and name in sys.stdlib_module_names:
            found[name] = path
    return found


def _mentioned(paths: Iterable[Path]) -> set[str]:
    """The first names of imported modules, and the words in strings."""
    found: set[str] = set()
    for path in paths:
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if len(node.value) <= _LONGEST and _WORD.match(node.value):
                    found.add(node.value.partition(".")[0])
    return found


_LONGEST = 64
"""Characters of a string that can be the name of a module."""
