"""Reads Linux programs and libraries (ELF, System V ABI): their machine, loader and libraries.

Little-endian files of 32 and 64 bits are supported.
"""

import struct
from pathlib import Path
from typing import NamedTuple

__all__ = ["ARCHITECTURES", "Elf", "drop_needed", "is_elf", "read_elf"]

ARCHITECTURES = {62: "amd64", 183: "arm64", 40: "arm", 3: "386", 243: "riscv64", 22: "s390x"}
"""Value of e_machine → Go's name of the architecture."""

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


class Elf(NamedTuple):
    """The headers of one file.

    Attributes:
        machine: Go's name of the architecture.
        interpreter: The path of the loader; "" for static programs and libraries.
        needed: Name of a required library → file offset of its entry.
        dynamic: File offset of the dynamic section.
        width: Bytes of an address: 4 or 8.
    """

    machine: str
    interpreter: str
    needed: dict[str, int]
    dynamic: int
    width: int


def is_elf(path: Path) -> bool:
    """Whether the file is a Linux program or library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def read_elf(path: Path) -> Elf:
    """Read the headers.

    Raises:
        ValueError: It is not an ELF file, or a broken one.
    """
    data = path.read_bytes()
    if data[:4] != b"\x7fELF" or len(data) < 52 or data[5] != 1:
        raise ValueError(f"expected a little-endian ELF file, got {path}")
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f"{path}: broken ELF file: {error}") from None


def _read(data: bytes) -> Elf:
    wide = data[4] == 2
    width = 8 if wide else 4
    machine = struct.unpack_from("<H", data, 18)[0]
    table = struct.unpack_from("<Q" if wide else "<I", data, 32 if wide else 28)[0]
    size, count = struct.unpack_from("<HH", data, 54 if wide else 42)
    segments = []
    for number in range(count):
        at = table + number * size
        if wide:
            kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, at)
        else:
            kind, offset, address, _, length = struct.unpack_from("<IIIII", data, at)
        segments.append((kind, offset, address, length))
    interpreter = ""
    dynamic, entries = 0, []
    for kind, offset, _, length in segments:
        if kind == _PT_INTERP:
            interpreter = data[offset : offset + length].rstrip(b"\0").decode()
        elif kind == _PT_DYNAMIC:
            dynamic = offset
            entries = list(_entries(data, offset, length, width))
    strings = next((value for _, tag, value in entries if tag == _DT_STRTAB), 0)
    names = next(
        (o + strings - a for k, o, a, n in segments if k == _PT_LOAD and a <= strings < a + n), 0
    )
    needed = {}
    for at, tag, value in entries:
        if tag == _DT_NEEDED:
            start = names + value
            needed[data[start : data.index(b"\0", start)].decode()] = at
    name = ARCHITECTURES.get(machine, f"machine {machine}")
    return Elf(name, interpreter, needed, dynamic, width)


def _entries(data: bytes, offset: int, length: int, width: int) -> list[tuple[int, int, int]]:
    form = "<qQ" if width == 8 else "<iI"
    found = []
    for at in range(offset, offset + length, 2 * width):
        tag, value = struct.unpack_from(form, data, at)
        if tag == _DT_NULL:
            break
        found.append((at, tag, value))
    return found


def drop_needed(path: Path, names: set[str]) -> set[str]:
    """Remove libraries from those that a file needs; returns the removed names.

    The following entries of the dynamic section move up; nothing else in the file changes.
    """
    elf = read_elf(path)
    dropped = names & elf.needed.keys()
    if not dropped:
        return dropped
    data = bytearray(path.read_bytes())
    step = 2 * elf.width
    offsets = {elf.needed[name] for name in dropped}
    entries, at = bytearray(), elf.dynamic
    while True:
        entry = data[at : at + step]
        if at not in offsets:
            entries += entry
        at += step
        if not any(entry[: elf.width]):
            break
    data[elf.dynamic : at] = entries.ljust(at - elf.dynamic, b"\0")
    path.write_bytes(data)
    return dropped
