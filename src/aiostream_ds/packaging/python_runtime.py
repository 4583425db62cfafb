"""Copies an interpreter into a package: the program, the standard library, the shared
libraries that they need, and the libc. Linux only.

The loader in the package starts it (`ld-linux… --library-path rt/lib rt/bin/python3.x`), so it uses
no library of the machine.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from aiostream_ds.packaging.elf import read_elf
from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.packaging.python_files import PythonFiles

__all__ = ["Runtime", "copy_libraries", "copy_runtime", "run_python"]

_EXCLUDED_FOLDERS = set(
    """
    __pycache__ curses distutils ensurepip idlelib lib2to3 pydoc_data site-packages dist-packages
    test tests tkinter turtledemo venv
    """.split()
)
"""Folders of the standard library that a plugin never needs: tests, installers, desktop programs.
"""

_EXCLUDED_MODULES = re.compile(
    r"(_test|xx|_xx|_tkinter|_curses|readline|nis|ossaudiodev|_dbm|_gdbm|_ctypes_test)\w*\."
)
"""Extension modules of the same kind; readline also because of its licence."""

_EXCLUDED_FILES = {"turtle.py", "EXTERNALLY-MANAGED"}

_NSS = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
"""What glibc loads at run time to resolve names (separate files before 2.34)."""

_LISTED = re.compile(r"^\s*(\S+) => (\S+)(?: \(0x[0-9a-f]+\))?$", re.M)

_MISSING = re.compile(r"^\s*(\S+) => not found$", re.M)


_TRIAL = 300.0  # seconds in which a trial ends, also for another machine by its emulator


class Runtime(NamedTuple):
    """Paths of the runtime, relative to the package; `emulator` is a program of this machine."""

    loader: str
    loader_flags: str
    interpreter: str
    libraries: str
    library: str
    emulator: str = ""


def copy_runtime(root: Path, python: PythonFiles) -> Runtime:
    """Copy the interpreter and the standard library into `root/rt`."""
    version = python.standard.name
    interpreter = root / "rt/bin" / version
    library = root / "rt" / sys.platlibdir / version
    interpreter.parent.mkdir(parents=True)
    (root / "rt/lib").mkdir(exist_ok=True)
    shutil.copyfile(python.program, interpreter)
    shutil.copytree(python.standard, library, ignore=_ignored)
    if not (library / "lib-dynload").is_dir() and python.compiled.is_dir():
        shutil.copytree(python.compiled, library / "lib-dynload", ignore=_ignored)
    loader = python.loader
    shutil.copyfile(loader.resolve(), root / "rt/lib" / loader.name)
    return Runtime(
        loader=f"rt/lib/{loader.name}",
        loader_flags="--inhibit-cache" if loader.name.startswith("ld-linux") else "",
        interpreter=f"rt/bin/{version}",
        libraries="rt/lib",
        library=library.relative_to(root).as_posix(),
        emulator=python.emulator,
    )


def _ignored(folder: str, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name in _EXCLUDED_FOLDERS
        or name in _EXCLUDED_FILES
        or name.startswith("config-")
        or (name.endswith(".so") and _EXCLUDED_MODULES.match(name))
        or (Path(folder, name).is_symlink() and not Path(folder, name).exists())
    ]


def copy_libraries(
    root: Path, runtime: Runtime, python: PythonFiles, originals: Iterable[Path]
) -> list[Path]:
    """Copy every shared library that the interpreter, its modules and `originals` need; returns
    their original paths.

    `originals` are the binaries of the packages, where they are installed. A module of the standard
    library with a missing library is left out: it does not work on this machine either.

    Raises:
        PackagingError: A library that a package needs is missing.
    """
    packages = [path.resolve() for path in originals]
    included = {path.name for path in packages}
    found: dict[str, Path] = {}
    for path in (python.program, *packages):
        _resolve(python, path, found, included)
    for module in sorted((root / runtime.library / "lib-dynload").glob("*.so")):
        try:
            _resolve(python, module, found, included)
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


def _resolve(python: PythonFiles, path: Path, found: dict[str, Path], included: set[str]) -> None:
    """Add to `found` the libraries that would be loaded for `path`."""
    search = _search if python.library_folders else _ask_loader
    listed, missing = search(python, path, included)
    if missing:
        raise PackagingError(
            f"{path} needs {', '.join(missing)}; install the library that is missing"
        )
    for name, target in listed.items():
        if name not in included and name != python.loader.name:
            found.setdefault(name, target)


_Listed = tuple[dict[str, Path], list[str]]


def _ask_loader(python: PythonFiles, path: Path, included: set[str]) -> _Listed:
    """What this machine's loader loads for `path`, and what it does not find."""
    done = subprocess.run(
        [python.loader, "--list", path],
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
    )
    listed = {
        name.rpartition("/")[2]: Path(target)
        for name, target in _LISTED.findall(done.stdout)
        if target.startswith("/")
    }
    return listed, [name for name in _MISSING.findall(done.stdout) if name not in included]


def _search(python: PythonFiles, path: Path, included: set[str]) -> _Listed:
    """The same for files of another machine: the loader's search is repeated in its folders."""
    listed: dict[str, Path] = {}
    missing, queue = [], [path]
    while queue:
        for name in read_elf(queue.pop()).needed:
            if name in listed or name in included or name == python.loader.name:
                continue
            folders = [folder for folder in python.library_folders if (folder / name).is_file()]
            if not folders:
                missing.append(name)
                continue
            listed[name] = folders[0] / name
            queue.append(listed[name])
    return listed, missing


def run_python(root: Path, runtime: Runtime, code: str, *arguments: str) -> str:
    """Run code in the packaged Python, with `root` before its arguments; returns its output.

    Raises:
        PackagingError: It failed, and the message has the end of its output; or it did not end.
    """
    command = [
        *([runtime.emulator] if runtime.emulator else []),
        str(root / runtime.loader),
        *runtime.loader_flags.split(),
        "--library-path",
        str(root / runtime.libraries),
        str(root / runtime.interpreter),
        *("-I", "-S", "-B", "-X", "utf8"),
        *([str(root / "start.py")] if (root / "start.bin").is_file() else []),
        *("-c", code, str(root), *arguments),
    ]
    (root / runtime.loader).chmod(0o755)
    environment = {"LD_BIND_NOW": "1"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd="/", timeout=_TRIAL
        )
    except subprocess.TimeoutExpired:
        raise PackagingError(
            f"the package of {root.name} does not end within {_TRIAL:g} s when it is tried"
        ) from None
    if not done.returncode:
        return done.stdout.strip()
    output = "\n".join(done.stderr.strip().splitlines()[-6:])
    hint = ""
    if "FileNotFoundError" in output:
        hint = "\nadd files that the code reads with --include PATH"
    elif "ModuleNotFoundError" in output:
        hint = "\nadd packages that are imported at run time with --with NAME"
    raise PackagingError(
        f"the package of {root.name} does not run (status {done.returncode}):\n{output}{hint}"
    )
