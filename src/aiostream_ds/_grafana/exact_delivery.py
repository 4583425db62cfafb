"""Writes the packets of an exact channel to a RunStream call: they have cursors and no schema.

    hello ──▶ packets, each continuing the one before ──▶ …       a heartbeat after 2 s of silence

The hello and the heartbeats have the stream's cursor and no rows. The stream's status is sent when
it changes and, while the stream is not healthy, with each heartbeat. Packets that a slow subscriber
loses leave a gap between two cursors; the browser fetches those rows from `replay/rows`.
"""

from collections.abc import Callable, Sequence

import anyio
import msgspec

from aiostream_ds._channels.log import Log
from aiostream_ds._channels.status import Status
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._encoding.cursor_kinds import CursorKind
from aiostream_ds._frames.cursor import (
    columns_of,
    cursor_object,
    exact_packet,
    wire_epoch,
    with_status,
)
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from aiostream_ds._grafana.packet_delivery import stream_packet, write
from aiostream_ds._grpc.call import Call

__all__ = [
    "HEARTBEAT",
    "PacketEncoder",
    "cursor_packet_encoder",
    "log_packet_encoder",
    "send_exact",
]

HEARTBEAT = 2.0
"""Seconds of silence after which an exact channel sends its cursor."""

PacketEncoder = Callable[[Sequence[Packet]], list[bytes]]
"""Encodes packets as packets of the exact channel; without packets, a heartbeat."""


async def send_exact(call: Call, subscription: Subscription, encode: PacketEncoder) -> None:
    """Send the subscription's packets until it ends, then leave it.

    Raises what `Subscription.wait` raises.
    """
    sent: Status | None = None
    try:
        status = sent = subscription.status
        hello = _with_status(encode(()), status, changed=status is not None)
        await _send(call, subscription, hello)
        more = True
        while more:
            with anyio.move_on_after(HEARTBEAT):
                more = await subscription.wait()
            taken = [packet for _, packet in subscription.receive_nowait()]
            if more:
                status = subscription.status
                changed = status != sent or (status is not None and not taken)
                payloads = _with_status(encode(taken), status, changed=changed)
                await _send(call, subscription, payloads)
                sent = status
    finally:
        subscription.leave()


def _with_status(payloads: list[bytes], status: Status | None, *, changed: bool) -> list[bytes]:
    if changed:
        payloads = payloads or [b""]  # the cursor is unknown: the log cannot be read
        payloads[0] = with_status(payloads[0], msgspec.json.encode(status))
    return payloads


async def _send(call: Call, subscription: Subscription, payloads: list[bytes]) -> None:
    if payloads:
        await write(call, subscription, b"".join(map(stream_packet, payloads)))


def cursor_packet_encoder(
    epoch: Callable[[str, Schema | None], str],
    kind: CursorKind,
    current: CursorRange | None,
    schema: Callable[[], Schema | None],
) -> PacketEncoder:
    """The encoder of a stream whose rows have cursors of this kind.

    `epoch` makes the wire epoch of a cursor's epoch and a schema. `current` is the channel's range
    of cursors, or None until the stream has emitted one. `schema` returns its current schema.
    """
    newest, to_wire = current, kind.to_wire

    def encode(packets: Sequence[Packet]) -> list[bytes]:
        nonlocal newest
        payloads = []
        for packet in packets:
            cursors = packet.cursors
            if cursors is None:
                continue
            newest = cursors
            if packet.rows:
                column = kind.indexes(columns_of(packet.schema).names)
                name = epoch(cursors.epoch, packet.schema)
                prev, last = to_wire(cursors.prev), to_wire(cursors.last)
                cursor = cursor_object(name, prev, last, column)
                payloads.append(exact_packet(cursor, packet.data))
            else:
                last = to_wire(cursors.last)
                payloads.append(_heartbeat(epoch(cursors.epoch, schema()), last))
        if not packets and newest is not None:
            payloads.append(_heartbeat(epoch(newest.epoch, schema()), to_wire(newest.last)))
        return payloads

    return encode


def log_packet_encoder(
    log: Log, subscription: Subscription, schema: Callable[[], Schema | None]
) -> PacketEncoder:
    """The encoder of a stream without a cursor: rows have their numbers in the channel's log.

    It counts from the subscription's first row. `schema` returns the channel's current schema.
    """
    start = log.last - subscription.statistics().queued_rows
    newest = schema()

    def encode(packets: Sequence[Packet]) -> list[bytes]:
        nonlocal newest
        last = start + subscription.dequeued_rows
        number = last - sum(packet.rows for packet in packets)
        payloads = []
        for packet in packets:
            newest = packet.schema
            cursor = cursor_object(wire_epoch(log.epoch, newest), number, number + packet.rows)
            payloads.append(exact_packet(cursor, packet.data))
            number += packet.rows
        if not packets:
            payloads.append(_heartbeat(wire_epoch(log.epoch, newest or schema()), last))
        return payloads

    return encode


def _heartbeat(epoch: str, last: int | str) -> bytes:
    return exact_packet(cursor_object(epoch, last, last))
