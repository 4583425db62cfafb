"""The modules that a start imports, in one file: a start reads it once, instead of looking for
three hundred files in four folders. Imports `runtime`, `trial`.

The file is a marshalled table of what importlib would have found: a module's name, whether it is a
package, its place, its code. What is not in it is imported as ever, and so is everything when it is
missing. The version of marshal without references makes the same bytes of the same modules.
"""

import json
import marshal
from pathlib import Path

from aiostream_ds.packaging.python_runtime import Runtime
from aiostream_ds.packaging.smoke_test import run_python

__all__ = ["PRELOAD", "write_preload"]

PRELOAD = "start.bin"
"""The file's name in a package."""

_HEADER = 16  # bytes of a .pyc before its code
_PLAIN = 2  # of marshal: no references

_LIST = """
import asyncio, json, os, re, sys
root = sys.argv[1]
sys.path += [root + "/app", root + "/py"]
text = open(root + "/start.py", encoding="utf-8").read()
import aiostream_ds._process.runtime, uvloop
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
    """Write the file; returns how many modules are in it. Raises PackagingError when the package
    does not run."""
    found = json.loads(run_python(root, runtime, _LIST).rpartition("\n")[2])
    table = {
        name: (package, place, (root / compiled).read_bytes()[_HEADER:])
        for name, (package, place, compiled) in sorted(found.items())
    }
    (root / PRELOAD).write_bytes(marshal.dumps(table, _PLAIN))
    return len(table)
