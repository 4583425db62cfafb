"""Streams that are faster than their subscriber, one for each policy."""

import os

import anyio

from aiostream_ds import Buffer, DataSource, Rows, resource, serve, stream

LINE = "x" * 4_000


class Pressure(DataSource):
    def __init__(self) -> None:
        self.yielded = 0

    async def _burst(self, megabytes: int) -> Rows:
        self.yielded = 0
        rows = megabytes * 1_000_000 // len(LINE)
        for n in range(rows):
            self.yielded += 1
            yield {"time": 1_700_000_000_000 + n, "n": n, "text": LINE}
        await anyio.sleep_forever()

    @stream("drop_oldest/{mb:int}")
    async def drop_oldest(self, mb: int) -> Rows:
        async for row in self._burst(mb):
            yield row

    @stream("latest/{mb:int}", buffer=Buffer(full="latest"))
    async def latest(self, mb: int) -> Rows:
        async for row in self._burst(mb):
            yield row

    @stream("block/{mb:int}", buffer=Buffer(full="block"))
    async def block(self, mb: int) -> Rows:
        async for row in self._burst(mb):
            yield row

    @stream("fail/{mb:int}", buffer=Buffer(full="fail"))
    async def fail(self, mb: int) -> Rows:
        async for row in self._burst(mb):
            yield row

    @resource("counts")
    async def counts(self) -> dict[str, int]:
        return {"yielded": self.yielded, "pid": os.getpid()}


if __name__ == "__main__":
    serve(Pressure)
