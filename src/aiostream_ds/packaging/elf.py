"""Linux programs and libraries: what they are made for, and what they need. Standard library only.

The format is that of the System V ABI (elf.h): little-endian files of 32 and 64 bits are read.
"""

import struct
from pathlib import Path
from typing import NamedTuple

__all__ = ["ARCHITECTURES", "Elf", "drop_needed", "is_elf", "read_elf"]

ARCHITECTURES = {62: "amd64", 183: "arm64", 40: "arm", 3: "386", 243: "riscv64", 22: "s390x"}
"""Go's names of the machines (e_machine)."""

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


class Elf(NamedTuple):
    """One file. `interpreter` is the loader that it names, "" for a static program or a library;
    `needed` are its libraries by name, each with its place in the file (for `drop_needed`)."""

    machine: str
    interpreter: str
    needed: dict[str, int]
    dynamic: int
    width: int


def is_elf(path: Path) -> bool:
    """Whether a file is a Linux program or library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def read_elf(path: Path) -> Elf:
    """What the file says of itself. Raises ValueError when it is no ELF file, or a broken one."""
    data = path.read_bytes()
    if data[:4] != b"\x7fELF" or len(data) < 52 or data[5] != 1:
        raise ValueError(f"{path} is no little-endian ELF file")
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f"{path} is a broken ELF file: {error}") from None


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


def _entries(data: bytes, offset: int, length: int, width: int) -> "list[tuple[int, int, int]]":
    form = "<qQ" if width == 8 else "<iI"
    found = []
    for at in range(offset, offset + length, 2 * width):
        tag, value = struct.unpack_from(form, data, at)
        if tag == _DT_NULL:
            break
        found.append((at, tag, value))
    return found


def drop_needed(path: Path, names: set[str]) -> set[str]:
    """Take libraries out of those that a file asks for; returns which were there.

    The entries behind a dropped one move up, and nothing else in the file does.
    """
    elf = read_elf(path)
    gone = names & elf.needed.keys()
    if not gone:
        return gone
    data = bytearray(path.read_bytes())
    step = 2 * elf.width
    drop = {elf.needed[name] for name in gone}
    kept, at = bytearray(), elf.dynamic
    while True:
        entry = data[at : at + step]
        if at not in drop:
            kept += entry
        at += step
        if not any(entry[: elf.width]):
            break
    data[elf.dynamic : at] = kept.ljust(at - elf.dynamic, b"\0")
    path.write_bytes(data)
    return gone
