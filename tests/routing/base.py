"""A class with every decorator, for the tests of the plan and of its compiler."""

from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta

from aiostream_ds import (
    Buffer,
    DataSource,
    Frame,
    HistoryRange,
    Query,
    Request,
    Retry,
    Row,
    Rows,
    User,
    query,
    resource,
    stream,
)


class Reading(Row):
    value: float


class Pick(Query):
    name: str = ""


class Base(DataSource):
    @stream("a/{id}", linger=1, buffer=Buffer(rows=7), retry=Retry(max_delay=3))
    async def a(self, id: str) -> Rows[Reading]:
        yield Reading(1)

    @stream("b/{n:int}")
    async def b(self, n: Annotated[int, Meta(ge=1)] = 5) -> Rows:
        yield {}

    @a.subscribe
    async def may(self, user: User | None, id: str) -> None: ...

    @a.history
    async def past(self, history_range: HistoryRange, id: str) -> list[Reading]:
        return []

    @b.publish
    async def push(self, data: int, n: int) -> None: ...

    @query
    async def pick(self, q: Pick) -> Frame:
        return Frame()

    @resource("r/{id}")
    async def show(self, id: str) -> None: ...

    @resource("r/{id}", method="POST")
    async def store(self, id: str, request: Request) -> AsyncIterator[bytes]:
        yield b""
