"""Measures what sharing over Redis costs compared with a stream on each server.

    python -m benchmarks.cluster_cost [--rate 1000] [--seconds 10] [--channels 10] [--rounds 3]

Two plugin processes with a viewer of each channel; this process is both Grafanas. Local and shared
runs take turns on the same machine. `processor` is that of each plugin in microseconds a row that
its viewers got; a shared stream runs on one of the two. `age` is the time from a row's `yield` to
its packet. Redis is started for the run.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from benchmarks.push import processor_seconds
from tests.servers import Redis

from aiostream_ds import DataSource, Settings, serve, stream
from aiostream_ds.testing.process import start_process

NODES = 2
AT_ONCE = 100  # subscriptions that are opened together
A_CONNECTION = 500  # subscriptions of a connection: the client looks at all of them at each call
_GOLDEN = 0.618  # its multiples are spread


class Options(Settings):
    rate: float = 1_000.0


async def due(channel: int, rate: float) -> AsyncGenerator[int]:
    """The numbers of rows, each when it is due: those of other channels at other times."""
    loop = asyncio.get_running_loop()
    start = loop.time() + channel * _GOLDEN % 1 / rate
    for number in itertools.count():
        await asyncio.sleep(max(start + number / rate - loop.time(), 0))
        yield number


class Ticks(DataSource[Options]):
    @stream("ticks/{channel}", share="cluster")
    async def ticks(self, channel: int) -> Any:
        async for number in due(channel, self.settings.rate):
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
            pids.append(process.pid)
            viewers.append([Viewer() for _ in range(options.channels)])
            for first in range(0, options.channels, AT_ONCE):
                if first % A_CONNECTION == 0:
                    opened = process.grafana({"rate": options.rate})
                    grafana = await stack.enter_async_context(opened)
                numbers = range(first, min(first + AT_ONCE, options.channels))
                await asyncio.gather(
                    *(grafana.attach(f"ticks/{n}", viewers[-1][n]) for n in numbers)
                )
        return await print_run(options, "shared" if url else "local", viewers, pids)


async def print_run(
    options: argparse.Namespace, name: str, viewers: list[list[Viewer]], pids: list[int]
) -> list[tuple[float, float]]:
    """Watch the viewers of each node when all have a row; see `measure`."""
    for _ in range(600):
        if all(viewer.rows for node in viewers for viewer in node):
            break
        await asyncio.sleep(0.1)
    else:
        raise TimeoutError("expected a row of each channel within a minute, got none of some")
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
            f"  {name:10} {rows / seconds:9,.0f} rows/s"
            f" {packets / seconds:8,.0f} packets/s, age p50 {ages[49] * 1000:6.1f}"
            f" p99 {ages[98] * 1000:7.1f} ms, processor {cost / rows * 1e6:6.1f} µs a row"
        )
    return found


async def compare(
    options: argparse.Namespace, peer: Callable[..., Awaitable[list[tuple[float, float]]]]
) -> None:
    """Measure a peer and shared streams in turns."""
    ratios = []
    with Redis() as server:
        for _ in range(options.rounds):
            print(f"load {os.getloadavg()[0]:.1f}")
            other = await peer(options, server.url)
            shared = await measure(options, server.url)
            ratios.append(
                sum(cost for _, cost in shared) / sum(cost for _, cost in other),
            )
    print(f"processor of both nodes, shared to peer: {', '.join(f'{r:.2f}' for r in ratios)}")


async def local(options: argparse.Namespace, url: str) -> list[tuple[float, float]]:
    """Streams that are not shared."""
    return await measure(options, "")


def main(peer: Callable[..., Awaitable[list[tuple[float, float]]]]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=1_000, help="rows a second of a channel")
    parser.add_argument("--channels", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help="be a plugin of the run")
    chosen = parser.parse_args()
    if chosen.serve:
        serve(Ticks)
    else:
        asyncio.run(compare(chosen, peer))


if __name__ == "__main__":
    main(local)
