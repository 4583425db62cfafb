"""Reads messages of a stream in order, with a consumer that exists only meanwhile.

Messages are pulled: so many bytes and messages at a time as are asked for. Each pull ends by itself
after a while, so that a consumer that is gone is noticed.
"""

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import anyio
import msgspec

from aiostream_ds._nats.nats_connection import NatsConnection
from aiostream_ds._nats.nats_protocol import NatsMessage
from aiostream_ds.errors import PluginError, UpstreamError, copy_error
from aiostream_ds.sources.nats.jetstream_api import call_api
from aiostream_ds.sources.nats.server_link import ANSWER_TIMEOUT, ServerLink
from aiostream_ds.sources.nats.subject_filters import EVERYTHING

__all__ = [
    "ConsumerGone",
    "OrderedConsumer",
    "StreamMessage",
    "from_sequence",
    "from_time",
    "open_consumer",
]

PULL_MESSAGES = 1_000
"""Maximum number of messages that are asked for at a time."""

PULL_BYTES = 4 << 20
"""Bytes that are asked for at a time; a message that is larger comes alone."""

PULL_SECONDS = 2.0
"""Seconds after which a pull ends when there are fewer messages."""

INACTIVE_SECONDS = 30
"""Seconds without a pull after which the server removes the consumer of a process that was
killed."""

_SECOND = 1_000_000_000
_END = (404, 408)
_LIMIT = 409
_ACK = "$JS.ACK."


class StreamMessage(NamedTuple):
    """A message of a stream. `time` is when the server has stored it, in Unix ms."""

    sequence: int
    time: int
    subject: str
    headers: Mapping[str, str]
    payload: bytes


class ConsumerGone(Exception):
    """The consumer has to be made again, after the last message that was read."""


def from_sequence(first: int) -> dict[str, Any]:
    """For a consumer that begins with a sequence."""
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": max(1, first)}


def from_time(text: str) -> dict[str, Any]:
    """For a consumer that begins with the first message that was not stored before a time (RFC
    3339)."""
    return {"deliver_policy": "by_start_time", "opt_start_time": text}


class _Answers:
    """The messages of a subscription, until they are taken."""

    def __init__(self) -> None:
        self._messages: list[NatsMessage] = []
        self._changed = anyio.Event()
        self._error: Exception | None = None

    def put(self, message: NatsMessage) -> None:
        self._messages.append(message)
        self._changed.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._changed.set()

    async def take(self, seconds: float) -> list[NatsMessage]:
        """Those that have arrived; none if there is none for so many seconds. Raises the error of
        the subscription after them."""
        if not self._messages and self._error is None:
            self._changed = anyio.Event()
            with anyio.move_on_after(seconds):
                await self._changed.wait()
        found, self._messages = self._messages, []
        if not found and self._error is not None:
            raise copy_error(self._error)
        return found


class OrderedConsumer:
    """A consumer of one reader. Made by `open_consumer`.

    Attributes:
        pending: how many messages of the stream it had not read when the last one was sent.
        is_at_end: whether the last pull has ended because there were no more messages.
        is_stalled: whether it has ended without one of those that are pending: they were removed,
            or the server is slow.
    """

    def __init__(
        self, connection: NatsConnection, stream: str, name: str, inbox: str, pending: int
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._inbox = inbox
        self._count = self._pulls = 0
        self._is_large = False
        self.is_at_end = self.is_stalled = False
        self.pending = pending
        self.requests = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self.answers = _Answers()

    async def pull(self, limit: int = PULL_MESSAGES) -> AsyncGenerator[list[StreamMessage]]:
        """The next messages, as they arrive: at most `limit`, or those that come within
        `PULL_SECONDS`.

        Raises:
            ConsumerGone: it has to be made again.
            PluginError: the connection is lost, or the server does not answer.
        """
        left = 1 if self._is_large else min(limit, PULL_MESSAGES)
        request: dict[str, Any] = {"batch": left, "expires": round(PULL_SECONDS * _SECOND)}
        if not self._is_large:
            request["max_bytes"] = PULL_BYTES
        self._is_large = self.is_at_end = self.is_stalled = False
        self._pulls += 1
        inbox = f"{self._inbox}.{self._pulls}"
        payload = msgspec.json.encode(request)
        await self._connection.publish(self.requests, payload, {}, reply=inbox)
        is_first = True
        while left:
            messages = await self.answers.take(PULL_SECONDS + ANSWER_TIMEOUT)
            if not messages:
                raise UpstreamError(
                    f"NATS {self._connection.server}: a read of the stream {self._stream!r} has no"
                    f" end after {PULL_SECONDS + ANSWER_TIMEOUT:g} s"
                )
            found = [each for each in messages if each.reply.startswith(_ACK)]
            if found:
                left -= len(found)
                yield [self._read(each) for each in found]
            for each in messages:
                if each.subject == inbox and self._ends(each):
                    is_empty, is_end = is_first and not found, each.status in _END
                    self._is_large = is_empty and each.status == _LIMIT
                    self.is_at_end = is_end and not self.pending
                    self.is_stalled = is_end and is_empty and self.pending > 0
                    return
            is_first = is_first and not found
        self.is_at_end = not self.pending

    def _ends(self, status: NatsMessage) -> bool:
        """Whether the pull has ended with this status. Raises ConsumerGone."""
        text = status.description
        if status.status == 100:
            return False
        if status.status in _END:
            return True
        if status.status == _LIMIT and ("Exceeds MaxBytes" in text or "Batch Completed" in text):
            return True
        raise ConsumerGone(text or f"status {status.status}")

    def _read(self, message: NatsMessage) -> StreamMessage:
        """The message with what its reply subject describes: with a domain and an account it has
        two tokens more."""
        tokens = message.reply.split(".")
        start = 5 if len(tokens) < 11 else 7
        try:
            sequence, count, time, self.pending = map(int, tokens[start : start + 4])
        except ValueError:
            raise UpstreamError(
                f"NATS {self._connection.server}: expected a message of JetStream, got one with the"
                f" reply subject {message.reply!r:.200}"
            ) from None
        self._count += 1
        if count != self._count:
            raise ConsumerGone("messages were lost between the server and the plugin")
        return StreamMessage(
            sequence, time // 1_000_000, message.subject, message.headers, message.payload
        )


@asynccontextmanager
async def open_consumer(
    link: ServerLink,
    connection: NatsConnection,
    stream: str,
    filter: str,
    start: Mapping[str, Any],
) -> AsyncGenerator[OrderedConsumer]:
    """A consumer, which is removed at the end.

    Args:
        filter: the subject, which may have wildcards, of the messages to read.
        start: where it begins: see `from_sequence` and `from_time`.

    Raises:
        ConsumerGone: the stream does not exist any more.
        PluginError: as `call_api`.
    """
    name = f"grafana-{secrets.token_hex(8)}"
    inbox = connection.new_inbox()
    operation = f"CONSUMER.CREATE.{stream}.{name}"
    config = {
        "name": name,
        "ack_policy": "none",
        "replay_policy": "instant",
        "inactive_threshold": INACTIVE_SECONDS * _SECOND,
        "mem_storage": True,
        **start,
    }
    if filter != EVERYTHING:
        operation += f".{filter}"
        config["filter_subject"] = filter
    consumer = OrderedConsumer(connection, stream, name, inbox, 0)
    async with link.subscribe(
        connection, f"{inbox}.*", consumer.answers, requests=consumer.requests
    ):
        try:
            arguments = {"stream_name": stream, "config": config}
            answer = await call_api(connection, operation, arguments)
            if not answer:
                raise ConsumerGone(f"there is no stream {stream!r} any more")
            consumer.pending = int(answer.get("num_pending", 0))
            yield consumer
        finally:  # also when it is cancelled while the server makes it
            if not connection.lost.done():
                with suppress(PluginError):  # the server removes it after a while, too
                    await connection.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"", {})
