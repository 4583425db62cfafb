"""The exact view of a channel on its way out: packets that know their place, never a schema.

    hello ──▶ packets, each behind the former ──▶ …          and its place alone in silence

A hello says where the stream stands when this reader comes. How the stream is doing, its status, is
said when it changes, and with each place in silence as long as it is not plainly live. What a slow
reader loses shows as a gap between two packets, which the browser fills through the resource
`replay/rows`.
"""

from collections.abc import Callable, Sequence

import anyio
import msgspec

from aiostream_ds._channels.log import Log
from aiostream_ds._channels.status import Status
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._frames.cursor import (
    columns_of,
    cursor_object,
    exact_packet,
    wire_epoch,
    with_status,
)
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from aiostream_ds._grafana.packet_delivery import message, write
from aiostream_ds._grpc.call import Call

__all__ = ["HEARTBEAT", "Feed", "cursor_feed", "ring_feed", "send_exact"]

HEARTBEAT = 2.0
"""Seconds of silence after which an exact view says where it stands."""

Feed = Callable[[Sequence[Packet]], list[bytes]]
"""Makes the payloads of packets that were taken; of none, of the place where the reader stands."""


async def send_exact(call: Call, reader: Subscription, feed: Feed) -> None:
    """Send what `reader` brings until it ends, then leave. Raises what `reader.wait` raises."""
    said: Status | None = None
    try:
        status = said = reader.status
        await _send(call, reader, _stated(feed(()), status, said_now=status is not None))
        more = True
        while more:
            with anyio.move_on_after(HEARTBEAT):
                more = await reader.wait()
            taken = [packet for _, packet in reader.receive_nowait()]
            if more:
                status = reader.status
                news = status != said or (status is not None and not taken)
                await _send(call, reader, _stated(feed(taken), status, said_now=news))
                said = status
    finally:
        reader.leave()


def _stated(payloads: list[bytes], status: Status | None, *, said_now: bool) -> list[bytes]:
    if said_now:
        payloads = payloads or [b""]  # nobody knows where it stands: the log cannot be read
        payloads[0] = with_status(payloads[0], msgspec.json.encode(status))
    return payloads


async def _send(call: Call, reader: Subscription, payloads: list[bytes]) -> None:
    if payloads:
        await write(call, reader, b"".join(map(message, payloads)))


def cursor_feed(
    epoch: Callable[[str, Schema | None], str],
    column: str,
    place: CursorRange | None,
    schema: Callable[[], Schema | None],
) -> Feed:
    """The view of a stream whose rows have a cursor. `place` is where it stands now; None: it will
    say so. `epoch` makes the epoch's text of a place's and the schema."""
    stands = place

    def feed(packets: Sequence[Packet]) -> list[bytes]:
        nonlocal stands
        found = []
        for packet in packets:
            stands = packet.cursors or stands
            if packet.cursors is None:
                continue
            if packet.rows:
                found.append(_rows(epoch, column, packet, packet.cursors))
            else:
                found.append(_place(epoch(packet.cursors.epoch, schema()), packet.cursors.last))
        if not packets and stands is not None:
            found.append(_place(epoch(stands.epoch, schema()), stands.last))
        return found

    return feed


def ring_feed(ring: Log, reader: Subscription, schema: Callable[[], Schema | None]) -> Feed:
    """The view of a stream whose rows are numbered here, from where it stands now on."""
    start = ring.last - reader.statistics().queued_rows
    current = schema()

    def feed(packets: Sequence[Packet]) -> list[bytes]:
        nonlocal current
        last = start + reader.dequeued_rows
        number = last - sum(packet.rows for packet in packets)
        found = []
        for packet in packets:
            current = packet.schema
            cursor = cursor_object(wire_epoch(ring.epoch, current), number, number + packet.rows)
            found.append(exact_packet(cursor, packet.data))
            number += packet.rows
        if not packets:
            found.append(_place(wire_epoch(ring.epoch, current or schema()), last))
        return found

    return feed


def _place(epoch: str, last: int) -> bytes:
    return exact_packet(cursor_object(epoch, last, last))


def _rows(
    epoch: Callable[[str, Schema | None], str], column: str, packet: Packet, place: CursorRange
) -> bytes:
    ids = columns_of(packet.schema).names.index(column)
    return exact_packet(
        cursor_object(epoch(place.epoch, packet.schema), place.prev, place.last, ids), packet.data
    )
