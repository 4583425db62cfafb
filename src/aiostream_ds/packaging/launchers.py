"""The files that start a package: the launcher, a static program that Grafana starts (launcher/ in
the repository), launch.conf for it, and start.py for Python.
"""

import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiostream_ds.packaging.findings import PackagingError

__all__ = [
    "PLATFORMS",
    "current_platform",
    "executable_name",
    "launch_conf",
    "launcher",
    "start_file",
]

PLATFORMS = (
    "linux/amd64",
    "linux/arm64",
    "linux/arm",
    "darwin/amd64",
    "darwin/arm64",
    "windows/amd64",
)
"""The platforms of launchers. Only linux/amd64 is tested; the others are cross-compiled."""

_PREBUILT = Path(__file__).parent / "launchers"
_CHECKOUT = Path(__file__).parents[3]


def launcher(system: str, *, bridge: bool = False) -> Path:
    """The launcher for a platform; with `bridge` it can also connect to a remote plugin over TLS.

    Raises:
        PackagingError: This installation does not have it and cannot build it.
    """
    if system not in PLATFORMS:
        raise PackagingError(f"platform must be {', '.join(PLATFORMS)}, got {system!r}")
    name = f"{'bridge' if bridge else 'launch'}_{system.replace('/', '_')}"
    prebuilt = _PREBUILT / name
    if prebuilt.is_file():
        return prebuilt
    builder = _CHECKOUT / "launcher/build.py"
    if not builder.is_file() or shutil.which("go") is None:
        raise PackagingError(
            f"this installation has no launcher for {system}; install a wheel of aiostream-ds that "
            "has one, or use a checkout with go on PATH"
        )
    folder = _CHECKOUT / "build/launchers"
    done = subprocess.run(
        [sys.executable, builder, folder, name], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PackagingError(f"the launcher for {system} cannot be built: {done.stderr.strip()}")
    return folder / name


def current_platform() -> str:
    """The platform of this machine, as Go names it: `linux/amd64`."""
    machine = platform.machine().lower()
    known = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    system = {"win32": "windows", "darwin": "darwin"}.get(sys.platform, "linux")
    return f"{system}/{known.get(machine, 'arm' if machine.startswith('arm') else machine)}"


def executable_name(manifest: Mapping[str, Any], platform: str) -> str:
    """The name of the file that Grafana starts on a platform."""
    suffix = ".exe" if platform.startswith("windows") else ""
    return f"{manifest['executable']}_{platform.replace('/', '_')}{suffix}"


_HEAD = '''\
"""Starts the plugin. Made by `aiostream-ds package`; do not edit."""

import gc

gc.disable()  # imports make no garbage; serve() enables it again

import sys

HERE = __file__.rpartition("/")[0] or "."
'''

_BUNDLED = """\
# The standard library first, which most imports are from. It is not zipped.
sys.path[:] = [path for path in sys.path if not path.endswith(".zip")]
sys.path += [HERE + "/app", HERE + "/py"]

from _frozen_importlib_external import (
    SourceFileLoader,
    SourcelessFileLoader,
    spec_from_file_location,
)
from _imp import _fix_co_filename
from marshal import loads


def code(loader, name):
    result = loads(modules.pop(name)[2])
    _fix_co_filename(result, loader.path)
    return result


class Source(SourceFileLoader):
    def get_code(self, name):
        return code(self, name) if name in modules else super().get_code(name)


class Sourceless(SourcelessFileLoader):
    def get_code(self, name):
        return code(self, name) if name in modules else super().get_code(name)


class Preloaded:
    # Finds the modules in start.bin, each once; sys.path has the others.

    @staticmethod
    def find_spec(name, path=None, target=None):
        entry = modules.get(name)
        if entry is None:
            return None
        file = HERE + "/" + entry[1]
        loader = (Source if file.endswith(".py") else Sourceless)(name, file)
        folders = [file.rpartition("/")[0]] if entry[0] else None
        return spec_from_file_location(
            name, file, loader=loader, submodule_search_locations=folders
        )


modules = {}
try:
    with open(HERE + "/start.bin", "rb") as file:
        modules = loads(file.read())
except OSError:
    pass
sys.meta_path.insert(-1, Preloaded)  # before the finder for sys.path
"""

_HOST = """\
sys.path[:0] = [HERE + "/app", HERE + "/py"]


def fail(problem, cure):
    import json

    text = "the Python %s (%s) %s: %s" % (sys.executable, sys.version.split()[0], problem, cure)
    sys.stderr.write(json.dumps({"@level": "error", "@message": text, "@module": "start"}) + "\\n")
    sys.exit(1)


if sys.version_info < (3, 11):
    fail("is older than 3.11", "set python = /path/to/python under [plugin.<id>] in grafana.ini")
try:
    from aiostream_ds._process.entry import load_runtime

    load_runtime()
except ModuleNotFoundError as error:
    fail(
        "lacks the package %r" % error.name,
        "%s -m pip install -r %s/requirements.txt" % (sys.executable, HERE),
    )
"""

_COMMAND = """
if len(sys.argv) > 1:  # `gpx_… doctor`: the command line on a machine without Python
    from aiostream_ds.cli import main

    gc.enable()
    sys.exit(main(sys.argv[1:]))
"""

_CLASS = """
from aiostream_ds._process.entry import load_runtime

load_runtime()
from aiostream_ds._grafana.catalog import Catalog, load
from aiostream_ds._process.runtime import serve_loaded

serve_loaded(lambda: Catalog(load("{module}:{name}")))
"""

_BUILTIN = """
from aiostream_ds.sources.builtin_plugin import main

main()
"""


def start_file(runtime: str, target: tuple[str, str] | None) -> str:
    """The text of start.py; `target` is a module and a class, or None for the built-in plugin."""
    paths = _BUNDLED if runtime == "bundled" else _HOST
    end = _BUILTIN if target is None else _CLASS.format(module=target[0], name=target[1])
    return _HEAD + paths + _COMMAND + end


def launch_conf(values: Mapping[str, str]) -> str:
    """The text of launch.conf; empty values are left out."""
    lines = [f"{name} = {value}\n" for name, value in values.items() if value]
    head = "# How the launcher starts the plugin. Made by `aiostream-ds package`.\n"
    return head + "".join(lines)
