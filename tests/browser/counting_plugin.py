"""A plugin whose rows are only in memory: each process counts from 1, with its id in `log`."""

import asyncio
import os
import time
from math import sin

from aiostream_ds import DataSource, Replay, Row, Rows, Settings, serve, stream


class Count(Row):
    log: str
    n: int
    level: float


class Nonce(Settings):
    nonce: int = 0
    """Changes nothing: makes the settings differ."""


class Counting(DataSource[Nonce]):
    starts = 0

    @stream("declared")
    async def declared(self) -> Rows[Count]:
        log = self._name()
        for n in range(1, 1 << 30):
            yield Count(log, n, _level())
            await asyncio.sleep(0.05)

    @stream("inferred")
    async def inferred(self) -> Rows:
        log = self._name()
        await asyncio.sleep(1)  # no columns are known until then
        for n in range(1, 1 << 30):
            yield {"log": log, "n": n, "level": _level()}
            await asyncio.sleep(0.05)

    @stream("ticks/{name}/{ms}", replay=Replay(rows=100_000))
    async def ticks(self, name: str, ms: int) -> Rows[Count]:
        """A row after each so many milliseconds; none after 350 if the name is "quiet"."""
        log = self._name()
        for n in range(1, 351 if name == "quiet" else 1 << 30):
            yield Count(log, n, _level())
            await asyncio.sleep(ms / 1000)
        await asyncio.Event().wait()

    def _name(self) -> str:
        Counting.starts += 1
        return f"{os.getpid()}.{Counting.starts}"


def _level() -> float:
    now = time.time()
    return sin(now) + sin(2.7 * now) / 3


if __name__ == "__main__":
    serve(Counting)
