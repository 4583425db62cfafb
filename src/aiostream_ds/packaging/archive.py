"""Zips of packages: written with reproducible bytes, unpacked as Grafana unpacks them."""

import os
import stat
import time
import zipfile
from pathlib import Path

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["EXECUTABLE", "FILE", "set_modes", "unpack", "write_zip"]

FILE, EXECUTABLE = 0o644, 0o755
"""The modes of files in a package."""

_OLDEST = 315_532_800  # 1980-01-01, the earliest date in a zip


def set_modes(root: Path, executables: set[str]) -> None:
    """Set the mode of every file and folder; `executables` are paths relative to `root`."""
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        path.chmod(EXECUTABLE if path.is_dir() or name in executables else FILE)
    root.chmod(EXECUTABLE)


def write_zip(root: Path, target: Path) -> int:
    """Write the folder `root` into `target`, a new file, under its own name; returns the size in
    bytes.

    The same files give the same bytes: names are sorted, and the date of every file is
    SOURCE_DATE_EPOCH, by default 1980-01-01.
    """
    seconds = max(int(os.environ.get("SOURCE_DATE_EPOCH") or _OLDEST), _OLDEST)
    date = time.gmtime(seconds)[:6]
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            name = path.relative_to(root.parent).as_posix()
            entry = zipfile.ZipInfo(name, date)
            entry.create_system = 3  # Unix, so that external_attr holds a mode
            entry.external_attr = (stat.S_IFREG | stat.S_IMODE(path.stat().st_mode)) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes(), compresslevel=6)
    return target.stat().st_size


def unpack(path: Path, into: Path) -> Path:
    """Unpack a zip and its modes; returns the folder that it contained.

    Raises:
        PackagingError: Grafana would refuse the zip.
    """
    with zipfile.ZipFile(path) as archive:
        roots = {name.partition("/")[0] for name in archive.namelist()}
        if len(roots) != 1:
            raise PackagingError(
                f"{path}: expected one folder named after the id, got {sorted(roots)[:5]}"
            )
        for entry in archive.infolist():
            target = (into / entry.filename).resolve()
            if not target.is_relative_to(into.resolve()):
                raise PackagingError(
                    f"{path}: expected paths inside the folder, got {entry.filename!r}"
                )
            archive.extract(entry, into)
            mode = (entry.external_attr >> 16) & 0o777
            if mode and not entry.is_dir():
                target.chmod(mode)
    return into / roots.pop()
