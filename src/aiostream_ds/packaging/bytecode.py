"""Compiles the Python files of a package, and writes one file with the modules of its start."""

import json
import marshal
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.packaging.module_archives import PYC_HEADER, archive_modules, archive_sources
from aiostream_ds.packaging.python_runtime import Runtime, run_python

__all__ = ["PRELOAD", "compile_all", "write_preload"]

# One order, one hash seed, no process pool: marshal output depends on what a process has interned,
# so equal bytes need equal processes. Unchecked hashes: nobody edits the sources of a package.
# A docstring becomes a space: code that extends or formats it still works.
_COMPILE = """
import ast, importlib.util, marshal, os, sys
documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
for line in sys.stdin:
    kind, path = line.rstrip("\\n").split(" ", 1)
    with open(path, "rb") as file:
        source = file.read()
    try:
        tree = ast.parse(source, path)
        for node in ast.walk(tree) if kind == "terse" else ():
            first = node.body[0] if isinstance(node, documented) and node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                if isinstance(first.value.value, str):
                    first.value.value = " "
        code = compile(tree, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        continue  # for another version of Python; packages never import such files
    target = importlib.util.cache_from_source(path) if kind == "source" else path + "c"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    head = importlib.util.MAGIC_NUMBER + b"\\1\\0\\0\\0" + importlib.util.source_hash(source)
    with open(target, "wb") as file:
        file.write(head + marshal.dumps(code))
    if kind != "source":
        os.unlink(path)
"""

_COMPILE_PROCESSES = 2

_READS_SOURCES = re.compile(rb"\b(getsource|findsource|linecache|sys\.executable)\b")
"""In packages that read or start their own sources."""


def compile_all(root: Path, library: str = "", *, small: bool = False) -> int:
    """Compile all Python files of the package in `root`; returns their number.

    In the standard library `library` and in packages a .pyc without docstrings (in packages only if
    `small`) replaces its source. The files of authors and, unless `small`, of this distribution
    keep their sources, which tracebacks show, and so do packages that read theirs. Bytecode without
    a source has line numbers, but no columns: tracebacks show them only below lines of sources.
    """
    kept: list[str] = []
    alone: list[str] = []
    for kind, path in _kinds(root, library, small):
        lines = kept if kind == "source" else alone
        lines.append(f"{kind} {path.relative_to(root).as_posix()}\n")
    processes = [
        _compiler(root, alone[number::_COMPILE_PROCESSES], "-X", "no_debug_ranges")
        for number in range(_COMPILE_PROCESSES)
    ]
    for process in (*processes, _compiler(root, kept)):
        _, error = process.communicate()
        if process.returncode:
            raise PackagingError(f"the files of {root.name} cannot be compiled: {error.strip()}")
    return len(kept) + len(alone)


def _compiler(root: Path, lines: list[str], *options: str) -> subprocess.Popen[str]:
    """Start a Python with these options that compiles the files."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-B", "-X", "utf8", "-W", "ignore", *options, "-c", _COMPILE],
        cwd=root,
        env={"PYTHONHASHSEED": "0"},
        text=True,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write("".join(lines))
    process.stdin.close()
    process.stdin = None
    return process


def _kinds(root: Path, library: str, small: bool) -> Iterator[tuple[str, Path]]:
    """How each file is compiled: `terse` and `bare` replace the source, `source` keeps it."""
    if library:
        yield from (("terse", path) for path in sorted((root / library).rglob("*.py")))
    yield from (("source", path) for path in sorted((root / "app").rglob("*.py")))
    for top in sorted((root / "py").iterdir()):
        files = sorted(top.rglob("*.py")) if top.is_dir() else [top] if top.suffix == ".py" else []
        if top.name == "aiostream_ds":  # it reads the sources of authors only
            keep = not (library and small)
        else:
            keep = not library or any(_READS_SOURCES.search(path.read_bytes()) for path in files)
        for path in files:
            names = path.relative_to(root / "py").with_suffix("").parts
            importable = all(name.isidentifier() for name in names)
            kind = "source" if keep or not importable else "terse" if small else "bare"
            yield kind, path


PRELOAD = "start.bin"
"""The name of the file with the modules of the start.

It is three marshalled dicts: name → (whether it is a package, path, code), and of the modules in
archives name → `Archived`, and name → `ArchivePlace` of the source. start.py reads it once instead
of searching several hundred files. The bytecode of the modules is in no other file, except that of
the modules without which no Python starts. Other modules are imported from their files.
"""

_MARSHAL_VERSION = 2  # without references: the same modules give the same bytes

_LANDMARK = "os"  # by its file Python finds the standard library

_LIST_MODULES = """
import sys
early = list(sys.modules)
import asyncio, json, os, re
root = sys.argv[1]
sys.path += [root + "/app", root + "/py"]
text = open(root + "/start.py", encoding="utf-8").read()
from aiostream_ds._process.entry import load_runtime
load_runtime()
import uvloop
from aiostream_ds._grafana.application import open_application
from aiostream_ds._grafana.catalog import Catalog, load
found = re.search(r'load\\("(.+)"\\)', text)
if found:
    catalog = Catalog(load(found[1]))
else:
    from aiostream_ds.sources.builtin_plugin import SOURCES
    catalog = Catalog(SOURCES, "source")
    catalog.pick(b"{}")

async def start():
    async with open_application(catalog) as application:
        for make in application.services().values():
            make()

asyncio.run(start())
names = {}
for name, module in sys.modules.items():
    spec = getattr(module, "__spec__", None)
    if spec is None or spec.name != name or not spec.origin:
        continue
    compiled = spec.cached if spec.origin.endswith(".py") else spec.origin
    if compiled and compiled.endswith(".pyc") and compiled.startswith(root):
        package = spec.submodule_search_locations is not None
        names[name] = package, os.path.relpath(spec.origin, root), os.path.relpath(compiled, root)
print(json.dumps([early, names]))
"""


def write_preload(root: Path, runtime: Runtime, *, small: bool = False) -> int:
    """Write PRELOAD and the archives, which are compressed if `small`; returns the number of
    modules in PRELOAD.

    Raises:
        PackagingError: The package does not run.
    """
    early, found = json.loads(run_python(root, runtime, _LIST_MODULES).rpartition("\n")[2])
    table = {
        name: (package, path, (root / compiled).read_bytes()[PYC_HEADER:])
        for name, (package, path, compiled) in sorted(found.items())
    }
    kept = {*early, _LANDMARK}
    for name, (_, _, compiled) in found.items():
        if name not in kept:
            (root / compiled).unlink()
    packages = {name for name, (package, _, _) in found.items() if package}
    # some Pythons lack the module: the one that packs, or the one that unpacks
    can_pack = find_spec("_lzma") is not None
    can_pack = can_pack and any((root / runtime.library / "lib-dynload").glob("_lzma.*"))
    archived = archive_modules(root, runtime, kept, packages, compressed=small and can_pack)
    sources = archive_sources(root, root / "py/aiostream_ds") if can_pack else {}
    content = (
        table,
        {name: tuple(module) for name, module in archived.items()},
        {name: tuple(place) for name, place in sources.items()},
    )
    (root / PRELOAD).write_bytes(marshal.dumps(content, _MARSHAL_VERSION))
    return len(table)
