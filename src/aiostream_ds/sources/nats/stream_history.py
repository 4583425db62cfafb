"""Rows of old messages of a stream: those of a time range, or those after a sequence.

JetStream reads forward only. The newest rows of a range are read in windows of sequences, the
newest window first.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiostream_ds._frames.config import Notice
from aiostream_ds._frames.times import EPOCH, MILLISECOND
from aiostream_ds._nats.nats_connection import NatsConnection
from aiostream_ds.errors import UpstreamError
from aiostream_ds.rows import HistoryRange
from aiostream_ds.sources.event_lag import NO_LAG, Lag
from aiostream_ds.sources.nats.jetstream_api import StreamFacts
from aiostream_ds.sources.nats.ordered_consumer import (
    PULL_MESSAGES,
    ConsumerGone,
    StreamMessage,
    from_sequence,
    from_time,
    open_consumer,
)
from aiostream_ds.sources.nats.server_link import ServerLink

__all__ = ["PastMessages", "StreamHistory"]

RANGE_BYTES = 64 << 20
"""Bytes of payloads after which the history of a time range ends with the newest messages."""

WINDOW_BYTES = 16 << 20
"""Bytes of payloads in a window; a larger one is divided."""

WINDOW_MESSAGES = 20_000
"""Messages in a window; as with `WINDOW_BYTES`."""

ATTEMPTS = 3
"""Consumers in a row that get none of their messages, after which a history is an error."""

_FIRST_WINDOW = 1_000
_LARGEST_WINDOW = 1 << 52

Row = dict[str, Any]
Decode = Callable[[Sequence[StreamMessage]], list[Row]]


class PastMessages(NamedTuple):
    """Rows, oldest first, and up to which sequence they are complete."""

    rows: list[Row]
    last: int
    notices: tuple[Notice, ...] = ()


class StreamHistory:
    """Reads what a stream has stored.

    Args:
        facts: the state of the stream; later messages are not read.
        filter: the subject of the messages, which may have wildcards.
    """

    def __init__(
        self,
        link: ServerLink,
        connection: NatsConnection,
        stream: str,
        filter: str,
        facts: StreamFacts,
    ) -> None:
        self._link = link
        self._connection = connection
        self._stream = stream
        self._filter = filter
        self._facts = facts

    async def newest(
        self, span: HistoryRange[Any], decode: Decode, lag: Lag = NO_LAG
    ) -> PastMessages:
        """The newest `span.limit` rows of a time range. Raises PluginError.

        Messages are selected by the times at which they were stored. Rows with times of their own
        are found if their messages are within `lag`.
        """
        start, end = _ms(span.start), _ms(span.end)
        first = await self._sequence_at(start + lag.low) or self._facts.last + 1
        later = await self._sequence_at(end + lag.high + 1)
        last = self._facts.last if later is None else min(later - 1, self._facts.last)
        pages: list[list[Row]] = []
        count = size = 0
        notices: tuple[Notice, ...] = ()
        async with aclosing(self._windows_back(max(first, self._facts.first), last)) as windows:
            async for messages in windows:
                rows = decode(messages)
                if lag != NO_LAG:
                    rows = [row for row in rows if start <= row["time"] <= end]
                pages.append(rows)
                count += len(rows)
                size += _bytes(messages)
                if count >= span.limit:
                    break
                if size > RANGE_BYTES:
                    text = f"the newest {count:,} rows: all have more than {RANGE_BYTES >> 20} MiB"
                    notices = (Notice(severity="warning", text=text),)
                    break
        rows = [row for page in reversed(pages) for row in page]
        return PastMessages(rows[-span.limit :], last, notices)

    async def after(self, after: int, upto: int | None, limit: int, decode: Decode) -> PastMessages:
        """The oldest `limit` rows of the messages after a sequence, up to another one. Raises
        PluginError."""
        last = self._facts.last if upto is None else min(upto, self._facts.last)
        rows: list[Row] = []
        async with aclosing(self._forward(after + 1, last)) as parts:
            async for messages in parts:
                rows += decode(messages)
                if len(rows) >= limit:
                    return PastMessages(rows[:limit], rows[limit - 1]["sequence"])
        return PastMessages(rows, max(last, after))

    async def _windows_back(self, first: int, last: int) -> AsyncGenerator[list[StreamMessage]]:
        """The messages from one sequence to another, window by window, newest first."""
        width = _FIRST_WINDOW
        while last >= first:
            begin = max(first, last - width + 1)
            messages = await self._window(begin, last)
            if messages is None:
                width = max(1, min(width, last - begin + 1) // 8)
                continue
            if messages:
                yield messages
            if len(messages) < WINDOW_MESSAGES // 8 and _bytes(messages) < WINDOW_BYTES // 8:
                width = min(width * 4, _LARGEST_WINDOW)
            last = begin - 1

    async def _window(self, first: int, last: int) -> list[StreamMessage] | None:
        """The messages of a window; None if it is too large."""
        found: list[StreamMessage] = []
        size = 0
        async with aclosing(self._forward(first, last)) as parts:
            async for messages in parts:
                found += messages
                size += _bytes(messages)
                if first < last and (size > WINDOW_BYTES or len(found) > WINDOW_MESSAGES):
                    return None
        return found

    async def _forward(self, first: int, last: int) -> AsyncGenerator[list[StreamMessage]]:
        """The messages from one sequence to another, oldest first."""
        if last < first:
            return
        position, attempts = first - 1, 0
        try:
            while position < last:
                before, start = position, from_sequence(position + 1)
                async with open_consumer(
                    self._link, self._connection, self._stream, self._filter, start
                ) as consumer:
                    while consumer.pending and position < last and not consumer.is_stalled:
                        limit = min(PULL_MESSAGES, consumer.pending, last - position)
                        async with aclosing(consumer.pull(limit)) as parts:
                            async for messages in parts:
                                position = messages[-1].sequence
                                if position > last:
                                    messages = [each for each in messages if each.sequence <= last]
                                if messages:
                                    yield messages
                if not consumer.is_stalled:
                    return
                attempts = attempts + 1 if position == before else 0
                self._check_stalled(attempts)
        except ConsumerGone as gone:
            raise self._gone(gone) from gone

    async def _sequence_at(self, ms: int) -> int | None:
        """The sequence of the first message that was not stored before a time (Unix ms); None if
        there is none."""
        start = from_time(_rfc3339(ms))
        try:
            for attempts in range(ATTEMPTS + 1):
                self._check_stalled(attempts)
                async with open_consumer(
                    self._link, self._connection, self._stream, self._filter, start
                ) as consumer:
                    if not consumer.pending:
                        return None
                    async with aclosing(consumer.pull(1)) as parts:
                        async for messages in parts:
                            return messages[0].sequence
        except ConsumerGone as gone:
            raise self._gone(gone) from gone
        return None

    def _check_stalled(self, attempts: int) -> None:
        """A new consumer knows how many messages are pending, also if others were removed. Raises
        UpstreamError after so many of them in a row that got none of theirs."""
        if attempts >= ATTEMPTS:
            raise UpstreamError(
                f"NATS {self._connection.server}: messages of the stream {self._stream!r} are"
                f" pending and do not come, after {ATTEMPTS} attempts"
            )

    def _gone(self, error: ConsumerGone) -> UpstreamError:
        return UpstreamError(
            f"NATS {self._connection.server}: the stream {self._stream!r} cannot be read: {error}"
        )


def _bytes(messages: Sequence[StreamMessage]) -> int:
    return sum(len(each.payload) for each in messages)


def _ms(moment: datetime) -> int:
    return (moment - EPOCH) // MILLISECOND


_LATEST = datetime(9000, 1, 1, tzinfo=UTC)


def _rfc3339(ms: int) -> str:
    moment = min(EPOCH + max(0, ms) * MILLISECOND, _LATEST)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
