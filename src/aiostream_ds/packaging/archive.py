"""A folder as a zip with the same bytes each time: names in order, one date, modes that Grafana
keeps. Standard library only.
"""

import os
import stat
import time
import zipfile
from pathlib import Path

__all__ = ["EXECUTABLE", "PLAIN", "set_modes", "write_zip"]

PLAIN, EXECUTABLE = 0o644, 0o755
"""The two modes of files in a package."""

_OLDEST = 315_532_800  # 1980-01-01, the first day that a zip can name


def set_modes(root: Path, executables: set[str]) -> None:
    """Give every file and folder its mode; `executables` are paths below `root`."""
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        path.chmod(EXECUTABLE if path.is_dir() or name in executables else PLAIN)
    root.chmod(EXECUTABLE)


def write_zip(root: Path, target: Path) -> int:
    """Write `root` into `target` under its own name; returns the size.

    The date of all files is SOURCE_DATE_EPOCH, or the first that a zip can name.
    """
    seconds = max(int(os.environ.get("SOURCE_DATE_EPOCH") or _OLDEST), _OLDEST)
    date = time.gmtime(seconds)[:6]
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w") as archive:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            name = path.relative_to(root.parent).as_posix()
            entry = zipfile.ZipInfo(name, date)
            entry.create_system = 3  # Unix: the modes mean something
            entry.external_attr = (stat.S_IFREG | stat.S_IMODE(path.stat().st_mode)) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes(), compresslevel=6)
    unfinished.replace(target)
    return target.stat().st_size
