"""Removes debugging symbols from the binaries of a package."""

import shutil
import subprocess
from pathlib import Path

from aiostream_ds.packaging.elf import is_elf

__all__ = ["strip_all"]


def strip_all(root: Path, tool: str) -> bool:
    """Remove debugging symbols from every binary; False if the program `tool` is not installed.

    Libraries in the `.libs` folders of wheels stay as they are: auditwheel changed their layout,
    and `strip` breaks some (numpy's OpenBLAS).
    """
    strip = shutil.which(tool)
    if strip is None:
        return False
    for path in sorted(root.rglob("*")):
        vendored = any(part.endswith(".libs") for part in path.parts)
        if path.is_file() and not vendored and is_elf(path):
            subprocess.run([strip, "--strip-unneeded", path], capture_output=True, check=False)
    return True
