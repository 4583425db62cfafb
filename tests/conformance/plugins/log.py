"""A log with cursors, for the schedules of exact streams under the Go host.

It reads files of NDJSON lines {"time": Unix ms, "seq": …, "n": …, "log": …}. The cursor of `log` is
the offset of a line's end; those of `pairs` are the columns `ms` and `seq`. The epoch is the first
line. The argument is a number of seconds by which it reads late.
"""

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import anyio

from aiostream_ds import (
    Cursor,
    DataSource,
    HistoryPage,
    HistoryRange,
    NotFound,
    Row,
    Rows,
    Settings,
    serve,
    stream,
)

READ = 0.05  # seconds between two reads of the file
LAG = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0


Pair = tuple[int, int]


class Files(Settings):
    directory: str = ""
    nonce: int = 0


class Line(Row):
    time: datetime
    n: int
    log: str
    offset: int
    ms: int
    seq: int

    @property
    def pair(self) -> Pair:
        return self.ms, self.seq


class Log(DataSource[Files]):
    @stream("log/{name}", cursor="offset")
    async def log(self, after: Cursor, name: str) -> Rows[Line | Cursor]:
        cursor = 0
        epoch = self.epoch(name)
        if after.epoch == epoch:
            cursor = after.value
        yield Cursor(epoch, cursor)
        while True:
            for line in self.lines(name, cursor):
                cursor = line.offset
                yield line
            await anyio.sleep(READ)

    @log.history
    async def past(self, history_range: HistoryRange, name: str) -> HistoryPage:
        epoch = self.epoch(name)
        found = list(self.lines(name, history_range.after or 0))
        if history_range.after is None:
            until_end = [line for line in found if line.time <= history_range.end]
            found = [line for line in until_end if line.time >= history_range.start]
            last = until_end[-1].offset if until_end else None
            return HistoryPage(found[-history_range.limit :], epoch=epoch, last=last)
        if history_range.upto is not None:
            found = [line for line in found if line.offset <= history_range.upto]
        return HistoryPage(found[: history_range.limit], epoch=epoch)

    @stream("pairs/{name}", cursor=("ms", "seq"))
    async def pairs(self, after: Cursor[Pair], name: str) -> Rows[Line | Cursor[Pair]]:
        epoch = self.epoch(name)
        last = after.value if after.epoch == epoch else (-1, -1)
        yield Cursor(epoch, last)
        offset = 0
        while True:
            for line in self.lines(name, offset):
                offset = line.offset
                if line.pair > last:
                    yield line
            await anyio.sleep(READ)

    @pairs.history
    async def past_pairs(self, history_range: HistoryRange[Pair], name: str) -> HistoryPage[Pair]:
        epoch = self.epoch(name)
        after, upto = history_range.after, history_range.upto
        found = list(self.lines(name, 0))
        if after is None:
            until_end = [line for line in found if line.time <= history_range.end]
            found = [line for line in until_end if line.time >= history_range.start]
            last = until_end[-1].pair if until_end else None
            return HistoryPage(found[-history_range.limit :], epoch=epoch, last=last)
        found = [
            line for line in found if after < line.pair and (upto is None or line.pair <= upto)
        ]
        return HistoryPage(found[: history_range.limit], epoch=epoch)

    @pairs.subscribe
    @log.subscribe
    async def exists(self, user: object, name: str) -> None:
        if not self.path(name).exists():
            raise NotFound(name)

    def path(self, name: str) -> Path:
        return Path(self.settings.directory) / name

    def epoch(self, name: str) -> str:
        with self.path(name).open("rb") as file:
            return file.readline().decode()

    def lines(self, name: str, offset: int) -> Iterator[Line]:
        """The complete lines after the offset that are old enough."""
        edge = (time.time() - LAG) * 1000
        with self.path(name).open("rb") as file:
            file.seek(offset)
            for text in file:
                if not text.endswith(b"\n"):
                    return
                offset += len(text)
                row = json.loads(text)
                if row["time"] > edge:
                    return
                moment = datetime.fromtimestamp(row["time"] / 1000, UTC)
                yield Line(moment, row["n"], row["log"], offset, row["time"], row.get("seq", 0))


if __name__ == "__main__":
    serve(Log)
