"""An upstream system of many channels, whose rows are numbered by time: row n of each has the time
`start` + n / `hertz`. It counts who reads them."""

import asyncio
import json
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["NumberedUpstream", "open_upstream"]

_TICK = 0.05  # seconds between two looks at the clock


class NumberedUpstream:
    """A TCP server on loopback. A client asks one question in JSON, and gets rows as [n, Unix ms].

    Attributes:
        runs: how often each channel was followed.
        running: by how many connections each channel is followed now.
        readers: the processes of these, if they name themselves.
    """

    def __init__(self, hertz: float, before: float) -> None:
        self.hertz = hertz
        self.start = time.time() * 1000 - before * 1000
        self.runs: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.readers: dict[str, list[int]] = {}
        self.port = 0
        self._end: int | None = None

    def end(self) -> None:
        """No further row is written."""
        self._end = self.last

    @property
    def last(self) -> int:
        """The number of the newest row."""
        if self._end is not None:
            return self._end
        return int((time.time() * 1000 - self.start) * self.hertz / 1000)

    def time_of(self, n: int) -> int:
        return round(self.start + n * 1000 / self.hertz)

    def rows(self, start: int, last: int) -> list[int]:
        """The numbers of the rows since a time, up to a number."""
        first = bisect_left(range(last + 1), start, key=self.time_of)
        return list(range(max(first, 1), last + 1))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = json.loads(await reader.readline())
            if "read" in question:
                writer.write(json.dumps(self._read(question)).encode() + b"\n")
                await writer.drain()
            else:
                await self._follow(question, reader, writer)
        except (OSError, ValueError):
            pass  # the client was killed
        finally:
            writer.close()

    async def _follow(
        self, question: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        name, after = question["follow"], question["after"]
        position = self.last if after is None else max(after, 0)
        self.runs[name] += 1
        self.running[name] += 1
        readers, pid = self.readers.setdefault(name, []), question.get("pid", 0)
        readers.append(pid)
        gone = asyncio.create_task(reader.read())
        try:
            while not gone.done():
                last = self.last
                lines = [[n, self.time_of(n)] for n in range(position + 1, last + 1)]
                if lines:
                    writer.write(b"".join(json.dumps(each).encode() + b"\n" for each in lines))
                    await writer.drain()
                position = max(position, last)
                await asyncio.wait([gone], timeout=_TICK)
        finally:
            gone.cancel()
            self.running[name] -= 1
            readers.remove(pid)

    def _read(self, question: dict[str, Any]) -> dict[str, Any]:
        last = self.last if question["upto"] is None else min(self.last, question["upto"])
        if question["after"] is not None:
            first = max(question["after"], 0) + 1
            numbers = list(range(first, last + 1))[: question["limit"]]
            newest = numbers[-1] if numbers else None
        else:
            numbers = self.rows(question["start"], last)
            numbers = [n for n in numbers if self.time_of(n) <= question["end"]]
            newest = numbers[-1] if numbers else None
            numbers = numbers[-question["limit"] :]
        return {"rows": [[n, self.time_of(n)] for n in numbers], "last": newest}


@asynccontextmanager
async def open_upstream(hertz: float, before: float = 5.0) -> AsyncIterator[NumberedUpstream]:
    """The server, until the block ends."""
    found = NumberedUpstream(hertz, before)
    # all channels of a killed server are opened again at once
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, backlog=4096)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
