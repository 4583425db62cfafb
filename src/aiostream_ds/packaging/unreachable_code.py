"""Removes the functions of a shared library (x86-64) that nothing in a package can call.

A function is kept if a root refers to it, directly or through other functions and data. Roots are
the symbols that other libraries of the package name, what the loader runs, and all code outside of
functions. What counts as a reference is more than what processors execute: every place in the code
whose bytes look like one, aligned to instructions or not. The rest is overwritten, so addresses
stay, and compresses to almost nothing.

It needs the table of symbols that `strip` removes.
"""

import re
import struct
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from aiostream_ds.packaging.elf_sections import (
    ALLOCATED,
    EXECUTABLE,
    WRITABLE,
    Section,
    Symbol,
    relocations,
    sections,
    symbols,
)
from aiostream_ds.packaging.unwind_tables import remove_unwinding

__all__ = ["X86_64", "remove_unreachable"]

X86_64 = 62
"""The only machine whose code is understood: e_machine of the file."""

_OBJECT, _FUNCTION, _CHOSEN_FUNCTION = 1, 2, 10  # the last one by the loader: GNU_IFUNC
_POINTER, _ANY, _SLOT, _CALL_SLOT, _CHOSEN = 8, 1, 6, 7, 37
"""Kinds of relocations: of an address in this library, of a symbol (three), by a function."""

_TRAP = b"\xcc"  # stops the process, if a function is called after all

_WORD = 8  # bytes of an address
_STUB = 16  # bytes of an entry of .plt
_HEAD, _NEAR = 64, 1 << 16  # bytes of the start of a function that jumps from near it may skip

_STUBS, _SLOTS = ".plt", ".got"  # code that jumps to a slot, and slots with single addresses
_VIRTUAL = (b"_ZTV", b"_ZTC", b"_ZTT")  # the names of tables of virtual functions
_ROOTS = (".init_array", ".fini_array", ".preinit_array", ".tdata")


class _Piece(NamedTuple):
    """A function, an object, or the bytes between two."""

    start: int
    end: int


class _Library:
    """The pieces of a library, by their numbers, and what they refer to."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._sections = sections(data)
        if ".symtab" not in self._sections or ".text" not in self._sections:
            raise ValueError("expected a library with its table of symbols")
        self.text = self._sections[".text"]
        self._symbols = self._read(".symtab", ".strtab")
        self._exported = self._read(".dynsym", ".dynstr")
        self._functions = {
            symbol.address
            for symbol in self._symbols
            if symbol.kind in (_FUNCTION, _CHOSEN_FUNCTION) and symbol.section
        }
        self._arrays = {
            symbol.address
            for symbol in self._symbols
            if symbol.kind == _OBJECT and not symbol.name.startswith(_VIRTUAL)
        }
        self.pieces = sorted(self._split())
        self._starts = [piece.start for piece in self.pieces]
        self.references: defaultdict[int, set[int]] = defaultdict(set)
        for section in self._code():
            self._add_code(section)
        self._add_successors()
        self._add_relocations()
        self._add_parts()

    def _read(self, table: str, strings: str) -> list[Symbol]:
        return symbols(self._data, self._sections[table], self._sections[strings])

    def _code(self) -> list[Section]:
        return [section for section in self._sections.values() if section.flags & EXECUTABLE]

    def _split(self) -> Iterator[_Piece]:
        """The pieces of the sections that have code or addresses."""
        sizes: dict[int, int] = {}
        for symbol in self._symbols:
            if symbol.section and symbol.kind in (_OBJECT, _FUNCTION, _CHOSEN_FUNCTION):
                sizes[symbol.address] = max(symbol.size, sizes.get(symbol.address, 0))
        starts = sorted(sizes)
        for name, section in self._sections.items():
            if not section.flags & ALLOCATED or not section.flags & (EXECUTABLE | WRITABLE):
                continue
            if name.startswith((_STUBS, _SLOTS)):
                step = _STUB if name.startswith(_STUBS) else _WORD
                for start in range(section.address, section.end, step):
                    yield _Piece(start, min(start + step, section.end))
                continue
            at = section.address
            for start in starts[bisect_right(starts, at - 1) : bisect_right(starts, section.end)]:
                if start > at:
                    yield _Piece(at, min(start, section.end))
                    at = start
                if (end := min(start + sizes[start], section.end)) > at:
                    yield _Piece(at, end)
                    at = end
            if at < section.end:
                yield _Piece(at, section.end)

    def piece_at(self, address: int) -> int | None:
        """The number of the piece with this address."""
        number = bisect_right(self._starts, address) - 1
        return number if number >= 0 and address < self.pieces[number].end else None

    def _add(self, place: int, target: int) -> None:
        source, to = self.piece_at(place), self.piece_at(target)
        if source is not None and to is not None and source != to:
            self.references[source].add(to)

    def _add_code(self, section: Section) -> None:
        code = self._data[section.offset : section.offset + section.size]
        entries = self._functions.union(
            *(range(one.address, one.end, _WORD) for one in self._stubs())
        )
        pointers = [
            (one.address, one.end)
            for one in self._sections.values()
            if one.flags & WRITABLE and one.flags & ALLOCATED and one.size
        ]
        lowest, highest = min(pointers)[0], max(end for _, end in pointers)
        for place, target in _operands(code, section.address):
            if target in entries or (not target % _WORD and lowest <= target < highest):
                self._add(place, target)
        for place, target in _calls(code, section.address):
            if target in entries:
                self._add(place, target)
        for place, target in _far_jumps(code, section.address):
            if target in entries or (abs(target - place) <= _NEAR and self._is_head(target)):
                self._add(place, target)

    def _is_head(self, address: int) -> bool:
        """Whether the address is near the start of a function: assemblers' functions share code."""
        number = self.piece_at(address) if self.text.address <= address < self.text.end else None
        return number is not None and address - self.pieces[number].start <= _HEAD

    def _add_successors(self) -> None:
        """A function that does not end in a jump or a return continues in the next one."""
        functions = sorted(self._functions)
        for start, following in pairwise(functions):
            number = self.piece_at(start)
            if number is None or not self.text.address <= start < self.text.end:
                continue
            end = self.pieces[number].end - self.text.address + self.text.offset
            if not _ENDS.search(self._data[max(end - _LONGEST_END, 0) : end]):
                self._add(start, following)

    def _add_relocations(self) -> None:
        for name in (".rela.dyn", ".rela.plt"):
            if name not in self._sections:
                continue
            for place, kind, number, addend in relocations(self._data, self._sections[name]):
                if kind in (_POINTER, _CHOSEN):
                    self._add(place, addend)
                elif kind in (_ANY, _SLOT, _CALL_SLOT) and self._exported[number].section:
                    value = self._exported[number].address
                    self._add(place, value + addend if kind == _ANY else value)

    def _add_parts(self) -> None:
        """A function leads to its rarely executed part, also by tables of jumps and exceptions."""
        wholes: defaultdict[bytes, set[int]] = defaultdict(set)
        parts: list[tuple[bytes, int]] = []
        for symbol in self._symbols:
            if symbol.address not in self._functions:
                continue
            name, cold, _ = symbol.name.partition(b".cold")
            if cold:
                parts.append((_CLONE.split(name)[0], symbol.address))
            else:
                wholes[_CLONE.split(name)[0]].add(symbol.address)
        self._orphans = {part for name, part in parts if name not in wholes}
        for name, part in parts:
            for whole in wholes[name]:
                self._add(whole, part)

    def roots(self, named: Collection[bytes]) -> set[int]:
        """The pieces that the loader runs, or that other libraries refer to by these names."""
        addresses = {one.address for one in self._exported if one.section and one.name in named}
        addresses |= self._orphans
        found = {self.piece_at(address) for address in addresses}
        kept = [self._sections[name] for name in _ROOTS if name in self._sections]
        kept += [one for one in self._code() if one != self.text and one not in self._stubs()]
        for number, (start, _) in enumerate(self.pieces):
            if any(one.address <= start < one.end for one in kept):
                found.add(number)
            elif self._is_filling(number) or self._is_table(number):
                found.add(number)
        return {number for number in found if number is not None}

    def _stubs(self) -> list[Section]:
        return [one for name, one in self._sections.items() if name.startswith(_STUBS)]

    def is_code(self, number: int) -> bool:
        """Whether the piece is in the section of functions."""
        return self.text.address <= self.pieces[number].start < self.text.end

    def _is_filling(self, number: int) -> bool:
        """Whether the piece is code between functions."""
        return self.is_code(number) and self.pieces[number].start not in self._functions

    def _is_table(self, number: int) -> bool:
        """Whether the piece is an array with addresses of functions.

        If its first index is not 0, a compiler refers to a place before it, in another piece.
        Tables of virtual functions, and constants without a name, have their first
        index at 0.
        """
        if self.is_code(number) or self.pieces[number].start not in self._arrays:
            return False
        return any(map(self.is_code, self.references.get(number, ())))


_CLONE = re.compile(rb"\.(?:part|constprop|isra|lto_priv|localalias|cold)\b")

_CALL = re.compile(rb"\xe8")
_JUMP = re.compile(rb"\xe9")
_BRANCH = re.compile(rb"\x0f[\x80-\x8f]")
_SHORT = re.compile(rb"[\xeb\x70-\x7f]")
_OPERAND = re.compile(rb"[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]")
"""Operands relative to the next instruction, which is after the four bytes of the distance, or
after one byte of a constant. An address is not read by instructions with longer constants."""

_LONGEST_END = 8
_ENDS = re.compile(
    rb"(?s)(?:\xc3|\xc2..|[\xe8\xe9]....|\xeb.|\x0f\x0b|\xf4|\xcc|\xff[\xe0-\xe7\x20-\x27]"
    rb"|\xff\x24.|\xff[\x60-\x67].|\xff\x64..|\xff\x25....|\xff[\xa0-\xa7]....)\Z"
)
"""Returns, jumps, traps, and calls, which are of functions that do not return."""


def _operands(code: bytes, address: int) -> Iterator[tuple[int, int]]:
    distance = struct.Struct("<i").unpack_from
    last = len(code) - 6
    for found in _OPERAND.finditer(code):
        at = found.start()
        if at < last:
            target = address + at + 5 + distance(code, at + 1)[0]
            yield address + at, target
            yield address + at, target + 1


def _calls(code: bytes, address: int) -> Iterator[tuple[int, int]]:
    """Calls and short jumps."""
    yield from _distances(code, address, _CALL, 1)
    for found in _SHORT.finditer(code):
        at = found.start()
        if at + 1 < len(code):
            short = code[at + 1]
            yield address + at, address + at + 2 + (short - 256 if short > 127 else short)


def _far_jumps(code: bytes, address: int) -> Iterator[tuple[int, int]]:
    yield from _distances(code, address, _JUMP, 1)
    yield from _distances(code, address, _BRANCH, 2)


def _distances(
    code: bytes, address: int, pattern: re.Pattern[bytes], size: int
) -> Iterator[tuple[int, int]]:
    """Instructions that start with `pattern`, of `size` bytes, before a distance of four bytes."""
    distance = struct.Struct("<i").unpack_from
    last = len(code) - 6
    for found in pattern.finditer(code):
        at = found.start()
        if at < last:
            yield address + at, address + at + size + 4 + distance(code, at + size)[0]


def _reached(roots: Iterable[int], references: dict[int, set[int]]) -> set[int]:
    found: set[int] = set()
    queue = list(roots)
    while queue:
        number = queue.pop()
        if number not in found:
            found.add(number)
            queue += references.get(number, ())
    return found


def remove_unreachable(data: bytes, named: Collection[bytes]) -> tuple[bytes, int]:
    """The library without the functions that cannot be reached, and the bytes that they had;
    `named` are the names of symbols in the other libraries of the package.

    Raises:
        ValueError: It has no table of symbols, or it is not for x86-64.
    """
    if struct.unpack_from("<H", data, 18)[0] != X86_64:
        raise ValueError("expected a library for x86-64")
    library = _Library(data)
    kept = _reached(library.roots(named), library.references)
    removed = [
        piece
        for number, piece in enumerate(library.pieces)
        if number not in kept and library.is_code(number)
    ]
    result = bytearray(data)
    shift = library.text.offset - library.text.address
    for start, end in removed:
        result[start + shift : end + shift] = _TRAP * (end - start)
    remove_unwinding(result, {start for start, _ in removed})
    return bytes(result), sum(end - start for start, end in removed)
