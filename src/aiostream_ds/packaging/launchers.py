"""The files that start a package: the launcher, a static program that Grafana starts (launcher/ in
the repository), launch.conf for it, and start.py for Python.
"""

import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aiostream_ds.packaging.cache import cache_folder
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
"""The platforms of launchers. linux/amd64 is tested, linux/arm64 under qemu; the others are
cross-compiled.
"""

_DISTRIBUTION, _PREBUILT = "aiostream-ds", "aiostream-ds-launchers"
_CHECKOUT = Path(__file__).parents[3]


def launcher(system: str, *, bridge: bool = False) -> Path:
    """The launcher for a platform; with `bridge` it can also connect to a remote plugin over TLS.

    Raises:
        PackagingError: This installation does not have it and cannot build it.
    """
    if system not in PLATFORMS:
        raise PackagingError(f"platform must be {', '.join(PLATFORMS)}, got {system!r}")
    name = f"{'bridge' if bridge else 'launch'}_{system.replace('/', '_')}"
    prebuilt = _prebuilt(name)
    if prebuilt is not None:
        return prebuilt
    sources, folder = _sources_and_folder()
    if shutil.which("go") is None:
        raise PackagingError(
            f"this installation has no launcher for {system}; use pip install "
            f"{_PREBUILT}=={version(_DISTRIBUTION)}, or install Go, which builds it"
        )
    done = subprocess.run(
        [sys.executable, "-B", sources / "build.py", folder, name],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PackagingError(f"the launcher for {system} cannot be built: {done.stderr.strip()}")
    return folder / name


def _prebuilt(name: str) -> Path | None:
    """The launcher of the distribution with all of them, if that is installed.

    Raises:
        PackagingError: It is of another version.
    """
    try:
        installed = version(_PREBUILT)
        from aiostream_ds_launchers import FOLDER
    except (PackageNotFoundError, ImportError):
        return None
    if installed != version(_DISTRIBUTION):
        raise PackagingError(
            f"{_PREBUILT} must be version {version(_DISTRIBUTION)}, got {installed}; use pip "
            f"install {_PREBUILT}=={version(_DISTRIBUTION)}"
        )
    path: Path = FOLDER / name
    return path if path.is_file() else None


def _sources_and_folder() -> tuple[Path, Path]:
    """The folder of the launchers' sources, and where they are built: for a wheel in the user's
    cache."""
    if (_CHECKOUT / "launcher/build.py").is_file():
        return _CHECKOUT / "launcher", _CHECKOUT / "build/launchers"
    return Path(__file__).parent / "launcher", cache_folder("launchers")


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
'''

_BLOCKS = 4
"""Unpacked blocks of modules, of 1 MB, that a process keeps."""

_FLAGS = ("-I", "-S", "-B", "-E", "-s", "-X", "-W", "-O", "-c", "-m")
"""Options of Python with which modules such as multiprocessing start it."""

_BUNDLED = """\

HERE = __file__.rpartition("/")[0] or "."

# The standard library first, which most imports are from. It is not zipped.
sys.path[:] = [path for path in sys.path if not path.endswith(".zip")]
sys.path += [HERE + "/app", HERE + "/py"]
sys.executable = HERE + "/{executable}"  # child processes also need this file

from _frozen_importlib_external import (
    SourceFileLoader,
    SourcelessFileLoader,
    spec_from_file_location,
)
from _imp import _fix_co_filename
from marshal import loads


def read():
    with open(HERE + "/start.bin", "rb") as file:
        return loads(file.read())


def code(loader, name):
    if name in archived:
        data = unarchived(*archived[name][2:])
    else:
        package, path, data = modules[name]
        if data is None:  # imported once more
            data = read()[0][name][2]
        modules[name] = package, path, None
    result = loads(data)
    _fix_co_filename(result, loader.path)
    return result


def unarchived(archive, place, size, block, block_size):
    if not block_size:
        return part(archive, place, size)
    data = blocks.get((archive, block))
    if data is None:
        from _lzma import LZMADecompressor  # in C: a module in an archive could not be its reader

        data = LZMADecompressor().decompress(part(archive, block, block_size))
        if len(blocks) >= {blocks}:  # what a package imports is in few of them
            blocks.clear()
        blocks[archive, block] = data
    return data[place : place + size]


def part(archive, place, size):
    with open(HERE + "/" + archive, "rb") as file:
        file.seek(place)
        return file.read(size)


class Source(SourceFileLoader):
    def get_code(self, name):
        return code(self, name) if known(name) else super().get_code(name)

    def get_source(self, name):  # for tracebacks
        return unarchived(*sources[name]).decode() if name in sources else super().get_source(name)


class Sourceless(SourcelessFileLoader):
    def get_code(self, name):
        return code(self, name) if known(name) else super().get_code(name)


def known(name):
    return modules.get(name) or archived.get(name)


class Preloaded:
    # Finds the modules in start.bin and in archives; sys.path has the others.

    @staticmethod
    def find_spec(name, path=None, target=None):
        entry = known(name)
        if entry is None:
            return None
        file = HERE + "/" + entry[1]
        loader = (Source if file.endswith(".py") else Sourceless)(name, file)
        folders = [file.rpartition("/")[0]] if entry[0] else None
        return spec_from_file_location(
            name, file, loader=loader, submodule_search_locations=folders
        )


blocks = {{}}
try:
    modules, archived, sources = read()
except (OSError, EOFError, ValueError, TypeError) as error:
    sys.stderr.write(
        '{{"@level": "error", "@module": "start", "@message": "the package is incomplete: '
        'start.bin cannot be read (%s); unpack it again"}}\\n' % type(error).__name__
    )
    sys.exit(1)
sys.meta_path.insert(-1, Preloaded)  # before the finder for sys.path


def run_as_python(words):
    # `-c CODE`, `-m MODULE` or a file, as for `python`: sys.executable is the launcher
    import runpy

    while words[0] in ("-X", "-W"):
        del words[:2]
    kind = words[0]
    if kind in ("-c", "-m"):
        sys.argv[:] = [kind, *words[2:]]
        if kind == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            exec(compile(words[1], "<string>", "exec"), {{"__name__": "__main__"}})
    elif kind.endswith(".py"):
        sys.argv[:] = words
        runpy.run_path(kind, run_name="__main__")
    else:
        run_as_python(words[1:])


if sys.argv[1:] and (sys.argv[1].endswith(".py") or sys.argv[1][:2] in {flags}):
    del __file__  # multiprocessing would run this file in its children
    gc.enable()
    run_as_python(sys.argv[1:])
    sys.exit()
"""

_HOST = """\
import os

HERE = os.path.dirname(__file__) or "."
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


def start_file(runtime: str, target: tuple[str, str] | None, executable: str) -> str:
    """The text of start.py.

    `target` is a module and a class, or None for the built-in plugin; `executable` is the name of
    the launcher.
    """
    bundled = _BUNDLED.format(executable=executable, flags=_FLAGS, blocks=_BLOCKS)
    paths = bundled if runtime == "bundled" else _HOST
    end = _BUILTIN if target is None else _CLASS.format(module=target[0], name=target[1])
    return _HEAD + paths + _COMMAND + end


def launch_conf(values: Mapping[str, str]) -> str:
    """The text of launch.conf; empty values are left out."""
    lines = [f"{name} = {value}\n" for name, value in values.items() if value]
    head = "# How the launcher starts the plugin. Made by `aiostream-ds package`.\n"
    return head + "".join(lines)
