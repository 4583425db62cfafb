"""Measures what sharing over Redis costs compared with a stream on each server.

    python -m benchmarks.cluster_cost [--rate 1000] [--seconds 10] [--channels 10] [--rounds 3]

Two plugin processes with a viewer of each channel; this process is both Grafanas. Local and shared
runs take turns on the same machine. `processor` is that of each plugin in microseconds a row that
its viewers got; a shared stream runs on one of the two. `age` is the time from a row's `yield` to
its packet. Redis is started for the run.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from benchmarks.push import processor_seconds
from tests.servers import Redis

from aiostream_ds import DataSource, Settings, serve, stream
from aiostream_ds.testing.process import start_process

NODES = 2


class Options(Settings):
    rate: int = 1_000


class Ticks(DataSource[Options]):
    @stream("ticks/{channel}", share="cluster")
    async def ticks(self, channel: int) -> Any:
        loop, number = asyncio.get_running_loop(), 0
        start = loop.time()
        while True:
            number += 1
            await asyncio.sleep(max(start + number / self.settings.rate - loop.time(), 0))
            yield {"n": number, "at": time.perf_counter(), "celsius": 20 + number % 7 / 10}


class _Data(msgspec.Struct):
    values: list[list[Any]]


class _Packet(msgspec.Struct):
    data: _Data | None = None


_decode = msgspec.json.Decoder(_Packet).decode


class Viewer:
    """Counts rows and packets."""

    def __init__(self) -> None:
        self.rows = self.packets = 0
        self.ages: list[float] = []

    def push(self, data: bytes) -> None:
        """A packet."""
        packet = _decode(data)
        if packet.data is None or not packet.data.values or not packet.data.values[0]:
            return
        now = time.perf_counter()
        sent = next(column for column in packet.data.values if isinstance(column[0], float))
        self.packets += 1
        self.rows += len(sent)
        self.ages += [now - at for at in sent]


async def measure(options: argparse.Namespace, url: str) -> list[tuple[float, float]]:
    """Prints a run; returns rows and microseconds a row of each node."""
    command = (sys.executable, "-m", "benchmarks.cluster_cost", "--serve")
    environ = {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    if url:
        environ["GF_PLUGIN_CLUSTER_URL"] = url
    async with AsyncExitStack() as stack:
        pids, viewers = [], []
        for _ in range(NODES):
            process = await stack.enter_async_context(start_process(command, environ=environ))
            grafana = await stack.enter_async_context(process.grafana({"rate": options.rate}))
            pids.append(process.pid)
            viewers.append([Viewer() for _ in range(options.channels)])
            for number, viewer in enumerate(viewers[-1]):
                await grafana.attach(f"ticks/{number}", viewer)
        await asyncio.sleep(3)
        for viewer in (each for node in viewers for each in node):
            viewer.rows = viewer.packets = 0
            viewer.ages.clear()
        before = [processor_seconds(pid) for pid in pids]
        start = time.perf_counter()
        await asyncio.sleep(options.seconds)
        seconds = time.perf_counter() - start
        used = [processor_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]
    found = []
    for node, cost in zip(viewers, used, strict=True):
        rows, packets = sum(v.rows for v in node), sum(v.packets for v in node)
        ages = statistics.quantiles([age for v in node for age in v.ages], n=100)
        found.append((rows / seconds, cost / rows * 1e6))
        print(
            f"  {'shared' if url else 'local '} {rows / seconds:9,.0f} rows/s"
            f" {packets / seconds:8,.0f} packets/s, age p50 {ages[49] * 1000:6.1f}"
            f" p99 {ages[98] * 1000:7.1f} ms, processor {cost / rows * 1e6:6.1f} µs a row"
        )
    return found


async def main(options: argparse.Namespace) -> None:
    ratios = []
    with Redis() as server:
        for _ in range(options.rounds):
            print(f"load {os.getloadavg()[0]:.1f}")
            local = sum(cost for _, cost in await measure(options, ""))
            shared = sum(cost for _, cost in await measure(options, server.url))
            ratios.append(shared / local)
    print(f"processor of both, shared to local: {', '.join(f'{each:.2f}' for each in ratios)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=1_000, help="rows a second of a channel")
    parser.add_argument("--channels", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help="be a plugin of the run")
    return parser.parse_args()


if __name__ == "__main__":
    chosen = arguments()
    if chosen.serve:
        serve(Ticks)
    else:
        asyncio.run(main(chosen))
