"""Publish and stream: what a user sends into a room, everybody in the room sees."""

from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from msgspec import Meta, Struct

from aiostream_ds import DataSource, Row, Rows, serve, stream


class Said(Struct):
    """What may be published: `{"name": "Ann", "text": "Hello"}`."""

    name: Annotated[str, Meta(min_length=1, max_length=40)]
    text: Annotated[str, Meta(min_length=1, max_length=1_000)]


class Line(Row):
    name: str
    text: str


class Chat(DataSource):
    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        self.rooms: defaultdict[str, set[MemoryObjectSendStream[Said]]] = defaultdict(set)
        yield

    @stream("rooms/{room}")
    async def room(self, room: str) -> Rows[Line]:
        send, receive = anyio.create_memory_object_stream[Said](100)
        self.rooms[room].add(send)
        try:
            with send, receive:
                async for said in receive:
                    yield Line(name=said.name, text=said.text)
        finally:
            self.rooms[room].discard(send)

    @room.publish
    async def say(self, data: Said, room: str) -> None:
        for listener in self.rooms[room]:
            listener.send_nowait(data)


if __name__ == "__main__":
    serve(Chat)
