"""Measures the source `push`: rows per second into channels with a viewer each, and the time from a
POST to the packet of its rows.

    python -m benchmarks.push [--rate 50000] [--batch 1000] [--channels 10] [--seconds 20]
    python -m benchmarks.push --rate 1000 --batch 10
    python -m benchmarks.push --rows 10000000 --keep 100000      # memory with retention

The built-in plugin runs in a process of its own, with its rows in a directory; this process is the
clients and the viewers. `processor` is the plugin's processor time for a million rows, which other
load on the machine changes less than the times.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds.testing.grafana import Grafana
from aiostream_ds.testing.process import start_process

SERVE = "from aiostream_ds.sources.builtin_plugin import main; main()"


class Cursor(msgspec.Struct):
    prev: int
    last: int


class Packet(msgspec.Struct):
    """A packet of an exact channel; what else it has is skipped."""

    cursor: Cursor | None = None


_decode = msgspec.json.Decoder(Packet).decode


class Channel:
    """One client, which pushes batch after batch, and one viewer."""

    def __init__(self, grafana: Grafana, number: int, options: argparse.Namespace) -> None:
        self._grafana, self._number, self._batch = grafana, number, options.batch
        self._sent: deque[tuple[int, float]] = deque()  # the last cursor and the time of the POST
        self.pushed = self.last = 0
        self.gaps = self.doubled = 0
        self.acknowledged: list[float] = []
        self.seen: list[float] = []

    def push(self, data: bytes) -> None:
        """A packet for the viewer."""
        cursor = _decode(data).cursor
        if cursor is None or cursor.last <= cursor.prev:
            return
        self.gaps += cursor.prev > self.last
        self.doubled += cursor.prev < self.last
        self.last = cursor.last
        now = time.perf_counter()
        while self._sent and self._sent[0][0] <= cursor.last:
            self.seen.append(now - self._sent.popleft()[1])

    async def run(self, rate: float, until: float, rows: int) -> None:
        start = time.perf_counter()
        while time.perf_counter() < until and self.pushed < rows:
            due = start + self.pushed / rate
            if (delay := due - time.perf_counter()) > 0:
                await asyncio.sleep(delay)
            body = self._body()
            self.pushed += self._batch
            began = time.perf_counter()
            self._sent.append((self.pushed, began))
            answer = await self._grafana.resource(
                f"push/bench/{self._number}", method="POST", body=body
            )
            assert answer.status == 200, answer.body
            self.acknowledged.append(time.perf_counter() - began)

    def _body(self) -> bytes:
        now = time.time_ns() // 1_000_000
        rows = [
            {"time": now, "n": n, "celsius": 20 + n % 7 / 10, "place": "attic", "on": n % 2 == 0}
            for n in range(self.pushed, self.pushed + self._batch)
        ]
        return msgspec.json.encode(rows)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def quantiles(values: list[float]) -> str:
    if len(values) < 100:
        return "too few"
    cuts = statistics.quantiles(values, n=100)
    return f"p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms"


async def watch(pid: int, found: list[float]) -> None:
    while True:
        found.append(memory(pid))
        await asyncio.sleep(0.5)


async def main(options: argparse.Namespace) -> None:
    command = (sys.executable, "-c", SERVE)
    environ = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    with tempfile.TemporaryDirectory() as directory:
        settings: dict[str, Any] = {"source": "push", "rowsPerSecond": 0, "bytesPerSecond": 0}
        if not options.memory:
            settings["directory"] = directory
        if options.keep:
            settings["keepRows"] = options.keep
        async with (
            start_process(command, environ=environ) as process,
            process.grafana(settings) as grafana,
        ):
            channels = [Channel(grafana, number, options) for number in range(options.channels)]
            for number, channel in enumerate(channels):
                await grafana.attach(f"x/rows/bench/{number}", channel)
            sizes: list[float] = []
            watching = asyncio.create_task(watch(process.pid, sizes))
            before, start = processor_seconds(process.pid), time.perf_counter()
            until = start + (options.seconds if not options.rows else 1e9)
            rows = (options.rows or 1 << 60) // options.channels
            rate = options.rate / options.channels
            await asyncio.gather(*(channel.run(rate, until, rows) for channel in channels))
            seconds = time.perf_counter() - start
            for _ in range(500):
                if all(channel.last >= channel.pushed for channel in channels):
                    break
                await asyncio.sleep(0.01)
            total = sum(channel.pushed for channel in channels)
            used = processor_seconds(process.pid) - before
            watching.cancel()
    missing = sum(channel.pushed - channel.last for channel in channels)
    print(f"rows       {total:,} in {seconds:.1f} s: {total / seconds:,.0f} a second")
    print(f"viewers    {missing:,} missing, {sum(c.gaps for c in channels)} gaps,"
          f" {sum(c.doubled for c in channels)} doubled")  # fmt: skip
    print(
        f"processor  {used / total * 1e6:.2f} s for a million rows; {used / seconds:.0%} of a core"
    )
    print(f"to answer  {quantiles([t for c in channels for t in c.acknowledged])}")
    print(f"to packet  {quantiles([t for c in channels for t in c.seen])}")
    tenths = [sizes[i * len(sizes) // 10] for i in range(10)] if len(sizes) >= 10 else sizes
    print(
        f"memory     {', '.join(f'{size:.0f}' for size in [*tenths, sizes[-1]])} MiB over the run"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=50_000)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--channels", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rows", type=int, default=0, help="instead of --seconds")
    parser.add_argument("--keep", type=int, default=0, help="keepRows of the settings")
    parser.add_argument("--memory", action="store_true", help="rows in memory")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
