"""New messages of a stream of JetStream."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio

from aiostream_ds._nats.nats_connection import NatsConnection
from aiostream_ds.errors import UpstreamError
from aiostream_ds.sources.nats.jetstream_api import check_readable, read_stream
from aiostream_ds.sources.nats.ordered_consumer import (
    ConsumerGone,
    OrderedConsumer,
    from_sequence,
    open_consumer,
)
from aiostream_ds.sources.nats.sequence_position import SequencePosition, StreamPart
from aiostream_ds.sources.nats.server_link import ServerLink

__all__ = ["live_messages"]

CHECK = 10.0
"""Seconds between two looks at a stream of which only some subjects are read."""

MISSING_WAIT = 2.0
"""Seconds between two looks for a stream that does not exist."""

ATTEMPTS = 5
"""Consumers that are made in a row without a message, before the stream is retried."""

_PAUSE = 0.1  # seconds before the second one; they double


async def live_messages(
    link: ServerLink, stream: str, filter: str, position: SequencePosition
) -> AsyncGenerator[StreamPart]:
    """What is read after the position, which moves. Yields at least every few seconds, maybe an
    empty part.

    Raises:
        PluginError: the connection is lost, or the stream cannot be read.
    """
    failures = 0
    async with link.connection() as connection:
        while True:
            facts = await read_stream(connection, stream)
            if facts is None:
                yield StreamPart(is_missing=True)
                await anyio.sleep(MISSING_WAIT)
                continue
            check_readable(stream, facts)
            change = position.begin(facts)
            if change is not None:
                yield StreamPart(change=change)
            start = from_sequence(max(position.last, position.complete) + 1)
            last = position.last
            try:
                async with open_consumer(link, connection, stream, filter, start) as consumer:
                    reader = _Reader(connection, stream, consumer, position)
                    async with aclosing(reader.parts()) as parts:
                        async for part in parts:
                            yield part
            except ConsumerGone as gone:
                failures = failures + 1 if position.last == last else 1
                if failures > ATTEMPTS:
                    raise UpstreamError(
                        f"NATS {connection.server}: the stream {stream!r} cannot be read: {gone}"
                    ) from gone
                await anyio.sleep(min(MISSING_WAIT, _PAUSE * 2**failures))


class _Reader:
    """Reads one consumer until it is gone."""

    def __init__(
        self,
        connection: NatsConnection,
        stream: str,
        consumer: OrderedConsumer,
        position: SequencePosition,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._consumer = consumer
        self._position = position
        self._check_at = 0.0

    async def parts(self) -> AsyncGenerator[StreamPart]:
        """See `live_messages`. Raises also ConsumerGone."""
        consumer, position = self._consumer, self._position
        while True:
            await self._check()
            async with aclosing(consumer.pull()) as pulled:
                async for messages in pulled:
                    for part in position.read(messages):
                        yield part
            if consumer.is_at_end:
                position.reached_end()
            yield StreamPart()

    async def _check(self) -> None:
        """Look at the stream now and then, to know up to where no message is unread."""
        position, now = self._position, anyio.current_time()
        if not position.has_filter or now < self._check_at:
            return
        self._check_at = now + CHECK
        facts = await read_stream(self._connection, self._stream)
        if facts is None or facts.created != position.created:
            raise ConsumerGone(f"the stream {self._stream!r} was deleted")
        position.check(facts)
