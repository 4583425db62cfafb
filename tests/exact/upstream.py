"""The upstream systems of real-time tests: logs that a process appends to, and plugins for them."""

import asyncio
import json
import sys
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from . import writer
from .packets import Cursor

HERTZ = 50
BEFORE = 6.0  # seconds of rows at the start of the logs
LAG = 1.0  # seconds by which the second server lags


class Plugin(NamedTuple):
    """The command, query and settings of a data source; the command `lagging` reads late."""

    command: Sequence[str | Path]
    lagging: Sequence[str | Path]
    query: dict[str, Any]
    nonce: str

    def settings(self, log: str, nonce: int = 0) -> dict[str, Any]:
        """Settings with the directory of this log; `nonce` makes them differ."""
        return {"directory": str(Path(log).parent), self.nonce: 1_000_000 + nonce}


_FILE = "from aiostream_ds import serve; from aiostream_ds.sources.file import File; serve(File)"
_LOG = Path(__file__).parents[1] / "conformance/plugins/log.py"

FILE = Plugin(
    [sys.executable, "-c", _FILE],
    [sys.executable, "-c", _FILE],
    {"queryType": "rows", "file": "log"},
    "maxLine",
)
LOG = Plugin(
    [sys.executable, _LOG],
    [sys.executable, _LOG, str(LAG)],
    {"queryType": "log", "name": "log"},
    "nonce",
)
PAIRS = LOG._replace(query={"queryType": "pairs", "name": "log"})


class LogFile:
    """The rows of a log file up to the last `read`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times: list[int] = []
        self.ends: list[int] = []
        self.pairs: list[str] = []  # the cursors of two columns on the wire
        self.numbers: list[int] = []

    def read(self) -> "LogFile":
        with self.path.open("rb") as file:
            end = file.seek(self.ends[-1] if self.ends else 0)
            for line in file:
                if line.endswith(b"\n"):
                    end += len(line)
                    row = json.loads(line)
                    self.times.append(row["time"])
                    self.ends.append(end)
                    self.pairs.append(f"{row['time']:016}-{row['seq']:016}")
                    self.numbers.append(row["n"])
        return self

    def expected(self, cutoff: int, cursor: Cursor) -> list[int]:
        return self.numbers[bisect_left(self.times, cutoff) : self.count(cursor)]

    def count(self, cursor: Cursor) -> int:
        """The number of rows up to a cursor: the end of a line, or a pair."""
        if isinstance(cursor, str):
            return bisect_right(self.pairs, cursor)
        return bisect_right(self.ends, cursor)


def logs_in(folder: Path) -> list[Path]:
    """Two logs with the same name in two directories."""
    return [folder / "one" / "log", folder / "two" / "log"]


@asynccontextmanager
async def upstream(
    folder: Path, hertz: float = HERTZ, before: float = BEFORE
) -> AsyncIterator[None]:
    """A process that appends to both logs, which begin with rows of the last `before` seconds."""
    paths = logs_in(folder)
    for path in paths:
        path.parent.mkdir(parents=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-S",
        writer.__file__,
        str(hertz),
        str(before),
        *map(str, paths),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.stdin.close()
        await process.wait()
