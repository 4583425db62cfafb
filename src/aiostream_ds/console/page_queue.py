"""A bounded queue of messages for one page.

When packets exceed the limit, the oldest are dropped and counted; a dropped schema is added to the
next packet of its channel. A page that does not even read answers is disconnected.
"""

from collections import deque
from typing import Any, NamedTuple

import anyio
import msgspec

__all__ = [
    "LINES_LIMIT",
    "MESSAGES_LIMIT",
    "PACKETS_LIMIT",
    "FollowedChannel",
    "PageQueue",
    "QueueOverflow",
]

PACKETS_LIMIT = 4 * 1024 * 1024
"""Bytes of queued packets for one page."""

MESSAGES_LIMIT = 32 * 1024 * 1024
"""Bytes of other queued messages for one page; beyond this it is disconnected."""

LINES_LIMIT = 500
"""Queued log lines for one page."""


class QueueOverflow(Exception):
    """The page does not read its messages."""


class _SchemaOnly(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw()


class FollowedChannel:
    """A channel that one page follows. Grafana pushes the channel's packets here."""

    __slots__ = ("_queue", "_schema", "_schema_dropped", "dropped", "id", "path")

    def __init__(self, queue: "PageQueue", id: int, path: str) -> None:
        self.id = id
        self.path = path
        self.dropped = 0
        self._queue = queue
        self._schema = b""
        self._schema_dropped = False

    def push(self, payload: bytes) -> None:
        """Queue a packet."""
        has_schema = payload.startswith(b'{"schema"')
        if has_schema:
            self._schema = bytes(msgspec.json.decode(payload, type=_SchemaOnly).schema)
        self._queue._put_packet(_QueuedPacket(self, payload, self._schema, has_schema))

    def end(self) -> None:
        """Queue the end of the stream: the author's method has returned."""
        self._queue.put({"id": self.id, "ended": True})

    def _on_drop(self, packet: "_QueuedPacket") -> None:
        self.dropped += 1
        self._schema_dropped |= packet.has_schema

    def _render(self, packet: "_QueuedPacket") -> bytes:
        add_schema, self._schema_dropped = self._schema_dropped, False
        if add_schema and not packet.has_schema and packet.schema and len(packet.payload) > 2:
            return b'{"schema":%b,%b' % (packet.schema, packet.payload[1:])
        return packet.payload


class _QueuedPacket(NamedTuple):
    channel: FollowedChannel
    payload: bytes
    schema: bytes
    has_schema: bool


class PageQueue:
    """Messages for one page, in order. Packets that are queued together are sent together.

    Not thread-safe: call it from the event loop's thread.
    """

    def __init__(self) -> None:
        self._packets: deque[_QueuedPacket] = deque()
        self._packet_bytes = 0
        self._messages: list[bytes] = []
        self._message_bytes = 0
        self._lines: deque[str] = deque(maxlen=LINES_LIMIT)
        self._not_empty = anyio.Event()
        self.dropped = 0

    def put(self, message: Any) -> None:
        """Queue a message: an object, or its JSON as bytes."""
        body = message if isinstance(message, bytes) else msgspec.json.encode(message)
        self._messages.append(body)
        self._message_bytes += len(body)
        self._not_empty.set()

    @property
    def above_high_water(self) -> bool:
        """Whether so much is queued that periodic messages should be left out."""
        return self._message_bytes > MESSAGES_LIMIT // 16

    def put_log_line(self, line: str) -> None:
        """Queue a log line, which is JSON. Beyond the limit the oldest is dropped."""
        self._lines.append(line)
        self._not_empty.set()

    def discard(self, channel: FollowedChannel) -> None:
        """Remove the queued packets of a channel that the page has left."""
        kept = [packet for packet in self._packets if packet.channel is not channel]
        self._packets = deque(kept)
        self._packet_bytes = sum(len(packet.payload) for packet in kept)

    async def receive(self) -> str:
        """Wait for a message, and return all that are queued as a JSON array.

        Safe to cancel: no message is lost. Raises QueueOverflow when too much is queued.
        """
        while not (self._packets or self._messages or self._lines):
            self._not_empty = anyio.Event()
            await self._not_empty.wait()
        if self._message_bytes > MESSAGES_LIMIT:
            raise QueueOverflow(f"{self._message_bytes} bytes are queued for the page")
        parts, self._messages, self._message_bytes = self._messages, [], 0
        if self._lines:
            parts.append(b'{"log":[%b]}' % ",".join(self._lines).encode())
            self._lines.clear()
        by_channel: dict[FollowedChannel, list[bytes]] = {}
        for packet in self._packets:
            by_channel.setdefault(packet.channel, []).append(packet.channel._render(packet))
        self._packets.clear()
        self._packet_bytes = 0
        for channel, payloads in by_channel.items():
            parts.append(b'{"id":%d,"packets":[%b]}' % (channel.id, b",".join(payloads)))
        return (b"[%b]" % b",".join(parts)).decode()

    async def receive_packets(self) -> list[str]:
        """Wait for a packet, and return all that are queued, for a client of one channel.

        Safe to cancel: no packet is lost.
        """
        while not self._packets:
            self._not_empty = anyio.Event()
            await self._not_empty.wait()
        payloads = [packet.channel._render(packet).decode() for packet in self._packets]
        self._packets.clear()
        self._packet_bytes = 0
        return payloads

    def _put_packet(self, packet: _QueuedPacket) -> None:
        self._packets.append(packet)
        self._packet_bytes += len(packet.payload)
        while self._packet_bytes > PACKETS_LIMIT and len(self._packets) > 1:
            oldest = self._packets.popleft()
            self._packet_bytes -= len(oldest.payload)
            self.dropped += 1
            oldest.channel._on_drop(oldest)
        self._not_empty.set()
