"""Rows that are too large for one packet are sent in several."""

from collections.abc import Callable

from msgspec.structs import replace

from aiostream_ds._channels.policy import BATCH_ROWS, PACKET_BYTES, ROW_BYTES
from aiostream_ds._frames.columns import FrameError
from aiostream_ds._frames.packet import Packet

__all__ = ["encode_rows"]

_MANY = 10 * BATCH_ROWS
"""Rows from which a part is encoded first, to find the size of a row."""


def encode_rows(rows: int, encode: Callable[[int, int], Packet]) -> list[Packet]:
    """The packets of so many rows, none above PACKET_BYTES unless it has one row.

    `encode(start, stop)` encodes a part of the rows. Raises FrameError for a row above ROW_BYTES.
    """
    if rows > _MANY:
        return _as_parts(_cut(rows, len(encode(0, BATCH_ROWS).data) * rows // BATCH_ROWS, encode))
    packet = encode(0, rows)
    if len(packet.data) <= PACKET_BYTES or rows == 1:
        return [_checked(packet)]
    return _as_parts(_cut(rows, len(packet.data), encode))


def _cut(rows: int, size: int, encode: Callable[[int, int], Packet]) -> list[Packet]:
    """`size` is that of all rows in one packet, about."""
    found: list[Packet] = []
    # a little less than what fits on average: rows differ in size
    step = max(1, rows * PACKET_BYTES * 7 // (8 * size))
    for start in range(0, rows, step):
        part = encode(start, min(start + step, rows))
        if len(part.data) > PACKET_BYTES and part.rows > 1:
            found += _cut(part.rows, len(part.data), _from(start, encode))
        else:
            found.append(_checked(part))
    return found


def _checked(packet: Packet) -> Packet:
    if len(packet.data) > ROW_BYTES:  # it has one row
        raise FrameError(
            f"a row must have at most {ROW_BYTES:,} bytes as JSON, got {len(packet.data):,}:"
            " Grafana disconnects each browser for which it would be queued"
        )
    return packet


def _from(first: int, encode: Callable[[int, int], Packet]) -> Callable[[int, int], Packet]:
    return lambda start, stop: encode(first + start, first + stop)


def _as_parts(packets: list[Packet]) -> list[Packet]:
    return [packets[0], *(replace(each, continues=True) for each in packets[1:])]
