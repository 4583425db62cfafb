"""Cursors as MessagePack has them: one that is a pair of numbers does not fit into 64 bits."""

import msgspec

from aiostream_ds._frames.packet import CursorRange

__all__ = ["WireCursors", "from_wire", "to_wire"]

_INT64 = 1 << 63


class WireCursors(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A range of cursors."""

    epoch: str
    prev: int | str  # a text beyond 64 bits: a pair of numbers
    last: int | str


def to_wire(cursors: CursorRange | None) -> WireCursors | None:
    if cursors is None:
        return None
    epoch, prev, last = cursors
    return WireCursors(epoch, _number(prev), _number(last))


def from_wire(cursors: WireCursors | None) -> CursorRange | None:
    """Raises ValueError: a text is not a number."""
    if cursors is None:
        return None
    return CursorRange(cursors.epoch, int(cursors.prev), int(cursors.last))


def _number(value: int) -> int | str:
    return value if -_INT64 <= value < _INT64 else str(value)
