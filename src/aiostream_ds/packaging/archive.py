"""Zips of packages: written with reproducible bytes, unpacked as Grafana unpacks them."""

import os
import stat
import struct
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from aiostream_ds.packaging.compression import deflate
from aiostream_ds.packaging.findings import PackagingError

__all__ = ["EXECUTABLE", "FILE", "build_time", "set_modes", "unpack", "write_zip"]

FILE, EXECUTABLE = 0o644, 0o755
"""The modes of files in a package."""

_OLDEST = 315_532_800  # 1980-01-01, the earliest date in a zip

# The format is written here, because zipfile compresses with zlib only.
_UNIX = b"\x14\3"  # version 2.0, made on Unix: the attributes hold a mode
_HEAD = struct.pack("<HHH", 20, 1 << 11, 8)  # version 2.0, names in UTF-8, deflate
_LIMIT, _COUNT_LIMIT = 1 << 32, 65_535
_PROCESSORS = 2


def set_modes(root: Path, executables: set[str]) -> None:
    """Set the mode of every file and folder; `executables` are paths relative to `root`."""
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        path.chmod(EXECUTABLE if path.is_dir() or name in executables else FILE)
    root.chmod(EXECUTABLE)


def build_time() -> int:
    """The date of files in archives, in seconds since 1970: SOURCE_DATE_EPOCH, by default
    1980-01-01."""
    return max(int(os.environ.get("SOURCE_DATE_EPOCH") or _OLDEST), _OLDEST)


def write_zip(root: Path, target: Path) -> dict[str, int]:
    """Write the folder `root` into `target`, a new file, under its own name.

    The same files give the same bytes: names are sorted, and all have the date `build_time()`.
    Returns the compressed bytes of each file, by its path in `root`.
    """
    date = time.gmtime(build_time())
    stamp = struct.pack(
        "<HH",
        date.tm_hour << 11 | date.tm_min << 5 | date.tm_sec // 2,
        (date.tm_year - 1980) << 9 | date.tm_mon << 5 | date.tm_mday,
    )
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    sizes, directory, at = {}, b"", 0
    with target.open("xb") as file, ThreadPoolExecutor(_PROCESSORS) as pool:
        for path, entry in zip(paths, pool.map(_entry, paths), strict=True):
            name = path.relative_to(root.parent).as_posix().encode()
            head = _HEAD + stamp + entry.about + struct.pack("<HH", len(name), 0)
            written = file.write(b"PK\3\4" + head + name + entry.data)
            directory += b"PK\1\2" + _UNIX + head
            directory += struct.pack("<HHHII", 0, 0, 0, entry.attributes, at) + name
            at += written
            sizes[path.relative_to(root).as_posix()] = len(entry.data)
        end = struct.pack("<HHHHIIH", 0, 0, len(paths), len(paths), len(directory), at, 0)
        file.write(directory + b"PK\5\6" + end)
    if target.stat().st_size >= _LIMIT or len(paths) > _COUNT_LIMIT:
        target.unlink()
        raise PackagingError(
            f"a zip must be below 4 GB with at most {_COUNT_LIMIT:,} files, got "
            f"{len(paths):,} files; package fewer of them, or use --no-zip"
        )
    return sizes


class _Entry(NamedTuple):
    """The compressed data of a file, its fields in both heads, and its type and mode."""

    data: bytes
    about: bytes
    attributes: int


def _entry(path: Path) -> _Entry:
    content = path.read_bytes()
    data = deflate(content)
    about = struct.pack("<III", zlib.crc32(content), len(data), len(content))
    return _Entry(data, about, (stat.S_IFREG | stat.S_IMODE(path.stat().st_mode)) << 16)


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
