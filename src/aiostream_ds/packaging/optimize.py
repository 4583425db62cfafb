"""Makes a package smaller and its start faster: pyarrow without unused libraries, binaries without
debugging symbols, compiled bytecode, and one file with the modules of the start.
"""

import json
import marshal
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from aiostream_ds.packaging.elf import drop_needed, is_elf, read_elf
from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.packaging.python_runtime import Runtime, run_python

__all__ = [
    "PRELOAD",
    "compile_all",
    "strip_all",
    "trim_arrow",
    "trim_optional_arrow",
    "write_preload",
]

_ARROW_UNUSED = ("libarrow_substrait.", "libarrow_dataset.", "libarrow_acero.", "libparquet.")
"""Libraries that pyarrow's core links but takes no symbol from."""

_ARROW_OPTIONAL = ("substrait", "flight")
"""Parts of pyarrow that only code which names them uses."""

_ARROW_FOLDERS = ("include", "includes", "src", "tests", "vendored/tests")


def trim_arrow(folder: Path) -> None:
    """Remove from pyarrow's folder what reading and writing frames does not need (Parquet, S3,
    SQL).

    Other releases of pyarrow may need more, so the caller has to test the result.
    """
    _remove_from_arrow(folder, ("lib.",), _ARROW_UNUSED)


def trim_optional_arrow(folder: Path, sources: Iterable[Path]) -> None:
    """Remove from pyarrow's folder the optional parts that no source names, and second copies of
    libraries; the caller has to test the result, as above."""
    code = b"".join(path.read_bytes() for path in sources)
    unnamed = [part for part in _ARROW_OPTIONAL if part.encode() not in code]
    modules = tuple(
        path.name
        for path in folder.glob("*.so")
        if not path.name.startswith(("lib", *(f"_{part}." for part in unnamed)))
    )
    unused = tuple(f"libarrow_{part}." for part in unnamed)
    _remove_from_arrow(folder, ("lib.", *modules), unused)


def _remove_from_arrow(folder: Path, modules: tuple[str, ...], unused: tuple[str, ...]) -> None:
    """Keep these extension modules, the libraries that they need except `unused`, and sources.
    All are starts of names."""
    for name in _ARROW_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    libraries = {path.name: path for path in folder.iterdir() if ".so" in path.name}
    unused_names = {name for name in libraries if name.startswith(unused)}
    reached = [name for name in libraries if name.startswith(modules)]
    for name in reached:  # the list grows during the loop
        drop_needed(libraries[name], unused_names)
        needed = read_elf(libraries[name]).needed
        reached += [n for n in needed if n in libraries and n not in reached]
    for name in libraries.keys() - set(reached):
        libraries[name].unlink()


def strip_all(root: Path) -> bool:
    """Remove debugging symbols from every binary; False if the tool `strip` is not installed.

    Libraries in the `.libs` folders of wheels stay as they are: auditwheel changed their layout,
    and `strip` breaks some (numpy's OpenBLAS).
    """
    strip = shutil.which("strip")
    if strip is None:
        return False
    for path in sorted(root.rglob("*")):
        vendored = any(part.endswith(".libs") for part in path.parts)
        if path.is_file() and not vendored and is_elf(path):
            subprocess.run([strip, "--strip-unneeded", path], capture_output=True, check=False)
    return True


# One order, one hash seed, no process pool: marshal output depends on what a process has interned,
# so equal bytes need equal processes. Unchecked hashes: nobody edits the sources of a package.
_COMPILE = """
import importlib.util, os, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for line in sys.stdin:
    kind, path = line.rstrip("\\n").split(" ", 1)
    bare = kind == "bare"
    target = path + "c" if bare else importlib.util.cache_from_source(path)
    try:
        py_compile.compile(path, target, path, doraise=True, invalidation_mode=mode)
    except py_compile.PyCompileError:
        continue  # for another version of Python; packages never import such files
    if bare:
        os.unlink(path)
"""

_COMPILE_PROCESSES = 2


def compile_all(root: Path, bare: list[str], with_source: list[str]) -> int:
    """Compile the Python files in folders of `root`; returns their number.

    In the `bare` folders a .pyc replaces its source, in the others it is added in `__pycache__`.
    """
    lines = [
        f"{kind} {path.relative_to(root).as_posix()}\n"
        for kind, folders in (("bare", bare), ("source", with_source))
        for folder in folders
        for path in sorted((root / folder).rglob("*.py"))
    ]
    command = [sys.executable, "-S", "-B", "-X", "utf8", "-W", "ignore", "-c", _COMPILE]
    processes = [
        subprocess.Popen(
            command,
            cwd=root,
            env={"PYTHONHASHSEED": "0"},
            text=True,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(_COMPILE_PROCESSES)
    ]
    for number, process in enumerate(processes):
        assert process.stdin is not None
        process.stdin.write("".join(lines[number::_COMPILE_PROCESSES]))
        process.stdin.close()
        process.stdin = None
    for process in processes:
        _, error = process.communicate()
        if process.returncode:
            raise PackagingError(f"the files of {root.name} cannot be compiled: {error.strip()}")
    return len(lines)


PRELOAD = "start.bin"
"""The name of the file with the modules of the start.

It is a marshalled dict: name → (whether it is a package, path, code). start.py reads it once
instead of searching several hundred files. Other modules, or all if the file is missing, are
imported from their files: those in `app` and `py` then from their sources, because their bytecode
is in this file only. The standard library keeps its own, without which no Python starts.
"""

_PYC_HEADER = 16  # bytes before the code
_MARSHAL_VERSION = 2  # without references: the same modules give the same bytes

_LIST_MODULES = """
import asyncio, json, os, re, sys
root = sys.argv[1]
sys.path += [root + "/app", root + "/py"]
text = open(root + "/start.py", encoding="utf-8").read()
from aiostream_ds._process.entry import load_runtime
load_runtime()
import uvloop
from aiostream_ds._grafana.application import open_application
from aiostream_ds._grafana.catalog import Catalog, load
found = re.search(r'load\\("([\\w.]+:\\w+)"\\)', text)
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
print(json.dumps(names))
"""


def write_preload(root: Path, runtime: Runtime) -> int:
    """Write PRELOAD; returns the number of modules in it.

    Raises:
        PackagingError: The package does not run.
    """
    found = json.loads(run_python(root, runtime, _LIST_MODULES).rpartition("\n")[2])
    table = {
        name: (package, path, (root / compiled).read_bytes()[_PYC_HEADER:])
        for name, (package, path, compiled) in sorted(found.items())
    }
    (root / PRELOAD).write_bytes(marshal.dumps(table, _MARSHAL_VERSION))
    for _, _, compiled in found.values():
        if not compiled.startswith(runtime.library):
            (root / compiled).unlink()
    return len(table)
