"""Rows that are too large for one packet are sent in several.

Rows are encoded once: the size of a row is measured with a few rows, then with each packet.
"""

from collections.abc import Callable

from msgspec.structs import replace

from aiostream_ds._channels.policy import BATCH_ROWS, PACKET_BYTES, ROW_BYTES
from aiostream_ds._frames.columns import FrameError
from aiostream_ds._frames.packet import Packet

__all__ = ["encode_rows"]

_SAMPLE_ROWS = 64
"""Rows that are encoded first, of more than BATCH_ROWS, to find the size of a row."""

_GROWTH = 2
"""A packet has at most this many times the rows of the one before: the next may be larger."""


def encode_rows(
    rows: int, encode: Callable[[int, int], Packet], whole: Packet | None = None
) -> list[Packet]:
    """The packets of so many rows, none above PACKET_BYTES unless it has one row.

    `encode(start, stop)` encodes a part of the rows. `whole` has all of them, if they are encoded
    already. Raises FrameError for a row above ROW_BYTES.
    """
    if rows <= BATCH_ROWS:
        packet = whole or encode(0, rows)
        if len(packet.data) <= PACKET_BYTES or rows == 1:
            return [_checked(packet)]
        return _cut(rows, _rows_that_fit(packet), encode)
    return _cut(rows, _rows_that_fit(encode(0, _SAMPLE_ROWS)), encode)


def _cut(rows: int, count: int, encode: Callable[[int, int], Packet]) -> list[Packet]:
    """Packets of about `count` rows, which changes with the size of the rows."""
    found: list[Packet] = []
    start = 0
    while start < rows:
        part = encode(start, min(start + count, rows))
        if len(part.data) <= PACKET_BYTES or part.rows == 1:
            found.append(replace(_checked(part), continues=True) if start else _checked(part))
            start += part.rows
            count = min(_rows_that_fit(part), _GROWTH * count)
        else:
            count = _rows_that_fit(part)
    return found


def _rows_that_fit(packet: Packet) -> int:
    """How many rows like those of a packet a packet may have: a little less than what fits on
    average, because rows differ in size."""
    return max(1, packet.rows * PACKET_BYTES * 7 // (8 * len(packet.data)))


def _checked(packet: Packet) -> Packet:
    if len(packet.data) > ROW_BYTES:  # it has one row
        raise FrameError(
            f"a row must have at most {ROW_BYTES:,} bytes as JSON, got {len(packet.data):,}:"
            " Grafana disconnects each browser for which it would be queued"
        )
    return packet
