"""Removes functions from the tables by which C++ exceptions find their handlers.

They are `.eh_frame_hdr`, a sorted table of functions and their entries, `.eh_frame` with the
entries (FDE), which share heads (CIE), and `.gcc_except_table` with the handlers of each function
(LSDA);
Linux Standard Base, Exception Frames.
"""

import struct
from bisect import bisect_right
from collections.abc import Container

from aiostream_ds.packaging.elf_sections import Section, sections

__all__ = ["remove_unwinding"]

_FORM = b"\1\x1b\x03\x3b"  # version 1; distances of 4 bytes from here; a count; a sorted table
_TABLE = 12  # bytes before the table
_WITHOUT_HANDLERS = (b"zR\0", b"zRS\0", b"zPR\0")
_WITH_HANDLERS = b"zPLR\0\1\x78\x10\7"  # of x86-64, with the length of what follows
_DISTANCE = 0x1B  # the form of addresses: 4 bytes from here


def remove_unwinding(data: bytearray, removed: Container[int]) -> None:
    """Remove the functions that start at these addresses, in place; a file whose tables have
    another form stays as it is."""
    found = sections(bytes(data))
    if not {".eh_frame_hdr", ".eh_frame"} <= found.keys():
        return
    table, frames = found[".eh_frame_hdr"], found[".eh_frame"]
    if data[table.offset : table.offset + 4] != _FORM:
        return
    (count,) = struct.unpack_from("<I", data, table.offset + 8)
    start = table.offset + _TABLE
    entries = list(struct.iter_unpack("<ii", data[start : start + 8 * count]))
    kept = b"".join(
        struct.pack("<ii", *entry) for entry in entries if table.address + entry[0] not in removed
    )
    data[start : start + 8 * count] = kept.ljust(8 * count, b"\0")
    struct.pack_into("<I", data, table.offset + 8, len(kept) // 8)
    shift = frames.offset - frames.address
    unused: list[int | None] = []
    used: list[int | None] = []
    empty: list[tuple[int, int]] = []
    for function, frame in entries:
        at = table.address + frame + shift
        is_removed = table.address + function in removed
        (unused if is_removed else used).append(_handlers(data, at, shift))
        if is_removed:
            (length,) = struct.unpack_from("<I", data, at)
            empty.append((at, at + 4 + length))
    _join(data, sorted(empty))
    if ".gcc_except_table" in found and None not in used:
        _clear(data, found[".gcc_except_table"], unused, used)


def _join(data: bytearray, entries: list[tuple[int, int]]) -> None:
    """Make one empty entry of all that follow each other, so that the table can still be read from
    its start."""
    first = last = 0
    for at, end in entries:
        first = first if at == last else at
        data[max(first + 8, at) : end] = bytes(end - max(first + 8, at))
        struct.pack_into("<I", data, first, end - first - 4)
        last = end


def _handlers(data: bytearray, at: int, shift: int) -> int | None:
    """The address of the handlers of the entry at this place in the file; 0 if it has none, None
    if its form is unknown."""
    (back,) = struct.unpack_from("<I", data, at + 4)
    head = at + 4 - back + 8 + 1  # after length, id and version
    if data.startswith(_WITHOUT_HANDLERS, head):
        return 0
    form = head + len(_WITH_HANDLERS) + 5  # after the place of the function that calls handlers
    if not data.startswith(_WITH_HANDLERS, head) or data[form] != _DISTANCE or data[at + 16] != 4:
        return None
    place = at + 17
    (distance,) = struct.unpack_from("<i", data, place)
    return place - shift + distance if distance else 0


def _clear(
    data: bytearray, table: Section, unused: list[int | None], used: list[int | None]
) -> None:
    """Clear the handlers that only removed functions have; each ends where the next one starts."""
    starts = sorted(start for start in {*used, *unused, table.end} if start)
    for start in {start for start in {*unused} - {*used} if start}:
        end = starts[bisect_right(starts, start)]
        place = start - table.address + table.offset
        data[place : place + end - start] = bytes(end - start)
