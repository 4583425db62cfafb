"""Rows that are too large for one packet are sent in several."""

from collections.abc import Callable

from msgspec.structs import replace

from aiostream_ds._channels.policy import PACKET_BYTES
from aiostream_ds._frames.packet import Packet

__all__ = ["cut"]


def cut(packet: Packet, encode: Callable[[int, int], Packet]) -> list[Packet]:
    """The rows of a packet in several, none above PACKET_BYTES unless it has one row.

    `encode(start, stop)` encodes a part of the rows again.
    """
    if packet.rows < 2:
        return [packet]
    found: list[Packet] = []
    # a little less than what fits on average: rows differ in size
    step = max(1, packet.rows * PACKET_BYTES * 7 // (8 * len(packet.data)))
    for start in range(0, packet.rows, step):
        part = encode(start, min(start + step, packet.rows))
        if len(part.data) > PACKET_BYTES:
            found += cut(part, _part(encode, start))
        else:
            found.append(part)
    return [found[0], *(replace(each, continues=True) for each in found[1:])]


def _part(encode: Callable[[int, int], Packet], first: int) -> Callable[[int, int], Packet]:
    return lambda start, stop: encode(first + start, first + stop)
