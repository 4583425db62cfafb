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

__all__ = ["EXECUTABLE", "FILE", "build_time", "given_date", "set_modes", "unpack", "write_zip"]

FILE, EXECUTABLE = 0o644, 0o755
"""The modes of files in a package."""

_OLDEST, _NEWEST = 315_532_800, 4_354_819_199  # 1980-01-01 to 2107-12-31, the dates of a zip

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


def given_date() -> int | None:
    """SOURCE_DATE_EPOCH, in seconds since 1970; None without it.

    Raises:
        PackagingError: It is not such a number, or later than a zip can have.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isdecimal() or int(text) > _NEWEST:
        raise PackagingError(
            f"SOURCE_DATE_EPOCH must be seconds since 1970, at most {_NEWEST}, got {text!r}"
        )
    return int(text)


def build_time() -> int:
    """The date of files in archives, in seconds since 1970: SOURCE_DATE_EPOCH, by default
    1980-01-01. Raises what `given_date` raises."""
    return max(given_date() or _OLDEST, _OLDEST)


def write_zip(root: Path, target: Path) -> dict[str, int]:
    """Write the folder `root` into `target`, a new file, under its own name.

    The same files give the same bytes: names are sorted, and all have the date `build_time()`.
    Returns the compressed bytes of each file, by its path in `root`.

    Raises:
        PackagingError: A zip cannot have so many files or bytes.
    """
    date = time.gmtime(build_time())
    stamp = struct.pack(
        "<HH",
        date.tm_hour << 11 | date.tm_min << 5 | date.tm_sec // 2,
        (date.tm_year - 1980) << 9 | date.tm_mon << 5 | date.tm_mday,
    )
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    if len(paths) > _COUNT_LIMIT:
        raise _too_large(f"{len(paths):,} files")
    sizes, directory, at = {}, b"", 0
    with target.open("xb") as file, ThreadPoolExecutor(_PROCESSORS) as pool:
        for path, entry in zip(paths, pool.map(_entry, paths), strict=True):
            name = path.relative_to(root.parent).as_posix().encode()
            head = _HEAD + stamp + entry.about + struct.pack("<HH", len(name), 0)
            written = file.write(b"PK\3\4" + head + name + entry.data)
            directory += b"PK\1\2" + _UNIX + head
            directory += struct.pack("<HHHII", 0, 0, 0, entry.attributes, at) + name
            at += written
            if at >= _LIMIT:
                raise _too_large(f"more, up to {path}")
            sizes[path.relative_to(root).as_posix()] = len(entry.data)
        end = struct.pack("<HHHHIIH", 0, 0, len(paths), len(paths), len(directory), at, 0)
        file.write(directory + b"PK\5\6" + end)
    return sizes


def _too_large(got: str) -> PackagingError:
    return PackagingError(
        f"a zip must be below 4 GB with at most {_COUNT_LIMIT:,} files, got {got}; package fewer "
        "of them, or use --no-zip"
    )


class _Entry(NamedTuple):
    """The compressed data of a file, its fields in both heads, and its type and mode."""

    data: bytes
    about: bytes
    attributes: int


def _entry(path: Path) -> _Entry:
    status = path.stat()
    if status.st_size >= _LIMIT:
        raise _too_large(f"{status.st_size:,} bytes in {path}")
    content = path.read_bytes()
    data = deflate(content)
    about = struct.pack("<III", zlib.crc32(content), len(data), len(content))
    return _Entry(data, about, (stat.S_IFREG | stat.S_IMODE(status.st_mode)) << 16)


def unpack(path: Path, into: Path) -> Path:
    """Unpack a zip and its modes; returns the folder that it contained.

    Raises:
        PackagingError: Grafana would refuse the zip, or it cannot be read or written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _unpack(archive, path, into)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:  # encrypted
        raise PackagingError(f"{path}: expected a zip that can be unpacked: {error}") from None


def _unpack(archive: zipfile.ZipFile, path: Path, into: Path) -> Path:
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
