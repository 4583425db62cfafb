"""The store of rows: rows per second, the time from an append to its commit, memory, file size.

    python -m benchmarks.store [--seconds 5] [--million-rows 3]

Prints tables as in docs/performance.md.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aiostream_ds import Cursor
from aiostream_ds.stores import Retention, SqliteStore

CHANNELS = 10


class Load(NamedTuple):
    """What is appended: batches of rows to each of ten channels, at a rate in all or as fast as
    possible (0)."""

    sync: Literal["normal", "full"]
    batch: int
    rate: int
    followed: bool


LOADS = (
    Load("normal", 1_000, 50_000, True),
    Load("full", 1_000, 50_000, True),
    Load("normal", 1_000, 0, True),
    Load("normal", 1_000, 0, False),
    Load("normal", 1, 1_000, True),
    Load("full", 1, 1_000, True),
)


def batch_of(count: int) -> list[dict[str, Any]]:
    """Rows of a time, three numbers and a text."""
    now = time.time_ns() // 1_000_000
    return [
        {
            "time": now + n,
            "value": random.random() * 100,
            "celsius": 21.5 + n % 7,
            "host": f"srv-{n % 4}",
            "n": n,
        }
        for n in range(count)
    ]


def resident_mb() -> int:
    """The memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 // 1_000_000


def size_mb(directory: str) -> float:
    """The size of all files of a store in MB."""
    return sum(path.stat().st_size for path in Path(directory).iterdir()) / 1e6


@asynccontextmanager
async def followers(store: SqliteStore, load: Load) -> AsyncIterator[list[int]]:
    """Followers of all channels; the number of rows that they have got."""
    got = [0]

    async def follow(channel: str) -> None:
        async with aclosing(store.follow(channel, Cursor("", 0))) as items:
            async for item in items:
                if not isinstance(item, Cursor):
                    got[0] += len(item)

    channels = range(CHANNELS if load.followed else 0)
    tasks = [asyncio.create_task(follow(f"c{number}")) for number in channels]
    try:
        yield got
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure(load: Load, seconds: float) -> str:
    """One row of the table."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def push(store: SqliteStore, channel: int) -> None:
        number = 0
        pause = load.batch * CHANNELS / load.rate if load.rate else 0.0
        due = time.perf_counter()
        while time.perf_counter() < end:
            rows = batch_of(load.batch)
            start = time.perf_counter()
            await store.append(f"c{channel}", rows, key=f"{channel}-{number}")
            times.append(time.perf_counter() - start)
            number += 1
            due += pause
            await asyncio.sleep(max(0.0, due - time.perf_counter()) if pause else 0)

    with tempfile.TemporaryDirectory() as directory:
        async with SqliteStore(directory, sync=load.sync) as store, followers(store, load) as got:
            begin, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(push(store, channel) for channel in range(CHANNELS)))
            elapsed, used = time.perf_counter() - begin, time.process_time() - cpu
    times.sort()
    rows = len(times) * load.batch
    p50, p99 = (1000 * times[int(len(times) * part)] for part in (0.5, 0.99))
    wanted = f"{load.rate:,}/s" if load.rate else "all it can"
    followed = f"{got[0] / rows:.0%}" if load.followed else "–"
    return (
        f"| {load.batch:,} | {wanted} | {load.sync} | {followed} | {rows / elapsed:,.0f}"
        f" | {used / elapsed:.0%} | {p50:.1f} ms | {p99:.1f} ms |"
    )


async def fill(rows: int) -> list[str]:
    """The memory and the file while many rows pass a store that keeps a tenth of them."""
    lines = []
    with tempfile.TemporaryDirectory() as directory:
        retention = Retention(rows=rows // 10 // CHANNELS)
        async with SqliteStore(directory, retention=retention) as store:
            for part in range(1, 11):
                for _ in range(rows // 10 // CHANNELS // 1_000):
                    batch = batch_of(1_000)
                    await asyncio.gather(*(store.append(f"c{n}", batch) for n in range(CHANNELS)))
                start = time.perf_counter()
                page = await store.rows_between("c0", 0, 1 << 62, 20_000)
                read = 1000 * (time.perf_counter() - start)
                lines.append(
                    f"| {rows * part // 10:,} | {resident_mb()} MB | {size_mb(directory):.1f} MB"
                    f" | {len(page.rows):,} in {read:.0f} ms |"
                )
    return lines


def show(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(seconds: float, million_rows: float) -> None:
    """Print all tables."""
    show("| rows in an append | rate | sync | got by followers | rows/s | CPU | p50 | p99 |")
    show("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for load in LOADS:
        show(await measure(load, seconds))
    show("\n| rows stored, a tenth is kept | memory | files | newest rows of a channel |")
    show("| --- | --- | --- | --- |")
    show("\n".join(await fill(int(million_rows * 1_000_000))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--million-rows", type=float, default=3)
    chosen = parser.parse_args()
    asyncio.run(main(chosen.seconds, chosen.million_rows))
