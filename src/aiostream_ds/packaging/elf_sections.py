"""Sections, symbols and relocations of a Linux library (ELF of 64 bits, little-endian)."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "ALLOCATED",
    "EXECUTABLE",
    "WRITABLE",
    "Relocation",
    "Section",
    "Symbol",
    "relocations",
    "sections",
    "symbols",
]

WRITABLE, ALLOCATED, EXECUTABLE = 1, 2, 4
"""Flags of sections."""

_NO_BITS = 8  # the type of a section that is not in the file

_SECTION, _SYMBOL, _RELOCATION = "<IIQQQQIIQQ", "<IBBHQQ", "<QQq"


class Section(NamedTuple):
    """`address` in memory, `offset` in the file; `size` is 0 if nothing of it is in the file."""

    flags: int
    address: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The address after it."""
        return self.address + self.size


class Symbol(NamedTuple):
    """`kind` is STT_FUNC (2), STT_OBJECT (1) …; `section` is 0 if another library has it."""

    name: bytes
    kind: int
    section: int
    address: int
    size: int


class Relocation(NamedTuple):
    """The loader writes an address to `place`; `symbol` is a number in `.dynsym`."""

    place: int
    kind: int
    symbol: int
    addend: int


def sections(data: bytes) -> dict[str, Section]:
    """The sections by name.

    Raises:
        ValueError: It is not a file of 64 bits with sections.
    """
    if data[:6] != b"\x7fELF\2\1":
        raise ValueError("expected a little-endian ELF file of 64 bits")
    (table,) = struct.unpack_from("<Q", data, 40)
    count, names = struct.unpack_from("<HH", data, 60)
    if not count:
        raise ValueError("expected an ELF file with sections")
    heads = [struct.unpack_from(_SECTION, data, table + 64 * number) for number in range(count)]
    return {
        _text(data, heads[names][4] + head[0]).decode(): Section(
            head[2], head[3], head[4], 0 if head[1] == _NO_BITS else head[5]
        )
        for head in heads
    }


def symbols(data: bytes, table: Section, strings: Section) -> list[Symbol]:
    """The symbols of a table, by their numbers."""
    found = struct.iter_unpack(_SYMBOL, data[table.offset : table.offset + table.size])
    return [
        Symbol(_text(data, strings.offset + name), info & 15, section, address, size)
        for name, info, _, section, address, size in found
    ]


def relocations(data: bytes, table: Section) -> Iterator[Relocation]:
    """The relocations of a table."""
    content = data[table.offset : table.offset + table.size]
    for place, info, addend in struct.iter_unpack(_RELOCATION, content):
        yield Relocation(place, info & 0xFFFFFFFF, info >> 32, addend)


def _text(data: bytes, at: int) -> bytes:
    return data[at : data.index(b"\0", at)]
