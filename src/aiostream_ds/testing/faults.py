"""An upstream system that fails by a script, and a data source that reads it.

    class Flapping(ScriptedSource):
        upstream = ScriptedUpstream(Rows(3), Disconnect(), Refuse(), Rows(2), HalfMessage(), Hang())

Each connection continues the script where the previous one ended. `ScriptedUpstream.log` has all
messages, delivered or not: a message that a viewer does not have was lost.
"""

import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import msgspec

from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows as Yields
from aiostream_ds.decorators import stream
from aiostream_ds.errors import UpstreamError
from aiostream_ds.models import Health
from aiostream_ds.rows import Cursor, HistoryRange, Row

__all__ = [
    "Disconnect",
    "ScriptedSource",
    "Burst",
    "InvalidMessage",
    "HalfMessage",
    "Hang",
    "Message",
    "Missed",
    "ScriptedUpstream",
    "Refuse",
    "Rows",
    "Step",
]


class Message(Row):
    """One message of the upstream system, numbered from 1."""

    time: int
    n: int


class Step(msgspec.Struct, frozen=True):
    """One step of a script."""


class Rows(Step, frozen=True):
    """Sends `count` messages, one every `every` seconds."""

    count: int = 1
    every: float = 0.0


class Burst(Step, frozen=True):
    """Sends `count` messages without a pause."""

    count: int = 10_000


class Missed(Step, frozen=True):
    """Adds `count` messages to the log without sending them."""

    count: int = 1


class Refuse(Step, frozen=True):
    """Refuses the next connection."""


class Disconnect(Step, frozen=True):
    """Closes the connection with an error."""


class HalfMessage(Step, frozen=True):
    """Sends the first half of a message, then closes the connection with an error."""


class InvalidMessage(Step, frozen=True):
    """Sends bytes that are not a message."""

    data: bytes = b'\xff{"n": nothing\n'


class Hang(Step, frozen=True):
    """Sends nothing for `seconds`, or for ever."""

    seconds: float | None = None


class ScriptedUpstream:
    """An upstream system with a script. After the last step it sends nothing more.

    `connects` counts the attempts to connect, `open` the open connections; `most_open` is the
    highest number of connections open at a time.
    """

    def __init__(self, *script: Step) -> None:
        self.log: list[Message] = []
        self.connects = self.open = self.most_open = 0
        self._script = deque(script)

    def play(self, *script: Step) -> None:
        """Add steps. A connection that has finished the script does not execute them."""
        self._script.extend(script)

    def after(self, n: int, limit: int) -> list[Message]:
        """At most `limit` messages of the log after the n-th."""
        return self.log[max(n, 0) :][:limit]

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Open a connection that yields lines of JSON.

        Raises ConnectionError, on connecting or while the lines are read.
        """
        self.connects += 1
        await anyio.lowlevel.checkpoint()
        if self._script and isinstance(self._script[0], Refuse):
            self._script.popleft()
            raise ConnectionRefusedError("connection refused")
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        lines = self._lines()
        try:
            yield lines
        finally:
            self.open -= 1
            await lines.aclose()

    async def _lines(self) -> AsyncGenerator[bytes]:
        while self._script:
            step = self._script.popleft()
            match step:
                case Rows(count, every):
                    for _ in range(count):
                        await anyio.sleep(every)
                        yield self._next()
                case Burst(count):
                    for _ in range(count):
                        yield self._next()
                case Missed(count):
                    for _ in range(count):
                        self._next()
                case HalfMessage():
                    line = self._next()
                    yield line[: len(line) // 2]
                    raise ConnectionResetError("connection reset")
                case InvalidMessage(data):
                    yield data
                case Hang(seconds):
                    await (anyio.sleep_forever() if seconds is None else anyio.sleep(seconds))
                case Disconnect():
                    raise ConnectionResetError("connection reset")
                case Refuse():
                    self._script.appendleft(step)
                    raise ConnectionResetError("connection reset")
        await anyio.sleep_forever()

    def _next(self) -> bytes:
        message = Message(time.time_ns() // 1_000_000, len(self.log) + 1)
        self.log.append(message)
        return msgspec.json.encode(message) + b"\n"


class ScriptedSource(DataSource):
    """Reads a `ScriptedUpstream`. Subclass it and set `upstream`.

    The stream `numbers` has a cursor and a history; `live` has neither.
    """

    upstream: ClassVar[ScriptedUpstream] = ScriptedUpstream()

    @stream("numbers", cursor="n")
    async def numbers(self, after: Cursor) -> Yields[Message]:
        """The messages; their number is the cursor."""
        async for message in self._messages():
            yield message

    @numbers.history
    async def past(self, history_range: HistoryRange) -> list[Message]:
        """The log."""
        if history_range.after is not None:
            upto = history_range.upto or len(self.upstream.log)
            return [
                m
                for m in self.upstream.after(history_range.after, history_range.limit)
                if m.n <= upto
            ]
        return self.upstream.log[-history_range.limit :]

    @stream("live")
    async def live(self) -> Yields[Message]:
        """The same messages without a history."""
        async for message in self._messages():
            yield message

    async def health(self) -> Health:
        """Check that a connection opens."""
        try:
            async with self.upstream.connect():
                return Health()
        except ConnectionError as error:
            raise UpstreamError(f"the upstream system failed: {error}") from error

    async def _messages(self) -> AsyncGenerator[Message, Any]:
        try:
            async with self.upstream.connect() as lines:
                async for line in lines:
                    yield msgspec.json.decode(line, type=Message)
        except ConnectionError as error:
            raise UpstreamError(f"the upstream system failed: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamError(f"expected a message, got invalid data: {error}") from error
