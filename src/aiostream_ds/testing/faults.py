"""An outside system that fails by a script, and a data source that reads it.

    class Flapping(Fault):
        outside = Outside(Rows(3), Disconnect(), Refuse(), Rows(2), Half(), Rows(1), Hang())

Each connection carries out the script from where the last one ended. What the outside system has
ever had to say is in `Outside.log`, whoever listened: what a viewer lacks of it was lost.
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
    "Fault",
    "Flood",
    "Garbage",
    "Half",
    "Hang",
    "Message",
    "Missed",
    "Outside",
    "Refuse",
    "Rows",
    "Step",
]


class Message(Row):
    """One message of the outside system: the n-th, from 1 on."""

    time: int
    n: int


class Step(msgspec.Struct, frozen=True):
    """What the outside system does next."""


class Rows(Step, frozen=True):
    """So many messages, `every` seconds one."""

    count: int = 1
    every: float = 0.0


class Flood(Step, frozen=True):
    """So many messages without a wait between them."""

    count: int = 10_000


class Missed(Step, frozen=True):
    """So many messages that are sent to nobody: they are in the log alone."""

    count: int = 1


class Refuse(Step, frozen=True):
    """The next attempt to connect is refused."""


class Disconnect(Step, frozen=True):
    """The connection is lost."""


class Half(Step, frozen=True):
    """Half a message, and the connection is lost."""


class Garbage(Step, frozen=True):
    """A message that is none."""

    data: bytes = b'\xff{"n": nothing\n'


class Hang(Step, frozen=True):
    """Nothing for so long; without seconds, for ever."""

    seconds: float | None = None


class Outside:
    """An outside system with a script. After its last step it stays silent.

    `connects` counts attempts, `open` the connections that are open, `most_open` how many were at a
    time.
    """

    def __init__(self, *script: Step) -> None:
        self.log: list[Message] = []
        self.connects = self.open = self.most_open = 0
        self._script = deque(script)

    def play(self, *script: Step) -> None:
        """Add steps; a connection that is silent already does not notice."""
        self._script.extend(script)

    def after(self, n: int, limit: int) -> list[Message]:
        """The log behind the n-th message."""
        return self.log[max(n, 0) :][:limit]

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[AsyncIterator[bytes]]:
        """A connection: lines of JSON. Raises ConnectionError, now or while it is read."""
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
                case Flood(count):
                    for _ in range(count):
                        yield self._next()
                case Missed(count):
                    for _ in range(count):
                        self._next()
                case Half():
                    line = self._next()
                    yield line[: len(line) // 2]
                    raise ConnectionResetError("connection reset")
                case Garbage(data):
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


class Fault(DataSource):
    """Follows an `Outside`, as a careful author would. Subclass it and set `outside`.

    `numbers` can be read again, by the outside system's log; `live` cannot.
    """

    outside: ClassVar[Outside] = Outside()

    @stream("numbers", cursor="n")
    async def numbers(self, after: Cursor | None) -> Yields[Message]:
        """The messages, by their number."""
        async for message in self._messages():
            yield message

    @numbers.history
    async def past(self, span: HistoryRange) -> list[Message]:
        """The log."""
        if span.after is not None:
            upto = span.upto or len(self.outside.log)
            return [m for m in self.outside.after(span.after, span.limit) if m.n <= upto]
        return self.outside.log[-span.limit :]

    @stream("live")
    async def live(self) -> Yields[Message]:
        """The same messages, without a log."""
        async for message in self._messages():
            yield message

    async def health(self) -> Health:
        """Whether a connection opens."""
        try:
            async with self.outside.connect():
                return Health()
        except ConnectionError as error:
            raise UpstreamError(f"the outside system: {error}") from error

    async def _messages(self) -> AsyncGenerator[Message, Any]:
        try:
            async with self.outside.connect() as lines:
                async for line in lines:
                    yield msgspec.json.decode(line, type=Message)
        except ConnectionError as error:
            raise UpstreamError(f"the outside system: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamError(f"the outside system sent what is no message: {error}") from error
