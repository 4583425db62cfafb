"""Reads the build information in a Go program: the version of Go, and its modules.

The format is that of debug/buildinfo in Go's standard library, since Go 1.18: a magic text, then at
offset 32 two texts with their lengths, the version and the lines that `go version -m` prints.
"""

from pathlib import Path
from typing import NamedTuple

__all__ = ["GoBuildInfo", "read_go_build_info"]

_MAGIC = b"\xff Go buildinf:"
_ALIGNMENT = 16
_FLAGS, _TEXTS = 15, 32  # offsets
_INLINE_TEXTS = 2  # the flag of Go 1.18 and newer
_SENTINEL = 16  # bytes before and after the lines


class GoBuildInfo(NamedTuple):
    """`go` is a version without its prefix; `modules`: path → version of each dependency."""

    go: str
    modules: dict[str, str]


def read_go_build_info(path: Path) -> GoBuildInfo:
    """Read it.

    Raises:
        ValueError: The file is not a Go program, or is older than Go 1.18.
    """
    data = path.read_bytes()
    at = data.find(_MAGIC)
    while at % _ALIGNMENT and at >= 0:
        at = data.find(_MAGIC, at + 1)
    if at < 0 or len(data) <= at + _TEXTS or not data[at + _FLAGS] & _INLINE_TEXTS:
        raise ValueError(f"expected a program made by Go 1.18 or newer, got {path}")
    version, at = _text(data, at + _TEXTS)
    lines, _ = _text(data, at)
    modules: dict[str, str] = {}
    for line in lines[_SENTINEL:-_SENTINEL].decode("utf-8", "replace").splitlines():
        kind, *values = line.split("\t")
        if kind == "=>" and len(values) > 1:  # replaces the dependency in the line before
            modules.popitem()
        if kind in ("dep", "=>") and len(values) > 1:
            modules[values[0]] = values[1]
    return GoBuildInfo(version.decode("ascii", "replace").split()[0].removeprefix("go"), modules)


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    """The text at an offset, after its length as a varint; and the offset of what follows."""
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return data[at : at + length], at + length
