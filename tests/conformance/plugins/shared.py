"""A shared stream of numbered rows from `tests/cluster/numbered_upstream.py`."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from cluster_report import cluster_report

from aiostream_ds import (
    Cursor,
    DataSource,
    HistoryPage,
    HistoryRange,
    Row,
    Rows,
    Settings,
    UpstreamError,
    resource,
    serve,
    stream,
)

SHARE: Any = os.environ.get("TEST_SHARE", "cluster")


class Upstream(Settings):
    port: int = 0
    nonce: int = 0


class Line(Row):
    time: datetime
    n: int


class Message(Row):
    text: str


def line(n: int, time: int) -> Line:
    return Line(datetime.fromtimestamp(time / 1000, UTC), n)


class Shared(DataSource[Upstream]):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.changed = asyncio.Event()

    @stream("chat", share=SHARE)
    async def chat(self) -> Rows[Message]:
        read = len(self.messages)
        while True:
            if read == len(self.messages):
                await self.changed.wait()
            unread, read = self.messages[read:], len(self.messages)
            for text in unread:
                yield Message(text)

    @chat.publish
    async def say(self, data: str) -> None:
        self.messages.append(data)
        self.changed.set()
        self.changed = asyncio.Event()

    @stream("numbers/{name}", cursor="n", share=SHARE)
    async def numbers(self, after: Cursor, name: str) -> Rows[Line]:
        async with self.connection(follow=name, after=after.value) as reader:
            async for text in reader:
                yield line(*json.loads(text))
        raise UpstreamError("the upstream has closed the connection")

    @numbers.history
    async def past(self, history_range: HistoryRange, name: str) -> HistoryPage:
        question = {
            "limit": history_range.limit,
            "after": history_range.after,
            "upto": history_range.upto,
            "start": round(history_range.start.timestamp() * 1000),
            "end": round(history_range.end.timestamp() * 1000),
        }
        async with self.connection(read=name, **question) as reader:
            answer = json.loads(await reader.readline())
        return HistoryPage([line(*row) for row in answer["rows"]], last=answer["last"])

    @stream("plain/{name}", share=SHARE)
    async def plain(self, name: str) -> Rows[Line]:
        async with self.connection(follow=f"plain-{name}", after=None) as reader:
            async for text in reader:
                yield line(*json.loads(text))
        raise UpstreamError("the upstream has closed the connection")

    @resource("cluster")
    async def cluster(self) -> dict[str, Any]:
        return cluster_report()

    @asynccontextmanager
    async def connection(self, **question: Any) -> AsyncIterator[asyncio.StreamReader]:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.settings.port)
        except OSError as error:
            raise UpstreamError(f"the upstream cannot be reached: {error}") from error
        try:
            writer.write(json.dumps({**question, "pid": os.getpid()}).encode() + b"\n")
            yield reader
        finally:
            writer.close()


if __name__ == "__main__":
    serve(Shared)
