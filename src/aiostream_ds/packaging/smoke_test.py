"""A package tried before it is called one: its own Python imports it, and a frame goes through
Arrow. Imports `runtime`, `words`.
"""

import subprocess
from pathlib import Path

from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.packaging.python_runtime import Runtime

__all__ = ["run_python", "try_package"]

_ARROW = """
import sys
sys.path += [sys.argv[1] + "/app", sys.argv[1] + "/py"]
from aiostream_ds import Field, Frame
from aiostream_ds._frames import arrow
frame = Frame(Field("n", [1, 2]), Field("s", ["a", None]), Field("x", [0.5, None]))
again = arrow.decode(arrow.encode(frame))
assert [list(field.values) for field in again.fields] == [[1, 2], ["a", None], [0.5, None]], again
"""

_WHOLE = """
import asyncio, re, ssl, zoneinfo
import aiostream_ds.cli.doctor, aiostream_ds._process.runtime
text = open(sys.argv[1] + "/start.py", encoding="utf-8").read()
found = re.search(r'load\\("(\\w+):(\\w+)"\\)', text)
if found:
    from aiostream_ds._grafana.catalog import load
    load(":".join(found.groups()))
"""


def try_package(root: Path, runtime: Runtime, *, only_arrow: bool = False) -> None:
    """Import, write and read with the packaged Python, every symbol looked up at once. Raises
    PackagingError with the end of what it said."""
    run_python(root, runtime, _ARROW + ("" if only_arrow else _WHOLE))


def run_python(root: Path, runtime: Runtime, code: str) -> str:
    """What this code prints in the packaged Python, which gets the package's folder as its
    argument. Raises PackagingError with the end of what it said when it fails."""
    command = [
        str(root / runtime.loader), *runtime.loader_flags.split(), "--library-path",
        str(root / runtime.libraries), str(root / runtime.interpreter),
        "-I", "-S", "-B", "-X", "utf8", "-c", code, str(root),
    ]  # fmt: skip
    (root / runtime.loader).chmod(0o755)
    done = subprocess.run(
        command, env={"LD_BIND_NOW": "1"}, capture_output=True, text=True, check=False, cwd="/"
    )
    if not done.returncode:
        return done.stdout.strip()
    said = "\n".join(done.stderr.strip().splitlines()[-6:])
    hint = ""
    if "FileNotFoundError" in said:
        hint = "\nwhat the author's code reads goes along by --include PATH"
    elif "ModuleNotFoundError" in said:
        hint = "\na package that is imported only later goes along by --with NAME"
    raise PackagingError(
        f"the package of {root.name} does not run (status {done.returncode}):\n{said}{hint}"
    )
