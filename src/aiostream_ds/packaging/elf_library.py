"""Writes a small shared library (ELF, 64 bits, little-endian) from machine code."""

import struct
from collections.abc import Mapping

__all__ = ["shared_library"]

_MACHINES = {"amd64": 62, "arm64": 183}
_PAGE = 0x10000  # the largest page of a Linux kernel for these machines

_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_READ, _READ_WRITE, _READ_EXECUTE = 4, 6, 5
_DT_NULL, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = (
    0,
    4,
    5,
    6,
    10,
    11,
    14,
)
_GLOBAL_FUNCTION = 0x12
_ANY_SECTION = 1  # not "undefined"; the file has no section headers, which only linkers read

_FILE_HEADER, _SEGMENT, _SYMBOL, _ENTRY = 64, 56, 24, 16


def shared_library(machine: str, name: str, functions: Mapping[str, bytes]) -> bytes:
    """A library called `name` that exports these functions: symbol → code that runs anywhere and
    refers to nothing.

    `machine` is Go's name, amd64 or arm64.
    """
    strings = b"\0"
    places = {}
    for text in (name, *functions):
        places[text] = len(strings)
        strings += text.encode() + b"\0"
    count = len(functions) + 1
    head = _FILE_HEADER + 4 * _SEGMENT
    hashes = struct.pack(f"<II{1 + count}I", 1, count, *_chain(count))
    symbols_at = _aligned(head + len(hashes))
    strings_at = symbols_at + count * _SYMBOL
    code_at = _aligned(strings_at + len(strings))
    symbols, code = bytes(_SYMBOL), b""
    for symbol, body in functions.items():
        at = code_at + len(code)
        symbols += struct.pack(
            "<IBBHQQ", places[symbol], _GLOBAL_FUNCTION, 0, _ANY_SECTION, at, len(body)
        )
        code += body.ljust(_aligned(len(body)), b"\0")
    entries = (
        (_DT_SONAME, places[name]),
        (_DT_HASH, head),
        (_DT_STRTAB, strings_at),
        (_DT_STRSZ, len(strings)),
        (_DT_SYMTAB, symbols_at),
        (_DT_SYMENT, _SYMBOL),
        (_DT_NULL, 0),
    )
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    end = code_at + len(code)
    moved = end + _PAGE  # on another page than the code: the loader writes to it
    segments = (
        _segment(_PT_LOAD, _READ_EXECUTE, 0, 0, end, _PAGE),
        _segment(_PT_LOAD, _READ_WRITE, end, moved, len(dynamic), _PAGE),
        _segment(_PT_DYNAMIC, _READ_WRITE, end, moved, len(dynamic), _ENTRY),
        _segment(_PT_GNU_STACK, _READ_WRITE, 0, 0, 0, _ENTRY),
    )
    data = _file_header(machine, len(segments)) + b"".join(segments) + hashes
    data = data.ljust(symbols_at, b"\0") + symbols + strings
    return data.ljust(code_at, b"\0") + code + dynamic


def _chain(count: int) -> list[int]:
    """A hash table with one bucket: its first symbol, then the next one of each symbol."""
    return [1 if count > 1 else 0, 0, *(n + 1 if n + 1 < count else 0 for n in range(1, count))]


def _aligned(size: int) -> int:
    return -(-size // 16) * 16


def _segment(kind: int, flags: int, offset: int, address: int, size: int, align: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size, align)


def _file_header(machine: str, segments: int) -> bytes:
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    shared, version = 3, 1
    sizes = (_FILE_HEADER, _SEGMENT, segments, 0, 0, 0)
    values = (shared, _MACHINES[machine], version, 0, _FILE_HEADER, 0, 0, *sizes)
    return identity + struct.pack("<HHIQQQIHHHHHH", *values)
