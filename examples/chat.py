"""Publish and stream: every viewer of a topic sees what any of them publishes to it."""

from collections import defaultdict
from typing import Annotated

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from msgspec import Struct

from aiostream_ds import DataSource, Meta, Row, Rows, serve, stream


class Message(Struct):
    """The data to publish: `{"name": "Ann", "text": "Hello"}`."""

    name: Annotated[str, Meta(min_length=1, max_length=40)]
    text: Annotated[str, Meta(min_length=1, max_length=1_000)]


class Line(Row):
    name: str
    text: str


class Chat(DataSource):
    def __init__(self) -> None:
        self.runs: defaultdict[str, set[MemoryObjectSendStream[Message]]] = defaultdict(set)

    @stream("topics/{topic}")
    async def topic(self, topic: str) -> Rows[Line]:
        send, receive = anyio.create_memory_object_stream[Message](100)
        self.runs[topic].add(send)
        try:
            with send, receive:
                async for message in receive:
                    yield Line(name=message.name, text=message.text)
        finally:
            self.runs[topic].discard(send)

    @topic.publish
    async def send(self, data: Message, topic: str) -> None:
        for run in self.runs[topic]:
            run.send_nowait(data)


if __name__ == "__main__":
    serve(Chat)
