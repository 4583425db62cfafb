"""The measured plugin: an author's class with the streams that the load client requests.

burst/<shape>/<n>[/all|/<id>]  n frames of rows x fields as fast as possible, then the end
tick/<hz>[/<i>]   one row every 1/hz s: time, and the ns at which it was made
rows/<n>          single rows as fast as possible: time, n = 0, 1, 2 …
mixed/<n>         single rows of eight columns: time, n, and six of several types, two nullable
messages/<n>      the same rows, from JSON messages that are parsed to dicts
columns/<n>       the same n rows as numpy columns, 5,000 in a frame
fan/<hz>/<rows>   one channel of frames of rows x 5 fields
wait/<id>         one row, then nothing until cancelled
publish active    the number of running ticks
publish done/<id> when a burst or wait with that id ended, Unix ns (0: not yet)
query {"rows": N} a frame of N rows: time, float64, string
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
import numpy as np
import orjson

from aiostream_ds import (
    Buffer,
    Columns,
    DataSource,
    Field,
    FieldType,
    Frame,
    NotFound,
    Query,
    Row,
    Rows,
    query,
    serve,
    stream,
)

SIZE = 1 << 16
TABLE = np.random.default_rng(1).random(SIZE + (1 << 15)) * 100
SINGLE = TABLE.tolist()
NAMES = [f"host-{i}" for i in range(1024)]
START_MS = 1_700_000_000_000
COLUMN_ROWS = 5000
LOSSLESS = Buffer(full="block")  # a slow subscriber blocks the author: no row may be lost
EPOCH = datetime.fromtimestamp(START_MS / 1000, UTC)
MIXED = [  # what follows time and n; as in go/peer/mixed.go
    (
        f"host-{k % 50}",
        SINGLE[k] if k % 7 else None,
        k % 2 == 0,
        None if k % 3 else f"note {k % 50}",
        k * 7 % 1000,
        SINGLE[k + 1],
    )
    for k in range(1050)
]
MESSAGES = [
    orjson.dumps(dict(zip(("host", "v1", "ok", "note", "size", "v2"), each, strict=True)))[1:]
    for each in MIXED
]


class Two(Row):
    time: datetime
    v1: float


class Five(Two):
    v2: float
    v3: float
    v4: float


class Tick(Row):
    time: datetime
    ns: int


class Count(Row):
    time: datetime
    n: int


class Mixed(Row):
    time: datetime
    n: int
    host: str
    v1: float | None
    ok: bool
    note: str | None
    size: int
    v2: float


class Size(Query):
    rows: int = 10


def one_row(k: int) -> Columns[Two]:
    return Two.from_columns(time=[START_MS + k], v1=[SINGLE[(k * 7) % SIZE + 1]])


def block(k: int, rows: int) -> Columns[Five]:
    """Built for each packet, as by a plugin that reads a block of samples."""
    at = (k * 7) % SIZE + 1
    return Five.from_columns(
        time=np.arange(START_MS + k, START_MS + k + rows),
        v1=TABLE[at : at + rows],
        v2=TABLE[at + 1 : at + 1 + rows],
        v3=TABLE[at + 2 : at + 2 + rows],
        v4=TABLE[at + 3 : at + 3 + rows],
    )


def maker(shape: str) -> Callable[[int], Columns[Any]]:
    """The function that makes the k-th packet of a burst."""
    rows, _, fields = shape.partition("x")
    made = {("1", "2"): one_row}.get((rows, fields), partial(block, rows=int(rows)))
    if fields != "2" and fields != "5":
        raise NotFound(f"expected the shape 1x2 or <rows>x5, got {shape!r}")
    return made


def repeated(table: Any, rows: int) -> Any:
    """The first rows of the repeated table."""
    return table[:rows] if rows <= len(table) else np.resize(table, rows)


def hosts(rows: int) -> Any:
    """A name for each row; many names are a pyarrow array, which is not copied."""
    if rows <= len(NAMES):
        return NAMES[:rows]
    import pyarrow as pa  # only large queries need it

    return pa.array(NAMES).take(pa.array(repeated(np.arange(len(NAMES)), rows)))


class Peer(DataSource):
    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.ticking = 0

    @query("")
    async def table(self, q: Size) -> Frame:
        return Frame(
            Field("time", q.time_range.from_ms + np.arange(q.rows), FieldType.TIME, nullable=False),
            Field("value", repeated(TABLE[:SIZE], q.rows), nullable=False),
            Field("host", hosts(q.rows), nullable=False),
        )

    @stream("burst/{shape}/{n:int}", buffer=LOSSLESS)
    async def burst(self, shape: str, n: int) -> Rows:
        make = maker(shape)
        for k in range(n):
            yield make(k)

    @stream("burst/{shape}/{n:int}/{id}", buffer=LOSSLESS)
    async def burst_with_id(self, shape: str, n: int, id: str) -> Rows:
        make = maker(shape)
        try:
            for k in range(n):
                yield make(k)
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

    @stream("rows/{n:int}", buffer=LOSSLESS)
    async def rows(self, n: int) -> Rows[Count]:
        moment, step = EPOCH, timedelta(milliseconds=1)
        for k in range(n):
            yield Count(time=moment, n=k)
            moment += step

    @stream("mixed/{n:int}", buffer=LOSSLESS)
    async def mixed(self, n: int) -> Rows:
        moment, step = EPOCH, timedelta(milliseconds=1)
        for k in range(n):
            yield Mixed(moment, k, *MIXED[k % 1050])
            moment += step

    @stream("messages/{n:int}", buffer=LOSSLESS)
    async def messages(self, n: int) -> Rows:
        for k in range(n):
            message = b'{"time":%d,"n":%d,%b' % (START_MS + k, k, MESSAGES[k % 1050])
            yield orjson.loads(message)

    @stream("columns/{n:int}", buffer=LOSSLESS)
    async def columns(self, n: int) -> Rows:
        for k in range(0, n, COLUMN_ROWS):
            numbers = np.arange(k, min(n, k + COLUMN_ROWS))
            yield Frame(
                Field("time", START_MS + numbers, FieldType.TIME, nullable=False),
                Field("n", numbers, FieldType.INT64, nullable=False),
                name="columns",
            )

    @stream("fan/{hz}/{rows:int}")
    async def fan(self, hz: str, rows: int) -> Rows[Columns[Five]]:
        due, k = anyio.current_time(), 0
        while True:
            yield block(k, rows)
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
    async def count_ticks(self, data: dict[str, Any]) -> int:
        return self.ticking

    @stream("done/{id}")
    async def finished(self, id: str) -> Rows:
        yield {"ns": self.done.get(id, 0)}

    @finished.publish
    async def end_time(self, data: dict[str, Any], id: str) -> int:
        return self.done.pop(id, 0)


if __name__ == "__main__":
    serve(Peer)
