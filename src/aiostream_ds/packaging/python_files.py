"""The Python that is packaged, where its files are on this machine: the running interpreter."""

import platform
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from aiostream_ds.packaging.elf import read_elf
from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.packaging.system_packages import SystemPackage, owner_of

__all__ = ["PythonFiles", "installed_python", "interpreter_path"]


class PythonFiles(NamedTuple):
    """The files of a Python for one platform, and what is needed to work with them.

    Attributes:
        platform: As Go names it: `linux/amd64`.
        version: Of Python: `3.11.2`.
        program, loader: The interpreter, and the program that loads it.
        standard, compiled: The folders of the standard library and of its binary modules.
        library_folders: Where its shared libraries are; empty: where its loader finds them.
        owner_of: Finds the system's package that installed a file.
        emulator: The program that runs this platform's programs on this machine; "" if it is this
            machine's platform.
        strip: The name of the platform's program `strip`.
    """

    platform: str
    version: str
    program: Path
    loader: Path
    standard: Path
    compiled: Path
    library_folders: tuple[Path, ...] = ()
    owner_of: Callable[[Path], SystemPackage | None] = owner_of
    emulator: str = ""
    strip: str = "strip"


def interpreter_path() -> Path:
    """The running interpreter, also in a virtual environment."""
    return Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()


def installed_python(machine: str) -> PythonFiles:
    """The running Python; `machine` is this machine's platform.

    Raises:
        PackagingError: This interpreter cannot be copied.
    """
    if not sys.platform.startswith("linux"):
        raise PackagingError(
            f"a package with its own Python must be made on Linux, got {sys.platform}; "
            "use --runtime host or --address"
        )
    program = interpreter_path()
    loader = Path(read_elf(program).interpreter)
    if not loader.is_file():
        raise PackagingError(
            f"expected a dynamically linked Python, got {program}; use --runtime host or --address"
        )
    standard = Path(sysconfig.get_path("stdlib"))
    compiled = Path(sysconfig.get_config_var("DESTSHARED") or standard / "lib-dynload")
    return PythonFiles(machine, platform.python_version(), program, loader, standard, compiled)
