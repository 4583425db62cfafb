"""This interpreter made portable: itself, its library without what plugins never need, the shared
libraries that all of it asks for, and the libc below them. Imports `words`, `elf`; Linux only.

The loader inside the package starts it (`ld-linux… --library-path rt/lib rt/bin/python3.x`), so no
library of the machine is used, and there may be none.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from aiostream_ds.packaging.elf import is_elf, read_elf
from aiostream_ds.packaging.findings import PackagingError

__all__ = ["Runtime", "copy_libraries", "copy_runtime", "strip_all"]

_FOLDERS = {
    "__pycache__", "curses", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data",
    "site-packages", "dist-packages", "test", "tests", "tkinter", "turtledemo", "venv",
}  # fmt: skip
"""Folders of the library that a plugin never needs: tests, installers, desktop programs."""

_MODULES = re.compile(
    r"(_test|xx|_xx|_tkinter|_curses|readline|nis|ossaudiodev|_dbm|_gdbm|_ctypes_test)\w*\."
)
"""Compiled modules of the same kind; readline's licence would also reach the package."""

_FILES = {"turtle.py", "EXTERNALLY-MANAGED"}

_NSS = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
"""What glibc loads by itself when it looks up names (before 2.34 these are files of their own)."""

_LISTED = re.compile(r"^\s*(\S+) => (\S+)(?: \(0x[0-9a-f]+\))?$", re.M)

_MISSING = re.compile(r"^\s*(\S+) => not found$", re.M)


class Runtime(NamedTuple):
    """Where things are in the package, relative to it."""

    loader: str
    loader_flags: str
    interpreter: str
    libraries: str
    library: str


def copy_runtime(root: Path) -> Runtime:
    """Copy the interpreter and its library into `root/rt`. Raises PackagingError where it cannot be
    made portable."""
    if not sys.platform.startswith("linux"):
        raise PackagingError(
            f"a package with its own Python can be made on Linux, not on {sys.platform}: "
            "use --runtime host or --address"
        )
    program = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    loader = Path(read_elf(program).interpreter)
    if not loader.is_file():
        raise PackagingError(f"{program} is linked statically: use --runtime host or --address")
    standard = Path(sysconfig.get_path("stdlib"))
    version = standard.name
    interpreter = root / "rt/bin" / version
    library = root / "rt" / sys.platlibdir / version
    interpreter.parent.mkdir(parents=True)
    (root / "rt/lib").mkdir(exist_ok=True)
    shutil.copyfile(program, interpreter)
    shutil.copytree(standard, library, ignore=_ignored)
    compiled = Path(sysconfig.get_config_var("DESTSHARED") or standard / "lib-dynload")
    if not (library / "lib-dynload").is_dir() and compiled.is_dir():
        shutil.copytree(compiled, library / "lib-dynload", ignore=_ignored)
    shutil.copyfile(loader.resolve(), root / "rt/lib" / loader.name)
    return Runtime(
        loader=f"rt/lib/{loader.name}",
        loader_flags="--inhibit-cache" if loader.name.startswith("ld-linux") else "",
        interpreter=f"rt/bin/{version}",
        libraries="rt/lib",
        library=library.relative_to(root).as_posix(),
    )


def _ignored(folder: str, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name in _FOLDERS
        or name in _FILES
        or name.startswith("config-")
        or (name.endswith(".so") and _MODULES.match(name))
        or (Path(folder, name).is_symlink() and not Path(folder, name).exists())
    ]


def copy_libraries(root: Path, runtime: Runtime, originals: Iterable[Path]) -> list[Path]:
    """Copy every shared library that the interpreter, its modules and `originals` (the packages'
    own files, where they are installed) ask for; returns where they were.

    A module of the standard library whose libraries are not there is left out: it does not work
    here either. Raises PackagingError when a package's file lacks one.
    """
    program = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    loader = Path(read_elf(program).interpreter)
    packages = [path.resolve() for path in originals]
    inside = {path.name for path in packages}
    found: dict[str, Path] = {}
    for path in (program, *packages):
        _resolve(loader, path, found, inside)
    for module in sorted((root / runtime.library / "lib-dynload").glob("*.so")):
        try:
            _resolve(loader, module, found, inside)
        except PackagingError:
            module.unlink()
    libc = next((p for n, p in found.items() if n.startswith("libc.")), None)
    for name in _NSS:
        if libc is not None and (libc.parent / name).is_file():
            found.setdefault(name, libc.parent / name)
    for name, path in found.items():
        target = root / "rt/lib" / name
        if not target.exists():
            shutil.copyfile(path.resolve(), target)
    return [found[name] for name in sorted(found)]


def _resolve(loader: Path, path: Path, found: dict[str, Path], inside: set[str]) -> None:
    """Ask the loader itself what it would load."""
    done = subprocess.run(
        [loader, "--list", path], capture_output=True, text=True, check=False, errors="replace"
    )
    listed = _LISTED.findall(done.stdout)
    missing = [name for name in _MISSING.findall(done.stdout) if name not in inside]
    if missing:
        raise PackagingError(f"{path} needs {', '.join(missing)}, which is not on this machine")
    for name, place in listed:
        base = name.rpartition("/")[2]
        if base not in inside and base != loader.name and place.startswith("/"):
            found.setdefault(base, Path(place))


def strip_all(root: Path) -> bool:
    """Take debugging symbols out of every program and library; whether the tool `strip` is here.

    Libraries that wheels carry in a `.libs` folder are left: their layout was changed by a tool,
    and some break (numpy's OpenBLAS does).
    """
    strip = shutil.which("strip")
    if strip is None:
        return False
    for path in sorted(root.rglob("*")):
        carried = any(part.endswith(".libs") for part in path.parts)
        if path.is_file() and not carried and is_elf(path):
            subprocess.run([strip, "--strip-unneeded", path], capture_output=True, check=False)
    return True
