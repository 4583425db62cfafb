"""What waits for one page: bounded, so that a page that reads nothing costs nothing more.

Packets over the bound are dropped, the oldest first, and counted; a dropped schema goes along with
the next packet of its channel. A page that leaves even answers unread is given up.
"""

from collections import deque
from typing import Any, NamedTuple

import anyio
import msgspec

__all__ = ["ANSWERS_LIMIT", "LINES_LIMIT", "PACKETS_LIMIT", "Feed", "Outbox", "Overflow"]

PACKETS_LIMIT = 4 * 1024 * 1024
"""Bytes of packets that wait for one page."""

ANSWERS_LIMIT = 32 * 1024 * 1024
"""Bytes of answers and news that wait for one page before it is given up."""

LINES_LIMIT = 500
"""Log lines that wait for one page."""


class Overflow(Exception):
    """The page reads nothing."""


class _Head(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw()


class Feed:
    """One channel as one page follows it: the `Follower` that Grafana pushes packets to."""

    __slots__ = ("_outbox", "_owes_schema", "_schema", "dropped", "id", "path")

    def __init__(self, outbox: "Outbox", id: int, path: str) -> None:
        self.id = id
        self.path = path
        self.dropped = 0
        self._outbox = outbox
        self._schema = b""
        self._owes_schema = False

    def push(self, payload: bytes) -> None:
        """A packet arrives."""
        named = payload.startswith(b'{"schema"')
        if named:
            self._schema = bytes(msgspec.json.decode(payload, type=_Head).schema)
        self._outbox._put(_Waiting(self, payload, self._schema, named))

    def end(self) -> None:
        """The author's stream has returned."""
        self._outbox.tell({"id": self.id, "ended": True})

    def _dropped(self, waiting: "_Waiting") -> None:
        self.dropped += 1
        self._owes_schema |= waiting.named

    def _render(self, waiting: "_Waiting") -> bytes:
        owes, self._owes_schema = self._owes_schema, False
        if owes and not waiting.named and waiting.schema and len(waiting.payload) > 2:
            return b'{"schema":%b,%b' % (waiting.schema, waiting.payload[1:])
        return waiting.payload


class _Waiting(NamedTuple):
    feed: Feed
    payload: bytes
    schema: bytes
    named: bool


class Outbox:
    """Messages for one page, in their order; packets that wait together leave together."""

    def __init__(self) -> None:
        self._packets: deque[_Waiting] = deque()
        self._packet_bytes = 0
        self._answers: list[bytes] = []
        self._answer_bytes = 0
        self._lines: deque[str] = deque(maxlen=LINES_LIMIT)
        self._news = anyio.Event()
        self.dropped = 0

    def tell(self, message: Any) -> None:
        """Queue an answer or news: an object, or its JSON as bytes."""
        body = message if isinstance(message, bytes) else msgspec.json.encode(message)
        self._answers.append(body)
        self._answer_bytes += len(body)
        self._news.set()

    @property
    def behind(self) -> bool:
        """Whether so much waits that news of each second may be left out."""
        return self._answer_bytes > ANSWERS_LIMIT // 16

    def log(self, line: str) -> None:
        """Queue a log line, which is JSON; of too many the newest stay."""
        self._lines.append(line)
        self._news.set()

    def forget(self, feed: Feed) -> None:
        """What waits of a channel that the page does not follow any more."""
        kept = [waiting for waiting in self._packets if waiting.feed is not feed]
        self._packets = deque(kept)
        self._packet_bytes = sum(len(waiting.payload) for waiting in kept)

    async def take(self) -> str:
        """All that waits, as a JSON array; waits for something. Raises Overflow."""
        while not (self._packets or self._answers or self._lines):
            self._news = anyio.Event()
            await self._news.wait()
        if self._answer_bytes > ANSWERS_LIMIT:
            raise Overflow(f"{self._answer_bytes} bytes wait for the page")
        parts, self._answers, self._answer_bytes = self._answers, [], 0
        if self._lines:
            parts.append(b'{"log":[%b]}' % ",".join(self._lines).encode())
            self._lines.clear()
        by_feed: dict[Feed, list[bytes]] = {}
        for waiting in self._packets:
            by_feed.setdefault(waiting.feed, []).append(waiting.feed._render(waiting))
        self._packets.clear()
        self._packet_bytes = 0
        for feed, payloads in by_feed.items():
            parts.append(b'{"id":%d,"packets":[%b]}' % (feed.id, b",".join(payloads)))
        return (b"[%b]" % b",".join(parts)).decode()

    async def take_packets(self) -> list[str]:
        """The packets that wait, each as it is: for a page that follows one channel."""
        while not self._packets:
            self._news = anyio.Event()
            await self._news.wait()
        found = [waiting.feed._render(waiting).decode() for waiting in self._packets]
        self._packets.clear()
        self._packet_bytes = 0
        return found

    def _put(self, waiting: _Waiting) -> None:
        self._packets.append(waiting)
        self._packet_bytes += len(waiting.payload)
        while self._packet_bytes > PACKETS_LIMIT and len(self._packets) > 1:
            oldest = self._packets.popleft()
            self._packet_bytes -= len(oldest.payload)
            self.dropped += 1
            oldest.feed._dropped(oldest)
        self._news.set()
