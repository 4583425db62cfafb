"""The measured plugin: an ordinary author's class that serves what the load client asks of a peer.

burst/<shape>/<n>[/all|/<id>]  n frames of rows x fields as fast as possible, then the end
tick/<hz>[/<i>]   one row each 1/hz s: time, and the ns at which it was made
rows/<n>          single rows as fast as possible: time, n = 0, 1, 2 …
fan/<hz>/<rows>   one channel of frames of rows x 5 fields
wait/<id>         one row, then silence until cancelled
publish active    how many ticks run
publish done/<id> when a burst or wait with that id ended, Unix ns (0: not yet)
query {"rows": N} a frame of N rows: time, float64, string
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import numpy as np

from aiostream_ds import (
    Buffer,
    DataSource,
    Field,
    FieldType,
    Frame,
    Query,
    Row,
    Rows,
    query,
    serve,
    stream,
)

SIZE = 1 << 16
TABLE = np.random.default_rng(1).random(SIZE + (1 << 15)) * 100
NAMES = [f"host-{i}" for i in range(1024)]
START_MS = 1_700_000_000_000
WHOLE = Buffer(full="block")  # every row counts here: a slow reader holds the author up
EPOCH = datetime.fromtimestamp(START_MS / 1000, UTC)


class Tick(Row):
    time: datetime
    ns: int


class Count(Row):
    time: datetime
    n: int


class Size(Query):
    rows: int = 10


def frame(k: int, rows: int, fields: int) -> Frame:
    """Built fresh each time, as a plugin that reads a block of samples would."""
    offset = (k * 7) & (SIZE - 1)
    if rows == 1:
        values: Any = [[float(TABLE[offset + j])] for j in range(1, fields)]
        times: Any = [START_MS + k]
    else:
        values = [TABLE[offset + j : offset + j + rows] for j in range(1, fields)]
        times = np.arange(START_MS + k, START_MS + k + rows)
    return Frame(
        Field("time", times, FieldType.TIME, nullable=False),
        *(
            Field(f"v{j}", column, FieldType.FLOAT64, nullable=False)
            for j, column in enumerate(values, 1)
        ),
        name="burst",
    )


class Peer(DataSource):
    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.done: dict[str, int] = {}
        self.ticking = 0

    @query("")
    async def table(self, q: Size) -> Frame:
        places = np.arange(q.rows)
        return Frame(
            Field("time", q.time_range.from_ms + places, FieldType.TIME, nullable=False),
            Field("value", TABLE[places & (SIZE - 1)], nullable=False),
            Field("host", [NAMES[i & 1023] for i in range(q.rows)], nullable=False),
        )

    @stream("burst/{shape}/{n:int}", buffer=WHOLE)
    async def burst(self, shape: str, n: int) -> Rows:
        rows, fields = map(int, shape.split("x"))
        for k in range(n):
            yield frame(k, rows, fields)

    @stream("burst/{shape}/{n:int}/{id}", buffer=WHOLE)
    async def marked_burst(self, shape: str, n: int, id: str) -> Rows:
        rows, fields = map(int, shape.split("x"))
        try:
            for k in range(n):
                yield frame(k, rows, fields)
        finally:
            self.done[id] = time.time_ns()

    @stream("tick/{hz}/{i}")
    async def tick(self, hz: str, i: str) -> Rows[Tick]:
        period = 1 / float(hz)
        due = time.monotonic()
        self.ticking += 1
        try:
            while True:
                now = time.time_ns()
                yield Tick(time=datetime.fromtimestamp(now / 1e9, UTC), ns=now)
                due += period
                await asyncio.sleep(due - time.monotonic())
        finally:
            self.ticking -= 1

    @stream("tick/{hz}")
    async def single_tick(self, hz: str) -> Rows[Tick]:
        async for row in self.tick(hz, ""):
            yield row

    @stream("rows/{n:int}", buffer=WHOLE)
    async def rows(self, n: int) -> Rows[Count]:
        moment, step = EPOCH, timedelta(milliseconds=1)
        for k in range(n):
            yield Count(time=moment + k * step, n=k)

    @stream("fan/{hz}/{rows:int}")
    async def fan(self, hz: str, rows: int) -> Rows:
        due, k = anyio.current_time(), 0
        while True:
            yield frame(k, rows, 5)
            k += 1
            due += 1 / float(hz)
            await anyio.sleep_until(due)

    @stream("wait/{id}")
    async def wait(self, id: str) -> Rows:
        try:
            yield {"time": datetime.now(UTC)}
            await anyio.sleep_forever()
        finally:
            self.done[id] = time.time_ns()

    @stream("active")
    async def active(self) -> Rows:
        yield {"ticking": self.ticking}

    @active.publish
    async def how_many(self, data: dict[str, Any]) -> int:
        return self.ticking

    @stream("done/{id}")
    async def finished(self, id: str) -> Rows:
        yield {"ns": self.done.get(id, 0)}

    @finished.publish
    async def when(self, data: dict[str, Any], id: str) -> int:
        return self.done.pop(id, 0)


if __name__ == "__main__":
    serve(Peer)
