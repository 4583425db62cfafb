"""Everything compiled beforehand, so that a start compiles nothing and nothing has to be written.

The .pyc are never compared with their sources (unchecked hash): packing made them, and a signed
package does not change. Standard library only.
"""

import subprocess
import sys
from pathlib import Path

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["compile_all"]

# One order, one hash seed, no pool: marshal writes what a process has interned, so that the same
# input gives the same bytes only when the process did the same before.
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
        continue  # for another Python: packages hold such files, and never import them
    if bare:
        os.unlink(path)
"""

_WORKERS = 2


def compile_all(root: Path, bare: list[str], kept: list[str]) -> int:
    """Compile the folders below `root`; in `bare` ones the .pyc takes the source's place, in `kept`
    ones it lies beside it. Returns the number of files."""
    lines = [
        f"{kind} {path.relative_to(root).as_posix()}\n"
        for kind, folders in (("bare", bare), ("kept", kept))
        for folder in folders
        for path in sorted((root / folder).rglob("*.py"))
    ]
    command = [sys.executable, "-S", "-B", "-X", "utf8", "-W", "ignore", "-c", _COMPILE]
    workers = [
        subprocess.Popen(
            command, cwd=root, env={"PYTHONHASHSEED": "0"}, text=True,
            stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(_WORKERS)
    ]  # fmt: skip
    for number, worker in enumerate(workers):
        assert worker.stdin is not None
        worker.stdin.write("".join(lines[number::_WORKERS]))
        worker.stdin.close()
        worker.stdin = None
    for worker in workers:
        _, error = worker.communicate()
        if worker.returncode:
            raise PackagingError(f"the files cannot be compiled: {error.strip()}")
    return len(lines)
